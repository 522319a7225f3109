"""`audit`: people judge a finished study's answers, blind, and the study is decided again with their judgements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from trimtab.arms.store import ANSWERS, STUDY_FILE
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError
from trimtab.base.files import append_own, locked
from trimtab.base.results import StudyResult
from trimtab.base.task import TASK_FILE, Task
from trimtab.measurement.audit import ENOUGH, AuditItem, criterion_shares, draw_audit
from trimtab.measurement.evaluate import load_answers
from trimtab.measurement.raters import agreement_words, agreements, judged_by_key, rater_name, said_by_person
from trimtab.reports.page import write_report
from trimtab.studies.audit_import import ImportedJudgements, read_judgements
from trimtab.studies.decide import AUDIT, decide_again, read_audit
from trimtab.studies.open_study import OpenedStudy, open_study

LEAST_DRAWN = 100  # questions, unless another number is asked for
SHARED = 5  # one in so many questions is asked of everybody


class StudyAudit:
    """An audit in progress. `pending`: the answers to judge. `judge` saves each judgement at once, `finish` decides
    again.

    `by`: who judges. `shared`: the questions that are asked of everybody, which shows how far people agree; the others
    are asked of whoever comes first.
    """

    def __init__(self, opened: OpenedStudy, questions: int | None = None, by: str | None = None) -> None:
        self.folder, self.task, self.before, self.by = opened.folder, opened.task, opened.result, rater_name(by)
        done = [arm.arm for arm in opened.arms if arm.status == "done"]
        self.answers = {arm: load_answers(self.folder / "arms" / arm / ANSWERS) for arm in done}
        if not done:
            raise InputError("no arm of this study has answers", "run one that does", file=self.folder)
        self.shares = criterion_shares(self.task)
        self._planned = self.before.to_judge
        count = questions or max(LEAST_DRAWN, self._planned or 0)
        self.drawn = draw_audit(
            self.answers,
            count,
            self.shares,
            for_target=self.task.target.quality is not None,
            pairs=self.task.judges_pairs,
        )
        items = list(dict.fromkeys(one.item_id for one in self.drawn))
        self.shared = set(items[::SHARED])
        self._said = said_by_person(read_audit(self.folder))
        self.pending = [one for one in self.drawn if not self._is_judged(one)]
        open_items = [item for item in items if any(one.item_id == item and not self._by(one) for one in self.drawn)]
        self._place = {item: place for place, item in enumerate(open_items)}
        self._done = len(items) - len(open_items)

    def _by(self, asked: AuditItem) -> Mapping[str, float]:
        return self._said.get((asked.item_id, asked.answer, asked.criterion), {})

    def _is_judged(self, asked: AuditItem) -> bool:
        by = self._by(asked)
        return not {self.by, ""}.isdisjoint(by) or (bool(by) and asked.item_id not in self.shared)

    @property
    def notes(self) -> Iterator[str]:
        """What somebody should know before judging: how many questions are needed, who else judged, and how far they
        agree."""
        yield f"{self._done:,} questions are judged; {self._needed(self._done)}."
        others = sorted({person for by in self._said.values() for person in by} - {self.by, ""})
        if others:
            yield (
                f"You judge as {self.by}; {' and '.join(others)} judged before. Of the questions drawn, "
                f"{len(self.shared):,} (one in {SHARED}) are asked of everybody, which shows how far people agree."
            )
        yield from map(agreement_words, agreements(self._said))

    def outlook(self, asked: AuditItem) -> str:
        """Say how many more questions are needed when this answer is asked; the plan is that of the last verdict.

        It does not look at what is said meanwhile: who stops once it looks good enough would find something by chance.
        """
        return self._needed(self._done + self._place.get(asked.item_id, 0))

    def _needed(self, judged: int) -> str:
        if self._planned is None:
            if judged < ENOUGH:
                return f"from {ENOUGH} on they count, {ENOUGH - judged:,} more"
            return "more of them alone are not expected to settle the choice"
        left = self._planned - judged
        return f"about {left:,} more should settle the choice" if left > 0 else "as many as needed"

    def judge(self, asked: AuditItem, value: float | None) -> None:
        """Save the judgement of an answer: from 0 (wrong) to 1 (right), or None for no judgement."""
        self._keep(asked.item_id, asked.answer, asked.criterion, None if value is None else float(value))

    def _keep(self, item: str, answer: str, criterion: str, value: float | None, **more: object) -> None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"item": item, "answer": answer, "criterion": criterion, "value": value, "by": self.by, "time": when}
        append_own(self.folder / AUDIT, line | more)

    def undo(self, asked: AuditItem) -> None:
        """Remove this person's judgement of an answer."""
        self.judge(asked, None)

    def import_judgements(
        self, file: str | Path, *, scale: tuple[float, float] | None = None, drawn_at_random: bool = False
    ) -> ImportedJudgements:
        """Keep the judgements of a file, CSV or JSON lines, about this study's answers; raises as `read_judgements`.

        `drawn_at_random`: whoever made the file drew its questions at random. Else they do not stand for the others,
        and a judgement counts only once its question's turn comes in the draw of an audit, or with all questions
        judged; for people's agreement it counts at once.
        """
        found = read_judgements(Path(file), self.answers, self.shares, scale)
        for one in found.judgements:
            self._keep(one.item, one.answer, one.criterion, one.value, by=one.by, drawn=drawn_at_random)
        return found

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
    study: str | Path | StudyResult = "latest",
    *,
    questions: int | None = None,
    by: str | None = None,
    task: str | Path | Task = TASK_FILE,
) -> StudyAudit:
    """Begin or continue the audit of a finished study, on `questions` of its test questions: by default as many as
    should settle the choice, and 100 at least.

    `by`: who judges, the user of this machine unless named. Raises InputError for a task of kind `classify`, whose
    labels need no judgement, and MissingError without such a study.
    """
    opened = open_study(study, task=task)
    if opened.task.task.kind == "classify":
        raise InputError("the labels of a closed set are right or wrong by themselves", "audit a study of answers")
    return StudyAudit(opened, questions, by)
