"""`audit`: people judge a finished study's answers, blind, and the study is decided again with their judgements."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from trimtab.arms.store import ANSWERS, STUDY_FILE
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError
from trimtab.base.files import append_own, locked
from trimtab.base.results import StudyResult
from trimtab.base.task import TASK_FILE, Task
from trimtab.measurement.audit import ENOUGH, AuditItem, criterion_shares, draw_audit, judged_by_key, judgement_values
from trimtab.measurement.evaluate import load_answers
from trimtab.reports.page import write_report
from trimtab.studies.decide import AUDIT, decide_again, read_audit
from trimtab.studies.open_study import OpenedStudy, open_study


class StudyAudit:
    """An audit in progress. `pending`: the answers to judge. `judge` saves each judgement at once, `finish` decides
    again.
    """

    def __init__(self, opened: OpenedStudy, questions: int) -> None:
        self.folder, self.task, self.before = opened.folder, opened.task, opened.result
        done = [arm.arm for arm in opened.arms if arm.status == "done"]
        self.answers = {arm: load_answers(self.folder / "arms" / arm / ANSWERS) for arm in done}
        if not done:
            raise InputError("no arm of this study has answers", "run one that does", file=self.folder)
        self.shares = criterion_shares(self.task)
        self.drawn = draw_audit(self.answers, questions, self.shares, pairs=self.task.judges_pairs)
        judged = judgement_values(read_audit(self.folder))
        self.pending = [one for one in self.drawn if (one.item_id, one.answer, one.criterion) not in judged]

    def judge(self, asked: AuditItem, value: float | None) -> None:
        """Save the judgement of an answer: from 0 (wrong) to 1 (right), or None for no judgement."""
        self._keep(asked.item_id, asked.answer, asked.criterion, None if value is None else float(value))

    def _keep(self, item: str, answer: str, criterion: str, value: float | None) -> None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"item": item, "answer": answer, "criterion": criterion, "value": value, "time": when}
        append_own(self.folder / AUDIT, line)

    def undo(self, asked: AuditItem) -> None:
        """Remove the judgement of an answer."""
        self.judge(asked, None)

    def finish(self) -> StudyResult:
        """Decide the study from its answers and people's judgements, and write it with its report.

        Where the verdict uses the judgements, and there are new ones, this counts as a look at them.
        """
        rows = read_audit(self.folder)
        has_new = bool(rows) and rows[-1]["item"] != ""
        if has_new and len({item for item, _ in judged_by_key(rows, self.shares)}) >= ENOUGH:
            self._keep("", "", "", None)
        result = decide_again(self.folder, self.task, self.before)
        with locked(self.folder.parent):
            write_record(self.folder / STUDY_FILE, result)
            write_report(self.folder)
        return result


def audit(
    study: str | Path | StudyResult = "latest", *, questions: int = 100, task: str | Path | Task = TASK_FILE
) -> StudyAudit:
    """Begin or continue the audit of a finished study, on `questions` of its test questions.

    Raises InputError for a task of kind `classify`, whose labels need no judgement, and MissingError without such a
    study.
    """
    opened = open_study(study, task=task)
    if opened.task.task.kind == "classify":
        raise InputError("the labels of a closed set are right or wrong by themselves", "audit a study of answers")
    return StudyAudit(opened, questions)
