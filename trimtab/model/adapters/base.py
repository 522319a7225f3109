"""Base class of adapter layers with merge and unmerge, what each method declares (defaults, PEFT format), and wrapping
of linear layers.

A method is one class: the layer that takes the place of a linear layer. `registry.py` has them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trimtab.model.adapters.saved_adapter import SavedAdapter

# The learning rates are the centres of the search: LoRA's as in Thinking Machines 2025, "LoRA without regret" (about
# ten times full tuning's, either growing as the hidden size shrinks, with the exponent NARROWER), the others' from the
# papers named in docs/concepts/methods.md, if they state one; PiSSA's is lower than there, as dev and test have it on
# two tasks (docs/concepts/methods.md).
WIDTH, NARROWER, NARROWEST = 2000, 0.78, 256


@dataclass(frozen=True, kw_only=True)
class MethodDefaults:
    """Default settings of a method; `rank`, `layers` and `virtual_tokens` are None for methods without them.

    `learning_rate` is the centre of the search. `by_width`: it is that at a hidden size of WIDTH, and a narrower model
    takes a higher one.
    """

    learning_rate: float
    by_width: bool = False
    epochs: float = 3.0
    rank: int | None = None
    layers: int | None = None
    virtual_tokens: int | None = None

    def rate(self, hidden: int) -> float:
        """Return the default learning rate for a hidden size. Very narrow models were not studied."""
        factor = (WIDTH / max(hidden, NARROWEST)) ** NARROWER if self.by_width else 1.0
        return float(self.learning_rate * factor)

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the settings that only some methods have."""
        return tuple(name for name in ("rank", "layers", "virtual_tokens") if getattr(self, name) is not None)


@dataclass(frozen=True, kw_only=True)
class PeftFormat:
    """PEFT's file format of a method.

    `parts`: the tensors of a layer, by the suffix of their names; `shared`: those of the whole adapter, by the names
    behind `base_model.`. `flags`: options whose value is true for this method and false for its kin of the same type.
    `files`: further files of the folder, with their content; they too set it apart. `refused`: options under which the
    same tensors mean something else.
    """

    peft_type: str
    parts: tuple[str, ...]
    shared: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AdapterInit:
    """The inputs for building a method's adapter layers; `layers`: all layers that will be wrapped, by name."""

    rank: int
    generator: torch.Generator
    layers: Mapping[str, nn.Linear]


class AdapterLayer(nn.Module, ABC):
    """A frozen linear layer with a trainable change that can be merged; a final subclass is a method.

    A method states as class attributes its `defaults`; `saved_as`, its format in PEFT; and `targets`, the last parts of
    the names of the layers that it changes, None for every linear layer.

    Shapes: N tokens of the flat row, I inputs, O outputs.
    """

    defaults: ClassVar[MethodDefaults]
    saved_as: ClassVar[PeftFormat]
    targets: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.shared_tensors: Mapping[str, Tensor] = {}  # those of the whole adapter, by the names of PeftFormat.shared
        self._original: tuple[Tensor, nn.Parameter | None] | None = None
        self._unpack: Callable[[], Tensor] | None = None
        self._published: Tensor | None = None

    @classmethod
    def layers_of(cls, layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
        """Return the layers that the method changes, by name."""
        chosen = cls.targets
        return {name: one for name, one in layers.items() if chosen is None or name.rpartition(".")[2] in chosen}

    @classmethod
    @abstractmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the function that builds newly initialised layers; raises InputError if this machine cannot."""

    @classmethod
    @abstractmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the function that builds layers of a saved adapter's sizes; their values are not loaded yet.

        Raises InputError, now or when a layer is built, if configuration and tensors do not agree.
        """

    @abstractmethod
    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output with the unmerged adapter, `[..., O]` from `[..., I]`, with gradients to its parameters."""

    @abstractmethod
    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the merged weight `[O, I]` and bias `[O]`, float32, without gradients."""

    @abstractmethod
    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:
        """Return PEFT's options of this method, by this layer; `names`: the last parts of all layers' names."""

    @abstractmethod
    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that PEFT saves for this layer, by the suffix of PEFT's name; writing into them changes
        the layer.
        """

    @abstractmethod
    def saved_for_backward(self, tokens: int) -> int:
        """Return how many numbers a pass over `tokens` tokens saves for backward, beyond those of the frozen layer."""

    @property
    def is_merged(self) -> bool:
        """True if the adapter is merged into the weight."""
        return self._original is not None

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., O]` from `input` `[..., I]`, both in the dtype of the frozen weight."""
        out: Tensor = self.base(input) if self.is_merged else self.forward_adapted(input)
        return out

    def frozen_weight(self) -> Tensor:
        """Return the frozen weight, `[O, I]`, in the dtype of the input."""
        return self.base.weight.detach() if self._unpack is None else self._unpack()

    def pack_frozen_weight(self, unpack: Callable[[], Tensor]) -> None:
        """Free the frozen weight: from now on `unpack` returns it. The pretrained one waits in host memory until the
        layer is released.
        """
        published = self.base.weight.data
        self._unpack, self._device, self._published = unpack, published.device, published.cpu()
        self.base.weight.data = published.new_empty(0)

    def merge(self) -> None:
        """Merge the adapter into the weight, added in float32 and rounded once; inference is then as fast as without an
        adapter.
        """
        if self._original is None:
            with torch.no_grad():
                weight_OI, bias_O = self.merged_weight()
            self._original = self.base.weight.data, self.base.bias
            dtype = self.base.weight.dtype
            self.base.weight.data = weight_OI.to(dtype)
            if bias_O is not None:
                self.base.bias = nn.Parameter(bias_O.to(dtype), requires_grad=False)

    def unmerge(self) -> None:
        """Restore the frozen weight and bias, to the bit."""
        if self._original is not None:
            weight_OI, bias_O = self._original
            self.base.weight.data, self._original = weight_OI, None
            self.base.register_parameter("bias", bias_O)

    def release(self) -> nn.Linear:
        """Return the wrapped layer, as pretrained."""
        self.unmerge()
        if self._published is not None:
            self.base.weight.data = self._published.to(self._device)
        return self.base


# A layer's name and the linear layer → the layer that takes its place.
LayerMaker = Callable[[str, nn.Linear], AdapterLayer]


def frozen_bias(base: nn.Linear) -> Tensor | None:
    """Return the bias in float32, None if there is none."""
    return None if base.bias is None else base.bias.detach().float()


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """Return the adapter layers by the name of the layer that they wrap."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AdapterLayer)}


def wrap(model: nn.Module, layers: Mapping[str, nn.Linear], make: LayerMaker) -> None:
    """Replace each layer by `make(name, layer)`; if that fails, restore all layers."""
    try:
        for name, layer in layers.items():
            _set_submodule(model, name, make(name, layer))
    except BaseException:
        unwrap(model)
        raise


def unwrap(model: nn.Module) -> None:
    """Restore every wrapped layer."""
    for name, layer in adapter_layers(model).items():
        _set_submodule(model, name, layer.release())


def _set_submodule(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
