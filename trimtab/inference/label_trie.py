"""The labels' tokens as a trie, and bounds on each label's score while the trie is scored node by node.

A node is a prefix of labels; an edge is the next token of one. Shapes: B prompts, L labels, P the longest label, R
nodes that have children (the root, which is the prompt's last token, is the first), A of them on the longest path, E
edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trimtab.base.errors import InputError

TOLERANCE = 1e-3  # most probability of labels that are not fully scored
NODES_PER_WAVE = 2  # nodes per wave and label that may matter


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelWeighting:
    """Turns a label's summed log-probability into a score.

    The score is the sum or its mean per token, minus an offset, over the temperature. `offsets`: one per label, or none
    at all.
    """

    per_token: bool = False
    offsets: tuple[float, ...] = ()
    temperature: float = 1.0


PLAIN = LabelWeighting()


class LabelTrie:
    """The trie of the labels' tokens: nodes are numbered parents first, node 0 is the root; a node's edges are
    adjacent.
    """

    def __init__(self, labels_ids: Sequence[tuple[int, ...]]) -> None:
        if len(set(labels_ids)) != len(labels_ids) or not all(labels_ids):
            raise InputError(
                "two labels have the same tokens, or one has none", "make them differ", field="task.labels"
            )
        inner = sorted({label[:end] for label in labels_ids for end in range(len(label))}, key=lambda path: len(path))
        node = {path: number for number, path in enumerate(inner)}
        self.tokens = [path[-1] if path else -1 for path in inner]
        self.depths_R = torch.tensor([len(path) for path in inner], dtype=torch.long)
        self.deepest = max(map(len, inner))
        self.lengths_L = torch.tensor([len(label) for label in labels_ids], dtype=torch.double)
        edges = sorted({(node[label[:end]], label[end]) for label in labels_ids for end in range(len(label))})
        self.parents_E = torch.tensor([parent for parent, _ in edges])
        self.tokens_E = torch.tensor([token for _, token in edges])
        self.counts_R = torch.bincount(self.parents_E, minlength=len(inner))
        self.firsts_R = self.counts_R.cumsum(0) - self.counts_R
        edge = {pair: number for number, pair in enumerate(edges)}
        paths = [
            torch.tensor([edge[node[label[:end]], label[end]] for end in range(len(label))]) for label in labels_ids
        ]
        # shorter labels are padded with an extra edge of log-probability 0
        self.path_LP = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=len(edges))
        self.nodes_LP = torch.cat([self.parents_E, torch.zeros(1, dtype=torch.long)])[self.path_LP]
        ancestors: list[list[int]] = [[]]  # the path from below the root to each node; padded with the root
        for number, path in enumerate(inner[1:], 1):
            ancestors.append([*ancestors[node[path[:-1]]], number])
        self.ancestors_RA = torch.tensor(
            [[*path_nodes, *[0] * (self.deepest - len(path_nodes))] for path_nodes in ancestors], dtype=torch.long
        )

    def __len__(self) -> int:
        """Number of nodes after the prompt."""
        return len(self.tokens) - 1

    def scores(self, sums_BL: Tensor, weighting: LabelWeighting) -> Tensor:
        """Return the labels' scores from their summed log-probabilities; their softmax gives the probabilities."""
        scores_BL = sums_BL / self.lengths_L if weighting.per_token else sums_BL
        if weighting.offsets:
            scores_BL = scores_BL - torch.tensor(weighting.offsets, dtype=torch.double)
        return scores_BL / weighting.temperature


@lru_cache(maxsize=4)
def label_trie(labels_ids: tuple[tuple[int, ...], ...]) -> LabelTrie:
    """Return the trie of these labels, cached."""
    return LabelTrie(labels_ids)


class LabelBounds:
    """The scored nodes of B prompts, and the log-probabilities of their edges.

    The log-probability of a token that was not scored is at most 0, so the sum of the others bounds a label's score
    from above.
    """

    def __init__(self, trie: LabelTrie, prompts: int) -> None:
        self.trie = trie
        self.logs_BE = torch.zeros(prompts, len(trie.tokens_E) + 1, dtype=torch.double)  # the last edge is padding
        self.scored_BR = torch.zeros(prompts, len(trie.tokens), dtype=torch.bool)

    def sums(self) -> Tensor:
        """Return an upper bound of each label's log-probability, `[B, L]`; exact if the whole label was scored."""
        return self.logs_BE[:, self.trie.path_LP].sum(-1)

    def nodes_to_score(self, weightings: Sequence[LabelWeighting]) -> tuple[Tensor, Tensor]:
        """Return the nodes to score next, and all that may still matter, `[B, R]`; none for a prompt that is decided.

        A prompt is decided if, for each weighting, no label that is not fully scored can win, and all of these together
        have at most TOLERANCE of the probability. Of each label that may matter the next nodes are taken, of the
        likeliest one all.
        """
        missing_BLP = ~self.scored_BR[:, self.trie.nodes_LP]
        done_BL = ~missing_BLP.any(-1)
        needed_BL, sums_BL = torch.zeros_like(done_BL), self.sums()
        likeliest_BLP = torch.zeros_like(missing_BLP)
        for weighting in weightings:
            bounds_BL = self.trie.scores(sums_BL, weighting)
            needed_here_BL = _open_labels(bounds_BL, done_BL)
            likeliest_B = bounds_BL.masked_fill(~needed_here_BL, float("-inf")).argmax(-1)
            rows_B = torch.arange(len(likeliest_B))
            likeliest_BLP[rows_B, likeliest_B] |= needed_here_BL.any(-1)[:, None]
            needed_BL |= needed_here_BL
        steps_BLP = missing_BLP.cumsum(-1) <= NODES_PER_WAVE
        next_BR = self._nodes_at(missing_BLP & (likeliest_BLP | (needed_BL[:, :, None] & steps_BLP)))
        return next_BR, self._nodes_at(missing_BLP & needed_BL[:, :, None])

    def _nodes_at(self, asked_BLP: Tensor) -> Tensor:
        """Return the nodes at the marked places of labels, `[B, R]`."""
        marked_BR = torch.zeros(self.scored_BR.shape, dtype=torch.long)
        nodes_BX = self.trie.nodes_LP.flatten().expand(len(asked_BLP), -1)
        return marked_BR.scatter_add_(1, nodes_BX, asked_BLP.flatten(1).long()) > 0


def _open_labels(bounds_BL: Tensor, done_BL: Tensor) -> Tensor:
    """Return the labels, not fully scored, that can still win or hold too much of the probability, `[B, L]`.

    Until a label is fully scored nothing is ruled out; the likeliest are taken as if the bounds were the scores.
    """
    masses_BL = (bounds_BL - bounds_BL.amax(-1, keepdim=True)).exp()
    any_B1 = done_BL.any(-1, keepdim=True)
    known_B1 = torch.where(any_B1, masses_BL * done_BL, masses_BL).sum(-1, keepdim=True)
    open_BL, order_BL = masses_BL.masked_fill(done_BL, 0.0).sort(-1)  # ascending: the smallest may stay open
    heavy_BL = torch.zeros_like(done_BL).scatter(1, order_BL, open_BL.cumsum(-1) > TOLERANCE * known_B1)
    best_B1 = bounds_BL.masked_fill(~done_BL, float("-inf")).amax(-1, keepdim=True)
    return ~done_BL & (heavy_BL | (any_B1 & (bounds_BL >= best_B1)))
