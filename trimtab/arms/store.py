"""Storage of trained and measured arms: `manifest.json` of a training run, `arm.json` of a study, and the lookup of an
arm's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.arms.artifacts import NOTHING, AnsweredRun, ArmArtifact, TrainedWeights
from trimtab.arms.recipe import Recipe
from trimtab.arms.workspace import FOLDER
from trimtab.base.codec import read_record, read_record_if_any, write_record
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import existing_folder, read_own
from trimtab.base.grammar import REWARD, is_trained, method_of
from trimtab.base.records import Arm, Message
from trimtab.base.results import ArmRecord, ArmResult, StudyResult, Volume
from trimtab.base.sanitize import one_line
from trimtab.base.task import Task, parse_arm, require_sound_arm, with_rows

ARM_FILE, RUN_FILE, STUDY_FILE = "arm.json", "manifest.json", "study.json"  # a study also has a manifest.json
ANSWERS, EIGHT_BIT, EVALS = "answers.parquet", "eight_bit.json", "evals"
RUNS, STUDIES = "runs", "studies"
BUILT, ANSWERED = "built.json", "answered.json"  # in a run's folder, until its arm is finished


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """`manifest.json` of a training run: what its weights depend on and, once finished, the result."""

    arm: Arm
    seed: int
    chosen: Mapping[str, float | int | str]
    depends: Mapping[str, str]
    model: str
    revision: str | None
    embedding: str
    recipe: Recipe | None
    precision: str | None
    machine: Mapping[str, Any]
    counts: Mapping[str, int]
    result: TrainedWeights | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltRun:
    """`built.json`: one run of an arm as another process built it. `digest`: of what it depends on."""

    digest: str
    artifact: ArmArtifact


@dataclass(frozen=True, kw_only=True)
class GivenAnswers:
    """`answered.json`: the test answers of one run as another process gave them. `digest`: of what they depend on."""

    digest: str
    run: AnsweredRun


@dataclass(frozen=True, kw_only=True)
class SavedArm:
    """A trained or measured arm on disk. `chosen`: its selected settings. `folder`: contains its `adapter/`.

    `result`: its measurement by a study. `volume`: the number of questions its cost is for. Both are None if it was
    only trained.
    """

    id: str
    folder: Path
    chosen: Mapping[str, float | int | str]
    trained: TrainedWeights
    result: ArmResult | None = None
    volume: Volume | None = None
    rows: int | None = None  # of the study's sample


HIGHEST = "highest"  # in place of how sure a study is of an arm, where it made no choice


@dataclass(frozen=True, slots=True)
class Pick:
    """The name of an arm to use. `study`: the ID of the study that picked it, whose weights are then used; `certainty`:
    how sure that study is of it, HIGHEST where it made no choice."""

    arm: str
    study: str | None = None
    certainty: str | None = None

    @property
    def note(self) -> str:
        """Return which arm is used, and why it is that one; empty for one that no study picked."""
        if self.certainty is None:
            return ""
        if self.certainty == HIGHEST:
            return f"Using {self.arm}, which scored highest in study {self.study}; that made no choice"
        sure = "shown" if self.certainty == "shown" else f"{self.certainty}, not shown by a test"
        return f"Using {self.arm}, the choice of study {self.study} ({sure})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuestion:
    """A test question, and the answer of the arm as measured."""

    messages: tuple[Message, ...]
    answer: str


def read_run(folder: Path) -> RunRecord | None:
    """Return the record of a training run; None without one."""
    return read_record_if_any(folder / RUN_FILE, RunRecord)


def write_run(folder: Path, record: RunRecord) -> None:
    """Write the record of a training run."""
    write_record(folder / RUN_FILE, record)


def read_arm(folder: Path) -> ArmRecord | None:
    """Return the record of a finished arm; None without one."""
    return read_record_if_any(folder / ARM_FILE, ArmRecord)


def write_arm(folder: Path, record: ArmRecord) -> None:
    """Write the record of a finished arm. It is written last, so an arm that has it is complete."""
    write_record(folder / ARM_FILE, record)


def write_built(run: Path, digest: str, artifact: ArmArtifact) -> None:
    """Keep one run of an arm, with everything that its measurement needs, in the folder of the run."""
    write_record(run / BUILT, BuiltRun(digest=digest, artifact=artifact))


def read_built(folder: Path, digest: str, seeds: int) -> ArmArtifact | None:
    """Return the arm with the first runs, at most `seeds`, that `write_built` kept for a digest; None without one."""
    runs: list[ArmArtifact] = []
    for seed in range(seeds):
        run = folder / f"run-{seed}"
        built = read_record_if_any(run / BUILT, BuiltRun)
        if built is None or built.digest != digest:
            break
        runs.append(replace(built.artifact, folders=(run,)))  # the folder may have been moved
    return runs[0].with_runs(runs[1:]) if runs else None


def write_answered(run: Path, digest: str, answered: AnsweredRun) -> None:
    """Keep the test answers of one run in the folder of the run."""
    write_record(run / ANSWERED, GivenAnswers(digest=digest, run=answered))


def read_answered(folders: Sequence[Path], digest: str) -> dict[int, AnsweredRun]:
    """Return the test answers that `write_answered` kept for this digest, by the place of the run's folder."""
    given = {seed: read_record_if_any(run / ANSWERED, GivenAnswers) for seed, run in enumerate(folders)}
    return {seed: answers.run for seed, answers in given.items() if answers and answers.digest == digest}


