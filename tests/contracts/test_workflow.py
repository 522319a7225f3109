"""The hosted workflow runs the Makefile's targets, on what the package says it supports."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
JOB = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["ci"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_it_runs_targets_of_the_makefile_those_of_ci_run_and_the_notebooks_once():
    commands = [step["run"] for step in JOB["steps"] if "run" in step]
    targets = [command.removeprefix("make ") for command in commands]
    assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for target in targets), commands
    local = re.search(r"for target in ([\w -]+); do", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert local is not None
    assert targets == [*local[1].split(), "tutorials"]


def test_every_python_and_system_of_the_classifiers_is_tried():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    versions = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert JOB["strategy"]["matrix"]["python"] == versions
    assert {system.partition("-")[0] for system in JOB["strategy"]["matrix"]["system"]} == {"ubuntu", "macos"}
    assert len([line for line in classifiers if line.startswith("Operating System")]) == 2


def test_nothing_is_written_to_the_repository_and_the_work_has_an_end():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert JOB["timeout-minutes"] <= 60


def test_a_release_tries_the_same_systems_and_names_foreign_steps_by_hash():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["try"]["strategy"]["matrix"] == JOB["strategy"]["matrix"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", one) for one in used)


def test_every_target_is_in_the_help():
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M)
    assert phony is not None
    for target in set(phony[1].split()) - {"help"}:
        assert f'@echo "make {target} ' in MAKEFILE, target
