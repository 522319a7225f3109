"""The rows to split: their facts, the units that stay in one split, their splits in the ledger, and their final ids."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.records import Example, Kind, Split
from trimtab.data.duplicates import normalise_text
from trimtab.data.ledger import ROWS_AT_ONCE, SPLITS, read_ledger_table, write_ledger_tables
from trimtab.data.row_store import RowChanges, TextColumn, join_rows, select_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers

    Splits = NDArray[np.int8]


_COMPARED_AT_ONCE = 100_000  # names compared at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowFacts:
    """The facts about N rows by which they are split, as arrays: about 70 bytes a row with ids of 16 characters.

    `ids` and `names` [N] are Arrow arrays of text: the id, and the group or, without one, `row:ID`. `strata` [N]:
    indices into `stratum_names`. `id_hashes` [N]: equal for equal ids.
    """

    ids: Any
    names: Any
    has_group: NDArray[np.bool_]
    has_time: NDArray[np.bool_]
    is_dev: NDArray[np.bool_]
    strata: RowNumbers
    stratum_names: list[str]
    id_hashes: NDArray[np.int64]


def _collect_facts(rows: Iterable[Example], kind: Kind, unknown: str) -> RowFacts:
    """Collect the facts about rows in one pass. `unknown`: the answer of rows that abstain; empty if none do."""
    unknown_form = normalise_text(unknown) if unknown else ""
    codes: dict[str, int] = {}
    ids, names, strata, hashes = TextColumn(), TextColumn(), array("i"), array("q")
    flags = has_group, has_time, is_dev = bytearray(), bytearray(), bytearray()
    for row in rows:
        ids.append(row.id)
        names.append(_group_name(row))
        hashes.append(hash(row.id))
        has_group.append(row.group is not None)
        has_time.append(row.time is not None)
        is_dev.append(row.split == "dev")
        strata.append(codes.setdefault(_stratum(row, kind, unknown_form), len(codes)))
    marks = [np.frombuffer(flag, bool) for flag in flags]
    return RowFacts(
        ids=ids.finish(),
        names=names.finish(),
        has_group=marks[0],
        has_time=marks[1],
        is_dev=marks[2],
        strata=np.frombuffer(strata, np.int32),
        stratum_names=list(codes),
        id_hashes=np.frombuffer(hashes, np.int64),
    )


def _group_name(row: Example) -> str:
    """Return the group of a row, `row:ID` if it has none."""
    return f"row:{row.id}" if row.group is None else row.group


def _stratum(row: Example, kind: Kind, unknown_form: str) -> str:
    """Return the stratum of a row in the first split: its label (classify), its slice, or "unknown" if its answer is
    the unknown one.
    """
    if kind == "classify":
        return row.references[0]
    if row.slice is not None:
        return row.slice
    return "unknown" if unknown_form and normalise_text(row.references[0]) == unknown_form else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """U units of rows that stay together in one split, sorted by name.

    `of_row` [N]: the unit of each row. `members` [N]: the rows by unit, in a unit by id; those of unit u are
    `members[starts[u]:starts[u + 1]]`. `leader` [U]: a row whose group gives the unit its name. `strata` [U]: the most
    common stratum of the unit's rows.
    """

    of_row: RowNumbers
    members: RowNumbers
    starts: RowNumbers
    leader: RowNumbers
    strata: RowNumbers

    def __len__(self) -> int:
        return len(self.leader)

    @property
    def sizes(self) -> RowNumbers:
        """Return the number of rows of each unit [U]."""
        return np.diff(self.starts)


def _build_units(facts: RowFacts, names: RowNumbers, parts: Sequence[int] | RowNumbers, first: int) -> Units:
    """Return the units of M rows from row `first` on: rows of one name or one component of duplicates are connected.

    `names` [N]: the rank of each row's name (`_rank_names`). `parts` [M]: the component of each of the M rows. In the
    units row `first` is number 0.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    ranks = names[first : first + len(parts)]
    component = np.asarray(parts, np.int32)
    component = component - component.min(initial=0)
    count, width = int(names.max(initial=-1)) + 1, int(component.max(initial=-1)) + 1
    graph = csr_matrix((np.ones(len(ranks), np.int8), (ranks, count + component)), shape=(count + width,) * 2)
    label = connected_components(graph, directed=False)[1][ranks]
    del graph, component
    least = np.full(count + width, count, np.int32)
    np.minimum.at(least, label, ranks)
    least = least[label]
    by_rank, of_row = np.unique(least, return_inverse=True)
    leader = np.empty(len(by_rank), np.int32)
    leading = np.flatnonzero(ranks == least)
    leader[of_row[leading]] = leading
    members, starts = _members(of_row, facts.ids.slice(first, len(parts)), len(by_rank))
    strata = facts.strata[first : first + len(parts)]
    return Units(
        of_row=of_row.astype(np.int32),
        members=members,
        starts=starts,
        leader=leader,
        strata=most_common_strata(of_row, strata, facts.stratum_names),
    )


