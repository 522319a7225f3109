"""Checkpoints of a training run: safetensors and JSON, written atomically; the last two and the best are kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import read_json, remove_partial, sha256_file, sha256_text, sync, write_atomic, write_json
from trimtab.base.sanitize import one_line

LATEST = "latest"
WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"
HASHES = "hashes.json"  # of the three other files, and the step of the best weights so far
_STEP = re.compile(r"step-\d+")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a resumed run needs; the order of rows follows from `state["step"]`, and nothing else is
    random.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, best: int | None = None) -> None:
    """Write a checkpoint under `folder`; a crash at any moment leaves the previous one valid.

    `best`: step of the best weights so far, whose checkpoint is kept. It must follow from `state`, so that a checkpoint
    counts as soon as one pointer is replaced. Raises InputError if it cannot be written, for example on a full disk.
    """
    step, previous = checkpoint.state["step"], _latest_name(folder)
    name = _name(step)
    try:
        _write(folder, name, checkpoint, best)
        write_atomic(folder / LATEST, name)
        _prune(folder, {name, previous, None if best is None else _name(best)})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder / f".{name}.part", ignore_errors=True)
        raise InputError(
            f"the checkpoint of step {step} could not be written ({one_line(error)}); "
            + (f"{previous} before it is intact" if previous else "nothing was saved before it"),
            "free disk space or repair the disk, then run the same command with --resume",
            file=folder,
        ) from error


def load(folder: Path, on_damage: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
    """Return the newest intact checkpoint, None if there is none.

    `on_damage` is called with one line if a newer one is damaged and the previous one is used, which then counts as the
    newest. A checkpoint whose best weights are damaged is not used either, as the end of the run needs them. Raises
    InputError if there are checkpoints and all are damaged: training does not silently start over on a failing disk.
    """
    names = sorted((path.name for path in folder.glob("step-*")), reverse=True)
    latest = _latest_name(folder)
    # A checkpoint newer than the pointer was interrupted before it counted.
    candidates = [name for name in names if latest is None or name <= latest]
    damage: list[InputError] = []
    for name in candidates:
        try:
            found = _read_with_best(folder, name)
        except InputError as error:
            damage.append(error)
            continue
        if damage:
            write_atomic(folder / LATEST, name)  # else the next save would keep the damaged one instead of this one
            on_damage(f"{damage[0].file}: {damage[0].problem}; training goes on from {name}")
        return found
    if damage:
        remedy = "remove this folder; the same command with --resume then starts this training from the beginning"
        raise InputError(
            f"no checkpoint is intact ({Path(str(damage[0].file)).name}: {damage[0].problem})", remedy, file=folder
        )
    return None


def load_step(folder: Path, step: int) -> Checkpoint:
    """Return the checkpoint of a step that `save` was given as best; raises InputError if it is damaged or missing."""
    return _read(folder / _name(step))[0]


def _write(folder: Path, name: str, checkpoint: Checkpoint, best: int | None) -> None:
    temporary = folder / f".{name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for file, tensors in ((WEIGHTS, checkpoint.weights), (MOMENTS, checkpoint.moments)):
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / file)
        sync(temporary / file)
    write_json(temporary / STATE, dict(checkpoint.state))
    write_json(temporary / HASHES, {"files": _hashes(temporary, checkpoint.state), "best": best})
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync(folder)


def _read_with_best(folder: Path, name: str) -> Checkpoint:
    """Return a checkpoint if it and the one with its best weights are intact."""
    found, best = _read(folder / name)
    if best is not None and _name(best) != name:
        _read(folder / _name(best))
    return found


def _read(folder: Path) -> tuple[Checkpoint, int | None]:
    """Return a checkpoint and the step of its best weights; raises InputError if a file has changed since it was
    written.
    """
    try:
        state = read_json(folder / STATE)
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} holds no object")
        best = _verify_hashes(folder, state)
        weights, moments = load_file(folder / WEIGHTS), load_file(folder / MOMENTS)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        problem, remedy = f"the checkpoint is damaged ({one_line(error)})", "remove it and start again"
        raise InputError(problem, remedy, file=folder) from error
    return Checkpoint(weights=weights, moments=moments, state=state), best


def _hashes(folder: Path, state: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each file; that of the state leaves out its version, which the loop checks by its number."""
    state_text = json.dumps({key: value for key, value in state.items() if key != "version"})
    return {**{file: sha256_file(folder / file) for file in (WEIGHTS, MOMENTS)}, STATE: sha256_text(state_text)}


def _verify_hashes(folder: Path, state: Mapping[str, Any]) -> int | None:
    """Raise ValueError if a file differs from its recorded hash; return the step of the best weights.

    Earlier versions recorded no hashes: their checkpoints are not checked.
    """
    if not (folder / HASHES).is_file():
        return None
    recorded = read_json(folder / HASHES)
    hashes = recorded.get("files") if isinstance(recorded, dict) else None
    best = recorded.get("best", "") if isinstance(recorded, dict) else None
    if not isinstance(hashes, dict) or not (best is None or isinstance(best, int)):
        raise ValueError(f"{HASHES} has changed since it was written")
    for file, found in _hashes(folder, state).items():
        if found != hashes.get(file):
            raise ValueError(f"{file} has changed since it was written")
    return best


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _latest_name(folder: Path) -> str | None:
    """Return the name of the newest checkpoint that counts, None if the pointer names none that exists."""
    file = folder / LATEST
    name = file.read_text(errors="replace").strip() if file.is_file() else ""
    return name if _STEP.fullmatch(name) and (folder / name).is_dir() else None


def _prune(folder: Path, keep: set[str | None]) -> None:
    """Remove older checkpoints and the leftovers of killed processes."""
    for path in folder.glob("step-*"):
        if path.name not in keep:
            shutil.rmtree(path)
    remove_partial(folder)
