"""The package in `examples/plugin/`, installed, adds a metric and a command; plugins that fail are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from study_tasks import write_task

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed in, as pip would into the environment."""
    pytest.importorskip("setuptools", minversion="77")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(site)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(site / done.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    return site


def trimtab(site: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "TERM": "dumb", "COLUMNS": "200"}
    command = [sys.executable, "-m", "trimtab", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_an_installed_package_adds_a_metric_and_a_command(
    installed: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    said = trimtab(installed, "units", "About 310 m.", "300 m", folder=tmp_path)
    assert (said.returncode, said.stdout) == (0, "right\n"), said.stderr
    rows = [{"question": f"How high is tower {n}?", "answer": f"{n} m"} for n in range(30, 90)]
    settings = 'kind = "answer"\nmetric = "within_a_tenth"\noutput_tokens = 6'
    write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows, task=settings)
    studied = trimtab(installed, "study", "--json", folder=tmp_path)
    result = json.loads(studied.stdout)
    assert result["metric"] == "within_a_tenth", studied.stderr
    assert [arm["arm"] for arm in result["arms"]] == ["prompt"]
    report = next((tmp_path / ".trimtab" / "studies").glob("*/report.html")).read_text()
    assert "within a tenth" in report
    without = trimtab(tmp_path, "check", folder=tmp_path)
    assert without.returncode == 2
    assert "metric 'within_a_tenth' does not fit kind 'answer'" in without.stderr


def test_a_plugin_that_fails_is_one_line_and_stops_nothing_else(tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[trimtab.commands]\nbroken = broken:command\nabsent = no_such_module:command\nlist = broken_list:value\n"
        "study = raising:add\n"
        "[trimtab.tables]\nbroken = broken:Table\n[trimtab.records]\nraising = raising:add\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('first\\nsecond')\n")
    (tmp_path / "broken_list.py").write_text("value = []\n")
    (tmp_path / "raising.py").write_text("def add(): raise ValueError('no record')\n")
    shown = trimtab(tmp_path, "--help", folder=tmp_path)
    assert shown.returncode == 0
    assert "study" in shown.stdout
    assert shown.stderr.splitlines() == [
        "trimtab: the plugin broken (trimtab.commands) does not load: RuntimeError: first second; "
        "correct or remove the package that has it",
        "trimtab: the plugin list (trimtab.commands) does not load: "
        "TypeError: broken_list:value is a list, which is no plugin of this kind; "
        "correct or remove the package that has it",
        "trimtab: the plugin study (trimtab.commands) does not load: the core has a command of this name; "
        "correct or remove the package that has it",
    ]
    checked = trimtab(tmp_path, "check", folder=tmp_path)
    assert checked.returncode == 2  # there is no task file
    assert "ValueError: no record" in checked.stderr
    assert "(trimtab.tables)" in checked.stderr
