"""Weights that were written answer in transformers and PEFT as they did here; what a format cannot hold is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from tiny_models import FAMILIES, base_of, stirred
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.base.errors import InputError
from trimtab.data.prompts import ChatEncoder
from trimtab.exports import hf as export
from trimtab.exports.hf import merged_config, merged_weights, write_adapter, write_merged
from trimtab.model.adapters.apply import attach, merged, save_adapter
from trimtab.model.attention import PackedSequences
from trimtab.model.catalog import loadable_name
from trimtab.model.load import Base, load_base

IDS = [5, 9, 3, 17, 20, 8]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),  # PEFT's prefix hands them over
]


def changed(base: Base, method: str) -> Base:
    attach(base, method, 0, rank=4, layers=1, virtual_tokens=2)
    stirred(base)
    return base


def ours(base: Base) -> torch.Tensor:
    layout = PackedSequences([len(IDS)])
    with torch.no_grad():
        return base.logits(base.hidden(torch.tensor(IDS), layout.positions_N, layout))


def theirs(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([IDS]), use_cache=False).logits[0]


def written(base: Base, folder: Path) -> Path:
    encoder = ChatEncoder(base.tokenizer)
    write_merged(base, folder, stops=tuple(encoder.stop_ids), template=encoder.chat_template)
    return folder


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "bitfit", "oft", "loha", "freeze", "full"])
def test_a_merged_model_answers_in_transformers_as_it_did_here(method, tiny_model_folder, tmp_path):
    base = load_base(tiny_model_folder, "fp32")
    before = ours(base)
    changed(base, method)
    with merged(base.model):
        expected = ours(base)
        folder = written(base, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(expected, before, atol=1e-3)
    assert torch.allclose(theirs(model), expected, atol=1e-5)
    assert model.generation_config.do_sample is False
    assert torch.allclose(ours(load_base(folder, "fp32")), expected, atol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == base.tokenizer.chat_template
    assert str(tiny_model_folder) not in (folder / "config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_family_keeps_its_own_names(method, family):
    base = base_of(family)
    names = {name for name, _ in base.model.named_parameters()}
    changed(base, method)
    with merged(base.model):
        weights = merged_weights(base)
        assert set(weights) == names
        assert merged_config(base, weights)["architectures"] == [type(base.model).__name__]


def test_biases_that_an_architecture_has_no_name_for_are_refused():
    base = changed(base_of("gemma2"), "bitfit")
    with merged(base.model), pytest.raises(InputError, match=r"no parameter for what was trained.*export it as peft"):
        merged_config(base, merged_weights(base))


@pytest.mark.parametrize("method", ["soft-prompt", "prefix"])
def test_virtual_tokens_are_in_no_weight(method):
    with pytest.raises(InputError, match="virtual tokens precede the prompt"):
        merged_weights(changed(base_of("llama"), method))


def test_large_weights_lie_in_shards_and_tied_ones_once(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SHARD", "20KB")
    base = load_base(tiny_model_folder, "fp32")
    folder = written(base, tmp_path / "out")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    assert set(index) == {name for name, _ in base.model.named_parameters()}
    assert "lm_head.weight" not in index
    assert torch.allclose(theirs(AutoModelForCausalLM.from_pretrained(folder)), ours(base), atol=1e-5)


def test_an_adapter_names_its_base_and_no_folder_of_this_machine(tiny_model_folder, tmp_path):
    base = changed(load_base(tiny_model_folder, "fp32"), "lora")
    save_adapter(base, tmp_path / "run")
    encoder = ChatEncoder(base.tokenizer)
    write_adapter(
        *(tmp_path / "run", tmp_path / "out"),
        base=base,
        name="owner/model",
        revision="abc",
        template=encoder.chat_template,
    )
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("owner/model", "abc")
    assert not any(str(tiny_model_folder) in file.read_text() for file in (tmp_path / "out").glob("*.json"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_folder), tmp_path / "out")
    assert torch.allclose(theirs(model), ours(base), atol=1e-5)


@pytest.mark.parametrize(
    "method", ["lora", "dora", "rslora", "pissa", "vera", "ia3", "bitfit", "oft", "loha", "soft-prompt", "prefix"]
)
def test_peft_opens_an_adapter_of_every_method_with_its_base(method, tiny_model_folder, tmp_path):
    base = changed(load_base(tiny_model_folder, "fp32"), method)
    save_adapter(base, tmp_path / "run")
    name, revision = loadable_name(str(tiny_model_folder), tiny_model_folder)
    template = ChatEncoder(base.tokenizer).chat_template
    write_adapter(tmp_path / "run", tmp_path / "out", base=base, name=name, revision=revision, template=template)
    read = theirs(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out"))
    assert torch.allclose(read[-len(IDS) :], ours(base), atol=1e-5)  # PEFT also gives the logits of a soft prompt
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == template


def test_whole_weights_are_no_adapter(tiny_model_folder, tmp_path):
    base = changed(load_base(tiny_model_folder, "fp32"), "full")
    save_adapter(base, tmp_path)
    with pytest.raises(InputError, match=r"there is no adapter; export it as merged"):
        write_adapter(tmp_path, tmp_path / "out", base=base, name="b", revision=None, template="")


def test_a_tokenizer_without_a_template_gets_the_one_that_was_measured(tiny_model_folder, tmp_path):
    base = load_base(tiny_model_folder, "fp32")
    base.tokenizer.chat_template = None
    folder = written(base, tmp_path / "out")
    assert base.tokenizer.chat_template is None
    turns = [{"role": "system", "content": "Which?"}, {"role": "user", "content": "the bridge"}]
    given = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True
    )
    from trimtab.base.records import Message

    assert tuple(given["input_ids"]) == ChatEncoder(base.tokenizer).prompt([Message(**turn) for turn in turns])


def test_bfloat16_stays_bfloat16(tiny_model_folder, tmp_path):
    base = changed(load_base(tiny_model_folder, "bf16"), "lora")
    with merged(base.model):
        folder, weights = written(base, tmp_path / "out"), merged_weights(base)
        kept = load_file(folder / "model.safetensors")
        assert all(torch.equal(kept[name], value) for name, value in weights.items())
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
