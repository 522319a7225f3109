"""Documents: titles, sections with their heading path, ids, digests; what cannot be read is refused with its name."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.base.errors import InputError, TrimtabError
from trimtab.base.records import Document, Section
from trimtab.base.task import Task
from trimtab.data.documents import empty_pages, read_below, read_documents
from trimtab.data.markdown import parse_markdown


def test_without_a_task_file_no_key_of_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nText.\n")
    (tmp_path / "b.html").write_bytes(b"<p>\0</p>")
    documents, (error,) = read_below(tmp_path)
    assert [one.id for one in documents] == ["a.md"]
    assert str(error).startswith(f"{tmp_path / 'b.html'}: holds a NUL byte;")


def read(folder: Path, *documents: str) -> tuple[Document, ...]:
    task = Task(
        task={"name": "t", "kind": "answer"},
        data={"documents": documents},
        base={"model": "m"},
        file=folder / "trimtab.toml",
    )
    return read_documents(task)


def pdf(*pages: str) -> bytes:
    """A small PDF with one line of text on each page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        page = f"/Contents {5 + 2 * number} 0 R /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {page} >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return f"{out}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


MARKDOWN = """Before all.

# Leave

Opening.

## How much

27 days.
### Part-time
A share.

## How to ask ##

```sh
# not a heading
```

Later
-----

End.
"""


def test_markdown_sections() -> None:
    title, sections = parse_markdown(MARKDOWN, "file name")
    assert title == "Leave"
    assert sections == (
        Section(path=(), text="Before all."),
        Section(path=(), text="Opening."),
        Section(path=("How much",), text="27 days."),
        Section(path=("How much", "Part-time"), text="A share."),
        Section(path=("How to ask",), text="```sh\n# not a heading\n```"),
        Section(path=("Later",), text="End."),
    )
    assert parse_markdown(MARKDOWN.replace("\n", "\r\n"), "x") == (title, sections)


@pytest.mark.parametrize(
    ("text", "title", "paths"),
    [
        ("no heading", "given", [()]),
        ("## Only second\na", "given", [("Only second",)]),
        ("# One\na\n# Two\nb", "One", [(), ("Two",)]),
        ("---\ntitle: 'From front'\ntags:\n- x\n---\n# Head\na", "From front", [("Head",)]),
        ("---\ntitle: Head\n---\n# Head\na", "Head", [()]),
        ("---\n\nA rule, then text: no front matter\n\n---\n\nb", "given", [()]),
        ("Big\n===\na\n\n- item\n---\nb", "Big", [()]),
        ("#hashtag\n####### seven\na", "given", [()]),
        ("~~~\n# a\n```\n# b\n~~~\n# C\nx", "C", [(), ()]),
        ("    # code\n\n\t# code\n\n## D\nx", "given", [(), ("D",)]),
        ("<div>\n# markup\n</div>\n\n<!--\n## draft\n\n## draft\n-->\n\n## D\nx", "given", [(), ("D",)]),
        ("- item\n\n  # in a list\n\n> # quoted\n\n## D\nx", "given", [(), ("D",)]),
        ("a\nb\n---\nc", "given", [()]),  # a rule below a paragraph
        ("```\nx\n```\nD\n---\nx", "given", [(), ("D",)]),
        ("| a |\n|---|\n| # b |\n\n## D ##\nx", "given", [(), ("D",)]),
        ("# One\ra\r## Two\rb", "One", [(), ("Two",)]),
        ("---\ntitle: never closed\n", "given", [()]),
    ],
)
def test_markdown_titles_and_paths(text: str, title: str, paths: list[tuple[str, ...]]) -> None:
    found, sections = parse_markdown(text, "given")
    assert found == title
    assert [section.path for section in sections] == paths


