"""A run's state on disk: safetensors and JSON, written beside, synced and renamed; the last two and the best are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import read_json, remove_cut, sync, write_atomic, write_json
from trimtab.base.visible import said

LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a resumed run needs; the order of rows follows from `state["step"]`, and nothing else is random."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, best: int | None = None) -> None:
    """Add a checkpoint under `folder`; a crash at any moment leaves the former one valid.

    `best` is the step of the best weights so far, whose checkpoint is kept. Which one that is must follow from `state`, so that
    replacing one pointer is all that makes a checkpoint count. Raises InputError when it cannot be written, a full disk for one.
    """
    step, former = checkpoint.state["step"], _target(folder)
    name = _name(step)
    try:
        _write(folder, name, checkpoint)
        write_atomic(folder / LATEST, name)
        _prune(folder, {name, former, None if best is None else _name(best)})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder / f".{name}.part", ignore_errors=True)
        raise InputError(
            f"the checkpoint of step {step} could not be written ({said(error)}); "
            + (f"{former} before it is intact" if former else "nothing was saved before it"),
            "make room or mend the disk, then run the same command with --resume",
            file=folder,
        ) from error


def load(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, None where there is none.

    Raises InputError when there are some and all are damaged.
    """
    names = sorted((path.name for path in folder.glob("step-*")), reverse=True)
    latest = _target(folder)
    # One newer than the pointer was cut off before it counted.
    candidates = [name for name in names if latest is None or name <= latest]
    for name in candidates:
        try:
            return _read(folder / name)
        except InputError:
            if name == candidates[-1]:
                raise
    return None


def load_step(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, which `save` was told to keep; raises InputError when it is damaged or gone."""
    return _read(folder / _name(step))


def _write(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    beside = folder / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for file, tensors in (("weights.safetensors", checkpoint.weights), ("moments.safetensors", checkpoint.moments)):
        save_file({key: value.contiguous() for key, value in tensors.items()}, beside / file)
        sync(beside / file)
    write_json(beside / "state.json", dict(checkpoint.state))
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    sync(folder)


def _read(folder: Path) -> Checkpoint:
    try:
        return Checkpoint(
            weights=load_file(folder / "weights.safetensors"),
            moments=load_file(folder / "moments.safetensors"),
            state=read_json(folder / "state.json"),
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"the checkpoint is damaged ({error})", "remove it and start again", file=folder) from error


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _target(folder: Path) -> str | None:
    """The newest checkpoint that counts, where the pointer names one that is there."""
    file = folder / LATEST
    name = file.read_text().strip() if file.is_file() else None
    return name if name and (folder / name).is_dir() else None


def _prune(folder: Path, keep: set[str | None]) -> None:
    """Take away the others: older ones, and what a process that was killed left behind."""
    for path in folder.glob("step-*"):
        if path.name not in keep:
            shutil.rmtree(path)
    remove_cut(folder)
