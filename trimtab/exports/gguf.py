"""Export to GGUF: a model of the Llama architecture as one file for llama.cpp, Ollama and transformers.

llama.cpp rotates neighbouring pairs of dimensions where transformers rotates one half against the other, so the rows of
queries and keys are permuted (`permuted_heads`). Shapes: H heads, O rows of a weight, I its columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import replacing

ARCHITECTURE = "llama"
KINDS: Mapping[str, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType]] = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (gguf.GGMLQuantizationType.Q5_1, gguf.LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (gguf.GGMLQuantizationType.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
"""Types that the `gguf` package can write; it can only read K-quants."""
FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BLOCK = 32  # weights that share a scale
_USE_MERGED = "export it as merged, and convert that with llama.cpp's own convert_hf_to_gguf.py"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMAL, CONTROL, USER_DEFINED, UNUSED = (
    int(kind)
    for kind in (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED)
)


def require_writable(config: Mapping[str, Any], weights: Mapping[str, Any], tokenizer: Any) -> None:
    """Raise InputError for what GGUF export does not support: other architectures, scaled positions, biases, other
    tokenizers.
    """
    kind = config.get("model_type")
    if kind != ARCHITECTURE:
        raise InputError(
            f"GGUF export supports the architecture 'llama', and this is {kind!r}", _USE_MERGED, field="format"
        )
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    scaled = rope.get("rope_type", "default")
    if scaled != "default":
        raise InputError(f"GGUF export does not support positions scaled as {scaled!r}", _USE_MERGED, field="format")
    biased = next((name for name in weights if name.endswith(".bias")), None)
    if biased:
        raise InputError(
            f"GGUF export supports a Llama without biases, and this has {biased}", _USE_MERGED, field="format"
        )
    pre_tokenizer_of(tokenizer)


def pre_tokenizer_of(tokenizer: Any) -> str:
    """Return llama.cpp's name of a byte-level tokenizer's pre-tokenizer; raises InputError if it is none of the known
    ones.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError("GGUF export needs a tokenizer.json, and there is none", _USE_MERGED, field="format")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    model, before = parts["model"], parts["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before]) if before else []
    kinds = tuple(step.get("type") for step in steps)
    plain = model["type"] == "BPE" and not model.get("byte_fallback") and kinds[-1:] == ("ByteLevel",)
    spaced = plain and steps[-1].get("add_prefix_space")
    whole, found = bool(model.get("ignore_merges")), None
    if plain and not spaced and parts["normalizer"] is None:
        if kinds == ("ByteLevel",) and steps[0].get("use_regex", True) and not whole:
            found = "gpt-2"
        elif kinds == ("Digits", "ByteLevel") and steps[0].get("individual_digits") and not whole:
            found = "smollm"
        elif kinds == ("Split", "ByteLevel") and steps[0]["pattern"].get("Regex") == _LLAMA3 and whole:
            found = "llama-bpe"
    if found is None:
        problem = "GGUF export supports tokenizers that split bytes as GPT-2, SmolLM or Llama 3 do, and this is another"
        raise InputError(problem, _USE_MERGED, field="format")
    return found


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer: Any,
    *,
    template: str,
    end: int,
    kind: str = "f16",
    name: str = "",
) -> None:
    """Write the file atomically; `config` is transformers', `kind` one of KINDS, `end` the token that ends an answer.

    Norms stay float32. Rows whose length is no multiple of 32 stay f16, and below 8 bits the embeddings and the output
    get 8. Readers never add the begin token: the template writes it if the measured prompts have one. Raises InputError
    for a model that `require_writable` refuses.
    """
    require_writable(config, weights, tokenizer)
    quantised, file_type = KINDS[kind]
    with replacing(path) as beside:
        writer = gguf.GGUFWriter(beside, ARCHITECTURE)
        try:
            writer.add_name(name or path.stem)
            writer.add_file_type(file_type)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_sizes(writer, config)
            _add_tokenizer(writer, tokenizer, int(config["vocab_size"]), end)
            writer.add_chat_template(template)
            heads = (
                int(config["num_attention_heads"]),
                int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            )
            storage_types = {
                tensor_name: _storage_type(tensor_name, value, quantised) for tensor_name, value in weights.items()
            }
            for tensor_name, value in weights.items():
                size = math.prod(gguf.quants.quant_shape_to_byte_shape(value.shape, storage_types[tensor_name]))
                writer.add_tensor_info(
                    _gguf_name(tensor_name),
                    value.shape,
                    np.dtype(np.float32),
                    size,
                    raw_dtype=storage_types[tensor_name],
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor_name, value in weights.items():  # one at a time, so that a large model is not in memory twice
                writer.write_tensor_data(_stored_data(tensor_name, value, heads, storage_types[tensor_name]))
        finally:
            writer.close()


def is_lossless(weights: Mapping[str, Tensor], kind: str) -> bool:
    """True if every matrix is the same, to the bit, in a file of this kind."""
    rounded = FLOATS.get(kind)
    return rounded is not None and all(
        value.dim() < 2 or torch.equal(value.float(), value.to(rounded).float()) for value in weights.values()
    )


def permuted_heads(weight_OI: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return the rows of each head in llama.cpp's order, the two rotated halves interleaved."""
    rows = weight_OI.reshape(heads, 2, weight_OI.shape[0] // heads // 2, *weight_OI.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight_OI.shape)


def _gguf_name(tensor_name: str) -> str:
    """Return the GGUF name of a tensor: `model.layers.3.mlp.up_proj.weight` becomes `blk.3.ffn_up.weight`."""
    body, _, end = tensor_name.rpartition(".")
    if body.startswith("model.layers."):
        number, _, inner = body.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{_NAMES[inner]}.{end}"
    return f"{_NAMES[body]}.{end}"


def _storage_type(tensor_name: str, value: Tensor, quantised: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Return the type that a weight has in the file."""
    if value.dim() < 2:
        return gguf.GGMLQuantizationType.F32
    if quantised in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16):
        return quantised
    if value.shape[-1] % BLOCK:
        return gguf.GGMLQuantizationType.F16
    outer = "embed_tokens" in tensor_name or tensor_name.startswith("lm_head.")
    return gguf.GGMLQuantizationType.Q8_0 if outer else quantised


def _stored_data(
    tensor_name: str, value: Tensor, heads: tuple[int, int], storage_types: gguf.GGMLQuantizationType
) -> Any:
    """Return a weight's data as stored in the file."""
    data = value.detach().float().cpu().numpy()
    if ".q_proj." in tensor_name or ".k_proj." in tensor_name:
        data = permuted_heads(data, heads[0] if ".q_proj." in tensor_name else heads[1])
    return gguf.quants.quantize(np.ascontiguousarray(data), storage_types)


def _add_sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    size = int(config.get("head_dim") or hidden // heads)
    rope = dict(config.get("rope_parameters") or {})
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(hidden)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, size: int, end: int) -> None:
    words, kinds = tokens_and_kinds(tokenizer, size)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_of(tokenizer))
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_eos_token_id(end)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def tokens_and_kinds(tokenizer: Any, size: int) -> tuple[Sequence[str], Sequence[int]]:
    """Return every token by id, and its kind; ids beyond the tokenizer's get names that no text has."""
    words, kinds = [f"[PAD{number}]" for number in range(size)], [UNUSED] * size
    for word, number in tokenizer.get_vocab().items():
        words[number], kinds[number] = word, NORMAL
    for number, token in tokenizer.added_tokens_decoder.items():
        words[number], kinds[number] = token.content, CONTROL if token.special else USER_DEFINED
    return words, kinds
