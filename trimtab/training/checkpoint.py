"""Checkpoints of a training run: safetensors and JSON, written atomically; the last two and the best are kept.

Where weights are divided among the processes of a group, each writes the rows that it holds to files of its own
(`weights-00002-of-00004.safetensors`), beside those of the first, which has everything else. They are read as whole
tensors again, by any number of processes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.files import (
    read_json,
    read_own,
    remove_partial,
    sha256_file,
    sha256_text,
    sync,
    write_atomic,
    write_json,
    write_own,
)
from trimtab.base.sanitize import one_line
from trimtab.model import process_group

LATEST = "latest"
WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"
HASHES = "hashes.json"  # of the other files, and the step of the best weights so far
_STEP = re.compile(r"step-\d+")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a resumed run needs; the order of rows follows from `state["step"]`, and nothing else is
    random.

    `sharded`: names of the weights of which this process has only some rows; a loaded checkpoint has whole weights.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: Mapping[str, Any]
    sharded: Collection[str] = frozenset()


def save(folder: Path, checkpoint: Checkpoint, *, best: int | None = None) -> None:
    """Write a checkpoint under `folder`; a crash at any moment leaves the previous one valid.

    `best`: step of the best weights so far, whose checkpoint is kept. It must follow from `state`, so that a checkpoint
    counts as soon as one pointer is replaced. Raises InputError if it cannot be written, for example on a full disk.

    In a group of processes all must call it; those without rows of their own have nothing to write.
    """
    if not (process_group.is_main_process() or checkpoint.sharded):
        return
    step, previous = checkpoint.state["step"], _latest_name(folder)
    name = _name(step)
    try:
        _write(folder, name, checkpoint, best)
        if process_group.is_main_process():
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
    temporary, first = folder / f".{name}.part", process_group.is_main_process()
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    if checkpoint.sharded:
        process_group.all_gather(None)  # the folder is there
    hashes = _write_tensors(temporary, checkpoint)
    if checkpoint.sharded:
        hashes = {file: found for one in process_group.all_gather(hashes) for file, found in one.items()}
    if not first:
        return
    write_json(temporary / STATE, dict(checkpoint.state))
    write_own(temporary / HASHES, {"files": {**hashes, STATE: _state_hash(checkpoint.state)}, "best": best})
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync(folder)


def _write_tensors(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """Write what this process holds and return the hash of each file."""
    hashes = {}
    for file, tensors in ((WEIGHTS, checkpoint.weights), (MOMENTS, checkpoint.moments)):
        name = _part_name(file) if checkpoint.sharded else file
        kept = {key: value.contiguous() for key, value in tensors.items() if _is_written(key, value, checkpoint)}
        save_file(kept, folder / name)
        sync(folder / name)
        hashes[name] = sha256_file(folder / name)
    return hashes


def _is_written(key: str, value: Tensor, checkpoint: Checkpoint) -> bool:
    """True for what this process alone holds; the first process writes what all have, as the count of steps."""
    is_part = key in checkpoint.sharded or key.rpartition("/")[0] in checkpoint.sharded
    return process_group.is_main_process() or (is_part and value.dim() > 0)


def _part_name(file: str) -> str:
    stem, _, suffix = file.partition(".")
    return f"{stem}-{process_group.rank() + 1:05d}-of-{process_group.size():05d}.{suffix}"


class _JoinedTensors(Mapping[str, Tensor]):
    """Tensors whose rows are in several files; each is read, and put together, when it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files: dict[str, list[Any]] = {}
        for file in files:
            opened: Any = safe_open(file, framework="pt")
            names: list[str] = opened.keys()
            for name in names:
                self._files.setdefault(name, []).append(opened)

    def __getitem__(self, name: str) -> Tensor:
        parts = [opened.get_tensor(name) for opened in self._files[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _load_tensors(folder: Path, file: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file, or of the files of several processes."""
    stem, _, suffix = file.partition(".")
    parts = sorted(folder.glob(f"{stem}-*-of-*.{suffix}"))
    found: Mapping[str, Tensor] = _JoinedTensors(parts) if parts else load_file(folder / file)
    return found


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
        weights, moments = (_load_tensors(folder, file) for file in (WEIGHTS, MOMENTS))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        problem, remedy = f"the checkpoint is damaged ({one_line(error)})", "remove it and start again"
        raise InputError(problem, remedy, file=folder) from error
    return Checkpoint(weights=weights, moments=moments, state=state), best


def _state_hash(state: Mapping[str, Any]) -> str:
    """Return the hash of a state; it leaves out the version, which the loop checks by its number."""
    return sha256_text(json.dumps({key: value for key, value in state.items() if key != "version"}))


def _verify_hashes(folder: Path, state: Mapping[str, Any]) -> int | None:
    """Raise ValueError if a file differs from its recorded hash; return the step of the best weights."""
    recorded = read_own(folder / HASHES)
    hashes, best = recorded.get("files"), recorded.get("best", "")
    if not isinstance(hashes, dict) or not (best is None or isinstance(best, int)):
        raise ValueError(f"{HASHES} has changed since it was written")
    for file in sorted({STATE, *hashes, *(path.name for path in folder.glob("*.safetensors"))}):
        found = _state_hash(state) if file == STATE else sha256_file(folder / Path(file).name)
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
