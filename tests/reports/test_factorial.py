"""Which two by twos are found among the arms, and what the report says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from arm_files import write_arm_file
from read_studies import changed

from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, Estimate
from trimtab.reports.components import StackedBar
from trimtab.reports.effects import factorial_section, interaction_words, two_by_twos
from trimtab.reports.folder import ArmEntry, StudyFolder, read_study
from trimtab.reports.page import write_report
from trimtab.reports.quality import quality_section

CONTEXTS = ("prompt", "few-shot", "nearest-shots", "rag", "rag+quote", "rag+few-shot", "rag+nearest-shots")


def arm(name: str, **settings: float | int | str | bool) -> Arm:
    weights, *context = name.split("+")
    if weights in CONTEXTS:
        weights, context = "base", [weights, *context]
    method = weights.split("-")[0]
    stages = () if method in ("base", "api", "linear") else ("sft",)
    endpoint = weights.removeprefix("api-") if method == "api" else None
    together = "+".join(context) or "prompt"
    return Arm(name=name, weights=method, stages=stages, context=together, endpoint=endpoint, settings=settings)


def found(*arms: Arm) -> list[tuple[str, str, str, str]]:
    return [(one.neither.name, one.first.name, one.second.name, one.both.name) for one in two_by_twos(arms)]


@pytest.mark.parametrize("context", CONTEXTS[1:])
def test_tuning_against_every_context_composed_ones_included(context: str) -> None:
    four = ("prompt", "lora", context, f"lora+{context}")
    assert four in found(*map(arm, four))
    for left_out in four:
        assert four not in found(*(arm(name) for name in four if name != left_out))


@pytest.mark.parametrize("shots", ["few-shot", "nearest-shots"])
@pytest.mark.parametrize("weights", ["", "api-big", "lora"])
def test_shots_against_passages_on_the_same_weights(weights: str, shots: str) -> None:
    names = [weights or "prompt", *("+".join(filter(None, (weights, one))) for one in ("rag", shots, f"rag+{shots}"))]
    assert found(*map(arm, names)) == [tuple(names)]


def test_endpoints_are_never_mixed() -> None:
    names = ("api-big", "api-big+rag", "api-small+few-shot", "api-small+rag+few-shot", "api-big+few-shot")
    assert found(*map(arm, names)) == []


def test_an_endpoint_is_no_tuning_of_the_base() -> None:
    assert found(*map(arm, ("prompt", "rag", "api-big", "api-big+rag"))) == []


def test_arms_are_told_apart_by_what_they_are_not_by_name() -> None:
    """A variant with a setting of its own is another arm: its effect would be mixed with that of the setting."""
    plain = [arm("prompt"), arm("lora"), arm("rag")]
    wide = Arm(name="own", weights="lora", stages=("sft",), context="rag", settings={"rank": 64})
    assert found(*plain, wide) == []
    alone = Arm(name="own-alone", weights="lora", stages=("sft",), context="prompt", settings={"rank": 64})
    assert found(*plain, wide, alone) == [("prompt", "own-alone", "rag", "own")]
    more = Arm(name="more", weights="base", stages=(), context="rag", settings={"passages": 8})
    assert found(*plain[:2], more, arm("lora+rag")) == []
    assert found(*plain[:2], more, arm("lora+rag", passages=8)) == [("prompt", "lora", "more", "lora+rag")]


def entry(one: Arm, scores: np.ndarray) -> ArmEntry:
    answers = tuple(
        Answer(
            item_id=f"{index:04d}", split="test", group=None, slice=None, seed=0, input="q", reference=("r",),
            answer="a",
            score=float(score), format_ok=True, abstained=False, probability=None, seconds=0.1, prompt_tokens=1,
            new_tokens=1, hits=(), failure="none",
        )
        for index, score in enumerate(scores)
    )  # fmt: skip
    mean = float(scores.mean())
    score = Estimate(value=mean, low=mean, high=mean, n=len(scores))
    return ArmEntry(arm=one, result=ArmResult(arm=one.name, status="done", score=score), answers=answers)


def study_of(make_study: Callable[..., Path], place: Path, levels: Mapping[str, float]) -> StudyFolder:
    random = np.random.default_rng(1)
    entries = [entry(arm(name), np.clip(level + random.normal(0, 0.05, 200), 0, 1)) for name, level in levels.items()]
    return changed(read_study(make_study(place, arms=("prompt",), items=5)), arms=tuple(entries))


def test_a_study_of_the_base_alone_shows_shots_against_passages(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    levels = {"prompt": 0.2, "few-shot": 0.4, "rag": 0.5, "rag+few-shot": 0.5}
    section = factorial_section(study_of(make_study, tmp_path, levels))
    assert section is not None
    assert [row[0] for row in section.grid.rows] == [
        "instruction", "fixed shots", "retrieved passages", "retrieved passages and fixed shots",
    ]  # fmt: skip
    assert [one.grid.label for one in section.effects.entries] == ["Effects of rag+few-shot"]
    assert section.effects.entries[0].sentence.startswith(
        "With base weights, retrieved passages and fixed shots overlap: rag+few-shot "
    )
    assert section.effects.entries[0].grid.rows[0][0] == "retrieved passages alone (rag − prompt)"


def test_arms_that_did_not_run_alone_fill_no_table(make_study: Callable[..., Path], tmp_path: Path) -> None:
    """Nor is their colour or shape explained beside a chart that they are not in."""
    study = study_of(make_study, tmp_path, {"prompt": 0.2, "rag": 0.5, "lora": 0.4, "lora+rag": 0.5})
    assert factorial_section(study) is not None
    unrun = tuple(changed(one, status="not_run", score=None, answers=()) for one in study.arms)
    assert factorial_section(changed(study, arms=unrun)) is None
    assert factorial_section(changed(study, arms=(study.arms[0], *unrun[1:]))) is None
    told = [
        {item.text for item in quality_section(changed(study, arms=arms)).legend}
        for arms in (study.arms, (study.arms[0], *unrun[1:]))
    ]
    assert told[1] < told[0]


def test_an_endpoint_has_its_column_and_its_interaction(make_study: Callable[..., Path], tmp_path: Path) -> None:
    levels = {"prompt": 0.2, "api-big": 0.2, "api-big+rag": 0.4, "api-big+few-shot": 0.3, "api-big+rag+few-shot": 0.9}
    section = factorial_section(study_of(make_study, tmp_path, levels))
    assert section is not None
    assert [column.title for column in section.grid.columns] == ["Context ↓ Weights →", "base", "api-big"]
    cell = section.grid.rows[-1][2]
    assert isinstance(cell, StackedBar)
    assert cell.entries[0][0].shape == "triangle"
    assert section.effects.entries[0].sentence.startswith(
        "With api-big, retrieved passages and fixed shots help each other: "
    )


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 0.3, "help each other"), (-0.1, 0.3, "add up"), (-0.3, -0.1, "overlap")]
)
def test_an_interaction_is_called_only_when_clear_of_zero(low: float, high: float, word: str) -> None:
    square = two_by_twos(list(map(arm, ("prompt", "lora", "rag", "lora+rag"))))[0]
    said = interaction_words(square, Estimate(value=(low + high) / 2, low=low, high=high, n=9))
    assert said.startswith(f"With lora, tuning and retrieved passages {word}")


def test_composed_arms_stand_in_every_section(make_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    content = json.loads((folder / "study.json").read_text())
    names = {"few-shot": "rag+few-shot", "rag": "api-x+rag+nearest-shots"}
    for one in content["arms"]:
        if one["arm"] in names:
            (folder / "arms" / one["arm"]).rename(folder / "arms" / names[one["arm"]])
            one["arm"] = names[one["arm"]]
            one["chosen"] = {"passages": 3, "shots": 4}
            write_arm_file(folder / "arms" / one["arm"], one["arm"])
    (folder / "study.json").write_text(json.dumps(content))
    page = write_report(folder).read_text()
    assert "3 passages, 4 shots" in page
    assert "with shots and passages" in page
    assert (
        "shown passages retrieved from the documents and shown the same worked examples before every question" in page
    )
    for section in page.split("<section")[1:]:
        title = section.split('id="')[1].split('"')[0]
        if title not in ("comparisons", "learning", "remembered", "training", "data", "manifest"):
            assert ">rag+few-shot<" in section, title
            assert ">api-x+rag+nearest-shots<" in section, title
