"""Reads SQuAD JSON: articles of paragraphs with questions, which give both the documents and the examples."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import read_json_value
from trimtab.data.strict_json import LONE_SURROGATE, has_lone_surrogate, type_name

_ID = re.compile(r'"id"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*"|[\w.+-]+)')


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph; `id` is `{file stem}/{article}/{n}` with n from 0, `questions` are its raw rows."""

    id: str
    article: str
    text: str
    questions: tuple[RawRow, ...]


def is_squad(value: Any) -> bool:
    """True if a JSON value has the structure of a SQuAD file."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("data"), list)
        and all(isinstance(article, dict) and "paragraphs" in article for article in value["data"])
    )


def looks_like_squad(path: Path) -> bool:
    """True if the beginning of a file could be SQuAD; a cheap test, so that other JSON is not parsed twice."""
    if not path.name.lower().removesuffix(".gz").endswith(".json"):
        return False
    from trimtab.data.sources import open_checked

    with open_checked(path) as file:
        head = file.read(1024 * 1024)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"paragraphs"' in head and b'"data"' in head


def read_paragraphs(path: Path, encoding: str) -> Iterator[Paragraph]:
    """Yield every paragraph of the file with its questions; raises InputError with the position in the file."""
    value, text = read_json_value(path, encoding)
    if not is_squad(value):
        raise InputError("is not SQuAD JSON", 'it needs {"data": [{"title", "paragraphs"}]}', file=path)
    stem = path.name.split(".json")[0]
    seen: dict[str, int] = {}
    positions = _id_positions(text)
    offset = line = 0
    for index, article in enumerate(value["data"]):
        title = str(article.get("title") or f"article {index + 1}")
        paragraphs = article["paragraphs"]
        if not isinstance(paragraphs, list):
            raise _error(path, f"is {type_name(paragraphs)}, not a list", f"data[{index}].paragraphs")
        for number, paragraph in enumerate(paragraphs):
            where = f"data[{index}].paragraphs[{number}]"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise _error(path, "has no text under context", where)
            if has_lone_surrogate([title, paragraph["context"]]):
                raise InputError(*LONE_SURROGATE, file=path, field=where)
            questions = paragraph.get("qas", [])
            if not isinstance(questions, list) or not all(isinstance(item, dict) for item in questions):
                raise _error(path, "is not a list of questions", f"{where}.qas")
            rows = []
            for question in questions:
                positions_of_id = positions.get(str(question.get("id")))
                position = positions_of_id.popleft() if positions_of_id else offset
                if position > offset:
                    line, offset = line + text.count("\n", offset, position), position
                rows.append(RawRow(str(path), line + 1, question))
            number_in_article = seen.get(title, 0)
            seen[title] = number_in_article + 1
            yield Paragraph(f"{stem}/{title}/{number_in_article}", title, paragraph["context"], tuple(rows))


def _id_positions(text: str) -> dict[str, deque[int]]:
    """Return the positions of each id in the text, found in one pass; searching id by id could take quadratic time."""
    positions: dict[str, deque[int]] = defaultdict(deque)
    for id_match in _ID.finditer(text):
        with suppress(ValueError):
            positions[str(json.loads(id_match[1]))].append(id_match.start())
    return positions


def answers_of(row: RawRow, unknown: str) -> tuple[str, ...]:
    """Return the distinct answers of a question; `unknown` for an impossible one."""
    if row.fields.get("is_impossible") is True:
        return (unknown,)
    answers = row.fields.get("answers")
    texts = (
        [item.get("text") if isinstance(item, dict) else None for item in answers] if isinstance(answers, list) else []
    )
    if not texts or not all(isinstance(text, str) for text in texts):
        raise row.error("no answer texts", 'write answers as [{"text": …}], or is_impossible: true', "answers")
    return tuple(dict.fromkeys(str(text) for text in texts))


def _error(path: Path, problem: str, field: str) -> InputError:
    return InputError(problem, "mend the file", file=path, field=field)
