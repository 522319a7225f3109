"""Plugins: Python entry points by which a package adds to Trimtab; the rooms that can be taken away join so too.

A group of entry points is a kind of plugin, and a name is what the user types or writes:

    trimtab.commands        a function with typer's annotations, or a `typer.Typer` of several: a verb
    trimtab.tables          a subclass of `Settings`: a table of the task file
    trimtab.names           any object: a public name of `import trimtab`
    trimtab.demos           a function: an example that `trimtab demo NAME` runs
    trimtab.machines        a function that connects to other machines: the place for the jobs of `study --on`
    trimtab.trainers        a function that trains an arm on these machines, for `train --on`
    trimtab.routes          a function that returns an `APIRouter`: routes of the server
    trimtab.releases        a function that follows an alias of versions, for `serve --alias` and `ask`
    trimtab.passage_stores  a class that keeps passages at the addresses of a scheme, for `retrieval.store`
    trimtab.records         a function that adds records to tables: metrics, contexts, methods, stages, kinds of files

Modules are imported when a plugin of their kind is first needed. One that cannot be imported is left out, and one line
says why and what to do.
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
    """A plugin that cannot be used. `is_absent`: its module was taken away, rather than being wrong."""

    kind: str
    name: str
    why: str
    is_absent: bool = False

    @property
    def problem(self) -> str:
        """Return what failed and why."""
        return f"the plugin {self.name} ({PREFIX}{self.kind}) does not load: {self.why}"

    @property
    def line(self) -> str:
        """Return what failed, why, and what to do, in one line."""
        remedy = "install" if self.is_absent else "correct or remove"
        return f"{self.problem}; {remedy} the package that has it"


_LOADED: dict[tuple[str, str], Any] = {}  # a plugin, or what is wrong with it, by kind and name


def plugin_names(kind: str) -> Sequence[str]:
    """Return the names of the plugins of a kind; nothing is imported."""
    return tuple(_entries(kind))


def plugins(kind: str) -> Mapping[str, Any]:
    """Import every plugin of a kind, and return them by name; those that fail are left out."""
    loaded = {name: _load(kind, name) for name in plugin_names(kind)}
    return {name: value for name, value in loaded.items() if not isinstance(value, FailedPlugin)}


def failed_plugins(kind: str) -> Mapping[str, FailedPlugin]:
    """Return the plugins of a kind that cannot be used, by name."""
    loaded = {name: _load(kind, name) for name in plugin_names(kind)}
    return {name: value for name, value in loaded.items() if isinstance(value, FailedPlugin)}


def plugin(kind: str, name: str, what: str) -> Any:
    """Import one plugin and return it. Raises MissingError, with the reason, if that fails; `what` needs it."""
    if name not in plugin_names(kind):
        raise MissingError(
            f"{what}: no installed package has the plugin {name} ({PREFIX}{kind}); install one, or leave it out"
        )
    loaded = _load(kind, name)
    if isinstance(loaded, FailedPlugin):
        raise MissingError(f"{what}: {loaded.line}")
    return loaded


def call_plugins(kind: str) -> None:
    """Call every plugin of a kind, without arguments; one that raises is refused."""
    for name, function in plugins(kind).items():
        try:
            function()
        except Exception as error:  # noqa: BLE001  (as in `_load`)
            refuse_plugin(kind, name, _in_words(error))


def refuse_plugin(kind: str, name: str, why: str) -> None:
    """Count a plugin among those that failed."""
    _LOADED[kind, name] = FailedPlugin(kind=kind, name=name, why=why)


def _load(kind: str, name: str) -> Any:
    """Return a plugin, imported once, or what is wrong with it."""
    if (kind, name) not in _LOADED:
        entry = _entries(kind)[name]
        try:
            loaded = resolve(entry)
            if not _FITS.get(kind, callable)(loaded):
                raise TypeError(f"{entry} is a {type(loaded).__name__}, which is no plugin of this kind")
        except Exception as error:  # noqa: BLE001  (a plugin is anybody's code, and may raise anything)
            absent = _is_absent(entry.partition(":")[0], error)
            loaded = FailedPlugin(kind=kind, name=name, why=_in_words(error), is_absent=absent)
        _LOADED[kind, name] = loaded
    return _LOADED[kind, name]


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
    for text in _metadata():
        group = ""
        for line in text.splitlines() if f"[{PREFIX}" in text else ():
            name, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith("["):
                group = line.strip("[] ")
            elif equals and group.startswith(PREFIX):
                groups.setdefault(group, {}).setdefault(name, value)
    return groups


def _metadata() -> Iterator[str]:
    """Yield the entry points of each installed package that has some, as they are written."""
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError):  # an entry of the path may be no folder
            for entry in sorted(os.listdir(folder or ".")):
                if entry.endswith((".dist-info", ".egg-info")):
                    with suppress(OSError):  # most packages have none
                        yield Path(folder, entry, "entry_points.txt").read_text(encoding="utf-8", errors="replace")


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_absent(module: str, error: Exception) -> bool:
    """True if the room that a plugin lies in, or one that it stands on, was taken away."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return False
    return f"{module}.".startswith(f"{error.name}.") or error.name.startswith("trimtab.")
