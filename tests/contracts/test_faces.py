"""The public names of the rooms (`trimtab.model`, `trimtab.training` …): they exist, are documented and typed, are
imported lazily, and are what examples use; inside the package nothing imports them from there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType

import pytest

import trimtab

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trimtab"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FACES = ("decision", "inference", "measurement", "model", "retrieval", "training")
NAMES = [(face, name) for face in FACES for name in importlib.import_module(f"trimtab.{face}").__all__]
MOST_PLACES = 4  # that an example imports from


def face_of(name: str) -> ModuleType:
    return importlib.import_module(f"trimtab.{name}")


def imports(source: str) -> list[tuple[str, str]]:
    """Every `from module import name` of a source, `import module` as (module, "")."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(one.name, "") for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", one.name) for one in node.names]
    return found


def names_from_faces(source: str) -> list[str]:
    """The names that a source imports from a face, submodules excluded."""
    return [
        f"{module}.{name}"
        for module, name in imports(source)
        if module in {f"trimtab.{face}" for face in FACES} and name in face_of(module.removeprefix("trimtab.")).__all__
    ]


def inner_modules(source: str) -> set[str]:
    """The modules of the package that a source imports from, the root and the faces excluded."""
    open_ones = {"trimtab", *(f"trimtab.{face}" for face in FACES)}
    return {module for module, _ in imports(source) if module.split(".")[0] == "trimtab"} - open_ones


def is_documented_and_typed(value: object) -> bool:
    if not inspect.isfunction(value):
        return isinstance(value, type) and bool(inspect.getdoc(value))
    signature = inspect.signature(value)
    annotations = [signature.return_annotation, *(one.annotation for one in signature.parameters.values())]
    return bool(inspect.getdoc(value)) and inspect.Signature.empty not in annotations


def test_a_public_name_of_a_room_is_documented_and_typed():
    assert [(face, name) for face, name in NAMES if not is_documented_and_typed(getattr(face_of(face), name))] == []


@pytest.mark.parametrize("face", FACES)
def test_a_room_exports_a_handful_of_names_that_no_submodule_can_replace(face):
    module = face_of(face)
    assert 4 <= len(module.__all__) <= 18
    assert sorted(module.__all__) == dir(module)
    assert not set(module.__all__) & {one.name for one in pkgutil.iter_modules(module.__path__)}
    with pytest.raises(AttributeError, match=f"trimtab.{face}"):
        _ = module.no_such_name


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_and_the_interpreter_find_a_name_in_the_same_module(face):
    source = (PACKAGE / face / "__init__.py").read_text(encoding="utf-8")
    typed = {(module, name) for module, name in imports(source) if module not in ("typing", "trimtab.base.lazy")}
    assert {name for _, name in typed} == set(face_of(face).__all__)
    for module, name in typed:
        assert getattr(face_of(face), name) is getattr(importlib.import_module(module), name)


def test_one_public_name_has_one_meaning():
    meanings: dict[str, set[int]] = {}
    for face, name in NAMES:
        meanings.setdefault(name, set()).add(id(getattr(face_of(face), name)))
    for name in set(trimtab.__all__) & set(meanings):
        meanings[name].add(id(getattr(trimtab, name)))
    assert [name for name, objects in meanings.items() if len(objects) > 1] == []


def test_importing_the_rooms_is_light():
    rooms = ", ".join(f"trimtab.{face}" for face in FACES)
    code = (
        f"import sys, {rooms}; print(*{{'torch', 'transformers', 'pydantic', 'numpy', 'lancedb'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


FIRST = """
import importlib, os, sys
import torch, transformers, scipy.stats, pyarrow, sklearn.linear_model  # of others, and the same for every room
assert not [name for name in sys.modules if name.split(".")[0] == "trimtab"]
for room in sys.argv[1:]:
    if not (child := os.fork()):
        face = importlib.import_module(f"trimtab.{room}")
        print(room, len([getattr(face, name) for name in face.__all__]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_room_can_be_used_first():
    """No circle of imports: in a process without the package every name of a face is found without another import
    before it."""
    done = subprocess.run([sys.executable, "-c", FIRST, *FACES], capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {face: str(len(face_of(face).__all__)) for face in FACES}, done.stderr


def test_nothing_inside_the_package_imports_from_a_face():
    found = {str(path.relative_to(ROOT)): names_from_faces(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_only_public_names_from_few_places(path):
    source = path.read_text(encoding="utf-8")
    assert inner_modules(source) == set()
    assert len({module for module, _ in imports(source) if module.split(".")[0] == "trimtab"}) <= MOST_PLACES


def test_the_two_rules_above_can_fail():
    assert names_from_faces("from trimtab.model import load_base, attention") == ["trimtab.model.load_base"]
    assert inner_modules("from trimtab.model.load import load_base\nimport trimtab\nimport json") == {
        "trimtab.model.load"
    }


def test_every_public_name_of_a_room_is_on_the_page_of_the_reference():
    page = (ROOT / "docs" / "reference" / "rooms.md").read_text(encoding="utf-8")
    for face, name in NAMES:
        assert f"`{name}`" in page.split(f"## `trimtab.{face}`")[1].split("\n## ")[0]


def test_annotations_of_public_functions_can_be_resolved():
    """A tool that reads the types, such as an editor or pydantic, finds every name in them."""
    for face, name in NAMES:
        value = getattr(face_of(face), name)
        if inspect.isfunction(value):
            typing.get_type_hints(value)
