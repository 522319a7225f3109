"""Draws representative samples of a split: seeded and stratified, never the first rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from trimtab.base.files import sha256_text
from trimtab.base.records import Example, Kind
from trimtab.data.row_store import RowView, are_stored, select_rows
from trimtab.data.split_rows import most_common_strata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers

    SamplingKeys = tuple[NDArray[np.uint64], RowNumbers, list[str]]

_cached_keys: WeakKeyDictionary[RowView, dict[tuple[str, Kind, int], SamplingKeys]] = WeakKeyDictionary()


def sample_rows(examples: Sequence[Example], limit: int, kind: Kind, seed: int = 0) -> Sequence[Example]:
    """Draw at most `limit` of the examples, in their order; all if there are no more.

    Each label (classify), else each group, gets its share to within one row, and a larger sample contains a smaller
    one. The sample depends on ids and seed only, not on the order of the file.
    """
    if len(examples) <= limit:
        return examples if are_stored(examples) else tuple(examples)
    points, codes, names = _sampling_keys(examples, kind, seed, "row")
    by_stratum = np.lexsort((points, codes))
    sizes = np.bincount(codes, minlength=len(names)).tolist()
    starts = [0, *np.cumsum(sizes).tolist()]
    # Row k of a stratum may enter once its share exceeds k rows, and must before its share reaches k + 1; of the
    # eligible rows the most urgent enters (Tijdeman 1980, "The chairman assignment problem": every share is then kept
    # to within one row).
    not_due = sorted((0, sha256_text(str(seed), name), code, 0) for code, name in enumerate(names))
    due: list[tuple[int, str, int, int]] = []
    picked: list[int] = []
    for position in range(limit):
        while not_due and not_due[0][0] <= position:
            _, tie, code, rank = heappop(not_due)
            heappush(due, (-(-(rank + 1) * len(examples) // sizes[code]), tie, code, rank))
        _, tie, code, rank = heappop(due)
        picked.append(starts[code] + rank)
        if rank + 1 < sizes[code]:
            heappush(not_due, ((rank + 1) * len(examples) // sizes[code], tie, code, rank + 1))
    return select_rows(examples, np.sort(by_stratum[picked]).astype(np.int32))


def _sampling_keys(examples: Sequence[Example], kind: Kind, seed: int, unit: str) -> SamplingKeys:
    """Return for each row the seeded hash of its unit [N] and the code of its stratum [N], and the names of the strata.

    `unit`: "row" (strata: labels, else groups) or "group" (strata: labels, else slices). The keys of stored rows are
    cached, as each pass decodes these rows anew.
    """
    cached = _cached_keys.setdefault(examples, {}) if isinstance(examples, RowView) else {}
    key = (unit, kind, seed)
    if key not in cached:
        cached[key] = _compute_keys(examples, str(seed), kind, unit)
    return cached[key]


def _compute_keys(examples: Sequence[Example], seed: str, kind: Kind, unit: str) -> SamplingKeys:
    points, codes = np.empty(len(examples), np.uint64), np.empty(len(examples), np.int32)
    names: dict[str, int] = {}
    for at, row in enumerate(examples):
        name, stratum = row.id, row.group
        if unit == "group":
            name, stratum = f"row:{row.id}" if row.group is None else f"group:{row.group}", row.slice
        if kind == "classify":
            stratum = row.references[0]
        points[at] = int(sha256_text(seed, name)[:16], 16)
        codes[at] = names.setdefault(stratum or "", len(names))
    return points, codes, list(names)


def sample_groups(
    examples: Sequence[Example], limit: int, kind: Kind, *, every_label: bool = False, seed: int = 0
) -> Sequence[Example]:
    """Draw a stratified sample of about `limit` examples, in their order; groups stay whole.

    Each label (kind classify), else each slice, keeps its share to within one group. The last group may exceed `limit`
    by less than its own rows. With `every_label` the first rows drawn cover every label. The sample depends on groups,
    ids and seed only; a larger sample contains a smaller one.
    """
    if len(examples) <= limit:
        return examples if are_stored(examples) else tuple(examples)
    points, codes, names = _sampling_keys(examples, kind, seed, "group")
    _, group, sizes = np.unique(points, return_inverse=True, return_counts=True)
    stratum = most_common_strata(group, codes, names)
    # A group's quantile within its stratum, 0 to 1: groups up to one quantile are the same share of every stratum.
    order = np.argsort(stratum, kind="stable")  # by stratum, in it by point
    totals = np.bincount(stratum, weights=sizes, minlength=len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    is_first = np.diff(stratum[order], prepend=-1) > 0
    before = before - np.maximum.accumulate(np.where(is_first, before, 0))
    quantiles = (before + sizes[order] / 2) / totals[stratum[order]]
    if every_label:
        quantiles[is_first] = 0.0
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=lambda code: sha256_text(str(seed), names[code]))] = np.arange(len(names))
    drawn = order[np.lexsort((rank[stratum[order]], quantiles))]
    enough = int(np.searchsorted(np.cumsum(sizes[drawn]) - sizes[drawn], limit))
    is_picked = np.zeros(len(sizes), bool)
    is_picked[drawn[:enough]] = True
    return select_rows(examples, np.flatnonzero(is_picked[group]).astype(np.int32))
