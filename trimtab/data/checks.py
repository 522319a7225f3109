"""Remarks on a split data set: what its rows can and cannot show, reported before time is spent on training."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.metrics import find_metric, metrics_of
from trimtab.base.records import Example, Split
from trimtab.base.task import Task, toml_string
from trimtab.data.audit import Audit
from trimtab.data.duplicates import PairKind, ellipsize, normalise_text, row_location
from trimtab.data.row_store import join_rows, read_rows, repeated_positions, select_rows
from trimtab.data.split import ONE_GROUP, ONE_GROUP_REMEDY, SPLITS

if TYPE_CHECKING:
    from trimtab.data.row_store import RowNumbers

FEW_TO_TRAIN, FEW_TO_TEST = 20, 30
FEW_OF_CLASS, SHOWN_CLASSES = 5, 8  # fewest rows of a class in all splits; number of such classes that are named
DOMINANT = 0.8  # share of one answer from which a constant answer scores well
REPEATED = 0.1  # share of repeated rows from which the remark is a warning
MANY_CLASSES = 1000
BURST = 10  # near-identical rows with one answer that look like a flood
_MOST_TERMS = 50_000  # features (words and bigrams) of the linear arm
_BYTES_A_WEIGHT = 300  # during fitting, measured: the solver keeps many copies

_PAIR_WORDS: tuple[tuple[PairKind, str], ...] = (
    ("exact", "word for word"),
    ("normalised", "but for case and punctuation"),
    ("near", "nearly"),
)

_WORD = re.compile(r"\w\w+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

Level = Literal["stop", "warn", "note"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence on the data: `stop` prevents a study, `warn` needs attention, `note` is information."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class _CheckInput:
    """The facts, and the rows of train, dev and test in this order, each with its number in the facts."""

    audit: Audit
    splits: Mapping[Split, Sequence[Example]]
    rows: Sequence[Example]
    numbers: RowNumbers
    task: Task

    def rows_of(self, split: Split) -> Sequence[Example]:
        return self.splits.get(split, ())


def check_examples(audit: Audit, splits: Mapping[Split, Sequence[Example]], task: Task) -> tuple[Remark, ...]:
    """Return remarks on these splits and settings, those that stop a study first; the number of rows is checked by
    `check_size`.

    Overlaps between splits are found by `find_overlaps`.
    """
    numbers = audit.row_numbers(splits)
    rows = join_rows(join_rows(splits.get("train", ()), splits.get("dev", ())), splits.get("test", ()))
    if not rows:
        return ()
    data = _CheckInput(audit, splits, rows, np.concatenate([numbers[name] for name in SPLITS if name in numbers]), task)
    checks: list[Callable[[_CheckInput], Iterator[Remark]]] = [_weights, _references_to_compare]
    if task.task.kind == "classify":
        checks += [_classes, _rare_classes, _label_forms, _label_sides]
    checks += [_dominance, _one_group, _contradictions, _invisible, _special, _repetition, _estimated, _quotes]
    return by_level([remark for check in checks for remark in check(data)])


def by_level(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Return the remarks, those that stop a study first."""
    return tuple(sorted(remarks, key=lambda remark: get_args(Level).index(remark.level)))


def half_width(n: int, share: float = 0.8) -> float:
    """Return half the width of the 95% Wilson interval of a share observed on `n` items."""
    z = 1.96
    return z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def check_size(splits: Mapping[Split, Sequence[Example]]) -> Iterator[Remark]:
    """Yield remarks on too few rows."""
    if sum(map(len, splits.values())) == 1:
        row = next(row for part in splits.values() for row in part)
        yield Remark("stop", f"There is one usable row ({row_location(row)}): nothing can be compared; add rows.")
        return
    train, test = len(splits.get("train", ())), len(splits.get("test", ()))
    if 0 < train < FEW_TO_TRAIN:
        text = (
            f"Train has {train} rows: tuning on so few learns them by heart; add rows (50 are a start) or leave "
            "tuned arms out."
        )
        yield Remark("warn", text)
    if 0 < test < FEW_TO_TEST:
        points = 100 * half_width(test)
        text = (
            f"Test has {test} rows: a score of 80% would be known to about ±{points:.0f} points only, so that "
            "arms can hardly be told apart; add rows."
        )
        yield Remark("warn", text)


def _weights(data: _CheckInput) -> Iterator[Remark]:
    if data.rows_of("train") and all(row.weight == 0 for row in data.rows_of("train")):
        yield Remark(
            "stop", "All weights of the training rows are 0, so nothing would be learnt; mend the weight column."
        )


