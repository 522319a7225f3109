"""The stress script on a small scale: processes that die at random moments, inside saves too, and go on to the same
weights."""

import json
import os
import sys
from pathlib import Path

import pytest
from forked import run

pytestmark = pytest.mark.no_kernels

ROOT = Path(__file__).parents[2]
# A Trimtab that forgets the optimizer's moments in a checkpoint.
FORGETFUL = """
import runpy, sys
from trimtab.training.optim import Optimizer
Optimizer.load_moments = lambda self, tensors: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def killed(out, *before, kills, objectives):
    command = [sys.executable, *before, str(ROOT / "benchmarks" / "kills.py"), "--kills", str(kills), "--out", str(out)]
    done = run([*command, "--objectives", objectives])
    return done, json.loads(out.read_text())["total"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_killed_at_random_moments_and_resumed_is_never_killed(tmp_path):
    done, total = killed(tmp_path / "kills.json", kills=12, objectives="sft,kto")
    assert done.returncode == 0, done.stderr
    assert total["kills"] == 12
    assert total["kills_inside_saves"] > 0
    assert total["resumes"] >= 12 - total["runs"]
    assert (total["failures"], total["mismatches"]) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_the_script_sees_weights_that_differ(tmp_path):
    done, total = killed(tmp_path / "kills.json", "-c", FORGETFUL, kills=6, objectives="sft")
    assert done.returncode == 1
    assert total["mismatches"] > 0
    assert total["failures"] == 0
