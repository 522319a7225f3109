"""A judge: what it is asked, what it may answer, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.config import JudgeTable
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Generation, Prompt
from trimtab.measurement import judge as measured
from trimtab.measurement.judge import (
    CHOICES,
    DEGREES,
    Judge,
    JudgeModel,
    judge_prompt,
    judge_questions,
    read_word,
)

TABLE = JudgeTable(criteria={"short": "Is short.", "true": "Is true."}, weights={"short": 1, "true": 3})
ROWS = [(f"q{number}", f"question {number}", ("reference",), f"answer {number}") for number in range(5)]


class Model:
    """Says yes to `short` and partly to `true`, or what it is told to say."""

    def __init__(self, *said: str, served: str = "m1", version: str = "v1") -> None:
        self.said, self.served, self.asked = list(said), served, 0
        self.model = JudgeModel(name="big", version=version, ask=self.ask, gives_reasons=True)

    def ask(self, prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
        given = []
        for prompt in prompts:
            self.asked += 1
            text = (
                self.said.pop(0) if self.said else "yes" if "Is short" in prompt.messages[-1].content else "Partly.\nx"
            )
            if text == "down":
                raise RemoteError("no answer within 60 s")
            given.append(Generation(id=prompt.id, text=text, model=self.served))
        return given


def test_the_score_is_the_weighted_mean_and_an_answer_is_judged_once(tmp_path: Path) -> None:
    model, file = Model(), tmp_path / "judgements.jsonl"
    first = Judge(TABLE, model.model, file).score(ROWS)
    assert first == {row[0]: pytest.approx(0.25 + 0.75 * 0.5) for row in ROWS}
    other = Model(*["no"] * 99)
    assert Judge(TABLE, other.model, file).score(ROWS) == first
    assert (model.asked, other.asked) == (10, 0)
    anew = Model(*["no"] * 99, version="v2")
    assert set(Judge(TABLE, anew.model, file).score(ROWS).values()) == {0.0}  # another judge judges anew


@pytest.mark.parametrize(("said", "error"), [("down", RemoteError), ("I would say 7 of 10", InputError)])
def test_a_judge_that_fails_in_the_middle_loses_nothing_and_invents_nothing(
    said: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "BATCH", 2)
    model, file = Model("yes", "no", "yes", said), tmp_path / "judgements.jsonl"
    with pytest.raises(error, match="judgements are missing"):
        Judge(TABLE, model.model, file).score(ROWS)
    asked = model.asked
    assert asked == 4
    kept = len(file.read_text().splitlines())
    again = Model()
    scores = Judge(TABLE, again.model, file).score(ROWS)
    assert again.asked == 10 - kept
    assert scores["q0"] == 0.25  # what was said before the fault


def test_another_model_behind_the_same_address_is_noticed(tmp_path: Path) -> None:
    Judge(TABLE, Model().model, tmp_path / "j").score(ROWS[:2])
    with pytest.raises(InputError, match="'m2', and was 'm1'"):
        Judge(TABLE, Model(served="m2").model, tmp_path / "j").score(ROWS)


AGAINST = JudgeTable(criteria={"true": "Is true."}, against="reference")


def test_an_answer_is_compared_in_both_orders_and_its_place_earns_nothing(tmp_path: Path) -> None:
    """A judge that always names one place gives ½; one that names a text gives that text 1 in whichever place."""

    class Prefers(Model):
        def ask(self, prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
            self.asked += len(prompts)
            shown = [prompt.messages[-1].content for prompt in prompts]
            places = ["first" if text.index("answer 1") < text.index("reference") else "second" for text in shown]
            return [Generation(id=prompt.id, text=word) for prompt, word in zip(prompts, places, strict=True)]

    row = ("q1", "question", ("reference", "another"), "answer 1")
    for number, (model, score) in enumerate(((Model("first", "first"), 0.5), (Model("tie", "second"), 0.75))):
        assert Judge(AGAINST, model.model, tmp_path / str(number)).score([row]) == {"q1": score}
    prefers = Prefers()
    judge = Judge(AGAINST, prefers.model, tmp_path / "j")
    assert judge.score([row]) == {"q1": 1.0}
    assert judge.score([("q1", "question", ("reference",), "reference")]) == {"q1": 0.5}  # itself: nothing is asked
    assert prefers.asked == 2
    assert judge.score([row]) == {"q1": 1.0}
    assert prefers.asked == 2  # both orders were kept


@given(st.text(), st.text(), st.text())
def test_the_two_orders_differ_in_nothing_but_the_places(question: str, reference: str, answer: str) -> None:
    row = ("q", question, (reference,), answer)
    asked = {one.place: one.prompt for one in judge_questions(AGAINST, row, reasons=True)}
    swapped = {
        one.place: one.prompt for one in judge_questions(AGAINST, ("q", question, (answer,), reference), reasons=True)
    }
    assert set(asked) == (set() if answer == reference else set(CHOICES))
    if asked:
        assert len(asked["first"].messages[-1].content) == len(asked["second"].messages[-1].content)
        assert {tuple(map(str, one.messages)) for one in asked.values()} == {
            tuple(map(str, one.messages)) for one in swapped.values()
        }  # from the prompts alone nobody can tell which of the two is the reference


@given(st.text(), st.text(), st.text())
def test_no_text_closes_its_fence(question: str, reference: str, answer: str) -> None:
    content = judge_prompt("Is it so?", ("q", question, (reference,), answer), reasons=False).messages[-1].content
    fence = content.split("Question:\n", 1)[1].split("\n", 1)[0]
    assert content.count(fence) == (6 if reference else 4)  # at the beginning and the end of each text
    copied = judge_prompt("Is it so?", ("q", question, (reference,), f"{answer}\n{fence}"), reasons=False)
    assert copied.messages[-1].content.split("Question:\n", 1)[1].split("\n", 1)[0] != fence


@pytest.mark.parametrize(
    ("reply", "degree"),
    [
        ("yes", "yes"),
        (" **Partly**.\nIt says so.", "partly"),
        ("No", "no"),
        ("yes and no", None),
        ("", None),
        ("1", None),
    ],
)
def test_only_a_degree_alone_on_the_first_line_counts(reply: str, degree: str | None) -> None:
    assert read_word(reply, DEGREES) == degree
