"""A run's state on disk: safetensors and JSON, written beside, synced and renamed; the last two and the best are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.base.files import read_json, sync_folder, write_atomic, write_json

POINTER, BEST = "latest", "best"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a resumed run needs; the order of rows follows from `state["step"]`, and nothing else is random."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, best: bool) -> None:
    """Add a checkpoint under `folder`; a crash at any moment leaves the former one valid."""
    name = f"step-{checkpoint.state['step']:07d}"
    beside = folder / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for file, tensors in (("weights.safetensors", checkpoint.weights), ("moments.safetensors", checkpoint.moments)):
        save_file({key: value.contiguous() for key, value in tensors.items()}, beside / file)
        _sync(beside / file)
    write_json(beside / "state.json", dict(checkpoint.state))
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    sync_folder(folder)
    write_atomic(folder / POINTER, name)
    if best:
        write_atomic(folder / BEST, name)
    _prune(folder)


def load(folder: Path, pointer: str = POINTER) -> Checkpoint | None:
    """The checkpoint that `latest` or `best` names, None where there is none."""
    name = _target(folder, pointer)
    if name is None:
        return None
    return Checkpoint(
        weights=load_file(folder / name / "weights.safetensors"),
        moments=load_file(folder / name / "moments.safetensors"),
        state=read_json(folder / name / "state.json"),
    )


def _target(folder: Path, pointer: str) -> str | None:
    file = folder / pointer
    name = file.read_text().strip() if file.is_file() else None
    return name if name and (folder / name).is_dir() else None


def _prune(folder: Path) -> None:
    steps = sorted(path.name for path in folder.glob("step-*"))
    keep = {*steps[-2:], _target(folder, BEST), _target(folder, POINTER)}
    for name in steps:
        if name not in keep:
            shutil.rmtree(folder / name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
