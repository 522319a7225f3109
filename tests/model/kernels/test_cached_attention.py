"""Attention over caches by kernel, against float64: prefixes, windows, soft caps, ancestors, both dtypes."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.cached_attention import (
    KERNEL,
    CachedTokens,
    KernelAttention,
    LayerCache,
    padded_places,
    supports_cache,
)
from trimtab.model.threads import threads

pytestmark = pytest.mark.skipif(KERNEL not in compiled.library(), reason="no C compiler, so no kernels")
SCALE = 0.2


@dataclass
class Case:
    """Sequences in slots: places in use, new tokens, the prefix's tokens, and nodes of a tree among the new ones."""

    dtype: torch.dtype
    heads: tuple[int, int]
    size: int
    used: list[int]
    new: list[int]
    prefixes: list[int]
    window: int | None = None
    cap: float | None = None
    nodes: int = 0  # of the new tokens of each sequence the last ones, nodes of a tree

    def numbers(self, *shape: int, seed: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.dtype)

    def __post_init__(self) -> None:
        query_heads, kv_heads = self.heads
        draw, count = random.Random(0), len(self.used)
        room = padded_places(max(used + new for used, new in zip(self.used, self.new, strict=True)))
        tokens = sum(self.new)
        self.keys = self.numbers(count, kv_heads, room, self.size, seed=1)
        self.values = self.numbers(count, kv_heads, room, self.size, seed=2)
        self.query = self.numbers(tokens, query_heads, self.size, seed=3).transpose(0, 1)
        self.key = self.numbers(tokens, kv_heads, self.size, seed=4).transpose(0, 1)
        self.value = self.numbers(tokens, kv_heads, self.size, seed=5).transpose(0, 1)
        length = max(self.prefixes, default=0)
        self.prefix_key, self.prefix_value = self.numbers(2, kv_heads, padded_places(length), self.size, seed=6)
        self.places, self.seen, self.ancestors = [], [], []
        for used, new in zip(self.used, self.new, strict=True):
            prompt, ancestors = used + new - self.nodes, list[list[int]]()
            for place in range(used, used + new):
                before = draw.choice([[], *ancestors]) if place >= prompt else []
                ancestors += [[*before[-3:], place]] if place >= prompt else []
                self.ancestors.append(ancestors[-1] if place >= prompt else [])
                self.seen.append(min(place + 1, prompt))
                self.places.append(place)

    def run(self, only: int | None = None) -> Tensor:
        """The kernel's output `[N, H, D]`; of one sequence alone where `only` names it."""
        chosen = range(len(self.used)) if only is None else [only]
        starts = [sum(self.new[:number]) for number in chosen]
        own = torch.cat([torch.arange(start, start + self.new[n]) for start, n in zip(starts, chosen, strict=True)])
        deepest = max(map(len, self.ancestors))
        ancestors = (
            torch.tensor([[*way, *[0] * (deepest - len(way))] for way in self.ancestors])[own] if deepest else None
        )
        tokens = CachedTokens(
            counts=[self.new[number] for number in chosen],
            slots=list(chosen),
            ends=[self.used[number] + self.new[number] for number in chosen],
            prefix_lengths=[self.prefixes[number] for number in chosen],
            places_N=torch.tensor(self.places)[own],
            seen_N=torch.tensor(self.seen)[own],
            ancestors_NA=ancestors,
            depths_N=torch.tensor([len(way) for way in self.ancestors])[own] if deepest else None,
        )
        blocked = self.keys.unflatten(2, (-1, 64)).transpose(3, 4).contiguous()
        prefix = self.prefix_key.unflatten(1, (-1, 64)).transpose(2, 3).contiguous(), self.prefix_value
        cache = LayerCache(
            blocked, self.values.clone(), [prefix if self.prefixes[number] else None for number in chosen]
        )
        attention = KernelAttention(
            tokens, [cache], groups=self.heads[0] // self.heads[1], scales=[SCALE], windows=[self.window], cap=self.cap
        )
        out = attention.attend(self.query[:, own], self.key[:, own], self.value[:, own])
        self.written = cache.keys.transpose(3, 4).flatten(2, 3), cache.values
        return out

    def exact(self) -> Tensor:
        """The same in float64, token by token."""
        outs, groups, token = [], self.heads[0] // self.heads[1], 0
        for slot, new in enumerate(self.new):
            first, prefix = token, self.prefixes[slot]
            for _ in range(new):
                rows = [*range(self.seen[token]), *self.ancestors[token]]
                old = self.used[slot]
                sides = []
                for cached, fresh, shared in (
                    (self.keys, self.key, self.prefix_key),
                    (self.values, self.value, self.prefix_value),
                ):
                    slot_KTD = torch.cat([cached[slot, :, :old], fresh[:, first : first + new]], 1)
                    sides.append(torch.cat([shared[:, :prefix], slot_KTD[:, rows]], 1).double())
                start = max(0, sides[0].shape[1] - self.window) if self.window else 0
                key, value = (side[:, start:].repeat_interleave(groups, 0) for side in sides)
                scores = SCALE * torch.einsum("hd,htd->ht", self.query[:, token].double(), key)
                scores = self.cap * torch.tanh(scores / self.cap) if self.cap else scores
                outs.append(torch.einsum("ht,htd->hd", scores.softmax(-1), value))
                token += 1
        return torch.stack(outs)


