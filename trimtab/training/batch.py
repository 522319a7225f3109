"""Packs rows into flat batches, chooses the rows of each optimizer step, and splits them into micro-batches.

What rows of a batch begin with in common (an instruction, few-shot examples, the prompt of a preference pair or of a
group of rollouts) is found by comparing tokens, laid out as a prefix tree, and computed once.
Shapes: N tokens of the flat row, M scored positions.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from heapq import heapreplace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.records import Encoded
from trimtab.model import process_group
from trimtab.model.attention import PackedSequences
from trimtab.training.parallel import LANE_COST, parallel_lanes

# Tokens of one forward and backward pass: bounds memory, and decides which rows share a prefix; it changes a step's
# sums by rounding only.
MICRO_TOKENS = 1024
MAX_BALANCED_PARTS = 16  # with more parts, lanes take the next one as they end and hardly wait
MIN_SHARED_TOKENS = 16  # tokens that rows must share beyond the current prefix
MIN_SAVED_SHARE = 0.02  # of a pass's tokens; below that, prefixes are not shared


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """An encoded row and its weight in the loss.

    `scored`: pairs of a position in the row and the label that its hidden state predicts; None means the next token
    wherever that is trained on. A position may occur in several pairs.
    """

    encoded: Encoded
    weight: float = 1.0
    scored: tuple[tuple[int, int], ...] | None = None

    @property
    def targets(self) -> tuple[tuple[int, int], ...]:
        """Pairs of position and label; the first token of a row is never predicted."""
        if self.scored is not None:
            return self.scored
        ids, trained = self.encoded.ids, self.encoded.trained
        return tuple((place - 1, ids[place]) for place in range(1, len(ids)) if trained[place])

    @property
    def trained_tokens(self) -> int:
        """Number of labels in the loss."""
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences laid end to end, with the positions that are scored, their labels and weights.

    The hidden state at `scored_M` in the flat row predicts `labels_M`, weighted by `weights_M`. A position may occur
    several times with different labels, such as the end of a prefix that several rows share. `row_M`: the row that each
    label belongs to. `row_tokens`: tokens of all rows, shared ones counted once per row. `tree`: the runs that each row
    consists of.
    """

    ids_N: Tensor
    positions_N: Tensor
    scored_M: Tensor
    labels_M: Tensor
    weights_M: Tensor
    row_M: Tensor
    rows: int
    row_tokens: int
    layout: PackedSequences
    tree: PrefixTree

    @property
    def trained_tokens(self) -> int:
        """Number of labels in the loss."""
        return self.labels_M.shape[0]


def pack_rows(rows: Sequence[TrainingRow], *, shared: bool = True) -> Batch:
    """Pack rows into one batch; common prefixes are laid down once if `shared`.

    A row of weight 0 is read but not scored.
    """
    ids = [row.encoded.ids for row in rows]
    tree = prefix_tree(ids) if shared else without_sharing(ids)
    starts = list(accumulate(map(len, tree.runs), initial=0))
    scored: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    row_of: list[int] = []
    for number, (row, path) in enumerate(zip(rows, tree.paths, strict=True)):
        targets = row.targets if row.weight else ()
        places = [place for run in path for place in range(starts[run], starts[run + 1])]
        scored += [places[place] for place, _ in targets]
        labels += [label for _, label in targets]
        weights += [row.weight] * len(targets)
        row_of += [number] * len(targets)
    layout = PackedSequences([len(run) for run in tree.runs], tree.parents)
    return Batch(
        ids_N=torch.tensor([token for run in tree.runs for token in run]),
        positions_N=layout.positions_N,
        row_M=torch.tensor(row_of, dtype=torch.long),
        rows=len(rows),
        row_tokens=sum(map(len, ids)),
        scored_M=torch.tensor(scored, dtype=torch.long),
        labels_M=torch.tensor(labels, dtype=torch.long),
        weights_M=torch.tensor(weights, dtype=torch.float32),
        layout=layout,
        tree=tree,
    )


