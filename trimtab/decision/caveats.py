"""What limits a verdict, a sentence each: trivial arms, judges, people who judged answers, slices, and time; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from trimtab.base.grammar import TRIVIAL, imitates_teacher, joined, method_of
from trimtab.base.metrics import find_metric
from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, Estimate, HumanAudit, OverTime, TrivialArm, Verdict, WeakClass
from trimtab.base.task import Task
from trimtab.decision.summary import MOST_NAMED, in_metric, way
from trimtab.measurement.audit import ENOUGH, ENOUGH_WEIGHTED, Audited
from trimtab.measurement.figures import behind_curve
from trimtab.measurement.groundedness import JUDGED_SENTENCES
from trimtab.measurement.judge_bias import OrderEffect, count_markup, grade_lean, speaks_to_judge
from trimtab.measurement.raters import agreement_words
from trimtab.measurement.statistics import LEVEL, holm

TOLD_UNSURE = 0.02  # share of an arm's answers that the metric cannot decide, from which on the sentence tells it
TOLD_UNGROUNDED = 0.1  # share of an arm's sentences that its passages do not support, from which on it is told
LEAST_OF_SLICE = 10  # questions of a slice, below which it is not tested


def trivial_arms(
    arms: Sequence[str], trivial: Mapping[str, Estimate], p_behind: Callable[[str, str], float]
) -> tuple[TrivialArm, ...]:
    """Return each trivial arm with the arms that are not shown to be better than it.

    `p_behind(arm, trivial)`: one-sided p of "the arm is no better", the paired test that the verdict makes, with no
    margin. Holm over all pairs of an arm and a trivial arm: every arm might be the one that is said to beat one of
    them.
    """
    pairs = [(name, arm) for name in trivial for arm in arms]
    adjusted = dict(zip(pairs, holm([p_behind(arm, name) for name, arm in pairs]), strict=True))
    return tuple(
        TrivialArm(arm=name, score=score, not_beaten_by=tuple(arm for arm in arms if adjusted[(name, arm)] > LEVEL))
        for name, score in trivial.items()
    )


def trivial_sentence(trivial: Sequence[TrivialArm], scores: Mapping[str, float]) -> str:
    """Return the arms that are not shown to beat a trivial arm, each beside the best of those; empty if all beat all.

    `scores`: by arm; of one that scores no more than the trivial arm it is said that it scores no higher.
    """
    strongest: dict[str, TrivialArm] = {}
    for rule_arm in sorted(trivial, key=lambda rule_arm: -rule_arm.score.value):
        for arm in rule_arm.not_beaten_by:
            strongest.setdefault(arm, rule_arm)
    named = []
    for rule_arm in trivial:
        arms = [arm for arm, best in strongest.items() if best is rule_arm]
        no_better = [arm for arm in arms if scores[arm] <= rule_arm.score.value]
        rule = f"a fixed rule without a model, {TRIVIAL[rule_arm.arm]} ({rule_arm.arm}: {rule_arm.score.value:.3f})"
        for those, one_does, several_do in (
            (no_better, "scores no higher than", "score no higher than"),
            ([arm for arm in arms if arm not in no_better], "is not shown to beat", "are not shown to beat"),
        ):
            if those:
                named.append(f"{joined(map(way, those))} {one_does if len(those) == 1 else several_do} {rule}.")
                rule = f"that rule ({rule_arm.arm})"
    return " ".join(named)


def unscored_rules_sentence(trivial: Collection[str], task: Task) -> str:
    """Say that the trivial arms have no score, as where the program or judge that gives it failed; empty if they do."""
    if trivial or find_metric(task.metric).score is not None:
        return ""
    resume = task.command("study --resume")
    return f"The fixed rules without a model were not scored, so nothing says what beats them; {resume} scores them."


def with_uneven_metric(verdict: Verdict, audited: Audited, task: Task) -> Verdict:
    """Return the verdict, with a sentence on two arms if the metric is shown to favour one by more than the margin.

    The scores are corrected arm by arm by what people said, so nothing is withheld.
    """
    uneven = audited.uneven(task.target.margin)
    if uneven is None or verdict.status != "shown":
        return verdict
    a, b, gap = uneven
    favoured, other = (b, a) if gap > 0 else (a, b)
    sentence = (
        f"The program that marks answers ({task.metric}) favours {way(favoured)} over {way(other)} by {abs(gap):.3f}, "
        f"as people who judged answers found; the scores here are corrected for that, arm by arm."
    )
    return replace(verdict, sentence=f"{verdict.sentence} {sentence}")


def judges_itself(task: Task, arm: Arm) -> bool:
    """True if the model that judges an arm's answers is the one that wrote them, with or without an adapter."""
    if task.judge is None:
        return False
    if task.judging_endpoint is not None:
        return _judging_by(task, arm.endpoint)
    return method_of(arm).uses_base and task.judge.by in ("base", task.base.model)


