"""Holds the rows to split with their facts, looks them up in the ledger, and builds the splits with their final ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.records import Example, Kind, Split
from trimtab.data.ledger import ROWS_AT_ONCE, SPLITS, read_ledger_table, write_ledger_tables
from trimtab.data.row_store import RowChanges, join_rows, select_rows
from trimtab.data.split_units import RowFacts, Units, build_units, collect_facts, rank_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers

    Splits = NDArray[np.int8]

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
        self.facts = collect_facts(self.rows, kind, unknown)
        if fixed_test:
            self.facts = self._with_test_ids()
        self.names = rank_names(self.facts.names)
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
        used = [pyarrow.compute.is_in(fixed, value_set=one) for one in (ids.slice(0, self.count), once)]
        self.renamed[self.count :] = pyarrow.compute.or_(*used).to_numpy(zero_copy_only=False)
        if not self.renamed.any():
            return self.facts
        text, alone = pyarrow.large_string(), self.renamed & ~self.facts.has_group
        where, where_alone = pyarrow.array(self.renamed), pyarrow.array(alone)
        new = [f"{name}-test" for name in ids.filter(where).to_pylist()]
        own = [f"row:{name}-test" for name in ids.filter(where_alone).to_pylist()]
        hashes = self.facts.id_hashes.copy()
        hashes[self.renamed] = list(map(hash, new))
        return replace(
            self.facts,
            ids=pyarrow.compute.replace_with_mask(ids, where, pyarrow.array(new, text)),
            names=pyarrow.compute.replace_with_mask(self.facts.names, where_alone, pyarrow.array(own, text)),
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
        return build_units(self.facts, self.names, parts, first)

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
        for start, some in ((0, units), (self.count, test_units)):
            several = np.flatnonzero(some.sizes[some.of_row] > 1)
            if start + len(some.of_row) <= len(self.rows):
                named_by[start + several] = start + some.leader[some.of_row[several]]
        changes = RowChanges(self.renamed, named_by)
        numbers = [np.flatnonzero(chosen == at) for at in range(3)]
        numbers[TEST] = np.concatenate([numbers[TEST], np.arange(self.count, len(self.rows))])
        return {
            name: select_rows(self.rows, own.astype(np.int32), changes)
            for name, own in zip(SPLITS, numbers, strict=True)
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
                some = new[start : start + ROWS_AT_ONCE]
                unit = units.of_row[some]
                columns = (
                    self.facts.ids.take(pyarrow.array(some)),
                    self.unit_names(units, unit),
                    strata.take(pyarrow.array(units.strata[unit])),
                    splits.take(pyarrow.array(chosen[some])),
                )
                yield pyarrow.table(dict(zip(names, columns, strict=True)))
            own = (one.take(pyarrow.array(fixed)) for one in (self.facts.ids, self.facts.names))
            same = (pyarrow.array([text] * len(fixed), pyarrow.string()) for text in ("", "test"))
            yield pyarrow.table(dict(zip(names, (*own, *same), strict=True)))

        write_ledger_tables(self.path, tables())


def last_code(values: Any, keys: Any, codes: NDArray[Any]) -> Splits:
    """Return for each value the code of the last equal key, or -1; values and keys are Arrow arrays."""
    import pyarrow
    import pyarrow.compute

    if not len(keys):
        return np.full(len(values), -1, np.int8)
    backwards = keys.take(pyarrow.array(np.arange(len(keys))[::-1]))
    found = pyarrow.compute.index_in(values, value_set=backwards)
    at = pyarrow.compute.fill_null(found, -1).to_numpy()
    return np.where(at >= 0, codes[::-1][at], -1).astype(np.int8)
