"""Which of a closed set of labels: every label scored by its probability after the prompt, all of them in one pass.

The labels' tokens form a trie that is laid behind the prompt in the flat row; each node sees the prompt and its ancestors, so a
beginning that labels share is computed once. Shapes: N tokens of the flat row, M positions that are scored, V vocabulary,
R nodes of the trie that have children (the root, which is the prompt's last token, apart), E edges, L labels, P the longest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from trimtab.answering.cache import Prefix, begun, read_prefix, shared_length
from trimtab.base.errors import InputError
from trimtab.base.records import Generation
from trimtab.model.attention import Rule, causal, masked
from trimtab.model.load import Base
from trimtab.model.virtual import virtual_tokens

ROW_TOKENS, HEAD_ROWS, SHARE_FROM = 2048, 64, 16
MOST_LABELS = 5000  # beyond these even one question takes minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRequest:
    """One prompt as token ids."""

    id: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The probability of each label, in the labels' order and adding up to 1, and the index of the best.

    `seconds`: the time of a pass shared evenly among its prompts.
    """

    id: str
    probabilities: tuple[float, ...]
    best: int
    prompt_tokens: int
    seconds: float


class Trie:
    """The labels' tokens as a tree; nodes are numbered parents first, node 0 is the root."""

    def __init__(self, labels_ids: Sequence[tuple[int, ...]]) -> None:
        if len(set(labels_ids)) != len(labels_ids) or not all(labels_ids):
            raise InputError(
                "two labels have the same tokens, or one has none", "make them differ", field="task.labels"
            )
        inner = sorted({label[:end] for label in labels_ids for end in range(len(label))}, key=lambda path: len(path))
        node = {path: number for number, path in enumerate(inner)}
        self.tokens = [path[-1] for path in inner[1:]]
        self.depths_R = torch.tensor([len(path) for path in inner[1:]], dtype=torch.long)
        self.deepest = max(map(len, inner))
        edges = sorted({(node[label[:end]], label[end]) for label in labels_ids for end in range(len(label))})
        self.parents_E = torch.tensor([parent for parent, _ in edges])
        self.tokens_E = torch.tensor([token for _, token in edges])
        edge = {pair: number for number, pair in enumerate(edges)}
        paths = [
            torch.tensor([edge[node[label[:end]], label[end]] for end in range(len(label))]) for label in labels_ids
        ]
        # shorter labels are filled with an edge that does not exist: its score is 0
        self.path_LP = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=len(edges))
        self.sees_RR = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for number, path in enumerate(inner[1:]):
            parent = node[path[:-1]]
            if parent:
                self.sees_RR[number] = self.sees_RR[parent - 1]
            self.sees_RR[number, number] = True

    def __len__(self) -> int:
        return len(self.tokens)

    def of_labels(self, scores_BE: Tensor) -> Tensor:
        """Sums of the edges' scores along each label, `[B, L]`."""
        filled_BE = torch.cat([scores_BE, scores_BE.new_zeros(len(scores_BE), 1)], dim=1)
        return filled_BE[:, self.path_LP].sum(-1)


@lru_cache(maxsize=4)
def _trie(labels_ids: tuple[tuple[int, ...], ...]) -> Trie:
    return Trie(labels_ids)


