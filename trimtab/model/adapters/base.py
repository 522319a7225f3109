"""A frozen linear layer with a small trainable change, which can be put into its weight and taken out again to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class AdapterLayer(nn.Module):
    """What all changes of a linear layer have in common; a subclass says what the change is.

    Shapes: N tokens of the flat row, I inputs, O outputs.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self._original: tuple[Tensor, nn.Parameter | None] | None = None

    def forward_adapted(self, input: Tensor) -> Tensor:
        """The changed layer, `[..., O]` from `[..., I]`, with gradients to what is trained."""
        raise NotImplementedError

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """The weight `[O, I]` and the bias `[O]` with the change in them, float32, without gradients."""
        raise NotImplementedError

    def peft_tensors(self) -> dict[str, Tensor]:
        """What PEFT keeps of this layer, by the end of PEFT's name; to write into these tensors changes the layer."""
        raise NotImplementedError

    def saved_for_backward(self, tokens: int) -> int:  # noqa: ARG002
        """Numbers that a pass over so many tokens keeps for its backward pass, beyond those of the frozen layer."""
        return 0

    @property
    def is_merged(self) -> bool:
        """Whether the change is in the weight."""
        return self._original is not None

    def forward(self, input: Tensor) -> Tensor:
        """`input` is `[..., I]`, the result `[..., O]`, both in the type of the frozen weight."""
        out: Tensor = self.base(input) if self.is_merged else self.forward_adapted(input)
        return out

    def merge(self) -> None:
        """Put the change into the weight, added in float32 and rounded once; answering is then as fast as without."""
        if self._original is None:
            with torch.no_grad():
                weight_OI, bias_O = self.merged_weight()
            self._original = self.base.weight.data, self.base.bias
            dtype = self.base.weight.dtype
            self.base.weight.data = weight_OI.to(dtype)
            if bias_O is not None:
                self.base.bias = nn.Parameter(bias_O.to(dtype), requires_grad=False)

    def unmerge(self) -> None:
        """Put the frozen weight and bias back, to the bit."""
        if self._original is not None:
            weight_OI, bias_O = self._original
            self.base.weight.data, self._original = weight_OI, None
            self.base.register_parameter("bias", bias_O)

    def release(self) -> nn.Linear:
        """The layer that was wrapped, as it was published."""
        self.unmerge()
        return self.base


def frozen_bias(base: nn.Linear) -> Tensor | None:
    """The bias in float32, None where there is none."""
    return None if base.bias is None else base.bias.detach().float()


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """The wrapped layers by the name of the layer they wrap."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AdapterLayer)}


def wrap(model: nn.Module, layers: Mapping[str, nn.Linear], make: Callable[[str, nn.Linear], AdapterLayer]) -> None:
    """Put what `make` makes of each layer in its place; where that fails, all are as before."""
    try:
        for name, layer in layers.items():
            _set_submodule(model, name, make(name, layer))
    except BaseException:
        unwrap(model)
        raise


def unwrap(model: nn.Module) -> None:
    """Every layer as it was published."""
    for name, layer in adapter_layers(model).items():
        _set_submodule(model, name, layer.release())


def _set_submodule(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
