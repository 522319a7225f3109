"""Lazy public names of a package: a name's module is imported when the name is first used."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the package's `__getattr__` and `__dir__` (PEP 562), and its `__all__`.

    `file`: the package's `__init__.py`, whose public names are those that it imports as themselves (PEP 484), as in
    `from trimtab.base.task import Task as Task`. These imports stand below `if TYPE_CHECKING`, for type checkers; this
    function reads them from the text. A name must not be that of a submodule of the package: once imported, the
    submodule would stand in its place.
    """
    imports = [node for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.ImportFrom)]
    aliases = [(alias, str(node.module)) for node in imports for alias in node.names]
    homes = {alias.name: module for alias, module in aliases if alias.asname == alias.name != "__version__"}
    names = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get, lambda: names, names
