"""Effects of a human audit on a decision: corrected scores, a withheld verdict, and the sentence on both; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from trimtab.base.grammar import joined
from trimtab.base.results import ArmResult, HumanAudit, Verdict
from trimtab.base.task import Task
from trimtab.measurement.audit import ENOUGH, ENOUGH_WEIGHTED, Audited

TOLD_UNSURE = 0.02  # share of an arm's answers that the metric cannot decide, from which on the sentence tells it


def unless_uneven(verdict: Verdict, audited: Audited, task: Task) -> Verdict:
    """Return the verdict, withheld if the metric is shown to favour one of two arms by more than the margin."""
    found = audited.uneven(task.target.margin)
    if found is None or verdict.status != "shown":
        return verdict
    a, b, gap = found
    favoured, other = (b, a) if gap > 0 else (a, b)
    needs = "a metric or a scorer that judges all arms alike"
    sentence = (
        f"No choice: the program that marks answers ({task.metric}) favours {favoured} over {other} by {abs(gap):.3f}, "
        f"as people who judged answers found. That is more than the margin of {task.target.margin:g}, so what it "
        "says of the two is withheld."
    )
    return replace(verdict, status="not_shown", arm=None, sentence=sentence, needs=needs, flips=())


def audit_sentence(audit: HumanAudit | None, results: Sequence[ArmResult], task: Task) -> str:
    """Say whether people have judged answers, and what the metric could not decide; empty for a closed set of
    labels."""
    if task.task.kind == "classify":
        return ""
    unsure = joined(
        f"{arm.extras['unsure']:.0%} of the answers of {arm.arm}"
        for arm in results
        if arm.extras.get("unsure", 0.0) >= TOLD_UNSURE
    )
    undecided = f" The program could not decide {unsure}, which count as wrong." if unsure else ""
    if audit is None:
        marked = (
            f"Not audited: a program marked the answers (metric: {task.metric}), and no person has checked its marks"
        )
        return f"{marked}; trimtab audit lets people do so.{undecided}"
    if audit.why_not:
        return f"People judged {audit.answers:,} answers, which the verdict does not use: {audit.why_not}.{undecided}"
    sure = "" if audit.n_effective is None else f", as sure as {audit.n_effective:,.0f} that count alike"
    return (
        f"People judged the answers to {audit.questions:,} questions{sure}; all scores and differences are corrected "
        "by that."
    )


def still_needed(audit: HumanAudit) -> int:
    """Return how many more questions must be judged before the verdict uses the audit."""
    short = ENOUGH - audit.questions
    if audit.n_effective:
        short = max(short, math.ceil(audit.questions * (ENOUGH_WEIGHTED / audit.n_effective - 1)))
    return max(0, short)