def step_rows(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Return the row indices of optimizer step `step` (from 0).

    Each epoch has a new order; its last step may be short. A pure function of its arguments, so a resumed run sees the
    same rows without saved state.
    """
    per_epoch = steps_per_epoch(count, batch)
    epoch, place = divmod(step, per_epoch)
    return _epoch_order(count, seed, epoch)[place * batch : (place + 1) * batch].tolist()


@lru_cache(maxsize=2)  # of training and of dev: to shuffle a million rows takes half a second
def _epoch_order(count: int, seed: int, epoch: int) -> array[int]:
    """Return the order in which an epoch reads the rows."""
    order = array("i", range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def steps_per_epoch(count: int, batch: int) -> int:
    """Return the optimizer steps of one epoch."""
    return -(-count // batch)


def step_batches(rows: Sequence[TrainingRow], *, batch: int, step: int, seed: int) -> list[Batch]:
    """Return the micro-batches of one optimizer step over single rows.

    Their weights are divided by the step's total weight, so weighted sums over the micro-batches add up to the step's
    weighted mean, however it is split.
    """
    return [pack_rows(part) for part in step_microbatch_rows(rows, batch=batch, step=step, seed=seed)]


def first_epoch(rows: Sequence[TrainingRow], *, batch: int, seed: int) -> Iterator[list[TrainingRow]]:
    """Yield the rows of each micro-batch of the first epoch of `step_batches`."""
    for step in range(steps_per_epoch(len(rows), batch)):
        yield from step_microbatch_rows(rows, batch=batch, step=step, seed=seed)


def step_microbatch_rows(rows: Sequence[TrainingRow], *, batch: int, step: int, seed: int) -> list[list[TrainingRow]]:
    """Return the rows of each micro-batch of one optimizer step, weighted as in `step_batches`."""
    return microbatch_rows([rows[number] for number in step_rows(len(rows), batch, step, seed)])


def microbatch_rows(chosen: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
    """Return the rows of each micro-batch of the step that reads these rows, weighted as in `step_batches`."""
    total = sum(row.trained_tokens * row.weight for row in chosen)
    units = [(replace(row, weight=row.weight / total),) for row in chosen]
    return [[row for unit in part for row in unit] for part in micro_batches(units)]


def micro_batches(
    units: Sequence[tuple[TrainingRow, ...]], tokens: int | None = None, *, shared: bool = True
) -> list[list[tuple[TrainingRow, ...]]]:
    """Split the rows of one step into micro-batches of at most `tokens` tokens, MICRO_TOKENS by default,
    balanced over the parallel lanes.

    A unit (a pair, a group) is never split: its rows stand next to each other in their order, and a single unit may
    exceed `tokens`. A common prefix counts once if `shared`.
    """
    tokens = tokens or MICRO_TOKENS
    parts = _fill(units, tokens, shared=shared)
    lanes = parallel_lanes()
    if lanes == 1:
        return parts
    lengths = [_part_tokens(part, shared=shared) for part in parts]
    for parts_per_lane in sorted(
        {max(1, len(parts) // lanes), -(-len(parts) // lanes)}
    ):  # a part that is left over would run alone
        balanced = _balanced(units, parts_per_lane * lanes, shared=shared)
        longest = max((_part_tokens(part, shared=shared) for part in balanced), default=0)
        if _is_faster(len(balanced), longest, lengths) and longest <= max([tokens, *lengths]):
            return balanced
    return parts


def _is_faster(count: int, longest: int, lengths: Sequence[int]) -> bool:
    """Return True if `count` balanced parts, the longest of `longest` tokens, are faster than parts of these
    `lengths`.
    """
    if process_group.size() > 1:
        turns, turns_before = (-(-parts // process_group.size()) for parts in (count, len(lengths)))
        return turns * longest < turns_before * max(lengths, default=0)
    return count * longest * LANE_COST <= sum(lengths)  # rows with long common prefixes: together, with all threads


def batch_tokens(batch: Batch) -> int:
    """Return the tokens of a pass over a batch, shared prefixes counted once."""
    return len(batch.ids_N)


def units_tokens(units: Sequence[tuple[TrainingRow, ...]]) -> int:
    """Return the tokens of a micro-batch that is not packed yet, without what its units share."""
    return sum(map(_unit_tokens, units))


def _fill(
    units: Sequence[tuple[TrainingRow, ...]], tokens: int, *, shared: bool
) -> list[list[tuple[TrainingRow, ...]]]:
    """Fill as few micro-batches as possible, shortest rows first."""
    parts: list[list[tuple[TrainingRow, ...]]] = []
    room = 0
    for unit in sorted(units, key=_unit_tokens):
        new = _unit_tokens(unit) - (_shared_tokens(parts[-1][0][0], unit[0]) if parts and shared else 0)
        if not parts or new > room:
            parts.append([])
            room, new = tokens, _unit_tokens(unit)
        parts[-1].append(unit)
        room -= new
    return parts


def _balanced(
    units: Sequence[tuple[TrainingRow, ...]], count: int, *, shared: bool
) -> list[list[tuple[TrainingRow, ...]]]:
    """Split the units into at most `count` micro-batches of similar length: longest first, each to the shortest one so
    far.

    If there are few micro-batches, units are then swapped as long as the longest and the shortest come closer.
    """
    parts: list[list[tuple[TrainingRow, ...]]] = [[] for _ in range(min(count, len(units)))]
    shortest = [(0, number) for number in range(len(parts))]
    for unit in sorted(units, key=_unit_tokens, reverse=True):
        length, number = shortest[0]
        part = parts[number]
        length += _unit_tokens(unit) - (_shared_tokens(part[0][0], unit[0]) if part and shared else 0)
        part.append(unit)
        heapreplace(shortest, (length, number))
    for _ in units if 1 < len(parts) <= MAX_BALANCED_PARTS else ():
        if not _improve_balance(parts, shared=shared):
            break
    # the longest starts first, so that lanes end together
    return sorted(parts, key=lambda part: _part_tokens(part, shared=shared), reverse=True)


def _improve_balance(parts: list[list[tuple[TrainingRow, ...]]], *, shared: bool) -> bool:
    """Move a unit from the longest part to the shortest, or swap two, whichever evens them most; False if nothing
    helps.
    """
    lengths = [_part_tokens(part, shared=shared) for part in parts]
    long, short = (parts[lengths.index(find(lengths))] for find in (max, min))
    gap = max(lengths) - min(lengths)
    own_tokens, other_tokens = (  # of each unit in the part it would move to
        [_unit_tokens(unit) - (_shared_tokens(there[0][0], unit[0]) if shared else 0) for unit in part]
        for part, there in ((long, short), (short, long))
    )
    changes = [
        (abs(gap - 2 * (one - other)), i, j) for i, one in enumerate(own_tokens) for j, other in enumerate(other_tokens)
    ]
    if len(long) > 1:
        changes += [(abs(gap - 2 * one), i, len(short)) for i, one in enumerate(own_tokens)]  # moved without a swap
    new_gap, moved_index, returned_index = min(changes)
    if new_gap >= gap:
        return False
    swapped = (
        [*long[:moved_index], *short[returned_index : returned_index + 1], *long[moved_index + 1 :]],
        [*short[:returned_index], long[moved_index], *short[returned_index + 1 :]],
    )
    if max(_part_tokens(part, shared=shared) for part in swapped) >= max(
        lengths
    ):  # they may share less of their prefixes there
        return False
    long[:], short[:] = swapped
    return True


def _part_tokens(part: Sequence[tuple[TrainingRow, ...]], *, shared: bool) -> int:
    """Return the tokens to compute for a micro-batch."""
    return sum(map(_unit_tokens, part)) - (
        sum(_shared_tokens(part[0][0], unit[0]) for unit in part[1:]) if shared else 0
    )


def _unit_tokens(unit: tuple[TrainingRow, ...]) -> int:
    return sum(len(row.encoded.ids) for row in unit) - sum(_shared_tokens(*both) for both in pairwise(unit))


def _shared_tokens(left: TrainingRow, right: TrainingRow) -> int:
    """Return the tokens that are computed once for both rows."""
    shared = common_prefix_length(left.encoded.ids, right.encoded.ids)
    return shared if shared >= MIN_SHARED_TOKENS else 0


@dataclass
class PrefixTree:
    """A prefix tree over rows of token ids.

    `runs`: segments of tokens. `parents`: for each run the run that it follows, None at the root. `paths`: for each row
    the runs that it consists of, in order.
    """

    runs: list[tuple[int, ...]] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    paths: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Number of tokens to compute, shared ones counted once."""
        return sum(map(len, self.runs))

    def row(self, path: Sequence[int]) -> tuple[int, ...]:
        """Return the token ids of a row, given its path."""
        return tuple(token for run in path for token in self.runs[run])

    def add(self, run: tuple[int, ...], parent: int | None) -> int:
        """Append a run and return its index."""
        self.runs.append(run)
        self.parents.append(parent)
        return len(self.runs) - 1


def prefix_tree(rows: Sequence[tuple[int, ...]]) -> PrefixTree:
    """Build the prefix tree of the rows' token ids; if it saves too little, each row is a run of its own."""
    tree = PrefixTree(paths=[()] * len(rows))
    order = sorted(range(len(rows)), key=rows.__getitem__)
    _insert_rows(tree, rows, order, depth=0, path=())
    if tree.tokens > (1 - MIN_SAVED_SHARE) * sum(map(len, rows)):
        return without_sharing(rows)
    return tree


def without_sharing(rows: Sequence[tuple[int, ...]]) -> PrefixTree:
    """Return a tree in which each row is a run of its own."""
    return PrefixTree(runs=list(rows), parents=[None] * len(rows), paths=[(number,) for number in range(len(rows))])


def _insert_rows(
    tree: PrefixTree, rows: Sequence[tuple[int, ...]], order: Sequence[int], depth: int, path: tuple[int, ...]
) -> None:
    """Insert rows below `path`; they are sorted and share their first `depth` tokens, which `path` holds."""
    parent = path[-1] if path else None
    for members, common in _group_by_prefix(rows, order, depth):
        first = rows[members[0]]
        if len(members) > 1:
            _insert_rows(tree, rows, members, common, (*path, tree.add(first[depth:common], parent)))
        elif depth < len(first):
            tree.paths[members[0]] = (*path, tree.add(first[depth:], parent))
        else:  # the row ends where others continue
            tree.paths[members[0]] = path


def _group_by_prefix(rows: Sequence[tuple[int, ...]], order: Sequence[int], depth: int) -> list[tuple[list[int], int]]:
    """Group neighbouring rows that share enough tokens beyond `depth`; return each group with the length of its common
    prefix.
    """
    found: list[tuple[list[int], int]] = []
    for before, number in zip([None, *order], order, strict=False):
        shared = 0 if before is None else common_prefix_length(rows[before], rows[number])
        if before is not None and shared >= depth + MIN_SHARED_TOKENS:
            members, common = found[-1]
            found[-1] = ([*members, number], min(common, shared))
        else:
            found.append(([number], len(rows[number])))
    return found
