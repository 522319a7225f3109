"""Questions that stand on both sides of a split, or word for word in the documents."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, combinations

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Example, Split
from trimtab.base.task import Task
from trimtab.data.duplicates import PairKind, compared_text, find_pairs, place, plain_words, short, without_template

_SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_WORDS = 5  # shorter questions are headings and terms, which documents may well hold
_SENTENCE = re.compile(r"(?<=[.!?:;。？！])\s+|\n+|(?<=[。？！])")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of one split and its most alike row in another, whatever their answers are."""

    kind: PairKind
    similarity: float
    left: Example
    left_split: Split
    right: Example
    right_split: Split


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A question that stands in a document, exactly or normalised."""

    example: Example
    document: str


def find_overlaps(splits: Mapping[Split, Sequence[Example]]) -> list[Overlap]:
    """Rows of dev in train, of test in train, and of test in dev; for each the most alike one.

    The few-shot pool is train, so it is covered. Compared are the turns up to the answer: the same question with another answer
    leaks too.
    """
    rows = [(name, row) for name in _SPLITS for row in splits.get(name, ())]
    texts: dict[Split, list[str]] = {name: [] for name in _SPLITS}
    for (name, _), text in zip(rows, without_template([compared_text(row) for _, row in rows]), strict=True):
        texts[name].append(text)  # the template is that of all rows: two small splits alone cannot tell it
    return [
        Overlap(pair.kind, pair.similarity, splits[left][pair.a], left, splits[right][pair.b], right)
        for left, right in combinations(_SPLITS, 2)
        for pair in find_pairs(texts[left], texts[right])
    ]


def check_leakage(splits: Mapping[Split, Sequence[Example]], task: Task) -> list[Overlap]:
    """The overlaps between splits; raises InputError on any when `data.leakage` is "stop"."""
    overlaps = find_overlaps(splits)
    if overlaps and task.data.leakage == "stop":
        raise InputError(
            describe(overlaps),
            overlap_remedy(task),
            file=task.file,
            field="data.leakage",
        )
    return overlaps


def overlap_remedy(task: Task) -> str:
    """What to do about overlaps; a group holds rows together only where no files are the test set."""
    group = "" if task.data.test else "give both the same `group`, "
    return f'take those rows out of one side, {group}or set data.leakage = "report"'


def describe(overlaps: Sequence[Overlap]) -> str:
    """One sentence: how many rows of which splits overlap, and the first pair."""
    counts: dict[tuple[Split, Split], int] = defaultdict(int)
    for overlap in overlaps:
        counts[overlap.right_split, overlap.left_split] += 1
    parts = [
        f"{count} {right} row{'s' * (count > 1)} repeat{'s' * (count == 1)} {left}"
        for (right, left), count in counts.items()
    ]
    first = overlaps[0]
    how = f"near, {first.similarity:.2f}" if first.kind == "near" else first.kind
    return (
        f"{' and '.join(parts)}; the first: {place(first.right)} repeats {place(first.left)} "
        f"({how}): {short(first.right.input)!r}"
    )


def find_in_documents(examples: Sequence[Example], documents: Sequence[Document]) -> list[Verbatim]:
    """Questions of at least five words that stand in a document as sentences of their own (normalised); each once.

    Whole sentences only: "ask Tomasz, who runs payroll" does not hold the question "Who runs payroll?".
    """
    asked: dict[tuple[str, ...], list[tuple[list[str], Example]]] = defaultdict(list)
    for example in examples:
        words = plain_words(example.input).split()
        if len(words) >= _WORDS:
            asked[tuple(words[:_WORDS])].append((words, example))
    found: dict[str, Verbatim] = {}
    for document in documents if asked else ():
        for section in document.sections:
            sentences = [plain_words(part).split() for part in (*section.path, *_SENTENCE.split(section.text))]
            text = list(chain.from_iterable(sentences))
            edges = {0, *accumulate(map(len, sentences))}
            for i in edges:
                for words, example in asked.get(tuple(text[i : i + _WORDS]), ()):
                    if text[i : i + len(words)] == words and i + len(words) in edges:
                        found.setdefault(example.id, Verbatim(example, document.id))
    return list(found.values())
