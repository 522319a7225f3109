"""Splits examples into train, dev and test: by group, stratified, and recorded in `splits.parquet`, so that no row ever
moves."""

from __future__ import annotations

import io
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import get_args

from trimtab.base.config import SplitTable
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text, write_atomic
from trimtab.base.records import Example, Kind, Split
from trimtab.base.sanitize import printable
from trimtab.base.times import moment
from trimtab.data.duplicates import DuplicateIndex, dedup_text, find_duplicates, normalise_text, row_location

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An example's group (with its duplicates), stratum and split."""

    id: str
    group: str
    stratum: str
    split: Split


@dataclass(frozen=True, slots=True)
class _Unit:
    """Examples that must stay together."""

    name: str
    stratum: str
    rows: tuple[Example, ...]


def assign_splits(
    examples: Sequence[Example],
    fixed_test: Sequence[Example],
    split: SplitTable,
    ledger: Path,
    kind: Kind,
    *,
    unknown: str = "",
    duplicates: DuplicateIndex | None = None,
    test_parts: Sequence[int] | None = None,
) -> dict[Split, tuple[Example, ...]]:
    """Put every example into train, dev or test, as the ledger says if it is known there, and add new ones to the
    ledger.

    Rows of one `group` and duplicates (exact, normalised or near) stay together and count as one group, as they are no
    independent questions. Rows with times are split by time (`_split_by_time`): the newest are test, those before them
    dev. Otherwise the first split is stratified by label (classify), slice, or whether the answer is `unknown`; each
    split gets its share to within one group. Later rows follow their group, or are placed by hash.

    `fixed_test` is a given test set; then `examples` give train and dev only, and a test row that shares an example's
    id gets the suffix `-test`. Rows declared as dev by the data are dev, and no others. The order of rows is kept.
    `duplicates`: the index of the examples, if it is known; `test_parts`: the components of the fixed test rows.

    Raises InputError for a duplicate id, a class with a single group, a group in two splits, or an empty split.
    """
    known = read_ledger(ledger)
    fixed_test = _rename_test_ids(fixed_test, examples, known)
    _refuse_same_ids([*examples, *fixed_test])
    has_times = bool(examples) and all(row.time is not None for row in examples)
    declared = next(iter((*fixed_test, *(row for row in examples if row.split == "dev"))), None)
    if has_times and declared is not None:
        problem = (
            f"the data say themselves what is tested on ({row_location(declared)}), and columns.time makes it the "
            "newest rows"
        )
        raise InputError(problem, "take one of the two out", field="data.columns.time")
    if test_parts is None:
        test_parts = find_duplicates([dedup_text(row) for row in fixed_test]).components if fixed_test else ()
    test_units = _units(fixed_test, test_parts, kind, unknown)
    if not examples:
        return _as_groups({"train": (), "dev": (), "test": tuple(fixed_test)}, test_units)
    if fixed_test:
        _refuse_old_test(examples, known, ledger)
    duplicates = duplicates or find_duplicates([dedup_text(row) for row in examples])
    units = _units(examples, duplicates.components, kind, unknown)
    if kind == "classify" and not fixed_test:
        _refuse_small_classes(units)
    declared_dev = {row.id: row.split for row in examples if row.split == "dev"}
    held_out = {"dev": 0.0 if declared_dev else split.dev, "test": 0.0 if fixed_test else split.test}
    shares = {"train": 1 - sum(held_out.values()), **held_out}
    groups = {old.group for old in known.values()}
    is_later = any(row.id in known or _group_name(row) in groups for row in examples)
    if has_times:
        chosen = _split_by_time(units, shares, split.seed, known, kind, ledger) | declared_dev
    else:
        assign = _later_split if is_later else _first_split
        chosen = assign(units, shares, split.seed, known, kind) | declared_dev
    rows = [
        LedgerRow(row.id, unit.name, unit.stratum, chosen[row.id])
        for unit in units
        for row in unit.rows
        if row.id not in known
    ]
    rows += [LedgerRow(row.id, _group_name(row), "", "test") for row in fixed_test if row.id not in known]
    parts = {name: tuple(row for row in examples if chosen[row.id] == name) for name in SPLITS}
    parts["test"] += tuple(fixed_test)
    _refuse_groups_in_two_splits(parts, ledger)
    _refuse_empty(parts, len(units))
    if rows:
        write_ledger(ledger, [*known.values(), *rows])
    return _as_groups(parts, [*units, *test_units])


