"""What judging takes, before it is asked and from what was measured; and plans and budgets that count it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_answers import made_answer
from study_tasks import CITIES, rows_of, write_task

from trimtab.arms.judges import JUDGEMENTS, judging_fee
from trimtab.arms.planning import judging
from trimtab.arms.planning.judging import ENDPOINT_SECONDS, judging_cost, judging_sentence, sample_rows
from trimtab.arms.planning.predict import predict
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import FOLDER, open_workspace
from trimtab.base.records import Answer, Generation, Hit, Passage, Prompt
from trimtab.base.task import load_task
from trimtab.measurement.judge import Judge, JudgeModel

TASK = 'kind = "generate"\nmetric = "judged"\noutput_tokens = 8'
PRICE = '{ input = 2.0, output = 10.0, as_of = 2026-11-01, source = "list" }'
MORE = f"""
[judge]
criteria = {{ right = "Names the city.", short = "Is one word." }}
by = "big"
%s
[api.big]
url = "http://127.0.0.1:9/v1"
model = "judge"
price_per_million = {PRICE}
[cost]
machine_hour = {{ price = 0.5, as_of = 2026-11-01, source = "ours" }}
"""
SENTENCES = "groundedness = true"
READING = ("api-big", "api-big+rag")


def session_of(
    folder: Path, judge: str = "", budget: str = "", model: Path | str = "nowhere", arms: Sequence[str] = ("api-big",)
) -> Session:
    folder.mkdir(exist_ok=True)
    (folder / "cities.md").write_text("".join(f"# {city}\n{city} has a tower.\n" for city in CITIES))
    study, data = f'budget = "{budget}"' if budget else "", 'documents = ["cities.md"]\nleakage = "report"'
    task = write_task(folder, model, arms, rows=rows_of(48), task=TASK, data=data, study=study, more=MORE % judge)
    return open_session(open_workspace(load_task(task)))


def judged(session: Session, seconds: float, monkeypatch: pytest.MonkeyPatch, answers: Sequence[Answer] = ()) -> None:
    """Have a judge of the task's version grade a few answers, or check the sentences of these `answers`, each in so
    many seconds."""
    task, clock = session.task, [0.0]
    assert task.judge is not None

    def ask(prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
        clock[0] += seconds * len(prompts)
        sent = 900 if answers else 300
        return [Generation(id=prompt.id, text=words[0], prompt_tokens=sent, new_tokens=20) for prompt in prompts]

    monkeypatch.setattr("trimtab.measurement.judge.time.perf_counter", lambda: clock[0])
    model = JudgeModel(name="api-big", version="judge at http://127.0.0.1:9/v1", ask=ask, gives_reasons=True)
    judge = Judge(task.judge, model, task.folder / FOLDER / JUDGEMENTS)
    if answers:
        judge.groundedness(answers, "")
    else:
        judge.score(sample_rows(session))
    monkeypatch.undo()


def test_what_was_measured_replaces_what_was_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(tmp_path)
    assumed = judging_cost(session, is_timed=True)
    assert assumed is not None
    assert assumed.judgements == 2  # criteria
    assert assumed.seconds == 2 * ENDPOINT_SECONDS
    judged(session, 0.25, monkeypatch)
    measured = judging_cost(session, is_timed=True)
    assert measured is not None
    assert measured.seconds == pytest.approx(0.5)
    assert (measured.prompt_tokens, measured.new_tokens) == (600, 40)
    assert measured.fee == pytest.approx((600 * 2 + 40 * 10) / 1e6)
    told = judging_sentence(session, measured)
    answers = 12 * (1 + judging.rule_count(session))
    assert f"up to {2 * answers:,} judgements" in told
    assert f"{answers * 640:,} tokens" in told
    assert f"{answers * (measured.fee or 0):.2f} USD" in told
    pairs = judging_cost(session_of(tmp_path / "pairs", 'against = "reference"'), is_timed=True)
    assert pairs is not None
    assert pairs.judgements == 4  # in both orders


def test_a_plan_counts_the_time_of_judging_and_money_its_fee(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for budget, of_fee in (("", 0.0), ("1h", 0.0), ("5 USD", 7200.0)):
        session = session_of(tmp_path, budget=budget, model=tiny_model_folder)
        judged(session, 0.25, monkeypatch)
        cost = judging_cost(session, is_timed=True)
        assert cost is not None
        each = cost.seconds + (cost.fee or 0.0) * of_fee
        [without], [arm] = (predict(session, session.task.arms, judging=known) for known in (None, cost))
        assert arm.answer_seconds - without.answer_seconds == pytest.approx(12 * each)
        assert arm.with_test_share(0.5).answer_seconds == pytest.approx(arm.answer_seconds - 6 * each)


def test_the_fee_of_a_study_is_that_of_judgements_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, before = session_of(tmp_path), datetime.now(UTC)
    judged(session, 0.25, monkeypatch)
    assert judging_fee(session.task, before) == pytest.approx(16 * (300 * 2 + 20 * 10) / 1e6)
    assert judging_fee(session.task, before + timedelta(hours=1)) == 0.0


def test_a_local_judge_is_timed_on_a_few_rows_and_nothing_of_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, asked, clock = session_of(tmp_path, SENTENCES, arms=READING), list[int](), [0.0]
    task = session.task
    assert task.judge is not None
    table = task.judge.model_copy(update={"by": "somewhere"})
    object.__setattr__(task, "judge", table)

    def ask(prompts: Sequence[Prompt], _words: Sequence[str]) -> list[Generation]:
        asked.append(len(prompts))
        clock[0] += 0.125 * len(prompts)
        return [Generation(id=prompt.id, text="yes") for prompt in prompts]

    model = JudgeModel(name="somewhere", version="w", ask=ask)
    monkeypatch.setattr(judging, "judge_version", lambda _: "w")
    monkeypatch.setattr(judging, "open_judge", lambda _: Judge(table, model, tmp_path / FOLDER / JUDGEMENTS))
    monkeypatch.setattr("trimtab.measurement.judge.time.perf_counter", lambda: clock[0])
    cost = judging_cost(session, is_timed=True)
    assert cost is not None
    assert (cost.seconds, cost.fee) == (0.25, 0.0)
    assert asked == [2, 16]  # the first row loads it
    assert cost.sentences is not None
    longer = cost.sentences.prompt_tokens / (cost.prompt_tokens / 2)
    assert longer > 1  # with passages to read
    assert (cost.sentences.seconds, cost.sentences.fee) == (pytest.approx(0.125 * longer), 0.0)
    assert not (tmp_path / FOLDER / JUDGEMENTS).exists()


def test_sentences_are_counted_where_an_arm_reads_passages_apart_from_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, judge, arms in (("off", "", READING), ("alone", SENTENCES, ("api-big",))):
        none = judging_cost(session_of(tmp_path / folder, judge, arms=arms), is_timed=True)
        assert none is not None
        assert none.sentences is None
    session, before = session_of(tmp_path / "on", SENTENCES, arms=READING), datetime.now(UTC)
    assumed = judging_cost(session, is_timed=True)
    assert assumed is not None
    assert assumed.sentences is not None
    assert assumed.sentences.judgements == 1  # a word is one sentence
    assert assumed.sentences.seconds == ENDPOINT_SECONDS
    assert assumed.sentences.prompt_tokens > assumed.prompt_tokens / assumed.judgements  # it is shown passages, too
    judged(session, 0.25, monkeypatch)
    passage = Passage(id="1", document="d", title="Bonn", path=(), text="Bonn has a tower.", source="d")
    hits = (Hit(passage=passage, rank=1, score=1.0),)
    said = ("Bonn has a tower. It is green. It leans.", "The moon is far.")
    answers = [made_answer(str(number), 1.0, answer=text, hits=hits) for number, text in enumerate(said)]
    judged(session, 0.75, monkeypatch, answers)
    cost = judging_cost(session, is_timed=True)
    assert cost is not None
    assert (cost.prompt_tokens, cost.seconds) == (600, pytest.approx(0.5))  # of two criteria, without the sentences
    checking = cost.sentences
    assert checking is not None
    assert checking.judgements == 2  # four of two answers
    assert (checking.prompt_tokens, checking.seconds) == (1800, pytest.approx(1.5))
    assert checking.fee == pytest.approx((1800 * 2 + 40 * 10) / 1e6)
    paid = 16 * (300 * 2 + 20 * 10) + 4 * (900 * 2 + 20 * 10)
    assert judging_fee(session.task, before) == pytest.approx(paid / 1e6)
    rules = judging.rule_count(session)
    told = judging_sentence(session, cost)
    assert f"up to {2 * 12 * (2 + rules):,} judgements of test answers and about 24 of their sentences" in told
    assert f"{12 * (2 + rules) * 640 + 12 * 1840:,} tokens" in told
    assert f"{12 * ((2 + rules) * (cost.fee or 0) + checking.fee):.2f} USD" in told


def test_a_plan_counts_sentences_for_the_arms_that_read_passages(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(tmp_path, SENTENCES, "5 USD", tiny_model_folder, READING)
    judged(session, 0.25, monkeypatch)
    cost = judging_cost(session, is_timed=True)
    assert cost is not None
    assert cost.sentences is not None
    each, checking = (part.seconds + (part.fee or 0.0) * 7200 for part in (cost, cost.sentences))
    without, plans = (predict(session, session.task.arms, judging=known) for known in (None, cost))
    more = [plan.answer_seconds - bare.answer_seconds for plan, bare in zip(plans, without, strict=True)]
    assert more == pytest.approx([12 * each, 12 * (each + checking)])
    assert plans[1].with_test_share(0.5).answer_seconds == pytest.approx(
        plans[1].answer_seconds - 6 * (each + checking)
    )
