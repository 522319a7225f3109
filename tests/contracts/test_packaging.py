"""What is declared, shipped and told: dependencies are those that are imported, and no text speaks of one machine."""

import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trimtab"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Declared though no line of ours imports it: why.
INDIRECT = {
    "accelerate": "transformers refuses to read quantised weights without it, and declares it nowhere",
    "pyopenssl": "model-signing imports it and does not ask for it",
    "lxml-html-clean": "trafilatura imports it; the extra of lxml that asks for it is gone from newer ones",
}
# A path that exists on one machine: somebody's home, a mount, a build folder.
OF_A_MACHINE = re.compile(r"(?<![\w.~/-])/(?:home|Users|root|work|opt|mnt|srv|var)/\w")
TEXTS = ("*.md", "*.toml", "*.cff", "Makefile", ".ci/run", ".github/**/*", "docs/**/*.md", "docs/*.toml")
TEXTS += ("trimtab/**/*.py", "trimtab/**/*.md", "trimtab/**/*.toml", "examples/*.py", "benchmarks/**/*.md")


@pytest.mark.parametrize("script", [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("docs/*.py")], ids=lambda path: path.name)
def test_scripts_beside_the_package_import_what_is_there(script: Path) -> None:
    """They run seldom, and would be found broken when a figure is to be measured again."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trimtab":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), (
                    alias.name
                )


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imported(source: str) -> set[str]:
    """Top modules that are not of the standard library, nor ours."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names - {"trimtab"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    modules = set().union(*(imported(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")))
    owners = packages_distributions()
    used = {module: {canonicalize_name(name) for name in owners.get(module, [module])} for module in modules}
    known = declared(
        *("hub", "notebook", "office", "qlora", "serve", "structured", "postgres", "export", "gguf", "sign", "publish"),
        *("render", "ray"),
    )
    assert {module: names for module, names in used.items() if not names & known} == {}
    assert known - set().union(*used.values()) == set(INDIRECT)


def test_the_package_tells_imports_from_what_only_looks_like_one():
    source = "import os, numpy.linalg\nfrom yaml import x\nfrom . import y\nfrom trimtab.base import z\n'import torch'"
    assert imported(source) == {"numpy", "yaml"}


def test_no_version_is_pinned_and_every_range_begins_somewhere():
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        wanted = Requirement(line)
        if wanted.name == PROJECT["name"]:  # extras of our own
            assert wanted.extras <= PROJECT["optional-dependencies"].keys()
            continue
        assert [part.operator for part in wanted.specifier] == [">="], line
        assert "+" not in str(wanted.specifier), line


def test_no_text_names_a_path_of_one_machine():
    files = {path for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file()}
    assert {ROOT / "README.md", PACKAGE / "cli" / "main.py", ROOT / ".ci" / "run"} <= files
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in files
        if ".venv" not in path.parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if OF_A_MACHINE.search(line)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("wrote /home/jo/x.html", True),
        ("see `/opt/wheels/a.whl`", True),
        ("'/Users/jo/x'", True),
        ("~/.cache/trimtab", False),
        ("trimtab-demo/work/x", False),
        ("/proc/cpuinfo", False),
        ("https://example.org/home/x", False),
    ],
)
def test_the_rule_for_paths_can_fail(text, caught):
    assert bool(OF_A_MACHINE.search(text)) == caught


def test_a_script_beside_the_clone_imports_an_editable_install(tmp_path: Path):
    """There the clone's folder is found first, as a namespace package without anything in it."""
    pytest.importorskip("setuptools", minversion="77")
    clone, site = tmp_path / "trimtab", tmp_path / "site"
    package = ("__init__.py", "py.typed", "base/__init__.py", "base/lazy.py", "base/version.py")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", *(f"trimtab/{file}" for file in package)):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    site.mkdir()
    build = f"from setuptools import build_meta; print(build_meta.build_editable({str(site)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=clone, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(site / done.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    script = tmp_path / "mine.py"
    script.write_text(f"import site; site.addsitedir({str(site)!r}); import trimtab; print(trimtab.__file__)\n")
    for folder in (tmp_path, clone):
        own = shutil.copy(script, folder / "own.py")
        done = subprocess.run([sys.executable, "-SE", own], cwd=folder, capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()) == clone / "trimtab" / "__init__.py"
