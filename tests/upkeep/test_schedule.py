"""`refresh --schedule` prints text in the syntax of each scheduler."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from trimtab.base.errors import InputError
from trimtab.base.task import Task
from trimtab.cli.main import run
from trimtab.upkeep.schedule import KINDS, scheduled


def test_a_crontab_line_has_five_times_and_the_command(task: Task, tmp_path: Path) -> None:
    odd = tmp_path / "100% $mine"
    odd.mkdir()
    for name in ("trimtab.toml", "rows.jsonl"):
        shutil.copy(task.folder / name, odd / name)
    line = scheduled("cron", odd / "trimtab.toml").splitlines()[1]
    *times, command = line.split(" ", 5)
    assert times == ["17", "3", "*", "*", "0"]
    assert shlex.split(command.replace(r"\%", "%")) == ["trimtab", "refresh", "--task", str(odd / "trimtab.toml")]
    assert "%" not in command.replace(r"\%", "")


def test_a_timer_and_its_service(task: Task, tmp_path: Path) -> None:
    text = scheduled("systemd", task.file)
    assert text.count("[Unit]") == 2
    assert "OnCalendar=Sun *-*-* 03:17:00" in text
    if shutil.which("systemd-analyze") is None:
        return
    units: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("# ~/.config"):
            name = line.rpartition("/")[2]
        units.setdefault(name, []).append(line)
    for name, lines in units.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
    )
    assert "Unknown" not in checked.stderr


def test_a_workflow_and_a_cron_job_are_yaml_that_runs_it(task: Task) -> None:
    workflow = yaml.safe_load(scheduled("github", task.file))
    assert workflow[True]["schedule"] == [{"cron": "17 3 * * 0"}]  # YAML 1.1 reads the key `on` as true
    assert workflow["jobs"]["refresh"]["steps"][-1] == {"run": "trimtab refresh --task trimtab.toml"}
    job = yaml.safe_load(scheduled("kubernetes", task.file))
    assert job["kind"] == "CronJob"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/sh", "-c", "trimtab refresh --task /work/trimtab.toml"]


def test_the_command_line_prints_each_and_names_them_where_there_is_another(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in KINDS:
        with pytest.raises(SystemExit) as ended:
            run(["refresh", "--task", str(task.file), "--schedule", kind])
        assert not ended.value.code
        assert capsys.readouterr().out == scheduled(kind, task.file)
    with pytest.raises(InputError, match="no scheduler 'at'; use one of: cron, systemd, github, kubernetes"):
        scheduled("at", task.file)
