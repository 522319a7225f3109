"""An audit of a finished study: people say of its answers, blind, whether they are right, and the study is decided anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.arms.saved import ANSWERS, STUDY_FILE, read_arm
from trimtab.base.codec import to_plain
from trimtab.base.errors import InputError
from trimtab.base.files import append_line, locked, read_lines, read_object, write_json
from trimtab.base.records import Answer
from trimtab.base.results import Audit, StudyResult
from trimtab.base.task import TASK_FILE, Task
from trimtab.decision.audited import audit_sentence
from trimtab.decision.judge import judge
from trimtab.decision.slices import slices_sentence
from trimtab.decision.trivial import sentence
from trimtab.measurement.audit import Asked, Audited, drawn, judged_by_key
from trimtab.measurement.clusters import group_count
from trimtab.measurement.evaluate import load_answers
from trimtab.reports.page import write_report
from trimtab.studies.open_study import OpenedStudy, open_study

AUDIT = "audit.jsonl"


@dataclass(frozen=True, kw_only=True)
class People:
    """What people said of a study; `used`: to correct scores by, None while too little is judged."""

    audit: Audit | None = None
    used: Audited | None = None


def read_audit(folder: Path, answers: Mapping[str, Sequence[Answer]], task: Task) -> People:
    """The judgements of a study's answers; nothing where there are none of these."""
    judged = judged_by_key(read_lines(folder / AUDIT, "item", "answer", "right"))
    if not judged or not answers:
        return People()
    found = Audited(answers, judged, task)
    audit = Audit(answers=len(judged), questions=found.count, arms=found.by_arm, why_not=found.why_not)
    return People(audit=audit, used=None if found.why_not else found)


class StudyAudit:
    """One audit under way: `pending` are the answers still to be judged; `judge` keeps each at once, `finish` decides anew."""

    def __init__(self, opened: OpenedStudy, questions: int) -> None:
        self.folder, self.task, self.before = opened.folder, opened.task, opened.result
        done = [arm.arm for arm in opened.arms if arm.status == "done"]
        self.answers = {arm: load_answers(self.folder / "arms" / arm / ANSWERS) for arm in done}
        if not done:
            raise InputError("no arm of this study has answers", "run one that does", file=self.folder)
        self.drawn = drawn(self.answers, questions)
        judged = judged_by_key(read_lines(self.folder / AUDIT, "item", "answer", "right"))
        self.pending = [one for one in self.drawn if (one.item_id, one.answer) not in judged]

    def judge(self, asked: Asked, right: bool) -> None:
        """Keep what people say of an answer."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        append_line(self.folder / AUDIT, {"item": asked.item_id, "answer": asked.answer, "right": right, "time": when})

    def finish(self) -> StudyResult:
        """The study decided by its answers and people's judgements, written with its report."""
        people = read_audit(self.folder, self.answers, self.task)
        records = {arm: record for arm in self.answers if (record := read_arm(self.folder / "arms" / arm))}
        lost = [arm for arm in self.answers if arm not in records]
        if lost:
            raise InputError(f"the record of {lost[0]} is gone", "run the study again", file=self.folder)
        results = [records[one.arm].result if one.arm in records else one for one in self.before.arms]
        manifest = read_object(self.folder / "manifest.json")
        given = {one.arm: self.folder / "arms" / one.arm / ANSWERS for one in self.before.trivial}
        arms, usages = [record.arm for record in records.values()], {arm: one.usage for arm, one in records.items()}
        judged = judge(
            results,
            self.answers,
            arms,
            self.task,
            usages,
            groups=group_count(list({one.item_id: one.group for one in next(iter(self.answers.values()))}.values())),
            cuts=manifest.get("cuts", ()),
            look=manifest.get("test_openings"),
            trivial={name: load_answers(file) for name, file in given.items() if file.is_file()},
            audited=people.used,
        )
        verdict = replace(judged.verdict, variations=self.before.verdict.variations)
        parts = (
            verdict.sentence,
            sentence(self.before.trivial),
            audit_sentence(people.audit, judged.arms, self.task),
            slices_sentence(verdict.arm, self.answers, self.task),
            verdict.robustness,
        )
        result = replace(
            self.before,
            verdict=replace(verdict, sentence=" ".join(part for part in parts if part)),
            arms=judged.arms,
            comparisons=judged.comparisons,
            audit=people.audit,
        )
        with locked(self.folder.parent):
            write_json(self.folder / STUDY_FILE, to_plain(result))
            write_report(self.folder)
        return result


def audit(
    study: str | Path | StudyResult = "latest", *, questions: int = 100, task: str | Path | Task = TASK_FILE
) -> StudyAudit:
    """Begin, or go on with, the audit of a finished study, of so many of its test questions.

    Raises InputError for a task of kind `classify`, whose labels need no judgement, and MissingError where there is no such study.
    """
    opened = open_study(study, task=task)
    if opened.task.task.kind == "classify":
        raise InputError("the labels of a closed set are right or wrong by themselves", "audit a study of answers")
    return StudyAudit(opened, questions)
