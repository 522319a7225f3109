from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Answer, Example, Generation, Hit, Message, Passage, Prompt
from trimtab.base.task import Task
from trimtab.measurement.evaluate import evaluate_prompts, is_right, load_answers, save_answers
from trimtab.measurement.scorer import ScorerProgram

UNKNOWN = "I don't know"


def task(kind: str = "answer", folder: Path = Path(), **more) -> Task:
    table = {"name": "t", "kind": kind, **more}
    return Task(task=table, data={"examples": ["x.jsonl"]}, base={"model": "m"}, file=folder / "trimtab.toml")


def example(references: tuple[str, ...] = ("15 days",), passages: tuple[str, ...] = (), name: str = "1") -> Example:
    return Example(
        id=name, messages=(Message(role="user", content="How long?"),), references=references, passages=passages
    )


def hit(document: str, text: str = "text") -> Hit:
    passage = Passage(id=f"{document}#0", document=document, title="", path=(), text=text, source=document)
    return Hit(passage=passage, rank=1, score=0.5)


def ask(item: Example, text: str, setting: Task, hits: tuple[Hit, ...] = (), scorer=None) -> Answer:
    prompt = Prompt(id=item.id, messages=item.messages, hits=hits)
    (answer,) = evaluate_prompts(
        [item], [prompt], lambda prompts: [Generation(id=item.id, text=text, new_tokens=3, seconds=0.5)], setting,
        split="test", seed=1, scorer=scorer,
    )  # fmt: skip
    return answer


def test_a_right_answer_carries_everything_along() -> None:
    found = (hit("leave.md"),)
    answer = ask(replace(example(), group="g", slice="s"), "15 days.", task(), found)
    assert (answer.score, answer.failure, answer.abstained, answer.format_ok) == (1.0, "none", False, True)
    assert (answer.item_id, answer.split, answer.seed, answer.group, answer.slice) == ("1", "test", 1, "g", "s")
    assert (answer.input, answer.reference, answer.new_tokens, answer.seconds) == ("How long?", ("15 days",), 3, 0.5)
    assert answer.hits == found


GOLD = ("handbook/leave.md",)


@pytest.mark.parametrize(
    ("references", "gold", "text", "hits", "failure"),
    [
        (("15 days",), (), "20 weeks", (), "wrong"),
        (("15 days",), (), UNKNOWN, (), "abstained_wrongly"),
        ((UNKNOWN,), (), "15 days", (), "should_have_abstained"),
        ((UNKNOWN,), (), "i don’t know.", (), "none"),
        (("15 days",), GOLD, "20 weeks", (hit("leave.md"),), "misread"),
        (("15 days",), GOLD, "20 weeks", (hit("pay.md"),), "retrieval_miss"),
        (("15 days",), GOLD, UNKNOWN, (hit("pay.md"),), "retrieval_miss"),
        (("15 days",), GOLD, UNKNOWN, (hit("leave.md"),), "abstained_wrongly"),
        (("15 days",), (), "20 weeks", (hit("x.md", "It takes 15 days, not more."),), "misread"),
        (("15 days",), (), "20 weeks", (hit("x.md", "It takes 115 days."),), "retrieval_miss"),
        (("15 days", "x"), GOLD, "15 days", (hit("pay.md"),), "none"),
        (("15 days",), GOLD, "up to 15 days", (hit("leave.md"),), "undecided"),
        (("15 days",), GOLD, "up to 15 days", (hit("pay.md"),), "retrieval_miss"),
        (("by boat",), (), "You take a ferry.", (), "undecided"),
    ],
)
def test_failures_of_short_answers(references, gold, text, hits, failure) -> None:
    assert ask(example(references, gold), text, task(), hits).failure == failure


def test_an_answer_out_of_format_fails_by_format_unless_it_is_right() -> None:
    setting = task(format=r"\d+ days")
    wrong, right = ask(example(), "weeks", setting), ask(example(), "15 days, of course", setting)
    assert (wrong.failure, wrong.format_ok) == ("format", False)
    assert (right.failure, right.format_ok) == ("none", False)


