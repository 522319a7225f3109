"""The list of larger instruct models: counts agree with transformers, predictions with those of a loaded model, and
what is named fits."""

import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from tiny_models import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.base.config import BASE_MODEL
from trimtab.model.adapters.apply import add_lora
from trimtab.model.attention import ATTENTION
from trimtab.model.catalog import CATALOGUE, HUB_ID
from trimtab.model.fast.packed_weights import packed_bytes
from trimtab.model.footprint import GAPS
from trimtab.model.load import Base
from trimtab.model.suggestions import INSTRUCT, LISTED, FreeMemory, advice, models_that_fit
from trimtab.training.estimates import inference_mb, memory_mb

KINDS = {"SmolLM2": "llama", "Qwen2.5": "qwen2", "Qwen3": "qwen3", "Phi": "phi3", "phi": "phi3"}


def kind_of(model):
    return KINDS[re.match(r"[\w.]+", model.name.partition("/")[2])[0]]


def built(model):
    """The model as transformers makes it from that shape, without memory."""
    names = (name for name in type(model).__slots__ if name not in ("name", "licence", "published", "context"))
    config = AutoConfig.for_model(kind_of(model), **{name: getattr(model, name) for name in names}, pad_token_id=0)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=torch.bfloat16)


@pytest.mark.parametrize("model", INSTRUCT, ids=lambda model: model.name)
def test_parameters_are_those_that_transformers_counts_and_the_family_is_one_that_runs_here(model):
    counted = sum(parameter.numel() for parameter in built(model).parameters())
    assert model.parameters == pytest.approx(counted, rel=1e-3)
    assert kind_of(model) in FAMILIES
    size = re.search(r"([\d.]+)(B|M)(?!\w*-gguf)", model.name)
    if size:  # the name tells it too
        told = float(size[1]) * {"B": 1e9, "M": 1e6}[size[2]]
        assert model.parameters == pytest.approx(told, rel=0.09)


def test_the_list_is_open_dated_and_of_names_that_pull_takes():
    assert all(model.licence in ("Apache-2.0", "MIT") for model in INSTRUCT)
    assert all(model.published <= LISTED for model in INSTRUCT)
    assert all(HUB_ID.fullmatch(model.name) and "/" in model.name for model in INSTRUCT)
    assert len({model.name for model in INSTRUCT}) == len(INSTRUCT)
    assert INSTRUCT[0].parameters < 0.2e9
    assert INSTRUCT[-1].parameters > 30e9
    assert {entry.hub for entry in CATALOGUE.values() if "SmolLM2" in (entry.hub or "")} <= {
        one.name for one in INSTRUCT
    }


def test_predictions_are_those_of_the_plan_for_a_loaded_model():
    model = replace(INSTRUCT[4], num_hidden_layers=2, vocab_size=2048)
    settings = built(model).config
    loaded = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=torch.bfloat16)
    base = Base(model=loaded.requires_grad_(False), tokenizer=None, precision="bf16", folder=Path())
    look = GAPS * (inference_mb(base, 16, 1024, 2048) - packed_bytes(base) / 1e6)
    add_lora(base, 16, 32.0, seed=0)
    held, weights = psutil.Process().memory_info().rss / 1e9, 2 * model.parameters / 1e9
    libraries = 0.5
    assert model.answering_gb == pytest.approx(look / 1e3 + weights + libraries, rel=0.01)
    for passes in (1, 4):
        planned = memory_mb(base, pass_tokens=1024 * passes, dev_eval_mb=look) / 1e3 - held
        ours = model.training_gb(passes) - weights - libraries
        assert 0.99 * planned <= ours <= 2 * planned  # kernels, where they are, keep less


def test_what_is_named_fits_and_something_that_trains_is_among_it_where_anything_does():
    answers = {one.name: one.answering_gb * 1e9 for one in INSTRUCT}
    for free in (0, 1e9, 4e9, 24e9, 40e9, 1e12):
        named = models_that_fit(FreeMemory(bytes=free, passes=2))
        sizes = [one.parameters for one in named]
        assert sizes == sorted(sizes, reverse=True)
        assert all(answers[one.name] <= free and one.command == f"trimtab pull {one.name}" for one in named)
        assert bool(named) == any(needed <= free for needed in answers.values())
        trainable = any(one.training_gb(2) * 1e9 <= free for one in INSTRUCT)
        assert any(one.trains for one in named) == trainable
    assert (
        models_that_fit(FreeMemory(bytes=1e12, passes=2))[0].name == max(INSTRUCT, key=lambda one: one.parameters).name
    )


def test_advice_says_the_command_the_licence_and_what_is_too_much():
    named = models_that_fit(FreeMemory(bytes=17.5e9, passes=2))
    about, listed, *lines = advice(named, 17.5)
    assert about.startswith(BASE_MODEL)
    assert LISTED in listed
    assert len(lines) == len(named) > 1
    for one, line in zip(named, lines, strict=True):
        assert f"{one.command} " in line
        assert one.licence in line
        assert ("too much here" in line) is not one.trains
    assert advice((), 0.0) == [about]
