"""Groups rows into units that must stay in one split: rows of one group, and rows that repeat each other."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.records import Example, Kind
from trimtab.data.duplicates import normalise_text
from trimtab.data.text_column import TextColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers


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


def collect_facts(rows: Iterable[Example], kind: Kind, unknown: str) -> RowFacts:
    """Collect the facts about rows in one pass. `unknown`: the answer of rows that abstain; empty if none do."""
    unknown_form = normalise_text(unknown) if unknown else ""
    codes: dict[str, int] = {}
    ids, names, strata, hashes = TextColumn(), TextColumn(), array("i"), array("q")
    flags = has_group, has_time, is_dev = bytearray(), bytearray(), bytearray()
    for row in rows:
        ids.append(row.id)
        names.append(group_name(row))
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


def group_name(row: Example) -> str:
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


def build_units(facts: RowFacts, names: RowNumbers, parts: Sequence[int] | RowNumbers, first: int) -> Units:
    """Return the units of M rows from row `first` on: rows of one name or one component of duplicates are connected.

    `names` [N]: the rank of each row's name (`rank_names`). `parts` [M]: the component of each of the M rows. In the
    units row `first` is number 0.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    own = names[first : first + len(parts)]
    component = np.asarray(parts, np.int32)
    component = component - component.min(initial=0)
    count, width = int(names.max(initial=-1)) + 1, int(component.max(initial=-1)) + 1
    graph = csr_matrix((np.ones(len(own), np.int8), (own, count + component)), shape=(count + width,) * 2)
    label = connected_components(graph, directed=False)[1][own]
    del graph, component
    least = np.full(count + width, count, np.int32)
    np.minimum.at(least, label, own)
    least = least[label]
    by_rank, of_row = np.unique(least, return_inverse=True)
    leader = np.empty(len(by_rank), np.int32)
    leading = np.flatnonzero(own == least)
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


def rank_names(names: Any) -> RowNumbers:
    """Return the rank of each text of an Arrow array [N] among the different texts, from 0."""
    import pyarrow
    import pyarrow.compute

    order = pyarrow.compute.sort_indices(names)
    is_new = np.zeros(len(order), bool)
    for start in range(1, len(order), _COMPARED_AT_ONCE):
        end = min(start + _COMPARED_AT_ONCE, len(order))
        own, previous = names.take(order[start:end]), names.take(order[start - 1 : end - 1])
        is_new[start:end] = pyarrow.compute.not_equal(own, previous).to_numpy(zero_copy_only=False)
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
    found: RowNumbers = np.argsort(rank)[stratum[order[first]]].astype(np.int32)
    return found
