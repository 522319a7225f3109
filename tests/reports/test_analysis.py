"""The interaction of tuning and context, the choice of examples, and how training events become curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.base.records import Answer, Arm, Estimate
from trimtab.reports.analysis import disagreements, factorials, failure_examples, group_count
from trimtab.reports.effects import interaction_sentence
from trimtab.reports.folder import Row, read_study

SPECS = {"prompt": ("base", (), "prompt"), "lora": ("lora", ("sft",), "prompt"), "rag": ("base", (), "rag"), "lora+rag": ("lora", ("sft",), "rag")}  # fmt: skip


def row(name: str, scores: Sequence[float], groups: Sequence[str | None] | None = None, seed: int = 0) -> Row:
    weights, stages, context = SPECS[name]
    answers = tuple(
        Answer(
            item_id=f"{index:04d}", split="test", group=groups[index] if groups else None, slice=None, seed=seed, input="q",
            reference=("r",), answer="a", score=score, format_ok=True, abstained=False, probability=None, seconds=0.1,
            prompt_tokens=1, new_tokens=1, hits=(), failure="none" if score == 1 else "wrong",
        )
        for index, score in enumerate(scores)
    )  # fmt: skip
    arm = Arm(name=name, weights=weights, stages=stages, context=context)
    return Row(arm=arm, status="done", score=Estimate(value=0.5, low=0.4, high=0.6, n=len(scores)), answers=answers)


@given(st.integers(2, 60), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_effects_are_differences_of_means(items: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((4, items))
    found = factorials([row(name, line) for name, line in zip(SPECS, scores, strict=True)])[0]
    prompt, lora, rag, blend = scores.mean(axis=1)
    assert found.tuning.value == pytest.approx(lora - prompt)
    assert found.contextual.value == pytest.approx(rag - prompt)
    assert found.interaction.value == pytest.approx(blend - lora - rag + prompt)
    assert found.interaction.low <= found.interaction.value <= found.interaction.high


def test_interval_matches_the_normal_theory_of_paired_items() -> None:
    scores = np.random.default_rng(3).random((4, 400))
    found = factorials([row(name, line) for name, line in zip(SPECS, scores, strict=True)])[0].interaction
    contrast = scores[3] - scores[1] - scores[2] + scores[0]
    half = 1.96 * contrast.std(ddof=1) / 400**0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_repeated_groups_widen_the_interval() -> None:
    random = np.random.default_rng(5)
    scores = np.repeat(random.random((4, 50)), 6, axis=1)
    groups = [f"g{index // 6}" for index in range(300)]
    alone = factorials([row(name, line) for name, line in zip(SPECS, scores, strict=True)])[0]
    grouped = factorials([row(name, line, groups) for name, line in zip(SPECS, scores, strict=True)])[0]
    assert grouped.groups == 50
    assert alone.groups is None
    width = (grouped.interaction.high - grouped.interaction.low) / (alone.interaction.high - alone.interaction.low)
    assert width == pytest.approx(6**0.5, rel=0.15)


def test_few_groups_are_not_taken_for_independent_questions() -> None:
    """Six groups of 50 equal rows are six observations: the interval is Student's with five degrees of freedom."""
    means = np.random.default_rng(2).random((4, 6))
    groups = [f"g{index // 50}" for index in range(300)]
    rows = [row(name, line, groups) for name, line in zip(SPECS, np.repeat(means, 50, axis=1), strict=True)]
    found = factorials(rows)[0].interaction
    contrast = means[3] - means[1] - means[2] + means[0]
    assert found.high - found.value == pytest.approx(2.5706 * contrast.std(ddof=1) / 6**0.5, rel=1e-3)


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    assert group_count(row("rag", [1, 0, 1], ["a", None, None]).answers) is None
    assert group_count(row("rag", [1, 0, 1, 1], ["a", "a", None, None]).answers) == 3


@pytest.mark.parametrize(("blend", "word"), [(1.0, "help each other"), (0.5, "add up"), (0.3, "overlap")])
def test_interaction_is_called_only_when_clear(blend: float, word: str) -> None:
    random = np.random.default_rng(1)
    levels = {"prompt": 0.2, "lora": 0.3, "rag": 0.4, "lora+rag": blend}
    rows = [row(name, level + random.normal(0, 0.05, 200)) for name, level in levels.items()]
    assert word in interaction_sentence(factorials(rows)[0])


def test_no_interaction_without_all_four_arms_or_shared_items() -> None:
    rows = [row(name, [0.1, 0.9]) for name in SPECS]
    assert factorials(rows)
    assert not factorials(rows[:3])
    other = replace(rows[3], answers=tuple(replace(answer, item_id="x" + answer.item_id) for answer in rows[3].answers))
    assert not factorials([*rows[:3], other])


def test_disagreements_show_wins_and_losses_of_the_chosen_arm() -> None:
    rows = [row("prompt", [1, 1, 0, 0, 0]), row("rag", [0, 0, 1, 1, 0])]
    found = disagreements(rows, "rag")
    assert {one.answers[0][1].item_id for one in found} == {"0000", "0001", "0002", "0003"}
    assert found[0].answers[1][1].score == 1
    assert found[1].answers[1][1].score == 0


def test_examples_come_from_different_groups() -> None:
    one = row("rag", [0, 0, 0, 0, 1], ["a", "a", "b", "b", "c"])
    assert [answer.group for _, answer in failure_examples([one], "wrong")] == ["a", "b"]


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
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*docs, *docs, *rest, *noise]) + cut)
    docs_curve, sft_curve = read_study(folder).rows[0].curves
    assert [point.loss for point in docs_curve.points] == [5.0]
    assert [(point.step, point.loss) for point in sft_curve.points] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_stages_of_equal_length_are_told_apart(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("lora",), items=5)
    events = [{"stage": "train", "arm": "lora", "step": step, "of": 3, "loss": 1.0} for step in (1, 2, 3, 1, 2, 3)]
    dev = {"stage": "dev", "arm": "lora", "step": 3, "of": 3, "dev_loss": 2.0}
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*events, dev]))
    curves = read_study(folder).rows[0].curves
    assert [len(curve.points) for curve in curves] == [3, 3]
    assert curves[1].points[-1].dev_loss == 2.0


def test_what_was_said_of_a_run_holds_until_it_is_made_again(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path, arms=("lora", "lora+rag"), items=5)
    step = {"stage": "train", "arm": "lora", "seed": 0, "step": 1, "of": 1, "loss": 1.0}
    said = {"stage": "train", "arm": "lora", "seed": 0, "step": 1, "of": 1, "note": "it memorises"}
    again = [{**step, "arm": "lora+rag"}, {**said, "arm": "lora+rag"}, {**step, "arm": "lora+rag"}]
    seeds = [{**step, "seed": 1}, {**said, "seed": 1}]
    events = [step, said, *seeds, *again]
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    assert [row.health for row in read_study(folder).rows] == [("it memorises",), ()]


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
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    assert read_study(folder).rows[0].curves[0].kept == kept


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("lora-docs+rag", ("lora", ("docs", "sft"), "rag")),
        ("full", ("full", ("sft",), "prompt")),
        ("nearest-shots", ("base", (), "nearest-shots")),
        ("api-big", ("api", (), "prompt")),
        ("linear", ("linear", (), "prompt")),
        ("wide", ("lora", ("docs", "sft"), "rag")),
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
    arm = read_study(folder).rows[1].arm
    assert (arm.weights, arm.stages, arm.context) == identity
