"""`check` says what a study would do: what bars it, which arms cannot run, what is trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from study_tasks import CITIES, QUICK, THINGS, rows_of, write_task

from trimtab.arms.search.context_search import TrialPlan
from trimtab.arms.workspace import open_workspace, require_sound
from trimtab.base.errors import InputError
from trimtab.base.task import load_task
from trimtab.cli.check_page import draw_data_audit, draw_rest
from trimtab.measurement.power import assumed_variation, smallest_difference
from trimtab.studies.check import CheckResult, Forecast, MaskRun, TokenStatistics, check
from trimtab.studies.schedule import WallTime

KEYED = '[api.big]\nurl = "http://127.0.0.1:9/v1"\nmodel = "big"\nkey_env = "BIG_KEY"\n'


def drawn(result: CheckResult, **named: Any) -> str:
    with open("/dev/null", "w") as nowhere:
        console = Console(width=200, record=True, file=nowhere, **named)
        draw_data_audit(result, console)
        draw_rest(result, result, console, "trimtab study")
        return console.export_text(styles=bool(named))


def levels(result: CheckResult, words: str) -> list[str]:
    return [remark.level for remark in result.remarks if words in remark.text]


@pytest.mark.parametrize(("leakage", "level"), [("stop", "stop"), ("report", "warn")])
def test_questions_that_stand_in_the_documents_bar_a_study_and_check_says_so(
    tmp_path: Path, leakage: str, level: str
) -> None:
    rows = [
        {"question": f"When is the {thing} of {city} open on Sundays?", "answer": city}
        for city in CITIES
        for thing in THINGS
    ]
    (tmp_path / "faq.md").write_text("\n".join(f"{row['question']} At noon." for row in rows))
    file = write_task(
        tmp_path, "someone/nowhere", ["prompt"], rows=rows, data=f'documents = ["faq.md"]\nleakage = "{leakage}"\n'
    )
    result = check(file)
    assert levels(result, "word for word in the documents") == [level]
    assert ("Mend what says stop first" in drawn(result)) == (level == "stop")
    if level == "stop":
        with pytest.raises(InputError, match="word for word in the documents"):
            require_sound(open_workspace(load_task(file)))


def test_an_overlap_comes_with_what_to_do_and_the_text(tmp_path: Path) -> None:
    file = write_task(tmp_path, "nowhere", ["prompt"], data='test = ["test.jsonl"]')
    copied, *_ = rows = rows_of()
    others = [{"question": f"{word} alone {n * 7919}?", "answer": "x"} for n, word in enumerate(THINGS)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [copied, *others]))
    result = check(file)
    assert len(rows) == 60
    (remark,) = [remark for remark in result.remarks if "repeats train" in remark.text]
    assert remark.level == "stop"
    assert 'set data.leakage = "drop", which takes out 1 row of train' in remark.text
    assert "`group`" not in remark.text  # files that are the test set know no groups
    assert copied["question"] in result.overlaps[0]


@pytest.mark.parametrize(("topics", "told"), [(20, True), (120, False)])
def test_groups_that_can_show_no_difference_are_told_before_a_study(tmp_path: Path, topics: int, told: bool) -> None:
    """Three arms make three comparisons, which fewer than 7 groups cannot show whatever is answered."""
    rows = [{**row, "topic": f"t{number % topics}"} for number, row in enumerate(rows_of(240))]
    file = write_task(tmp_path, "nowhere", ["prompt", "few-shot", "lora"], rows=rows, data='group = "topic"')
    result = check(file)
    assert levels(result, "too few to show any difference in 3 comparisons between arms") == ["warn"] * told
    assert (result.smallest_difference == 1.0) is told
    assert ("too few to show any difference in 3 comparisons" in " ".join(drawn(result).split())) is told


def test_an_endpoint_without_its_key_is_told_before_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    both = write_task(tmp_path, "nowhere", ["prompt", "api-big"], more=KEYED)
    (text,) = [remark.text for remark in check(both).remarks if "api-big" in remark.text]
    assert text.startswith("Arm api-big cannot run: the environment variable BIG_KEY is not set; set it to the key of")
    assert levels(check(both), "api-big") == ["warn"]
    alone = write_task(tmp_path, "nowhere", ["api-big"], more=KEYED)
    assert levels(check(alone), "api-big") == ["stop"]
    not_asked = write_task(tmp_path, "nowhere", ["prompt"], more=KEYED)
    assert levels(check(not_asked), "api-big") == []
    monkeypatch.setenv("BIG_KEY", "secret")
    assert levels(check(both), "api-big") == []


def rows_with_long_ones(every: int) -> list[dict[str, str]]:
    """120 rows, one of `every` longer than the tiny model's context."""
    return [
        row | {"question": row["question"] + " far" * 100 * (number % every == 0)}
        for number, row in enumerate(rows_of(120))
    ]


