"""Reports torch's version, threads and CUDA devices, whether bf16 is faster here, and whether the C kernels are
available.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.model.kernels.build import library
from trimtab.model.precision import faster_in_bf16
from trimtab.model.threads import limit_threads_to_quota


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
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def inspect_compute() -> Compute:
    """Ask torch, and measure for half a second."""
    import torch

    limit_threads_to_quota()
    names = tuple(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))
    device = "cuda" if names else "cpu"
    return Compute(
        torch=str(torch.__version__),
        threads=torch.get_num_threads(),
        cuda=torch.version.cuda,
        accelerators=names,
        faster_in_bf16=faster_in_bf16(device),
        kernels=bool(library()),
    )
