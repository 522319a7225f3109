"""Splits examples into train, dev and test: by group, stratified, and recorded in `splits.parquet`, so that no row ever
moves; refuses rows that cannot be split. Works on arrays of row numbers, so that memory stays small with many rows."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.config import SplitTable
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Kind, Split
from trimtab.base.sanitize import printable
from trimtab.base.times import moment
from trimtab.data.duplicates import DedupTexts, DuplicateIndex, find_duplicates, row_location
from trimtab.data.ledger import SPLITS
from trimtab.data.row_store import BLOCK, RowNumbers, repeated_positions
from trimtab.data.split_rows import DEV, TEST, TRAIN, SplitRows, Units, last_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.split_rows import Splits


__all__ = ["SPLITS", "assign_splits", "hash_split", "time_notes"]


def assign_splits(
    examples: Sequence[Example],
    fixed_test: Sequence[Example],
    split: SplitTable,
    ledger: Path,
    kind: Kind,
    *,
    unknown: str = "",
    duplicates: DuplicateIndex | None = None,
    test_parts: Sequence[int] | RowNumbers | None = None,
) -> dict[Split, Sequence[Example]]:
    """Put every example into train, dev or test, as the ledger says if it is known there, and add new ones to the
    ledger.

    Rows of one `group` and duplicates (exact, normalised or near) stay together and count as one group, as they are no
    independent questions. Rows with times are split by time (`_split_by_time`): the newest are test, those before them
    dev. Otherwise the first split is stratified by label (classify), slice, or whether the answer is `unknown`; each
    split gets its share to within one group. Later rows follow their group, or are placed by hash.

    `fixed_test` is a given test set; then `examples` give train and dev only, and a test row that shares an example's
    id gets the suffix `-test`. Rows declared as dev by the data are dev, and no others. The order of rows is kept.
    `duplicates`: the index of the examples, if it exists already; `test_parts`: the components of the fixed test rows.

    Raises InputError for a duplicate id, a class with a single group, a group in two splits, or an empty split.
    """
    rows = SplitRows(examples, fixed_test, ledger, kind, unknown)
    _refuse_same_ids(rows)
    has_times = bool(len(examples)) and bool(rows.facts.has_time[: rows.count].all())
    _refuse_declared(rows, has_times)
    if test_parts is None:
        test_parts = find_duplicates(DedupTexts(fixed_test)).components if fixed_test else ()
    test_units = rows.units(test_parts, rows.count)
    if not examples:
        return rows.parts(np.zeros(0, np.int8), test_units, test_units)
    _refuse_old_test(rows)
    duplicates = find_duplicates(DedupTexts(examples)) if duplicates is None else duplicates
    units = rows.units(duplicates.components, 0)
    if kind == "classify" and not fixed_test:
        _refuse_small_classes(rows, units)
    is_dev = rows.facts.is_dev[: rows.count]
    held_out = {"dev": 0.0 if is_dev.any() else split.dev, "test": 0.0 if fixed_test else split.test}
    plan = _Plan((1 - sum(held_out.values()), held_out["dev"], held_out["test"]), split.seed, kind)
    if has_times:
        chosen = _split_by_time(rows, units, plan, duplicates.same_words)
    elif rows.extends_ledger:
        chosen = _later_split(rows, units, plan, np.arange(len(units)), duplicates.same_words)
    else:
        chosen = _first_split(units, plan)
    chosen[is_dev] = DEV
    _refuse_groups_in_two_splits(rows, chosen)
    counts = np.bincount(chosen, minlength=3)
    counts[TEST] += len(fixed_test)
    if not counts.all():
        _refuse_one_group(rows, units)
    _refuse_empty(counts, len(units))
    rows.write_ledger(units, chosen)
    return rows.parts(chosen, units, test_units)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The parameters of a split: the share of train, dev and test, the seed, and the kind of the task."""

    shares: tuple[float, float, float]
    seed: int
    kind: Kind