def _rank_names(names: Any) -> RowNumbers:
    """Return the rank of each text of an Arrow array [N] among the different texts, from 0."""
    import pyarrow
    import pyarrow.compute

    order = pyarrow.compute.sort_indices(names)
    is_new = np.zeros(len(order), bool)
    for start in range(1, len(order), _COMPARED_AT_ONCE):
        end = min(start + _COMPARED_AT_ONCE, len(order))
        current, previous = names.take(order[start:end]), names.take(order[start - 1 : end - 1])
        is_new[start:end] = pyarrow.compute.not_equal(current, previous).to_numpy(zero_copy_only=False)
    ranks = np.empty(len(order), np.int32)
    ranks[order.to_numpy()] = np.cumsum(is_new, dtype=np.int32)
    return ranks


def _members(of_row: RowNumbers, ids: Any, count: int) -> tuple[RowNumbers, RowNumbers]:
    """Return the rows by unit, in a unit by id [N], and the position at which each unit starts [U + 1]."""
    import pyarrow
    import pyarrow.compute

    sizes = np.bincount(of_row, minlength=count)
    several = np.flatnonzero(sizes[of_row] > 1)
    rank = np.zeros(len(of_row), np.int32)
    by_id = pyarrow.compute.sort_indices(ids.take(pyarrow.array(several))).to_numpy()
    rank[several[by_id]] = np.arange(len(several))
    members = np.lexsort((rank, of_row)).astype(np.int32)
    return members, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def most_common_strata(of_row: RowNumbers, strata: RowNumbers, names: Sequence[str]) -> RowNumbers:
    """Return the most common stratum of the rows of each unit [U]; among equally common ones the first by name."""
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    pairs, times = np.unique(of_row.astype(np.int64) * len(names) + rank[strata], return_counts=True)
    unit, stratum = np.divmod(pairs, max(1, len(names)))
    order = np.lexsort((stratum, -times, unit))
    _, first = np.unique(unit[order], return_index=True)
    most_common: RowNumbers = np.argsort(rank)[stratum[order[first]]].astype(np.int32)
    return most_common


TRAIN, DEV, TEST = range(3)
"""Indices into SPLITS."""