def judges_pupil(task: Task, arm: Arm) -> bool:
    """True if an arm was trained on answers of the model that judges it."""
    if task.judge is None or not imitates_teacher(arm):
        return False
    if task.judging_endpoint is not None:
        return _judging_by(task, task.teacher.api)
    return task.judge.by == task.teacher.model


def _judging_by(task: Task, endpoint: str | None) -> bool:
    """True if the model behind an endpoint is the judge's, under whatever name."""
    judge, other = task.api[task.judging_endpoint or ""], task.api.get(endpoint or "")
    return other is not None and (other.url, other.model) == (judge.url, judge.model)


def self_judged_sentence(arms: Sequence[Arm], task: Task) -> str:
    """Name the arms whose answers are judged by the model that wrote them, or that taught them; empty for none."""
    written = [way(arm.name) for arm in arms if judges_itself(task, arm)]
    taught = [way(arm.name) for arm in arms if judges_pupil(task, arm)]
    return " ".join(
        f"The judge {did} {joined(named)} itself."
        for did, named in (("wrote the answers of", written), ("taught", taught))
        if named
    )


def judge_bias_sentence(order: OrderEffect | None, answers: Mapping[str, Sequence[Answer]], task: Task) -> str:
    """Say how often the order of two answers changed the judge's choice, that answers give it orders, and that its
    grades are shown to go with length or format; empty where there is nothing to say.
    """
    if not find_metric(task.metric).judged:
        return ""
    sentences = []
    if order is not None:
        place = (
            "" if not order.clear else ", mostly to the " + ("first" if order.to_first > order.to_second else "second")
        )
        sentences.append(
            f"The order of the two answers changed the judge's choice in {order.changed / order.compared:.0%} of "
            f"{order.compared:,} comparisons{place}."
        )
    speaking = {arm: sum(speaks_to_judge(one.answer) for one in own) for arm, own in answers.items()}
    if any(speaking.values()):
        counts = joined(f"{count:,} of {way(arm)}" for arm, count in speaking.items() if count)
        sentences.append(f"Some answers seem to give the judge orders, which may move it ({counts}): read them.")
    for what, feature in (("length", len), ("lists, headings and bold words", count_markup)):
        lean = grade_lean(answers, feature)
        if lean is not None and lean.clear:
            found = lean.correlation
            sentences.append(
                f"The judge's grades {'rise' if found.value > 0 else 'fall'} with an answer's {what}: rank correlation "
                f"within a question {found.value:+.2f} (95% interval {found.low:+.2f} to {found.high:+.2f})."
            )
    return " ".join(sentences)


def audit_sentence(audit: HumanAudit | None, results: Sequence[ArmResult], task: Task) -> str:
    """Say whether people have judged answers, and what the metric could not decide; empty for a closed set of
    labels."""
    if task.task.kind == "classify":
        return ""
    unsure, untried = (
        joined(
            f"{arm.extras[figure]:.0%} of {way(arm.arm)}'s answers"
            for arm in results
            if arm.extras.get(figure, 0.0) >= TOLD_UNSURE
        )
        for figure in ("unsure", "untried")
    )
    undecided = f" The program could not decide {unsure}, which count as wrong." if unsure else ""
    undecided += f" It was not tried in the language of {untried}." if untried else ""
    judged = find_metric(task.metric).judged
    if audit is None and judged:
        return (
            "Uncalibrated: a model graded the answers and no person has checked its grades, so that they show nothing; "
            f"trimtab audit lets people grade the answers to {ENOUGH} questions."
        )
    if audit is None:
        marked = f"Not audited: a program marked the answers (metric: {task.metric})"
        return f"{marked}; trimtab audit lets people check its marks.{undecided}"
    agree = "".join(f" {agreement_words(one)}" for one in audit.agreement)
    if audit.unused:
        agree += (
            f" Imported judgements of {audit.unused:,} questions do not count, since nobody says that these were drawn "
            "at random; they do once an audit has drawn them."
        )
    if audit.why_not:
        judges = "Uncalibrated: people" if judged else "People"
        said = f"{judges} judged {audit.answers:,} answers, which the verdict does not use: {audit.why_not}."
        return f"{said}{agree}{undecided}"
    sure = "" if audit.n_effective is None else f", as sure as {audit.n_effective:,.0f} that count alike"
    return (
        f"People judged the answers to {audit.questions:,} questions{sure}; all scores and differences are corrected "
        f"by that.{agree}"
    )


