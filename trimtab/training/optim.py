"""AdamW on float32 masters of whatever may move, with clipping and the learning-rate schedules.

Source: Loshchilov & Hutter 2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

WARMUP, DECAY = 0.05, 0.2  # shares of the steps; the second as in Hägele et al. 2024 (arXiv 2405.18392)
WARMUP_STEPS = 10  # at most, of a run whose length is not known when it begins
Schedule = Literal["cosine", "constant"]


def learning_rate_at(step: int, steps: int, peak: float, schedule: Schedule = "cosine") -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak, or the peak and at the end a linear fall towards 0.

    `step` counts from 0 to `steps` - 1. With "constant" every step before the fall has the same rate whatever comes after it.
    """
    rise = max(1, min(WARMUP_STEPS, steps // 4) if schedule == "constant" else round(steps * WARMUP))
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "constant":
        return peak * min(1.0, (steps - step) / (round(steps * DECAY) + 1))
    done = (step - rise) / max(1, steps - rise)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def copied(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The present values, apart from the parameters."""
    return {name: value.detach().clone() for name, value in parameters.items()}


def put_back(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Give parameters the values that `copied` took."""
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(values[name])


class Optimizer:
    """AdamW over named parameters; a parameter in bfloat16 is stepped through a float32 master, so small steps are not lost."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, weight_decay: float = 0.0, clip: float = 1.0) -> None:
        self.parameters = dict(parameters)
        self.masters = {
            name: value if value.dtype == torch.float32 else nn.Parameter(value.detach().float())
            for name, value in self.parameters.items()
        }
        self.clip = clip
        self._adam = torch.optim.AdamW(
            list(self.masters.values()), lr=0.0, betas=(0.9, 0.999), weight_decay=weight_decay, fused=True
        )

    def gradients(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        """Those of a micro-batch's loss, by parameter, None where it does not depend on one. Any thread may call this."""
        return torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)

    def collect(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of a micro-batch to the masters', in float32."""
        for master, given in zip(self.masters.values(), gradients, strict=True):
            if given is None:
                continue
            if master.grad is None:  # a copy: two parameters may have been given the same tensor
                master.grad = given.to(torch.float32, copy=True)
            else:
                master.grad.add_(given)

    def clip_gradients(self) -> float:
        """Bound the norm of all gradients together; their norm before that."""
        return float(torch.nn.utils.clip_grad_norm_(self.masters.values(), self.clip))

    def step(self, learning_rate: float) -> None:
        """Step and clear."""
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._publish()

    def let_go(self) -> None:
        """Drop the gradients of a step that came to no end: they hold memory, and the next one would add to them."""
        for value in (*self.parameters.values(), *self.masters.values()):
            value.grad = None

    def weights(self) -> dict[str, Tensor]:
        """The float32 values of everything that moves."""
        return {name: master.detach() for name, master in self.masters.items()}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved values back into masters and model."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[name])
        self._publish()

    def moments(self) -> dict[str, Tensor]:
        """Adam's state as flat tensors, named `NAME/exp_avg`, `NAME/exp_avg_sq`, `NAME/step`."""
        return {
            f"{name}/{key}": value
            for name, master in self.masters.items()
            for key, value in self._adam.state.get(master, {}).items()
        }

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved moments back, each beside its parameter: the fused form keeps the count of steps there too."""
        for name, master in self.masters.items():
            state = {
                key: tensors[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in tensors
            }
            if state:
                self._adam.state[master] = {key: value.to(master.device) for key, value in state.items()}

    def _publish(self) -> None:
        with torch.no_grad():
            for name, value in self.parameters.items():
                if self.masters[name] is not value:
                    value.copy_(self.masters[name])