def forget_kept_runs(folder: Path) -> None:
    """Delete what `write_built` and `write_answered` kept, once the arm's record has it."""
    for run in folder.glob("run-*"):
        kept = [file for name in (BUILT, ANSWERED) if (file := run / name).is_file()]
        for file in kept:
            file.unlink()
        if kept and not any(run.iterdir()):  # of an arm without weights
            run.rmdir()


def read_result(folder: Path) -> StudyResult | None:
    """Return the result of a finished study; None if it is not finished."""
    return read_record_if_any(folder / STUDY_FILE, StudyResult)


def latest_winner(task: Task) -> Pick | None:
    """Return the arm that the newest finished study says to use, shown or not; None without one.

    Raises InputError if that study used another base model than the task file names.
    """
    folder, result = _newest_study(task) or (Path(), None)
    if result is None or result.verdict.use is None:
        return None
    winner = result.verdict.use
    record = read_arm(folder / "arms" / winner)
    other = _other_base(record, task) if record and method_of(record.arm).uses_base else None
    if other is not None:
        raise InputError(
            f"the study {folder.name} chose {winner} on {other}, and the task file now names {task.base.model}",
            f"run {task.command('study')} again, name an arm with --arm, or restore base.model",
            file=task.file,
        )
    return Pick(winner, folder.name, result.verdict.today.certainty if result.verdict.today else "shown")


def required_winner(task: Task, words: str) -> Pick:
    """Return the arm that the newest finished study chose. Raises MissingError, with what to do, without one; `words`:
    the command that takes an arm.
    """
    pick = latest_winner(task)
    if pick is not None:
        return pick
    home = task.folder / FOLDER / STUDIES
    measured = measured_arms(task)
    if not measured:
        raise MissingError(f"{home}: no study has finished; name an arm, or run: {task.command('study')}")
    names = ", ".join(arm.arm for arm in measured)
    folder, named = home / (measured[0].study or ""), task.command(f"{words} {measured[0].arm}")
    raise MissingError(f"{folder}: the newest study made no choice; name one of its arms ({names}): {named}")


def usual_arm(task: Task) -> Pick:
    """Return the default arm: the winner of the newest study, else the arm that scored highest in it; without a study
    `extract`, or `prompt` without documents.

    A small untrained base model invents facts; a sentence of the documents does not. For labels it is `rag`.
    """
    of_documents = "rag" if task.task.kind == "classify" else "extract"
    return latest_winner(task) or _highest(task) or Pick(of_documents if task.data.documents else "prompt")


def _highest(task: Task) -> Pick | None:
    """Return the arm that scored highest in the newest finished study; None without one."""
    folder, result = _newest_study(task) or (Path(), None)
    scored = [arm for arm in result.arms if arm.score is not None] if result else []
    best = max(scored, key=lambda arm: arm.score.value if arm.score else 0.0, default=None)
    return None if best is None else Pick(best.arm, folder.name, HIGHEST)


def picked_arm(pick: Pick, task: Task) -> Arm:
    """Return the arm that a pick names: as the study that picked it recorded it, else as the task file defines it.

    A folder may have several task files, and a table may have been changed or taken out since. The address of an
    endpoint is in the task file alone. Raises InputError for a name that neither knows.
    """
    folder = task.folder / FOLDER / STUDIES / (pick.study or "") / "arms" / pick.arm
    record = read_arm(folder) if pick.study else None
    if record is None or record.arm.endpoint:
        return parse_arm(pick.arm, task)
    try:
        require_sound_arm(record.arm)
    except ValueError as error:
        problem = f"the record of arm {pick.arm[:80]!r} is damaged ({one_line(error)})"
        raise InputError(problem, "restore it, or move the study's folder away", file=folder / ARM_FILE) from None
    return record.arm


