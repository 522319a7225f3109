"""Records to JSON and back: nothing is lost, nothing is guessed, nothing of another version is misread."""

import json
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from trimtab.base.codec import from_plain, read_record, to_plain, write_record
from trimtab.base.errors import InputError
from trimtab.base.records import Arm
from trimtab.base.results import (
    ArmRecord,
    ArmResult,
    Classes,
    ClassRow,
    Comparison,
    Cost,
    Estimate,
    Flip,
    StudyResult,
    TokenFee,
    Usage,
    Verdict,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_values_stay_as_they_are(value):
    plain = to_plain(value)
    assert plain == value
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(value))


@dataclass(frozen=True)
class Inner:
    path: Path
    when: date


@dataclass(frozen=True)
class Outer:
    items: tuple[Inner, ...]
    value: float
    count: np.int64


class Table(BaseModel):
    files: tuple[Path, ...]


def test_records_become_objects():
    outer = Outer((Inner(Path("a/b"), date(2026, 11, 1)),), float("nan"), np.int64(3))
    expected = {"items": [{"path": "a/b", "when": "2026-11-01"}], "value": None, "count": 3}
    assert to_plain(outer) == expected
    assert to_plain({"table": Table(files=(Path("x"),)), "f": np.float32(0.5)}) == {"table": {"files": ["x"]}, "f": 0.5}
    assert to_plain([True, np.float64("inf")]) == [True, None]


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_plain({"x": object()})


ESTIMATE = Estimate(value=0.8, low=0.7, high=0.9, n=30)
DONE = ArmResult(
    arm="lora",
    status="done",
    score=ESTIMATE,
    seeds=2,
    seed_scores=(0.75, 0.85),
    passes=True,
    p_target=0.01,
    format_ok=1.0,
    abstention={"recall": 0.5},
    slices={"rare": Estimate(value=0.5, low=0.2, high=0.8, n=9)},
    extras={"steps": 4.0},
    cost=Cost(total=3.0, up_front=1.0, monthly=0.2, currency="USD"),
    chosen={"shots": 4},
)
RESULTS = (
    DONE,
    replace(DONE, cost=None, passes=None, p_target=None, slices={}),
    ArmResult(arm="rag", status="failed", why="w"),
    ArmResult(arm="rag", status="not_run", why="w"),
)
STUDY = StudyResult(
    study="S",
    task="t",
    metric="accuracy",
    target=None,
    verdict=Verdict(status="shown", arm="lora", sentence="s", flips=(Flip(what="v", then="rag", below=3.0),)),
    arms=RESULTS,
    comparisons=(Comparison(a="a", b="b", difference=0.1, low=0.0, high=0.2, p=0.04, p_holm=0.08),),
    report="r.html",
)
ARM = Arm(
    name="own",
    weights="lora",
    stages=("docs", "sft"),
    context="rag+few-shot",
    settings={"rank": 4, "learning_rate": {"docs": 1e-4, "sft": 1e-3}},
)
RECORD = ArmRecord(
    arm=ARM,
    digest="d",
    model="m",
    revision=None,
    embedding="e",
    usage=Usage(
        train_seconds=1.0,
        evaluation_seconds=2.0,
        index_seconds=0.0,
        seconds_per_question=0.1,
        prompt_tokens=20.0,
        new_tokens=3.0,
        runs_on_own_machine=False,
        trained=True,
        token_fee=TokenFee(input=0.1, output=0.2),
    ),
    result=DONE,
    classes=Classes(
        rows=(ClassRow(label="x", precision=1.0, recall=0.5, f1=0.6, support=3),), selective={0.25: 1.0, 1.0: 0.5}
    ),
)


@pytest.mark.parametrize("record", [*RESULTS, STUDY, ARM, RECORD, ESTIMATE])
def test_a_record_comes_back_as_it_was(record):
    plain = json.loads(json.dumps(to_plain(record), allow_nan=False))
    assert from_plain(type(record), plain) == record


def test_figures_of_an_arm_stand_as_the_formats_say():
    plain = to_plain(STUDY)
    assert {key: plain["arms"][0][key] for key in ("arm", "score", "low", "high", "n")} == {
        "arm": "lora",
        "score": 0.8,
        "low": 0.7,
        "high": 0.9,
        "n": 30,
    }
    assert plain["arms"][0]["slices"]["rare"] == {"score": 0.5, "low": 0.2, "high": 0.8, "n": 9}
    assert plain["arms"][2] == {"arm": "rag", "status": "failed", "why": "w"}
    assert plain["verdict"]["flips"] == [{"what": "v", "then": "rag", "below": 3.0}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": 3}, "digest"),
        ({"digest": None}, "digest"),
        ({"more": 1}, "no 'more'"),
        ({"usage": {"trained": True}}, "usage"),
        ({"arm": {**to_plain(ARM), "colour": "red"}}, "Arm has no 'colour'"),
        ({"result": {**to_plain(DONE), "train_seconds": "3"}}, "train_seconds"),
    ],
)
def test_what_is_not_the_record_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said):
        from_plain(ArmRecord, {**to_plain(RECORD), **change})


def test_a_damaged_file_is_refused_by_name(tmp_path):
    file = tmp_path / "arm.json"
    write_record(file, RECORD)
    assert read_record(file, ArmRecord) == RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), "digest": None}))
    with pytest.raises(InputError, match=r"is damaged .digest"):
        read_record(file, ArmRecord)
