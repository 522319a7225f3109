"""Rules of the house that lint and types do not hold: nothing that can run foreign code, light imports, readable
files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab
from trimtab.base.grammar import PARTS
from trimtab.base.metrics import METRICS

PACKAGE = Path(trimtab.__file__).parent
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if not {"demos", "example"}.intersection(path.relative_to(PACKAGE).parts)
)
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "eval", "exec", "os.system", "os.popen"}


def violations(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in FORBIDDEN_CALLS:
                found.append(ast.unparse(node.func))
            for keyword in node.keywords:
                risky = keyword.arg in ("shell", "trust_remote_code", "weights_only")
                if risky and ast.unparse(keyword.value) != "False":
                    found.append(f"{keyword.arg}={ast.unparse(keyword.value)}")
    return found


def test_no_pickle_no_shell_no_foreign_code():
    found = {}
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        if path == PACKAGE / "cli" / "eval.py":  # calls the verb `eval`, which it imports
            source = re.sub(r"\beval\((\s*task,\s*arm)", r"verb(\1", source)
        found[str(path)] = violations(source)
    assert {path: broken for path, broken in found.items() if broken} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "import torch\ntorch.load('x')",
        "f(trust_remote_code=True)",
        "run('x', shell=yes)",
        "eval('1')",
    ],
)
def test_the_rule_above_can_fail(source):
    assert violations(source) != []


def test_every_module_says_what_it_is_for():
    assert [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_importing_the_package_is_light():
    heavy = ("torch", "transformers", "pydantic", "numpy", "typer", "rich")
    code = f"import sys, trimtab; print(*set({heavy!r}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_are_listed_before_they_are_used():
    code = "import trimtab; print(*set(trimtab.__all__) - set(dir(trimtab)), '__version__' in dir(trimtab))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_every_public_name_is_a_function_with_help():
    public = {name: getattr(trimtab, name) for name in trimtab.__all__ if name != "Task"}
    assert [name for name, value in public.items() if not (callable(value) and value.__doc__)] == []


def test_every_file_of_the_package_that_a_user_needs_is_packaged():
    import tomllib

    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = settings["tool"]["setuptools"]["package-data"]["trimtab"]
    for path in PACKAGE.rglob("*"):
        relative = path.relative_to(PACKAGE)
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in relative.parts:
            assert any(
                relative.match(pattern) or (pattern.endswith("**/*") and relative.parts[0] == pattern.split("/")[0])
                for pattern in packaged
            ), relative


def test_every_claim_of_the_security_page_names_a_test_that_is_there():
    root = PACKAGE.parent
    table = (root / "SECURITY.md").read_text(encoding="utf-8").split("## What holds today")[1].split("\n## ")[0]
    claims = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(claims) > 15
    files = {path.name for path in (root / "tests").rglob("test_*.py")}
    for claim in claims:
        named = re.findall(r"`(?:tests/)?(?:\w+/)*(test_\w+\.py)`", claim)
        assert named or "(the same " in claim, claim
        assert set(named) <= files, claim


# Text that is a metric's name and means something else, by file: a figure of training, a word that is looked for, keys
# of the task file, what a program is called.
OTHER_MEANINGS = {
    "training/classification.py": {"accuracy"},
    "publishing/citable.py": {"contains"},
    "upkeep/refresh.py": {"scorer"},
    "measurement/scorer.py": {"scorer"},
}


def names_of_metrics(path: Path) -> set[str]:
    """The metrics that a file names in its code; docstrings are no code."""
    texts = {
        node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    }
    return {text for text in texts if isinstance(text, str)} & METRICS.keys()


def test_no_file_but_that_of_their_records_names_a_metric():
    named = {path.relative_to(PACKAGE).as_posix(): names_of_metrics(path) for path in FILES}
    assert named.pop("base/metrics.py") == METRICS.keys(), "what follows can fail"
    assert {file: names for file, names in named.items() if names - OTHER_MEANINGS.get(file, set())} == {}


def test_no_file_but_that_of_their_records_compares_with_the_name_of_a_way_to_choose_shots():
    choosers = {name for name, part in PARTS.items() if part.setting == "shots"}
    compared = [
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        and {side.value for side in (node.left, *node.comparators) if isinstance(side, ast.Constant)} & choosers
    ]
    assert compared == []
