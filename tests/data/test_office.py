"""Word, Excel and PowerPoint: as documents with their headings, sheets as rows too; what is odd is refused in one
line."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest

from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.records import Document, Refusal
from trimtab.base.task import Task, load_task
from trimtab.data.documents import read_documents, unread_files
from trimtab.data.formats import detect, read_examples
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import read_raw_rows
from trimtab.studies.init import init


def word(path: Path) -> None:
    file = docx.Document()
    file.core_properties.title = "Leave"
    file.add_paragraph("Before all.")
    file.add_heading("Leave", 1)
    file.add_paragraph("Everybody has 28 days.")
    file.add_heading("Sick leave", 2)
    file.add_paragraph("Call before nine.")
    file.add_paragraph("Send a note.", style="List Bullet")
    table = file.add_table(rows=4, cols=2)
    for row, cells in zip(table.rows, (("Country", "Days"), ("Peru", "30"), ("None", "None"), ("", "")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.rows[3].cells[0].merge(table.rows[3].cells[1]).text = "Both"
    file.add_heading("Parents", 1)
    file.add_paragraph("Twelve weeks.")
    file.save(path)


def slides(path: Path) -> None:
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Refunds", "They take five days."
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    file.slides.add_slide(file.slide_layouts[0]).shapes.title.text = "Thank you"
    file.save(path)


def book(path: Path, **sheets: Sequence[Sequence[object]]) -> None:
    file = openpyxl.Workbook()
    file.remove(file.active)
    for name, rows in sheets.items():
        sheet = file.create_sheet(name)
        for row in rows:
            sheet.append(row)
    file.save(path)


def tickets(rows: int, first: int = 0) -> list[tuple[str, str]]:
    return [(f"Message {n * 7919 % 9973} about {'abc'[n % 3]}{n}", "xyz"[n % 3]) for n in range(first, first + rows)]


def task(folder: Path, **data: object) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "classify" if "examples" in data else "answer"},
            "data": data,
            "file": folder / "t.toml",
        }
    )


def sections(documents: Sequence[Document]) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    return {document.id: [(section.path, section.text) for section in document.sections] for document in documents}


def rows_of(path: Path) -> list[dict[str, str]]:
    return [dict(row.fields) for row in read_raw_rows(path) if isinstance(row, RawRow)]


def test_a_folder_of_office_files_is_read_and_what_is_not_is_named(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    word(docs / "leave.docx")
    slides(docs / "refunds.pptx")
    book(
        docs / "prices.xlsx",
        Prices=[("Product", "Price", "From"), ("Lamp", 12.0, date(2026, 11, 30)), ("Table", 99.5, None)],
    )
    for name in ("old.doc", "plan.png", "NOTES", ".hidden"):
        (docs / name).write_text("x")
    own = task(tmp_path, documents=["docs/"])
    found = read_documents(own)
    assert found[0].title == "Leave"
    assert sections(found) == {
        "leave.docx": [
            ((), "Before all."),
            (("Leave",), "Everybody has 28 days."),
            (
                ("Leave", "Sick leave"),
                "Call before nine.\n- Send a note.\n\nCountry | Days\nPeru | 30\nNone | None\nBoth",
            ),
            (("Parents",), "Twelve weeks."),
        ],
        "prices.xlsx": [(("Prices",), "Product: Lamp; Price: 12; From: 2026-11-30\nProduct: Table; Price: 99.5")],
        "refunds.pptx": [
            (("slide 1", "Refunds"), "They take five days.\n\nSay it slowly."),
            (("slide 2", "Thank you"), "Thank you"),
        ],
    }
    assert {Path(one.file).name: one.remedy.split(":")[0] for one in unread_files(own)} == {
        "NOTES": "to be read it must be one of",
        "old.doc": "save it as .docx",
        "plan.png": "recognise its text (OCR), or leave it",
    }
    assert open_workspace(own).refusals == unread_files(own)
    assert len((tmp_path / ".trimtab" / "refused.jsonl").read_text().splitlines()) == 3


def test_a_sheet_of_rows_is_read_below_its_header(tmp_path: Path) -> None:
    book(
        tmp_path / "a.xlsx",
        Tickets=[
            ("All of 2026",),
            (),
            (None, "text", "label"),
            (1, "It is broken", "hardware"),
            (2.0, "I forgot it", True),
        ],
        Notes=[("who", "what"), ("a", "b")],
    )
    found = list(read_raw_rows(tmp_path / "a.xlsx"))
    assert [dict(row.fields) for row in found if isinstance(row, RawRow)] == [
        {"column 1": "1", "text": "It is broken", "label": "hardware"},
        {"column 1": "2", "text": "I forgot it", "label": "true"},
    ]
    assert [row.line for row in found if isinstance(row, RawRow)] == [4, 5]  # as Excel numbers them
    (other,) = [row for row in found if isinstance(row, Refusal)]
    assert (other.is_file, other.reason) == (True, "its sheet 'Notes' is not read")
    assert other.remedy == 'to read it name "a.xlsx#Notes"'
    assert rows_of(tmp_path / "a.xlsx#Notes") == [{"who": "a", "what": "b"}]
    with pytest.raises(InputError, match=r"a\.xlsx: has no sheet 'Nots'; name one of: Tickets, Notes"):
        rows_of(tmp_path / "a.xlsx#Nots")


def test_sheets_that_are_called_as_splits_are_the_splits(tmp_path: Path) -> None:
    book(tmp_path / "a.xlsx", train=[("text", "label"), *tickets(12)], test=[("text", "label"), *tickets(6, 12)])
    assert detect(tmp_path / "a.xlsx").splits == {"train", "test"}
    own = task(tmp_path, examples=["a.xlsx"])
    assert [row.split for row in read_examples(own, own.data.examples).examples].count("test") == 6


def test_init_reads_a_folder_with_a_workbook_alone(tmp_path: Path) -> None:
    book(tmp_path / "a.xlsx", S=[("message", "queue"), *tickets(90)], Other=[("a", "b"), (1, 2)])
    assert "its sheet 'Other' is not read; to read it name \"a.xlsx#Other\"" in init(tmp_path)
    own = load_task(tmp_path)
    assert (own.data.examples, own.data.documents) == (("a.xlsx",), ())
    assert own.data.columns == {"input": "message", "label": "queue"}
    assert len(read_examples(own, own.data.examples).examples) == 90


def test_a_workbook_beside_documents_is_one_unless_its_columns_are_named_as_rows_are(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    word(docs / "a.docx")
    book(docs / "prices.xlsx", S=[("Product", "Price"), ("Lamp", 12), ("Table", 99)])
    book(docs / "faq.xlsx", S=[("question", "answer"), *((f"Where is {n}?", f"On floor {n}") for n in range(9))])
    init(tmp_path)
    own = load_task(tmp_path)
    assert (own.data.examples, own.data.documents) == (("docs/faq.xlsx",), ("docs/",))
    assert [document.id for document in read_documents(own)] == ["a.docx", "prices.xlsx"]  # the answers are no document
    assert unread_files(own) == ()


def test_a_folder_that_init_names_shows_later_files(tmp_path: Path) -> None:
    for name in ("a.docx", "b.docx"):
        word(tmp_path / name)
    init(tmp_path)
    own = load_task(tmp_path)
    assert own.data.documents == ("*.docx",)
    word(tmp_path / "c.docx")
    assert len(read_documents(own)) == 3


@pytest.mark.parametrize(
    ("module", "package", "name"), [("docx", "python-docx", "a.docx"), ("pptx", "python-pptx", "a.pptx")]
)
def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str, name: str
) -> None:
    (word if name == "a.docx" else slides)(tmp_path / name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == module else find(asked))
    with pytest.raises(
        InputError,
        match=rf"{package}, which reads it, is not installed; install it with: pip install 'trimtab\[office\]'",
    ):
        read_documents(task(tmp_path, documents=[name]))


def test_an_office_file_that_unfolds_into_much_is_refused(tmp_path: Path) -> None:
    book(tmp_path / "a.xlsx", S=[("a", "b"), (1, 2)])
    with zipfile.ZipFile(tmp_path / "a.xlsx", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/more.xml", b" " * 30_000_000)
    with pytest.raises(InputError, match=r"unpack to 30,\d+,\d+: a decompression bomb; save it as CSV"):
        rows_of(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="a decompression bomb; save its text, or leave it out"):
        read_documents(task(tmp_path, documents=["a.xlsx"]))


def packed(name: str = "a.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text,label\n")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (packed(), "is a ZIP archive, not text; unpack it"),
        (packed("word/document.xml"), "is a Word file, not text; let its name end in .docx"),
        (b"%PDF-1.7\n", "is a PDF file, not text; let its name end in .pdf"),
        (b"\xfd7zXZ\0\0\0", "is an xz archive, not text; unpack it"),
        (b"Rar!\x1a\x07\x01\0", "is an RAR archive, not text; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image, not text; leave it out"),
        (b"SQLite format 3\0", "is an SQLite database; write its rows as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an encrypted or an old Office file; save it as .docx, .xlsx or"),
    ],
)
def test_what_is_no_text_under_a_name_of_text_is_told_by_its_first_bytes(
    tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=told.replace(".", r"\.")):
        rows_of(tmp_path / name)


def test_a_format_that_is_read_is_read_under_any_name(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    book(tmp_path / "a.xlsx", S=[("text", "label"), ("x", "y")])
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"], "label": ["y"]}), tmp_path / "a.parquet")
    for name in ("a.xlsx", "a.parquet"):
        (tmp_path / "a.csv").write_bytes((tmp_path / name).read_bytes())
        assert rows_of(tmp_path / "a.csv") == [{"text": "x", "label": "y"}]
    word(tmp_path / "a.txt")
    assert read_documents(task(tmp_path, documents=["a.txt"]))[0].title == "Leave"
