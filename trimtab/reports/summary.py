"""A study in plain words: how many of 100 questions are right, what is weak about that, and what to do next."""

from __future__ import annotations

from collections import Counter

from trimtab.base.records import Failure
from trimtab.measurement.error_analysis import AnswerOutcome, failure_counts, of_hundred, outcome, quartiles
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import elide_middle, format_score

WARN_SHARE = 0.5  # a warning is given if at least this share of the questions goes wrong
REMEDIES: dict[Failure, str] = {
    "retrieval_miss": "the passage was not found: mend the documents, or try more passages",
    "misread": "the passage was there and was misread: try a larger base model, or one tuned on passages",
    "undecided": "their words do not tell whether they are right: judge them by hand, with trimtab audit",
    "format": "they do not fit the format: say it in the instruction",
    "abstained_wrongly": (
        "it says that it does not know: look at what the instruction says of that, or give it documents"
    ),
    "should_have_abstained": (
        "it answers what has no answer here: say in the instruction when to abstain, and give rows that do"
    ),
    "wrong": "nothing tells why: try more training rows, documents, or a larger base model",
}
MISREAD_BY_TUNED = (
    "the passage was there and was misread: try a larger base model, or more training rows that have passages"
)


def accuracy_in_words(study: StudyFolder, entry: ArmEntry) -> str:
    """Return how many of 100 questions are right, wrong, wrongly abstained from, wrongly answered; quartiles for a
    graded metric."""
    if not entry.answers:
        return ""
    name = elide_middle(entry.name)
    if study.right_metric is None:
        exact = f" Exactly right are {entry.result.exact} of them." if entry.result.exact else ""
        lower, median, upper = map(format_score, quartiles(entry.answers))
        return (
            f"Of 100 answers of {name}, 25 score at most {lower}, 50 at most {median} and 75 at most {upper}; "
            f"{study.metric.label} does not say which are right.{exact}"
        )
    counts = of_hundred(entry.answers)
    parts = [f"gets {counts['right']} right and {counts['wrong']} wrong"]
    if counts["abstained_wrongly"]:
        parts.append(f"wrongly says of {counts['abstained_wrongly']} that it does not know")
    if counts["answered_wrongly"]:
        parts.append(f"answers {counts['answered_wrongly']} that have no answer here")
    *first, last = parts
    return f"Of 100 questions, {name} {', '.join(first)}{', and ' if first else ''}{last}."


def weaknesses(study: StudyFolder, entry: ArmEntry) -> list[str]:
    """Return what nobody should rely on, a sentence each; an arm that reaches a target is not blamed for its
    accuracy."""
    name, metric = elide_middle(entry.name), study.metric.label
    trivial = max(
        (arm for arm in study.result.trivial if entry.name in arm.not_beaten_by),
        key=lambda arm: arm.score.value,
        default=None,
    )
    warnings = (
        [f"{name} is not shown to beat {trivial.arm}, which takes no model ({format_score(trivial.score.value)})."]
        if trivial
        else []
    )
    if not entry.answers:
        return warnings
    if study.right_metric is None:
        unseen = ", and it does not see a “not” that turns an answer round" if study.metric.counts_words else ""
        near = f"{metric} says how near an answer comes to a reference, not whether it is right{unseen}"
        return [*warnings, f"{near}: read some of them."]
    counts: Counter[AnswerOutcome] = Counter(map(outcome, entry.answers))
    right_abstentions = sum(answer.abstained and answer.failure == "none" for answer in entry.answers)
    if _mostly_wrong(study, entry) and not entry.result.passes:
        warnings.append(f"{name} gets fewer than half of the questions right.")
    answered_wrongly, abstained_wrongly = counts["answered_wrongly"], counts["abstained_wrongly"]
    if answered_wrongly and answered_wrongly >= WARN_SHARE * (answered_wrongly + right_abstentions):
        share = _share(answered_wrongly, answered_wrongly + right_abstentions)
        warnings.append(f"Of the questions that have no answer here, {name} answers {share} instead of saying so.")
    answerable = len(entry.answers) - right_abstentions - answered_wrongly
    if abstained_wrongly and abstained_wrongly >= WARN_SHARE * answerable:
        share = _share(abstained_wrongly, answerable)
        warnings.append(f"Of the questions that have an answer, {name} says of {share} that it does not know.")
    return warnings


def _share(number: int, total: int) -> str:
    return "all" if number == total else f"{number / total:.0%}"


def _mostly_wrong(study: StudyFolder, entry: ArmEntry) -> bool:
    """True if fewer than half of the answers are right, as far as the metric tells."""
    if study.right_metric is None or not entry.answers:
        return False
    return sum(outcome(answer) == "right" for answer in entry.answers) < WARN_SHARE * len(entry.answers)


def next_step(study: StudyFolder, entry: ArmEntry | None) -> str:
    """Return what to do after this study; `entry` is the shown arm, or the best one."""
    verdict = study.result.verdict
    if entry is None:
        if any(arm.result.status == "failed" for arm in study.arms):
            return "Next: mend what failed (see “Without a score”), then run trimtab study --resume."
        return "Next: give it more time, with trimtab study --resume --budget and more than it had."
    if study.result.target is None and _mostly_wrong(study, entry):  # more questions would not make it better
        return _improvement(study, entry)
    if verdict.status == "shown":
        if study.result.target is None:
            graded = study.right_metric is None
            answers = f"the answers of {entry.name} that score lowest" if graded else f"what {entry.name} got wrong"
            return (
                f"Next: read {answers}, decide how good is good enough, "
                "and write that into the task file as quality under [target]."
            )
        return f"Next: put questions of your own to {entry.name} with trimtab ask."
    if verdict.needs and verdict.needs.startswith("about "):
        return (
            f"Next: {_more_time(study)}label {verdict.needs}, add them to the task’s examples, and run trimtab "
            "study again."
        )
    if entry.result.passes:
        return "Next: take a lighter arm, a faster machine, or another limit: its score is not what is lacking."
    return _improvement(study, entry)


def _more_time(study: StudyFolder) -> str:
    """Return the advice to add time if a budget cut the study, as time costs less than labels."""
    cut = study.manifest.get("cuts")
    return "give a new study more time, with trimtab study --budget, as this one was cut to fit; then " if cut else ""


def _improvement(study: StudyFolder, entry: ArmEntry) -> str:
    """Return what would most likely improve the arm: the remedy for its most frequent failure."""
    if entry.classes:
        return (
            f"Next: {_more_time(study)}look at which classes {entry.name} takes for which (“Class by class”): "
            "label more rows of those, "
            "or try a larger base model."
        )
    failed = failure_counts(entry.answers)
    del failed["none"]
    if study.right_metric is None or not failed:
        return (
            f"Next: {_more_time(study)}read the answers of {entry.name} that score lowest, and change what they "
            "have in common."
        )
    most = max(failed, key=lambda kind: failed[kind])
    remedy = MISREAD_BY_TUNED if most == "misread" and entry.arm.stages else REMEDIES[most]
    return f"Next: {_more_time(study)}read what {entry.name} got wrong. Most often {remedy}."
