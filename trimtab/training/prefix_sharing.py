"""Rows of one pass as a tree: what several of them begin with is read once, and each goes on from there.

An instruction, worked examples, the prompt of a pair of answers or of a group of rollouts: no one has to say so, tokens are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trimtab.base.common_prefix import common_prefix_length

MIN_SHARED_TOKENS = 16  # tokens that rows must have in common beyond what is shared already
MIN_SAVED_SHARE = 0.02  # of a pass's tokens; below that its rows are laid end to end, as they come


@dataclass
class PrefixTree:
    """Runs of tokens, each after its parent (None: at the beginning), and for every row the runs that it is made of, the first one first."""

    runs: list[tuple[int, ...]] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    paths: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        return sum(map(len, self.runs))

    def row(self, path: Sequence[int]) -> tuple[int, ...]:
        """The tokens of a row, by the runs that it is made of."""
        return tuple(token for run in path for token in self.runs[run])

    def add(self, run: tuple[int, ...], parent: int | None) -> int:
        """A new run; its number."""
        self.runs.append(run)
        self.parents.append(parent)
        return len(self.runs) - 1


def prefix_tree(rows: Sequence[tuple[int, ...]]) -> PrefixTree:
    """The rows' token ids as a tree, or each as a run of its own where too little is saved."""
    tree = PrefixTree(paths=[()] * len(rows))
    order = sorted(range(len(rows)), key=rows.__getitem__)
    _insert_rows(tree, rows, order, depth=0, path=())
    if tree.tokens > (1 - MIN_SAVED_SHARE) * sum(map(len, rows)):
        return without_sharing(rows)
    return tree


def without_sharing(rows: Sequence[tuple[int, ...]]) -> PrefixTree:
    """Each row as a run of its own."""
    return PrefixTree(runs=list(rows), parents=[None] * len(rows), paths=[(number,) for number in range(len(rows))])


def _insert_rows(
    tree: PrefixTree, rows: Sequence[tuple[int, ...]], order: Sequence[int], depth: int, path: tuple[int, ...]
) -> None:
    """Put these rows, which are sorted and share `depth` tokens laid down by `path`, behind it."""
    parent = path[-1] if path else None
    for members, common in _group_by_prefix(rows, order, depth):
        first = rows[members[0]]
        if len(members) > 1:
            _insert_rows(tree, rows, members, common, (*path, tree.add(first[depth:common], parent)))
        elif depth < len(first):
            tree.paths[members[0]] = (*path, tree.add(first[depth:], parent))
        else:  # it ends where others go on
            tree.paths[members[0]] = path


def _group_by_prefix(rows: Sequence[tuple[int, ...]], order: Sequence[int], depth: int) -> list[tuple[list[int], int]]:
    """Runs of neighbours that share enough beyond `depth` tokens, each with the tokens that all of it share."""
    found: list[tuple[list[int], int]] = []
    for before, number in zip([None, *order], order, strict=False):
        shared = 0 if before is None else common_prefix_length(rows[before], rows[number])
        if before is not None and shared >= depth + MIN_SHARED_TOKENS:
            members, common = found[-1]
            found[-1] = ([*members, number], min(common, shared))
        else:
            found.append(([number], len(rows[number])))
    return found
