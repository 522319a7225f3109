"""Notes for the user on how a file was read, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trimtab.base.records import Kind
from trimtab.base.sanitize import printable
from trimtab.data.columns import Columns
from trimtab.data.nested import split_of

RIVALS, EXAMPLE = 4, 30  # columns that are named as possible, and characters of a value of each


def _count(number: int, description: str) -> str:
    plural = "es" if description.endswith("s") else "s"
    return f"{number:,} {description}{'' if number == 1 else plural}"


def squad_note(path: Path, questions: int, articles: int) -> str:
    """Return the note on a SQuAD file."""
    return (
        f"{path.name}: {_count(questions, 'question')} on {_count(articles, 'article')} (SQuAD), an article is a group"
    )


def columns_note(name: str, columns: Columns, kind: Kind | None, rows: int, labels: Iterable[str]) -> str:
    """Return the note on the columns of a file and the number of its rows."""
    if columns.layout in ("messages", "conversations"):
        description = f"conversations in `{columns.input[0]}`, the last turn of the assistant is the answer"
    else:
        answer = "label" if kind == "classify" else "answer, written as JSON" if columns.as_json else "answer"
        guess = " (a guess: set data.columns if it is wrong)" if columns.guessed else ""
        if columns.layout == "pair":
            description = f"of each pair the first is the input, the second the {answer}"
        else:
            *others, last = (f"`{name}`" for name in columns.input)
            source = f"columns {', '.join(others)} and {last} are" if others else f"column {last} is"
            description = f"{source} the input, `{columns.output}` the {answer}{guess}"
    named = (f"`{column}`" + (f" ({role})" if column != role else "") for role, column in columns.extras.items())
    extras = ", ".join(named)
    classes = f"{_count(len(set(labels)), 'class')}, " if kind == "classify" else ""
    return printable(f"{name}: {description}{f', also {extras}' if extras else ''}: {classes}{_count(rows, 'row')}")


def rivals_note(rivals: Mapping[str, str]) -> str:
    """Return what a note on columns says of those that might be meant instead, with an example each; "" without any."""
    if not rivals:
        return ""
    shown = [f"`{name}` (“{printable(value, EXAMPLE)}”)" for name, value in [*rivals.items()][:RIVALS]]
    more = f" and {len(rivals) - RIVALS} more" if len(rivals) > RIVALS else ""
    return f"; a guess: {', '.join(shown)}{more} could be meant instead, see data.columns or --output NAME"


def parts_note(name: str, parts: Mapping[str, int], left_out: Sequence[str] = ()) -> str:
    """Return the note on the parts of a file, their splits and rows, and the parts left out because of data.test."""
    parts_by_split: dict[str, list[str]] = {}
    for part in parts:
        parts_by_split.setdefault(split_of(part) or "", []).append(part)
    phrases = (
        f"{split} {sum(parts[part] for part in parts_of_split):,} ({', '.join(parts_of_split)})"
        if parts_of_split != [split]
        else f"{split} {parts[split]:,}"
        for split, parts_of_split in parts_by_split.items()
    )
    left_out_text = f" ({', '.join(dict.fromkeys(left_out))} left out, as data.test is given)" if left_out else ""
    return printable(f"{name}: its parts are the splits: {'; '.join(phrases)}{left_out_text}")
