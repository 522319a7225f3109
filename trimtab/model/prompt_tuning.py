"""Prompt tuning and prefix tuning: trained embeddings (soft prompt) or keys and values (prefix) before every sequence.

Sources: Lester et al. 2021 (arXiv 2104.08691); Li and Liang 2021 (arXiv 2101.00190). Positions of real tokens continue
after the virtual ones. Shapes: P virtual tokens, N tokens of the flat row, C both, H query heads, K key/value heads, D
head size, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import MethodDefaults
from trimtab.model.attention import AttentionConfig, Layout, PackedSequences, causal_attention

MODULE_NAME = "virtual"  # name of the submodule on the model
_FREQUENT_TOKENS = 5_000  # a soft prompt is initialised from the start of the vocabulary, where frequent tokens are


class PrefixLayout:
    """`PackedSequences` that all follow the same prefix.

    The prefix is the first `count` tokens of the row, or its keys and values `[K, P, D]` are given layer by layer
    (`prefix_kv`).
    """

    def __init__(self, count: int, layout: PackedSequences, prefix_kv: Sequence[tuple[Tensor, Tensor]] | None) -> None:
        self.count, self.layout, self.prefix_kv = count, layout, prefix_kv

    def attend(
        self, layer: int, query_HCD: Tensor, key_KCD: Tensor, value_KCD: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Causal attention over [prefix; parents; own tokens], one sequence at a time."""
        outs, start = [], 0
        if self.prefix_kv is None:
            key_KPD, value_KPD = key_KCD[:, : self.count], value_KCD[:, : self.count]
            outs.append(causal_attention(query_HCD[:, : self.count], key_KPD, value_KPD, config).transpose(0, 1))
            start = self.count
        else:
            key_KPD, value_KPD = self.prefix_kv[layer]
        own = (torch.split(side[:, start:], self.layout.lengths, dim=1) for side in (query_HCD, key_KCD, value_KCD))
        queries, keys, values = own
        for number, query_HQD in enumerate(queries):
            key_KTD = torch.cat([key_KPD, self.layout.with_parents(keys, number)], dim=1)
            value_KTD = torch.cat([value_KPD, self.layout.with_parents(values, number)], dim=1)
            outs.append(causal_attention(query_HQD, key_KTD, value_KTD, config).transpose(0, 1))
        return torch.cat(outs)


class VirtualTokens(nn.Module):
    """Base class of soft prompt and prefix; `ids` stand for the virtual tokens where prompts are compared."""

    PEFT_TYPE = ""
    defaults: ClassVar[MethodDefaults]

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.float())

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def ids(self) -> tuple[int, ...]:
        """Negative ids, which no real token has."""
        return tuple(range(-1 - len(self), -1))

    @classmethod
    def width(cls, config: Any) -> int:
        """Return how many numbers a virtual token has in a model of this configuration."""
        raise NotImplementedError

    def peft_config(self, config: Any) -> dict[str, Any]:
        """Return PEFT's options of these tokens before a model of this configuration."""
        raise NotImplementedError

    def hidden(self, model: Any, ids_N: Tensor, positions_N: Tensor, layout: PackedSequences) -> Tensor:
        """Return the last hidden states `hidden_NE` of packed sequences; `positions_N` count from each sequence's own
        start.
        """
        raise NotImplementedError

    def keys_and_values(self, model: Any) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values `[K, P, D]` of the virtual tokens, by layer, in the model's dtype."""
        raise NotImplementedError


