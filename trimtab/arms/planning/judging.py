"""Predicts what judging answers takes: seconds, tokens, and the fee of an endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import judge_version
from trimtab.arms.judges import judge_table, open_judge, read_judgements
from trimtab.arms.planning.answering_rate import some_passages
from trimtab.arms.planning.plan import JudgingCost
from trimtab.arms.session import Session
from trimtab.arms.trivial import rule_count
from trimtab.base.records import Arm, Example, Prompt
from trimtab.base.task import Task
from trimtab.measurement.groundedness import statements
from trimtab.measurement.judge import judge_questions, sentence_prompt
from trimtab.measurement.scorer import ScorerRow

ROWS = 8  # whose answers are measured or counted
MEASURED = 200  # newest judgements of the judge that its speed and tokens are taken from
ENDPOINT_SECONDS, REPLY_TOKENS = 0.5, 30.0  # of a judgement of an endpoint that has judged nothing yet
TOKEN_CHARACTERS = 4.0  # of a token that nobody has counted yet


@dataclass(frozen=True, kw_only=True)
class _Judgement:
    """What one judgement takes: tokens sent and received, and seconds."""

    sent: float
    received: float
    seconds: float

    def cost(self, task: Task, judgements: float) -> JudgingCost:
        """Return what so many judgements take."""
        sent, received = self.sent * judgements, self.received * judgements
        fee: float | None = 0.0
        if task.judging_endpoint:
            price = task.api[task.judging_endpoint].price_per_million
            fee = price.fee(sent, received) if price else None
        seconds = self.seconds * judgements
        return JudgingCost(judgements=judgements, prompt_tokens=sent, new_tokens=received, seconds=seconds, fee=fee)


def judging_cost(session: Session, *, is_timed: bool) -> JudgingCost | None:
    """Predict what judging an answer takes; None where nobody judges.

    Speed and tokens are those of this judge's kept judgements. Without any, a local judge is asked about a few rows
    (about one without `is_timed`), which is not kept, and an endpoint about none.
    """
    task = session.task
    if task.judge is None:
        return None
    asked = [judge_questions(task.judge, row, reasons=bool(task.judging_endpoint)) for row in sample_rows(session)]
    version = judge_version(task)
    kept = [line for line in read_judgements(task) if line["version"] == version and "seconds" in line]
    scored = [line for line in kept if "sentence" not in line][-MEASURED:]
    if scored:
        each = _measured(scored)
    else:
        each = _Judgement(
            sent=_tokens(question.prompt for questions in asked for question in questions),
            received=REPLY_TOKENS if task.judging_endpoint else 1.0,
            seconds=ENDPOINT_SECONDS if task.judging_endpoint else _measured_seconds(session, is_timed=is_timed),
        )
    cost, reading = each.cost(task, max(map(len, asked))), [arm for arm in task.arms if arm.retrieves]
    if not (task.judge.groundedness and reading):
        return cost
    checked = [line for line in kept if "sentence" in line][-MEASURED:]
    return replace(cost, sentences=_sentences_cost(session, reading[0], checked, each))


def _sentences_cost(session: Session, arm: Arm, checked: Sequence[dict[str, Any]], scoring: _Judgement) -> JudgingCost:
    """Predict what checking the sentences of an answer takes, by those that were checked, else by the references beside
    passages that the arm may be shown. A local judge's seconds grow with the tokens that it reads.
    """
    task = session.task
    if checked:
        answers = {(line["item"], line["answer"]) for line in checked}
        sentences = {(line["item"], line["answer"], line["sentence"]) for line in checked}
        return _measured(checked).cost(task, len(sentences) / len(answers))
    context = context_for(arm)
    hits = some_passages(session, context.words)[: context.passages]
    asked = [
        [
            sentence_prompt(row, hits, sentence, reasons=bool(task.judging_endpoint))
            for sentence in statements(row[3], task.task.unknown, row[1]) or [row[3]]
        ]
        for row in sample_rows(session)
    ]
    sent = _tokens(prompt for prompts in asked for prompt in prompts)
    seconds = scoring.seconds * (1.0 if task.judging_endpoint else max(1.0, sent / scoring.sent))
    return replace(scoring, sent=sent, seconds=seconds).cost(task, fmean(map(len, asked)))


def _measured(lines: Sequence[dict[str, Any]]) -> _Judgement:
    """Return what a judgement took on average."""
    sent, received, seconds = (
        fmean(float(line[key]) for line in lines) for key in ("prompt_tokens", "new_tokens", "seconds")
    )
    return _Judgement(sent=sent, received=received, seconds=seconds)


def _tokens(prompts: Iterable[Prompt]) -> float:
    """Return about how many tokens a prompt has."""
    return fmean(sum(len(turn.content) for turn in prompt.messages) for prompt in prompts) / TOKEN_CHARACTERS


def sample_rows(session: Session) -> list[ScorerRow]:
    """Return a few training rows, each with the reference of the next as its answer."""
    rows: Sequence[Example] = session.workspace.subset("train", ROWS)
    others = [*rows[1:], *rows[:1]]
    return [
        (row.id, row.input, row.references, f"{other.references[0]} ") for row, other in zip(rows, others, strict=True)
    ]


def rules_judging_seconds(session: Session, cost: JudgingCost) -> float:
    """Return the seconds of the budget that judging the test answers of the fixed rules uses up."""
    return cost.budget_seconds(session.task) * rule_count(session) * len(session.workspace.splits["test"])


def judging_sentence(session: Session, cost: JudgingCost) -> str:
    """Say what judging the test answers of all arms and fixed rules takes, and their sentences if they are checked."""
    task, tests = session.task, len(session.workspace.splits["test"])
    answers = tests * (len(task.arms) * task.study.seeds + rule_count(session))
    checked = tests * sum(arm.retrieves for arm in task.arms) * task.study.seeds
    parts = [(answers, cost), *([(checked, cost.sentences)] if cost.sentences else [])]
    seconds = sum(count * part.seconds for count, part in parts)
    hour, endpoint = task.cost.machine_hour, task.judging_endpoint
    fee = sum(count * (part.fee or 0.0) for count, part in parts)
    price = [f"{fee:,.2f} {task.cost.currency}"] if endpoint and cost.fee is not None else []
    if hour and not endpoint:
        price = [f"{seconds / 3600 * hour.price:,.2f} {task.cost.currency}"]
    tokens = sum(count * (part.prompt_tokens + part.new_tokens) for count, part in parts)
    figures = (f"about {tokens:,.0f} tokens", f"{seconds / 60:,.1f} min", *price)
    sentences = f" and about {checked * cost.sentences.judgements:,.0f} of their sentences" if cost.sentences else ""
    name = f"api-{endpoint}" if endpoint else judge_table(task).by
    return (
        f"The judge {name} is asked for up to {answers * cost.judgements:,} judgements of test answers{sentences} "
        f"({', '.join(figures)}), and for more if arms try settings on dev."
    )


def _measured_seconds(session: Session, *, is_timed: bool) -> float:
    """Return the seconds of a judgement by a local judge, loaded for it."""
    judge, rows = open_judge(session.task), sample_rows(session)
    judge.try_out(rows[:1])  # loads it
    count, seconds = judge.try_out(rows if is_timed else rows[:1])
    return seconds / max(1, count)
