"""Groundedness by a judge: what it is asked of each sentence, and what becomes of its words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import made_answer

from trimtab.base.config import JudgeTable
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Answer, Generation, Hit, Passage, Prompt
from trimtab.measurement import judge as measured
from trimtab.measurement.groundedness import JUDGED_SENTENCES, groundedness_shares
from trimtab.measurement.judge import GROUNDEDNESS, Judge, JudgeModel, judge_prompt, sentence_questions

TABLE = JudgeTable(criteria={"good": "Is good."}, groundedness=True)
UNKNOWN = "I don't know"
SAYS = {"opens": "supported", "closes": "Contradicted.\nIt closes at six.", "founder": "missing"}


def passage(number: int, text: str) -> Hit:
    one = Passage(id=str(number), document="d", title="Brannock", path=("Brannock", "Hours"), text=text, source="d")
    return Hit(passage=one, rank=number, score=1.0)


HITS = (passage(1, "The workshop opens at 9:30."), passage(2, "It closes at 18:00."))
ANSWERS = [
    made_answer("a", 1.0, answer="The workshop opens at 9:30. It closes at 17:00. Anything else?", hits=HITS),
    made_answer("b", 1.0, answer="The founder came from Cremona.", hits=HITS),
    made_answer("c", 0.0, answer=UNKNOWN, abstained=True, hits=HITS),
    made_answer("d", 1.0, answer="The workshop opens at 9:30.", hits=()),
]


class Model:
    """Says of each sentence what SAYS has for a word of it, or what it is told to say."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked = list(said), list[str]()
        self.model = JudgeModel(name="big", version="v1", ask=self.ask, gives_reasons=True)

    def ask(self, prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
        assert set(words) == set(GROUNDEDNESS)
        given = []
        for prompt in prompts:
            self.asked.append(prompt.messages[-1].content)
            sentence = self.asked[-1].rsplit("Sentence:", 1)[1]
            text = self.said.pop(0) if self.said else next(word for part, word in SAYS.items() if part in sentence)
            if text == "down":
                raise RemoteError("answered 402")
            given.append(Generation(id=prompt.id, text=text, model="m1"))
        return given


def shares(model: Model, file: Path, answers: Sequence[Answer] = ANSWERS) -> dict[str, float]:
    return groundedness_shares(answers, UNKNOWN, Judge(TABLE, model.model, file).groundedness)


def test_the_judge_is_asked_of_each_sentence_that_states_something_and_once(tmp_path: Path) -> None:
    model, file = Model(), tmp_path / "judgements.jsonl"
    found = shares(model, file)
    third = pytest.approx(1 / 3)
    assert found == {
        "sentences_supported": third,
        "sentences_contradicted": third,
        "sentences_not_there": third,
        JUDGED_SENTENCES: 3.0,
    }
    assert len(model.asked) == 3  # no question, no abstention, and nothing without passages
    assert all(
        "Brannock › Hours\nThe workshop opens" in asked and "It closes at 18:00" in asked for asked in model.asked
    )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["item"], line["sentence"], line["degree"], line["criterion"]) for line in lines] == [
        ("a", "The workshop opens at 9:30.", "supported", ""),
        ("a", "It closes at 17:00.", "contradicted", ""),
        ("b", "The founder came from Cremona.", "missing", ""),
    ]
    assert lines[1]["reason"] == "It closes at six."
    again = Model(*["supported"] * 9)
    assert shares(again, file) == found
    assert again.asked == []
    other = [replace(ANSWERS[1], hits=HITS[:1])]
    assert shares(again, file, other)["sentences_supported"] == 1.0  # other passages are another question


@pytest.mark.parametrize(
    ("said", "error"), [("down", RemoteError), ("mostly supported", InputError), ("yes", InputError)]
)
def test_a_judge_that_fails_in_the_middle_of_the_sentences_invents_nothing(
    said: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "BATCH", 1)
    file = tmp_path / "judgements.jsonl"
    with pytest.raises(error, match="1 of 3 judgements are missing; those before are kept"):
        shares(Model("missing", "supported", said), file)
    again = Model()
    found = shares(again, file)
    assert len(again.asked) == 1
    assert found["sentences_not_there"] == pytest.approx(2 / 3)  # what was said before the fault


def test_a_kept_word_of_another_question_is_no_judgement(tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    shares(Model(), file, ANSWERS[1:2])
    line = json.loads(file.read_text())
    file.write_text(json.dumps(line | {"degree": "yes"}) + "\n")
    model = Model()
    assert shares(model, file, ANSWERS[1:2])["sentences_not_there"] == 1.0
    assert len(model.asked) == 1


def test_references_are_not_shown_and_prompts_of_criteria_are_as_they_were() -> None:
    [asked, _] = sentence_questions(replace(ANSWERS[0], reference=("the reference",)), UNKNOWN, reasons=False)
    assert "the reference" not in asked.prompt.messages[-1].content
    assert "Criterion" not in asked.prompt.messages[-1].content
    content = judge_prompt("Is it so?", ("q", "where", ("there",), "here"), reasons=False).messages[-1].content
    assert content.startswith("Criterion: Is it so?\n\nQuestion:\n==")
    assert content.endswith("==\n\nDoes the answer meet the criterion: Is it so?")


@given(st.text(), st.text(), st.text(min_size=1))
def test_no_passage_and_no_answer_closes_its_fence(question: str, text: str, answer: str) -> None:
    asked = sentence_questions(
        made_answer("a", 1.0, input=question, answer=answer, hits=(passage(1, text),)), "", reasons=False
    )
    for one in asked:
        content = one.prompt.messages[-1].content
        fence = content.split("Passage 1:\n", 1)[1].split("\n", 1)[0]
        assert content.count(fence) == 8  # before and after the passage, the question, the answer and the sentence
