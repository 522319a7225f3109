"""What an answer earns: each part by cases that are plainly right or wrong, hostile answers among them, and the sum
of all."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewarding import PASSAGE, TOKENS, UNKNOWN, row, said, task_with

from trimtab.base.errors import InputError
from trimtab.base.records import Example
from trimtab.measurement.rewards import AnswerTokens, Rewarded, last_number, reward_of
from trimtab.measurement.scorer import ScorerProgram


def earned(part: str, example: Example, *texts: str, passages: Sequence[str] = (), **own: Any) -> list[float]:
    """What texts earn by one part alone."""
    reward = reward_of(task_with({part: 1.0}, **own), [example], TOKENS)
    return [one.parts[part] for one in reward([said(example, text, passages=passages) for text in texts])]


ENDLESS = "72 " * 200_000


def test_without_a_table_an_answer_earns_the_metric() -> None:
    for kind, metric, reference, answer in (
        ("answer", "contains", "112 euros", "It is 112 euros."),
        ("classify", "accuracy", "urgent", " Urgent"),
        ("generate", "exact_match", "x = 1", "x = 1"),
    ):
        reward = reward_of(task_with(kind=kind, metric=metric), [row(reference)], TOKENS)
        right, wrong = reward([said(row(reference), answer), said(row(reference), "something else")])
        assert right == Rewarded(total=1.0, parts={"metric": 1.0})
        assert wrong.total == 0.0


def test_abstaining_earns_what_it_earns_in_the_evaluation() -> None:
    for part in ("metric", "exact_match", "token_f1"):
        assert earned(part, row(UNKNOWN), UNKNOWN, "Bonn") == [1.0, 0.0]
        assert earned(part, row("I know Bonn"), UNKNOWN) == [0.0]  # it shares words with the reference


def test_labels_one_after_the_other_earn_no_label() -> None:
    labels = "urgent, later, never"
    assert earned("metric", row("urgent"), labels, "urgent", kind="classify", labels=("urgent", "later")) == [0.0, 1.0]
    assert earned("exact_match", row("urgent"), labels, kind="classify") == [0.0]
    assert earned("metric", row("Bonn"), "Bonn or Aalen or Celle") == [0.0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples, so the answer is 72.", 72),
        ("#### 1,350", 1350),
        ("It costs $12.50", Fraction("12.5")),
        ("x = -5", -5),
        ("−5", -5),
        ("-$5", -5),
        ("17-5", 5),
        ("007", 7),
        ("0", 0),
        ("-0.0", 0),
        ("that is 3/4", Fraction(3, 4)),
        ("on 5/2/2026", 2026),
        ("5 / 0", 0),
        ("50%", 50),
        ("version 1.2.3 of 9, or 1.2.3", 9),
        ("no number", None),
        ("", None),
        (ENDLESS, 72),
        ("9" * 5000, "9" * 5000),  # more digits than Python turns into a number
    ],
)
def test_the_last_number_of_a_text(text: str, number: object) -> None:
    assert last_number(text) == number


@given(st.text(alphabet="0123456789.,/-$ ab−", max_size=40), st.integers(-10_000, 10_000))
def test_whatever_stands_before_it_the_number_at_the_end_counts(before: str, number: int) -> None:
    assert last_number(f"{before} so: {number}") == number
    assert earned("number", row(f"{number:,}"), f"{before} so: {number}", f"{before} so: {number + 1}") == [1.0, 0.0]


@given(st.text(max_size=80))
def test_no_text_breaks_the_last_number(text: str) -> None:
    assert last_number(text) == last_number(text + " ")


def test_numbers_are_compared_by_value_and_rows_without_one_by_the_whole_answer() -> None:
    assert earned("number", row("3/4"), "0.75", "4", "1/4") == [1.0, 0.0, 0.0]
    assert earned("number", row("no idea", "12"), "12 or so", "no idea") == [1.0, 0.0]
    reward = reward_of(task_with({"number": 1.0}), [row("12"), row(UNKNOWN)], TOKENS)
    assert [one.total for one in reward([said(row(UNKNOWN), UNKNOWN), said(row(UNKNOWN), "12")])] == [1.0, 0.0]
    with pytest.raises(InputError, match=r"reward\.number: no reference holds a number; take it out"):
        reward_of(task_with({"number": 1.0}), [row("Bonn")], TOKENS)


def test_a_format_is_met_or_not(tmp_path: Path) -> None:
    assert earned("format", row("AB-1"), "AB-12", "AB-12!", "AB-1" * 9999, format="[A-Z]+-[0-9]+") == [1.0, 0.0, 0.0]
    (tmp_path / "s.json").write_text(json.dumps({"type": "object", "required": ["city"]}))
    task = task_with({"format": 1.0}, tmp_path, format="s.json")
    reward = reward_of(task, [row("{}")], TOKENS)
    texts = ('{"city": "Bonn"}', "{}", '{"city"', "[" * 100_000)
    assert [one.total for one in reward([said(row("{}"), text) for text in texts])] == [1.0, 0.0, 0.0, 0.0]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 60), st.booleans())
def test_length_costs_nothing_up_to_the_longest_reference_and_falls_to_nothing_at_the_limit(
    longest: int, limit: int, count: int, finished: bool
) -> None:
    reward = reward_of(task_with({"length": 1.0}), [row("x")], AnswerTokens(longest=longest, limit=limit))
    value, next_value = (
        reward([said(row("x"), "x", new_tokens=tokens, finished=finished)])[0].total for tokens in (count, count + 1)
    )
    if not finished:
        assert value == 0.0  # cut off, however long
        return
    assert 0.0 <= next_value <= value <= 1.0
    if count <= longest:
        assert value == 1.0
    if limit > longest:
        assert reward([said(row("x"), "x", new_tokens=limit)])[0].total == 0.0
        free = min(longest + 8, (longest + limit) / 2)
        if free < count < limit:
            assert value == pytest.approx((limit - count) / (limit - free))
            assert value < 1.0


def test_a_citation_is_what_a_shown_passage_says() -> None:
    example = row("14 days", question="How long before must leave be asked for?")
    right, other = "14 days before", "16 days before"
    assert earned("citation", example, right, other, passages=["Nothing here.", PASSAGE]) == [1.0, 0.0]
    assert earned("citation", example, right, passages=["Nothing here."]) == [0.0]
    assert earned("citation", example, right) == [0.0]  # nothing was shown
    assert earned("citation", example, "", example.input, passages=[PASSAGE]) == [0.0, 0.0]
    everything = " ".join(f"{number} days" for number in range(500))
    assert earned("citation", example, everything, ENDLESS[:6000], passages=[PASSAGE]) == [0.0, 0.0]


def test_abstaining_needs_no_passage_where_it_is_due_and_is_no_way_out_elsewhere() -> None:
    assert earned("citation", row(UNKNOWN), UNKNOWN, passages=[PASSAGE]) == [1.0]
    assert earned("citation", row("14 days"), UNKNOWN, passages=[PASSAGE]) == [0.0]


@given(
    st.dictionaries(
        st.sampled_from(["metric", "exact_match", "token_f1", "length", "citation", "format"]), st.floats(0.01, 10)
    ),
    st.lists(st.tuples(st.text(max_size=20), st.integers(0, 60), st.booleans()), max_size=5),
)
def test_the_total_is_the_sum_of_the_parts_times_their_weights(weights, answers) -> None:
    reward = reward_of(task_with(weights, format=".*"), [row("14 days")], TOKENS)
    items = [said(row("14 days"), text, new_tokens=count, finished=end) for text, count, end in answers]
    for one in reward(items):
        weighed = weights or {"metric": 1.0}
        assert one.parts.keys() == weighed.keys()
        assert all(0.0 <= value <= 1.0 for value in one.parts.values())
        assert one.total == pytest.approx(sum(weighed[name] * value for name, value in one.parts.items()))
    assert reward(items) == [reward([item])[0] for item in items]  # no answer hangs on those beside it


PROGRAM = "import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n    {body}\n"
SHARE = "print(json.dumps({'id': row['id'], 'score': min(1, len(row['answer']) / 10)}))"


def program(folder: Path, body: str) -> ScorerProgram:
    (folder / "judge.py").write_text(PROGRAM.format(body=body))
    return ScorerProgram([sys.executable, "judge.py"], folder, 20.0, what="reward program", field="reward.program.argv")


def test_a_program_judges_several_answers_to_one_row_each_by_itself(tmp_path: Path) -> None:
    task = task_with({"metric": 1.0, "program": {"argv": ["python3", "judge.py"], "weight": 0.5}}, tmp_path)
    rows = [row("x", id="a"), row("x", id="a"), row("x", id="a#2"), row("x", id="a")]
    texts = ["x", "x" * 3, "x" * 5, "x" * 99]
    with program(tmp_path, SHARE) as running:
        found = reward_of(task, rows, TOKENS, program=running)([said(*pair) for pair in zip(rows, texts, strict=True)])
    assert [one.parts["program"] for one in found] == pytest.approx([0.1, 0.3, 0.5, 1.0])
    assert found[0].total == pytest.approx(1.0 + 0.5 * 0.1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no judge here')", r"ended \(exit code 1\) with 1 answers left.*no judge here"),
        ("print(json.dumps({'id': row['id'], 'score': 2}))", "gave the score 2"),
        ("print(json.dumps({'id': 'other', 'score': 1}))", "answered the id 'other' unasked"),
        ("print('thinking')", "wrote 'thinking'"),
    ],
)
def test_a_program_that_dies_or_lies_is_told_in_one_line(tmp_path: Path, body: str, message: str) -> None:
    task = task_with({"program": {"argv": ["python3", "judge.py"]}}, tmp_path)
    with program(tmp_path, body) as running:
        reward = reward_of(task, [row("x")], TOKENS, program=running)
        with pytest.raises(InputError, match=message) as caught:
            reward([said(row("x"), "x")])
    assert str(caught.value).startswith("reward program ")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"reward\.program\.argv: reward program './missing' does not start"):
        ScorerProgram(["./missing"], tmp_path, what="reward program", field="reward.program.argv").__enter__()


def test_a_function_stands_for_the_program_and_without_a_table_for_all() -> None:
    def judge(question: str, reference: str, answer: str) -> float:
        return 0.25 if answer == reference else 0.0

    item = said(row("x", "y"), "y")
    for reward, total in (
        ({"program": {"argv": ["never"], "weight": 2.0}}, 0.5),
        ({"length": 1.0}, 1.25),
        ({}, 0.25),
    ):
        assert reward_of(task_with(reward), [row("x")], TOKENS, program=judge)([item])[0].total == total
    with pytest.raises(InputError, match="the reward function gave the score 7"):
        reward_of(task_with(), [row("x")], TOKENS, program=lambda *_: 7.0)([item])
    with pytest.raises(InputError, match=r"reward\.program: the program is not running; start it first"):
        reward_of(task_with({"program": {"argv": ["never"]}}), [row("x")], TOKENS)


def test_the_metric_may_be_a_scorer() -> None:
    task = task_with(kind="generate", metric="scorer", scorer=("never",))
    item = said(row("x"), "answer")
    assert reward_of(task, [row("x")], TOKENS, scorer=lambda *_: 0.75)([item])[0].total == 0.75
    with pytest.raises(InputError, match="the metric is scorer and there is none"):
        reward_of(task, [row("x")], TOKENS)([item])


def test_a_model_s_score_becomes_a_chance() -> None:
    scores = [0.0, math.log(3), -1000.0, 1000.0]
    task = task_with({"model": {"run": "r", "weight": 2.0}})
    reward = reward_of(task, [row("x")], TOKENS, model=lambda items: scores[: len(items)])
    found = [one.parts["model"] for one in reward([said(row("x"), "x")] * 4)]
    assert found == pytest.approx([0.5, 0.75, 0.0, 1.0])
    with pytest.raises(InputError, match="the reward model gave no number"):
        reward_of(task, [row("x")], TOKENS, model=lambda _: [math.nan])([said(row("x"), "x")])
    with pytest.raises(InputError, match="the reward model is not loaded"):
        reward_of(task, [row("x")], TOKENS)