def measured_arms(task: Task) -> list[Pick]:
    """Return the arms that the newest finished study measured, in its order; empty without one."""
    folder, result = _newest_study(task) or (Path(), None)
    return [Pick(arm.arm, folder.name) for arm in result.arms if arm.status == "done"] if result else []


def _newest_study(task: Task) -> tuple[Path, StudyResult] | None:
    """Return the newest study that finished with a measured arm, and its result."""
    for folder in newest(task.folder / FOLDER / STUDIES):
        result = read_result(folder)
        if result is not None and result.ran:
            return folder, result
    return None


def find_saved(task: Task, arm: Arm, source: str | None = None) -> SavedArm | None:
    """Return the arm as saved by `source`, the ID of a run or a study; else as trained or measured last.

    Last means the newest of the finished runs of this arm and of the studies that finished it, by the times in their
    names: a study after a run trained again, and its figures are those of its own weights. For an arm that a study
    picked (Pick), `source` is that study. Raises MissingError for a `source` that is absent or lacks the arm, and if
    trained weights exist for another base model only.
    """
    home = task.folder / FOLDER
    if source is not None:
        return _of_source(home, source, arm, task)
    elsewhere: str | None = None
    folders = sorted((*newest(home / RUNS), *newest(home / STUDIES)), key=lambda folder: folder.name, reverse=True)
    for record, saved in filter(None, (_saved_in(folder, arm) for folder in folders)):
        other = _other_base(record, task)
        if other is None:
            return saved
        elsewhere = elsewhere or other
    if elsewhere is not None and is_trained(arm):
        raise MissingError(_other_weights(arm, elsewhere, task))
    return None


def scoring_run(task: Task, run: str) -> tuple[Path, RunRecord]:
    """Return the folder and record of a finished run whose arm scores answers. Raises MissingError for any other."""
    listing = task.command("runs")
    folder = existing_folder(task.folder / FOLDER / RUNS, run, "run", listing)
    record = read_run(folder)
    if record is None or record.result is None:
        raise MissingError(f"{folder}: not a finished run; {listing} lists them")
    if REWARD not in record.arm.stages:
        make = task.command(f"train lora-{REWARD}")
        raise MissingError(f"{folder}: a run of arm {record.arm.name}, which scores no answers; make one with: {make}")
    other = _other_base(record, task)
    if other is not None:
        raise MissingError(f"{folder}: {_other_weights(record.arm, other, task)}")
    return folder, record


def require_weights(saved: SavedArm | None, arm: Arm, task: Task) -> SavedArm | None:
    """Return `saved`. Raises MissingError if the arm needs trained weights and there are none."""
    if is_trained(arm) and saved is None:
        make = task.command(f"train {arm.name}")
        raise MissingError(f"arm {arm.name} has no trained weights yet; make them with: {make}")
    return saved


def measured_precision(saved: SavedArm | None, task: Task) -> str | None:
    """Return the precision that an arm was trained and measured in, if the task leaves it to a measurement.

    None if the task states it, or nothing was saved.
    """
    if saved is None or task.base.precision != "auto":
        return None
    record = read_run(saved.folder)
    if record is not None and record.precision:
        return record.precision
    manifest = study_of(saved) / RUN_FILE
    return str(read_own(manifest)["precision"]) if manifest.is_file() else None


def with_measured_rows(task: Task, saved: SavedArm | None) -> Task:
    """Return the task with the sample of rows that an arm was measured on, which gives shots and labels."""
    return with_rows(task, saved.rows) if saved else task


def study_of(saved: SavedArm) -> Path:
    """Return the folder of the study that an arm was measured in: the parent of its run `arms/NAME/run-0`."""
    return saved.folder.parents[2]


def newest(folder: Path) -> list[Path]:
    """Return the folders of runs or studies below `folder`, newest first: their names begin with the time."""
    return sorted((item for item in folder.glob("*") if item.is_dir()), reverse=True)