def _references_to_compare(data: _CheckInput) -> Iterator[Remark]:
    """Yield a remark if answers are to be compared with references, and a row has none."""
    if not data.task.judges_pairs:
        return
    row = next((row for row in data.rows if not (row.references and row.references[0].strip())), None)
    if row is not None:
        text = (
            f"The judge compares answers with references (judge.against), and {row_location(row)} has none; "
            "fill it, or leave the row out."
        )
        yield Remark("stop", text)


def _classes(data: _CheckInput) -> Iterator[Remark]:
    first = _first_by_label(data.rows)
    if len(first) == 1:
        label = next(iter(first))
        text = (
            f"All {len(data.rows)} rows have the label {label!r}: there is nothing to tell apart; add rows of "
            "other labels."
        )
        yield Remark("stop", text)
    if len(first) >= MANY_CLASSES:
        memory = linear_memory_mb([row.input for row in data.rows_of("train")], len(first))
        text = (
            f"There are {len(first):,} labels: every one is scored for every question, and the linear arm alone "
            f"needs about {memory:,.0f} MB for them; check that the label column is the right one."
        )
        yield Remark("warn", text)


def _rare_classes(data: _CheckInput) -> Iterator[Remark]:
    """Yield a remark that names the labels of few rows, with their counts over all splits."""
    counts = Counter(row.references[0] for row in data.rows)
    few = sorted((label for label in counts if counts[label] < FEW_OF_CLASS), key=lambda label: (counts[label], label))
    if few and len(counts) > 1:
        named = ", ".join(f"{ellipsize(label)!r} {counts[label]}" for label in few[:SHOWN_CLASSES])
        more = f" and {len(few) - SHOWN_CLASSES:,} more" if len(few) > SHOWN_CLASSES else ""
        text = (
            f"{_count_are(few, 'label')} of fewer than {FEW_OF_CLASS} rows ({named}{more}), too few to say how "
            "well they are told; add rows, or join them with others (labels.merge)."
        )
        yield Remark("note", text)


def linear_memory_mb(texts: Iterable[str], labels: int) -> float:
    """Predict the memory (MB) for fitting the linear arm: weights of every label for words, bigrams and letters."""
    terms: set[str | tuple[str, str]] = set()
    for text in texts:
        words = _WORD.findall(text.lower())
        terms.update(words, pairwise(words))
        if len(terms) >= _MOST_TERMS:
            break
    return labels * min(len(terms), _MOST_TERMS) * _BYTES_A_WEIGHT / 1e6


def _label_forms(data: _CheckInput) -> Iterator[Remark]:
    first = _first_by_label(data.rows)
    numbers = [label for label in first if _NUMBER.fullmatch(label.strip())]
    words = [label for label in first if not _NUMBER.fullmatch(label.strip())]
    if numbers and words and not data.task.task.labels:
        number, word = numbers[0], words[0]
        text = (
            f"Labels mix numbers ({number!r} at {row_location(first[number])}) with words ({word!r} at "
            f"{row_location(first[word])}); use one kind, or list them all in task.labels if they are meant."
        )
        yield Remark("stop", text)
    forms: dict[str, list[str]] = defaultdict(list)
    for label in first:
        forms[_folded(label)].append(label)
    variants = [spellings for spellings in forms.values() if len(spellings) > 1]
    if variants:
        one, other = variants[0][:2]
        count = f"{len(variants)} label{'s are' if len(variants) > 1 else ' is'}"
        text = (
            f"{count} written in several ways ({one!r} at {row_location(first[one])}, {other!r} at "
            f"{row_location(first[other])}) and counted as different; to join them write under [labels]: "
            f"{_merge_line(variants, data)}"
        )
        yield Remark("warn", text)


def _folded(label: str) -> str:
    """Return a label without spelling variants: case, white space, accents."""
    letters = unicodedata.normalize("NFKD", label).casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter) and not letter.isspace())


def _merge_line(variants: Sequence[Sequence[str]], data: _CheckInput) -> str:
    """Return the line of the task file that maps every spelling to the most frequent one of its label."""
    counts = Counter(row.references[0] for row in data.rows)
    pairs: list[str] = []
    for spellings in variants:
        usual = max(spellings, key=lambda label: (label in data.task.task.labels, counts[label], label))
        pairs += [f"{toml_string(label)} = {toml_string(usual)}" for label in spellings if label != usual]
    return f"merge = {{ {', '.join(pairs)} }}"


