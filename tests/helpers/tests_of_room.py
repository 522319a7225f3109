"""The test files of a room of the package, and those elsewhere that reach the room through what they import.

`python tests/helpers/tests_of_room.py decision` prints them; `make test ROOM=decision` runs them. Imports are read
from the sources, also those inside functions and type-checking blocks, and so are modules that are named in strings:
rather a file too many than one too few.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS, HELPERS = ROOT / "tests", ROOT / "tests" / "helpers"
PACKAGE = ROOT / "trimtab"
DOTTED = re.compile(r"\btrimtab(?:\.\w+)+")


def file_of(module: str) -> Path | None:
    """The file of a module of the package or of the helpers."""
    path = ROOT.joinpath(*module.split(".")) if module.split(".")[0] == "trimtab" else HELPERS / module
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def resolved(dotted: str) -> Iterator[Path]:
    """The file that a dotted name comes from; a name that a package only passes on is looked up in its imports."""
    module, _, name = dotted.rpartition(".")
    if (file := file_of(dotted)) is not None:
        yield file
    elif (home := file_of(module)) is not None:
        yield homes(home).get(name, home) if home.name == "__init__.py" else home
    elif "." in module:
        yield from resolved(module)


@cache
def homes(package: Path) -> dict[str, Path]:
    """Of each name that a package imports, the file that defines it."""
    imports = [node for node in ast.walk(ast.parse(package.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    files = {alias.name: file_of(node.module or "") for node in imports for alias in node.names}
    return {name: file for name, file in files.items() if file is not None}


@cache
def imported(file: Path) -> frozenset[Path]:
    """The files that a file imports or names."""
    source = file.read_text("utf-8")
    dotted = {"trimtab.__main__"} if '"-m", "trimtab"' in source else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dotted |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trimtab":
            dotted.add(f"trimtab.{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            dotted |= set(DOTTED.findall(node.value))
    # The package's lazy table of its own names would make every user of one of them a user of all.
    return frozenset(path for name in dotted for path in resolved(name) if path.name != "__init__.py")


def reaches(file: Path, room: Path) -> bool:
    """Whether a test file, with the fixtures of its folder, comes to a file of the room."""
    conftests = [folder / "conftest.py" for folder in file.parents if TESTS in folder.parents]
    waiting, seen = {file, *filter(Path.is_file, conftests)}, set[Path]()
    while waiting:
        current = waiting.pop()
        if current.is_relative_to(room):
            return True
        seen.add(current)
        waiting |= imported(current) - seen
    return False


def files_of(room: str) -> list[Path]:
    """Every test file whose result can depend on the room, in order."""
    files = sorted(TESTS.rglob("test_*.py"))
    return [file for file in files if file.is_relative_to(TESTS / room) or reaches(file, PACKAGE / room)]


def main(room: str) -> None:
    rooms = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))
    if room not in rooms:
        sys.exit(f"there is no room {room!r}; name one of {', '.join(rooms)}")
    print(*(file.relative_to(ROOT) for file in files_of(room)))


if __name__ == "__main__":
    main(*sys.argv[1:])
