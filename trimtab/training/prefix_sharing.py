"""Finds common prefixes of a batch's rows as a prefix tree, so that each is computed once.

Each row continues from the shared prefix: an instruction, few-shot examples, or the prompt of a preference pair or of a
group of rollouts. It is found by comparing tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trimtab.base.common_prefix import common_prefix_length

MIN_SHARED_TOKENS = 16  # tokens that rows must share beyond the current prefix
MIN_SAVED_SHARE = 0.02  # of a pass's tokens; below that, prefixes are not shared


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
