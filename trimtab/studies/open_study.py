"""`open_study`: a finished study in Python: its result, and its arms as estimators."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.arms.store import ANSWERS, STUDIES, STUDY_FILE, read_arm, read_result
from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import existing_folder
from trimtab.base.metrics import find_metric
from trimtab.base.results import ArmDifference, ArmResult, StudyResult, Verdict
from trimtab.base.show import Shown, ShownRow, ShownRows
from trimtab.base.task import TASK_FILE, Task, as_task, command, load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.measurement.figures import scores_of
from trimtab.measurement.statistics import compare_paired
from trimtab.studies.estimator import ArmEstimator
from trimtab.studies.paths import folder_to_resume

if TYPE_CHECKING:
    import pandas
    import pyarrow


class OpenedStudy(Shown):
    """A finished study: result, report, and arms as measured."""

    def __init__(self, folder: Path, task: Task, result: StudyResult, allow: Sequence[str]) -> None:
        self.folder, self.task, self.result = folder, task, result
        self._allow = tuple(allow)
        self._opened: dict[str, ArmEstimator] = {}

    @property
    def id(self) -> str:
        """Return its ID."""
        return self.folder.name

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """Return the result of each arm."""
        return self.result.arms

    @property
    def verdict(self) -> Verdict:
        """Return the decision."""
        return self.result.verdict

    @property
    def report(self) -> Path:
        """Return the path of the HTML report."""
        return self.folder / "report.html"

    @property
    def headline(self) -> str:
        """Return the verdict's sentence."""
        return self.result.headline

    def tables(self) -> dict[str, list[ShownRow]]:
        """Return the tables of its result."""
        return self.result.tables()

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each arm."""
        return self.result.screen()

    def show(self) -> None:
        """Print the verdict, the arms and the location of the report."""
        print(f"{self!r}\nReport: {self.report}")

    def to_frame(self) -> pandas.DataFrame | pyarrow.Table:
        """Return a row for each arm with all its measurements: a DataFrame if pandas is installed, else an Arrow
        table.
        """
        rows = self.result.tables()["arms"]
        try:
            import pandas
        except ImportError:
            import pyarrow

            names = dict.fromkeys(name for row in rows for name in row)
            return pyarrow.table({name: [row.get(name) for row in rows] for name in names})
        return pandas.DataFrame(rows)

    def arm(self, name: str | None = None) -> ArmEstimator:
        """Return an arm as measured, the verdict's unless one is named, as a scikit-learn estimator; created once,
        models loaded when needed.

        Raises MissingError for an arm that the study has not measured.
        """
        done = [one.arm for one in self.arms if one.status == "done"]
        wanted = name or self.verdict.use
        if wanted is None:
            raise MissingError(f"{self.folder}: the study made no choice; name an arm: {', '.join(done)}")
        if wanted not in done:
            near = difflib.get_close_matches(wanted, done, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(done)}"
            raise MissingError(f"{self.folder}: the study has not measured {wanted!r}; {hint}")
        if wanted not in self._opened:
            record = read_arm(self.folder / "arms" / wanted)
            if record is None:
                again = self.task.command("study")
                raise MissingError(
                    f"{self.folder / 'arms' / wanted}: the arm's files are gone; measure it with: {again}"
                )
            self._opened[wanted] = ArmEstimator(self.task, record.arm, self.id, self._allow)
        return self._opened[wanted]

    def compare(self, other: OpenedStudy | StudyResult | str | Path) -> ShownRows:
        """Compare with another study, arm by arm, as `ArmDifference`: paired on the questions of both."""
        second = other if isinstance(other, OpenedStudy) else open_study(other, task=self.task)
        if second.result.metric != self.result.metric:
            problem = f"scored by {second.result.metric}, and {self.id} by {self.result.metric}"
            raise InputError(problem, "compare studies of one metric", file=second.folder)
        names = dict.fromkeys(one.arm for study in (self, second) for one in study.arms if one.score)
        return ShownRows(self._difference(name, second) for name in names)

    def _difference(self, arm: str, other: OpenedStudy) -> ArmDifference:
        values = [
            next((one.score.value for one in study.arms if one.arm == arm and one.score), None)
            for study in (self, other)
        ]
        both: list[str] = []
        low = high = mean = None
        if None not in values and not find_metric(self.result.metric).by_class:
            answers = [load_answers(study.folder / "arms" / arm / ANSWERS) for study in (self, other)]
            both = sorted(set.intersection(*({one.item_id for one in own} for own in answers)))
            if both:
                shared = set(both)
                mine, theirs = (
                    scores_of([one for one in own if one.item_id in shared], self.task.data.mix) for own in answers
                )
                found = compare_paired(mine.values_N, theirs.values_N, mine.groups, weights=mine.weights_N)
                mean, low, high = found.difference, found.low, found.high
        return ArmDifference(
            arm=arm, score=values[0], other=values[1], difference=mean, low=low, high=high, questions=len(both)
        )


def open_study(
    study: str | Path | StudyResult = "latest", *, task: str | Path | Task = TASK_FILE, allow: Sequence[str] = ()
) -> OpenedStudy:
    """Open a finished study: by its ID or "latest" of `task`, by its folder, by a task's folder or file, or by its
    result.

    Arms answer by the task file as it was then, which the study contains. `allow` is that of `study`. Raises
    MissingError if there is no such study, or it has not finished.
    """
    folder = _folder_of(study, task)
    home = (
        task.file
        if isinstance(task, Task) and task.folder.resolve() == folder.parents[2]
        else folder.parents[2] / TASK_FILE
    )
    result = read_result(folder)
    if result is None:
        again = command(f"study --resume {folder.name}", home)
        raise MissingError(f"{folder}: not a finished study; go on with: {again}")
    return OpenedStudy(folder, load_task(folder / "task.toml", copy_of=home), result, allow)


def _folder_of(study: str | Path | StudyResult, task: str | Path | Task) -> Path:
    """Return the full path of a study."""
    if isinstance(study, StudyResult):
        return Path(study.report).resolve().parent
    place = Path(study)
    if (place / STUDY_FILE).is_file():
        return place.resolve()
    if len(place.parts) > 1 and not place.exists():
        raise MissingError(f"{place}: no such folder or file; check the path, or give the ID of a study and its task")
    if place.is_dir() and not (place / TASK_FILE).is_file():
        raise MissingError(f"{place}: holds no study and no task file; make both with: trimtab study {place}")
    if place.is_dir() or place.suffix == ".toml":
        return folder_to_resume(load_task(place), "latest").resolve()
    own = as_task(task)
    if study == "latest":
        return folder_to_resume(own, "latest").resolve()
    return existing_folder(own.folder / FOLDER / STUDIES, str(study), "study", own.command("runs")).resolve()