def _label_sides(data: _CheckInput) -> Iterator[Remark]:
    unseen_labels = sorted(set(data.task.task.labels) - {row.references[0] for row in data.rows})
    if unseen_labels:
        text = (
            f"{_count_are(unseen_labels, 'label')} in task.labels and in no row ({unseen_labels[0]!r}), so no arm "
            "can learn it; mend the spelling, or take it out."
        )
        yield Remark("warn", text)
    trained = {row.references[0] for row in data.rows_of("train")}
    sides: tuple[tuple[Split, Level], ...] = (("test", "stop"), ("dev", "warn"))
    for split, level in sides:
        unseen = _first_by_label([row for row in data.rows_of(split) if row.references[0] not in trained])
        if unseen and trained:
            label, row = next(iter(unseen.items()))
            text = (
                f"{_count_are(unseen, 'label')} in {split} and never in train ({label!r} at {row_location(row)}), "
                "so no arm can learn it; add training rows of it, or take it out."
            )
            yield Remark(level, text)


def _dominance(data: _CheckInput) -> Iterator[Remark]:
    hashes = np.fromiter((hash(row.references[0]) for row in data.rows), np.int64, len(data.rows))
    first, counts = np.unique(hashes, return_index=True, return_counts=True)[1:]
    most = np.flatnonzero(counts == counts.max())
    answer, count = data.rows[int(first[most].min())].references[0], int(counts[most[0]])
    share = count / len(data.rows)
    if DOMINANT < share < 1 or (share == 1 and data.task.task.kind != "classify" and len(data.rows) > 1):
        text = (
            f"{count} of {len(data.rows)} rows ({share:.0%}) have the answer {ellipsize(answer)!r}, so that "
            "always giving it scores as much; add rows of the others"
        )
        others = [] if find_metric(data.task.metric).by_class else metrics_of(data.task.task.kind)
        fairer = next((metric.name for metric in others if metric.by_class), None)
        advice = f', or set metric = "{fairer}".' if fairer else "."
        yield Remark("warn", text + advice)


def _one_group(data: _CheckInput) -> Iterator[Remark]:
    """Yield a warning on a group that holds most rows, so that the other splits are drawn from few."""
    groups = Counter(row.group for row in data.rows if row.group and not row.group.startswith("row:"))
    name, count = max(groups.items(), key=lambda item: item[1], default=("", 0))
    if count > ONE_GROUP * len(data.rows):
        text = f"{count:,} of {len(data.rows):,} rows are one group ({ellipsize(name)}); {ONE_GROUP_REMEDY}"
        yield Remark("warn", text)


def _contradictions(data: _CheckInput) -> Iterator[Remark]:
    questions = data.audit.rows.same_words[data.numbers]
    repeated = repeated_positions(questions)
    by_question: dict[int, list[Example]] = defaultdict(list)
    for row, question in zip(select_rows(data.rows, repeated), questions[repeated].tolist(), strict=True):
        by_question[question].append(row)
    contradictions: list[tuple[Example, Example]] = []
    for rows_of_question in by_question.values():
        answers = {normalise_text(reference) for reference in rows_of_question[0].references}
        other = next((row for row in rows_of_question if answers.isdisjoint(map(normalise_text, row.references))), None)
        if other is not None:
            contradictions.append((rows_of_question[0], other))
    if contradictions:
        one, two = contradictions[0]
        count = f"{len(contradictions)} question{'s have' if len(contradictions) > 1 else ' has'}"
        this, that = _shorten_pair(one.references[0], two.references[0])
        text = (
            f"{count} different answers in different rows ({ellipsize(one.input)!r}: {this!r} at "
            f"{row_location(one)}, {that!r} at {row_location(two)}); keep one, or give both as references of one "
            "row."
        )
        yield Remark("warn", text)


def _shorten_pair(one: str, two: str) -> tuple[str, str]:
    """Return two texts shortened, from where they begin to differ if that is further in."""
    same = common_prefix_length(one, two)
    start = one.rfind(" ", 0, same) if same > 30 else 0
    return (
        (ellipsize(one), ellipsize(two)) if start <= 0 else (f"…{ellipsize(one[start:])}", f"…{ellipsize(two[start:])}")
    )


def _invisible(data: _CheckInput) -> Iterator[Remark]:
    matches = _matches(data, data.audit.invisible)
    if len(matches):
        row, character = data.rows[matches[0]], data.audit.invisible[int(data.numbers[matches[0]])]
        name = unicodedata.name(character, "").lower() or "tag"
        text = (
            f"{_rows_have(len(matches))} invisible characters (U+{ord(character):04X}, {name}, at "
            f"{row_location(row)}), which can hide instructions or split words; remove them unless they are meant."
        )
        yield Remark("warn", text)