class SoftPrompt(VirtualTokens):
    """Trained embeddings `[P, E]`, read by the model like those of tokens."""

    PEFT_TYPE = "PROMPT_TUNING"
    defaults = MethodDefaults(virtual_tokens=20, learning_rate=3e-2)

    @classmethod
    def width(cls, config: Any) -> int:
        """Return the size of an embedding."""
        return int(config.hidden_size)

    def peft_config(self, config: Any) -> dict[str, Any]:
        """Return the number of tokens, and the model's sizes."""
        own = {"num_virtual_tokens": len(self), "num_layers": prefix_shape(config)[0], "num_transformer_submodules": 1}
        return {**own, "token_dim": config.hidden_size, "num_attention_heads": config.num_attention_heads}

    def hidden(self, model: Any, ids_N: Tensor, positions_N: Tensor, layout: PackedSequences) -> Tensor:
        """The virtual tokens are computed once, at the start of the row, for all sequences."""
        count, embeddings_NE = len(self), model.get_input_embeddings()(ids_N)
        rows_CE = torch.cat([self.values.to(embeddings_NE.dtype), embeddings_NE])
        positions_C = torch.cat([torch.arange(count, device=positions_N.device), positions_N + count])
        return _forward(model, positions_C, PrefixLayout(count, layout, None), inputs_embeds=rows_CE[None])[count:]

    def keys_and_values(self, model: Any) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values that the model computes from the embeddings."""
        capture, rows_PE = _CaptureLayout(), self.values.to(model.get_input_embeddings().weight.dtype)
        _forward(model, torch.arange(len(self), device=rows_PE.device), capture, inputs_embeds=rows_PE[None])
        return capture.pairs


class LearnedPrefix(VirtualTokens):
    """Trained keys and values of every layer, `[P, layers · 2 · K · D]` as in PEFT; rotary positions are already
    applied.
    """

    PEFT_TYPE = "PREFIX_TUNING"
    defaults = MethodDefaults(virtual_tokens=20, learning_rate=1e-2)

    @classmethod
    def width(cls, config: Any) -> int:
        """Return the number of keys and values of a token in all layers."""
        layers, heads, size = prefix_shape(config)
        return 2 * layers * heads * size

    def peft_config(self, config: Any) -> dict[str, Any]:
        """Return the number of tokens, and the model's sizes."""
        layers, heads, size = prefix_shape(config)
        own = {"num_virtual_tokens": len(self), "num_layers": layers, "num_transformer_submodules": 1}
        width = {"token_dim": heads * size, "num_attention_heads": heads, "encoder_hidden_size": heads * size}
        return {**own, **width, "prefix_projection": False}

    def hidden(self, model: Any, ids_N: Tensor, positions_N: Tensor, layout: PackedSequences) -> Tensor:
        """Every sequence sees the trained keys and values before its own."""
        layout_behind = PrefixLayout(len(self), layout, self.keys_and_values(model))
        return _forward(model, positions_N + len(self), layout_behind, input_ids=ids_N[None])

    def keys_and_values(self, model: Any) -> list[tuple[Tensor, Tensor]]:
        """Return the trained keys and values."""
        layers, heads, size = prefix_shape(model.config)
        values = self.values.to(model.get_input_embeddings().weight.dtype).view(len(self), layers, 2, heads, size)
        both_LSKPD = values.permute(1, 2, 3, 0, 4)
        return [(pair_SKPD[0], pair_SKPD[1]) for pair_SKPD in both_LSKPD]


class _CaptureLayout:
    """A causal layout that records keys and values by layer."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def attend(
        self,
        layer: int,  # noqa: ARG002
        query_HPD: Tensor,
        key_KPD: Tensor,
        value_KPD: Tensor,
        config: AttentionConfig,
    ) -> Tensor:
        self.pairs.append((key_KPD.contiguous(), value_KPD.contiguous()))
        return causal_attention(query_HPD, key_KPD, value_KPD, config).transpose(0, 1)


def add_virtual_tokens(model: Any, kind: type[VirtualTokens], count: int, seed: int) -> VirtualTokens:
    """Add `count` virtual tokens, initialised from randomly drawn frequent tokens."""
    table = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(seed)
    ids_P = torch.randint(min(_FREQUENT_TOKENS, table.num_embeddings), (count,), generator=generator)
    with torch.no_grad():
        rows_PE = table(ids_P.to(table.weight.device))
        if kind is LearnedPrefix:
            pairs = SoftPrompt(rows_PE).keys_and_values(model)
            pieces = [side_KPD.transpose(0, 1).flatten(1) for pair in pairs for side_KPD in pair]
            rows_PE = torch.cat(pieces, dim=1)
    return attach_virtual_tokens(model, kind(rows_PE))


def attach_virtual_tokens(model: Any, virtual: VirtualTokens) -> VirtualTokens:
    """Add these virtual tokens before every sequence."""
    model.add_module(MODULE_NAME, virtual)
    return virtual


def virtual_tokens_of(model: Any) -> VirtualTokens | None:
    """Return the model's virtual tokens, None if there are none."""
    found = getattr(model, MODULE_NAME, None)
    return found if isinstance(found, VirtualTokens) else None


def count_virtual_tokens(model: Any) -> int:
    """Return the number of the model's virtual tokens."""
    return len(virtual_tokens_of(model) or ())


def detach_virtual_tokens(model: Any) -> None:
    """Remove the virtual tokens."""
    if virtual_tokens_of(model) is not None:
        delattr(model, MODULE_NAME)


def prefix_shape(config: Any) -> tuple[int, int, int]:
    """Return layers, key/value heads and head size."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size


def _forward(model: Any, positions: Tensor, layout: Layout, **inputs: Tensor) -> Tensor:
    out = model.base_model(**inputs, position_ids=positions[None], use_cache=False, layout=layout, return_dict=True)
    hidden: Tensor = out.last_hidden_state[0]
    return hidden
