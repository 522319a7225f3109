"""The arm of another task that was trained to judge: which one it is, what pins it, and how often people agreed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from trimtab.arms.store import ANSWERS, Pick, SavedArm, find_saved, measured_arms, picked_arm, read_arm, usual_arm
from trimtab.base.config import SLOT
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_cached, sha256_text
from trimtab.base.grammar import joined, method_of
from trimtab.base.records import Answer, Arm
from trimtab.base.sanitize import printable
from trimtab.base.task import Task, load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.measurement.judge import DEGREES, GRADED
from trimtab.model.catalog import resolve
from trimtab.model.model_files import file_hashes


@dataclass(frozen=True, kw_only=True)
class TrainedJudge:
    """An arm that judges, with the task that it was trained for and the study that measured it."""

    task: Task
    arm: Arm
    saved: SavedArm

    @property
    def version(self) -> str:
        """Return what pins it: the study, and the hash of its weights, its settings and the models that it uses."""
        models: dict[str, Mapping[str, str]] = {
            "embedding": file_hashes(resolve(self.task.base.embedding, None, near=self.task.folder), below=True)
        }
        if method_of(self.arm).uses_base:
            models["base"] = file_hashes(resolve(self.task.base.model, self.task.base.revision, near=self.task.folder))
        files = sorted(file for file in self.saved.folder.rglob("*") if file.is_file())
        record = read_arm(self.saved.folder.parent)
        parts = (
            *(f"{file.name} {sha256_cached(file)}" for file in files),
            *(f"{model} {name} {digest}" for model, own in models.items() for name, digest in sorted(own.items())),
            str(self.task.data.columns.get("input")),
            record.digest if record else "",
        )
        return f"{self.arm.name} of study {self.saved.id}, {sha256_text(*parts)}"

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Return what it answered to the test questions of its study, in the first seed."""
        found = load_answers(self.saved.folder.parent / ANSWERS)
        return tuple(one for one in found if one.seed == found[0].seed)

    @property
    def agreement(self) -> str:
        """Say how often it gave the degree that people gave, on its own test questions, and how it erred."""
        pairs = [(one.reference[0], one.answer) for one in self.answers]
        right = sum(people == judge for people, judge in pairs)
        generous = [judge for people, judge in pairs if people == "no"]
        strict = [judge for people, judge in pairs if people == "yes"]
        return (
            f"The judge, {self.arm.name} of {self.task.folder.name}/, agrees with people on {right:,} of "
            f"{len(pairs):,} of its own test questions; of {len(generous):,} that people graded no it grades "
            f"{generous.count('yes'):,} yes, of {len(strict):,} graded yes {strict.count('no'):,} no."
        )


def trained_judge(task: Task) -> TrainedJudge | None:
    """Return the arm that judges the answers of a task; None where another model does.

    Without a name it is the choice of the judging task's newest study, else the arm that scored highest in it. Raises
    InputError for a task that teaches no judging, and where no study measured the arm.
    """
    named = task.judge.trained if task.judge else None
    if named is None:
        return None
    file, name = task.folder / named[0], named[1]
    if not file.is_file():
        raise _refused(task, f"there is no task file {named[0]}", "name that of a study whose labels are yes and no")
    own = load_task(file)
    _require_judging(own, task)
    measured = [pick for pick in measured_arms(own) if pick.arm == name]
    pick = next(iter(measured), Pick(name)) if name else usual_arm(own)
    if pick.study is None:
        what = f"no study of {named[0]} has measured {f'the arm {name}' if name else 'an arm'}"
        raise _refused(task, what, f"run: {own.command('study')}")
    arm = picked_arm(pick, own)
    saved = find_saved(own, arm, pick.study)
    if arm.endpoint or saved is None:
        raise _refused(task, f"{arm.name} of {named[0]} is an endpoint", "name it in [api.NAME], and NAME here")
    judge = TrainedJudge(task=own, arm=arm, saved=saved)
    _require_degrees([one.reference[0] for one in judge.answers], task)
    return judge


def _require_judging(own: Task, task: Task) -> None:
    """Refuse a task of another kind, of labels that are no degrees, or of columns that a judge has not."""
    if own.task.kind != "classify":
        raise _refused(task, f"that task is of kind {own.task.kind}", "a judge chooses a label: kind classify")
    _require_degrees(own.task.labels, task)
    columns = input_columns(own)
    if not columns or not set(columns) <= set(GRADED):
        remedy = f"set data.columns.input in it, of: {', '.join(GRADED)}; trimtab audit --rows writes such rows"
        raise _refused(task, f"its input is {f'of {joined(columns)}' if columns else 'of no named columns'}", remedy)


def _require_degrees(labels: Iterable[str], task: Task) -> None:
    other = next((label for label in labels if label not in DEGREES), None)
    if other is not None:
        problem = f"its label {printable(other, 80)!r} is no degree"
        raise _refused(task, problem, f"its labels are of: {', '.join(DEGREES)}")


def input_columns(task: Task) -> tuple[str, ...]:
    """Return the columns that a task's input is made of, as far as its file names them."""
    named = task.data.columns.get("input", ())
    if isinstance(named, str):
        return tuple(SLOT.findall(named)) or (named,)
    return tuple(named)


def _refused(task: Task, problem: str, remedy: str) -> InputError:
    return InputError(problem, remedy, file=task.file, field="judge.by")
