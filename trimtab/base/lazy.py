"""Lazy public names of a package: a name's module is imported when the name is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the package's `__getattr__` and `__dir__` (PEP 562), and its `__all__`.

    `file`: the package's `__init__.py`, whose public names are those that it imports as themselves (PEP 484), as in
    `from trimtab.base.task import Task as Task`. These imports stand below `if TYPE_CHECKING`, for type checkers; this
    function reads them from the text. A name must not be that of a submodule of the package: once imported, the
    submodule would stand in its place.
    """
    with open(file, encoding="utf-8") as lines:  # importing pathlib takes as long as all the rest of `import trimtab`
        words = [line.split() for line in lines]
    homes = {line[3]: line[1] for line in words if len(line) == 6 and line[0] == "from" and line[3] == line[5]}
    homes.pop("__version__", None)
    names = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get, lambda: names, names
