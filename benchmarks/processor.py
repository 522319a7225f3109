"""Identifies the kind of processor of a figure: results of different kinds are filed beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trimtab.base.machine import describe_machine


def instructions() -> str:
    """Return the instructions with which the processor multiplies bfloat16."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), "neither AMX nor avx512_bf16")


def kind() -> str:
    """The processor and its instructions, as results are filed."""
    return f"{describe_machine()['processor']}, {instructions()}"


def machine() -> dict[str, Any]:
    """The machine as it stands in a result, with the threads of this process."""
    return {**describe_machine(), "threads": torch.get_num_threads(), "bf16 by": instructions()}
