"""Checks a model folder's weight files and configuration before loading, and hashes the files that determine the
model's answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trimtab.base.errors import InputError
from trimtab.base.files import read_object, sha256_cached
from trimtab.base.sanitize import one_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "copy the model again, or fetch it with: trimtab pull"
MOST_LAYERS, LARGEST_SIZE = 1_000, 1 << 20  # what a config may claim whatever its weights are: more needs them
# Suffixes of weights, configurations, tokenizers and chat templates: the files that answers depend on.
DECIDING = (".json", ".txt", ".safetensors", ".model", ".jinja", ".tiktoken")
PULL_NOTE = "trimtab-model.json"  # says when a model was pulled; answers do not depend on it
_LAYERS = re.compile(r"n(um)?_(hidden_)?layers?")
_SIZES = re.compile(r"(^|_)(size|dim|rank|layers?|heads?|experts?|embd|inner|model)(_|$)|^num_|^n_")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files that the weights lie in, the tensors in them, and their bytes."""

    files: tuple[Path, ...] = ()
    tensors: int = 0
    bytes: int = 0

    @property
    def most_numbers(self) -> int:
        """As many numbers as these bytes hold at 4 bits each, the least that any checkpoint takes."""
        return 2 * self.bytes


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that a model's weights are read from, each of them in `folder`.

    Raises InputError where there are none, and for an index that is damaged or names what lies elsewhere.
    """
    if (folder / SINGLE).exists():
        return (inside(folder, SINGLE),)
    if not (folder / INDEX).exists():
        raise InputError(f"the folder has no {SINGLE}", "give a folder saved with save_pretrained", file=folder)
    index = inside(folder, INDEX)
    named = read_object(index, "weight_map")["weight_map"]
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError("weight_map does not name the file of each tensor", AGAIN, file=index)
    return tuple(inside(folder, name) for name in sorted(set(named.values())))


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; raises InputError where it lies elsewhere, by its path or by a link, and where it
    is no file.

    The hub's cache keeps a snapshot as links to `blobs` beside it: these count as inside.
    """
    shown = f"{name[:80]!r}"
    if not name.endswith((".safetensors", ".json")):  # transformers unpickles a shard of any other name
        raise InputError(f"names {shown}, which is not safetensors", "convert it to safetensors", file=folder)
    home = folder.resolve()
    snapshots = (place for place in (home, home.parent) if place.parent.name == "snapshots")
    homes = [home, *(place.parent.parent / "blobs" for place in snapshots)]
    try:
        file = (home / name).resolve()
        ours, there = any(file.is_relative_to(place) for place in homes), file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        raise InputError(f"names {shown}, which is no path", AGAIN, file=folder) from None
    if not ours:
        raise InputError(f"{shown} lies outside the folder", "use a folder that holds its own weights", file=folder)
    if not there:
        raise InputError(f"{shown} is not there, or is no file", AGAIN, file=folder)
    return home / name


def file_hashes(folder: Path, *, below: bool = False) -> dict[str, str]:
    """The SHA-256 of every file of a model that its answers depend on, by the file's path in the folder.

    transformers reads files of the folder itself and of `additional_chat_templates/`; `below`: all subfolders count,
    as the modules of sentence-transformers do. A file is hashed once in a process while it stays as it is.
    """
    found = folder.rglob("*") if below else (*folder.glob("*"), *folder.glob("additional_chat_templates/*"))
    files = (path for path in found if path.suffix in DECIDING and path.name != PULL_NOTE and path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_cached(path) for path in sorted(files)}


def changed_files(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the files whose hashes differ, with what became of those that are on one side alone."""
    names = (name for name in sorted({*then, *now}) if then.get(name) != now.get(name))
    return tuple(
        f"{name} (gone)" if name not in now else f"{name} (new)" if name not in then else name for name in names
    )


def find_weights(folder: Path) -> WeightFiles:
    """Return what the headers of a folder's weights say; raises InputError for files that are cut off or damaged."""
    files, tensors = weight_files(folder), 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                tensors += len(opened.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"is damaged or cut off ({one_line(error)})", AGAIN, file=file) from None
    return WeightFiles(files=files, tensors=tensors, bytes=sum(file.stat().st_size for file in files))


def require_possible(raw: Any, weights: WeightFiles, file: Path) -> None:
    """Refuse a config whose sizes its weights cannot fill, before anything is made of them.

    A configuration alone may take a list as long as there are layers, so its numbers are looked at as they stand in
    the file.
    """
    for key, value in _numbers(raw):
        layers = _LAYERS.fullmatch(key)
        most = max(MOST_LAYERS, weights.tensors) if layers else max(LARGEST_SIZE, weights.most_numbers)
        if value > most and (layers or _SIZES.search(key)):
            held = f"the weights hold {weights.tensors:,} tensors in {weights.bytes:,} bytes"
            raise InputError(f"{key} is {value:.15g}, and {held}", AGAIN, file=file)


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    """Every number of a config with its key, found without recursion."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(inner, int | float) and not isinstance(inner, bool):
                    yield key, min(inner, 1 << 60)  # an integer may be too long to print
                else:
                    left.append(inner)