class SplitRows:
    """The N rows to split: `count` examples, then the fixed test set; with their facts and their splits in the ledger.

    `names` [N]: the rank of each row's name among the different names. `known` [N]: the split of a row in the ledger,
    or -1. `renamed` [N]: True for rows whose id gets the suffix `-test`.
    """

    def __init__(
        self, examples: Sequence[Example], fixed_test: Sequence[Example], ledger: Path, kind: Kind, unknown: str
    ) -> None:
        import pyarrow
        import pyarrow.compute

        self.path, self.table, self.count = ledger, read_ledger_table(ledger), len(examples)
        self.table_splits = pyarrow.compute.index_in(self.column("split"), value_set=pyarrow.array(SPLITS)).to_numpy()
        self.rows = join_rows(examples, fixed_test)
        self.renamed = np.zeros(len(self.rows), bool)
        self.facts = _collect_facts(self.rows, kind, unknown)
        if fixed_test:
            self.facts = self._with_test_ids()
        self.names = _rank_names(self.facts.names)
        self.known = last_code(self.facts.ids, self.column("id"), self.table_splits)

    def column(self, name: str) -> Any:
        """Return a column of the ledger as an Arrow array of text."""
        import pyarrow

        text = pyarrow.string() if name in ("split", "stratum") else pyarrow.large_string()
        return self.table.column(name).cast(text).combine_chunks()

    def _with_test_ids(self) -> RowFacts:
        """Return the facts with test rows renamed if an example has, or had, their id: both files may number from 1."""
        import pyarrow
        import pyarrow.compute

        ids, fixed = self.facts.ids, self.facts.ids.slice(self.count)
        once = self.column("id").filter(pyarrow.array(self.table_splits != TEST))
        used = [pyarrow.compute.is_in(fixed, value_set=known_ids) for known_ids in (ids.slice(0, self.count), once)]
        self.renamed[self.count :] = pyarrow.compute.or_(*used).to_numpy(zero_copy_only=False)
        if not self.renamed.any():
            return self.facts
        text, alone = pyarrow.large_string(), self.renamed & ~self.facts.has_group
        where, where_alone = pyarrow.array(self.renamed), pyarrow.array(alone)
        new = [f"{name}-test" for name in ids.filter(where).to_pylist()]
        new_names = [f"row:{name}-test" for name in ids.filter(where_alone).to_pylist()]
        hashes = self.facts.id_hashes.copy()
        hashes[self.renamed] = list(map(hash, new))
        return replace(
            self.facts,
            ids=pyarrow.compute.replace_with_mask(ids, where, pyarrow.array(new, text)),
            names=pyarrow.compute.replace_with_mask(self.facts.names, where_alone, pyarrow.array(new_names, text)),
            id_hashes=hashes,
        )

    @property
    def extends_ledger(self) -> bool:
        """True if the ledger contains an example, or the group of one."""
        import pyarrow.compute

        if not self.table.num_rows:
            return False
        names = self.facts.names.slice(0, self.count)
        in_group = pyarrow.compute.is_in(names, value_set=self.column("group"))
        return bool((self.known[: self.count] >= 0).any() or pyarrow.compute.any(in_group).as_py())

    def units(self, parts: Sequence[int] | RowNumbers, first: int) -> Units:
        """Return the units of M rows from row `first` on; `parts` [M]: their components of duplicates."""
        return _build_units(self.facts, self.names, parts, first)

    def unit_names(self, units: Units, numbers: RowNumbers) -> Any:
        """Return the names of units of examples as an Arrow array."""
        import pyarrow

        return self.facts.names.take(pyarrow.array(units.leader[numbers]))

    def row(self, number: int) -> Example:
        """Return a row with its final id."""
        row = self.rows[number]
        return replace(row, id=f"{row.id}-test") if self.renamed[number] else row

    def parts(self, chosen: Splits, units: Units, test_units: Units) -> dict[Split, Sequence[Example]]:
        """Return the rows of each split; a unit of several rows gives them its name as their group.

        `chosen`: the split of each example. `units`, `test_units`: of the examples and of the fixed test set.
        """
        named_by = np.full(len(self.rows), -1, np.int32)
        for start, side in ((0, units), (self.count, test_units)):
            several = np.flatnonzero(side.sizes[side.of_row] > 1)
            if start + len(side.of_row) <= len(self.rows):
                named_by[start + several] = start + side.leader[side.of_row[several]]
        changes = RowChanges(self.renamed, named_by)
        numbers = [np.flatnonzero(chosen == at) for at in range(3)]
        numbers[TEST] = np.concatenate([numbers[TEST], np.arange(self.count, len(self.rows))])
        return {
            name: select_rows(self.rows, rows_of_split.astype(np.int32), changes)
            for name, rows_of_split in zip(SPLITS, numbers, strict=True)
        }

    def write_ledger(self, units: Units, chosen: Splits) -> None:
        """Append the rows that are not in the ledger yet: the examples by unit, then the fixed test set."""
        import pyarrow

        new = units.members[self.known[units.members] < 0]
        fixed = np.flatnonzero(self.known[self.count :] < 0) + self.count
        if not len(new) + len(fixed):
            return
        strata, splits = pyarrow.array([*self.facts.stratum_names, ""]), pyarrow.array(SPLITS)

        def tables() -> Iterator[Any]:
            names = self.table.column_names
            yield self.table
            for start in range(0, len(new), ROWS_AT_ONCE):
                block = new[start : start + ROWS_AT_ONCE]
                unit = units.of_row[block]
                columns = (
                    self.facts.ids.take(pyarrow.array(block)),
                    self.unit_names(units, unit),
                    strata.take(pyarrow.array(units.strata[unit])),
                    splits.take(pyarrow.array(chosen[block])),
                )
                yield pyarrow.table(dict(zip(names, columns, strict=True)))
            of_fixed = (column.take(pyarrow.array(fixed)) for column in (self.facts.ids, self.facts.names))
            same = (pyarrow.array([text] * len(fixed), pyarrow.string()) for text in ("", "test"))
            yield pyarrow.table(dict(zip(names, (*of_fixed, *same), strict=True)))

        write_ledger_tables(self.path, tables())


def last_code(values: Any, keys: Any, codes: NDArray[Any]) -> Splits:
    """Return for each value the code of the last equal key, or -1; values and keys are Arrow arrays."""
    import pyarrow
    import pyarrow.compute

    if not len(keys):
        return np.full(len(values), -1, np.int8)
    backwards = keys.take(pyarrow.array(np.arange(len(keys))[::-1]))
    positions = pyarrow.compute.index_in(values, value_set=backwards)
    at = pyarrow.compute.fill_null(positions, -1).to_numpy()
    return np.where(at >= 0, codes[::-1][at], -1).astype(np.int8)
