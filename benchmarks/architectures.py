"""What Trimtab does with each causal architecture of transformers: answers, trains, exports, or refuses in one line.

Run: python benchmarks/architectures.py  →  benchmarks/results/architectures.json, in about half a minute; then
python docs/make_tables.py. Each family is a random model of two layers (tests/helpers/tiny_architectures.py), compared
with transformers' eager attention in float32; `tests/model/test_architectures.py` holds every outcome.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

from transformers.utils import logging

from trimtab.base.files import write_json
from trimtab.base.machine import versions

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "architectures.json"
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from tiny_architectures import FAMILIES, is_known, outcome  # noqa: E402


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")  # of PEFT and transformers about each other
    outcomes = {}
    for family in filter(is_known, FAMILIES):
        with tempfile.TemporaryDirectory() as folder:
            outcomes[family] = outcome(family, Path(folder))
        print(family, outcomes[family], flush=True)
    write_json(RESULT, {"versions": versions(), "families": outcomes})


if __name__ == "__main__":
    main()
