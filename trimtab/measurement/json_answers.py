"""Answers that are JSON: how far keys and values agree with a reference, and whether both are equal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

_FENCE = "```"
_LANGUAGE = re.compile(r"\w*")  # behind the fence that opens a block
Leaf = tuple[tuple[str | int, ...], str, Any]  # the path of keys, the type of the value, and the value


def json_f1(_question: str, reference: str, answer: str) -> float:
    """Score an answer by F1 over its pairs of key path and value (the field-level F1 of Donut, Kim et al. 2022).

    The order of keys and of list items, and spaces, do not count: the items of a list share one path. Numbers compare
    as numbers, texts without outer spaces. 0 for an answer that is no object and no list; a reference that is neither
    is compared as text.
    """
    wanted, given = _container(reference), _container(answer)
    if wanted is None or given is None:
        return float(wanted is None and same_answer(reference, answer))
    right, said = Counter(_leaves(wanted, in_order=False)), Counter(_leaves(given, in_order=False))
    return 2 * (right & said).total() / (right.total() + said.total())


def same_answer(reference: str, answer: str) -> bool:
    """True if an answer equals a reference: as JSON but for the order of keys, any other text but for spaces."""
    wanted, given = _container(reference), _container(answer)
    if wanted is None or given is None:
        return wanted is given and reference.split() == answer.split()
    return Counter(_leaves(wanted, in_order=True)) == Counter(_leaves(given, in_order=True))


def _container(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the object or list that a text is, or that its first code fence holds; None for any other text."""
    inside = text.partition(_FENCE)[2].partition(_FENCE)[0]
    for part in (text, _LANGUAGE.sub("", inside, count=1)):
        try:
            value = json.loads(part, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict | list):
            return value
    return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _leaves(value: dict[str, Any] | list[Any], *, in_order: bool) -> Iterator[Leaf]:
    """Yield the values that hold no others, each with its path; an empty object or list is one.

    The path names the place of a list's item if it is `in_order`, else only that it is one.
    """
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, dict) and part:
            waiting += (((*path, key), inner) for key, inner in part.items())
        elif isinstance(part, list) and part:
            waiting += (((*path, place if in_order else 0), inner) for place, inner in enumerate(part))
        else:
            yield _leaf(path, part)


def _leaf(path: tuple[str | int, ...], value: Any) -> Leaf:
    if isinstance(value, dict | list):
        return path, type(value).__name__, None
    if isinstance(value, bool) or value is None:
        return path, "constant", value
    return (path, "text", value.strip()) if isinstance(value, str) else (path, "number", value)
