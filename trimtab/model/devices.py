"""Reports torch's version, threads and CUDA devices, whether bf16 is faster here, and whether the C kernels are
available.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch

from trimtab.model.device_record import BF16, require_usable, switched_off
from trimtab.model.kernels.build import library
from trimtab.model.threads import limit_threads_to_quota

_TIMED_SECONDS = 0.25  # of products in each dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The torch build, the accelerators it can use, and whether it multiplies faster in bfloat16 (measured).

    `kernels`: whether our own are there for what is not a product.
    """

    torch: str
    threads: int
    cuda: str | None
    accelerators: tuple[str, ...]
    faster_in_bf16: bool
    kernels: bool


def gpu_count() -> int:
    """Return the number of GPUs that PyTorch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def inspect_compute() -> Compute:
    """Ask torch, and measure for half a second."""
    limit_threads_to_quota()
    names = tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    device = "cuda" if names else "cpu"
    return Compute(
        torch=str(torch.__version__),
        threads=torch.get_num_threads(),
        cuda=torch.version.cuda,
        accelerators=names,
        faster_in_bf16=faster_in_bf16(device),
        kernels=bool(library()),
    )


@cache
def faster_in_bf16(device: str = "cpu") -> bool:
    """Time products of a transformer's shape in both dtypes; True if bfloat16 is at least 1.2 times as fast."""
    return _matmul_rate(torch.bfloat16, device) > 1.2 * _matmul_rate(torch.float32, device)


def _matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Return products per second of a 1,024-token block with a 576 by 1,536 weight."""
    tokens, weight = torch.randn(1024, 576, device=device).to(dtype), torch.randn(576, 1536, device=device).to(dtype)
    torch.matmul(tokens, weight)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < _TIMED_SECONDS:
        torch.matmul(tokens, weight)
        if device != "cpu":
            torch.cuda.synchronize()
        done += 1
    return done / (time.perf_counter() - start)


def choose_precision(setting: str, device: str = "cpu") -> str:
    """Return `bf16` or `fp32`: the setting itself, or for `auto` the faster one here that the device check has not
    switched off.

    Raises InputError if it has switched off the setting, or the whole device.
    """
    require_usable(device, setting)
    if setting != "auto":
        return setting
    return "bf16" if BF16 not in switched_off(device) and faster_in_bf16(device) else "fp32"
