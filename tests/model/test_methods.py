"""Every method is the same in PEFT, here and merged, moves as PEFT's own layers do, and leaves the base as
published."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, VOCABULARY, base_of, padded_loss, plain_model, random_rows
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from trimtab.base.errors import InputError
from trimtab.model.adapters import qlora as quantized
from trimtab.model.adapters.apply import attach, detach, load_adapter, merged, save_adapter, trainable_parameters
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.adapters.peft_format import peft_tensors
from trimtab.model.adapters.pissa import principal_factors
from trimtab.model.adapters.registry import layer_methods, virtual_token_methods
from trimtab.model.attention import PackedSequences
from trimtab.model.prompt_tuning import virtual_tokens_of
from trimtab.training.optim import Optimizer
from trimtab.training.sft import SupervisedObjective

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),  # PEFT's prefix hands them over
]

LAYERWISE, VIRTUAL = tuple(layer_methods()), tuple(virtual_token_methods())
SETTINGS = {"rank": 4, "virtual_tokens": 5}
IDS = torch.tensor([1, *(row % VOCABULARY for row in range(5, 200, 13))])


def logits(base, ids=IDS):
    layout = PackedSequences([len(ids)])
    with torch.no_grad():
        return base.logits(base.hidden(ids, layout.positions_N, layout))


def published(method, family, adapter):
    """The model that PEFT puts an adapter on: as published, or packed by transformers as the adapter's folder says.

    A packed one has to be asked as in training: in evaluation bitsandbytes lays weights out anew, for which these
    layers are too small.
    """
    model = plain_model(family)
    if method != "qlora":
        return model
    model.save_pretrained(adapter / "base")
    packed = BitsAndBytesConfig(**json.loads((adapter / "quantization.json").read_text()))
    return AutoModelForCausalLM.from_pretrained(adapter / "base", quantization_config=packed, dtype=torch.float32)


def plain_logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0, -len(ids) :]


def train_a_little(base, rate=2e-2, steps=3):
    """Losses of a few real steps."""
    objective, optimizer = (
        SupervisedObjective(random_rows(6), batch=6, seed=0),
        Optimizer(trainable_parameters(base.model)),
    )
    losses = []
    for step in range(steps):
        losses.append(0.0)
        for place, batch in enumerate(objective.batches(step)):
            loss = objective.loss(base, batch).value
            losses[-1] += float(loss.detach())
            optimizer.backward(loss, place)
        optimizer.step(rate)
    return losses


def trained(method, family, folder, dtype=torch.float32):
    base = base_of(family, dtype)
    attach(base, method, seed=0, **SETTINGS)
    train_a_little(base)
    save_adapter(base, folder)
    return base


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [*LAYERWISE, *VIRTUAL])
def test_it_is_the_same_in_peft_here_and_merged(method, family, tmp_path):
    base = trained(method, family, tmp_path)
    expected = logits(base)
    assert not torch.allclose(expected, logits(base_of(family)), atol=1e-2)
    theirs = PeftModel.from_pretrained(published(method, family, tmp_path), str(tmp_path))
    theirs.train(method == "qlora")
    assert torch.allclose(plain_logits(theirs), expected, atol=1e-4)
    loaded = base_of(family)
    load_adapter(loaded, tmp_path)
    assert torch.allclose(logits(loaded), expected, atol=1e-5)
    with merged(loaded.model):
        assert torch.allclose(logits(loaded), expected, atol=1e-4)
    assert torch.allclose(logits(loaded), expected, atol=1e-5)


@pytest.mark.parametrize("method", [*LAYERWISE, *VIRTUAL])
def test_what_is_loaded_is_saved_as_it_was(method, tmp_path):
    trained(method, "qwen2", tmp_path / "first")
    loaded = base_of("qwen2")
    load_adapter(loaded, tmp_path / "first")
    save_adapter(loaded, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", [*LAYERWISE, *VIRTUAL])
def test_taking_off_gives_the_published_base_to_the_bit(method, dtype, tmp_path):
    for family in ("llama", "phi"):  # without biases and with them
        untouched, base = base_of(family, dtype), trained(method, family, tmp_path / family, dtype)
        with merged(base.model):
            detach(base)  # even while merged
        assert not adapter_layers(base.model)
        assert virtual_tokens_of(base.model) is None
        now, then = base.model.state_dict(), untouched.model.state_dict()
        assert list(now) == list(then)
        assert all(torch.equal(now[name], value) for name, value in then.items())
        assert not trainable_parameters(base.model)
        assert torch.equal(logits(base), logits(untouched))


@pytest.mark.parametrize("method", [*LAYERWISE, *VIRTUAL])
def test_it_starts_from_its_seed_and_as_the_base_where_nothing_is_put_before(method):
    bases = [base_of("qwen2") for _ in range(3)]
    for base, seed in zip(bases, (1, 1, 2), strict=True):
        attach(base, method, seed, **SETTINGS)
    first, again, other = (peft_tensors(base.model) for base in bases)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = method not in ("ia3", "bitfit", "oft")
    assert drawn != all(torch.equal(first[name], other[name]) for name in first)
    if method in LAYERWISE and method != "qlora":  # which begins with what 4 bits leave
        assert torch.allclose(logits(bases[0]), logits(base_of("qwen2")), atol=1e-5)


@pytest.mark.parametrize("method", [*LAYERWISE, *VIRTUAL])
def test_the_loss_falls_and_everything_moves(method):
    base = base_of("llama")
    attach(base, method, seed=0, **SETTINGS)
    before = {name: value.detach().clone() for name, value in trainable_parameters(base.model).items()}
    losses = train_a_little(base, rate=2e-2, steps=12)
    assert losses[-1] < losses[0] - 0.1
    assert before
    assert all(not torch.equal(before[name], value) for name, value in trainable_parameters(base.model).items())


def reference_loss(model, rows):
    """The padded batch of `padded_loss`, for models that say something about virtual tokens too."""

    class Last(torch.nn.Module):
        def forward(self, input_ids, **others):
            out = model(input_ids=input_ids, **others)
            out.logits = out.logits[:, -input_ids.shape[1] :]
            return out

    return padded_loss(Last(), rows)


def peft_name(name):
    for end in (".weight", ""):
        if name.endswith(end):
            return f"{name.removesuffix(end)}.default{end or ('.weight' if 'magnitude' in name else '')}"
    raise ValueError(name)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
@pytest.mark.parametrize("method", [*(name for name in LAYERWISE if name not in ("lora", "pissa")), *VIRTUAL])
def test_its_gradients_are_those_of_peft(method, family, tmp_path):
    base, rows = trained(method, family, tmp_path), random_rows(6)
    model = published(method, family, tmp_path)
    twin = PeftModel.from_pretrained(model, str(tmp_path), is_trainable=method not in VIRTUAL)
    twin.train(method == "qlora")
    if method in VIRTUAL:  # which PEFT does not go on training once they are saved
        twin.prompt_encoder.default.embedding.weight.requires_grad_(True)
    theirs = dict(twin.named_parameters())
    expected = reference_loss(twin, rows)
    expected.backward()
    objective = SupervisedObjective(rows, batch=6, seed=0)
    loss = sum(objective.loss(base, batch).value for batch in objective.batches(0))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    ours = {value.data_ptr(): value.grad for value in trainable_parameters(base.model).values()}
    compared = 0
    for name, value in peft_tensors(base.model).items():
        if name in ("base_model.vera_A", "base_model.vera_B"):
            continue
        grad = twin.prompt_encoder.default.embedding.weight.grad if method in VIRTUAL else theirs[peft_name(name)].grad
        assert grad.abs().max() > 1e-6
        assert torch.allclose(ours[value.data_ptr()].view_as(grad), grad, atol=1e-4, rtol=1e-3), name
        compared += 1
    assert compared == len(ours)


def test_pissa_moves_as_pefts_from_the_same_start():
    base, rows = base_of("llama"), random_rows(6)
    attach(base, "pissa", seed=0, rank=4)
    names = sorted({name.rpartition(".")[2] for name in adapter_layers(base.model)})
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=names, init_lora_weights="pissa", task_type="CAUSAL_LM")
    twin = get_peft_model(plain_model("llama"), config)
    theirs = dict(twin.named_parameters())
    layers = adapter_layers(base.model)
    with torch.no_grad():  # the same directions, whose signs are free
        for name, layer in layers.items():
            a, b = (theirs[f"base_model.model.{name}.lora_{side}.default.weight"] for side in "AB")
            left = layer.base.weight - layer.lora_b @ layer.lora_a
            assert left.norm() < 1.01 * (layer.base.weight - b @ a).norm()
            for own, their in ((layer.lora_a, a), (layer.start_a, a), (layer.lora_b, b), (layer.start_b, b)):
                own.copy_(their)
    reference_loss(twin, rows).backward()
    objective = SupervisedObjective(rows, batch=6, seed=0)
    sum(objective.loss(base, batch).value for batch in objective.batches(0)).backward()
    for name, layer in layers.items():
        for side, own in (("A", layer.lora_a), ("B", layer.lora_b)):
            grad = theirs[f"base_model.model.{name}.lora_{side}.default.weight"].grad
            assert torch.allclose(own.grad, grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("shape", [(40, 30), (30, 90), (16, 16)])
def test_the_largest_directions_are_those_of_the_singular_values(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    a, b = principal_factors(weight, 6, torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    best = left[:, :6] * values[:6] @ right[:6]
    assert (weight - b @ a).norm() < 1.01 * (weight - best).norm()
    assert torch.allclose(a.norm(dim=1), values[:6].sqrt(), rtol=0.05)


def test_a_small_step_of_pissa_is_not_lost_in_bfloat16():
    """The factors are large; a step below their last bit must still change the weight."""
    base = base_of("llama", torch.bfloat16)
    attach(base, "pissa", seed=0, rank=4)
    layer = adapter_layers(base.model)["model.layers.0.mlp.up_proj"]
    with torch.no_grad():
        layer.lora_b += 1e-4
    input = torch.randn(512, 32).bfloat16()
    with torch.no_grad():
        change = (layer(input).float() - layer.base(input).float()).double()
    expected = (input.float() @ layer.delta().T).double()
    assert float((change * expected).sum() / expected.square().sum()) == pytest.approx(1.0, abs=0.15)


def test_more_directions_than_a_layer_has_are_refused_and_nothing_is_left_on():
    base = base_of("llama")
    with pytest.raises(InputError, match="rank = 17, but a layer has 16 directions"):
        attach(base, "pissa", seed=0, rank=17)
    assert not adapter_layers(base.model)


def test_four_bits_are_refused_where_nothing_packs_them(monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    base = base_of("llama")
    with pytest.raises(InputError, match=r"needs bitsandbytes, which is not installed; take lora, or run: pip install"):
        attach(base, "qlora", seed=0, rank=4)
    assert not adapter_layers(base.model)


def change_config(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("method", "values", "told"),
    [
        ("dora", {"use_dora": False}, "layers are not those"),
        ("dora", {"use_rslora": True}, "together"),
        ("lora", {"use_dora": True}, "layers are not those"),
        ("qlora", {"use_rslora": True}, r"quantization\.json and use_rslora together are not supported"),
        ("qlora", {"use_dora": True}, r"quantization\.json and use_dora together are not supported"),
        ("vera", {"r": 5}, "r is 5, and the tensors are of rank 4"),
        ("prefix", {"num_virtual_tokens": 10**30}, "num_virtual_tokens is an integer of 19 digits or more, and"),
        ("prefix", {"prefix_projection": True}, "prefix_projection"),
        ("prefix", {"peft_type": "PROMPT_TUNING"}, "do not have this model's size"),
        ("soft-prompt", {"peft_type": "ADALORA\x1b[2J"}, r"'ADALORA\\x1b"),
        ("ia3", {"peft_type": "BEFT"}, "layers are not those"),
    ],
)
def test_a_configuration_that_its_tensors_do_not_bear_out_is_refused(method, values, told, tmp_path):
    trained(method, "llama", tmp_path)
    change_config(tmp_path, **values)
    base = base_of("llama")
    with pytest.raises(InputError, match=told) as caught:
        load_adapter(base, tmp_path)
    assert "\n" not in str(caught.value)
    assert not adapter_layers(base.model)
    assert virtual_tokens_of(base.model) is None


def test_rslora_is_scaled_by_the_root_of_the_rank(tmp_path):
    expected = logits(trained("rslora", "llama", tmp_path))
    change_config(tmp_path, use_rslora=False)
    base = base_of("llama")
    load_adapter(base, tmp_path)
    assert not torch.allclose(logits(base), expected, atol=1e-2)


def test_virtual_tokens_of_another_width_leave_nothing_on(tmp_path):
    trained("soft-prompt", "llama", tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file(
        {name: value[:, :-1].contiguous() for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors"
    )
    base = base_of("llama")
    with pytest.raises(InputError, match="do not have this model's size"):
        load_adapter(base, tmp_path)
    assert virtual_tokens_of(base.model) is None


@pytest.mark.parametrize("method", LAYERWISE)
def test_in_bfloat16_merging_costs_little_of_what_was_learnt(method, tmp_path):
    base = trained(method, "qwen2", tmp_path, torch.bfloat16)
    apart, untouched = logits(base).float(), logits(base_of("qwen2", torch.bfloat16)).float()
    with merged(base.model):
        together = logits(base).float()
    rounding = 2**-7 * untouched.norm()
    assert (together - apart).norm() < 0.1 * (apart - untouched).norm() + rounding