def test_too_many_rows_that_are_too_long_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_with_long_ones(2))
    with pytest.raises(InputError, match="60 of 120 rows are longer than the model's 256 tokens"):
        check(file)
    assert len((tmp_path / ".trimtab" / "refused.jsonl").read_text().splitlines()) == 60


def test_rows_that_are_too_long_do_not_count(tmp_path: Path, tiny_model_folder: Path) -> None:
    result = check(write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_with_long_ones(10)))
    tests = result.splits["test"]
    assert sum(result.splits.values()) == 108
    assert levels(result, f"Test has {tests} rows") == ["warn"]
    assert len(result.refused) == 12
    assert result.smallest_difference == smallest_difference(tests, assumed_variation(), 1)
    assert levels(result, "12 rows are longer than the model's 256 tokens") == ["warn"]


def test_what_is_timed_is_told_on_standard_error(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(write_task(tmp_path, tiny_model_folder, ["prompt", "few-shot"]))
    told = capsys.readouterr()
    assert told.out == ""
    timed = [line for line in told.err.splitlines() if "machine is busy" not in line]
    assert [line.split()[:3] for line in timed] == [
        ["prompt", "plan", "1/2"],
        ["few-shot", "plan", "2/2"],
    ]


def test_more_labels_than_a_language_model_can_score_are_not_tried(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.inference.label_scoring.MAX_LABELS", 9)
    rows = [{"text": row["question"], "label": row["answer"]} for row in rows_of(60)]
    file = write_task(
        tmp_path,
        tiny_model_folder,
        ["linear", "prompt"],
        rows=rows,
        task='kind = "classify"',
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    file.write_text(file.read_text().replace("[study]", '[study]\nbudget = "1s"'))
    monkeypatch.setattr("trimtab.arms.planning.linear.ROW_SECONDS", 0.0)
    monkeypatch.setattr("trimtab.arms.planning.linear.LABEL_SECONDS", 1.0)
    result = check(file)
    assert [row.problem is None for row in result.forecasts] == [True, False]
    fits = result.splits["train"] * len(result.labels) / 60
    assert result.forecasts[0].minutes == pytest.approx(fits, rel=0.1)  # what cuts epochs cuts no fits
    assert levels(result, "Arm prompt cannot run: a language model scores every label") == ["warn"]


def test_an_arm_that_cannot_begin_has_no_figures_and_a_reason(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nText of A.\n")
    (tmp_path / "broken").mkdir()
    file = write_task(
        tmp_path,
        tiny_model_folder,
        ["prompt", "rag"],
        data='documents = ["a.md"]',
        base=f'embedding = "{tmp_path / "broken"}"',
    )
    prompt, rag = check(file).forecasts
    assert prompt.problem is None
    assert prompt.minutes is not None
    assert prompt.memory_mb is not None
    assert rag.problem == "cannot run, see the remarks"
    assert (rag.minutes, rag.memory_mb) == (None, None)
    assert levels(check(file), "Arm rag cannot run: ") == ["warn"]


EMPTY = CheckResult(
    task="t",
    kind="answer",
    metric="token_f1",
    notes=(),
    splits={"train": 1, "dev": 1, "test": 1},
    labels={},
    documents=1,
    refused=(),
    overlaps=(),
    private=(),
    remarks=(),
    example_arm="lora",
    example=(MaskRun(text="What? ", trained=False), MaskRun(text="That.", trained=True)),
    tokens=TokenStatistics(prompt_median=1, prompt_longest=1, answer_median=1, answer_longest=1, context=9, too_long=0),
    smallest_difference=None,
    comparisons=1,
    forecasts=(Forecast(arm="lora", minutes=0.01), Forecast(arm="rag", problem="cannot run, see the remarks")),
    minutes=0.01,
    currency=None,
    cuts=(),
)


def test_what_each_arm_may_try_is_told_with_its_seconds() -> None:
    trials = (
        TrialPlan(what="instructions", count=5, seconds=62.0),
        TrialPlan(what="learning rates", count=4, seconds=200.0),
    )
    searching = replace(
        EMPTY,
        forecasts=(
            Forecast(arm="lora", minutes=1.0, trials=trials),
            Forecast(arm="rag", minutes=1.0, left_out="no time", trials=trials),
        ),
        effort="standard",
        search_seconds=262.0,
    )
    shown = drawn(searching)
    assert "Effort standard: each arm may search its settings on train and dev for up to 4 min" in shown
    assert "lora: 5 instructions (62 s), 4 learning rates (3 min)" in shown
    assert "rag: 5" not in shown
    assert "trained up to three times" in " ".join(shown.split())
    assert "Effort" not in drawn(replace(searching, search_seconds=0.0))


def test_the_loss_mask_shows_with_colours_and_without() -> None:
    assert "What? «That.»" in drawn(EMPTY)
    coloured = drawn(EMPTY, color_system="truecolor", force_terminal=True)
    assert "«" not in coloured
    assert "\x1b[1;32mThat." in coloured


def test_long_text_that_is_only_read_is_cut_in_its_middle_and_the_answer_is_not() -> None:
    passages, answer = "begin " + "passage " * 2000 + "end", "word " * 1000
    shown = drawn(
        replace(EMPTY, example=(MaskRun(text=passages, trained=False), MaskRun(text=answer, trained=True)))
    ).replace("\n", " ")
    assert shown.count("passage") < 250
    assert "begin" in shown
    assert "characters more" in shown
    assert shown.count("word") == 1000


def test_a_difference_that_no_arm_could_have_is_not_offered() -> None:
    shown = {share: drawn(replace(EMPTY, smallest_difference=share)) for share in (0.31, 1.0)}
    assert (
        "can show a difference of about 31 points between arms (80% power, 1 comparison; assumed: arms differ on "
        "30% of questions)" in shown[0.31]
    )
    assert "are too few to show any difference between arms" in shown[1.0]
    assert "100 points" not in shown[1.0]


def test_what_does_not_fit_the_budget_is_added_up() -> None:
    left = "the budget lacks 30 min"
    none = (Forecast(arm="lora", minutes=40.0, left_out=left), Forecast(arm="full", minutes=50.0, left_out=left))
    assert "No arm fits the budget; all arms would take about 90 min" in drawn(replace(EMPTY, forecasts=none))
    some = (Forecast(arm="prompt", minutes=2.0), none[0], Forecast(arm="api-big", problem="not timed"))
    told = drawn(replace(EMPTY, forecasts=some, minutes=2.0))
    assert "What fits takes about 2 min; all arms would take about 42 min" in told


def test_what_more_machines_take_is_told_of_long_studies() -> None:
    walls = (WallTime(machines=1, seconds=5700.0, cost=0.634), WallTime(machines=2, seconds=3000.0, cost=0.667))
    shown = drawn(replace(EMPTY, wall_times=walls, waits=("lora waits",), currency="EUR"))
    lines = [line.split() for line in shown.splitlines()]
    assert ["machines", "minutes", "cost", "EUR"] in lines
    assert ["1", "95", "0.63"] in lines
    assert ["2", "50", "0.67"] in lines
    assert "lora waits" in shown
    short = tuple(replace(one, seconds=one.seconds / 10) for one in walls)
    assert "--on" not in drawn(replace(EMPTY, wall_times=short, waits=("lora waits",)))


def test_more_machines_are_predicted_from_the_plan(tmp_path: Path, tiny_model_folder: Path) -> None:
    priced = """
[cost]
machine_hour = { price = 3600.0, as_of = 2026-01-01, source = "x" }
"""
    file = write_task(tmp_path, tiny_model_folder, ["prompt", "quick"], study="seeds = 2", more=QUICK + priced)
    result = check(file)
    assert [one.machines for one in result.wall_times][:1] == [1]
    for one in result.wall_times:
        assert one.cost == pytest.approx(one.machines * one.seconds)
    assert result.waits[0] == "1 more seed of quick waits for its first run"
    alone = write_task(tmp_path, tiny_model_folder, ["prompt"])
    assert check(alone).wall_times == ()


def test_a_budget_that_no_arm_fits_bars_a_study(tmp_path: Path, tiny_model_folder: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"], study='budget = "0.001s"')
    assert levels(check(file), "No arm fits the budget of 0.001s") == ["stop"]


def test_figures_that_round_to_nothing_are_not_shown_as_nothing() -> None:
    shown = drawn(EMPTY)
    assert "<0.1" in shown
    assert "0.0" not in shown
    assert "1 document\n" in shown


def test_an_answer_length_that_cuts_references_is_told(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = [{"question": row["question"], "answer": row["answer"] * 9} for row in rows_of(60)]
    kind = 'kind = "answer"\nmetric = "exact_match"\noutput_tokens = {}'
    cut = check(write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows, task=kind.format(2)))
    assert levels(cut, "tokens, and task.output_tokens = 2 cuts answers before that") == ["warn"]
    whole = check(write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows, task=kind.format(100)))
    assert levels(whole, "task.output_tokens") == []


def test_the_audit_is_told_before_any_arm_is_timed_and_alone_without_timing(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    file = write_task(
        tmp_path, tiny_model_folder, ["prompt", "few-shot"], rows=[*rows_of(), rows_of()[0] | {"id": "again"}]
    )
    told: list[Any] = []
    result = check(file, listeners=[told.append], audited=told.append)
    assert isinstance(told[0], CheckResult)
    assert any(event["stage"] == "plan" for event in told[1:])
    assert [remark for remark in told[0].remarks if "repeats another" in remark.text] != []
    assert told[0].forecasts == ()
    told.clear()
    untimed = check(file, listeners=[told.append], audited=told.append, timing=False)
    assert [type(one) for one in told] == [CheckResult]
    assert untimed.forecasts == ()
    assert (untimed.tokens, untimed.example, untimed.remarks) == (result.tokens, result.example, result.remarks)


def test_each_remark_is_drawn_once_in_two_parts(tmp_path: Path, tiny_model_folder: Path) -> None:
    parts: list[CheckResult] = []
    file = write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows_with_long_ones(10))
    result = check(file, listeners=[], audited=parts.append, timing=False)
    with open("/dev/null", "w") as nowhere:
        console = Console(width=1000, record=True, file=nowhere)
        draw_data_audit(parts[0], console)
        draw_rest(parts[0], result, console, "trimtab study")
        lines = console.export_text().splitlines()
    for remark in result.remarks:
        assert len([line for line in lines if remark.text in line]) == 1
    assert len([line for line in lines if "Next: trimtab study" in line]) == 1
    assert len([line for line in lines if line.startswith("Rows not used: 12")]) == 1
