"""Tiny random models of every supported family, in our attention and in transformers' own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from trimtab.model.load import Base

VOCABULARY, EOS = 96, 95
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GEMMA = {"sliding_window": 8, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_key_value_heads": 4}),
    "grouped llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {**_GEMMA, "num_hidden_layers": 4, "attn_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", {**_GEMMA, "num_hidden_layers": 4}),
    "mistral": ("mistral", {"sliding_window": 6}),
    "phi3": ("phi3", {}),
}


@functools.cache
def pair(family: str) -> tuple[Base, Any]:
    """The same random weights twice: as a Base, and as a plain transformers model with eager attention."""
    kind, settings = FAMILIES[family]
    models = []
    for attention in ("trimtab", "eager"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **{**_COMMON, **settings})
        models.append(AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval())
    ours, theirs = models
    with torch.no_grad():
        theirs.get_output_embeddings().weight[EOS] *= 1.5  # so that some sequences end early
    ours.load_state_dict(theirs.state_dict())
    return Base(model=ours.requires_grad_(False), tokenizer=None, precision="fp32", folder=Path()), theirs


SPECIAL = ("<|end|>", "<|im_start|>", "<tool>")  # the last is in the vocabulary like any other text


@functools.cache
def speller() -> tuple[Base, int]:
    """A random llama that can spell every text, byte by byte and in a few longer tokens, with special tokens; and
    its end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "r"), ("tr", "ue"), ("u", "e"), ("Ġ", "1"), ('"', ":"), ("{", '"'), ("}", "}")]
    merges.sort(key=lambda pair: len("".join(pair)))
    words = [*letters, *("".join(pair) for pair in merges)]
    inner = Tokenizer(BPE({word: number for number, word in enumerate(words)}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:2])})
    tokenizer.add_tokens(list(SPECIAL[2:]))
    torch.manual_seed(0)
    sizes = {
        **_COMMON,
        "vocab_size": len(tokenizer) + 5,
        "max_position_embeddings": 4096,
    }  # some numbers without a token
    config = AutoConfig.for_model("llama", **{**sizes, "eos_token_id": None, "pad_token_id": None})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="trimtab").float().eval()
    end = int(tokenizer.eos_token_id)
    return Base(model=model.requires_grad_(False), tokenizer=tokenizer, precision="fp32", folder=Path()), end