@pytest.mark.parametrize(
    "unit", ["#\n", "# a\n", "# a" + " " * 400 + "b\n", "- # a\n", "a\n===\n", "<div>\n", "[a]: /x '\n", "> ", "a: 1\n"]
)
def test_reading_markdown_takes_time_linear_in_its_bytes(unit: str) -> None:
    def seconds(size: int) -> float:
        text = "---\n" + unit * (size // len(unit))
        began = time.process_time()
        parse_markdown(text, "x")
        return time.process_time() - began

    gc.disable()  # it would look through the heap of the whole test run
    try:
        small, large = (min(seconds(size) for _ in range(2)) for size in (30_000, 120_000))
    finally:
        gc.enable()
    assert large < 4 * small * 2 + 0.05  # quadratic would be 16 times


def test_memory_does_not_grow_with_every_block() -> None:
    text = "plain words\n\n" * 8_000
    parse_markdown("warm", "x")
    tracemalloc.start()
    parse_markdown(text, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(text)


WORDS = st.lists(st.text(st.characters(categories=("L", "N")), min_size=1), min_size=1, max_size=4).map(" ".join)


@given(blocks=st.lists(st.tuples(st.integers(0, 6), WORDS), max_size=12))
def test_markdown_loses_no_text(blocks: list[tuple[int, str]]) -> None:
    text = "\n\n".join(f"{'#' * level} {words}" if level else words for level, words in blocks)
    title, sections = parse_markdown(text, "")
    kept = " ".join([title, *(" ".join((*section.path, section.text)) for section in sections)])
    assert all(words in kept for level, words in blocks if level == 0)


def test_every_kind_of_document(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "deep" / "leave.md").write_text(MARKDOWN)
    (docs / "plain_note.txt").write_text("Just text.\n")
    (docs / "two.pdf").write_bytes(pdf("First page", "Second page"))
    (docs / "page.html").write_text(
        "<html><head><title>Help</title></head><body><nav><a href='/'>Menu entry</a></nav><main><h1>Returns</h1>"
        "<p>You can return things within 30 days, always with a receipt in your hand.</p><h2>How</h2>"
        "<p>Bring the receipt &amp; the item to the desk near the entrance.</p></main></body></html>"
    )
    (docs / "picture.png").write_bytes(b"\x89PNG")
    (docs / ".hidden.md").write_text("hidden")
    found = {document.id: document for document in read(tmp_path, "docs")}
    assert list(found) == ["deep/leave.md", "page.html", "plain_note.txt", "two.pdf"]
    assert found["plain_note.txt"].title == "Plain note"
    assert found["plain_note.txt"].sections == (Section(path=(), text="Just text."),)
    assert [(s.path, s.text) for s in found["two.pdf"].sections] == [
        (("page 1",), "First page"),
        (("page 2",), "Second page"),
    ]
    page = found["page.html"]
    assert page.title == "Returns"
    assert page.sections[-1] == Section(
        path=("How",), text="Bring the receipt & the item to the desk near the entrance."
    )
    assert "Menu entry" not in str(page.sections)
    for document in found.values():
        assert document.source == f"docs/{document.id}"
        assert document.digest == hashlib.sha256((docs / document.id).read_bytes()).hexdigest()


def test_a_page_without_main_text_gives_all_its_text(tmp_path: Path) -> None:
    (tmp_path / "short.html").write_text("<p>Hi there</p>")
    assert read(tmp_path, "short.html")[0].sections[0].text == "Hi there"


def test_a_listed_file_has_its_name_as_id(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# A\nx")
    assert read(tmp_path, "sub/a.md")[0].id == "a.md"
    assert read(tmp_path, "sub/*.md", "sub/a.md")[0].id == "a.md"
    assert read(tmp_path, ".")[0].id == "sub/a.md"


def test_two_documents_never_share_an_id(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(name)
    with pytest.raises(
        InputError, match=r"two/a\.md:data\.documents: shares the id 'a\.md' with .*one/a\.md; list the"
    ):
        read(tmp_path, "one", "two")


def test_squad_gives_a_document_a_paragraph(tmp_path: Path) -> None:
    article = {"title": "Big_Cats", "paragraphs": [{"context": "Lions roar.", "qas": []}, {"context": "Tigers swim."}]}
    (tmp_path / "cats.json").write_text(json.dumps({"data": [article, {**article, "title": "Dogs"}]}))
    documents = read(tmp_path, "cats.json")
    assert [d.id for d in documents] == ["cats/Big_Cats/0", "cats/Big_Cats/1", "cats/Dogs/0", "cats/Dogs/1"]
    assert documents[0].title == "Big Cats"
    assert documents[0].digest == documents[2].digest != documents[1].digest


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.md", b"", "empty; fill it, or leave it out"),
        ("a.md", b"# Only a title\n", "holds no text; leave it out"),
        ("a.txt", "caf\xe9".encode("latin-1"), "byte 0xE9 at offset 3 is not UTF-8; save it as UTF-8"),
        ("a.txt", "text".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("a.pdf", b"%PDF-1.4\nnonsense", "not readable as PDF"),
        ("a.pdf", pdf(""), "holds no text; recognise its pages"),
        ("a.odt", b"PK", "unknown kind of document; use one of: .md"),
        ("a.docx", b"PK", "is no file of Word, whatever its name says; save it again"),
        ("a.txt", b"PK\x03\x04", "is a ZIP archive, not text; unpack it"),
        ("a.json", b"{}", "is not SQuAD JSON; it needs"),
        ("a.html", b"<html></html>", "holds no text; leave it out"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path, name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert problem in str(caught.value)


def test_an_encrypted_pdf_is_named(tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    with pytest.raises(InputError, match=r"a\.pdf:data\.documents: is encrypted; save it without a password"):
        read(tmp_path, "a.pdf")


@pytest.mark.parametrize("name", ["a.md", "a.pdf", "a.html"])
def test_a_fifo_is_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a FIFO"):
        read(tmp_path, name)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    with pytest.raises(InputError, match=r"docs:data\.documents: no file of \.md, .*in this folder"):
        read(tmp_path, "docs")


@settings(deadline=3000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    cut=st.integers(0, 700),
    name=st.sampled_from(["a.md", "a.txt", "a.pdf", "a.html", "a.json"]),
)
def test_random_bytes_give_a_document_or_one_clear_error(tmp_path: Path, data: bytes, cut: int, name: str) -> None:
    (tmp_path / name).write_bytes(pdf("one", "two")[:cut] + data if name == "a.pdf" else data)
    try:
        documents = read(tmp_path, name)
    except TrimtabError:
        return
    assert all(section.text for document in documents for section in document.sections)


def test_a_page_of_a_folder_without_text_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\nText.\n")
    filled = "\n\n.. sphinx_argparse_cli::\n    :module: pages.main\n    :title:\n"
    (tmp_path / "docs" / "b.rst").write_text("#####\n Title\n#####" + filled)
    task = Task(
        task={"name": "t", "kind": "answer"},
        data={"documents": ["docs"]},
        base={"model": "m"},
        file=tmp_path / "t.toml",
    )
    documents = read_documents(task)
    assert [document.id for document in documents] == ["a.md"]
    assert [Path(one.file).name for one in empty_pages(task, documents)] == ["b.rst"]
    (tmp_path / "docs" / "a.md").unlink()
    with pytest.raises(InputError, match="holds no text"):
        read_documents(task)