def read_ledger(ledger: Path) -> dict[str, LedgerRow]:
    """Return the ledger's rows by example id, empty if it does not exist; raises InputError if it is damaged."""
    if not ledger.exists():
        return {}
    import pyarrow
    import pyarrow.parquet

    remedy = "restore it from a copy, or delete it to split anew (earlier scores are then not comparable)"
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(ledger.read_bytes()))
        rows = table.select(["id", "group", "stratum", "split"]).to_pylist()
    except (pyarrow.ArrowInvalid, KeyError, OSError) as error:
        raise InputError(f"the split ledger cannot be read ({error})", remedy, file=ledger) from None
    unknown_splits = {row["split"] for row in rows} - set(SPLITS)
    if unknown_splits:
        raise InputError(
            f"the split ledger names unknown splits: {sorted(map(str, unknown_splits))}", remedy, file=ledger
        )
    return {row["id"]: LedgerRow(**row) for row in rows}


def write_ledger(ledger: Path, rows: Iterable[LedgerRow]) -> None:
    """Write all rows, atomically."""
    import pyarrow
    import pyarrow.parquet

    columns = list(zip(*((row.id, row.group, row.stratum, row.split) for row in rows), strict=True))
    table = pyarrow.table(dict(zip(("id", "group", "stratum", "split"), columns, strict=True)))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    write_atomic(ledger, buffer.getvalue())


def _group_name(row: Example) -> str:
    return f"row:{row.id}" if row.group is None else row.group


def _as_groups(parts: Mapping[Split, Sequence[Example]], units: Sequence[_Unit]) -> dict[Split, tuple[Example, ...]]:
    """Return the rows with the name of their unit as group, if it has more than one row."""
    group = {row.id: unit.name for unit in units if len(unit.rows) > 1 for row in unit.rows}
    return {
        name: tuple(replace(row, group=group[row.id]) if row.id in group else row for row in part)
        for name, part in parts.items()
    }


