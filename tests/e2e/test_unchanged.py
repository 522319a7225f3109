"""Small cuts of the three bundled studies, seeded: the losses of every step and every answer stay what they were.

`unchanged.json` holds what is equal to the bit on one thread, by model of processor and version of torch. A model
without a record of its own is compared with the first record, within rounding, as every model is. To write this
machine's record after a change that is meant to change figures, in place of all others:

    OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers python tests/e2e/test_unchanged.py
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from trimtab.arms.planning.plan import ArmPlan
from trimtab.base.records import Arm

RECORD = Path(__file__).with_name("unchanged.json")
MESSAGES = Path(__file__).with_name("unchanged_spam.jsonl")  # of the example as it was when the records were made
KEPT = {
    "handbook": ("questions.jsonl", 4),
    "spam": ("messages.jsonl", 1),
    "style": ("pairs.jsonl", 24),
}  # every so many
DOCUMENTS = ("annual-leave.md", "family-leave.md", "shifts.md", "devices.md", "payday.md")
FIXED = 'leakage = "report"\n[base]\nprecision = "fp32"'
ARMS = {
    "handbook": """
arms = ["shots", "read"]
[arm.shots]
context = "few-shot"
shots = 2
[arm.read]
weights = "lora"
stages = ["docs", "sft"]
context = "rag"
passages = 1
epochs = 0.1
learning_rate = 5e-4
""",
    "spam": """
arms = ["linear", "near", "last"]
[arm.near]
context = "nearest-shots"
shots = 2
[arm.last]
weights = "freeze"
epochs = 0.5
learning_rate = 1e-4
""",
    "style": """
arms = ["all"]
[arm.all]
weights = "full"
epochs = 0.5
learning_rate = 5e-5
""",
}


def untimed(session: object, arms: Sequence[Arm], *_: object, **__: object) -> tuple[ArmPlan, ...]:
    """What planning finds where nothing was timed; without a budget, a plan cuts nothing whatever it says."""
    return tuple(ArmPlan(arm=arm.name) for arm in arms)


def cut(name: str, folder: Path) -> Path:
    """A bundled example with every so many of its rows, all choices fixed, in float32."""
    import trimtab.demos

    source = Path(trimtab.demos.__file__).parent / name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("source", "make.py", "__pycache__", "documents-*"))
    file, every = KEPT[name]
    lines = (folder / file).read_text(encoding="utf-8").splitlines(keepends=True)
    if name == "handbook":
        for document in (folder / "documents").iterdir():
            if document.name not in DOCUMENTS:
                document.unlink()
        lines = [line for line in lines if json.loads(line).get("passage") in DOCUMENTS]
    if name == "spam":
        lines = MESSAGES.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / file).write_text("".join(lines[::every]), encoding="utf-8")
    text = (folder / "trimtab.toml").read_text(encoding="utf-8")
    before, _, _ = text.partition("[study]")
    before = re.sub(r"output_tokens = \d+", "output_tokens = 12", before).replace("[base]", FIXED)
    before = before.replace('metric = "contains"', 'metric = "token_f1"')  # the handbook's when the record was made
    if name == "handbook":
        before += "[retrieval]\nvector_weight = 0.5\n"  # the default when the record was made
    (folder / "trimtab.toml").write_text(f'{before}[study]\neffort = "none"{ARMS[name]}', encoding="utf-8")
    return folder


def figures(name: str, folder: Path) -> dict[str, Any]:
    """Losses by arm and step as hexadecimal floats, and the answers by arm and question."""
    import pyarrow.parquet as parquet

    from trimtab import study

    events: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:  # how fast this machine is stands in no record
        patch.setattr("trimtab.studies.planning.predict", untimed)
        patch.setattr("trimtab.arms.workspace.MIN_LATENCIES", 4)
        result = study(cut(name, folder), allow_commands=True, listeners=[events.append])
    assert [(arm.arm, arm.status, arm.why) for arm in result.arms if arm.status != "done"] == []
    losses: dict[str, list[str]] = {}
    for event in events:
        if event["stage"] == "train" and "loss" in event:
            losses.setdefault(event["arm"], []).append(float(event["loss"]).hex())
        if event["stage"] == "dev":
            losses.setdefault(f"{event['arm']} dev", []).append(float(event["dev_loss"]).hex())
    answers = {}
    for arm in result.arms:
        table = parquet.read_table(Path(result.report).parent / "arms" / arm.arm / "answers.parquet")
        answers[arm.arm] = {row["item_id"]: [row["answer"], row["score"]] for row in table.to_pylist()}
    return {"losses": losses, "answers": answers}


def kind() -> str:
    """The version of torch and the model of processor: together they decide the last bits of a sum."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    vendor = facts.get("vendor_id", platform.machine())
    amx = " AMX" if "amx_tile" in facts.get("flags", "").split() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    family = f"family {facts.get('cpu family')} model {facts.get('model')}"
    return f"torch {torch.__version__}, {vendor} {capability}{amx}, {family}"


def exactly(mine: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """As far as the record goes; that nothing came beyond it is seen by `nearly`."""
    for arm, steps in recorded["losses"].items():
        assert mine["losses"][arm][: len(steps)] == steps
    for arm, given in recorded["answers"].items():
        assert mine["answers"][arm] == given


def nearly(mine: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    for told in ("losses", "answers"):
        assert mine[told].keys() == recorded[told].keys()
    for arm, steps in recorded["losses"].items():
        own = [float.fromhex(value) for value in mine["losses"][arm]]
        assert own == pytest.approx([float.fromhex(value) for value in steps], rel=2e-3), arm
    for arm, given in recorded["answers"].items():
        assert mine["answers"][arm].keys() == given.keys()
        same = sum(mine["answers"][arm][item] == one for item, one in given.items())
        assert same >= 0.9 * len(given) - 1, arm


@pytest.mark.parametrize("name", KEPT)
def test_seeded_losses_and_answers_are_what_they_were(
    name: str, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    threads(1)  # as records are made: lanes and sums hang on their number
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    mine = figures(name, tmp_path / name)
    if kind() in recorded:
        exactly(mine, recorded[kind()][name])
    nearly(mine, next(iter(recorded.values()))[name])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        kept = {kind(): {name: figures(name, Path(place) / name) for name in KEPT}}
    RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
