"""The thin products of low-rank changes: by our kernels where they are (decision 57), else by torch.

Shapes: N tokens, W numbers of a layer's input or output, S a rank, or the ranks of layers with one input together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.model.compiled import can, run
from trimtab.model.operations import PAIR


def as_rows(side_WS: Tensor) -> Tensor:
    """A side as `side_SW`, laid out anew only where kernels read it: a product's last bits hang on how its factors lie."""
    return side_WS.T.contiguous() if can(side_WS) else side_WS.T


def narrowed(input_NW: Tensor, side_SW: Tensor) -> Tensor:
    """What a side makes of its layer's numbers, `low_NS`."""
    if not _takes(side_SW, input_NW):
        return input_NW @ side_SW.T
    tokens, width = input_NW.shape
    low_NS = input_NW.new_empty(tokens, len(side_SW))
    run("narrow", input_NW.contiguous(), side_SW.contiguous(), tokens, width, len(side_SW), low_NS)
    return low_NS


def widened(low_NS: Tensor, side_SW: Tensor) -> Tensor:
    """The way back to a layer's numbers, `out_NW`."""
    if not _takes(low_NS, side_SW):
        return low_NS @ side_SW
    tokens, width = len(low_NS), side_SW.shape[1]
    out_NW = low_NS.new_empty(tokens, width)
    low_NS = _together(low_NS)
    run("widen", low_NS, low_NS.stride(0), side_SW.contiguous(), tokens, width, len(side_SW), out_NW)
    return out_NW


def gathered(low_NS: Tensor, input_NW: Tensor, factor: float = 1.0, *, turned: bool = False) -> Tensor:
    """Products of both summed over the tokens, times `factor`: float32 `[S, W]`, or `[W, S]` if `turned`."""
    if not _takes(low_NS, input_NW):
        plain = (input_NW.T @ low_NS if turned else low_NS.T @ input_NW).float()
        return plain if factor == 1.0 else plain * factor
    (tokens, width), rank = input_NW.shape, low_NS.shape[1]
    low_NS = _together(low_NS)
    sums = torch.empty((width, rank) if turned else (rank, width))
    run("gather", low_NS, low_NS.stride(0), input_NW.contiguous(), tokens, width, rank, factor, turned, sums)
    return sums


def _takes(thin: Tensor, wide: Tensor) -> bool:
    """Whether kernels take these two, of which the second has a layer's width."""
    return wide.shape[-1] % PAIR == 0 and can(thin, wide)


def _together(low_NS: Tensor) -> Tensor:
    """The same with the numbers of a row beside one another; the rows may lie apart, as those of a part of the ranks do."""
    return low_NS if low_NS.stride(1) == 1 else low_NS.contiguous()
