"""Tiny random models of most causal architectures of transformers, and what Trimtab does with each of them.

`benchmarks/architectures.py` writes the outcomes to a committed result; a test compares them with that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tiny_models import padded_loss, random_rows, stirred
from tiny_tokenizer import tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from trimtab.base.errors import InputError
from trimtab.data.prompts import ChatEncoder
from trimtab.exports.gguf import require_writable, write_gguf
from trimtab.exports.hf import merged_config, merged_weights, write_adapter, write_merged
from trimtab.inference.engine import Engine, Request
from trimtab.model.adapters.apply import attach, merged, save_adapter, trainable_parameters
from trimtab.model.architecture import eager_attention, eager_outputs
from trimtab.model.fast.patch import accelerate, decelerate
from trimtab.model.load import Base, load_base
from trimtab.training.sft import SupervisedObjective

_COMMON = {
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
_SLIDING = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA = {**_SLIDING, "query_pre_attn_scalar": 8, "tie_word_embeddings": True}
_EXPERTS = {
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 16, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
}
_LATENT = {  # values are smaller than keys, as in every published model
    **_EXPERTS,
    **{"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"num_key_value_heads": 4, "head_dim": 4, "first_k_dense_replace": 1},
}
_DELTA = {
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "layer_types": ["linear_attention", "full_attention"],
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {"rotary_dim": 4},
    "cohere": {},
    "cohere2": _SLIDING,
    "ctrl": {"dff": 48},
    "cwm": _SLIDING,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "diffllama": {},
    "doge": {},
    "dots1": _EXPERTS,
    "ernie4_5": {},
    "ernie4_5_moe": {**_EXPERTS, "moe_num_experts": 4, "moe_k": 2},
    "exaone": {},
    "exaone4": _SLIDING,
    "falcon": {"head_dim": ...},
    "falcon_mamba": {},
    "flex_olmo": _EXPERTS,
    "gemma": {},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    "gemma3_text": _GEMMA,
    "glm": {},
    "glm4": {},
    "glm4_moe": _EXPERTS,
    "gpt2": {"n_inner": 48},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_neox_japanese": {},
    "gpt_oss": {**_EXPERTS, **_SLIDING},
    "gptj": {"rotary_dim": 4},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": {**_EXPERTS, "logits_scaling": 4.0},
    "granitemoehybrid": {**_MAMBA, **_EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    "granitemoeshared": _EXPERTS,
    "helium": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {**_EXPERTS, "moe_topk": 2},
    "internlm3": {},
    "jais2": {},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4},
    "jetmoe": _EXPERTS,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama": {},
    "llama4_text": {**_EXPERTS, "attention_chunk_size": 6, "layer_types": ["chunked_attention", "full_attention"]},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "minicpm3": _LATENT,
    "minimax": _EXPERTS,
    "minimax_m2": _EXPERTS,
    "ministral": {"sliding_window": 6},
    "ministral3": {},
    "mistral": {"sliding_window": 6},
    "mixtral": _EXPERTS,
    "modernbert-decoder": {"local_attention": 8},
    "mpt": {},
    "nanochat": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": _SLIDING,
    "olmoe": _EXPERTS,
    "openai-gpt": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": _EXPERTS,
    "qwen2": {},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3": {},
    "qwen3_5_text": _DELTA,
    "qwen3_moe": _EXPERTS,
    "qwen3_next": {**_EXPERTS, **_DELTA},
    "recurrent_gemma": {},
    "rwkv": {},
    "seed_oss": {},
    "smollm3": {},
    "solar_open": _EXPERTS,
    "stablelm": {},
    "starcoder2": {"sliding_window": 6},
    "vaultgemma": _GEMMA,
    "xglm": {"ffn_dim": 48},
}
RANK, NEW_TOKENS = 4, 5
PROMPTS = ((5, 9, 3, 17, 20, 8, 41), (7, 30, 12))


def is_known(family: str) -> bool:
    """True if the installed transformers has the family."""
    return family in CONFIG_MAPPING


def write_model(family: str, folder: Path, tokenizer: Any) -> None:
    """Save a random model of a family."""
    settings = {**_COMMON, **FAMILIES[family], "vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(family, **{key: value for key, value in settings.items() if value is not ...})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):  # made as zeros, they would hide that someone forgets them
                torch.nn.init.normal_(parameter, std=0.3)
            elif parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("_bias"):  # of routers
                buffer += torch.randn_like(buffer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def outcome(family: str, folder: Path) -> dict[str, str]:
    """What Trimtab does with a model of the family: `answers`, `trains`, `adapter`, `merged` and `gguf`, each "yes" or
    the line of its refusal; `answers` alone where the model is not loaded.

    Raises AssertionError where a result differs from the reference, and whatever is no refusal in one line. Only
    `adapter` may say that PEFT reads another model: exports are read back and refused then.
    """
    tokenizer, model_folder = tiny_tokenizer(), folder / "model"
    write_model(family, model_folder, tokenizer)
    answers = _refusal(lambda: load_base(model_folder, "fp32"))
    assert _refusal(lambda: load_base(model_folder, "bf16")) == answers
    if answers != "yes":
        return {"answers": answers}
    base = accelerate(load_base(model_folder, "fp32"))
    _require_same_answers(base)
    trains = _refusal(lambda: attach(base, "lora", 0, rank=RANK))
    if trains == "yes":
        stirred(base)
        _require_same_gradients(base)
    with merged(base.model):
        expected = eager_outputs(base.model, torch.tensor(PROMPTS[:1]))[1]
        results = {"merged": _refusal(lambda: _require_merged(base, folder / "merged", expected))}
        results["gguf"] = _refusal(lambda: _require_gguf(base, folder / "gguf", expected))
    adapter = _adapter_outcome(base, folder, expected) if trains == "yes" else trains
    return {"answers": answers, "trains": trains, "adapter": adapter, **results}


def _refusal(action: Any) -> str:
    try:
        action()
    except InputError as error:
        return error.problem
    return "yes"


def _require_same_answers(base: Base) -> None:
    """Greedy answers of the engine are those of the eager reference, token by token."""
    requests = [Request(id=str(number), ids=ids, max_new=NEW_TOKENS) for number, ids in enumerate(PROMPTS)]
    for request, completion in zip(requests, Engine(base, frozenset()).generate(requests), strict=True):
        logits_LV = eager_outputs(base.model, torch.tensor([[*request.ids, *completion.ids]]))[1][0]
        answer_LV = logits_LV[len(request.ids) - 1 : -1]
        assert answer_LV.argmax(1).tolist() == list(completion.ids)


def _require_same_gradients(base: Base) -> None:
    """The gradients of a LoRA step are those of a padded batch through eager attention."""
    rows = random_rows(4)
    objective = SupervisedObjective(rows, batch=4, seed=0)

    def gradients() -> dict[str, torch.Tensor]:
        grads = {name: value.grad for name, value in trainable_parameters(base.model).items()}
        base.model.zero_grad(set_to_none=True)
        assert grads
        return {name: grad for name, grad in grads.items() if grad is not None}

    for batch in objective.batches(0):
        objective.loss(base, batch).value.backward()
    ours = gradients()
    with eager_attention(decelerate(base).model):
        padded_loss(base.model, rows).backward()
    theirs = gradients()
    accelerate(base)
    assert ours.keys() == theirs.keys()
    scale = max(float(grad.abs().max()) for grad in theirs.values())
    assert all(torch.allclose(ours[name], grad, atol=1e-4 * scale, rtol=1e-3) for name, grad in theirs.items())


def _is_equal(model: Any, expected: torch.Tensor) -> bool:
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor(PROMPTS[:1]), use_cache=False).logits
    return torch.allclose(logits, expected, atol=1e-4, rtol=1e-3)


def _require_merged(base: Base, folder: Path, expected: torch.Tensor) -> None:
    write_merged(base, folder, stops=(2,), template=base.tokenizer.chat_template)
    assert _is_equal(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"), expected)


def _adapter_outcome(base: Base, folder: Path, expected: torch.Tensor) -> str:
    (folder / "run").mkdir()
    save_adapter(base, folder / "run")
    target = folder / "adapter"
    write_adapter(
        folder / "run", target, base=base, name="owner/model", revision=None, template=base.tokenizer.chat_template
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager")
    return "yes" if _is_equal(PeftModel.from_pretrained(model, target), expected) else "PEFT reads another model"


def _require_gguf(base: Base, folder: Path, expected: torch.Tensor) -> None:
    weights = merged_weights(base)
    config = merged_config(base, weights)
    require_writable(config, weights, base.tokenizer)
    folder.mkdir()
    end = ChatEncoder(base.tokenizer).answer("")[-1]
    template = base.tokenizer.chat_template
    write_gguf(folder / "model.gguf", config, weights, base.tokenizer, template=template, end=end, kind="f32")
    file: dict[str, Any] = {"gguf_file": "model.gguf", "dtype": torch.float32}
    assert _is_equal(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **file), expected)
