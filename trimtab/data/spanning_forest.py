"""Builds a spanning forest of similar pairs as they come: the fewest pairs that connect each group of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from trimtab.data.shingles import Ints

Edge = tuple[int, int, float]


class SpanningForest:
    """A spanning forest over N texts. `part` [N]: the connected component of each text; `edges`: the pairs kept."""

    def __init__(self, count: int) -> None:
        self.part = np.arange(count, dtype=np.int32)
        self.edges: list[Edge] = []

    def add(self, a: Ints, b: Ints, similarity: Any) -> None:
        """Add pairs [P]: keep those of a maximum spanning forest over the components, and join the components."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

        if not len(a):
            return
        a, b = np.sort([a, b], axis=0)
        low, high = np.sort([self.part[a], self.part[b]], axis=0).astype(np.int64)
        order = np.lexsort((b, a, -similarity, high, low))
        _, first = np.unique(low[order] * len(self.part) + high[order], return_index=True)
        best = order[first]  # of the pairs between two components
        a, b, similarity, low, high = (values[best] for values in (a, b, similarity, low, high))
        parts, ends = np.unique([low, high], return_inverse=True)
        low, high = ends.reshape(2, -1)
        graph = csr_matrix((2.0 - similarity, (low, high)), shape=(len(parts), len(parts)))
        tree = minimum_spanning_tree(graph).tocoo()
        positions = np.searchsorted(low * len(parts) + high, tree.row.astype(np.int64) * len(parts) + tree.col)
        self.edges += zip(a[positions].tolist(), b[positions].tolist(), similarity[positions].tolist(), strict=True)
        joined = connected_components(graph, directed=False)[1]
        _, first = np.unique(joined, return_index=True)
        label = np.arange(len(self.part), dtype=np.int32)
        label[parts] = parts[first[joined]]
        self.part = label[self.part]
