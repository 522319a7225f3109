"""The grammar of arms and the registry of methods name the same methods, with the same settings."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from trimtab.base.grammar import METHODS
from trimtab.model.adapters.base import WIDTH, AdapterInit, AdapterLayer
from trimtab.model.adapters.peft_format import all_extra_files
from trimtab.model.adapters.registry import WEIGHT_METHODS, defaults_of, layer_methods, virtual_token_methods

LAYER_METHODS, VIRTUAL_TOKEN_METHODS = layer_methods(), virtual_token_methods()
TABLES = (LAYER_METHODS, VIRTUAL_TOKEN_METHODS, WEIGHT_METHODS)
PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "methods.md"
STAGED = [name for name, method in METHODS.items() if method.staged]


def test_every_method_that_is_trained_in_stages_stands_in_one_table():
    assert sorted(STAGED) == sorted(name for table in TABLES for name in table)


@pytest.mark.parametrize("method", STAGED)
def test_the_settings_that_the_grammar_takes_are_those_with_a_default(method):
    assert METHODS[method].options == defaults_of(method).options


def test_the_page_of_methods_has_a_row_with_the_default_rate_of_each():
    """At the hidden size of the small model."""
    table = PAGE.read_text("utf-8").partition("## Learning rates")[0]
    rows = [[cell.strip("` ") for cell in line.split(" | ")] for line in table.splitlines() if line[:3] == "| `"]
    rates = {row[0].removeprefix("| `"): float(row[3]) for row in rows}
    assert rates == {name: pytest.approx(defaults_of(name).rate(576), rel=0.05) for name in STAGED}


@pytest.mark.parametrize("method", STAGED)
def test_a_narrower_model_takes_a_higher_rate_only_where_the_method_says_so(method):
    defaults = defaults_of(method)
    assert defaults.rate(WIDTH) == pytest.approx(defaults.learning_rate)
    assert (defaults.rate(WIDTH // 4) > defaults.learning_rate) == defaults.by_width
    assert defaults.rate(1) == defaults.rate(200)  # very narrow models were not studied


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_a_class_is_final_and_overrides_nothing_concrete(method):
    own = LAYER_METHODS[method]
    assert getattr(own, "__final__", False)
    parents = own.__mro__[1 : own.__mro__.index(nn.Module)]
    assert len(parents) <= 3  # AdapterLayer, with LowRankLayer and LoraVariant between
    concrete = {
        name
        for parent in parents
        for name, value in vars(parent).items()
        if inspect.isroutine(value) and not getattr(value, "__isabstractmethod__", False) and not name.startswith("__")
    }
    assert not concrete.intersection(vars(own))


@pytest.mark.parametrize("method", [name for name in LAYER_METHODS if name != "qlora"])
def test_the_format_names_the_tensors_that_a_layer_saves(method):
    own = LAYER_METHODS[method]
    layers = {"model.layers.0.mlp.down_proj": nn.Linear(12, 8)}
    init = AdapterInit(rank=4, generator=torch.Generator().manual_seed(0), layers=layers)
    make = own.maker(init)
    for name, linear in layers.items():
        layer = make(name, linear)
        assert isinstance(layer, AdapterLayer)
        assert set(layer.peft_tensors()) == set(own.saved_as.parts)
        assert set(layer.shared_tensors) == set(own.saved_as.shared)


def test_no_two_classes_read_the_same_folder_differently():
    """PiSSA is saved as LoRA, and read as it."""
    formats = [
        (own.saved_as.peft_type, own.saved_as.flags, tuple(own.saved_as.files), own.saved_as.parts)
        for name, own in LAYER_METHODS.items()
        if name != "pissa"
    ]
    assert len({one[:3] for one in formats}) == len(formats)
    assert LAYER_METHODS["pissa"].saved_as is LAYER_METHODS["lora"].saved_as
    assert all_extra_files() == ["quantization.json"]
