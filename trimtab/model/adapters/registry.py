"""Lists the training methods: each name's adapter class, virtual-token class or default settings."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.model.adapters.base import AdapterLayer, MethodDefaults
from trimtab.model.adapters.bitfit import BitFitLinear
from trimtab.model.adapters.dora import DoraLinear
from trimtab.model.adapters.ia3 import Ia3Linear
from trimtab.model.adapters.loha import LohaLinear
from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.adapters.oft import OftLinear
from trimtab.model.adapters.pissa import PissaLinear
from trimtab.model.adapters.qlora import QloraLinear
from trimtab.model.adapters.rslora import RsloraLinear
from trimtab.model.adapters.vera import VeraLinear
from trimtab.model.prompt_tuning import LearnedPrefix, SoftPrompt, VirtualTokens

# Methods that put an adapter layer in the place of linear layers.
LAYER_METHODS: Mapping[str, type[AdapterLayer]] = {
    "lora": LoraLinear,
    "rslora": RsloraLinear,
    "dora": DoraLinear,
    "pissa": PissaLinear,
    "qlora": QloraLinear,
    "vera": VeraLinear,
    "ia3": Ia3Linear,
    "bitfit": BitFitLinear,
    "oft": OftLinear,
    "loha": LohaLinear,
}
# Methods that put trained virtual tokens before every sequence.
VIRTUAL_TOKEN_METHODS: Mapping[str, type[VirtualTokens]] = {"soft-prompt": SoftPrompt, "prefix": LearnedPrefix}
# Methods that train the model's own weights; `freeze`: those of the last `layers` blocks.
WEIGHT_METHODS: Mapping[str, MethodDefaults] = {
    "freeze": MethodDefaults(layers=6, learning_rate=1e-4, by_width=True),
    "full": MethodDefaults(learning_rate=5e-5, by_width=True),
}


def defaults_of(method: str) -> MethodDefaults:
    """Return the default settings of a method; raises KeyError for a name that is none of these."""
    if method in WEIGHT_METHODS:
        return WEIGHT_METHODS[method]
    return (VIRTUAL_TOKEN_METHODS[method] if method in VIRTUAL_TOKEN_METHODS else LAYER_METHODS[method]).defaults