def groundedness_sentence(arm: ArmResult | None) -> str:
    """Say how much of what an arm's answers state its passages do not say, and who found that; empty below
    TOLD_UNGROUNDED, and for answers without passages.
    """
    contradicted, missing = (
        arm.extras.get(f"sentences_{kind}", 0.0) if arm else 0.0 for kind in ("contradicted", "not_there")
    )
    if arm is None or contradicted + missing < TOLD_UNGROUNDED:
        return ""
    if JUDGED_SENTENCES in arm.extras:
        return (
            f"Of 100 sentences in {way(arm.arm)}'s answers, {100 * missing:.0f} say what its passages do not say, and "
            f"{100 * contradicted:.0f} contradict them: by the judge, whose word on sentences no people have checked."
        )
    return (
        f"Of 100 sentences in {way(arm.arm)}'s answers, {100 * missing:.0f} say what no passage says in nearly these "
        f"words, and {100 * contradicted:.0f} give other numbers or dates than a passage near them: checked by facts "
        "and words, not by a model."
    )


def still_needed(audit: HumanAudit) -> int:
    """Return how many more questions must be judged before the verdict uses the audit."""
    short = ENOUGH - audit.questions
    if audit.n_effective:
        short = max(short, math.ceil(audit.questions * (ENOUGH_WEIGHTED / audit.n_effective - 1)))
    return max(0, short)


def slices_sentence(chosen: str | None, answers: Mapping[str, Sequence[Answer]], task: Task, level: float) -> str:
    """Return the slices on which another arm is shown to be better than the chosen one by more than the margin, or that
    there are none.

    One-sided tests at `level`, corrected by Holm over all slices and other arms. Empty without a chosen arm or slices
    that are large enough, and for macro-F1, which means little within a slice.
    """
    if chosen is None or find_metric(task.metric).by_class:
        return ""
    parts = {arm: _by_slice(rows) for arm, rows in answers.items()}
    pairs = [(name, arm) for name in parts[chosen] for arm in answers if arm != chosen and name in parts[arm]]
    if not pairs:
        return ""
    margin = task.target.margin
    chances = [behind_curve(parts[arm][name], parts[chosen][name], task)(-margin) for name, arm in pairs]
    better_on = [f"{way(arm)} on {name}" for (name, arm), p in zip(pairs, holm(chances), strict=True) if p <= level]
    better = f"shown to be better by more than {in_metric(task, margin)}"
    if better_on:
        return f"On some slices of the questions another one is {better}: {', '.join(better_on)}."
    names = list(parts[chosen])
    which = f"the {len(names)} slices of the questions" if len(names) > MOST_NAMED else ", ".join(names)
    return f"Looked at separately ({which}), no other way is {better} on any."


def _by_slice(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Return the answers of each slice with enough questions."""
    slices: dict[str, list[Answer]] = {}
    for row in answers:
        if row.slice is not None:
            slices.setdefault(row.slice, []).append(row)
    return {name: rows for name, rows in sorted(slices.items()) if len({row.item_id for row in rows}) >= LEAST_OF_SLICE}


def weak_classes_sentence(arm: str | None, weak: Sequence[WeakClass]) -> str:
    """Return the frequent classes on which an arm is far worse than elsewhere; empty for none."""
    if arm is None or not weak:
        return ""
    told = "; ".join(
        f"of 100 of the class {one.label} ({one.share:.0%} of the questions) it gets {_of_hundred(one.recall)} right, "
        f"of 100 others {_of_hundred(one.rest)}"
        for one in weak[:MOST_NAMED]
    )
    more = f"; and {len(weak) - MOST_NAMED} more such classes" if len(weak) > MOST_NAMED else ""
    return f"{way(arm)} is far worse on some classes than on the rest: {told}{more}."


def _of_hundred(share: Estimate) -> str:
    return f"{100 * share.value:.0f} (95% interval {100 * share.low:.0f} to {100 * share.high:.0f})"


def latency_sentence(task: Task) -> str:
    """Say what a latency was measured over; empty without a limit."""
    if task.target.latency_p95_ms is None:
        return ""
    return "Latencies hold for the minutes timed: of slow spells that did not come then nothing is known."


def stretches_sentence(stretches: int) -> str:
    """Say of how many stretches of time the test questions are; empty for none."""
    if not stretches:
        return ""
    return (
        f"Questions near in time do alike, as where an incident lasts: the test questions count as {stretches} "
        "independent stretches of time."
    )


def over_time_sentence(halves: OverTime | None) -> str:
    """Return both scores with their difference, and its consequence; empty if there are no times."""
    if halves is None:
        return ""
    new, before = halves.newest.value, halves.earlier.value
    sentence = (
        f"On the newer half of the test questions (from {halves.since} on) {way(halves.arm)} scores {new:.3f}, on the "
        f"older half {before:.3f}: a difference of {halves.difference:+.3f} (95% interval {halves.low:+.3f} to "
        f"{halves.high:+.3f})"
    )
    if halves.stretches:
        sentence += (
            f". Questions near in time do alike, so this counts as {halves.stretches} independent stretches of time"
        )
    if halves.high < 0:
        return f"{sentence}; it is shown to get worse with time."
    if halves.low > 0:
        return f"{sentence}; it is shown to do better on newer ones."
    return f"{sentence}; no change with time is shown."
