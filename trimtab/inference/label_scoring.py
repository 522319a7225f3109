"""Classifies by label log-probabilities; skips labels that cannot win and together hold almost no probability.

The labels' tokens form a trie after the prompt in the flat row; each node sees the prompt and its ancestors, so a
prefix that labels share is computed once. The prompt alone gives the first token of every label; then nodes are scored
in waves, several prompts per pass, as long as a label that is not fully scored may win or has more of the probability
than TOLERANCE. Shapes: N tokens of the flat row, F nodes scored in a pass, V vocabulary, B prompts of a row, R nodes, E
edges, L labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trimtab.base.errors import ContextLengthError, InputError
from trimtab.base.records import Calibration, Generation
from trimtab.inference.attention_layouts import TriePrompts, read_prefix
from trimtab.inference.kv_cache import Prefix, shared_length, small_tensor, with_virtual_ids
from trimtab.inference.label_trie import PLAIN, LabelBounds, LabelTrie, LabelWeighting, label_trie
from trimtab.inference.sampling import log_sum_exp_of
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import count_virtual_tokens
from trimtab.model.threads import limit_to_free_cores

ROW_TOKENS, HEAD_ROWS, MIN_SHARED_TOKENS = 2048, 128, 16
CACHED_TOKENS = 4096  # tokens of prompts and nodes whose keys and values are cached between waves
MIN_PASS_TOKENS = 24  # tokens of a pass: fewer take as long, so tries of up to this size are scored at once
# At this wave, or if this share of the rest may matter, all of it is scored: a pass costs as much as many nodes.
MAX_WAVES, EXHAUSTIVE_SHARE = 2, 0.5
MAX_LABELS = 5000  # beyond these even one question takes minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequest:
    """One prompt as token ids."""

    id: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelProbabilities:
    """The probability of each label, in the labels' order and summing to 1, and the index of the best.

    `plain`: probabilities from the summed log-probabilities, without weighting. `seconds`: the time of a row shared
    evenly among its prompts.
    """

    id: str
    probabilities: tuple[float, ...]
    best: int
    plain: tuple[float, ...]
    prompt_tokens: int
    seconds: float


@torch.inference_mode()
def prefill_prefix(base: Base, ids: tuple[int, ...]) -> Prefix | None:
    """Prefill what later prompts begin with, for `label_probabilities`; None if it is too short to be worth it.

    Virtual tokens of the model precede it and are always prefilled.
    """
    return _prefix_if_long(base, with_virtual_ids(base, ids))


@torch.inference_mode()
def label_probabilities(
    base: Base,
    requests: Sequence[LabelRequest],
    labels_ids: Sequence[tuple[int, ...]],
    *,
    pinned: Prefix | None = None,
    weighting: LabelWeighting = PLAIN,
) -> list[LabelProbabilities]:
    """Return the probabilities of the labels for every prompt: products of token probabilities, weighted and
    normalised.

    `labels_ids`: each label's tokens with the end token, so that a label that is a prefix of another is not favoured.
    Results are in the order of the requests. The best is the best of all fully scored labels; a skipped label counts by
    its bound, and all of these together have at most TOLERANCE of the probability (with and without weighting).
    Raises InputError for labels with the same tokens and prompts that do not fit.
    """
    requests = _with_virtual_tokens(base, requests)
    trie = _checked_trie(base, requests, labels_ids)
    weightings = (weighting,) if weighting == PLAIN else (weighting, PLAIN)
    choices: dict[int, LabelProbabilities] = {}
    for row, sums_BL, seconds in _rows_scored(base, requests, trie, pinned, weightings):
        scores_BL = trie.scores(sums_BL, weighting)
        plain_BL = sums_BL.softmax(-1)
        for place, scores_L, plain_L in zip(row, scores_BL, plain_BL, strict=True):
            choices[place] = LabelProbabilities(
                id=requests[place].id,
                probabilities=tuple(scores_L.softmax(-1).tolist()),
                best=int(scores_L.argmax()),
                plain=tuple(plain_L.tolist()),
                prompt_tokens=len(requests[place].ids),
                seconds=seconds,
            )
    return [choices[place] for place in range(len(requests))]


@torch.inference_mode()
def score_labels(base: Base, requests: Sequence[LabelRequest], labels_ids: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the summed log-probability of every label after every prompt, `[prompts, labels]`, all fully scored.

    Raises as `label_probabilities` does.
    """
    requests = _with_virtual_tokens(base, requests)
    trie = _checked_trie(base, requests, labels_ids)
    sums_NL = torch.zeros(len(requests), len(labels_ids), dtype=torch.double)
    for row, sums_BL, _ in _rows_scored(base, requests, trie, None, ()):
        sums_NL[row] = sums_BL
    return sums_NL


