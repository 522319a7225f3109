"""A GGUF file read by another reader, transformers, has the same numbers, tokens and template; what it cannot say is
refused."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import base_of
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from trimtab.base.errors import InputError
from trimtab.data.prompts import ChatEncoder
from trimtab.exports.gguf import KINDS, is_lossless, permuted_heads, pre_tokenizer_of, require_writable, write_gguf
from trimtab.exports.hf import merged_config, merged_weights
from trimtab.model.load import load_base

FILE = "model.gguf"


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    return load_base(tiny_model_folder, "fp32")


def written(base, folder, kind):
    encoder, weights = ChatEncoder(base.tokenizer), merged_weights(base)
    write_gguf(
        folder / FILE,
        merged_config(base, weights),
        weights,
        base.tokenizer,
        template=encoder.chat_template,
        end=encoder.answer("")[-1],
        kind=kind,
    )
    return weights


def fields(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_float32_comes_back_to_the_bit(base, tmp_path):
    weights = written(base, tmp_path, "f32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=FILE, dtype=torch.float32)
    read = dict(model.named_parameters())
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())
    assert is_lossless(weights, "f32")
    assert model.config.rms_norm_eps == pytest.approx(base.model.config.rms_norm_eps)
    assert model.config.rope_parameters["rope_theta"] == base.model.config.rope_parameters["rope_theta"]


def test_tokens_and_template_come_back(base, tmp_path):
    written(base, tmp_path, "f16")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=FILE)
    for text in ("Which city is it?", "  two  blanks\n\tand é 日本 12345 don't", "<|im_start|>user\nyes<|im_end|>"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == base.tokenizer(text)["input_ids"]
    assert theirs.chat_template == base.tokenizer.chat_template
    found = fields(tmp_path / FILE)
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.eos_token_id"] == base.tokenizer.eos_token_id
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    kinds = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"], strict=True))
    assert {word for word, kind in kinds.items() if kind == gguf.TokenType.CONTROL} == {
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_as_near_as_its_bits(kind, base, tmp_path):
    weights = written(base, tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=FILE, dtype=torch.float32)
    allowed = {"f32": 0.0, "f16": 1e-3, "bf16": 1e-2, "q8": 0.02, "q5": 0.15, "q4": 0.3}[kind.partition("_")[0]]
    for name, value in model.named_parameters():
        assert (value - weights[name]).abs().max() <= allowed * weights[name].abs().max()
    tensors = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / FILE).tensors}
    assert tensors["output_norm.weight"] == gguf.GGMLQuantizationType.F32
    quantised = kind not in ("f32", "f16", "bf16")
    assert tensors["token_embd.weight"] == (gguf.GGMLQuantizationType.Q8_0 if quantised else KINDS[kind][0])
    assert tensors["blk.1.attn_q.weight"] == KINDS[kind][0]
    if quantised:
        assert tensors["blk.0.ffn_down.weight"] == gguf.GGMLQuantizationType.F16  # 48 columns, which 32 does not divide


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_halves_are_interleaved_within_each_head(heads, half, columns):
    rows = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(heads * 2 * half, columns)
    given = permuted_heads(rows, heads)
    for head in range(heads):
        own, start = given[2 * half * head : 2 * half * (head + 1)], 2 * half * head
        assert np.array_equal(own[0::2], rows[start : start + half])
        assert np.array_equal(own[1::2], rows[start + half : start + 2 * half])


def test_only_what_survives_rounding_counts_as_the_same():
    exact = {"a": torch.tensor([[1.0, 0.5]]), "norm": torch.tensor([1 / 3])}
    assert is_lossless(exact, "f16")
    assert not is_lossless({**exact, "b": torch.tensor([[1 / 3]])}, "f16")
    assert not is_lossless({"b": torch.tensor([[1e6]])}, "f16")
    assert not is_lossless(exact, "q8_0")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "qwen2"}, "this is 'qwen2'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "scaled as 'llama3'"),
    ],
)
def test_another_architecture_is_refused_by_name(changes, problem, base):
    weights = merged_weights(base)
    with pytest.raises(InputError, match=problem):
        require_writable({**merged_config(base, weights), **changes}, weights, base.tokenizer)


def test_biases_are_refused():
    base = base_of("phi")
    weights = merged_weights(base)
    with pytest.raises(InputError, match="without biases"):
        require_writable({"model_type": "llama"}, weights, None)


def test_splits_are_told_from_the_tokenizer(base):
    def like(change):
        parts = json.loads(base.tokenizer.backend_tokenizer.to_str())
        made = Tokenizer.from_str(json.dumps(parts))
        change(made)
        return PreTrainedTokenizerFast(tokenizer_object=made)

    def digits(made):
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )

    def odd(made):
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )

    def lower(made):
        made.normalizer = normalizers.Lowercase()

    assert pre_tokenizer_of(base.tokenizer) == "gpt-2"
    assert pre_tokenizer_of(like(digits)) == "smollm"
    for change in (odd, lower):
        with pytest.raises(InputError, match="this is another"):
            pre_tokenizer_of(like(change))
