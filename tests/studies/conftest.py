"""Lets the tests of this folder import its helper `study_tasks`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
