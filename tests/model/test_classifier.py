"""A saved classifier gives the same logits in transformers and PEFT, as docs/how-to/export.md says to load it, in a
padded batch of theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file
from tiny_models import FAMILIES, VOCABULARY, base_of, plain_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.model.adapters.apply import add_lora, load_adapter, trainable_parameters, unfreeze
from trimtab.model.classifier import ClassificationHead, load_head, save_head
from trimtab.model.load import load_base
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.optim import Optimizer

LABELS = ("later", "urgent", "never")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def prompts(count=8):
    draw = random.Random(0)
    return [tuple(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(2, 14))) for _ in range(count)]


def trained(family, method, folder, dtype=torch.float32):
    """A base of which the method's part moved with a head in a few real steps; saved in `folder`."""
    base = base_of(family, dtype)
    if method == "lora":
        add_lora(base, 4, 8.0, seed=0)
    else:
        unfreeze(base, method, layers=1)
    head = ClassificationHead(LABELS, 32, seed=3)
    rows = label_rows(((ids, number % 3, 1.0) for number, ids in enumerate(prompts())), len(LABELS))
    objective = ClassificationObjective(rows, head, batch=8, seed=0)
    optimizer = Optimizer(objective.parameters(base))
    for step in range(3):
        for place, batch in enumerate(objective.batches(step)):
            optimizer.backward(objective.loss(base, batch).value, place)
        optimizer.step(2e-2)
    save_head(base, head, folder)
    return base, head


def ours(base, head):
    with torch.no_grad():
        return head(last_hidden_states(base, prompts()))


def theirs(model):
    longest = max(map(len, prompts()))
    ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in prompts()])
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False).logits


def published(family, folder):
    """The base as a user has it: a model folder that knows nothing of labels."""
    plain_model(family).save_pretrained(folder)
    return folder


def in_transformers(method, base_folder, folder):
    """The model as docs/how-to/export.md loads it."""
    if method == "full":
        return AutoModelForSequenceClassification.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, config=config)
    if method == "lora":
        return PeftModel.from_pretrained(model, folder)
    model.load_state_dict(load_file(folder / "moved.safetensors"), strict=False)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_logits_are_those_of_transformers_and_peft(method, family, tmp_path):
    base, head = trained(family, method, tmp_path / "adapter")
    expected = ours(base, head)
    untrained = ours(base_of(family), ClassificationHead(LABELS, 32, seed=3))
    assert not torch.allclose(expected, untrained, atol=1e-2)
    model = in_transformers(method, published(family, tmp_path / "base"), tmp_path / "adapter")
    assert torch.allclose(theirs(model), expected, atol=1e-4)
    assert [model.config.id2label[number] for number in range(3)] == list(LABELS)
    loaded = base_of(family)
    load_adapter(loaded, tmp_path / "adapter")
    assert torch.equal(ours(loaded, load_head(loaded, tmp_path / "adapter")), expected)


def test_an_adapter_is_a_peft_folder_that_needs_the_number_of_labels_alone(tmp_path):
    base, head = trained("llama", "lora", tmp_path / "adapter")
    folder = published("llama", tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert torch.allclose(theirs(PeftModel.from_pretrained(model, tmp_path / "adapter")), ours(base, head), atol=1e-4)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["task_type"], settings["modules_to_save"]) == ("SEQ_CLS", ["score"])
    settings["base_model_name_or_path"] = str(folder)
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    found = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)
    assert torch.allclose(theirs(found), ours(base, head), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "tied llama"])
def test_only_what_a_classifier_has_is_on_disk(family, tmp_path):
    """Of `full` the head over tokens is left out, of `freeze` what did not move."""
    base, _ = trained(family, "full", tmp_path / "full")
    names = set(load_file(tmp_path / "full" / "model.safetensors"))
    body = {name for name, _ in base.model.named_parameters()} - {"lm_head.weight"}
    assert names == {*body, "score.weight"}
    assert not (tmp_path / "full" / "moved.safetensors").exists()
    base, _ = trained(family, "freeze", tmp_path / "freeze")
    names = set(load_file(tmp_path / "freeze" / "moved.safetensors"))
    assert names == {*trainable_parameters(base.model), "score.weight"}
    assert not (tmp_path / "freeze" / "model.safetensors").exists()


def test_bfloat16_weights_stay_so_and_the_head_is_kept_in_float32(tmp_path):
    base, head = trained("llama", "full", tmp_path, torch.bfloat16)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert torch.equal(load_file(tmp_path / "model.safetensors")["score.weight"], head.weight.detach())
    assert torch.allclose(theirs(model).float(), ours(base, head), atol=0.1)


def test_the_prompt_of_the_guide_is_ours(tiny_model_folder: Path):
    """Their chat template gives the ids that the head was trained on."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    base = load_base(tiny_model_folder, "fp32")
    turns = [Message(role="system", content="Which city?"), Message(role="user", content="the bridge of Bonn")]
    given = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns], add_generation_prompt=True, return_dict=True
    )
    assert tuple(given["input_ids"]) == ChatEncoder(base.tokenizer).prompt(turns)