def test_only_contains_leaves_an_answer_undecided() -> None:
    for metric, failure in (("contains", "undecided"), ("token_f1", "undecided"), ("exact_match", "wrong")):
        assert ask(example(("15 days",)), "up to 15 days", task(metric=metric)).failure == failure


def test_a_short_answer_is_right_by_its_fact_whatever_its_score() -> None:
    for metric, score in (("token_f1", 0.5), ("contains", 0.0), ("exact_match", 0.0)):
        wrong = ask(example(("112 euros",)), "158 euros", task(metric=metric))
        assert (wrong.score, wrong.failure) == (score, "wrong")
    worded = ask(example(("112 euros",)), "It is 112 euros for each of the nights", task(metric="token_f1"))
    assert worded.score < 0.5
    assert worded.failure == "none"
    near = ask(example(("the desk on floor 4",)), "the desk on floor 5", task(metric="token_f1"))
    assert near.score > 0.5
    assert near.failure == "wrong"


@pytest.mark.parametrize("metric", ["rouge_l", "chrf", "scorer"])
@pytest.mark.parametrize("text", ["one three", "seven", "one two"])
def test_no_graded_score_makes_free_text_right_or_wrong(metric: str, text: str) -> None:
    """Nothing tells which are right, at half the score as little as at none; what does not fit the format fails by
    it."""
    setting = task("generate", metric=metric, format="[a-z ]+")
    scorer = (lambda *_: 0.1) if metric == "scorer" else None
    assert is_right(example(("one two",)), text, 0.1, setting) is None
    assert ask(example(("one two",), GOLD), text, setting, (hit("pay.md"),), scorer).failure == "none"
    assert ask(example(("one two",)), f"{text}!", setting, scorer=scorer).failure == "format"


def test_free_text_is_right_where_it_must_be_equal() -> None:
    setting = task("generate", metric="exact_match")
    assert ask(example(("one two",)), "one three", setting).failure == "wrong"
    assert ask(example(("one two",)), "One two.", setting).failure == "none"


def test_what_the_question_says_may_be_repeated_and_the_right_passage_counts_numbers_as_numbers() -> None:
    asked = replace(
        example(("112 euros",)), messages=(Message(role="user", content="Is it 112 or 158 euros for 2 nights?"),)
    )
    assert ask(asked, "112 euros, not 158, for 2 nights", task()).failure == "none"
    assert (
        ask(example(("30 months",)), "20 months", task(), (hit("x.md", "After thirty months."),)).failure == "misread"
    )


def test_words_shared_with_the_abstention_earn_nothing() -> None:
    assert ask(example((UNKNOWN,)), "I know", task()).score == 0
    assert ask(example((UNKNOWN,)), "I don't know, it is not written down", task()).score == 1
    assert ask(example(("I don't remember",)), UNKNOWN, task()).score == 0


def test_other_kinds_do_not_abstain() -> None:
    answer = ask(example(("spam",)), UNKNOWN, task("classify"))
    assert (answer.abstained, answer.failure, answer.score) == (False, "wrong", 0.0)
    assert ask(example(("spam",)), "Spam", task("classify")).failure == "none"


def test_generations_may_come_in_any_order_but_must_pair() -> None:
    items = [example((str(number),), name=str(number)) for number in range(3)]
    prompts = [Prompt(id=item.id, messages=item.messages) for item in items]
    backwards = [Generation(id=item.id, text=item.id) for item in reversed(items)]
    answers = evaluate_prompts(items, prompts, lambda _: backwards, task(), split="dev", seed=0, scorer=None)
    assert [answer.score for answer in answers] == [1, 1, 1]
    for less in (backwards[1:], [*backwards[1:], replace(backwards[0], id="9")]):
        with pytest.raises(InputError, match="do not pair"):
            evaluate_prompts(items, prompts, lambda _, less=less: less, task(), split="dev", seed=0, scorer=None)
    with pytest.raises(InputError, match="do not pair"):
        evaluate_prompts(items, prompts[::-1], lambda _: backwards, task(), split="dev", seed=0, scorer=None)


