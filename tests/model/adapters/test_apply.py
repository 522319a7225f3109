"""An adapter is the same in PEFT, in our engine and merged; what moved comes back; the base is left as it was."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, VOCABULARY, base_of, plain_model, random_rows

from trimtab.base.errors import InputError, MissingError
from trimtab.model.adapters.apply import (
    add_lora,
    detach,
    load_adapter,
    merged,
    save_adapter,
    trainable_parameters,
    unfreeze,
)
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.attention import PackedSequences
from trimtab.training.optim import Optimizer
from trimtab.training.sft import SupervisedObjective

IDS = torch.tensor([1, *(row % VOCABULARY for row in range(5, 200, 13))])


def logits(base):
    layout = PackedSequences([len(IDS)])
    with torch.no_grad():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def plain_logits(model):
    with torch.no_grad():
        return model(input_ids=IDS[None], use_cache=False).logits[0]


def greedy(step, count=12):
    """Greedy tokens of a function from ids to logits."""
    ids = IDS[:5].tolist()
    for _ in range(count):
        ids.append(int(step(torch.tensor(ids))[-1].argmax()))
    return ids[5:]


def our_step(base):
    def step(ids):
        layout = PackedSequences([len(ids)])
        with torch.no_grad():
            return base.logits(base.hidden(ids, layout.positions_N, layout))

    return step


def their_step(model):
    def step(ids):
        with torch.no_grad():
            return model(input_ids=ids[None], use_cache=False).logits[0]

    return step


def train_a_little(base):
    objective, optimizer = (
        SupervisedObjective(random_rows(6), batch=6, seed=0),
        Optimizer(trainable_parameters(base.model)),
    )
    for step in range(3):
        for place, batch in enumerate(objective.batches(step)):
            optimizer.backward(objective.loss(base, batch).value, place)
        optimizer.step(2e-2)


def trained(family, folder):
    base = base_of(family)
    add_lora(base, 4, 8.0, seed=0)
    train_a_little(base)
    save_adapter(base, folder)
    return base


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_the_same_in_peft_here_and_merged(family, tmp_path):
    base = trained(family, tmp_path)
    expected = logits(base)
    assert not torch.allclose(expected, logits(base_of(family)), atol=1e-2)
    theirs = PeftModel.from_pretrained(plain_model(family), str(tmp_path)).eval()
    assert torch.allclose(plain_logits(theirs), expected, atol=1e-4)
    loaded = base_of(family)
    load_adapter(loaded, tmp_path)
    assert torch.equal(logits(loaded), expected)
    tokens = greedy(our_step(base))
    assert greedy(their_step(theirs)) == tokens
    with merged(base.model):
        assert torch.allclose(logits(base), expected, atol=1e-4)
        assert greedy(our_step(base)) == tokens
    merged_theirs = theirs.merge_and_unload()
    assert torch.allclose(plain_logits(merged_theirs), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_and_removing_leave_the_base_to_the_bit(dtype):
    base, untouched = base_of("llama", dtype), base_of("llama", dtype)
    before = base.model.state_dict()
    add_lora(base, 4, 8.0, seed=0)
    for layer in adapter_layers(base.model).values():
        torch.nn.init.normal_(layer.lora_b)
    adapted = logits(base)
    with merged(base.model):
        pass
    assert torch.equal(logits(base), adapted)
    with merged(base.model):
        detach(base)  # even while merged
    assert base.model.state_dict().keys() == before.keys()
    assert torch.equal(logits(base), logits(untouched))
    for name, value in untouched.model.state_dict().items():
        assert torch.equal(base.model.state_dict()[name], value)


def test_merging_a_tied_model_leaves_the_tie_and_the_embedding():
    base = base_of("tied llama")
    add_lora(base, 4, 8.0, seed=0)
    for layer in adapter_layers(base.model).values():
        torch.nn.init.normal_(layer.lora_b)
    embedding = base.model.get_input_embeddings().weight
    before = embedding.detach().clone()
    with merged(base.model):
        assert base.model.get_output_embeddings().weight is embedding
        assert torch.equal(embedding, before)
    assert "lm_head" not in adapter_layers(base.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "tied llama", "gemma2", "phi"])
@pytest.mark.parametrize("method", ["freeze", "full"])
def test_what_moved_comes_back(method, family, dtype, tmp_path):
    base = base_of(family, dtype)
    unfreeze(base, method, layers=1)
    train_a_little(base)
    save_adapter(base, tmp_path)
    loaded = base_of(family, dtype)
    assert not torch.equal(logits(loaded), logits(base))
    load_adapter(loaded, tmp_path)
    assert torch.equal(logits(loaded), logits(base))


def test_lora_starts_as_the_base_and_from_the_seed():
    first, again, other = base_of("llama"), base_of("llama"), base_of("llama")
    for base, seed in ((first, 1), (again, 1), (other, 2)):
        add_lora(base, 4, 8.0, seed=seed)
    assert torch.equal(logits(first), logits(base_of("llama")))
    name = next(iter(adapter_layers(first.model)))
    left, same, right = (adapter_layers(base.model)[name].lora_a for base in (first, again, other))
    assert torch.equal(left, same)
    assert not torch.equal(left, right)


@pytest.mark.parametrize("key", ["use_qalora", "lora_bias", "fan_in_fan_out"])
def test_an_adapter_with_other_maths_is_refused(key, tmp_path):
    """The same tensors would silently mean something else."""
    trained("llama", tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: True}))
    with pytest.raises(InputError, match=key):
        load_adapter(base_of("llama"), tmp_path)


def test_an_adapter_of_another_model_is_refused_and_nothing_is_left_on(tmp_path):
    trained("llama", tmp_path)
    base = base_of("phi3")
    with pytest.raises(InputError, match="layers are not those"):
        load_adapter(base, tmp_path)
    assert not adapter_layers(base.model)
    with pytest.raises(MissingError, match="no adapter"):
        load_adapter(base, tmp_path / "empty")


def test_too_many_layers_are_refused():
    with pytest.raises(InputError, match="layers = 3, but the model has 2"):
        unfreeze(base_of("llama"), "freeze", layers=3)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("r", 0, r"adapter_config\.json: r is 0, and the tensors are of rank 4;"),
        ("r", 10**9, "r is 1000000000, and the tensors are of rank 4;"),
        ("r", 10**30, "r is an integer of 19 digits or more, and"),
        ("r", -4, "r is -4"),
        ("r", True, "r is True"),
        ("r", "4\x1b[2J", r"r is '4\\x1b\[2J'"),
        ("r", None, "r is None"),
        ("lora_alpha", float("inf"), "lora_alpha is inf;"),
        ("lora_alpha", float("nan"), "lora_alpha is nan;"),
        ("lora_alpha", "8", "lora_alpha is '8';"),
    ],
)
def test_a_rank_that_the_tensors_do_not_have_is_refused_before_layers_are_made(key, value, told, tmp_path):
    trained("llama", tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    base = base_of("llama")
    with pytest.raises(InputError, match=told) as caught:
        load_adapter(base, tmp_path)
    assert "\n" not in str(caught.value)
    assert not adapter_layers(base.model)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_refused(name, tmp_path):
    trained("llama", tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    base = base_of("llama")
    with pytest.raises(InputError, match=rf"{name}: is damaged"):
        load_adapter(base, tmp_path)
    assert not adapter_layers(base.model)


def test_a_rank_without_any_tensor_of_it_is_refused_before_layers_are_made(tmp_path):
    trained("llama", tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "r": 10**9}))
    save_file({"other": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="layers are not those"):
        load_adapter(base_of("llama"), tmp_path)


def test_an_adapter_with_another_shape_leaves_nothing_on(tmp_path):
    trained("llama", tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in tensors if ".lora_B." in name)
    save_file({**tensors, name: torch.zeros(3, 4)}, tmp_path / "adapter_model.safetensors")
    base = base_of("llama")
    with pytest.raises(InputError, match="does not fit the model"):
        load_adapter(base, tmp_path)
    assert not adapter_layers(base.model)
