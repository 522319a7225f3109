"""The main job: every arm on the same questions, the verdict, the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from trimtab.arms.answerers import lacking_keys
from trimtab.arms.plan import Plan, fit, load_plan, predict, save_plan
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import open_session
from trimtab.arms.workspace import Workspace, open_workspace, require_sound
from trimtab.base.errors import InputError, MissingError, StoppedError, TrimtabError, cannot_write
from trimtab.base.files import folder_named, locked, new_folder, write_atomic, write_json
from trimtab.base.progress import Display, Listener, Progress
from trimtab.base.records import Answer, Arm, ArmResult, Comparison, StudyResult
from trimtab.base.task import Task, load_task, with_budget
from trimtab.decision.cost import Usage
from trimtab.decision.verdict import best_arm, decide, planned_pairs
from trimtab.measurement.evaluate import Scorer, load_answers, save_answers
from trimtab.measurement.figures import difference, noninferiority_p, scores_of, target_p
from trimtab.measurement.scorer import ScorerFunction, ScorerProgram, require_consent
from trimtab.measurement.statistics import LEVEL, discordance, holm, smallest_difference
from trimtab.reports.page import write_report
from trimtab.studies.record import arm_digest, count_opening, load_arm, manifest, save_arm, to_json

__all__ = ["study", "to_json"]

GUESSED_DISCORDANCE = 0.3  # share of items on which two arms differ, until answers say better
# What an arm may die of without taking the study with it.
SURVIVED = (
    *(TrimtabError, RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, KeyError, TypeError),
    SafetensorError,
)


def study(
    task: str | Path | Task = "trimtab.toml",
    *,
    resume: str | None = None,
    allow_commands: bool = False,
    budget: str | None = None,
    scorer: ScorerFunction | None = None,
    listeners: Sequence[Listener] | None = None,
) -> StudyResult:
    """Run every arm of a task, decide, and write the study folder with its report.

    `resume`: the ID of a study to go on with, or "latest"; finished arms are not run again. `budget` replaces the task's.
    `scorer` is a function `(input, reference, answer) -> 0..1` in place of the task's program. `listeners` get every event;
    None shows progress on standard error. Raises InputError for data that cannot carry a study and for a study to go on with that
    was begun with others, BusyError beside another study of the same folder, StoppedError after a signal.
    """
    task = task if isinstance(task, Task) else load_task(task)
    if budget is not None:
        task = with_budget(task, budget)
    if task.task.scorer and scorer is None:
        require_consent(task.task.scorer, allow_commands)
    workspace = open_workspace(task)
    require_sound(workspace)
    with ExitStack() as stack:
        stack.enter_context(locked(workspace.folder / "studies"))
        folder = _study_folder(workspace, resume)
        if resume is not None and budget is not None and (folder / "plan.json").exists():
            raise InputError(
                "a study that goes on keeps its plan", "leave it out, or start a new study", field="--budget"
            )
        write_atomic(folder / "task.toml", task.file.read_bytes())
        display = Display() if listeners is None else None
        progress = Progress(path=folder / "events.jsonl", listeners=[display] if display else list(listeners or ()))
        judge: Scorer | None = scorer
        if task.task.scorer and scorer is None:
            judge = stack.enter_context(ScorerProgram(task.task.scorer, task.folder))
        try:
            return _StudyRun(task, workspace, folder, judge, progress, display).run()
        except StoppedError as error:
            raise StoppedError(f"{error} (study {folder.name})") from None
        except KeyboardInterrupt:  # between steps of training nothing is lost but the arm that was being measured
            raise StoppedError(f"stopped, finished arms are kept; go on with --resume (study {folder.name})") from None
        finally:
            if display:
                display.close()


class _StudyRun:
    """One study under way."""

    def __init__(
        self,
        task: Task,
        workspace: Workspace,
        folder: Path,
        scorer: Scorer | None,
        progress: Progress,
        display: Display | None,
    ) -> None:
        self.task, self.folder, self.progress, self.display = task, folder, progress, display
        self.kept_plan = load_plan(folder / "plan.json")
        self.session = open_session(workspace, self.kept_plan.precision if self.kept_plan else None)
        self.workspace = self.session.workspace
        self.runner = ArmRunner(self.session, scorer, progress)
        self.results: list[ArmResult] = []
        self.usages: dict[str, Usage] = {}
        self.measured: dict[str, float] = {}

    def run(self) -> StudyResult:
        for name, problem in lacking_keys(self.task).items():
            self.progress.emit("plan", note=f"arm {name} cannot run: {problem}", stays=True)
        arms, plan = self.task.arms, self._plan()
        openings = count_opening(self.workspace, self.folder.name)
        for number, arm in enumerate(arms):
            self._time_left(plan, arms[number:])
            self.results.append(self._arm(arm, plan))
        self.progress.arm = self.progress.seed = None
        self.progress.emit("verdict")
        result = self._decide(arms)
        smallest = self._smallest_difference(len(result.comparisons))
        write_json(
            self.folder / "manifest.json", manifest(self.session, plan, openings, smallest, result.arms, self.measured)
        )
        write_json(self.folder / "study.json", to_json(result))
        write_report(self.folder)
        write_atomic(self.folder.parent / "latest", self.folder.name)
        return result

    def _plan(self) -> Plan:
        """The plan of a study that was begun, else a new one: predicted, cut to the budget, kept."""
        if self.kept_plan is not None:
            return self.kept_plan
        self.progress.emit("plan", note="timing a few steps of every arm")
        table = self.task.study
        began = time.perf_counter()
        predicted = predict(self.session, self.task.arms)
        budget = table.budget_seconds
        left = None if budget is None else max(0.0, budget - (time.perf_counter() - began))
        plan = replace(fit(predicted, left, table.seeds), precision=self.session.precision)
        for cut in plan.cuts:
            self.progress.emit("plan", note=f"cut to fit the budget: {cut}", stays=True)
        save_plan(self.folder / "plan.json", plan)
        return plan

    def _arm(self, arm: Arm, plan: Plan) -> ArmResult:
        folder = self.folder / "arms" / arm.name
        digest = arm_digest(self.workspace, arm, plan.effort)
        kept = load_arm(folder, digest, self.session, arm)
        if kept is not None:
            self.usages[arm.name] = kept[1]
            return kept[0]
        if arm.name in plan.left_out:
            return ArmResult(arm=arm.name, status="not_run", why=plan.left_out[arm.name])
        began = time.perf_counter()
        self.progress.arm, self.progress.seed = arm.name, 0
        try:
            outcome = self.runner.run(arm, "test", folder, plan.effort)
        except StoppedError:
            raise
        except SURVIVED as error:
            own = isinstance(error, TrimtabError)
            said = str(error).splitlines()[:1]
            why = str(error) if own else ": ".join([type(error).__name__, *said])
            if cannot_write(error):  # nor could the next arm
                if own:
                    raise
                remedy = "make room, then run the same command with --resume"
                raise InputError(f"arm {arm.name} could not be kept ({why})", remedy, file=folder) from error
            self.progress.emit("failed", note=f"arm {arm.name} failed: {why}", stays=True)
            return ArmResult(arm=arm.name, status="failed", why=why)
        self.usages[arm.name] = outcome.usage
        self.measured[arm.name] = time.perf_counter() - began
        folder.mkdir(parents=True, exist_ok=True)
        save_answers(folder / "answers.parquet", outcome.answers)
        save_arm(folder, arm, outcome, digest)
        for checkpoints in folder.glob("run-*/*/checkpoints"):
            shutil.rmtree(checkpoints)
        return outcome.result

    def _decide(self, arms: Sequence[Arm]) -> StudyResult:
        """Tests, corrections and the verdict, from the answers on disk."""
        answers = {result.arm: self._answers(result.arm) for result in self.results if result.status == "done"}
        results = self._with_target(answers)
        comparisons: list[Comparison] = []
        margins: dict[str, float] = {}
        best = best_arm(results, self.task)
        if best is not None:
            ran = [arm for arm in arms if arm.name in answers]
            comparisons = self._compare(planned_pairs(ran, best), answers)
            margin = self.task.target.margin
            margins = {
                name: noninferiority_p(answers[name], answers[best], self.task, margin)
                for name in answers
                if name != best
            }
        return StudyResult(
            study=self.folder.name,
            task=self.task.task.name,
            metric=self.task.metric,
            target=self.task.target.quality,
            verdict=decide(results, comparisons, margins, self.task, self.usages),
            arms=tuple(results),
            comparisons=tuple(comparisons),
            report=str(self.folder / "report.html"),
        )

    def _with_target(self, answers: dict[str, tuple[Answer, ...]]) -> list[ArmResult]:
        target = self.task.target.quality
        if target is None:
            return self.results
        chances = {name: target_p(own, self.task, target) for name, own in answers.items()}
        adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))
        return [
            replace(result, p_target=chances[result.arm], passes=adjusted[result.arm] <= LEVEL)
            if result.arm in chances
            else result
            for result in self.results
        ]

    def _compare(self, pairs: Sequence[tuple[str, str]], answers: dict[str, tuple[Answer, ...]]) -> list[Comparison]:
        found = [difference(answers[a], answers[b], self.task) for a, b in pairs]
        adjusted = holm([item.p for item in found])
        return [
            Comparison(a=a, b=b, difference=item.difference, low=item.low, high=item.high, p=item.p, p_holm=p_holm)
            for (a, b), item, p_holm in zip(pairs, found, adjusted, strict=True)
        ]

    def _answers(self, arm: str) -> tuple[Answer, ...]:
        return load_answers(self.folder / "arms" / arm / "answers.parquet")

    def _smallest_difference(self, comparisons: int) -> float:
        """The smallest difference that this test set shows, from the answers of the two arms that differ most."""
        values = [scores_of(self._answers(result.arm)).values_N for result in self.results if result.status == "done"]
        shares = [discordance(a, b) for place, a in enumerate(values) for b in values[:place]]
        tests = len(self.workspace.splits["test"])
        return smallest_difference(tests, max(shares, default=GUESSED_DISCORDANCE) or 1 / tests, max(1, comparisons))

    def _time_left(self, plan: Plan, arms: Sequence[Arm]) -> None:
        """Let the display show what the plan says of the arms that are left, less what this one has taken."""
        if self.display is None:
            return
        names = {arm.name for arm in arms} - set(plan.left_out)
        left = sum(arm.seconds(plan.effort) for arm in plan.arms if arm.arm in names)
        began = time.monotonic()
        self.display.seconds_left = lambda: max(0.0, left - (time.monotonic() - began))


def _study_folder(workspace: Workspace, resume: str | None) -> Path:
    """A new study's folder, or that of the one to go on with."""
    studies = workspace.folder / "studies"
    short = arm_digest(workspace, Arm(name="", weights="", stages=(), context=""), None)[:6]
    if resume is None:
        folder = new_folder(studies, short)
        write_atomic(studies / "latest", folder.name)
        return folder
    name = resume
    if resume in ("", "latest"):
        pointer = studies / "latest"
        if not pointer.is_file():
            raise MissingError(f"{studies}: no study to go on with; start one with: trimtab study")
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    folder = folder_named(studies, name, "study")
    if folder.name.rpartition("-")[2] != short:
        kept = folder / "task.toml"
        same = kept.is_file() and kept.read_bytes() == workspace.task.file.read_bytes()
        what = "the rows or the documents have" if same else "the task file has"
        remedy = "put back what was changed, or start a new study with: trimtab study"
        raise InputError(f"{what} changed since this study was begun", remedy, file=folder)
    return folder
