"""Plugins: Python entry points by which a package adds to Trimtab; the rooms that can be taken away join so too.

A group of entry points is a kind of plugin, and a name is what the user types or writes:

    trimtab.commands        a function with typer's annotations, or a `typer.Typer` of several: a verb
    trimtab.tables          a subclass of `Settings`: a table of the task file
    trimtab.names           any object: a public name of `import trimtab`
    trimtab.demos           a function: an example that `trimtab demo NAME` runs
    trimtab.machines        a function that connects to other machines: the place for the jobs of `study --on`
    trimtab.trainers        a function that trains an arm on these machines, for `train --on`
    trimtab.routes          a function that returns an `APIRouter`: routes of the server
    trimtab.releases        a function that follows an alias of versions, for `serve --alias`
    trimtab.passage_stores  a class that keeps passages at the addresses of a scheme, for `retrieval.store`
    trimtab.records         a function that adds records to tables: metrics, contexts, methods, stages, kinds of files

Modules are imported when a plugin of their kind is first needed. One that cannot be imported is left out, and one line
says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trimtab.base.errors import MissingError
from trimtab.base.tables import resolve

PREFIX = "trimtab."


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPlugin:
    """A plugin that could not be imported. `is_absent`: its module was removed, rather than being wrong."""

    kind: str
    name: str
    why: str
    is_absent: bool

    @property
    def line(self) -> str:
        """Return what failed and why, in one line."""
        return f"the plugin {self.name} ({PREFIX}{self.kind}) does not load: {self.why}"


def plugin_names(kind: str) -> Sequence[str]:
    """Return the names of the plugins of a kind; nothing is imported."""
    return tuple(_entries(kind))


def plugins(kind: str) -> Mapping[str, Any]:
    """Import every plugin of a kind, and return them by name; those that fail are left out."""
    loaded = {name: _load(kind, name) for name in plugin_names(kind)}
    return {name: value for name, value in loaded.items() if not isinstance(value, FailedPlugin)}


def failed_plugins(kind: str) -> Mapping[str, FailedPlugin]:
    """Return the plugins of a kind that cannot be imported or called, by name."""
    loaded = {name: _FAILED_CALLS.get((kind, name)) or _load(kind, name) for name in plugin_names(kind)}
    return {name: value for name, value in loaded.items() if isinstance(value, FailedPlugin)}


def plugin(kind: str, name: str, what: str) -> Any:
    """Import one plugin and return it. Raises MissingError, with the reason, if that fails; `what` needs it."""
    found = _load(kind, name) if name in plugin_names(kind) else None
    if isinstance(found, FailedPlugin) or found is None:
        why = found.line if found else f"no installed package has the plugin {name} ({PREFIX}{kind})"
        others = f" (there is {', '.join(plugin_names(kind))})" if found is None and plugin_names(kind) else ""
        raise MissingError(f"{what}: {why}{others}; install it, or leave this out")
    return found


def call_plugins(kind: str) -> None:
    """Call every plugin of a kind, without arguments; one that raises is then one that failed."""
    for name, function in plugins(kind).items():
        try:
            function()
        except Exception as error:  # noqa: BLE001  (as in `_load`)
            _FAILED_CALLS[kind, name] = FailedPlugin(kind=kind, name=name, why=_in_words(error), is_absent=False)


_FAILED_CALLS: dict[tuple[str, str], FailedPlugin] = {}


@cache
def _load(kind: str, name: str) -> Any:
    """Return a plugin, or what is wrong with it."""
    entry = _entries(kind)[name]
    try:
        loaded = resolve(entry)
        if not _FITS.get(kind, callable)(loaded):
            raise TypeError(f"{entry} is a {type(loaded).__name__}, which is no plugin of this kind")
    except Exception as error:  # noqa: BLE001  (a plugin is anybody's code, and may raise anything)
        return FailedPlugin(
            kind=kind, name=name, why=_in_words(error), is_absent=_is_absent(entry.partition(":")[0], error)
        )
    return loaded


_FITS: Mapping[str, Callable[[object], bool]] = {
    "tables": lambda value: isinstance(value, type) and hasattr(value, "model_fields"),  # importing pydantic takes time
    "names": lambda _: True,
}


def _entries(kind: str) -> Mapping[str, str]:
    """Return the entry points of a kind, "module:name" by name."""
    return _installed().get(f"{PREFIX}{kind}", {})


@cache
def _installed() -> Mapping[str, Mapping[str, str]]:
    """Read the entry points of Trimtab from the metadata of installed packages; of two of one name the first counts.

    `importlib.metadata` does the same, and takes 40 ms to import, a quarter of `trimtab --help`.
    """
    groups: dict[str, dict[str, str]] = {}
    for file in _metadata_files():
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        group = ""
        for line in text.splitlines() if f"[{PREFIX}" in text else ():
            name, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith("["):
                group = line.strip("[] ")
            elif equals and group.startswith(PREFIX):
                groups.setdefault(group, {}).setdefault(name, value)
    return groups


def _metadata_files() -> Iterator[Path]:
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError):  # an entry of the path may be no folder
            for entry in sorted(os.listdir(folder or ".")):
                if entry.endswith((".dist-info", ".egg-info")):
                    yield Path(folder, entry, "entry_points.txt")


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_absent(module: str, error: Exception) -> bool:
    """True if the room that a plugin lies in, or one that it stands on, was taken away."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return False
    return f"{module}.".startswith(f"{error.name}.") or error.name.startswith("trimtab.")