def _saved_in(folder: Path, arm: Arm) -> tuple[RunRecord | ArmRecord, SavedArm] | None:
    """Return the record and the arm in the folder of a run or study; None if it has not finished this arm."""
    if folder.parent.name == RUNS:
        run = read_run(folder)
        if run is None or run.result is None or not _is_same_arm(run.arm, arm):
            return None
        return run, SavedArm(id=folder.name, folder=folder, chosen=run.chosen, trained=run.result)
    measured = read_arm(folder / "arms" / arm.name)
    if measured is None or not _is_same_arm(measured.arm, arm):
        return None
    result, study = measured.result, read_result(folder)
    return measured, SavedArm(
        id=folder.name,
        folder=folder / "arms" / arm.name / "run-0",
        chosen=result.chosen,
        trained=replace(NOTHING, seconds=result.train_seconds),
        result=result,
        volume=study.volume if study else None,
        rows=study.sample.rows if study and study.sample else None,
    )


def _of_source(home: Path, source: str, arm: Arm, task: Task) -> SavedArm:
    """Return the arm of the run or study with this ID."""
    kind = STUDIES if source in {folder.name for folder in newest(home / STUDIES)} else RUNS
    folder = existing_folder(home / kind, source, "run or study", task.command("runs"))
    kept = _saved_in(folder, arm)
    if kept is None:
        raise MissingError(f"{folder}: {_why_not(folder, arm, task)}")
    record, saved = kept
    other = _other_base(record, task)
    if other is not None:
        raise MissingError(f"{folder}: {_other_weights(arm, other, task)}")
    return saved


def _why_not(folder: Path, arm: Arm, task: Task) -> str:
    """Return why a named run or study lacks an arm, and what to do."""
    listing = f"{task.command('runs')} lists them"
    if folder.parent.name == STUDIES:
        if read_arm(folder / "arms" / arm.name) is None:
            return f"a study that has not finished arm {arm.name}; {listing}"
        again = task.command("study")
        return f"arm {arm.name} has other settings since this study; restore them, or measure it again with: {again}"
    run = read_run(folder)
    if run is None:
        return f"no such run; {listing}"
    if not _is_same_arm(run.arm, arm):
        return f"a run of arm {run.arm.name}, not of {arm.name}; {listing}"
    return f"not finished; go on with: {task.command(f'train {arm.name} --resume {folder.name}')}"


def _is_same_arm(saved: Arm, arm: Arm) -> bool:
    """True if a record is of this arm: an `[arm.NAME]` table may have changed since."""
    return saved.name == arm.name and saved.identity == arm.identity


def _other_weights(arm: Arm, other: str, task: Task) -> str:
    now = task.base.model if method_of(arm).uses_base else task.base.embedding
    back = "or restore the earlier model"
    if not is_trained(arm):
        measured = f"arm {arm.name} was measured on {other}, and the task file now names {now}"
        return f"{measured}; measure it again with: {task.command('study')}, {back}"
    trained = f"the weights of arm {arm.name} were trained on {other}, and the task file now names {now}"
    return f"{trained}; train it again with: {task.command(f'train {arm.name}')}, {back}"


def _other_base(record: RunRecord | ArmRecord, task: Task) -> str | None:
    """Return the model that an arm was made on if the task now names another, else None."""
    if method_of(record.arm).answers_alone:
        return None if record.embedding == task.base.embedding else record.embedding
    if not method_of(record.arm).uses_base or (record.model, record.revision) == (task.base.model, task.base.revision):
        return None
    return f"{record.model} at {record.revision}" if record.revision else record.model


def saved_name(saved: SavedArm | None, arm: Arm) -> str:
    """Return the name of the arm's evaluations."""
    return f"{saved.id}-{arm.name}" if saved else arm.name


def eight_bit_folder(home: Path, name: str, split: str) -> Path:
    """Return the folder of an arm's int8 answers and their comparison. `name`: from `saved_name`."""
    return home / EVALS / f"{name}-{split}-8bit"


def require_eight_bit(saved: SavedArm | None, arm: Arm, task: Task) -> tuple[Path, ArmResult]:
    """Return the folder of an arm's int8 answers and the result. Raises InputError if it was not evaluated."""
    folder = eight_bit_folder(task.folder / FOLDER, saved_name(saved, arm), "test")
    if not (folder / EIGHT_BIT).is_file():
        weights = f" --run {saved.id}" if saved else ""
        measure = task.command(f"eval {arm.name}{weights} --split test --eight-bit")
        raise InputError(
            f"what 8 bits cost arm {arm.name} is not measured", f"first run {measure}", field="--eight-bit"
        )
    return folder, read_record(folder / EIGHT_BIT, ArmResult)
