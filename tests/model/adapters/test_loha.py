"""LoHa against PEFT, beside what every method has to show (`tests/model/test_methods.py`)."""

import json

import pytest
import torch
from peft import LoHaConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import base_of, plain_model
from torch import nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.apply import attach, load_adapter, save_adapter
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.adapters.loha import LohaLinear
from trimtab.model.adapters.lora import LoraLinear, shared_input_forward
from trimtab.model.attention import PackedSequences

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

IDS = torch.tensor([1, 5, 18, 31, 44, 57, 70])


def logits(base):
    layout = PackedSequences([len(IDS)])
    with torch.no_grad():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def layer(outputs=5, rank=3, bias=False):
    torch.manual_seed(outputs)
    made = LohaLinear(nn.Linear(6, outputs, bias=bias).requires_grad_(False), rank, 6.0)
    nn.init.normal_(made.outer_2)
    return made


@pytest.mark.parametrize("alpha", [4, 16])
def test_what_peft_saved_is_the_same_here_and_goes_back(alpha, tmp_path):
    base = base_of("llama")
    attach(base, "loha", seed=0, rank=4)
    names = sorted({name.rpartition(".")[2] for name in adapter_layers(base.model)})
    config = LoHaConfig(r=4, alpha=alpha, target_modules=names, task_type="CAUSAL_LM", init_weights=False)
    model = get_peft_model(plain_model("llama"), config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "hada" in name:
                value.mul_(2.0)
        expected = model(input_ids=IDS[None], use_cache=False).logits[0]
    model.save_pretrained(tmp_path / "theirs")
    base = base_of("llama")
    assert not torch.allclose(expected, logits(base), atol=1e-2)
    load_adapter(base, tmp_path / "theirs")
    assert torch.allclose(logits(base), expected, atol=1e-4)
    save_adapter(base, tmp_path / "ours")
    again = PeftModel.from_pretrained(plain_model("llama"), str(tmp_path / "ours"))
    with torch.no_grad():
        assert torch.allclose(again(input_ids=IDS[None], use_cache=False).logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_elementwise_product_with_its_gradients(bias):
    made = layer(bias=bias)
    values = torch.randn(4, 6)
    (made(values) ** 2).sum().backward()
    ours = {name: value.grad.clone() for name, value in made.named_parameters() if value.requires_grad}
    made.zero_grad()
    change = (made.outer_1 @ made.inner_1) * (made.outer_2 @ made.inner_2) * (6.0 / 3)
    assert torch.allclose(made.delta(), change, atol=1e-5)
    plain = made.base(values) + values @ change.T
    (plain**2).sum().backward()
    assert torch.allclose(made(values), plain, atol=1e-4)
    assert len(ours) == 4
    for name, value in made.named_parameters():
        if value.requires_grad:
            assert torch.allclose(ours[name], value.grad, rtol=1e-3, atol=1e-3), name


def test_its_rank_is_up_to_the_square():
    made = LohaLinear(nn.Linear(40, 30), 4, 4.0)
    nn.init.normal_(made.outer_2)
    assert int(torch.linalg.matrix_rank(made.delta())) == 16


def test_beside_other_low_rank_layers_it_is_the_same_layer():
    first, second = layer(outputs=4), LoraLinear(nn.Linear(6, 7).requires_grad_(False), 2, 4.0)
    nn.init.normal_(second.lora_b)
    values = torch.randn(5, 6)
    outs = shared_input_forward([first, second], values)
    assert torch.allclose(outs[0], first(values), atol=1e-5)
    assert torch.allclose(outs[1], second(values), atol=1e-5)


def test_a_rank_whose_square_fills_the_memory_is_refused_wherever_it_comes_from(tmp_path):
    base = base_of("llama")
    with pytest.raises(InputError, match=r"rank = 65, .*; set at most 64"):
        attach(base, "loha", seed=0, rank=65)
    assert not adapter_layers(base.model)
    attach(base, "loha", seed=0, rank=2)
    save_adapter(base, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    wide = {name: torch.zeros(65, value.shape[1]) if "_b" in name[-2:] else value for name, value in tensors.items()}
    save_file(wide, tmp_path / "adapter_model.safetensors")
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "r": 65}))
    again = base_of("llama")
    with pytest.raises(InputError, match="r is 65, and at most 64"):
        load_adapter(again, tmp_path)
    assert not adapter_layers(again.model)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"r": 10**9}, "r is 1000000000, and the tensors are of rank 4"),
        ({"r": True}, "r is True"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": None}, "alpha is None"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"peft_type": "LORA"}, "layers are not those"),
    ],
)
def test_a_configuration_that_its_tensors_do_not_bear_out_is_refused(values, told, tmp_path):
    base = base_of("llama")
    attach(base, "loha", seed=0, rank=4)
    save_adapter(base, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    base = base_of("llama")
    with pytest.raises(InputError, match=told):
        load_adapter(base, tmp_path)
    assert not adapter_layers(base.model)