CASES = {
    "decoding": {"used": [0, 1, 60, 63, 64, 125], "new": [1] * 6, "prefixes": [0] * 6},
    "drafts": {"used": [0, 62, 130], "new": [3] * 3, "prefixes": [0] * 3},
    "prefill": {"used": [0, 70, 0], "new": [70, 33, 1], "prefixes": [0] * 3},
    "behind a prefix": {"used": [0, 5, 70, 3], "new": [4, 1, 20, 1], "prefixes": [1, 64, 100, 0]},
    "nodes": {"used": [0, 40, 0], "new": [40, 12, 9], "prefixes": [0, 70, 3], "nodes": 8},
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("heads", "size", "window", "cap"),
    [((9, 3), 64, None, None), ((2, 2), 96, 5, None), ((7, 1), 32, 70, 3.0), ((4, 1), 256, None, 2.0)],
)
def test_attention_is_that_of_float64_and_the_same_alone(
    dtype: torch.dtype, case: str, heads: tuple[int, int], size: int, window: int | None, cap: float | None
) -> None:
    asked = Case(dtype=dtype, heads=heads, size=size, window=window, cap=cap, **CASES[case])  # type: ignore[arg-type]
    out, exact = asked.run(), asked.exact()
    rounding = 2.0**-8 if dtype is torch.bfloat16 else 5e-5
    assert ((out.double() - exact).abs() <= rounding * (exact.abs() + 0.05)).all()
    token = 0
    for slot, (used, new) in enumerate(zip(asked.used, asked.new, strict=True)):
        for written, fresh, before in zip(
            asked.written, (asked.key, asked.value), (asked.keys, asked.values), strict=True
        ):
            assert torch.equal(written[slot, :, used : used + new], fresh[:, token : token + new])
            assert torch.equal(written[slot, :, :used], before[slot, :, :used])
        token += new
    for slot, new in enumerate(asked.new):
        start = sum(asked.new[:slot])
        with threads(1):
            assert torch.equal(asked.run(slot), out[start : start + new])


def test_a_prefix_in_the_slot_gives_the_bits_of_one_beside_it() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        apart = Case(dtype=dtype, heads=(6, 2), size=64, used=[30], new=[5], prefixes=[77])
        joined = replace(apart, used=[107], prefixes=[0])
        joined.keys[:, :, :77], joined.values[:, :, :77] = apart.prefix_key[:, :77], apart.prefix_value[:, :77]
        joined.keys[:, :, 77:107], joined.values[:, :, 77:107] = apart.keys[:, :, :30], apart.values[:, :, :30]
        assert torch.equal(joined.run(), apart.run())


def test_heads_of_an_odd_size_are_left_to_torch() -> None:
    assert supports_cache(torch.zeros(2, 3, 96))
    assert supports_cache(torch.zeros(2, 3, 64, dtype=torch.bfloat16))
    assert not supports_cache(torch.zeros(2, 3, 40))
    assert not supports_cache(torch.zeros(2, 3, 64, dtype=torch.float64))
