"""A disk that is full when a verb makes its first files: one line that says so, whatever still fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from filling import fill
from study_tasks import write_task
from typer.testing import CliRunner

from trimtab.cli.main import app


def told(*arguments: str) -> tuple[int, str]:
    """The exit code, and the last line on standard error."""
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("leave", [0, 8192, 16384])
def test_what_a_study_cannot_write_is_one_line(
    small_disk: Path, leave: int, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    (small_disk / "documents").mkdir()
    (small_disk / "documents" / "towns.md").write_text("# Towns\n" + "Aalen lies in the south. " * 40)
    task = write_task(
        small_disk,
        tiny_model_folder,
        ["rag"],
        data='documents = ["documents/"]',
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    fill(small_disk, leave)
    code, line = told("study", "--task", str(task), "--budget", "2m")
    assert code == 2
    assert "no space left on the disk; free disk space" in line
