from __future__ import annotations

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from interrupted import interrupted_before_record

from trimtab.base.errors import BusyError, InputError
from trimtab.base.files import locked
from trimtab.retrieval import index as index_module
from trimtab.retrieval.embed import Embedder, embedded_text
from trimtab.retrieval.index import Changes, Index
from trimtab.retrieval.lance import LanceStore
from trimtab.retrieval.search import hybrid_search

FACTS = {"leave.md": "Leave lasts fifteen days.", "pay.md": "Pay comes monthly.", 'o\'brien "x".md': "Ask O'Brien."}


def texts_of(index: Index, question: str, k: int = 9) -> list[str]:
    return [hit.passage.text for hit in hybrid_search(index, [question], k)[0]]


@pytest.fixture
def documents(make_document):
    return [make_document(name, text) for name, text in FACTS.items()]


def test_an_empty_folder_is_an_empty_index_and_is_not_written_to(tmp_path, encoder) -> None:
    index = Index.open(tmp_path / "index", encoder)
    assert hybrid_search(index, ["leave"], 3) == [()]
    assert not list(tmp_path.iterdir())


def test_update_counts_and_does_nothing_twice(tmp_path, encoder, documents) -> None:
    index = Index.open(tmp_path, encoder)
    assert index.update(documents) == Changes(added=3)
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    assert not index.update(documents)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    assert len(encoder.encoded) == 3


def test_an_edited_fact_is_found_at_once_and_only_it_is_embedded(tmp_path, encoder, documents, make_document) -> None:
    index, other = Index.open(tmp_path, encoder), Index.open(tmp_path, encoder)
    index.update(documents)
    assert texts_of(other, "leave days", 1) == [FACTS["leave.md"]]
    encoder.encoded.clear()
    edited = [make_document("leave.md", "Leave lasts twenty days."), *documents[1:]]
    assert index.update(edited) == Changes(changed=1)
    assert len(encoder.encoded) == 1
    assert texts_of(index, "leave days", 1) == texts_of(other, "leave days", 1) == ["Leave lasts twenty days."]
    assert FACTS["leave.md"] not in texts_of(index, "leave fifteen days")


def test_a_renamed_document_is_not_embedded_again(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder)
    index.update([make_document("old.md", "Leave lasts fifteen days.", title="Leave")])
    renamed = [make_document("new.md", "Leave lasts fifteen days.", title="Leave")]
    assert index.update(renamed) == Changes(added=1, removed=1)
    assert len(encoder.encoded) == 1
    assert list(index.passages) == ["new.md#0"]


def test_documents_are_removed_whatever_their_names(tmp_path, encoder, documents) -> None:
    index = Index.open(tmp_path, encoder)
    index.update(documents)
    assert index.update(documents[:2]) == Changes(removed=1)
    assert len(index.passages) == 2
    assert index.update([]) == Changes(removed=2)
    assert texts_of(index, "leave") == []
    assert index.update(documents) == Changes(added=3)
    assert len(texts_of(index, "leave")) == 3


def test_the_road_to_a_set_of_documents_does_not_matter(tmp_path, encoder, make_document) -> None:
    documents = [make_document(f"{n}.md", f"fact {n} of {n % 3} kinds", f"more on {n}") for n in range(12)]
    straight, winding = Index.open(tmp_path / "a", encoder), Index.open(tmp_path / "b", encoder)
    straight.update(documents)
    for step in (documents[:5], [make_document("3.md", "other"), *documents[8:]], documents[2:], documents):
        winding.update(step)
    for question in ("fact 3", "kinds of more", "2"):
        assert hybrid_search(straight, [question], 9) == hybrid_search(winding, [question], 9)
    assert straight.passages == winding.passages


def test_what_is_on_disk_is_there_for_the_next_process(tmp_path, encoder, documents) -> None:
    first = Index.open(tmp_path, encoder)
    first.update(documents)
    second = Index.open(tmp_path, encoder)
    assert second.passages == first.passages
    assert not second.update(documents)


def test_another_embedding_or_way_of_cutting_never_meets_old_vectors(
    tmp_path, encoder, encoder_type, documents
) -> None:
    Index.open(tmp_path, encoder).update(documents)
    wider = encoder_type("wider", 128)
    assert Index.open(tmp_path, wider).update(documents) == Changes(added=3)
    assert len(wider.encoded) == 3
    cut = Index.open(tmp_path, encoder, words=2, overlap=0)
    assert cut.update(documents) == Changes(added=3)
    assert len(cut.passages) > 3
    assert not Index.open(tmp_path, encoder).update(documents)


def test_a_crash_before_the_end_leaves_the_old_state(tmp_path, encoder, documents, make_document, monkeypatch) -> None:
    index = Index.open(tmp_path, encoder)
    index.update(documents)
    edited = [make_document("leave.md", "Leave lasts twenty days."), *documents[1:]]

    with interrupted_before_record(LanceStore, monkeypatch):
        index.update(edited)
    again = Index.open(tmp_path, encoder)
    assert texts_of(again, "leave days", 1) == [FACTS["leave.md"]]
    assert again.update(edited) == Changes(changed=1)
    assert texts_of(again, "leave days", 1) == ["Leave lasts twenty days."]