def choose_labels(
    base: Base,
    requests: Sequence[LabelRequest],
    labels: Sequence[str],
    labels_ids: Sequence[tuple[int, ...]],
    *,
    pinned: Prefix | None = None,
    calibration: Calibration | None = None,
) -> list[Generation]:
    """Return each prompt's best label as a generation; with a calibration also the answer without it."""
    weighting = PLAIN if calibration is None else label_weighting(calibration, labels)
    generations = []
    for choice in label_probabilities(base, requests, labels_ids, pinned=pinned, weighting=weighting):
        plain = max(range(len(labels)), key=choice.plain.__getitem__)
        generations.append(
            Generation(
                id=choice.id,
                text=labels[choice.best],
                prompt_tokens=choice.prompt_tokens,
                new_tokens=len(labels_ids[choice.best]),
                seconds=choice.seconds,
                prefill_seconds=choice.seconds,
                probability=choice.probabilities[choice.best],
                probabilities=dict(zip(labels, choice.probabilities, strict=True)),
                plain_text=None if calibration is None else labels[plain],
                plain_probability=None if calibration is None else choice.plain[plain],
            )
        )
    return generations


def cached_token_count(labels_ids: Sequence[tuple[int, ...]]) -> int:
    """Return the most tokens whose keys and values `label_probabilities` caches."""
    return CACHED_TOKENS if len(label_trie(tuple(labels_ids))) > MIN_PASS_TOKENS else 0


def label_weighting(calibration: Calibration, labels: Sequence[str]) -> LabelWeighting:
    """Return the calibration's weighting for labels in this order; an unknown label has no offset."""
    offsets: Mapping[str, float] = calibration.offsets
    return LabelWeighting(
        per_token=calibration.per_token,
        offsets=tuple(offsets.get(label, 0.0) for label in labels) if offsets else (),
        temperature=calibration.temperature,
    )


def _with_virtual_tokens(base: Base, requests: Sequence[LabelRequest]) -> list[LabelRequest]:
    """Return the requests with the virtual tokens before them; an empty one stays empty and is refused later."""
    return [
        replace(request, ids=with_virtual_ids(base, request.ids)) if request.ids else request for request in requests
    ]


def _checked_trie(base: Base, requests: Sequence[LabelRequest], labels_ids: Sequence[tuple[int, ...]]) -> LabelTrie:
    """Return the trie of the labels, if prompts and labels fit the model."""
    if len(labels_ids) > MAX_LABELS:
        raise InputError(
            f"a language model scores every label for every question, and {len(labels_ids):,} are too many to try",
            "check the label column; the arm linear is made for many labels",
        )
    trie = label_trie(tuple(labels_ids))
    context = int(base.model.config.max_position_embeddings)
    for request in requests:
        if not request.ids or len(request.ids) + trie.deepest > context:
            raise ContextLengthError(
                f"{request.id}: {len(request.ids)} prompt tokens and a label do not fit the model's context of "
                f"{context}",
                "shorten the prompt (fewer shots or passages), or choose another base.model",
                field="base.model",
            )
    return trie


def _rows_scored(
    base: Base,
    requests: Sequence[LabelRequest],
    trie: LabelTrie,
    pinned: Prefix | None,
    weightings: Sequence[LabelWeighting],
) -> list[tuple[list[int], Tensor, float]]:
    """Return for each batch of requests their places, the labels' `sums_BL`, and the seconds of each."""
    if not requests:
        return []
    started = time.perf_counter()
    prefix = shared_prefix(base, [request.ids for request in requests], pinned)
    share = (time.perf_counter() - started) / len(requests)
    before, found = len(prefix) if prefix else 0, []
    for row in _row_batches(requests, before, trie, CACHED_TOKENS if weightings else ROW_TOKENS):
        started = time.perf_counter()
        known = _score_row(base, [requests[place].ids[before:] for place in row], trie, prefix, weightings)
        found.append((row, known.sums(), (time.perf_counter() - started) / len(row) + share))
    return found


def shared_prefix(base: Base, prompts: Sequence[tuple[int, ...]], pinned: Prefix | None) -> Prefix | None:
    """Return the common prefix of all prompts: of `pinned` if that has at least half of it, else prefilled now."""
    virtual = count_virtual_tokens(base.model)
    shared = max(virtual, shared_length(prompts))
    if pinned is not None:
        common = shared_length([*prompts, (*pinned.ids, -1)])
        if common >= (virtual or MIN_SHARED_TOKENS) and common * 2 >= shared:
            return pinned.first(common)
    return _prefix_if_long(base, prompts[0][:shared])


def _prefix_if_long(base: Base, ids: tuple[int, ...]) -> Prefix | None:
    return read_prefix(base, ids) if len(ids) >= (count_virtual_tokens(base.model) or MIN_SHARED_TOKENS) else None