def _first_split(units: Units, plan: _Plan) -> Splits:
    """Split by largest remainders within each stratum; the rounding error carries over, so that totals hold too.

    A unit goes to the split that lacks most rows. With single rows this is the largest-remainder rule; with groups
    every total stays within one group of its share. Each class begins in train.
    """
    sizes = units.sizes
    order = np.argsort(units.strata, kind="stable")
    starts = np.flatnonzero(np.diff(units.strata[order], prepend=-1))
    strata = [array("i", rows.astype(np.int32).tobytes()) for rows in np.split(order, starts[1:])]
    draw = random.Random(plan.seed)
    missing = [0.0, 0.0, 0.0]
    split_of_unit = np.zeros(len(units), np.int8)
    for members in sorted(strata, key=lambda members: members[0]):
        draw.shuffle(members)
        numbers = np.frombuffer(members, np.int32)
        size = int(sizes[numbers].sum())
        for at in range(3):
            missing[at] += plan.shares[at] * size
        targets = bytearray()
        for rows_of_unit in sizes[numbers].tolist():
            is_first_of_class = plan.kind == "classify" and not targets
            target = TRAIN if is_first_of_class else max((0, 1, 2), key=missing.__getitem__)
            missing[target] -= rows_of_unit
            targets.append(target)
        split_of_unit[numbers] = np.frombuffer(targets, np.int8)
    return split_of_unit[units.of_row]


def _split_by_time(rows: SplitRows, units: Units, plan: _Plan, same_words: RowNumbers) -> Splits:
    """Split by time: the newest rows are test, those before them dev; a group counts by its newest row, a class begins
    in train.

    The first split cuts where the shares are met most closely; rows of equal time are in random order. Later rows join
    the period of their time: those as new as the oldest test group, or newer, are test.
    """
    times = np.fromiter((moment(row.time or "") for row in rows.rows[: rows.count]), np.float64, rows.count)
    newest = np.full(len(units), -math.inf)
    np.maximum.at(newest, units.of_row, times)
    names = (name for start in range(0, len(units), BLOCK) for name in _block_of_names(rows, units, start))
    tie = np.fromiter((int(sha256_text(str(plan.seed), name)[:16], 16) for name in names), np.uint64, len(units))
    ordered = np.lexsort((tie, newest))
    split_of_unit = np.full(len(units), TRAIN, np.int8)
    known = rows.known[: rows.count]
    if (known >= 0).any():
        dev_from, test_from = (_first_time(newest, units, known == at) for at in (DEV, TEST))
        _refuse_other_ledger(rows, units, times, test_from, plan.kind)
        split_of_unit[newest >= dev_from] = DEV
        split_of_unit[newest >= test_from] = TEST
    else:
        sizes = units.sizes[ordered]
        test_at = _cut_position(sizes, plan.shares[TEST])
        dev_at = min(_cut_position(sizes, 1 - plan.shares[TRAIN]), test_at - 1)
        split_of_unit[ordered[dev_at:]] = DEV
        split_of_unit[ordered[test_at:]] = TEST
    return _later_split(rows, units, plan, ordered, same_words, split_of_unit)


def _block_of_names(rows: SplitRows, units: Units, start: int) -> list[str]:
    """Return the names of up to BLOCK units from `start` on."""
    numbers = np.arange(start, min(start + BLOCK, len(units)), dtype=np.int32)
    names: list[str] = rows.unit_names(units, numbers).to_pylist()
    return names


def _cut_position(sizes: RowNumbers, share: float) -> int:
    """Return the position from which the units hold this share of the rows most closely, at least 1."""
    before = np.cumsum(sizes)
    if len(before) < 2:
        return 0
    return int(np.argmin(np.abs(before[:-1] - (1 - share) * before[-1]))) + 1


def _first_time(newest: NDArray[np.float64], units: Units, has_split: NDArray[np.bool_]) -> float:
    """Return the time at which a split begins: that of its oldest group; infinity if it has none."""
    return float(newest[units.of_row[np.flatnonzero(has_split)]].min(initial=math.inf))


def _refuse_other_ledger(
    rows: SplitRows, units: Units, times: NDArray[np.float64], test_from: float, kind: Kind
) -> None:
    """Refuse a ledger that was not split by time: some training rows are newer than test rows, apart from one new group
    per class."""
    oldest = np.full(len(units), math.inf)
    np.minimum.at(oldest, units.of_row, times)
    trained = np.zeros(len(units), bool)
    trained[units.of_row[rows.known[: rows.count] == TRAIN]] = True
    newer = Counter(
        (units.strata if kind == "classify" else np.zeros(len(units)))[trained & (oldest > test_from)].tolist()
    )
    if any(count > (kind == "classify") for count in newer.values()):
        raise InputError(
            (
                f"the split ledger was made without columns.time: {newer.total():,} groups of training rows in it "
                "are newer than a test row"
            ),
            "delete it to split anew by time (earlier scores are then not comparable), or take columns.time out",
            file=rows.path,
        )


