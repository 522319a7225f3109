"""Without the extra `serve` the verb says which one to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
sys.modules[{missing!r}] = None
from trimtab.cli.main import run
run(["serve", "--task", {task!r}])
"""


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_package_that_is_not_there_is_named_with_the_extra(tmp_path: Path, missing: str) -> None:
    (tmp_path / "a.md").write_text("# A\nText.\n")
    task = tmp_path / "trimtab.toml"
    task.write_text('[task]\nkind = "answer"\n[data]\ndocuments = ["a.md"]\n[base]\nmodel = "nowhere"\n')
    code = RUN.format(missing=missing, task=str(task))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("install it with: pip install 'trimtab[serve]'")
    assert missing in done.stderr
    assert "\n" not in done.stderr.strip()