def _special(data: _CheckInput) -> Iterator[Remark]:
    matches = _matches(data, data.audit.special)
    if len(matches):
        row, token = data.rows[matches[0]], data.audit.special[int(data.numbers[matches[0]])]
        text = (
            f"{_rows_have(len(matches))} text that looks like a special token ({token!r} at {row_location(row)}); "
            "it is read as plain text and cannot end or begin a turn; remove it unless it is meant."
        )
        yield Remark("warn", text)


def _matches(data: _CheckInput, found: Mapping[int, str]) -> list[int]:
    """Return the positions of the rows with a finding. `found`: the findings by row number in the audit."""
    positions: list[int] = np.flatnonzero(np.isin(data.numbers, np.fromiter(found, np.int64, len(found)))).tolist()
    return positions


def _repetition(data: _CheckInput) -> Iterator[Remark]:
    pairs = data.audit.rows.pairs(data.numbers)
    if not pairs:
        return
    kinds = Counter(pair.kind for pair in pairs)
    total, left = len(data.rows), len(data.rows) - len(pairs)
    first = pairs[0]
    parts = ", ".join(f"{kinds[kind]} {word}" for kind, word in _PAIR_WORDS if kinds[kind])
    text = (
        f"{len(pairs)} of {total} rows repeat{'s' * (len(pairs) == 1)} another ({parts}; "
        f"{row_location(data.rows[first.b])} repeats {row_location(data.rows[first.a])}), so that they weigh as "
        f"{left} independent rows; remove what is not meant."
    )
    yield Remark("warn" if len(pairs) >= REPEATED * total else "note", text)
    yield from _bursts(data)


def _estimated(data: _CheckInput) -> Iterator[Remark]:
    """Yield a note if near duplicates were searched by MinHash."""
    if not data.audit.rows.exact:
        exceeds_exact_join = data.audit.rows.exceeds_exact_join
        reason = "these are too many" if exceeds_exact_join else "too many rows are alike in part"
        text = (
            f"Near duplicates of {len(data.rows):,} rows were looked for by MinHash, as {reason} to compare all: of "
            "nearly repeated rows about one in a thousand is missed, more where very many are alike. What repeats "
            "word for word is all found."
        )
        yield Remark("note", text)


def _bursts(data: _CheckInput) -> Iterator[Remark]:
    """Yield a warning on many near-identical rows with one answer: a mistake, or data poisoning."""
    bursts, rows = 0, list[Example]()  # their number, and the rows of the largest
    components = data.audit.rows.components[data.numbers]
    _, label, sizes = np.unique(components, return_inverse=True, return_counts=True)
    in_order, ends = np.argsort(label, kind="stable"), np.cumsum(sizes)
    for cluster in np.flatnonzero(sizes >= BURST).tolist():
        burst_rows = read_rows(data.rows, in_order[ends[cluster] - sizes[cluster] : ends[cluster]])
        if len({normalise_text(row.references[0]) for row in burst_rows}) == 1:
            bursts, rows = bursts + 1, max(rows, burst_rows, key=len)
    if bursts:
        count = f"{bursts} burst{'s' * (bursts > 1)} of at least {BURST} nearly identical rows with one answer"
        text = (
            f"{count}: the largest has {len(rows)} rows ({ellipsize(rows[0].input)!r}: "
            f"{ellipsize(rows[0].references[0])!r}, from {row_location(rows[0])} on); make sure that nobody "
            "planted them, and keep one of each."
        )
        yield Remark("warn", text)


def _quotes(data: _CheckInput) -> Iterator[Remark]:
    """Yield a remark on dev and test questions in the documents; it stops a study unless `data.leakage` is "report"."""
    if not data.audit.quotes:
        return
    train = len(data.rows_of("train"))
    held_out = {number: n for n, number in enumerate(data.numbers[train:].tolist(), start=train)}
    quotes = sorted((quote.at, held_out[quote.row], quote) for quote in data.audit.quotes if quote.row in held_out)
    if quotes:
        _, row, first = quotes[0]
        count = (
            f"{len(quotes)} question{'s' if len(quotes) > 1 else ''} of dev and test "
            f"stand{'s' if len(quotes) == 1 else ''}"
        )
        text = (
            f"{count} word for word in the documents ({row_location(data.rows[row])} in {first.document}), which "
            "favours retrieval; reword, or, if users ask just so (a list of frequent questions), set "
            'data.leakage = "report".'
        )
        yield Remark("stop" if data.task.data.leakage == "stop" else "warn", text)


def _first_by_label(rows: Sequence[Example]) -> dict[str, Example]:
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.references[0], row)
    return first


def _rows_have(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _count_are(items: Sequence[str] | Mapping[str, Example], noun: str) -> str:
    return f"1 {noun} is" if len(items) == 1 else f"{len(items)} {noun}s are"