def _later_split(
    rows: SplitRows,
    units: Units,
    plan: _Plan,
    order: RowNumbers,
    same_words: RowNumbers,
    split_of_unit: Splits | None = None,
) -> Splits:
    """Keep known rows; place new ones by their group, `split_of_unit`, or hash; a class that is new to train begins
    there. `order`: in which units are placed.

    A new row that connects several splits goes where the same words stand (`same_words`: the number of the first row
    with the same ones), else to the one of them that is held out most, so that no test question is trained on;
    find_overlaps reports what it leaks.
    """
    import pyarrow

    names = rows.facts.stratum_names
    trained = set(rows.column("stratum").filter(pyarrow.array(rows.table_splits == TRAIN)).unique().to_pylist())
    has_share = np.array([share > 0 for share in plan.shares])[rows.table_splits]
    groups = rows.column("group").filter(pyarrow.array(has_share))
    of_name = last_code(rows.facts.names, groups, rows.table_splits[has_share])
    shares: dict[str, float] = dict(zip(SPLITS, plan.shares, strict=True))
    chosen = np.zeros(rows.count, np.int8)
    known_rows = np.flatnonzero(rows.known[: rows.count] >= 0)
    twins = np.full(rows.count, -1, np.int8)  # by the first row with the same words: the split of a known one
    np.maximum.at(twins, same_words[known_rows], rows.known[known_rows].astype(np.int8))
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        unit_names = rows.unit_names(units, block).to_pylist()
        for unit, unit_name in zip(block.tolist(), unit_names, strict=True):
            members = units.members[units.starts[unit] : units.starts[unit + 1]]
            stratum = names[units.strata[unit]]
            known, name_of = rows.known[members].tolist(), rows.names[members].tolist()
            known_own = {name: split for name, split in zip(name_of, known, strict=True) if split >= 0}
            splits = set(known_own.values()) or {split for split in of_name[members].tolist() if split >= 0}
            if splits:
                target = max(splits)
            elif plan.kind == "classify" and stratum not in trained:
                target = TRAIN
            elif split_of_unit is not None:
                target = int(split_of_unit[unit])
            else:
                target = SPLITS.index(hash_split(stratum, unit_name, shares, plan.seed))
            if target == TRAIN:
                trained.add(stratum)
            twin_of = twins[same_words[members]].tolist() if len(splits) > 1 else known
            chosen[members] = [
                next((one for one in (split, known_own.get(name, -1), twin) if one >= 0), target)
                for name, split, twin in zip(name_of, known, twin_of, strict=True)
            ]
    return chosen


def hash_split(stratum: str, name: str, shares: Mapping[str, float], seed: int) -> Split:
    """Return the split of a unit by the hash of its name: `dev` and `test` get their shares, train the rest."""
    point = int(sha256_text(str(seed), stratum, name)[:13], 16) / 16**13
    if point < shares["test"]:
        return "test"
    return "dev" if point < shares["test"] + shares["dev"] else "train"


def time_notes(parts: Mapping[Split, Sequence[Example]]) -> list[str]:
    """Return one line with the time range of each split; none if rows have no times."""
    declared = []
    for name in SPLITS:
        first = last = ""
        for row in parts[name]:
            if row.time is None:
                continue
            first = row.time if not first or moment(row.time) < moment(first) else first
            last = row.time if not last or moment(row.time) >= moment(last) else last
        declared += [f"{name} {first} to {last}"] if first else []
    rule = "split by time, the newest rows are the test set and a group goes by its newest row"
    return [printable(f"{rule}: {', '.join(declared)}")] if declared else []


def _refuse_same_ids(rows: SplitRows) -> None:
    """Refuse two rows with one id."""
    seen: dict[str, Example] = {}
    for number in repeated_positions(rows.facts.id_hashes).tolist():
        row = rows.row(number)
        first = seen.setdefault(row.id, row)
        if first is not row:
            raise InputError(
                f"id {row.id!r} was used before, at {row_location(first)}",
                "give every row an id of its own, in all files",
                file=row.file,
                line=row.line,
                field="id",
            )


def _refuse_declared(rows: SplitRows, has_times: bool) -> None:
    """Refuse rows with times if the data also declare dev or test rows, as both would choose the test set."""
    fixed, dev = len(rows.rows) > rows.count, np.flatnonzero(rows.facts.is_dev[: rows.count])
    if has_times and (fixed or len(dev)):
        declared = rows.row(rows.count if fixed else int(dev[0]))
        problem = (
            f"the data say themselves what is tested on ({row_location(declared)}), and columns.time makes it the "
            "newest rows"
        )
        raise InputError(problem, "take one of the two out", field="data.columns.time")