def test_readers_always_see_one_whole_state(tmp_path, encoder, encoder_type, make_document) -> None:
    states = [[make_document(f"{n}.md", f"fact {n} number{state}") for n in range(6)] for state in range(4)]
    writer = Index.open(tmp_path, encoder)
    writer.update(states[0])
    seen: list[set[str]] = []
    done = threading.Event()

    def read() -> None:
        reader = Index.open(tmp_path, encoder_type())
        while not done.is_set():
            seen.append({text.split()[-1] for text in texts_of(reader, "fact")})

    thread = threading.Thread(target=read)
    thread.start()
    for state in states[1:] * 2:
        writer.update(state)
    done.set()
    thread.join()
    assert seen
    assert all(len(state) == 1 for state in seen)


def test_one_that_stays_answers_from_its_version_while_another_is_written_and_old_ones_go(
    tmp_path, encoder, make_document, monkeypatch
) -> None:
    monkeypatch.setattr(index_module, "OLD_VERSIONS", timedelta(milliseconds=1))

    def update(state: int) -> Index:
        index = Index.open(tmp_path, encoder)
        index.update([make_document("a.md", f"fact number{state}")])
        return index

    first = update(0)
    first.pin_version()
    second = update(1)
    assert (texts_of(first, "fact"), texts_of(second, "fact")) == (["fact number0"], ["fact number1"])
    sizes = []
    for state in range(2, 6):
        update(state)
        sizes.append(sum(path.suffix == ".lance" for path in tmp_path.rglob("*")))
    assert len(set(sizes)) == 1


def test_one_writer_at_a_time(tmp_path, encoder, documents) -> None:
    with locked(tmp_path), pytest.raises(BusyError):
        Index.open(tmp_path, encoder).update(documents)


def test_two_documents_of_one_name_are_refused(tmp_path, encoder, documents) -> None:
    with pytest.raises(InputError, match="one id"):
        Index.open(tmp_path, encoder).update([*documents, documents[0]])


def test_a_passage_is_embedded_with_its_title_and_headings(tmp_path, encoder, make_document) -> None:
    index = Index.open(tmp_path, encoder)
    index.update([make_document("x.md", "Fifteen days.", title="Leave policy")])
    (passage,) = index.passages.values()
    assert encoder.encoded == [embedded_text(passage)] == ["Leave policy\nPart 0\nFifteen days."]
    assert texts_of(index, "policy", 1) == ["Fifteen days."]


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {"cut": content[: len(content) // 2], "empty": b"", "one bit": bytes(flipped), "deep": b"[" * 100_000}


@pytest.mark.parametrize("way", ["cut", "empty", "one bit", "deep", "gone"])
def test_a_damaged_index_is_made_anew_whichever_of_its_files_it_is(tmp_path, encoder_type, documents, way) -> None:
    whole = Index.open(tmp_path / "whole", encoder_type())
    whole.update(documents)
    right = hybrid_search(whole, ["leave days", "pay"], 3)
    files = [path for path in whole.folder.rglob("*") if path.suffix and path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".lance", ".manifest"}
    for number, file in enumerate(files):
        folder = shutil.copytree(whole.folder, tmp_path / str(number))
        harmed = folder / file.relative_to(whole.folder)
        content = damaged(harmed.read_bytes()).get(way)
        harmed.unlink()
        if content is not None:
            harmed.write_bytes(content)
        index = Index.open(folder, encoder_type())
        index.update(documents)
        assert hybrid_search(index, ["leave days", "pay"], 3) == right, harmed
        assert not Index.open(folder, encoder_type()).update(documents)


def test_a_model_with_foreign_code_or_pickled_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="trimtab pull"):
        Embedder(tmp_path)
    (tmp_path / "modules.json").write_text('[{"path": "", "type": "os.system"}]')
    with pytest.raises(InputError, match="code from elsewhere"):
        Embedder(tmp_path)
    (tmp_path / "modules.json").write_text('[{"path": "", "type": "sentence_transformers.models.Transformer"}]')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickle"):
        Embedder(tmp_path)


def test_seconds_are_those_of_the_whole_index_whether_it_was_there_or_not(
    tmp_path, encoder, documents, make_document, monkeypatch
) -> None:
    clock = [0.0]
    encode = encoder.encode

    def slow(texts):
        clock[0] += sum(map(len, texts))  # a second a character
        return encode(texts)

    monkeypatch.setattr("trimtab.retrieval.index.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(encoder, "encode", slow)

    def made(folder: str, *states) -> float:
        for state in states:
            Index.open(tmp_path / folder, encoder).update(state)
        return Index.open(tmp_path / folder, encoder).seconds

    edited = [make_document("leave.md", "Leave lasts twenty days and one."), *documents[1:]]
    straight = made("a", edited)
    assert straight > 0
    assert made("a", edited, edited) == straight  # nothing was embedded again
    assert made("b", documents, edited) == pytest.approx(straight)  # one of three was
    assert made("c", edited[:1], edited) == pytest.approx(straight)
    assert made("d") == 0.0