class TreeRow:
    """Layout of prompts laid end to end, each followed by the nodes of the trie."""

    def __init__(self, lengths: Sequence[int], trie: Trie, prefix: Prefix | None) -> None:
        self.lengths, self.trie, self.prefix = list(lengths), trie, prefix
        before = len(prefix) if prefix else 0
        positions, scored, start = [], [], 0
        for length in lengths:
            positions += [torch.arange(before, before + length), before + length - 1 + trie.depths_R]
            scored.append(torch.arange(start + length - 1, start + length + len(trie)))
            start += length + len(trie)
        self.positions_N, self.scored_M = torch.cat(positions), torch.cat(scored)
        self._seen: dict[tuple[int, int | None], Tensor] = {}

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Prompts causal over [prefix; prompt], nodes over [prefix; prompt; ancestors and themselves]."""
        outs, start = [], 0
        for length in self.lengths:
            own = slice(start, start + length + len(self.trie))
            key_KTD, value_KTD = key_KND[:, own], value_KND[:, own]
            if self.prefix:
                key_KTD = torch.cat([self.prefix.keys[layer], key_KTD], dim=1)
                value_KTD = torch.cat([self.prefix.values[layer], value_KTD], dim=1)
            read = key_KTD.shape[1] - len(self.trie)
            query_HQD = query_HND[:, own]
            outs.append(causal(query_HQD[:, :length], key_KTD[:, :read], value_KTD[:, :read], rule))
            if len(self.trie):
                seen_QT = self._sees(read, rule.window).to(query_HND.device)
                outs.append(masked(query_HQD[:, length:], key_KTD, value_KTD, seen_QT, rule))
            start += length + len(self.trie)
        return torch.cat(outs, dim=1).transpose(0, 1)

    def _sees(self, read: int, window: int | None) -> Tensor:
        """What the nodes see of `read` tokens before them and of each other, `[R, read + R]`."""
        if (read, window) not in self._seen:
            depths_R = self.trie.depths_R
            seen_RT = torch.cat([torch.ones(len(self.trie), read, dtype=torch.bool), self.trie.sees_RR], dim=1)
            if window is not None:
                places_T = torch.cat([torch.arange(read), read - 1 + depths_R])
                seen_RT &= (read - 1 + depths_R)[:, None] - places_T < window
            self._seen[read, window] = seen_RT
        return self._seen[read, window]


@torch.inference_mode()
def hold_prefix(base: Base, ids: tuple[int, ...]) -> Prefix | None:
    """Read now what later prompts begin with, to be handed to `choose`; None for a beginning too short to be worth it.

    Virtual tokens that are on stand before it and are always held.
    """
    return _read(base, begun(base, ids))


@torch.inference_mode()
def choose(
    base: Base,
    requests: Sequence[ChoiceRequest],
    labels_ids: Sequence[tuple[int, ...]],
    *,
    held: Prefix | None = None,
) -> list[Choice]:
    """Score all labels for every prompt: the product of the probabilities of a label's tokens, normalised over labels.

    `labels_ids` hold each label's tokens with the end token, so that a label that begins another one is not favoured.
    Results are in the order asked. Raises InputError for labels that cannot be told apart and prompts that do not fit.
    """
    if len(labels_ids) > MOST_LABELS:
        raise InputError(
            f"a language model scores every label for every question, and {len(labels_ids):,} are too many to try",
            "check the label column; the arm linear is made for many labels",
        )
    trie = _trie(tuple(labels_ids))
    requests = [replace(request, ids=begun(base, request.ids)) if request.ids else request for request in requests]
    context = int(base.model.config.max_position_embeddings)
    for request in requests:
        if not request.ids or len(request.ids) + trie.deepest > context:
            raise InputError(
                f"{request.id}: {len(request.ids)} prompt tokens and a label do not fit the model's context of {context}",
                "shorten the prompt (fewer shots or passages), or choose another base.model",
                field="base.model",
            )
    if not requests:
        return []
    started = time.perf_counter()
    prefix = _prefix(base, [request.ids for request in requests], held)
    share = (time.perf_counter() - started) / len(requests)
    choices: dict[int, Choice] = {}
    for row in _rows(requests, len(prefix) if prefix else 0, len(trie)):
        started = time.perf_counter()
        scores_BL = _score_row(base, [requests[place].ids for place in row], trie, prefix)
        seconds = (time.perf_counter() - started) / len(row)
        for place, probabilities_L in zip(row, scores_BL.softmax(-1), strict=True):
            choices[place] = Choice(
                id=requests[place].id,
                probabilities=tuple(probabilities_L.tolist()),
                best=int(probabilities_L.argmax()),
                prompt_tokens=len(requests[place].ids),
                seconds=seconds + share,
            )
    return [choices[place] for place in range(len(requests))]


def _prefix(base: Base, prompts: Sequence[tuple[int, ...]], held: Prefix | None) -> Prefix | None:
    """What all prompts begin with: of what is held where that is at least half of it, else read now."""
    virtual = virtual_tokens(base.model)
    shared = max(virtual, shared_length(prompts))
    if held is not None:
        common = shared_length([*prompts, (*held.ids, -1)])
        if common >= (virtual or SHARE_FROM) and common * 2 >= shared:
            return held.first(common)
    return _read(base, prompts[0][:shared])


def _read(base: Base, ids: tuple[int, ...]) -> Prefix | None:
    return read_prefix(base, ids) if len(ids) >= (virtual_tokens(base.model) or SHARE_FROM) else None


def choose_labels(
    base: Base,
    requests: Sequence[ChoiceRequest],
    labels: Sequence[str],
    labels_ids: Sequence[tuple[int, ...]],
    *,
    held: Prefix | None = None,
) -> list[Generation]:
    """`choose`, with the best label as the answer's text."""
    return [
        Generation(
            id=choice.id,
            text=labels[choice.best],
            prompt_tokens=choice.prompt_tokens,
            new_tokens=len(labels_ids[choice.best]),
            seconds=choice.seconds,
            prefill_seconds=choice.seconds,
            probability=choice.probabilities[choice.best],
            probabilities=dict(zip(labels, choice.probabilities, strict=True)),
        )
        for choice in choose(base, requests, labels_ids, held=held)
    ]


def _rows(requests: Sequence[ChoiceRequest], before: int, nodes: int) -> list[list[int]]:
    """Places of the requests that are run together: similar lengths, up to ROW_TOKENS in a row."""
    rows: list[list[int]] = []
    filled = ROW_TOKENS
    for place in sorted(range(len(requests)), key=lambda place: len(requests[place].ids)):
        tokens = len(requests[place].ids) - before + nodes
        if filled + tokens > ROW_TOKENS:
            rows.append([])
            filled = 0
        rows[-1].append(place)
        filled += tokens
    return rows


def _score_row(base: Base, prompts: list[tuple[int, ...]], trie: Trie, prefix: Prefix | None) -> Tensor:
    """Log-probabilities `scores_BL` of all labels after each prompt."""
    fresh = [prompt[len(prefix) if prefix else 0 :] for prompt in prompts]
    layout = TreeRow([len(prompt) for prompt in fresh], trie, prefix)
    ids = [token for prompt in fresh for token in (*prompt, *trie.tokens)]
    device = base.device
    hidden_ND = base.hidden(torch.tensor(ids, device=device), layout.positions_N.to(device), layout)
    hidden_MD = hidden_ND[layout.scored_M.to(device)]
    nodes = 1 + len(trie)
    at_edges = (torch.arange(len(prompts))[:, None] * nodes + trie.parents_E).flatten()
    tokens_edges = trie.tokens_E.repeat(len(prompts))
    scores = torch.empty(len(at_edges))
    for start in range(0, len(hidden_MD), HEAD_ROWS):
        logits_MV = base.logits(hidden_MD[start : start + HEAD_ROWS]).float()
        here = (at_edges >= start) & (at_edges < start + HEAD_ROWS)
        rows, tokens = (at_edges[here] - start).to(device), tokens_edges[here].to(device)
        scores[here] = (logits_MV[rows, tokens] - logits_MV.logsumexp(-1)[rows]).cpu()
    return trie.of_labels(scores.view(len(prompts), -1).double())