def _refuse_old_test(rows: SplitRows) -> None:
    """Refuse an example that is a test row in the ledger: with a fixed test set it would be trained on now."""
    old = np.flatnonzero(rows.known[: rows.count] == TEST)
    if len(rows.rows) > rows.count and len(old):
        raise InputError(
            (
                "the split ledger was made before there was a test set of its own: "
                f"{row_location(rows.rows[int(old[0])])} is a test row in it"
            ),
            "take that test set out again, or delete the ledger to split anew",
            file=rows.path,
        )


ONE_GROUP = 0.5  # share of the rows from which a group leaves too little for the other splits
ONE_GROUP_REMEDY = (
    "a text that stands under several groups joins them: put the column that tells them apart into the input "
    '(data.columns: input = ["document", "question"]), name a finer data.group, or leave it out'
)


def _refuse_one_group(rows: SplitRows, units: Units) -> None:
    """Refuse a unit of most rows, where it is the reason that a split has none or a class cannot be divided."""
    largest = int(units.sizes.argmax())
    members = units.members[units.starts[largest] : units.starts[largest + 1]]
    grouped = members[rows.facts.has_group[members]]
    names = np.unique(rows.names[grouped])
    if len(members) <= ONE_GROUP * len(units.of_row) or len(names) < 2:
        return
    first, second = (rows.row(int(grouped[rows.names[grouped] == name][0])) for name in names[:2])
    raise InputError(
        f"{len(members):,} of {len(units.of_row):,} rows are one group: {len(names):,} groups share texts, as do "
        f"{first.group!r} and {second.group!r}",
        ONE_GROUP_REMEDY,
        file=first.file,
        field="data.group",
    )


def _refuse_small_classes(rows: SplitRows, units: Units) -> None:
    """Refuse a label whose rows form a single unit, which can only be trained on or tested."""
    names, strata = rows.facts.stratum_names, rows.facts.strata[: rows.count]
    pairs = np.unique(strata.astype(np.int64) * len(units) + units.of_row)
    unit_counts = np.bincount(pairs // max(1, len(units)), minlength=len(names))
    small = sorted(names[code] for code in np.flatnonzero(unit_counts == 1))
    if small:
        _refuse_one_group(rows, units)
        counts = {
            name: int(count) for name, count in zip(names, np.bincount(strata, minlength=len(names)), strict=True)
        }
        of_first = strata[units.members] == names.index(small[0])
        first = rows.rows[int(units.members[np.flatnonzero(of_first)[0]])]
        count = counts[small[0]]
        has = "has one row" if count == 1 else f"has {count} rows that are one group or repeat each other"
        others = ", ".join(f"{label!r} {counts[label]}" for label in small[1:6])
        more = f" and {len(small) - 6:,} more" if len(small) > 6 else ""
        others_text = f" (nor can these, with their rows: {others}{more})" if others else ""
        raise InputError(
            f"label {small[0]!r} {has}, so it cannot be both trained and tested{others_text}",
            "add rows of that label, join it with another (labels.merge), or take it out",
            file=first.file,
            line=first.line,
        )


def _refuse_groups_in_two_splits(rows: SplitRows, chosen: Splits) -> None:
    """Refuse a group with rows in two splits. `chosen`: the split of each example."""
    split = np.concatenate([chosen, np.full(len(rows.rows) - rows.count, TEST, np.int8)])
    in_order = np.argsort(split, kind="stable")
    in_order = in_order[rows.facts.has_group[in_order]]
    names = rows.names[in_order]
    first = np.zeros(int(rows.names.max(initial=-1)) + 1, np.int32)
    first[names[::-1]] = in_order[::-1]
    torn = np.flatnonzero(split[first[names]] != split[in_order])
    if len(torn):
        row, other = rows.row(int(in_order[torn[0]])), rows.row(int(first[names[torn[0]]]))
        here, there = SPLITS[split[in_order[torn[0]]]], SPLITS[split[first[names[torn[0]]]]]
        raise InputError(
            f"group {row.group!r} stands in {there} ({row_location(other)}) and in {here}",
            f"take it off one side, or, if the `group` column is new, delete {rows.path} to split anew",
            file=row.file,
            line=row.line,
        )


def _refuse_empty(counts: NDArray[Any], units: int) -> None:
    """Refuse splits without rows. `counts`: the number of rows in train, dev and test; `units`: of units."""
    empty = [name for name, count in zip(SPLITS, counts, strict=True) if not count]
    if empty:
        rows = int(counts.sum())
        raise InputError(
            f"no row is left for {' and '.join(empty)}: {rows} rows make {units} independent group{'s' * (units != 1)}",
            "add rows, or set a finer `group` column or larger shares in data.split",
            field="data.split",
        )
