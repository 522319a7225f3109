"""Schedules that run `trimtab refresh` every week on a scheduler that a team has; nothing of Trimtab stays running."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.task import load_task

HOUR, MINUTE = 3, 17  # of Sunday night: machines are idle, and few others start at that minute


def scheduled(kind: str, task: Path) -> str:
    """Return a crontab line, a systemd service with its timer, a GitHub workflow or a Kubernetes CronJob, as text to
    install.

    Where nothing is new a refresh ends within seconds. Raises InputError for another kind and where there is no such
    task.
    """
    if kind not in KINDS:
        raise InputError(f"no scheduler {kind[:40]!r}", f"use one of: {', '.join(KINDS)}", field="--schedule")
    own = load_task(task)
    return KINDS[kind](own.task.name, own.file.absolute())


def _command(file: str) -> str:
    return f"trimtab refresh --task {shlex.quote(file)}"


def _cron(_: str, file: Path) -> str:
    line = _command(str(file)).replace("%", r"\%")  # which crontab takes for the end of a line
    return f"# crontab -e, then add this line; PATH must reach trimtab\n{MINUTE} {HOUR} * * 0 {line}\n"


def _systemd(name: str, file: Path) -> str:
    line = _command(str(file)).replace("\\", r"\\").replace("%", "%%").replace("$", "$$").replace('"', r"\"")
    return (
        f"# ~/.config/systemd/user/trimtab-{name}.service\n"
        "[Unit]\n"
        f"Description=Refresh {name}\n\n"
        "[Service]\n"
        "Type=oneshot\n"
        f'ExecStart=/bin/sh -c "{line}"\n\n'
        f"# ~/.config/systemd/user/trimtab-{name}.timer\n"
        f"# then: systemctl --user enable --now trimtab-{name}.timer\n"
        "[Unit]\n"
        f"Description=Every week: refresh {name}\n\n"
        "[Timer]\n"
        f"OnCalendar=Sun *-*-* {HOUR:02}:{MINUTE:02}:00\n"
        "Persistent=true\n\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )


def _github(name: str, file: Path) -> str:
    line = json.dumps(_command(file.name))  # a JSON string is a YAML string
    return (
        f"# .github/workflows/refresh.yml, in a repository that holds {file.name}\n"
        f"name: refresh {name}\n"
        "on:\n"
        "  schedule:\n"
        f'    - cron: "{MINUTE} {HOUR} * * 0"\n'
        "  workflow_dispatch:\n"
        "permissions:\n"
        "  contents: read\n"
        "jobs:\n"
        "  refresh:\n"
        "    runs-on: self-hosted  # a machine that keeps .trimtab/, or reaches the registry by [upkeep] registry\n"
        "    steps:\n"
        "      - uses: actions/checkout@v4\n"
        '      - run: pip install "trimtab[serve]"\n'
        f"      - run: {line}\n"
    )


def _kubernetes(name: str, file: Path) -> str:
    label = name.lower().replace("_", "-").replace(".", "-")[:40].strip("-")  # as Kubernetes names things
    line = json.dumps(_command(f"/work/{file.name}"))
    return (
        "# kubectl apply -f - ; the image is that of the Containerfile\n"
        "apiVersion: batch/v1\n"
        "kind: CronJob\n"
        "metadata:\n"
        f"  name: trimtab-refresh-{label}\n"
        "spec:\n"
        f'  schedule: "{MINUTE} {HOUR} * * 0"\n'
        "  concurrencyPolicy: Forbid\n"
        "  jobTemplate:\n"
        "    spec:\n"
        "      backoffLimit: 0\n"
        "      template:\n"
        "        spec:\n"
        "          restartPolicy: Never\n"
        "          containers:\n"
        "            - name: refresh\n"
        "              image: trimtab:latest\n"
        f'              command: ["/bin/sh", "-c", {line}]\n'
        "              volumeMounts:\n"
        "                - {name: task, mountPath: /work}\n"
        "          volumes:\n"
        "            - name: task\n"
        f"              persistentVolumeClaim: {{claimName: trimtab-{label}}}\n"
    )


KINDS: dict[str, Callable[[str, Path], str]] = {
    "cron": _cron,
    "systemd": _systemd,
    "github": _github,
    "kubernetes": _kubernetes,
}
