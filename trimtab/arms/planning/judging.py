"""Predicts what judging answers takes: seconds, tokens, and the fee of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from trimtab.arms.fingerprint import judge_version
from trimtab.arms.judges import judge_table, open_judge, read_judgements
from trimtab.arms.planning.plan import JudgingCost
from trimtab.arms.session import Session
from trimtab.arms.trivial import rule_count
from trimtab.base.records import Example
from trimtab.measurement.judge import judge_questions
from trimtab.measurement.scorer import ScorerRow

ROWS = 8  # whose answers are measured or counted
MEASURED = 200  # newest judgements of the judge that its speed and tokens are taken from
ENDPOINT_SECONDS, REPLY_TOKENS = 0.5, 30.0  # of a judgement of an endpoint that has judged nothing yet
TOKEN_CHARACTERS = 4.0  # of a token that nobody has counted yet


def judging_cost(session: Session, *, is_timed: bool) -> JudgingCost | None:
    """Predict what judging an answer takes; None where nobody judges.

    Speed and tokens are those of this judge's kept judgements. Without any, a local judge is asked about a few rows
    (about one without `is_timed`), which is not kept, and an endpoint about none.
    """
    task = session.task
    if task.judge is None:
        return None
    asked = [judge_questions(task.judge, row, reasons=bool(task.judging_endpoint)) for row in sample_rows(session)]
    judgements = max(map(len, asked))
    version = judge_version(task)
    kept = [line for line in read_judgements(task) if line["version"] == version and "seconds" in line][-MEASURED:]
    if kept:
        sent, received, each = (_mean(kept, key) for key in ("prompt_tokens", "new_tokens", "seconds"))
    else:
        prompts = [question.prompt for questions in asked for question in questions]
        sent = fmean(sum(len(turn.content) for turn in prompt.messages) for prompt in prompts) / TOKEN_CHARACTERS
        received = REPLY_TOKENS if task.judging_endpoint else 1.0
        each = ENDPOINT_SECONDS if task.judging_endpoint else _measured_seconds(session, is_timed=is_timed)
    sent, received, seconds = sent * judgements, received * judgements, each * judgements
    fee: float | None = 0.0
    if task.judging_endpoint:
        price = task.api[task.judging_endpoint].price_per_million
        fee = price.fee(sent, received) if price else None
    return JudgingCost(judgements=judgements, prompt_tokens=sent, new_tokens=received, seconds=seconds, fee=fee)


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
    """Say what judging the test answers of all arms and fixed rules takes."""
    task, tests = session.task, len(session.workspace.splits["test"])
    answers = tests * (len(task.arms) * task.study.seeds + rule_count(session))
    hour, endpoint = task.cost.machine_hour, task.judging_endpoint
    price = [f"{answers * cost.fee:,.2f} {task.cost.currency}"] if endpoint and cost.fee is not None else []
    if hour and not endpoint:
        price = [f"{answers * cost.seconds / 3600 * hour.price:,.2f} {task.cost.currency}"]
    tokens = answers * (cost.prompt_tokens + cost.new_tokens)
    figures = (f"about {tokens:,.0f} tokens", f"{answers * cost.seconds / 60:,.1f} min", *price)
    name = f"api-{endpoint}" if endpoint else judge_table(task).by
    return (
        f"The judge {name} is asked for up to {answers * cost.judgements:,} judgements of test answers "
        f"({', '.join(figures)}), and for more if arms try settings on dev."
    )


def _measured_seconds(session: Session, *, is_timed: bool) -> float:
    """Return the seconds of a judgement by a local judge, loaded for it."""
    judge, rows = open_judge(session.task), sample_rows(session)
    judge.try_out(rows[:1])  # loads it
    count, seconds = judge.try_out(rows if is_timed else rows[:1])
    return seconds / max(1, count)


def _mean(lines: Sequence[dict[str, Any]], key: str) -> float:
    return fmean(float(line[key]) for line in lines)
