"""Attention layouts for transformers (`Layout`, `PackedSequences`), and causal and masked attention in torch.

The model runs one flat row, and a `Layout` says which tokens see which. Shapes: N tokens of the flat row, H query
heads, K key/value heads, D head size, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from trimtab.model.kernels.build import supports
from trimtab.model.kernels.ops import apply_function, scaled_softmax, softmax_backward
from trimtab.model.kernels.varlen_attention import VarlenAttention
from trimtab.model.padding import PaddedLayout, padded_groups

ATTENTION = "trimtab"
_MATMUL_MAX_TOKENS = 1024  # longest sequence whose attention weights are saved for backward
# Matrix products over at most this many queries are one block; more are split into blocks of about the second number.
_SINGLE_BLOCK_QUERIES, _BLOCK_QUERIES = 256, 128


class Layout(Protocol):
    """Protocol of a layout: passed to `model(..., layout=layout)`, it computes every layer's attention."""

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Return the attention output `out_NHD`."""
        ...


class AttentionConfig:
    """Scoring of one layer: scale, sliding window (in tokens, itself included) and soft cap, None if there is none."""

    __slots__ = ("scale", "softcap", "window")

    def __init__(self, scale: float, window: int | None = None, softcap: float | None = None) -> None:
        self.scale, self.window, self.softcap = scale, window, softcap

    def sees_all(self, tokens: int) -> bool:
        """True if each of `tokens` tokens sees all before it and scores have no soft cap."""
        return self.softcap is None and (self.window is None or tokens <= self.window)


class PackedSequences:
    """Sequences laid end to end, the layout of training and prefill: each is causal and sees no other but its parents.

    `lengths` are in tokens and sum to N. `parents`: for each sequence the one that it continues, None at the root; a
    parent comes before its children, which see it whole.
    """

    def __init__(self, lengths: list[int], parents: Sequence[int | None] | None = None) -> None:
        self.lengths = lengths
        self.chains: list[tuple[int, ...]] = []
        for parent in parents or [None] * len(lengths):
            self.chains.append(() if parent is None else (*self.chains[parent], parent))
        starts = [sum(lengths[number] for number in chain) for chain in self.chains]
        positions = [torch.arange(at, at + length) for at, length in zip(starts, lengths, strict=True)]
        self.positions_N = torch.cat(positions)
        self.varlen = VarlenAttention(lengths, self.chains)
        self.longest = max((at + length for at, length in zip(starts, lengths, strict=True)), default=0)
        self.groups = padded_groups(lengths, self.chains)
        self.padded = {
            group.start: PaddedLayout([lengths[one] for one in group]) for group in self.groups if len(group) > 1
        }

    def attend(
        self,
        layer: int,  # noqa: ARG002
        query_HND: Tensor,
        key_KND: Tensor,
        value_KND: Tensor,
        config: AttentionConfig,
    ) -> Tensor:
        """Causal attention, by the variable-length kernel if it supports these heads, else sequence by sequence.

        Short neighbours with the same parents are padded and attended together.
        """
        if config.sees_all(self.longest) and self.varlen.supports(query_HND, key_KND, value_KND):
            return self.varlen.attend(query_HND, key_KND, value_KND, config.scale)
        keys, values = (torch.split(side, self.lengths, dim=1) for side in (key_KND, value_KND))
        sizes = [sum(self.lengths[number] for number in group) for group in self.groups]
        outs = []
        for group, query_HQD in zip(self.groups, torch.split(query_HND, sizes, dim=1), strict=True):
            if len(group) == 1:
                out_HQD = causal_attention(
                    query_HQD, self.with_parents(keys, group[0]), self.with_parents(values, group[0]), config
                )
            else:
                out_HQD = self._attend_padded(group, query_HQD, keys, values, config)
            outs.append(out_HQD.transpose(0, 1))
        return torch.cat(outs)

    def _attend_padded(
        self, group: range, query_HQD: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], config: AttentionConfig
    ) -> Tensor:
        """Attention of sequences with the same parents, padded to the longest.

        No query sees the padding: it comes after all queries of its sequence.
        """
        padded, shared = self.padded[group.start], keys[0].shape[0]
        chain, count = self.chains[group.start], len(group)
        heads = query_HQD.shape[0] // shared
        query_KCD = padded.pad(query_HQD.reshape(shared, -1, query_HQD.shape[2]), heads)

        def pad(pieces: Sequence[Tensor]) -> Tensor:
            own_KRD = torch.cat([pieces[number] for number in group], dim=1)
            own_KSLD = padded.pad(own_KRD, 1).view(shared, count, padded.longest, -1)
            if chain:
                before_KPD = torch.cat([pieces[number] for number in chain], dim=1)
                own_KSLD = torch.cat([before_KPD[:, None].expand(-1, count, -1, -1), own_KSLD], dim=2)
            return own_KSLD.flatten(0, 1)

        query_CLD = query_KCD.reshape(-1, padded.longest, query_HQD.shape[2])
        out_CLD = causal_attention(query_CLD, pad(keys), pad(values), config)
        return padded.unpad(out_CLD.view(query_KCD.shape), heads).view(query_HQD.shape)

    def with_parents(self, pieces: Sequence[Tensor], number: int) -> Tensor:
        """Concatenate a sequence's parents and itself, from tensors `[K, tokens, D]` of all sequences."""
        chain = self.chains[number]
        return torch.cat([*(pieces[one] for one in chain), pieces[number]], dim=1) if chain else pieces[number]


