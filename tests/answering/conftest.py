"""Lets the tests of this folder import its helpers (`answering_models`, `openai_server`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