def test_a_scorer_is_a_program_or_a_function(tmp_path) -> None:
    setting = task("generate", tmp_path, metric="scorer", scorer=["x"])
    (tmp_path / "s.py").write_text(
        "import json, sys\nfor line in sys.stdin:\n"
        "    row = json.loads(line)\n    print(json.dumps({'id': row['id'], 'score': len(row['answer']) / 10}))\n"
    )
    with ScorerProgram([sys.executable, "s.py"], tmp_path) as scorer:
        assert ask(example(), "abc", setting, scorer=scorer).score == 0.3
    best = ask(example(("b", "abc")), "abc", setting, scorer=lambda _, reference, answer: len(reference) / 4)
    assert best.score == 0.75
    with pytest.raises(InputError, match="scorer function gave the score 2"):
        ask(example(), "abc", setting, scorer=lambda *_: 2)
    for value, score in ((np.float32(0.5), 0.5), (np.float64(0.25), 0.25), (np.bool_(True), 1.0), (False, 0.0)):
        assert ask(example(), "abc", setting, scorer=lambda *_, value=value: value).score == score
    for value in ("1", None, np.float32("nan"), np.array([1.0, 0.0])):
        with pytest.raises(InputError, match="scorer function gave the score"):
            ask(example(), "abc", setting, scorer=lambda *_, value=value: value)
    with pytest.raises(InputError, match=r"task\.scorer.*there is none"):
        ask(example(), "abc", setting)


@pytest.mark.parametrize(
    "error", [IndexError("list index\nout of range"), AttributeError("'x' has no y"), StopIteration()]
)
def test_whatever_a_scorer_function_raises_is_told_as_its_fault_with_the_row(tmp_path, error: Exception) -> None:
    def judge(*_: str) -> float:
        raise error

    asked = replace(example(), file="rows.jsonl", line=7)
    with pytest.raises(
        InputError, match=rf"^rows\.jsonl:7: the scorer function raised {type(error).__name__} "
    ) as told:
        ask(asked, "abc", task("generate", tmp_path, metric="scorer", scorer=["x"]), scorer=judge)
    assert told.value.__cause__ is error
    assert f"for the row {asked.id!r}" in str(told.value)
    assert "\n" not in str(told.value)


def test_answers_round_trip_through_parquet(tmp_path) -> None:
    first = ask(replace(example(("a", "ä\n")), slice="s"), "15 Tage 🙂", task(), (hit("a#b.md"), hit("c.md")))
    answers = (first, replace(first, item_id="2", group=None, probability=0.25, hits=(), failure="none"))
    path = tmp_path / "arms" / "answers.parquet"
    save_answers(path, answers)
    bare = tuple(replace(one, passage=replace(one.passage, text="")) for one in first.hits)
    assert load_answers(path) == (replace(first, hits=bare), answers[1])
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    save_answers(path, ())
    assert load_answers(path) == ()


def test_the_columns_are_those_of_the_format(tmp_path) -> None:
    save_answers(tmp_path / "a.parquet", [ask(example(), "x", task(), (hit("a.md"),))])
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.names == [
        "item_id", "split", "group", "slice", "seed", "input", "reference", "answer", "score", "format_ok", "abstained",
        "probability", "seconds", "prompt_tokens", "new_tokens", "passages", "failure",
    ]  # fmt: skip
    assert [field.name for field in schema.field("passages").type.value_type] == ["id", "source", "rank", "score"]


def test_a_table_that_is_missing_or_something_else(tmp_path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        load_answers(tmp_path / "none.parquet")
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="not a table of answers"):
        load_answers(tmp_path / "x.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="no form number"):
        load_answers(tmp_path / "y.parquet")
