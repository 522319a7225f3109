"""Lets the tests of this folder import `tiny_models`, which lies with the tests of the model."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
