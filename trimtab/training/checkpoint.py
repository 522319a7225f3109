"""A run's state on disk: safetensors and JSON, written beside, synced and renamed; the last two and the best are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import read_json, sync_folder, write_atomic, write_json

LATEST, BEST = "latest", "best"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a resumed run needs; the order of rows follows from `state["step"]`, and nothing else is random."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, best: bool) -> None:
    """Add a checkpoint under `folder`; a crash at any moment leaves the former one valid.

    Raises InputError when it cannot be written, a full disk for one.
    """
    name = f"step-{checkpoint.state['step']:07d}"
    try:
        _write(folder, name, checkpoint)
        # `best` first: were `latest` first, a crash between the two would lose the best for good.
        for pointer in (BEST, LATEST) if best else (LATEST,):
            write_atomic(folder / pointer, name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder / f".{name}.part", ignore_errors=True)
        raise InputError(
            f"checkpoint of step {checkpoint.state['step']} could not be written ({error}); the one before is intact",
            "make room, then run the same command with --resume",
            file=folder,
        ) from error
    _prune(folder)


def load(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, None where there is none.

    Raises InputError when there are some and all are damaged.
    """
    names = sorted((path.name for path in folder.glob("step-*")), reverse=True)
    latest = _target(folder, LATEST)
    # One newer than the pointer was cut off before it counted.
    candidates = [name for name in names if latest is None or name <= latest]
    for name in candidates:
        try:
            return _read(folder / name)
        except InputError:
            if name == candidates[-1]:
                raise
    return None


def load_best(folder: Path) -> Checkpoint | None:
    """The checkpoint with the best weights, None where none was marked."""
    name = _target(folder, BEST)
    return None if name is None else _read(folder / name)


def _write(folder: Path, name: str, checkpoint: Checkpoint) -> None:
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


def _read(folder: Path) -> Checkpoint:
    try:
        return Checkpoint(
            weights=load_file(folder / "weights.safetensors"),
            moments=load_file(folder / "moments.safetensors"),
            state=read_json(folder / "state.json"),
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"the checkpoint is damaged ({error})", "remove it and start again", file=folder) from error


def _target(folder: Path, pointer: str) -> str | None:
    file = folder / pointer
    name = file.read_text().strip() if file.is_file() else None
    return name if name and (folder / name).is_dir() else None


def _prune(folder: Path) -> None:
    steps = sorted(path.name for path in folder.glob("step-*"))
    keep = {*steps[-2:], _target(folder, BEST), _target(folder, LATEST)}
    leftovers = folder.glob(".*.part")  # of a process that was killed while saving
    for path in [*(folder / name for name in steps if name not in keep), *leftovers]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
