"""What is read from a study folder: how training events become curves, and what an arm is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from trimtab.base.files import FORM
from trimtab.reports.folder import read_study


def put_events(folder: Path, events: Iterable[Mapping[str, object]], cut: str = "") -> None:
    """Write the events of a study anew."""
    (folder / "events.jsonl").write_text("".join(json.dumps({**one, "form": FORM}) + "\n" for one in events) + cut)


def test_a_resumed_run_replaces_what_it_repeats(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)
    steps = [(1, 3.0, 9), (2, 2.0, 9), (4, 1.9, 9), (3, 1.0, 9)]
    docs = [{"stage": "train", "arm": "lora", "seed": 1, "step": 1, "of": 4, "loss": 5.0}]
    rest = [
        {"stage": "train", "arm": "lora", "seed": 1, "step": step, "of": of, "loss": loss} for step, loss, of in steps
    ]
    noise = [
        {"stage": "train", "arm": "lora", "seed": 1, "step": 0, "of": 9},
        {"stage": "answer", "arm": "lora", "step": 1},
    ]
    cut = '{"stage": "train", "arm": "lora", "seed": 1, "st'
    put_events(folder, [*docs, *docs, *rest, *noise], cut)
    docs_curve, sft_curve = read_study(folder).arms[0].curves
    assert [point.loss for point in docs_curve.points] == [5.0]
    assert [(point.step, point.loss) for point in sft_curve.points] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_stages_of_equal_length_are_told_apart(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)
    events = [{"stage": "train", "arm": "lora", "step": step, "of": 3, "loss": 1.0} for step in (1, 2, 3, 1, 2, 3)]
    dev = {"stage": "dev", "arm": "lora", "step": 3, "of": 3, "dev_loss": 2.0}
    put_events(folder, [*events, dev])
    curves = read_study(folder).arms[0].curves
    assert [len(curve.points) for curve in curves] == [3, 3]
    assert curves[1].points[-1].dev_loss == 2.0


def test_of_the_trials_of_a_stage_the_one_that_goes_on_to_the_end_is_shown(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)

    def steps(trial: str, places: list[int], of: int) -> list[dict[str, object]]:
        return [
            {"stage": "train", "arm": "lora", "step": step, "of": of, "loss": float(step), "trial": trial}
            for step in places
        ]

    docs = [{"stage": "train", "arm": "lora", "step": 1, "of": 1, "loss": 9.0}]
    events = [
        *docs,
        *steps("sft-0.1", [1, 2], 8),
        *steps("sft-0.2", [1, 2], 8),
        *steps("sft-0.1", [3, 4], 8),
        *steps("sft-0.1", [5, 6], 12),  # made longer
    ]
    put_events(folder, events)
    first, second = read_study(folder).arms[0].curves
    assert [point.loss for point in first.points] == [9.0]
    assert [point.step for point in second.points] == [1, 2, 3, 4, 5, 6]


def test_what_was_said_of_a_run_holds_until_it_is_made_again(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("lora", "lora+rag"), items=5)
    step = {"stage": "train", "arm": "lora", "seed": 0, "step": 1, "of": 1, "loss": 1.0}
    said = {"stage": "train", "arm": "lora", "seed": 0, "step": 1, "of": 1, "note": "it memorises"}
    again = [{**step, "arm": "lora+rag"}, {**said, "arm": "lora+rag"}, {**step, "arm": "lora+rag"}]
    seeds = [{**step, "seed": 1}, {**said, "seed": 1}]
    events = [step, said, *seeds, *again]
    put_events(folder, events)
    assert [row.health for row in read_study(folder).arms] == [("it memorises",), ()]


@pytest.mark.parametrize(
    ("readings", "kept"),
    [
        ([(10, 0.1, True), (20, 0.3, True), (30, 0.2, False)], 20),
        ([(10, 0.31, True), (20, 0.3, True), (30, 0.3, False)], 20),  # no better by the metric: the loop knows its rule
        ([(10, None, True), (20, None, False)], 10),
        ([(10, 0.3, False)], None),
    ],
)
def test_the_kept_weights_are_those_that_the_loop_called_the_best(
    make_study: Callable[..., Path], tmp_path: Path, readings: list[tuple[int, float | None, bool]], kept: int | None
) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)
    events = [
        {"stage": "dev", "arm": "lora", "step": step, "of": 30, "dev_loss": 2.0, "dev_metric": metric, "best": best}
        for step, metric, best in readings
    ]
    put_events(folder, events)
    assert read_study(folder).arms[0].curves[0].kept_step == kept


def test_a_byte_order_mark_in_the_task_file_loses_no_price_and_no_limit(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)
    hour = 'machine_hour = { price = 0.4, as_of = 2026-11-01, source = "ours" }'
    text = f'[task]\nkind = "answer"\n[data]\n[cost]\n{hour}\n[target]\nlatency_p95_ms = 900\n'
    (folder / "task.toml").write_bytes(text.encode("utf-8-sig"))
    study = read_study(folder)
    assert study.cost is not None
    assert study.cost.machine_hour is not None
    assert study.limits is not None
    assert (study.cost.machine_hour.price, study.limits.latency_p95_ms) == (0.4, 900)
    assert study.base == "smollm2-135m-q4"  # what a task file without [base] stands for


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("lora-docs+rag", ("lora", ("docs", "sft"), "rag")),
        ("full", ("full", ("sft",), "prompt")),
        ("nearest-shots", ("base", (), "nearest-shots")),
        ("api-big", ("api", (), "prompt")),
        ("linear", ("linear", (), "prompt")),
        ("wide", ("lora", ("docs", "sft"), "rag")),
        ("rag+few-shot", ("base", (), "rag+few-shot")),
        ("nearest-shots+rag", ("base", (), "rag+nearest-shots")),
        ("lora-docs+rag+few-shot", ("lora", ("docs", "sft"), "rag+few-shot")),
        ("api-big+rag", ("api", (), "rag")),
        ("api-big+few-shot+rag", ("api", (), "rag+few-shot")),
    ],
)
def test_an_arm_that_did_not_run_is_known_by_its_name(
    make_study: Callable[..., Path], tmp_path: Path, name: str, identity: tuple[str, tuple[str, ...], str]
) -> None:
    folder = make_study(tmp_path, arms=("prompt",), items=5)
    study = json.loads((folder / "study.json").read_text())
    study["arms"].append({"arm": name, "status": "not_run", "why": "no time"})
    (folder / "study.json").write_text(json.dumps(study))
    with open(folder / "task.toml", "a") as file:
        file.write('[arm.wide]\nweights="lora"\nstages=["docs", "sft"]\ncontext="rag"\n')
    arm = read_study(folder).arms[1].arm
    assert (arm.weights, arm.stages, arm.context) == identity
