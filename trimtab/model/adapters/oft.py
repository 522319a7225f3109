"""OFT: the inputs of a layer are rotated, block by block, by trained orthogonal matrices.

Sources: Qiu et al. 2023 (arXiv 2306.07280); rotated are the inputs, not the weight, as in Qiu et al. 2025 (arXiv
2506.19847). y = W (R x), R = (I - Q) (I + Q)⁻¹ with Q skew-symmetric, so that R is orthogonal whatever Q is. PEFT by
default takes the first terms of a series instead, which is orthogonal only while Q is small: it is read, not trained.
Shapes: N tokens, I inputs, O outputs, B blocks, K size of a block, T = K (K - 1) / 2 trained numbers of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import (
    AdapterInit,
    AdapterLayer,
    LayerMaker,
    MethodDefaults,
    PeftFormat,
    frozen_bias,
)
from trimtab.model.adapters.saved_adapter import PREFIX, SavedAdapter, abbreviated

_ANGLES = "oft_R.weight"
_SERIES, _TERMS = "use_cayley_neumann", "num_cayley_neumann_terms"
_USUAL_TERMS = 5  # of PEFT's series, and the only ones that are read


@final
class OftLinear(AdapterLayer):
    """A layer with rotated inputs; the trained numbers above the diagonals of Q, `angles_BT`, are zeros at the start.

    `block`: the wanted size of a block; a layer whose inputs it does not divide takes the nearest size that does.
    `series`: R is PEFT's series.
    """

    defaults = MethodDefaults(rank=32, learning_rate=4e-4)
    saved_as = PeftFormat(peft_type="OFT", parts=(_ANGLES,), refused=("r", "coft", "block_share"))

    def __init__(self, base: nn.Linear, block: int, *, series: bool = False) -> None:
        super().__init__(base)
        self.block, self.series = block, series
        self.size = nearest_divisor(base.in_features, block)
        shape = base.in_features // self.size, self.size * (self.size - 1) // 2
        self.angles_BT = nn.Parameter(torch.zeros(shape, device=base.weight.device))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with blocks of the size `rank`, which rotate nothing yet. Raises InputError for
        blocks of one input.
        """
        if init.rank < 2:
            raise InputError(
                f"rank = {init.rank}, and a rotation needs blocks of two inputs", "set 2 or more", field="arm.rank"
            )
        return lambda _, layer: cls(layer, init.rank)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers with blocks of the saved size."""
        block, series = saved.config.get("oft_block_size"), bool(saved.config.get(_SERIES))
        terms = saved.config.get(_TERMS, _USUAL_TERMS)
        if series and (terms != _USUAL_TERMS or "peft_version" not in saved.config):
            raise saved.error(
                f"{_SERIES} is set: only the series of {_USUAL_TERMS} terms of PEFT 0.18 or newer is read"
            )
        if type(block) is not int or block < 1:
            raise saved.error(f"oft_block_size is {abbreviated(block)}")

        def make(name: str, layer: nn.Linear) -> AdapterLayer:
            size = nearest_divisor(layer.in_features, block)
            expected = layer.in_features // size, size * (size - 1) // 2
            found = tuple(saved.tensors[f"{PREFIX}{name}.{_ANGLES}"].shape)
            if found != expected:
                raise saved.error(f"oft_block_size is {abbreviated(block)}, and a tensor has the shape {found}")
            return cls(layer, block, series=series)

        return make

    def saved_for_backward(self, tokens: int) -> int:  # noqa: ARG002
        """Four float32 matrices of the blocks; the inputs count with the frozen layer."""
        return 8 * self.size * self.base.in_features

    def rotation(self) -> Tensor:
        """Return the blocks of R, `[B, K, K]`, float32; the inputs are rows on their left."""
        rows, columns = torch.triu_indices(self.size, self.size, 1, device=self.angles_BT.device)
        blocks = torch.arange(len(self.angles_BT), device=self.angles_BT.device)
        upper_BKK = self.angles_BT.new_zeros(len(blocks), self.size, self.size)
        upper_BKK = upper_BKK.index_put((blocks[:, None], rows, columns), self.angles_BT)
        q_BKK, identity_KK = upper_BKK - upper_BKK.mT, torch.eye(self.size, device=self.angles_BT.device)
        if self.series:
            squared_BKK = q_BKK @ q_BKK
            cubed_BKK = squared_BKK @ q_BKK
            return identity_KK + 2 * (q_BKK + squared_BKK + cubed_BKK) + cubed_BKK @ q_BKK
        solved: Tensor = torch.linalg.solve(identity_KK + q_BKK, identity_KK - q_BKK, left=False)
        return solved

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output of the rotated inputs. What the rotation adds to them is computed apart: in bfloat16 the
        diagonal of R would lose what is below 2⁻⁹.
        """
        added_BKK = self.rotation() - torch.eye(self.size, device=input.device)
        blocks_BNK = input.reshape(-1, len(added_BKK), self.size).transpose(0, 1)
        added = (blocks_BNK @ added_BKK.to(input.dtype)).transpose(0, 1).reshape(input.shape)
        out: Tensor = self.base(input + added)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight with rotated columns, and the unchanged bias."""
        weight_OI, rotation_BKK = self.frozen_weight().float(), self.rotation().detach()
        blocks_OBK = weight_OI.view(len(weight_OI), len(rotation_BKK), self.size)
        return torch.einsum("obj,bij->obi", blocks_OBK, rotation_BKK).flatten(1), frozen_bias(self.base)

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return the wanted size of a block, and how R is made."""
        own = {"r": 0, "oft_block_size": self.block, "module_dropout": 0.0, "bias": "none", _SERIES: self.series}
        return {**own, _TERMS: _USUAL_TERMS, "peft_version": "0.18.0"} if self.series else own

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the trained numbers."""
        return {_ANGLES: self.angles_BT.detach()}


def nearest_divisor(inputs: int, wanted: int) -> int:
    """Return the divisor of `inputs` next to `wanted`, the lower one of two, as PEFT adjusts the size of a block."""
    divisors = [size for size in range(1, min(inputs, 2 * wanted) + 1) if inputs % size == 0]
    return min(divisors, key=lambda size: (abs(size - wanted), size))