def _units(examples: Sequence[Example], parts: Sequence[int], kind: Kind, unknown: str) -> list[_Unit]:
    """Return the connected components of equal group or equal component of duplicates, sorted by name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    def join(one: str, other: str) -> None:
        first, second = sorted((root(one), root(other)))
        parent[second] = first

    names = [_group_name(row) for row in examples]
    firsts: dict[int, str] = {}
    for name, part in zip(names, parts, strict=True):
        join(name, firsts.setdefault(part, name))
    members: dict[str, list[Example]] = defaultdict(list)
    for row, name in zip(examples, names, strict=True):
        members[root(name)].append(row)
    return [
        _Unit(name, _stratum(rows, kind, unknown), tuple(sorted(rows, key=lambda row: row.id)))
        for name, rows in sorted(members.items())
    ]


def _stratum(rows: Sequence[Example], kind: Kind, unknown: str) -> str:
    """Return the most common stratum of the rows."""

    def one(row: Example) -> str:
        if kind == "classify":
            return row.references[0]
        if row.slice is not None:
            return row.slice
        return "unknown" if unknown and normalise_text(row.references[0]) == normalise_text(unknown) else ""

    counts = Counter(one(row) for row in rows)
    return min(counts, key=lambda name: (-counts[name], name))


def _first_split(
    units: Sequence[_Unit], shares: Mapping[str, float], seed: int, _known: Mapping[str, LedgerRow], kind: Kind
) -> dict[str, Split]:
    """Split by largest remainders within each stratum; the rounding error carries over, so that totals hold too.

    A unit goes to the split that lacks most rows. With single rows this is the largest-remainder rule; with groups
    every total stays within one group of its share. Each class begins in train.
    """
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    draw = random.Random(seed)
    rows_missing = dict.fromkeys(SPLITS, 0.0)
    chosen: dict[str, Split] = {}
    for members in strata.values():
        draw.shuffle(members)
        size = sum(len(unit.rows) for unit in members)
        for name in SPLITS:
            rows_missing[name] += shares[name] * size
        for i, unit in enumerate(members):
            first_of_class = kind == "classify" and i == 0
            target: Split = "train" if first_of_class else max(SPLITS, key=lambda name: rows_missing[name])
            rows_missing[target] -= len(unit.rows)
            chosen.update(dict.fromkeys((row.id for row in unit.rows), target))
    return chosen


def _newest(unit: _Unit) -> float:
    return max(moment(row.time or "") for row in unit.rows)


def _split_by_time(
    units: Sequence[_Unit],
    shares: Mapping[str, float],
    seed: int,
    known: Mapping[str, LedgerRow],
    kind: Kind,
    ledger: Path,
) -> dict[str, Split]:
    """Split by time: the newest rows are test, those before them dev; a group counts by its newest row, a class begins
    in train.

    The first split cuts where the shares are met most closely; rows of equal time are in random order. Later rows join
    the period of their time: those as new as the oldest test group, or newer, are test.
    """
    ordered = sorted(units, key=lambda unit: (_newest(unit), sha256_text(str(seed), unit.name)))
    split_of_unit: dict[str, Split] = {}
    if any(row.id in known for unit in units for row in unit.rows):
        dev_from, test_from = (_first_time(ordered, name, known) for name in SPLITS[1:])
        _refuse_other_ledger(ordered, test_from, known, kind, ledger)
        for unit in ordered:
            newest = _newest(unit)
            split_of_unit[unit.name] = "test" if newest >= test_from else "dev" if newest >= dev_from else "train"
    else:
        test_at = _cut_position(ordered, shares["test"])
        dev_at = min(_cut_position(ordered, 1 - shares["train"]), test_at - 1)
        for at, unit in enumerate(ordered):
            split_of_unit[unit.name] = "test" if at >= test_at else "dev" if at >= dev_at else "train"
    return _later_split(ordered, shares, seed, known, kind, split_of_unit)


def _cut_position(ordered: Sequence[_Unit], share: float) -> int:
    """Return the position from which the units hold this share of the rows most closely, at least 1."""
    before = list(accumulate(len(unit.rows) for unit in ordered))
    wanted = (1 - share) * before[-1]
    return min(range(1, len(before)), key=lambda at: (abs(before[at - 1] - wanted), at), default=0)


def _first_time(units: Sequence[_Unit], name: Split, known: Mapping[str, LedgerRow]) -> float:
    """Return the time at which a split begins: that of its oldest group; infinity if it has none."""
    own = [unit for unit in units if any(row.id in known and known[row.id].split == name for row in unit.rows)]
    return min(map(_newest, own), default=math.inf)


def _refuse_other_ledger(
    units: Sequence[_Unit], test_from: float, known: Mapping[str, LedgerRow], kind: Kind, ledger: Path
) -> None:
    """Refuse a ledger that was not split by time: some training rows are newer than test rows, apart from one new group
    per class."""
    newer: Counter[str] = Counter()
    for unit in units:
        trained = any(row.id in known and known[row.id].split == "train" for row in unit.rows)
        if trained and min(moment(row.time or "") for row in unit.rows) > test_from:
            newer[unit.stratum if kind == "classify" else ""] += 1
    if any(count > (kind == "classify") for count in newer.values()):
        raise InputError(
            (
                f"the split ledger was made without columns.time: {newer.total():,} groups of training rows in it "
                "are newer than a test row"
            ),
            "delete it to split anew by time (earlier scores are then not comparable), or take columns.time out",
            file=ledger,
        )


def _later_split(
    units: Sequence[_Unit],
    shares: Mapping[str, float],
    seed: int,
    known: Mapping[str, LedgerRow],
    kind: Kind,
    split_of_unit: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """Keep known rows; place new ones by their group, `split_of_unit`, or hash; a class that is new to train begins
    there."""
    trained = {old.stratum for old in known.values() if old.split == "train"}
    of_group = {old.group: old.split for old in known.values() if shares[old.split] > 0}
    chosen: dict[str, Split] = {}
    for unit in units:
        known_own = {_group_name(row): known[row.id].split for row in unit.rows if row.id in known}
        known_splits = set(known_own.values()) or {
            of_group[name] for name in map(_group_name, unit.rows) if name in of_group
        }
        if len(known_splits) == 1:
            target = known_splits.pop()
        elif known_splits or (kind == "classify" and unit.stratum not in trained):
            target = "train"  # it connects several splits; find_overlaps reports what it leaks
        else:
            target = split_of_unit[unit.name] if split_of_unit else hash_split(unit.stratum, unit.name, shares, seed)
        if target == "train":
            trained.add(unit.stratum)
        for row in unit.rows:
            chosen[row.id] = known[row.id].split if row.id in known else known_own.get(_group_name(row), target)
    return chosen


def hash_split(stratum: str, name: str, shares: Mapping[str, float], seed: int) -> Split:
    """Return the split of a unit by the hash of its name: `dev` and `test` get their shares, train the rest."""
    point = int(sha256_text(str(seed), stratum, name)[:13], 16) / 16**13
    if point < shares["test"]:
        return "test"
    return "dev" if point < shares["test"] + shares["dev"] else "train"


def _refuse_same_ids(rows: Sequence[Example]) -> None:
    seen: dict[str, Example] = {}
    for row in rows:
        first = seen.setdefault(row.id, row)
        if first is not row:
            raise InputError(
                f"id {row.id!r} was used before, at {row_location(first)}",
                "give every row an id of its own, in all files",
                file=row.file,
                line=row.line,
                field="id",
            )


def _rename_test_ids(
    fixed_test: Sequence[Example], examples: Sequence[Example], known: Mapping[str, LedgerRow]
) -> tuple[Example, ...]:
    """Return the test rows, renamed if an example has or had their id: each file may count from 1, or repeat a row."""
    used_ids = {row.id for row in examples} | {old.id for old in known.values() if old.split != "test"}
    return tuple(replace(row, id=f"{row.id}-test") if row.id in used_ids else row for row in fixed_test)


def _refuse_old_test(examples: Sequence[Example], known: Mapping[str, LedgerRow], ledger: Path) -> None:
    """Refuse an example that was a test row in the ledger: with a fixed test set it would now be trained on."""
    for row in examples:
        if row.id in known and known[row.id].split == "test":
            raise InputError(
                (
                    f"the split ledger was made before there was a test set of its own: {row_location(row)} is a "
                    "test row in it"
                ),
                "take that test set out again, or delete the ledger to split anew",
                file=ledger,
            )


def _refuse_small_classes(units: Sequence[_Unit]) -> None:
    """Refuse a label whose rows form a single unit, which can only be trained on or tested."""
    rows: dict[str, list[Example]] = defaultdict(list)
    places: Counter[str] = Counter()
    for unit in units:
        for row in unit.rows:
            rows[row.references[0]].append(row)
        places.update({row.references[0] for row in unit.rows})
    small = sorted(label for label, count in places.items() if count < 2)
    if small:
        own = rows[small[0]]
        has = "has one row" if len(own) == 1 else f"has {len(own)} rows that are one group or repeat each other"
        others = ", ".join(f"{label!r} {len(rows[label])}" for label in small[1:6])
        more = f" and {len(small) - 6:,} more" if len(small) > 6 else ""
        others_text = f" (nor can these, with their rows: {others}{more})" if others else ""
        raise InputError(
            f"label {small[0]!r} {has}, so it cannot be both trained and tested{others_text}",
            "add rows of that label, join it with another (labels.merge), or take it out",
            file=own[0].file,
            line=own[0].line,
        )


def _refuse_groups_in_two_splits(parts: Mapping[Split, Sequence[Example]], ledger: Path) -> None:
    first_seen: dict[str, tuple[Split, Example]] = {}
    for name in SPLITS:
        for row in parts[name]:
            if row.group is None:
                continue
            other, first = first_seen.setdefault(row.group, (name, row))
            if other != name:
                raise InputError(
                    f"group {row.group!r} stands in {other} ({row_location(first)}) and in {name}",
                    f"take it off one side, or, if the `group` column is new, delete {ledger} to split anew",
                    file=row.file,
                    line=row.line,
                )


def _refuse_empty(parts: Mapping[Split, Sequence[Example]], units: int) -> None:
    empty = [name for name in SPLITS if not parts[name]]
    if empty:
        rows = sum(len(part) for part in parts.values())
        raise InputError(
            f"no row is left for {' and '.join(empty)}: {rows} rows make {units} independent group{'s' * (units != 1)}",
            "add rows, or set a finer `group` column or larger shares in data.split",
            field="data.split",
        )


def time_notes(parts: Mapping[Split, Sequence[Example]]) -> list[str]:
    """Return one line with the time range of each split; none if rows have no times."""
    declared = []
    for name in SPLITS:
        times = sorted((row.time for row in parts[name] if row.time is not None), key=moment)
        declared += [f"{name} {times[0]} to {times[-1]}"] if times else []
    rule = "split by time, the newest rows are the test set and a group goes by its newest row"
    return [printable(f"{rule}: {', '.join(declared)}")] if declared else []
