"""Tiny random models of every supported family: in our attention as a Base, and plain in transformers' own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import add_lora, trainable_parameters
from trimtab.model.attention import ATTENTION
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base
from trimtab.training.batch import TrainingRow

VOCABULARY = 96
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GEMMA = {"sliding_window": 8, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "tied llama": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),  # biases in the attention
    "qwen3": ("qwen3", {}),
    "gemma2": (
        "gemma2",
        {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0, "tie_word_embeddings": True},
    ),
    "mistral": ("mistral", {"sliding_window": 6}),
    "gemma3": ("gemma3_text", {**_GEMMA, "tie_word_embeddings": True}),
    "phi": ("phi", {}),  # biases everywhere, in the head too
    "phi3": ("phi3", {}),
}


def plain_model(
    family: str, dtype: torch.dtype = torch.float32, attention: str = "eager", pairs_of_layers: int = 1
) -> Any:
    """The family's model with weights that depend on nothing but the family and its depth."""
    kind, settings = FAMILIES[family]
    torch.manual_seed(0)
    depth: dict[str, Any] = {"num_hidden_layers": 2 * pairs_of_layers}
    if "layer_types" in settings:
        depth["layer_types"] = settings["layer_types"] * pairs_of_layers
    config = AutoConfig.for_model(kind, **{**_COMMON, **settings, **depth})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):  # made as zeros, they would hide that someone forgets them
            torch.nn.init.normal_(parameter)
    return model.to(dtype).eval()


def base_of(family: str, dtype: torch.dtype = torch.float32, folder: Path = Path(), pairs_of_layers: int = 1) -> Base:
    """The same weights as `plain_model`, run as flat rows and accelerated, as a session has them."""
    model = plain_model(family, dtype, ATTENTION, pairs_of_layers).requires_grad_(False)
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    return accelerate(Base(model=model, tokenizer=None, precision=precision, folder=folder))


def with_lora(rank: int = 4, dtype: torch.dtype = torch.float32) -> Base:
    """A llama with a small adapter on it."""
    base = base_of("llama", dtype)
    add_lora(base, rank, 2.0 * rank, seed=0)
    return base


def stirred(base: Base, seed: int = 1) -> None:
    """Move what may move by a little, so that it differs from what it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in trainable_parameters(base.model).values():
            value += 0.03 * torch.randn(value.shape, generator=generator).to(value.dtype)


def answered(prompt: Sequence[int], answer: Sequence[int]) -> Encoded:
    """A prompt and its answer, which alone is trained on."""
    return Encoded(ids=(*prompt, *answer), trained=(False,) * len(prompt) + (True,) * len(answer))


def two_answers(draw: random.Random, good: int, bad: int) -> list[Any]:
    """Two encoded answers to a prompt of random tokens, one that begins with the token `good`, one with `bad`."""
    prompt = [draw.randrange(10, VOCABULARY) for _ in range(draw.randint(2, 9))]
    return [
        answered(prompt, [first, *(draw.randrange(10, VOCABULARY) for _ in range(draw.randint(1, 6)))])
        for first in (good, bad)
    ]


def random_rows(count: int, seed: int = 0, *, weights: bool = False) -> list[TrainingRow]:
    """Rows of 3 to 20 tokens, the last few of which are trained on."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt, answer = draw.randint(2, 12), draw.randint(1, 8)
        ids = tuple(draw.randrange(3, VOCABULARY) for _ in range(prompt + answer))
        trained = (False,) * prompt + (True,) * answer
        weight = draw.choice([0.5, 1.0, 3.0]) if weights else 1.0
        rows.append(TrainingRow(encoded=Encoded(ids=ids, trained=trained), weight=weight))
    return rows


def padded_loss(model: Any, rows: list[TrainingRow]) -> torch.Tensor:
    """The reference: one padded batch through the plain model, cross entropy over the trained tokens."""
    longest = max(len(row.encoded.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    seen, counted = torch.zeros_like(ids), torch.zeros(len(rows), longest)
    for number, row in enumerate(rows):
        length = len(row.encoded.ids)
        ids[number, :length] = torch.tensor(row.encoded.ids)
        seen[number, :length] = 1
        counted[number, :length] = torch.tensor(row.encoded.trained) * row.weight
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits.float()
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * counted[:, 1:].flatten()).sum() / counted[:, 1:].sum()
