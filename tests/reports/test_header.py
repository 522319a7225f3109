"""What the page says before its figures: what the verdict rests on, what weakens it, what would flip it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arm_files import write_arm_file
from read_studies import changed

from trimtab.base.files import append_own
from trimtab.base.grammar import describe_arm as in_words
from trimtab.base.results import BudgetSpent, Comparison, Estimate, Flip
from trimtab.decision.sensitivity import NOT_SHOWN
from trimtab.measurement.clusters import too_few_groups
from trimtab.reports.charts import chart_svg
from trimtab.reports.components import StyledText
from trimtab.reports.costs import flip_sentences
from trimtab.reports.details import slices_section
from trimtab.reports.effects import better_first, comparison_words, factorial_section
from trimtab.reports.failures import failures_section
from trimtab.reports.folder import StudyFolder, read_study
from trimtab.reports.header import caveats, header_section, rests_on
from trimtab.reports.page import render_study, write_report
from trimtab.reports.quality import tradeoffs_section
from trimtab.reports.study_view import build_view

Make = Callable[..., Path]


@pytest.fixture
def study(make_study: Make, tmp_path: Path) -> StudyFolder:
    return read_study(make_study(tmp_path))


def with_groups(study: StudyFolder, count: int) -> StudyFolder:
    """The study with its questions in `count` groups."""
    rows = [
        changed(row, answers=tuple(changed(one, group=f"g{int(one.item_id[1:]) % count}") for one in row.answers))
        for row in study.arms
    ]
    return changed(study, arms=tuple(rows))


def test_a_sound_study_is_told_its_data_warning_alone(study: StudyFolder) -> None:
    assert caveats(study) == ["1 warning about the data: see “The data”."]


@pytest.mark.parametrize(("count", "told"), [(9, True), (10, False), (300, False)])
def test_too_few_groups_are_told(study: StudyFolder, count: int, told: bool) -> None:
    """How many are too few is the statistics' to say, and stands in the manifest."""
    few = too_few_groups([f"g{item % count}" for item in range(300)])
    grouped = changed(with_groups(study, count), manifest={**study.manifest, "too_few_groups": few})
    assert any(f"only {count} groups" in one for one in caveats(grouped)) is told
    assert (f"300 test questions in {count} groups" in "; ".join(rests_on(grouped))) is (count < 300)


def test_answers_with_other_numbers_are_told_for_all_arms_in_one_sentence(study: StudyFolder) -> None:
    rows = list(study.arms)
    for place, number in ((0, 0.0), (1, 7.0), (2, 1200.0)):
        rows[place] = changed(rows[place], extras={"facts_disagree": number})
    found = caveats(changed(study, arms=tuple(rows)))
    done = [row.name for row in changed(study, arms=tuple(rows)).done if row.result.extras.get("facts_disagree")]
    numbers = {rows[1].name: "7", rows[2].name: "1,200"}
    told = " and ".join(f"{numbers[name]} of {name}" for name in done)
    assert found[-2].startswith(f"Answers with other numbers or dates than the reference: {told}. token F1 pays")


def test_a_test_set_that_can_show_no_difference_is_told(study: StudyFolder) -> None:
    blind = changed(study, manifest={**study.manifest, "smallest_difference": 1.0})
    assert "too few to show any difference between arms reliably (predicted)" in rests_on(blind)


def test_the_budget_and_what_the_study_took_are_told_within_it_and_over_it(study: StudyFolder) -> None:
    within = BudgetSpent(budget="20m", of=1200.0, seconds=1080.0)
    assert "budget 20m, took 18.0 min" in rests_on(changed(study, spent=within))
    over = BudgetSpent(budget="20m", of=1200.0, seconds=2040.0)
    assert "budget 20m, took 34.0 min, 70% more" in rests_on(changed(study, spent=over))
    assert not any("budget" in ground for ground in rests_on(study))


