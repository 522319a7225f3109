"""The session: what many questions share is read, looked up and embedded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_tasks import CITIES, CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms import session as looking_up
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task
from trimtab.inference import label_scoring as choose


def test_closed_sets_hold_their_prefix_and_answer_alone_as_together(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["few-shot"], rows=rows_of(80), task=CLASSIFY, data=LABELLED)
    session = open_session(open_workspace(load_task(task)))
    test = session.workspace.splits["test"]
    prompts = PromptBuilder(session, Context(shots=2, shot_kind="few-shot")).prompts(test)
    together = session.answer(prompts)
    read: list[int] = []
    real = choose.read_prefix

    def counted(base, ids):
        read.append(len(ids))
        return real(base, ids)

    monkeypatch.setattr(choose, "read_prefix", counted)
    alone = session.label_chooser(prompts[:8], None)
    assert len(read) == 1
    assert read[0] > 60  # the instruction and both shots
    one_by_one = [alone(prompt) for prompt in prompts]
    assert len(read) == 1  # no question pays for it again
    assert [one.text for one in one_by_one] == [one.text for one in together]
    for one, other in zip(one_by_one, together, strict=True):
        assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Session:
    """Questions about towns, and two long documents about them."""
    folder = tmp_path_factory.mktemp("looking-up")
    (folder / "documents").mkdir()
    for name, towns in (("north", CITIES[:5]), ("south", CITIES[5:])):
        facts = [
            f"{town} has {7 * number + 3} bridges over {name} river {number}." for number, town in enumerate(towns)
        ]
        (folder / "documents" / f"{name}.md").write_text(f"# {name}\n" + " ".join(facts * 6) + "\n")
    base, data = f'embedding = "{tiny_embedding_folder}"', 'documents = ["documents/"]'
    task = write_task(folder, tiny_model_folder, ["rag"], rows=rows_of(40), data=data, base=base)
    return open_session(open_workspace(load_task(task)))


def test_each_size_of_passages_has_an_index_of_its_own_that_is_made_when_asked_for(session: Session) -> None:
    test = session.workspace.splits["test"]
    usual = session.hits(test)
    assert not session.index_folder(30).exists()
    assert len(session.texts_to_embed(30)) > len(session.index_of().passages)
    before = sorted(path for path in session.index_folder().rglob("*"))
    smaller = session.hits(test, chunk_words=30)
    assert session.texts_to_embed(30) == []
    assert sorted(path for path in session.index_folder().rglob("*")) == before
    assert session.index_folder(30) != session.index_folder()
    assert session.index_of() is session.index_of(120)
    for found, index in ((usual, session.index_of()), (smaller, session.index_of(30))):
        assert {hit.passage.id: hit.passage for hits in found for hit in hits}.items() <= index.passages.items()
    assert max(len(hit.passage.text.split()) for hits in smaller for hit in hits) <= 35
    assert session.hits(test) == usual


def test_passages_are_looked_up_once_for_each_question_and_setting(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = session.workspace.splits["test"]
    session.forget_hits()
    asked: list[float] = []
    real = looking_up.hybrid_search

    def counted(index, questions, k, *, vector_weight):
        asked.extend([vector_weight] * len(questions))
        return real(index, questions, k, vector_weight=vector_weight)

    monkeypatch.setattr(looking_up, "hybrid_search", counted)
    by_weight = {weight: session.hits([*test, *test], vector_weight=weight) for weight in (0.0, 0.5, 1.0)}
    assert {weight: session.hits(test, vector_weight=weight) for weight in by_weight} == {
        weight: hits[: len(test)] for weight, hits in by_weight.items()
    }
    assert session.hits(test) == by_weight[0.5][: len(test)]
    assert by_weight[0.0] != by_weight[1.0]
    assert len(asked) == 3 * len({example.input for example in test})
    session.forget_hits()
    session.hits(test)
    assert len(asked) == 4 * len({example.input for example in test})


def test_a_text_is_embedded_once_in_a_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    real = session.embedder.encode
    monkeypatch.setattr(session.embedder, "encode", lambda texts: given.extend(texts) or real(texts))
    first = session.embed(["north", "south", "north"])
    again = session.embed(["south", "west", "north"])
    assert given == ["north", "south", "west"]
    assert (first[0] == first[2]).all()
    assert (again[[0, 2]] == first[[1, 0]]).all()
    assert again == pytest.approx(real(["south", "west", "north"]), abs=1e-6)
    assert session.embed([]).shape == (0, first.shape[1])
