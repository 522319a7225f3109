"""Base class of adapter layers: a frozen linear layer with a trainable change that can be merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class AdapterLayer(nn.Module):
    """A linear layer with an adapter; subclasses define the change.

    Shapes: N tokens of the flat row, I inputs, O outputs.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self._original: tuple[Tensor, nn.Parameter | None] | None = None

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output with the unmerged adapter, `[..., O]` from `[..., I]`, with gradients to its parameters."""
        raise NotImplementedError

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the merged weight `[O, I]` and bias `[O]`, float32, without gradients."""
        raise NotImplementedError

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that PEFT saves for this layer, by the suffix of PEFT's name; writing into them changes
        the layer.
        """
        raise NotImplementedError

    def saved_for_backward(self, tokens: int) -> int:  # noqa: ARG002
        """Return how many numbers a pass over `tokens` tokens saves for backward, beyond those of the frozen layer."""
        return 0

    @property
    def is_merged(self) -> bool:
        """True if the adapter is merged into the weight."""
        return self._original is not None

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., O]` from `input` `[..., I]`, both in the dtype of the frozen weight."""
        out: Tensor = self.base(input) if self.is_merged else self.forward_adapted(input)
        return out

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
        return self.base


def frozen_bias(base: nn.Linear) -> Tensor | None:
    """Return the bias in float32, None if there is none."""
    return None if base.bias is None else base.bias.detach().float()


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """Return the adapter layers by the name of the layer that they wrap."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AdapterLayer)}


def wrap(model: nn.Module, layers: Mapping[str, nn.Linear], make: Callable[[str, nn.Linear], AdapterLayer]) -> None:
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
