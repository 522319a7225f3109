"""AdamW on float32 masters: sums micro-batch gradients in a fixed order, clips them, and schedules the learning rate.

Source: Loshchilov & Hutter 2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.hooks import RemovableHandle

from trimtab.model import process_group
from trimtab.model.kernels.build import call, supports
from trimtab.model.sharded_parameters import is_sharded, local_shard, shard_rows

WARMUP, DECAY = 0.05, 0.2  # shares of the steps; the second as in Hägele et al. 2024 (arXiv 2405.18392)
WARMUP_STEPS = 10  # at most, with the "constant" schedule
Schedule = Literal["cosine", "constant"]
BETAS, EPSILON = (0.9, 0.999), 1e-8
KERNEL_WIDTH = 16  # elements that a kernel processes at once


def learning_rate_at(step: int, steps: int, peak: float, schedule: Schedule = "cosine") -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to a tenth of the peak ("cosine"), or
    warmup-stable-decay to 0 ("constant").

    `step` counts from 0 to `steps` - 1. With "constant", steps before the final decay have the same rate whatever the
    length of the run.
    """
    rise = max(1, min(WARMUP_STEPS, steps // 4) if schedule == "constant" else round(steps * WARMUP))
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "constant":
        return peak * min(1.0, (steps - step) / (round(steps * DECAY) + 1))
    done = (step - rise) / max(1, steps - rise)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def snapshot(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return copies of the parameters' current values."""
    return {name: value.detach().clone() for name, value in parameters.items()}


def restore(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Set parameters to the values of a `snapshot`."""
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(values[name])


@contextmanager
def no_retained_grad(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Context manager: frees each parameter's gradient as soon as it has been accumulated, so that at most one is
    alive.
    """
    hooks = [_register_grad_hook(one, _placeholder_grad) for one in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _placeholder_grad(gradient: Tensor) -> Tensor:
    """Return a gradient-shaped tensor without memory, for autograd to keep in place of a gradient that is no longer
    needed.
    """
    return gradient.new_zeros(()).expand_as(gradient)


def _register_grad_hook(parameter: nn.Parameter, with_gradient: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `with_gradient` with each gradient of a parameter; its result replaces the gradient."""
    handle: RemovableHandle = parameter.register_hook(with_gradient)  # type: ignore[no-untyped-call]
    return handle


class Optimizer:
    """AdamW over named parameters; bfloat16 parameters have float32 masters, so that small steps are not lost.

    bfloat16 parameters are stepped by a kernel if it supports them: clipping, master, moments and rounding in one pass
    over memory. All other parameters are stepped by torch, and all state is in torch's format.

    In a group of processes a divided parameter is itself the float32 master of its rows (`model/sharded.py`), which
    this process alone steps. Every process steps the others, by the same sums of gradients.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, weight_decay: float = 0.0, clip: float = 1.0) -> None:
        self.parameters = dict(parameters)
        self.sharded = frozenset(name for name, value in self.parameters.items() if is_sharded(value))
        self.masters = {name: _master(value) for name, value in self.parameters.items()}
        self._copied = {name for name, value in self.parameters.items() if value.dtype != torch.float32}
        self.clip, self._scale = clip, 1.0
        by_kernel = {name: _kernel_supports(value) for name, value in self.parameters.items()}
        self._by_kernel, self._by_torch = (
            [name for name in by_kernel if by_kernel[name] is by_kernel_flag] for by_kernel_flag in (True, False)
        )
        self._gradient_sums: _GradientSums | _GroupGradientSums = (
            _GradientSums(self.parameters, self.masters)
            if process_group.size() == 1
            else _GroupGradientSums(self.parameters, self.masters)
        )
        self._adam = torch.optim.AdamW(
            list(self.masters.values()), lr=0.0, betas=BETAS, eps=EPSILON, weight_decay=weight_decay, fused=True
        )

    def backward(self, loss: Tensor, place: int) -> None:
        """Add the gradients of micro-batch number `place` of the step (from 0) to the masters', in float32 and in order
        of places.

        Any thread may call this; every place up to the last must have been added before the gradients are used.
        """
        self._gradient_sums.add(loss, place)

    def clip_gradients(self) -> float:
        """Clip the norm of all gradients together and return the norm before clipping; kernels apply the scale as they
        step.
        """
        self._gradient_sums.finish()
        norm = self._norm()
        clip_grads_with_norm_([self.masters[name] for name in self._by_torch], self.clip, norm)
        self._scale = min(1.0, self.clip / (float(norm) + 1e-6))
        return float(norm)

    def _norm(self) -> Tensor:
        """Return the norm of all gradients together, over all processes."""
        whole, own = (
            [one.grad for name, one in self.masters.items() if (name in self.sharded) is part and one.grad is not None]
            for part in (False, True)
        )
        norm = get_total_norm(whole)
        if not self.sharded:
            return norm
        return (norm.square() + process_group.all_reduce_sum(get_total_norm(own).square())).sqrt()

    def step(self, learning_rate: float) -> None:
        """Update the weights and clear the gradients."""
        self._adam.param_groups[0]["lr"] = learning_rate
        for name in self._by_kernel:
            self._step(name, learning_rate)
        self._adam.step()
        self._gradient_sums.reset()
        self._scale = 1.0
        self._publish(self._by_torch)

    def _step(self, name: str, learning_rate: float) -> None:
        """Step one parameter by the kernel with torch's state; torch then finds no gradient and skips it."""
        master = self.masters[name]
        if master.grad is None:
            return
        state = self._adam.state[master]
        if not state:
            moments = {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
            state |= {"step": torch.tensor(0.0), **moments}
        state["step"] += 1
        bias_1, bias_2 = (1 - beta ** float(state["step"]) for beta in BETAS)
        decay = 1 - learning_rate * float(self._adam.param_groups[0]["weight_decay"])
        call(
            "step_adam",
            *(master.grad, master, state["exp_avg"], state["exp_avg_sq"], self.parameters[name], master.numel()),
            *(self._scale, decay, learning_rate / bias_1, math.sqrt(bias_2), *BETAS, EPSILON),
        )
        master.grad = None

    def release(self) -> None:
        """Free all gradients, including those of an unfinished step; no more can be added."""
        self._gradient_sums.close()

    def weights(self) -> dict[str, Tensor]:
        """Return the float32 values of all trained parameters; of divided ones this process's rows."""
        return {name: master.detach() for name, master in self.masters.items()}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy saved values, whole ones, into masters and model."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(self._own(name, tensors[name]))
        self._publish(self.parameters)

    def moments(self) -> dict[str, Tensor]:
        """Return Adam's state as flat tensors, named `NAME/exp_avg`, `NAME/exp_avg_sq`, `NAME/step`; of divided
        parameters this process's rows.
        """
        return {
            f"{name}/{key}": value
            for name, master in self.masters.items()
            for key, value in self._adam.state.get(master, {}).items()
        }

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore saved moments, whole ones, on each parameter's device; fused AdamW keeps the step count there too."""
        for name, master in self.masters.items():
            state = {
                key: self._own(name, tensors[f"{name}/{key}"])
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}/{key}" in tensors
            }
            if state:
                self._adam.state[master] = {key: value.to(master.device) for key, value in state.items()}

    def _own(self, name: str, whole: Tensor) -> Tensor:
        """Return this process's part of a saved tensor: its rows if the parameter is sharded, else all."""
        return whole[shard_rows(self.parameters[name])] if name in self.sharded and whole.dim() else whole

    def _publish(self, names: Iterable[str]) -> None:
        with torch.no_grad():
            for name in self._copied.intersection(names):
                self.parameters[name].copy_(self.masters[name])


def _master(value: nn.Parameter) -> nn.Parameter:
    """Return the float32 master of a parameter: itself, or its own rows, if these are float32; else a copy."""
    if is_sharded(value):
        return nn.Parameter(local_shard(value))
    return value if value.dtype == torch.float32 else nn.Parameter(value.detach().float())


def _kernel_supports(tensor: Tensor) -> bool:
    """True if the optimizer's kernels support this tensor."""
    return supports("step_adam", tensor) and tensor.is_contiguous() and tensor.numel() % KERNEL_WIDTH == 0


class _GradientSums:
    """Gradient accumulation in float32: each gradient is added as soon as autograd has computed it.

    So the gradients of a pass are never all in memory. Passes run in parallel, yet each parameter's gradients are added
    in the order of the passes, so that a resumed run has the same sums to the bit: a gradient that is computed early
    waits here.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masters: Mapping[str, nn.Parameter]) -> None:
        self._parameters, self._masters = list(parameters.values()), list(masters.values())
        self._hooks = [
            _register_grad_hook(one, partial(self._on_gradient, number)) for number, one in enumerate(self._parameters)
        ]
        self._locks = [threading.Lock() for _ in self._parameters]
        # reused in every step: allocation by many threads would fragment memory
        self._buffers: dict[int, Tensor] = {}
        self._placeholders = [_placeholder_grad(one.detach()) for one in self._parameters]
        self._places: dict[int, int] = {}  # of the running passes, by thread
        self.reset()

    def reset(self) -> None:
        """Start a step without gradients."""
        self._next_place = [0] * len(self._parameters)
        self._waiting: list[dict[int, Tensor | None]] = [{} for _ in self._parameters]
        for value in (*self._parameters, *self._masters):
            value.grad = None

    def close(self) -> None:
        """Free all gradients and buffers."""
        for hook in self._hooks:
            hook.remove()
        self._buffers.clear()
        self.reset()

    def add(self, loss: Tensor, place: int) -> None:
        """Compute and add all gradients of a pass; the loss need not depend on all parameters."""
        thread = threading.get_ident()
        self._places[thread] = place
        try:
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        finally:
            del self._places[thread]
        for number, gradient in enumerate(gradients):
            if gradient is None:
                self._add_in_order(number, place, None)

    def finish(self) -> None:
        """Nothing is left to do when all passes have been added."""

    def _on_gradient(self, number: int, gradient: Tensor) -> Tensor | None:
        """Hook of autograd: adds one gradient of a pass and returns a placeholder without memory."""
        if not self._places:
            return None  # another loss's backward pass
        place = self._places.get(threading.get_ident())
        if place is None:  # on a GPU backward runs in its own thread, one pass at a time
            (place,) = self._places.values()
        self._add_in_order(number, place, gradient)
        return self._placeholders[number]

    def _add_in_order(self, number: int, place: int, gradient: Tensor | None) -> None:
        with self._locks[number]:
            waiting = self._waiting[number]
            waiting[place] = gradient
            while self._next_place[number] in waiting:
                next_gradient = waiting.pop(self._next_place[number])
                self._next_place[number] += 1
                if next_gradient is not None:
                    self._accumulate(number, next_gradient)

    def _accumulate(self, number: int, gradient: Tensor) -> None:
        master = self._masters[number]
        if number not in self._buffers:
            self._buffers[number] = torch.empty_like(master, dtype=torch.float32)
        total, is_first = self._buffers[number], master.grad is None
        if _kernel_supports(gradient) and total.is_contiguous():
            call("add_gradient", gradient, total, gradient.numel(), is_first)
        elif is_first:
            total.copy_(gradient)  # two parameters may share a gradient tensor
        else:
            total.add_(gradient)
        master.grad = total


class _GroupGradientSums:
    """Gradient accumulation in a group of processes, one pass after the other.

    Autograd sums the gradients of this process's passes. Those of divided parameters were summed over all processes as
    each pass ended (`model/sharded.py`); all others are summed at the end of the step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masters: Mapping[str, nn.Parameter]) -> None:
        self._parameters, self._masters = list(parameters.values()), list(masters.values())
        self.reset()

    def reset(self) -> None:
        """Start a step without gradients."""
        for value in (*self._parameters, *self._masters):
            value.grad = None

    close = reset

    def add(self, loss: Tensor, place: int) -> None:
        """Compute and add all gradients of a pass."""
        del place  # passes come one after the other
        loss.backward()  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Give the masters the gradients of the whole step."""
        whole = []
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if parameter.grad is None:  # on all processes alike: each has made a pass
                continue
            if is_sharded(parameter.grad):
                master.grad = local_shard(parameter.grad)
            else:
                master.grad = parameter.grad.float()
                whole.append(master.grad)
        if whole:
            flat = process_group.all_reduce_sum(torch.cat([one.flatten() for one in whole]))
            for total, part in zip(whole, torch.split(flat, [one.numel() for one in whole]), strict=True):
                total.copy_(part.view_as(total))
