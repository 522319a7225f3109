"""Counts the answers of an exported arm that llama.cpp gives as they were measured, by the type of the GGUF file.

Run: python benchmarks/gguf_answers.py  →  benchmarks/results/gguf_answers.json, in about a quarter of an hour. Trains
LoRA on the handbook example's cut, measured in bfloat16 and in float32, exports it in each type, and keeps the proofs:
llama.cpp beside the arm as measured, llama.cpp beside transformers in float32 over the same file, and the latter
beside the arm as measured. What is in the result stays. Needs `pip install 'trimtab[gguf]'`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from shared import machine

from trimtab import export, train
from trimtab.base.codec import to_plain
from trimtab.base.files import read_object, write_json
from trimtab.base.machine import versions
from trimtab.exports.llama_cpp import has_llama_cpp

RESULT = Path(__file__).resolve().parent / "results" / "gguf_answers.json"
TYPES = ("f16", "q8_0")


def in_precision(source: Path, folder: Path, precision: str) -> Path:
    """Copy the example's cut, to be trained and measured in `precision`. Return its task file."""
    shutil.copytree(source, folder)
    file = folder / "trimtab.toml"
    text = (folder / "demo.toml").read_text(encoding="utf-8")
    file.write_text(text.replace("[base]\n", f'[base]\nprecision = "{precision}"\n'), encoding="utf-8")
    return file


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--questions", type=int, default=100)
    options.add_argument("--types", nargs="+", default=TYPES)
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    if not has_llama_cpp():
        raise SystemExit("llama.cpp is not installed; run: pip install 'trimtab[gguf]'")
    proofs: dict[str, Any] = read_object(chosen.out)["measured in"] if chosen.out.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "handbook") as source:
        for precision in ("bf16", "fp32"):
            missing = [kind for kind in chosen.types if kind not in proofs.get(precision, {})]
            if not missing:
                continue
            task = in_precision(source, Path(scratch) / precision, precision)
            train(task, "lora")
            for kind in missing:
                out = Path(scratch) / f"{precision}-{kind}"
                result = export(task, "lora", format="gguf", quantize=kind, out=out, questions=chosen.questions)
                shutil.rmtree(out)
                print(precision, kind, result.headline, flush=True)
                proofs.setdefault(precision, {})[kind] = to_plain(result.proofs)
                write_json(chosen.out, {"machine": machine(), "versions": versions(), "measured in": proofs})


if __name__ == "__main__":
    main()
