"""HTML and PDF are read within bounds: processor time, memory and letters in relation to the file's size, in one
process for many files."""

from __future__ import annotations

import json
import os
import signal
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import DocumentsError, InputError
from trimtab.base.records import Document
from trimtab.base.task import Task
from trimtab.data import text_extraction
from trimtab.data.documents import read_documents

PAGE = (
    b"<html><head><title>Help</title></head><body><nav><a href='/'>Menu</a></nav><main><h1>Returns</h1>"
    b"<p>You can return things within 30 days, always with a receipt in your hand.</p><h2>How</h2>"
    b"<ul><li>Bring the receipt &amp; the "
    b"item</li></ul><table><tr><td>a</td><td>b</td></tr></table></main></body></html>"
)


def read(folder: Path, *names: str) -> tuple[Document, ...]:
    file = folder / "trimtab.toml"
    return read_documents(
        Task(task={"name": "t", "kind": "answer"}, data={"documents": names}, base={"model": "m"}, file=file)
    )


def pdf(content: bytes, pages: int = 1, to_unicode: bytes = b"") -> bytes:
    """A PDF whose pages all are the same one, with this content; `to_unicode`: of its font."""
    packed = zlib.compress(content, 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"3 0 R " * pages, pages),
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(to_unicode), to_unicode),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return b"%sxref\n0 %d\n0000000000 65535 f \n%s%s" % (out, len(objects) + 1, table, end)


def text(letters: bytes) -> bytes:
    return b"BT /F1 12 Tf 72 720 Td (" + letters + b") Tj ET\n"


def test_a_page_that_a_small_pdf_repeats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(text(b"a" * 160_000), pages=256))
    size = (tmp_path / "a.pdf").stat().st_size
    assert size < 3000
    with pytest.raises(InputError) as caught:
        read(tmp_path, "a.pdf")
    assert str(caught.value) == (
        f"{tmp_path / 'a.pdf'}:data.documents: {size:,} bytes give more than {2 << 20:,} letters; "
        "save its text, or leave it out"
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pdf", pdf(b"q Q " * 50_000, pages=10_000)),
        ("a.html", b"<html><body><p>" + b"<b>a</b> " * 40_000 + b"</p></body></html>"),
    ],
)
def test_what_takes_too_long_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "b.pdf").write_bytes(pdf(text(b"Some words")))
    monkeypatch.setattr(text_extraction, "SECONDS", 1)
    monkeypatch.setattr(text_extraction, "SECONDS_EACH", {"HTML": 0, "PDF": 0})
    monkeypatch.setattr(text_extraction, "MEGABYTES", 8192)  # a fast machine fills 512 MB within the second
    with pytest.raises(
        InputError, match=rf"{name}:data\.documents: takes more than 1 s of processor time or 8,\d\d\d MB"
    ):
        read(tmp_path, name)
    monkeypatch.undo()
    assert read(tmp_path, "b.pdf")[0].sections[0].text == "Some words"


def test_what_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(text(b"a" * 60_000_000)))
    monkeypatch.setattr(text_extraction, "MEGABYTES", 60)
    with pytest.raises(InputError, match=r"a\.pdf:data\.documents: takes more than 61 MB of memory; save its text"):
        read(tmp_path, "a.pdf")


def test_one_process_reads_many_files(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.html").write_bytes(PAGE)
        (tmp_path / f"{number}.pdf").write_bytes(pdf(text(b"Some words")))
    read(tmp_path, "0.html")
    process = text_extraction._extractor._process
    assert len(read(tmp_path, "*.html", "*.pdf")) == 10
    assert process is text_extraction._extractor._process is not None


def test_a_process_that_somebody_ended_is_followed_by_another(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(PAGE)
    before = read(tmp_path, "a.html")
    process = text_extraction._extractor._process
    assert process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read(tmp_path, "a.html") == before


def test_half_a_character_becomes_the_sign_for_it(tmp_path: Path) -> None:
    """Text that holds one could not be written to an index."""
    cmap = b"1 begincodespacerange <00> <FF> endcodespacerange 2 beginbfchar <41> <D800> <42> <D83DDE00> endbfchar"
    (tmp_path / "a.pdf").write_bytes(pdf(text(b"xABx"), to_unicode=cmap))
    (section,) = read(tmp_path, "a.pdf")[0].sections
    assert section.text == "x\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}x"


def test_every_document_that_cannot_be_read_is_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name, data in {"a.md": b"# A\ntext", "b.pdf": b"nonsense", "c.html": b"<p></p>", "d.txt": b"\xff"}.items():
        (tmp_path / "docs" / name).write_bytes(data)
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    task = Task(
        task={"name": "t", "kind": "answer"},
        data={"documents": ["docs"], "examples": ["rows.jsonl"]},
        base={"model": "m"},
        file=tmp_path / "trimtab.toml",
    )
    with pytest.raises(DocumentsError, match=r"docs/b\.pdf.*\(2 more cannot be read: see \.trimtab/refused\.jsonl\)$"):
        open_workspace(task)
    listed = [json.loads(line) for line in (tmp_path / ".trimtab" / "refused.jsonl").read_text().splitlines()]
    assert [Path(line["file"]).name for line in listed] == ["b.pdf", "c.html", "d.txt"]
    assert all(line["reason"] and line["remedy"] for line in listed)


SOUND = {"a.pdf": pdf(text(b"one") + b"(two) Tj", pages=2), "a.html": PAGE}
CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "repeat"]), st.integers(0, 10_000), st.integers(0, 255)),
    min_size=1,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, name=st.sampled_from(list(SOUND)))
def test_a_damaged_file_gives_a_document_or_one_clear_line(
    tmp_path: Path, changes: list[tuple[str, int, int]], name: str
) -> None:
    data = bytearray(SOUND[name])
    for kind, place, byte in changes:
        at = place % len(data)
        if kind == "flip":
            data[at] = byte
        elif kind == "cut" and len(data) > byte:
            del data[at : at + byte]
        else:
            data[at:at] = data[at : at + byte] * 2
    (tmp_path / name).write_bytes(bytes(data) or b" ")
    try:
        (document,) = read(tmp_path, name)
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert all(section.text for section in document.sections)