def _row_batches(requests: Sequence[LabelRequest], before: int, trie: LabelTrie, max_tokens: int) -> list[list[int]]:
    """Return places of the requests that are run together: similar lengths, up to `max_tokens` tokens with all
    nodes.
    """
    order = sorted(range(len(requests)), key=lambda place: len(requests[place].ids))
    return bounded_runs(order, [len(requests[place].ids) - before + len(trie) for place in order], max_tokens)


def bounded_runs(items: Sequence[int], sizes: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split the items into runs of total size at most `max_tokens`; a larger item is alone."""
    parts: list[list[int]] = []
    filled = max_tokens
    for item, size in zip(items, sizes, strict=True):
        if filled + size > max_tokens:
            parts.append([])
            filled = 0
        parts[-1].append(item)
        filled += size
    return parts


def _score_row(
    base: Base,
    new_ids: Sequence[tuple[int, ...]],
    trie: LabelTrie,
    prefix: Prefix | None,
    weightings: Sequence[LabelWeighting],
) -> LabelBounds:
    """Score the labels after each prompt: all without a weighting, else as many as needed."""
    known = LabelBounds(trie, len(new_ids))
    if not weightings or len(trie) <= MIN_PASS_TOKENS:
        everything = list(range(1, len(trie) + 1))
        for part in bounded_runs(range(len(new_ids)), [len(ids) + len(trie) for ids in new_ids], ROW_TOKENS):
            prompts = TriePrompts([new_ids[place] for place in part], trie, prefix)
            _run_pass(base, prompts, {number: list(everything) for number in range(len(part))}, known, part)
        return known
    prompts = TriePrompts(new_ids, trie, prefix)
    wanted: list[list[int]] = [[] for _ in new_ids]
    every_place = open_prompts = list(range(len(new_ids)))
    waves = 0
    while open_prompts:
        sizes = [len(wanted[place]) or len(new_ids[place]) for place in open_prompts]
        for part in bounded_runs(open_prompts, sizes, ROW_TOKENS):
            _run_pass(base, prompts, {place: wanted[place] for place in part}, known, every_place)
        waves += 1
        next_BR, open_BR = known.nodes_to_score(weightings)
        # decided per prompt, so that other prompts of the batch change nothing
        open_B1, unscored_B1 = open_BR.sum(-1, keepdim=True), (~known.scored_BR).sum(-1, keepdim=True)
        score_all_B1 = (open_B1 <= MIN_PASS_TOKENS) | (open_B1 >= EXHAUSTIVE_SHARE * unscored_B1) | (waves >= MAX_WAVES)
        nodes_BR = torch.where(score_all_B1, open_BR, next_BR)
        wanted = [nodes_R.nonzero()[:, 0].tolist() for nodes_R in nodes_BR]
        open_prompts = [place for place, nodes in enumerate(wanted) if nodes]
    return known


@limit_to_free_cores()
def _run_pass(
    base: Base, prompts: TriePrompts, asked: dict[int, list[int]], known: LabelBounds, known_places: Sequence[int]
) -> None:
    """Run one pass over the unread tokens of some prompts and nodes after them; their edges' log-probabilities go into
    `known`, prompt `number` at `known_places[number]`.
    """
    device, trie = base.device, prompts.trie
    ids: list[int] = []
    rows: list[int] = []  # rows of the flat row that are scored; for each its prompt and its node
    places: list[int] = []
    nodes: list[int] = []
    for number, new in asked.items():
        read = prompts.is_prefilled(number)
        ids += () if read else prompts.new_ids[number]
        scored = new if read else [0, *new]
        rows += range(len(ids) - len(scored) + len(new), len(ids) + len(new))
        places += [known_places[number]] * len(scored)
        nodes += scored
        ids += [trie.tokens[node] for node in new]
    layout = prompts.layout(asked, device)
    hidden_FD = base.hidden(small_tensor(ids, device), layout.positions_N, layout)[small_tensor(rows, device)]
    nodes_F, places_F = torch.tensor(nodes), torch.tensor(places)
    for start in range(0, len(nodes), HEAD_ROWS):
        here = slice(start, start + HEAD_ROWS)
        logits_FV = base.logits(hidden_FD[here])
        counts_F = trie.counts_R[nodes_F[here]]
        at_X = torch.arange(len(counts_F)).repeat_interleave(counts_F)
        nth_X = torch.arange(len(at_X)) - (counts_F.cumsum(0) - counts_F)[at_X]
        edges_X = trie.firsts_R[nodes_F[here]][at_X] + nth_X
        rows_X, tokens_X = at_X.to(device), trie.tokens_E[edges_X].to(device)
        logs_X = logits_FV[rows_X, tokens_X].float() - log_sum_exp_of(logits_FV)[rows_X]
        known.logs_BE[places_F[here][at_X], edges_X] = logs_X.cpu().double()
    known.scored_BR[places_F, nodes_F] = True
