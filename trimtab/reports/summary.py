"""A study in plain words: of 100 questions so many right, what is poor about that, and what to do next."""

from __future__ import annotations

from collections import Counter

from trimtab.base.records import Failure
from trimtab.measurement.error_analysis import AnswerOutcome, failure_counts, of_hundred, outcome, quartiles
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import middle, score
from trimtab.reports.labels import GRADED, metric_called

POOR = 0.5  # a share of the questions from which on what goes wrong is told
REMEDIES: dict[Failure, str] = {
    "retrieval_miss": "the passage was not found: mend the documents, or try more passages",
    "misread": "the passage was there and was misread: try a larger base model, or one tuned on passages",
    "undecided": "their words do not tell whether they are right: judge them by hand, with trimtab audit",
    "format": "they do not fit the format: say it in the instruction",
    "abstained_wrongly": "it says that it does not know: look at what the instruction says of that, or give it documents",
    "should_have_abstained": "it answers what has no answer here: say in the instruction when to abstain, and give rows that do",
    "wrong": "nothing tells why: try more training rows, documents, or a larger base model",
}
MISREAD_BY_TUNED = (
    "the passage was there and was misread: try a larger base model, or more training rows that have passages"
)


def in_words(study: StudyFolder, entry: ArmEntry) -> str:
    """Of 100 questions so many right, wrong, wrongly abstained, wrongly answered; of a graded metric the quartiles."""
    if not entry.answers:
        return ""
    name = middle(entry.name)
    if study.metric in GRADED:
        lower, median, upper = map(score, quartiles(entry.answers))
        return (
            f"Of 100 answers of {name}, 25 score at most {lower}, 50 at most {median} and 75 at most {upper}; "
            f"{metric_called(study.metric)} does not say which are right."
        )
    counts = of_hundred(entry.answers)
    parts = [f"gets {counts['right']} right and {counts['wrong']} wrong"]
    if counts["abstained_wrongly"]:
        parts.append(f"wrongly says of {counts['abstained_wrongly']} that it does not know")
    if counts["answered_wrongly"]:
        parts.append(f"answers {counts['answered_wrongly']} that have no answer here")
    *first, last = parts
    return f"Of 100 questions, {name} {', '.join(first)}{', and ' if first else ''}{last}."


def poor(study: StudyFolder, entry: ArmEntry) -> list[str]:
    """What of that nobody should rely on, each a sentence; an arm shown to reach a target gets right as many as was asked for."""
    name, metric = middle(entry.name), metric_called(study.metric)
    above = max(
        (one for one in study.trivial if entry.name in one.not_beaten_by), key=lambda one: one.score.value, default=None
    )
    told = (
        [f"{name} is not shown to beat {above.arm}, which takes no model ({score(above.score.value)})."]
        if above
        else []
    )
    if not entry.answers:
        return told
    if study.metric in GRADED:
        return [
            *told,
            f"{metric} says how near an answer comes to a reference, not whether it is right: read some of them.",
        ]
    counts: Counter[AnswerOutcome] = Counter(map(outcome, entry.answers))
    due = sum(one.abstained and one.failure == "none" for one in entry.answers)
    if _mostly_wrong(study, entry) and not entry.passes:
        told.append(f"{name} gets fewer than half of the questions right.")
    without, withheld = counts["answered_wrongly"], counts["abstained_wrongly"]
    if without and without >= POOR * (without + due):
        share = _share(without, without + due)
        told.append(f"Of the questions that have no answer here, {name} answers {share} instead of saying so.")
    answerable = len(entry.answers) - due - without
    if withheld and withheld >= POOR * answerable:
        share = _share(withheld, answerable)
        told.append(f"Of the questions that have an answer, {name} says of {share} that it does not know.")
    return told


def _share(number: int, of: int) -> str:
    return "all" if number == of else f"{number / of:.0%}"


def _mostly_wrong(study: StudyFolder, entry: ArmEntry) -> bool:
    """Whether fewer than half of the questions come out right, where that can be told."""
    if study.metric in GRADED or not entry.answers:
        return False
    return sum(outcome(one) == "right" for one in entry.answers) < POOR * len(entry.answers)


def next_step(study: StudyFolder, entry: ArmEntry | None) -> str:
    """What to do after this study; `entry` is the arm that is shown, or the best one."""
    verdict = study.verdict
    if entry is None:
        if any(one.status == "failed" for one in study.arms):
            return "Next: mend what failed (see “Without a score”), then run trimtab study --resume."
        return "Next: give it more time, with trimtab study --resume --budget and more than it had."
    if study.target is None and _mostly_wrong(study, entry):  # nor would more questions make it better
        return _better(study, entry)
    if verdict.status == "shown":
        if study.target is None:
            return (
                f"Next: read what {entry.name} got wrong, decide how good is good enough, "
                "and write that into the task file as quality under [target]."
            )
        return f"Next: put questions of your own to {entry.name} with trimtab ask."
    if verdict.needs and verdict.needs.startswith("about "):
        return f"Next: {_more_time(study)}label {verdict.needs}, add them to the task’s examples, and run trimtab study again."
    if entry.passes:
        return "Next: take a lighter arm, a faster machine, or another limit: its score is not what is lacking."
    return _better(study, entry)


def _more_time(study: StudyFolder) -> str:
    """What comes before all else where a budget cut the study: time costs less than labels."""
    cut = study.manifest.get("cuts")
    return "give a new study more time, with trimtab study --budget, as this one was cut to fit; then " if cut else ""


def _better(study: StudyFolder, entry: ArmEntry) -> str:
    """What would most likely make the arm better: what mends its most frequent failure."""
    if entry.classes:
        return (
            f"Next: {_more_time(study)}look at which classes {entry.name} takes for which (“Class by class”): label more rows of those, "
            "or try a larger base model."
        )
    failed = failure_counts(entry.answers)
    del failed["none"]
    if study.metric in GRADED or not failed:
        return f"Next: {_more_time(study)}read the answers of {entry.name} that score lowest, and change what they have in common."
    most = max(failed, key=lambda kind: failed[kind])
    remedy = MISREAD_BY_TUNED if most == "misread" and entry.arm.stages else REMEDIES[most]
    return f"Next: {_more_time(study)}read what {entry.name} got wrong. Most often {remedy}."
