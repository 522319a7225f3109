"""OFT against PEFT, beside what every method has to show (`tests/model/test_methods.py`)."""

import json

import pytest
import torch
from peft import OFTConfig, PeftModel, get_peft_model
from peft.tuners.oft.layer import OFTLayer
from tiny_models import base_of, plain_model
from torch import nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.apply import attach, load_adapter, save_adapter
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.adapters.oft import OftLinear, nearest_divisor
from trimtab.model.attention import PackedSequences

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

IDS = torch.tensor([1, 5, 18, 31, 44, 57, 70])


def logits(base):
    layout = PackedSequences([len(IDS)])
    with torch.no_grad():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def saved_by_peft(folder, family="llama", **options):
    """A folder that PEFT wrote, with rotations far from none, and the logits of PEFT's model."""
    names = sorted({name.rpartition(".")[2] for name in adapter_layers(attached(family).model)})
    config = OFTConfig(target_modules=names, task_type="CAUSAL_LM", **options)
    model = get_peft_model(plain_model(family), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "oft_R" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(input_ids=IDS[None], use_cache=False).logits[0]


def attached(family="llama", rank=8):
    base = base_of(family)
    attach(base, "oft", seed=0, rank=rank)
    return base


@pytest.mark.parametrize("series", [True, False])
@pytest.mark.parametrize("block", [8, 12])  # 12 divides the 48 inputs of some layers, and not the 32 of others
@pytest.mark.filterwarnings("ignore:Invalid .oft_block_size.:UserWarning")
def test_what_peft_saved_is_the_same_here_and_goes_back(series, block, tmp_path):
    expected = saved_by_peft(tmp_path / "theirs", oft_block_size=block, use_cayley_neumann=series)
    base = base_of("llama")
    assert not torch.allclose(expected, logits(base), atol=1e-2)
    load_adapter(base, tmp_path / "theirs")
    assert torch.allclose(logits(base), expected, atol=1e-4)
    save_adapter(base, tmp_path / "ours")
    again = PeftModel.from_pretrained(plain_model("llama"), str(tmp_path / "ours"))
    with torch.no_grad():
        assert torch.allclose(again(input_ids=IDS[None], use_cache=False).logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_rotation_is_orthogonal_however_far_it_goes(scale):
    layer = OftLinear(nn.Linear(24, 5), 8)
    nn.init.normal_(layer.angles_BT, std=scale)
    blocks = layer.rotation().detach()
    assert torch.allclose(blocks @ blocks.mT, torch.eye(8).expand(3, 8, 8), atol=1e-4)
    assert (blocks - torch.eye(8)).abs().max() > min(scale, 0.1)
    layer.merge()
    assert torch.allclose(layer.base.weight.norm(dim=1), layer._original[0].norm(dim=1), rtol=1e-3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24,), (4, 24), (2, 3, 24)])
def test_it_is_the_formula_with_its_gradients(bias, shape):
    torch.manual_seed(0)
    layer = OftLinear(nn.Linear(24, 5, bias=bias).requires_grad_(False), 8)
    nn.init.normal_(layer.angles_BT, std=0.3)
    values = torch.randn(shape)
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    (layer(left) ** 2).sum().backward()
    ours = layer.angles_BT.grad.clone()
    layer.zero_grad()
    plain = layer.base(right @ torch.block_diag(*layer.rotation()))
    (plain**2).sum().backward()
    assert torch.allclose(layer(values), plain, atol=1e-5)
    assert torch.allclose(left.grad, right.grad, atol=1e-4)
    assert torch.allclose(ours, layer.angles_BT.grad, atol=1e-4)
    assert ours.abs().max() > 1e-3


@pytest.mark.parametrize("angle", [1e-3, 5e-2])
def test_a_small_rotation_is_not_rounded_away_in_bfloat16(angle):
    """From a thousandth on, which angles reach within a few steps of the default rate."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 32).bfloat16().requires_grad_(False)
    layer = OftLinear(linear, 16)
    nn.init.constant_(layer.angles_BT, angle)
    values = torch.randn(4000, 64).bfloat16()
    rotated = values.double() @ torch.block_diag(*layer.rotation()).double().detach()
    expected = (rotated - values.double()) @ linear.weight.double().T
    change = (layer(values).detach() - linear(values)).double()
    assert float((change * expected).sum() / expected.square().sum()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("inputs", [16, 30, 48, 97, 576, 1536])
def test_a_block_that_does_not_divide_the_inputs_is_adjusted_as_in_peft(inputs):
    class Layer(nn.Module, OFTLayer):
        def __init__(self):
            super().__init__()

    theirs = Layer()
    for wanted in range(1, inputs + 5):
        size = theirs.adjust_oft_parameters(inputs, wanted) if inputs % wanted else wanted
        assert nearest_divisor(inputs, wanted) == min(size, inputs), wanted


def test_blocks_of_one_input_are_refused_and_nothing_is_left_on():
    base = base_of("llama")
    with pytest.raises(InputError, match=r"rank = 1, .*; set 2 or more"):
        attach(base, "oft", seed=0, rank=1)
    assert not adapter_layers(base.model)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"oft_block_size": 4}, "oft_block_size is 4, and a tensor has the shape"),
        ({"oft_block_size": 10**30}, "oft_block_size is an integer of 19 digits or more"),
        ({"oft_block_size": "8\x1b[2J"}, r"oft_block_size is '8\\x1b"),
        ({"oft_block_size": True}, "oft_block_size is True"),
        ({"oft_block_size": 0, "r": 4}, r"not supported \(r\)"),
        ({"coft": True}, r"not supported \(coft\)"),
        ({"block_share": True}, r"not supported \(block_share\)"),
        ({"use_cayley_neumann": True}, "PEFT 0.18 or newer"),  # without the version that wrote it
        ({"use_cayley_neumann": True, "peft_version": "0.18.0", "num_cayley_neumann_terms": 3}, "5 terms"),
        ({"peft_type": "LOHA"}, "layers are not those"),
    ],
)
def test_a_configuration_that_means_something_else_is_refused(values, told, tmp_path):
    save_adapter(attached(), tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    base = base_of("llama")
    with pytest.raises(InputError, match=told) as caught:
        load_adapter(base, tmp_path)
    assert "\n" not in str(caught.value)
    assert not adapter_layers(base.model)
