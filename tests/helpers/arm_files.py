"""An `arm.json` as a study writes it, for tests that need what stands in it beside the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from trimtab.base.codec import write_record
from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Arm
from trimtab.base.results import ArmRecord, ArmResult, Classes, Usage
from trimtab.measurement.evaluate import answers_schema

USAGE = Usage(
    train_seconds=0.0,
    evaluation_seconds=1.0,
    index_seconds=0.0,
    seconds_per_question=0.1,
    prompt_tokens=80.0,
    new_tokens=12.0,
    runs_on_own_machine=True,
    trained=False,
    token_fee=None,
)


def write_arm_file(
    folder: Path, name: str, *, classes: Classes | None = None, settings: Mapping[str, Any] | None = None
) -> Path:
    """Write `arm.json` of the arm `name` into `folder`, an arm of one's own where the name is none of the grammar."""
    arm = arm_from_name(name) or Arm(name=name, weights="lora", stages=("sft",), context="prompt")
    record = ArmRecord(
        arm=replace(arm, settings=settings or {}),
        digest="d",
        model="m",
        revision=None,
        embedding="e",
        usage=USAGE,
        result=ArmResult(arm=name, status="done"),
        classes=classes,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / "arm.json", record)
    return folder / "arm.json"


def put_probabilities(folder: Path, probability: float) -> None:
    """Give every answer of the arm in `folder` this probability."""
    rows = parquet.read_table(folder / "answers.parquet").to_pylist()
    for row in rows:
        row["probability"] = probability
    parquet.write_table(pa.Table.from_pylist(rows, schema=answers_schema()), folder / "answers.parquet")
