"""The classes and default settings of the training methods, from the table of methods (`base/grammar.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.base.grammar import METHODS
from trimtab.base.tables import resolve
from trimtab.model.adapters.base import AdapterLayer, MethodDefaults
from trimtab.model.prompt_tuning import VirtualTokens

# Methods that train the model's own weights; `freeze`: those of the last `layers` blocks.
WEIGHT_METHODS: Mapping[str, MethodDefaults] = {
    "freeze": MethodDefaults(layers=6, learning_rate=1e-4, by_width=True),
    "full": MethodDefaults(learning_rate=5e-5, by_width=True),
}


def layer_methods() -> dict[str, type[AdapterLayer]]:
    """Return the methods that put an adapter layer in the place of linear layers."""
    return {name: trained for name, trained in _trained().items() if issubclass(trained, AdapterLayer)}


def virtual_token_methods() -> dict[str, type[VirtualTokens]]:
    """Return the methods that put trained virtual tokens before every sequence."""
    return {name: trained for name, trained in _trained().items() if issubclass(trained, VirtualTokens)}


def _trained() -> dict[str, Any]:
    return {name: resolve(method.trained_by) for name, method in METHODS.items() if method.trained_by is not None}


def defaults_of(method: str) -> MethodDefaults:
    """Return the default settings of a method; raises KeyError for a name that is none of these."""
    if method in WEIGHT_METHODS:
        return WEIGHT_METHODS[method]
    defaults: MethodDefaults = _trained()[method].defaults
    return defaults
