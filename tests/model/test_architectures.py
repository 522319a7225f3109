"""Every causal architecture of transformers answers, trains and exports as its own eager attention does, or is refused
in one line; the committed table says which."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import FAMILIES, is_known, outcome, write_model
from tiny_models import base_of
from tiny_tokenizer import tiny_tokenizer

from trimtab.base.errors import InputError
from trimtab.model.adapters.apply import attach, unfreeze
from trimtab.model.architecture import eager_outputs, first_layers_alone, in_float32
from trimtab.model.attention import PackedSequences
from trimtab.model.fast.partial_forward import hidden_at
from trimtab.model.load import load_base
from trimtab.training.features import mean_hidden

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "architectures.json"
COMMITTED = json.loads(RESULT.read_text(encoding="utf-8"))["families"]
IDS = torch.tensor([[3, 9, 14, 5]])
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:::peft"),  # of names that it converts for some experts
]


def with_model(family, folder):
    write_model(family, folder, tiny_tokenizer())
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_does_what_the_committed_table_says(family, tmp_path):
    """Where this fails though nothing is wrong, run: python benchmarks/architectures.py."""
    if not is_known(family):
        pytest.skip("the installed transformers has no such family")
    found = outcome(family, tmp_path)
    assert {what: said == "yes" for what, said in found.items()} == {
        what: said == "yes" for what, said in COMMITTED[family].items()
    }
    refusals = {what: said for what, said in found.items() if said != "yes"}
    starts = (
        f"architecture {family!r} is not supported (",
        f"architecture {family!r} cannot be trained",
        "GGUF",
        "PEFT",
    )
    assert all(said.startswith(starts) and "\n" not in said for said in refusals.values())


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("gpt_oss", "its attention has s_aux"),  # sinks
        ("bloom", "its logits differ from those of eager attention"),  # ALiBi
        ("diffllama", "its layers do not attend once each"),
        ("deepseek_v3", "its values have another size than its keys"),
        ("nemotron", "its layers do not pass a layout on"),
        ("mamba2", "not plain text attention: linear_attention"),
    ],
)
def test_the_reason_of_a_refusal_is_the_architecture_and_not_the_files(family, told, tmp_path):
    with_model(family, tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        load_base(tmp_path, "bf16")
    assert caught.value.remedy == "choose a Llama, Qwen, Gemma, Mistral or Phi model"


def test_weights_that_are_no_numbers_are_no_fault_of_the_architecture(tmp_path):
    file = with_model("llama", tmp_path) / "model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(InputError, match="the weights give logits that are not finite; copy the model again"):
        load_base(tmp_path, "fp32")


def test_a_refused_adapter_leaves_the_model_as_it_was(tmp_path):
    base = load_base(with_model("phimoe", tmp_path), "fp32")
    before, names = eager_outputs(base.model, IDS)[1], list(dict(base.model.named_parameters()))
    with pytest.raises(InputError, match="'phimoe' cannot be trained by adapters"):
        attach(base, "lora", 0, rank=2)
    assert torch.equal(eager_outputs(base.model, IDS)[1], before)
    assert list(dict(base.model.named_parameters())) == names


def test_layers_that_are_not_found_are_refused_wherever_a_pass_needs_them(tmp_path):
    base = load_base(with_model("gptj", tmp_path), "fp32")
    flat = (IDS[0], torch.arange(4), PackedSequences([4]))
    for use in (lambda: attach(base, "lora", 0), lambda: attach(base, "prefix", 0), lambda: unfreeze(base, "full")):
        with pytest.raises(InputError, match="'gptj' cannot be trained"):
            use()
    with pytest.raises(InputError, match="'gptj' cannot be trained"):
        hidden_at(base, torch.tensor([3]), *flat)
    with pytest.raises(InputError, match="'gptj' cannot be trained"):
        mean_hidden(base, [[3, 9]])


def test_the_reference_changes_nothing_of_the_model():
    model = base_of("gemma2", torch.bfloat16, pairs_of_layers=3).model
    weights, layers = {name: value.data for name, value in model.named_parameters()}, model.model.layers
    whole = eager_outputs(model, IDS)[1]
    with first_layers_alone(model), in_float32(model):
        assert len(model.model.layers) == model.config.num_hidden_layers == 2  # one of each kind
        hidden_SLD, logits_SLV = eager_outputs(model, IDS)
    assert (hidden_SLD.dtype, logits_SLV.dtype) == (torch.float32, torch.bfloat16)
    assert not torch.allclose(logits_SLV, whole, atol=0.1)
    assert model.model.layers is layers
    assert model.config.num_hidden_layers == len(layers) == 6
    assert model.config._attn_implementation == "trimtab"
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert all(value.dtype == torch.bfloat16 for value in model.parameters())
    assert torch.equal(eager_outputs(model, IDS)[1], whole)


def test_weights_are_given_back_where_a_pass_fails():
    model = base_of("llama", torch.bfloat16).model
    with pytest.raises(IndexError), in_float32(model):
        model(input_ids=torch.tensor([[10_000]]))
    with pytest.raises(TypeError, match="layout"), in_float32(model):
        model(input_ids=IDS)
    assert all(value.dtype == torch.bfloat16 for value in model.parameters())