def causal_attention(query_HQD: Tensor, key_KTD: Tensor, value_KTD: Tensor, config: AttentionConfig) -> Tensor:
    """Attention of the last Q of T positions over all before them and themselves, as `out_HQD`."""
    queries, keys = query_HQD.shape[1], key_KTD.shape[1]
    is_plain_causal = config.sees_all(keys)
    if is_plain_causal and query_HQD.device.type == "cpu":
        needs_grad = any(side.requires_grad for side in (query_HQD, key_KTD, value_KTD))
        if needs_grad and keys <= _MATMUL_MAX_TOKENS:
            out_HQD: Tensor = apply_function(_CausalMatmulAttention, query_HQD, key_KTD, value_KTD, config.scale)
            return out_HQD
        if not needs_grad and queries > _SINGLE_BLOCK_QUERIES:
            return _causal_blocks(query_HQD, key_KTD, value_KTD, config.scale, None)
    if not is_plain_causal or queries != keys:
        return masked_attention(
            query_HQD, key_KTD, value_KTD, visibility_mask(queries, keys, config.window, query_HQD.device), config
        )
    groups = query_HQD.shape[0] // key_KTD.shape[0]
    key_HTD, value_HTD = repeat_heads(key_KTD, groups), repeat_heads(value_KTD, groups)
    return F.scaled_dot_product_attention(
        query_HQD[None], key_HTD[None], value_HTD[None], is_causal=queries > 1, scale=config.scale
    )[0]


