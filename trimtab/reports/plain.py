"""A study in plain words: of 100 questions so many right, what is poor about that, and what to do next."""

from __future__ import annotations

from collections import Counter

from trimtab.base.records import Failure
from trimtab.measurement.inspection import Outcome, failure_counts, of_hundred, outcome, quartiles
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.words import GRADED, metric_called
from trimtab.reports.writing import listed, middle, score

POOR = 0.5  # a share of the questions from which on what goes wrong is told
REMEDIES: dict[Failure, str] = {
    "retrieval_miss": "the passage was not found: mend the documents, or try more passages",
    "misread": "the passage was there and was misread: try a larger base model, or one tuned on passages",
    "format": "they do not fit the format: say it in the instruction",
    "abstained_wrongly": "it says that it does not know: look at what the instruction says of that, or give it documents",
    "should_have_abstained": "it answers what has no answer here: say in the instruction when to abstain, and give rows that do",
    "wrong": "they are just wrong: try more training rows, documents, or a larger base model",
}


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
    return f"Of 100 questions, {name} {listed(parts)}."


def poor(study: StudyFolder, entry: ArmEntry) -> list[str]:
    """What of that nobody should rely on, each a sentence; an arm shown to reach a target gets right as many as was asked for."""
    if not entry.answers:
        return []
    name, metric = middle(entry.name), metric_called(study.metric)
    if study.metric in GRADED:
        return [f"{metric} says how near an answer comes to a reference, not whether it is right: read some of them."]
    counts: Counter[Outcome] = Counter(map(outcome, entry.answers))
    due = sum(one.abstained and one.failure == "none" for one in entry.answers)
    told, total = [], len(entry.answers)
    if counts["right"] < POOR * total and not entry.passes:
        told.append(f"{name} gets fewer than half of the questions right.")
    without, withheld = counts["answered_wrongly"], counts["abstained_wrongly"]
    if without and without >= POOR * (without + due):
        share = without / (without + due)
        told.append(f"Of the questions that have no answer here, {name} answers {share:.0%} instead of saying so.")
    answerable = total - due - without
    if withheld and withheld >= POOR * answerable:
        share = withheld / answerable
        told.append(f"Of the questions that have an answer, {name} says of {share:.0%} that it does not know.")
    return told


def next_step(study: StudyFolder, entry: ArmEntry | None) -> str:
    """What to do after this study; `entry` is the arm that is shown, or the best one."""
    verdict = study.verdict
    if entry is None:
        if any(one.status == "failed" for one in study.arms):
            return "Next: mend what failed (see “Without a score”), then run trimtab study --resume."
        return "Next: give it more time, with trimtab study --resume --budget and more than it had."
    if verdict.status == "shown":
        if study.target is None:
            return (
                f"Next: read what {entry.name} got wrong, decide how good is good enough, "
                "and write that into the task file as quality under [target]."
            )
        return f"Next: put questions of your own to {entry.name} with trimtab ask."
    if verdict.needs and verdict.needs.startswith("about "):
        return f"Next: label {verdict.needs}, add them to the task’s examples, and run trimtab study again."
    if entry.passes:
        return "Next: take a lighter arm, a faster machine, or another limit: its score is not what is lacking."
    failed = failure_counts(entry.answers)
    del failed["none"]
    if study.metric in GRADED or not failed:
        return f"Next: read the answers of {entry.name} that score lowest, and change what they have in common."
    most = max(failed, key=lambda kind: failed[kind])
    return f"Next: read what {entry.name} got wrong. Most often {REMEDIES[most]}."