def test_openings_cuts_missing_arms_and_left_out_rows_are_told(study: StudyFolder) -> None:
    rows = list(study.arms)
    rows[1] = changed(rows[1], status="failed", why="out of memory", score=None)
    rows[3] = changed(rows[3], extras={"skipped_rows": 12.0}, health=("it memorises",))
    manifest = {**study.manifest, "test_openings": 3, "cuts": ["1 of 3 seeds"], "remarks": []}
    found = caveats(changed(study, arms=tuple(rows), manifest=manifest))
    assert found[0].startswith("Each opening of the test set after the first")
    assert found[1:] == [
        "To fit the budget: 1 of 3 seeds.",
        "Nothing is known of few-shot: without a score it takes no part in the verdict.",
        "lora: it memorises.",
        "lora: 12 training rows longer than the model’s context, left out.",
    ]


def test_health_stands_at_the_top_and_beside_its_curve(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    note = {"stage": "train", "arm": "lora", "seed": 17, "step": 180, "of": 180, "note": "dev loss was still falling"}
    append_own(folder / "events.jsonl", note)
    page = write_report(folder).read_text()
    assert "lora: dev loss was still falling." in page.split('<section id="quality">')[0]
    curves = page.split('<section id="training">')[1].split("</section>")[0].split('class="run"')
    assert ["Dev loss was still falling." in one for one in curves[1:]] == [True, False]


@pytest.mark.parametrize(
    ("flip", "sentence"),
    [
        ({"what": "machine_hour", "below": 0.25}, "With a machine hour below 0.25 USD (now 0.4) the"),
        ({"what": "quality", "below": 0.62}, "With a target below 0.62 (now 0.8) the"),
        ({"what": "change.per_month", "above": 0.1}, "With the monthly rate of change above 0.1 the"),
        (
            {"what": "change.per_month", "below": 0.01, "above": 0.1},
            "With the monthly rate of change below 0.01 or above 0.1 the",
        ),
        ({"what": "change.kinds", "above": 2.5}, "With all rates of change above 2.5 times the stated ones the"),
    ],
)
def test_a_flip_says_what_how_far_and_what_holds_now(study: StudyFolder, flip: dict[str, Any], sentence: str) -> None:
    flipped = changed(study, verdict=changed(study.result.verdict, flips=(Flip(then="rag", **flip),)))
    assert flip_sentences(flipped) == [f"{sentence} verdict would be rag."]


@pytest.mark.parametrize(("above", "chance"), [(250_000, "under 1%"), (150_000, "13%"), (100_001, "50%")])
def test_break_even_is_told_with_the_chance_of_the_other_side(study: StudyFolder, above: float, chance: str) -> None:
    flip = Flip(what="questions_per_month", then="rag", above=above)
    (sentence,) = flip_sentences(changed(study, verdict=changed(study.result.verdict, flips=(flip,))))
    assert sentence == (
        f"With questions a month above {above:,} (now 100,000) the verdict would be rag. If the volume may be off by a "
        f"factor of 2, the chance of that is {chance}."
    )


@pytest.mark.parametrize(
    ("flip", "sentence"),
    [
        ({"what": "quality", "above": 0.8461}, "With a target above 0.85 (now 0.8) no arm would be shown to reach it."),
        (
            {"what": "mix.billing", "below": 0.2},
            "With less than 20% of the traffic on the slice billing no arm would be shown to reach the target.",
        ),
    ],
)
def test_a_flip_to_no_arm_says_why(study: StudyFolder, flip: dict[str, Any], sentence: str) -> None:
    flipped = changed(study, verdict=changed(study.result.verdict, flips=(Flip(then=NOT_SHOWN, **flip),)))
    assert flip_sentences(flipped) == [sentence]
    if flip["what"] != "quality":
        without = changed(flipped, manifest=flipped.manifest, target=None)
        assert "would not show which arm to take" in flip_sentences(without)[0]


def test_a_long_verdict_is_headed_by_its_first_sentence(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    content = json.loads((folder / "study.json").read_text())
    first = "lora+rag is within 0.02 of the best at 1/3.1 of the cost, " * 3 + "it costs 1.5 h."
    content["verdict"]["sentence"] = f"{first} Not compared: x was not run. It speaks of 2.5 things."
    (folder / "study.json").write_text(json.dumps(content))
    page, markdown = write_report(folder).read_text(), (folder / "report.md").read_text()
    rest = "Not compared: x was not run. It speaks of 2.5 things."
    plainly = f'<h1 class="long">{first}</h1>\n<p class="plainly">{rest}</p>'
    assert plainly in page
    assert "<summary>The verdict in full</summary>\n<p>Of 100 questions, " in page.partition(plainly)[2]
    assert f"<title>handbook: {first}</title>" in page
    assert markdown.startswith(f"# {first}\n\n{rest}\n")
    assert "\n\nOf 100 questions, " in markdown


def test_an_open_verdict_has_nothing_to_flip(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    content = json.loads((folder / "study.json").read_text())
    content["verdict"] = {
        "status": "not_shown",
        "arm": None,
        "sentence": "Not shown: 80 more would do.",
        "needs": "80 more",
    }
    (folder / "study.json").write_text(json.dumps(content))
    page, markdown = write_report(folder).read_text(), (folder / "report.md").read_text()
    assert "would flip" not in page + markdown
    assert "What would settle it" not in page + markdown, "the sentence says it already"
    content["verdict"]["needs"] = "not more test questions: the best score, 0.6, is not above the target"
    (folder / "study.json").write_text(json.dumps(content))
    assert "What would settle it" not in write_report(folder).read_text(), "nor does that settle anything"


def test_assumed_volumes_are_not_marked_as_the_users(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    (folder / "task.toml").write_text('[task]\nname="handbook"\nkind="answer"\n')
    content = json.loads((folder / "study.json").read_text())
    content["volume"] = {"questions_per_month": 10_000, "horizon_months": 12, "assumed": True}
    (folder / "study.json").write_text(json.dumps(content))
    page = write_report(folder).read_text()
    costs = page.split('<section id="costs">')[1].split("</section>")[0]
    assert "10,000 questions a month for 12 months (assumed: the task file states no volume)" in costs
    assert "With questions a month below 12,000 (now 10,000, assumed)" in costs
    assert "mark yours" not in costs
    assert "Cost over 12 months at an assumed 10,000 questions a month" in page.split('<section id="quality">')[0]


def test_a_limit_is_drawn_and_told_against_the_upper_bound_of_the_latency(study: StudyFolder) -> None:
    found = tradeoffs_section(study)
    assert found is not None
    chart = found.charts[0]
    assert {dot.label: (dot.x, dot.x_high) for dot in chart.dots}["rag"] == (0.64, pytest.approx(0.768))
    assert chart.limit == 1.5
    assert "ends at its upper 95% bound" in found.heading.lead
    assert str(chart_svg(chart)).count("whisker bound") == 2 * len(chart.dots)
    assert "whisker bound" not in chart_svg(found.charts[1]), "costs have none"
    assert "half within 393 ms; upper 95% bound in the minutes timed 786 ms; the limit is 1.5 s" in [
        fact.note for fact in header_section(study).facts
    ]
    wide = changed(study, arms=tuple(changed(arm, latency_p95_high_ms=9000.0) for arm in study.arms))
    assert "whisker bound" in chart_svg(tradeoffs_section(wide).charts[0])  # type: ignore[union-attr]


def test_a_task_file_that_begins_with_a_byte_order_mark_keeps_its_prices_and_limits(
    make_study: Make, tmp_path: Path
) -> None:
    folder = make_study(tmp_path)
    (folder / "task.toml").write_text("\ufeff" + (folder / "task.toml").read_text(), encoding="utf-8")
    found = read_study(folder)
    assert found.cost is not None
    assert found.cost.machine_hour is not None
    assert found.limits is not None
    assert found.limits.latency_p95_ms == 1500


def test_slices_of_few_questions_are_folded(study: StudyFolder) -> None:
    sizes = {"a": 10, "b": 9, "c": 1}
    one = Estimate(value=0.5, low=0.4, high=0.6, n=0)
    sliced = {name: changed(one, n=size) for name, size in sizes.items()}
    few = slices_section(changed(study, arms=tuple(changed(arm, slices=sliced) for arm in study.arms)))
    assert few is not None
    assert few.grid is not None
    assert few.few is not None
    assert [column.title for column in few.grid.columns[1:]] == [StyledText(text="a", soft="n\u00a0=\u00a010")]
    assert few.few.label == "2 slices of fewer than 10 questions"
    assert [column.title.text for column in few.few.columns[1:] if isinstance(column.title, StyledText)] == ["b", "c"]
    only = slices_section(changed(study, arms=tuple(changed(arm, slices={"c": sliced["c"]}) for arm in study.arms)))
    assert only is not None
    assert only.grid is None
    page = render_study(build_view(changed(study, arms=tuple(changed(arm, slices=sliced) for arm in study.arms))))
    section = page.split('<section id="slices">')[1].split("</section>")[0]
    assert "<b>2 slices of fewer than 10 questions</b></summary>" in section
    assert section.index("a <span") < section.index("<details>") < section.index("b <span")


def test_a_graded_metric_shows_how_scores_spread_and_counts_none_as_right(study: StudyFolder) -> None:
    graded = tuple(
        changed(arm, answers=tuple(changed(one, failure="none") for one in arm.answers)) for arm in study.arms
    )
    found = failures_section(changed(study, metric="rouge_l", kind="generate", arms=graded))
    assert found is not None
    assert found.grid is not None
    assert found.heading.title == "How the scores spread"
    assert [column.title for column in found.grid.columns][1:4] == [
        "lowest quarter up to",
        "half up to",
        "three quarters up to",
    ]
    assert "right" not in {column.title for column in found.grid.columns}
    assert found.kinds == ()
    assert "no answer counts as right or wrong" in found.heading.lead


def test_machine_seconds_and_money_never_share_an_axis(study: StudyFolder) -> None:
    rows = list(study.arms)
    cost = rows[0].result.cost
    assert cost is not None
    rows[0] = changed(rows[0], cost=changed(cost, currency="machine seconds"))
    found = tradeoffs_section(changed(study, arms=tuple(rows)))
    assert found is not None
    by_latency, by_cost = ({dot.label for dot in chart.dots} for chart in found.charts)
    assert by_latency - by_cost == {"prompt"}


def test_the_better_arm_is_named_first() -> None:
    lost = Comparison(a="rag", b="lora", difference=-0.2, low=-0.3, high=-0.1, p=0.001, p_holm=0.002)
    seen = better_first(lost)
    assert (comparison_words(seen, 0.05), seen.difference, seen.low, seen.high) == (
        "lora is better than rag",
        0.2,
        0.1,
        0.3,
    )
    assert comparison_words(changed(lost, p_holm=0.2), 0.05) == "rag and lora: no difference shown"


def test_every_arm_is_said_in_words(study: StudyFolder) -> None:
    words = [in_words(row.arm) for row in study.arms]
    assert len(set(words)) == len(words)
    assert in_words(changed(study.arms[3].arm, stages=("docs", "sft"))) != words[3]


def test_a_table_of_one_row_or_column_is_left_out(study: StudyFolder) -> None:
    assert factorial_section(study) is not None
    for alone in (study.arms[:3], (study.arms[0], study.arms[3])):  # base weights alone; the instruction alone
        assert factorial_section(changed(study, arms=alone)) is None


def test_variants_are_told_apart_by_their_settings(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    write_arm_file(folder / "arms" / "lora", "lora", settings={"rank": 64, "learning_rate": 0.001})
    rows = read_study(folder).arms
    assert (
        in_words(rows[3].arm)
        == "the model tuned by a small adapter (LoRA), with the instruction alone (rank 64, learning rate 0.001)"
    )


def test_few_questions_leave_the_tail_of_the_latency_open(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    content = json.loads((folder / "study.json").read_text())
    for arm in content["arms"]:
        arm["latency_p95_ms"] = None
    (folder / "study.json").write_text(json.dumps(content))
    header_section = write_report(folder).read_text().split('<section id="quality">')[0]
    assert "Half of answers within" in header_section
    assert "known from 60 questions up" in header_section


def test_private_data_and_overlaps_let_through_are_told(make_study: Make, tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"overlaps": 12, "private": {"email": 2, "phone": 1}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page, markdown = write_report(folder).read_text(), (folder / "report.md").read_text()
    for text in (page, markdown):
        assert "12 overlaps between splits let through: scores may be too high." in text
        assert "private data in the rows: 2 e-mail addresses, 1 phone number" in text
