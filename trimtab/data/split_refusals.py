"""Raises InputError for rows that cannot be split: repeated ids, labels of a single unit, groups in two splits, empty
splits, and data or a ledger that contradict each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.records import Example
from trimtab.data.duplicates import row_location
from trimtab.data.ledger import SPLITS
from trimtab.data.row_store import repeated_positions
from trimtab.data.split_rows import TEST, SplitRows
from trimtab.data.split_units import Units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.split_rows import Splits


def refuse_same_ids(rows: SplitRows) -> None:
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


def refuse_declared(rows: SplitRows, has_times: bool) -> None:
    """Refuse rows with times if the data also declare dev or test rows, as both would choose the test set."""
    fixed, dev = len(rows.rows) > rows.count, np.flatnonzero(rows.facts.is_dev[: rows.count])
    if has_times and (fixed or len(dev)):
        declared = rows.row(rows.count if fixed else int(dev[0]))
        problem = (
            f"the data say themselves what is tested on ({row_location(declared)}), and columns.time makes it the "
            "newest rows"
        )
        raise InputError(problem, "take one of the two out", field="data.columns.time")


def refuse_old_test(rows: SplitRows) -> None:
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


def refuse_small_classes(rows: SplitRows, units: Units) -> None:
    """Refuse a label whose rows form a single unit, which can only be trained on or tested."""
    names, strata = rows.facts.stratum_names, rows.facts.strata[: rows.count]
    pairs = np.unique(strata.astype(np.int64) * len(units) + units.of_row)
    places = np.bincount(pairs // max(1, len(units)), minlength=len(names))
    small = sorted(names[code] for code in np.flatnonzero(places == 1))
    if small:
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


def refuse_groups_in_two_splits(rows: SplitRows, chosen: Splits) -> None:
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


def refuse_empty(counts: NDArray[Any], units: int) -> None:
    """Refuse splits without rows. `counts`: the number of rows in train, dev and test; `units`: of units."""
    empty = [name for name, count in zip(SPLITS, counts, strict=True) if not count]
    if empty:
        rows = int(counts.sum())
        raise InputError(
            f"no row is left for {' and '.join(empty)}: {rows} rows make {units} independent group{'s' * (units != 1)}",
            "add rows, or set a finer `group` column or larger shares in data.split",
            field="data.split",
        )
