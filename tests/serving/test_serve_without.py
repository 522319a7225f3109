"""Without an extra, the verb or the reply says which one to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.base.errors import PackageError
from trimtab.serving.dispatcher import refusal

RUN = """
import sys
sys.modules[{missing!r}] = None
from trimtab.cli.main import run
run(["serve", "--task", {task!r}])
"""


@pytest.mark.slow
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


def test_a_request_that_needs_a_missing_package_is_refused_with_the_command() -> None:
    refused = refusal(PackageError("xgrammar", "structured", "an answer constrained to a schema"))
    assert refused.status == 501
    assert "pip install 'trimtab[structured]'" in refused.body["error"]["message"]
