"""Extracts text from Word, Excel and PowerPoint files, for the worker process; headings become paths, table rows
lines."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

from trimtab.data.sources import is_bomb

ExtractedText = tuple[str, Iterator[tuple[tuple[str, ...], str]]]


class DecompressionBombError(Exception):
    """A file that unpacks to far more than any text would."""


class NoSheetError(Exception):
    """A workbook without the requested sheet; `args` are its sheets."""


def refuse_bomb(data: bytes) -> None:
    """Raise DecompressionBombError if the declared sizes of an Office file's parts are far larger than the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if is_bomb(unpacked, len(data)):
        raise DecompressionBombError(f"{len(data):,} bytes unpack to {unpacked:,}: a decompression bomb")


def read_word(data: bytes, title: str) -> ExtractedText:
    """Return paragraphs under their headings; the cells of table rows are joined by ` | `."""
    import docx

    document = docx.Document(io.BytesIO(data))
    return document.core_properties.title.strip() or title, _word_sections(document)


def _word_sections(document: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    from docx.table import Table

    path: list[tuple[int, str]] = []
    text = ""
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            # A merged cell is listed for each of its columns, as the same object.
            rows = ([cell.text for cell in dict.fromkeys(row.cells)] for row in block.rows)
            text += "\n\n" + "\n".join(filter(None, map(_line, rows)))
            continue
        style = (block.style.name or "") if block.style is not None else ""
        words = block.text.strip()
        level = style.removeprefix("Heading ")
        if level != style and level.isdecimal() and words:
            yield tuple(name for _, name in path), text.strip()
            text = ""
            while path and path[-1][0] >= int(level):
                path.pop()
            path.append((int(level), words))
        elif words:
            text += f"\n- {words}" if style.startswith("List") else f"\n\n{words}"
    yield tuple(name for _, name in path), text.strip()


def read_powerpoint(data: bytes, title: str) -> ExtractedText:
    """Return one section per slide with the path `slide N` and the slide's title; speaker notes at the end."""
    import pptx

    deck = pptx.Presentation(io.BytesIO(data))
    return deck.core_properties.title.strip() or title, _slides(deck)


def _slides(deck: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    for number, slide in enumerate(deck.slides, start=1):
        heading = slide.shapes.title
        slide_title = " ".join(heading.text_frame.text.split()) if heading is not None else ""
        shapes = (shape for shape in slide.shapes if heading is None or shape.shape_id != heading.shape_id)
        texts = [text for shape in shapes for text in _shape_texts(shape)]
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        texts += [notes.text] if notes is not None else []
        text = "\n\n".join(stripped for text in texts if (stripped := text.replace("\v", "\n").strip()))
        yield (f"slide {number}", *filter(None, [slide_title])), text or slide_title  # a slide may have only a title


def _shape_texts(shape: Any) -> Iterator[str]:
    for inner in getattr(shape, "shapes", ()):  # of a group
        yield from _shape_texts(inner)
    if getattr(shape, "has_table", False):
        yield "\n".join(_line([cell.text for cell in row.cells]) for row in shape.table.rows)
    elif shape.has_text_frame:
        yield shape.text_frame.text


def read_excel_sections(data: bytes, title: str) -> ExtractedText:
    """Return one section per sheet, named by the sheet; each row is a line `column: value; column: value`."""
    return title, ((((name,), "\n".join(_lines_with_headers(rows)))) for name, rows in _sheets(data))


def _lines_with_headers(rows: Iterator[tuple[int, list[str]]]) -> Iterator[str]:
    """Yield each row with its column names, so that a line is complete by itself; rows before the header stay as they
    are."""
    header: list[str] = []
    for _, cells in rows:
        if not header and len(cells) > 1 and all(cells):
            header = cells
        elif header and len(cells) <= len(header):
            pairs = zip(header, cells, strict=False)
            yield "; ".join(f"{name}: {cell}" for name, cell in pairs if cell)
        else:
            yield _line(cells)


def read_excel_rows(data: bytes, sheet: str = "") -> Iterator[tuple[str, Iterator[tuple[int, list[str]]]]]:
    """Yield the visible sheets, or the named one: name, and number and cells of each non-empty row.

    Raises NoSheetError if there is no sheet of that name.
    """
    names: list[str] = []
    for name, rows in _sheets(data):
        names.append(name)
        if not sheet or name == sheet:
            yield name, rows
    if sheet and sheet not in names:
        raise NoSheetError(*names)


def _sheets(data: bytes) -> Iterator[tuple[str, Iterator[tuple[int, list[str]]]]]:
    """Yield the visible sheets: name, and number and cells of each non-empty row; formulas by their saved values."""
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible":
            sheet.reset_dimensions()  # the dimensions that other programs write are often wrong
            yield sheet.title, _rows(sheet)


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_cell(value) for value in values]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _cell(value: Any) -> str:
    """Return a cell as text: whole numbers without a decimal point, dates in ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, (date, time)) else str(value).strip()


def _line(cells: Sequence[str]) -> str:
    return " | ".join(" ".join(cell.split()) for cell in cells if cell.strip())