def _query_blocks(queries: int, keys: int) -> list[tuple[slice, int]]:
    """Split queries, the last of the keys' positions, into even blocks with the number of keys that each sees."""
    count = 1 if queries <= _SINGLE_BLOCK_QUERIES else -(-queries // _BLOCK_QUERIES)
    ends = [queries * (number + 1) // count for number in range(count)]
    return [(slice(start, end), keys - queries + end) for start, end in zip([0, *ends], ends, strict=False)]


class _CausalMatmulAttention(torch.autograd.Function):
    """Causal attention of the last Q of T positions by matrix products; query heads of one key head are rows of one
    product.

    On CPU the wasted products above the diagonal within a block cost less than the flash kernel loses against the speed
    of a matrix product, most of all in its backward pass. The weights `[K, G · rows, T]` of each block are saved, hence
    the limit on the length. The softmax and its gradient sum in float32 whatever dtype they read and write, so nothing
    is converted.
    """

    @staticmethod
    def forward(ctx: Any, query_HQD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float) -> Tensor:
        weights: list[Tensor] = []
        out_HQD = _causal_blocks(query_HQD, key_KTD, value_KTD, scale, weights)
        query_KGQD = query_HQD.view(len(key_KTD), -1, *query_HQD.shape[1:])
        ctx.save_for_backward(query_KGQD, key_KTD, value_KTD, *weights)
        ctx.scale = scale
        return out_HQD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query_KGQD, key_KTD, value_KTD, *weights = ctx.saved_tensors
        grad_KGQD = grads[0].reshape(query_KGQD.shape)
        grad_queries, sums = [], []
        for (rows, seen), weights_KRT in zip(
            _query_blocks(query_KGQD.shape[2], key_KTD.shape[1]), weights, strict=True
        ):
            grad_KRD = _stack_heads(grad_KGQD, rows)
            grad_weights_KRT = grad_KRD @ value_KTD[:, :seen].transpose(1, 2)
            grad_scores_KRT = softmax_backward(weights_KRT, grad_weights_KRT)
            grad_query_KRD = (grad_scores_KRT @ key_KTD[:, :seen]).mul_(ctx.scale)
            grad_queries.append(grad_query_KRD.view(*query_KGQD.shape[:2], -1, query_KGQD.shape[3]))
            grad_key_KTD = (grad_scores_KRT.transpose(1, 2) @ _stack_heads(query_KGQD, rows)).mul_(ctx.scale)
            sums.append((grad_key_KTD, weights_KRT.transpose(1, 2) @ grad_KRD))
        keys, values = zip(*sums, strict=True)
        return _concat_blocks(grad_queries).view(grads[0].shape), _sum_blocks(keys), _sum_blocks(values), None


def _causal_blocks(
    query_HQD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float, weights: list[Tensor] | None
) -> Tensor:
    """Return causal attention by matrix products, block by block; each block's weights are appended to `weights`."""
    shared, keys = key_KTD.shape[:2]
    query_KGQD, outs = query_HQD.view(shared, -1, *query_HQD.shape[1:]), []
    for rows, seen in _query_blocks(query_HQD.shape[1], keys):
        query_KRD, count = _stack_heads(query_KGQD, rows), rows.stop - rows.start
        weights_KRT = _causal_weights(query_KRD, key_KTD[:, :seen], count, scale)
        outs.append((weights_KRT @ value_KTD[:, :seen]).view(shared, -1, count, query_HQD.shape[2]))
        if weights is not None:
            weights.append(weights_KRT)
    return _concat_blocks(outs).view(query_HQD.shape)


def _causal_weights(query_KRD: Tensor, key_KTD: Tensor, count: int, scale: float) -> Tensor:
    """Return the weights of groups of `count` queries; the last of a group sees all keys, each before it one less."""
    key_KDT, seen = key_KTD.transpose(1, 2), key_KTD.shape[1]
    if supports("softmax", query_KRD):
        return scaled_softmax(query_KRD @ key_KDT, scale, count)[0]
    mask_QT = torch.zeros(count, seen, dtype=key_KTD.dtype)
    mask_QT.masked_fill_(~visibility_mask(count, seen, None, key_KTD.device), float("-inf"))
    mask_KRT = mask_QT.repeat(query_KRD.shape[1] // count, 1).expand(len(key_KTD), -1, -1)
    return torch.baddbmm(mask_KRT, query_KRD, key_KDT, alpha=scale).softmax(-1)


def _concat_blocks(blocks_KGQD: list[Tensor]) -> Tensor:
    """Concatenate the queries of all blocks, `[K, G, Q, D]`."""
    return torch.cat(blocks_KGQD, dim=2) if len(blocks_KGQD) > 1 else blocks_KGQD[0]


def _sum_blocks(sides_KTD: Sequence[Tensor]) -> Tensor:
    """Sum the blocks' gradients of the keys or values that they see, in float32; the last block sees all."""
    if len(sides_KTD) == 1:
        return sides_KTD[0]
    total_KTD = sides_KTD[-1].float()
    for part_KTD in sides_KTD[:-1]:
        total_KTD[:, : part_KTD.shape[1]] += part_KTD
    return total_KTD.to(sides_KTD[-1].dtype)


def _stack_heads(side_KGQD: Tensor, rows: slice) -> Tensor:
    """Return some queries of all heads that share a key head, one after another, `[K, R, D]`."""
    return side_KGQD[:, :, rows].reshape(side_KGQD.shape[0], -1, side_KGQD.shape[3])


def masked_attention(
    query_HQD: Tensor, key_KTD: Tensor, value_KTD: Tensor, visible_QT: Tensor, config: AttentionConfig
) -> Tensor:
    """Attention of Q queries over the keys that `visible_QT` marks True, as `out_HQD`; each query must see at least
    one.
    """
    groups = query_HQD.shape[0] // key_KTD.shape[0]
    key_HTD, value_HTD = repeat_heads(key_KTD, groups), repeat_heads(value_KTD, groups)
    if config.softcap is None:
        return F.scaled_dot_product_attention(
            query_HQD[None], key_HTD[None], value_HTD[None], attn_mask=visible_QT, scale=config.scale
        )[0]
    scores_HQT = config.softcap * torch.tanh(query_HQD @ key_HTD.transpose(1, 2) * (config.scale / config.softcap))
    sum_dtype = torch.promote_types(scores_HQT.dtype, torch.float32)
    weights_HQT = scores_HQT.masked_fill(~visible_QT, float("-inf")).softmax(-1, dtype=sum_dtype)
    return weights_HQT.to(value_HTD.dtype) @ value_HTD


def softmax_and_log_sum(scores_BHQT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax of float32 scores and their log-sum-exp: the largest score minus the log of its weight.

    On CPU torch's whole softmax takes less time than its `exp` or `logsumexp` alone.
    """
    weights_BHQT = scores_BHQT.softmax(-1)
    return weights_BHQT, scores_BHQT.amax(-1) - weights_BHQT.amax(-1).log_()


def visibility_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return the mask `[queries, keys]`, True where a query may see a key: the queries are the last of the keys'
    positions.
    """
    back_QT = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (back_QT >= 0) if window is None else (back_QT >= 0) & (back_QT < window)


def repeat_heads(heads_KTD: Tensor, groups: int) -> Tensor:
    """Repeat each key/value head once per query head that shares it."""
    return heads_KTD if groups == 1 else heads_KTD.repeat_interleave(groups, dim=0)


# Keywords of attention functions that change nothing here: models are in evaluation mode, without caches.
_WITHOUT_EFFECT = {"dropout", "position_ids", "use_cache", "output_attentions"}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer, with tensors `[1, heads, N, D]`.

    Raises TypeError for what layouts do not support: values of another size than keys, and any option that may change
    attention, such as sinks, which must not be dropped in silence.
    """
    if layout is None:
        raise TypeError("its layers do not pass a layout on")
    if value.shape[-1] != key.shape[-1]:
        raise TypeError("its values have another size than its keys")
    unknown = [name for name, value in others.items() if value is not None and name not in _WITHOUT_EFFECT]
    if unknown:
        raise TypeError(f"its attention has {', '.join(unknown)}")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    out_NHD = layout.attend(layer, query[0], key[0], value[0], AttentionConfig(scale, sliding_window, softcap))
    return out_NHD[None].contiguous(), None  # as eager attention returns it: some layers view it in another shape


# No mask function is registered under this name, so transformers builds no mask.
AttentionInterface.register(ATTENTION, _attention)
