"""`study`: the main command: measures every arm on the same questions, decides, and writes the report."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from inspect import signature
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Unpack

from trimtab.arms.answerers import missing_api_keys
from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import Fingerprint
from trimtab.arms.judges import judging_fee
from trimtab.arms.planning.plan import (
    RESERVED,
    Plan,
    TrainedStanding,
    describe_cuts,
    load_plan,
    remaining_seconds,
    replan,
)
from trimtab.arms.probing.probe import adjusted, passes
from trimtab.arms.retriever import load_embedder
from trimtab.arms.search.reflection import open_reflector, reflecting_endpoint
from trimtab.arms.store import ANSWERS, STUDY_FILE, find_saved, read_arm, read_built, write_arm
from trimtab.arms.teacher import teachers
from trimtab.arms.trivial import meaning_seconds, trivial_answers
from trimtab.arms.workspace import describe_sample
from trimtab.base.codec import write_record
from trimtab.base.config import RewardTable
from trimtab.base.errors import InputError, StoppedError
from trimtab.base.files import TIME, locked, write_atomic, write_own
from trimtab.base.grammar import TRIVIAL, learns_from_rewards
from trimtab.base.machine import is_busy
from trimtab.base.progress import Listener
from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmRecord, ArmResult, BudgetSpent, StudyResult, Usage
from trimtab.base.task import Task, with_arms, with_budget, with_rows
from trimtab.decision.cost import volume_of
from trimtab.decision.evidence import best_arm
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.measurement.figures import scores_of
from trimtab.measurement.latency import MORE_PASSES, PASSES, bounds_in_turn
from trimtab.measurement.power import Variation, observed_variation
from trimtab.measurement.scorer import ScorerFunction
from trimtab.model.threads import threads
from trimtab.reports.page import write_report
from trimtab.retrieval.index import SaveVectors
from trimtab.studies.arm_work import SURVIVED, ArmWork
from trimtab.studies.decide import decide_study, with_labels
from trimtab.studies.jobs import (
    WORKERS,
    Job,
    JobContext,
    Machines,
    RemoteExecution,
    answering_jobs,
    making_jobs,
    runs_locally,
    seed_job,
)
from trimtab.studies.paths import (
    PLAN,
    SAMPLED,
    SELECTED,
    dependencies,
    folder_to_resume,
    has_begun,
    new_study,
    requested_rows,
    selection,
)
from trimtab.studies.planning import more_seeds, plan_study, readmit_arms, standing, with_test_questions
from trimtab.studies.record import EVENTS, count_opening, manifest, seconds_in
from trimtab.studies.run_context import RunContext, resolve_task, run_context
from trimtab.studies.settings import TaskKeywords, refuse_unknown
from trimtab.studies.sources import DataSource

FORMER = "former"  # folder of the earlier arm while it is retrained
PROBED, LEAST_PROBED = 300, 30  # test questions that probes change, and the fewest that are worth it
LOCK_SECONDS = 120.0  # to wait for the lock of a lost process, which may still run
MANY_PASSAGES = 512  # from which several processes embed in less time than one, although each first loads the model


def study(
    task: DataSource = "trimtab.toml",
    *,
    folder: str | Path | None = None,
    resume: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    budget: str | None = None,
    arms: Sequence[str] | None = None,
    rows: int | None = None,
    scorer: ScorerFunction | None = None,
    reward: ScorerFunction | RewardTable | None = None,
    listeners: Sequence[Listener] | None = None,
    track: str | None = None,
    machines: Machines | None = None,
    **settings: Unpack[TaskKeywords],
) -> StudyResult:
    """Run every arm of a task, decide, and write the study folder with its report.

    `task`: a task file, a folder, a data file, a Hugging Face dataset id, or data in memory: a DataFrame of pandas
    or Polars, an Arrow table, a `datasets.Dataset` or a list of dictionaries. `settings`: the keys of a task file by
    name, with `input`, `label` and `output` for the columns, `target` for the score that is good enough, and the
    other tables as objects; an existing task file must agree. `folder`: where data in memory are saved, with the
    study; default a new temporary folder. `resume`: the ID of a study to resume, or "latest"; finished arms are not
    run again. `budget` and `arms` replace the task's; a resumed study keeps its arms. `rows`: use a seeded sample of
    so many rows of train, dev and test by label, with whole groups; it is kept too. `allow`: addresses
    (`VARIABLE@ADDRESS` with a key), files and folders outside the task's folder that the task file may use. `scorer`
    and `reward`: functions `(input, reference, answer) -> 0..1` instead of the task's programs; `reward` may also be
    the table of a task file. `listeners` get every event; None shows progress on standard error. `track`:
    tensorboard, wandb, mlflow or trackio, which gets the training figures. `machines`: machines that build the arms and
    answer with them (`trimtab.scale.cluster.open_cluster`); they cannot run functions of this process.

    Raises OptionError for an unknown keyword; InputError for data that cannot support a study, for a budget that no
    arm fits, and for resuming a study begun with other inputs; BusyError beside another study of the same folder;
    StoppedError after a signal.
    """
    refuse_unknown(settings, "study", signature(study).parameters)
    given: dict[str, Any] = {**settings}
    if isinstance(reward, RewardTable):
        given["reward"], reward = reward, None
    own = resolve_task(task, listeners, given, folder)
    if budget is not None:
        own = with_budget(own, budget)
    if resume is not None:
        arms, rows = _resumed_selection(own, resume, arms, rows, machines)
    if arms is not None:
        own = with_arms(own, arms)
    own = with_rows(own, rows)
    remote = _remote_execution(own, machines, allow, allow_commands, scorer, reward)
    with run_context(
        own,
        own.arms,
        listeners=listeners,
        allow=allow,
        allow_commands=allow_commands,
        scorer=scorer,
        reward=reward,
        rewards=any(map(learns_from_rewards, own.arms)),
        reflector=reflecting_endpoint(own, own.arms),
        asked=[*teachers(own, own.arms), *own.rewording_endpoints],
        track=track,
    ) as ctx:
        home = ctx.workspace.folder / "studies"
        with locked(home):
            if remote is not None:
                remote.machines.require_ready(own, home)
            selected = {} if arms is None else {SELECTED: json.dumps([arm.name for arm in own.arms])}
            if rows is not None:
                selected[SAMPLED] = str(rows)
            folder = new_study(ctx.workspace, home, selected) if resume is None else folder_to_resume(own, resume)
            ctx.goes_on_with(_resume_command(folder, machines, allow, allow_commands))
            if resume is not None and (budget is not None or (folder / STUDY_FILE).exists()) and not has_begun(folder):
                (folder / PLAN).unlink(missing_ok=True)
            if resume is not None and budget is not None and (folder / PLAN).exists():
                raise InputError(
                    "a resumed study keeps its plan", "leave it out, or start a new study", field="--budget"
                )
            return _StudyRun(ctx, folder, selected, remote, resumed=resume is not None).run()


def _resumed_selection(
    task: Task, resume: str, arms: Sequence[str] | None, rows: int | None, machines: Machines | None
) -> tuple[Sequence[str] | None, int | None]:
    """Return the arms and the number of rows for a resumed study: those given, else those that it began with."""
    if machines is not None and resume not in ("", "latest"):
        machines.fetch_study(task, resume)
    folder = folder_to_resume(task, resume)
    return selection(folder) if arms is None else arms, requested_rows(folder) if rows is None else rows


def _resume_command(folder: Path, machines: Machines | None, allow: Sequence[str], allow_commands: bool) -> str:
    """Return the command that resumes a study, without `trimtab`."""
    on = f" {machines.option}" if machines else ""
    allowed = "".join(f" --allow {shlex.quote(what)}" for what in allow)
    return f"study --resume {folder.name}{on}{allowed}{' --allow-commands' * allow_commands}"


def _remote_execution(
    task: Task, machines: Machines | None, allow: Sequence[str], allow_commands: bool, *functions: object
) -> RemoteExecution | None:
    """Return the machines with what the user allowed; None if there are none. Raises InputError for functions (scorer,
    reward), which other machines cannot run.
    """
    if machines is None:
        return None
    if task.judge is not None:
        raise InputError("a judge keeps its judgements on one machine", "leave out --on", field="judge")
    if any(function is not None for function in functions):
        raise InputError(
            "a function cannot go to other machines", "name a program in the task file instead", field="scorer, reward"
        )
    return RemoteExecution(machines=machines, allow=tuple(allow), allow_commands=allow_commands)


class _StudyRun(ArmWork):
    """One study in progress."""

    def __init__(
        self,
        ctx: RunContext,
        folder: Path,
        selected: Fingerprint,
        remote: RemoteExecution | None = None,
        *,
        resumed: bool,
    ) -> None:
        self.display, self.kept_plan, self.remote = ctx.display, load_plan(folder / PLAN), remote
        session = ctx.session(self.kept_plan.precision if self.kept_plan else None)
        depends = dependencies(session, folder, selected, resumed=resumed)
        super().__init__(ctx, session, folder, depends, ctx.progress(folder / EVENTS))
        write_atomic(folder / "task.toml", self.task.file.read_bytes())
        self.retiming = 0.0
        self.began, self.earlier = time.perf_counter(), self.kept_plan.planning_seconds if self.kept_plan else 0.0
        self.earlier += sum(seconds_in(folder / EVENTS, arm.name) for arm in self.task.arms)
        self.stays: set[str] = set()  # arms that could not be retrained

    @property
    def results(self) -> list[ArmResult]:
        """Return the result of every arm so far, in the task's order."""
        return [self.found[arm.name] for arm in self.task.arms if arm.name in self.found]

    def run(self) -> StudyResult:
        for name, problem in missing_api_keys(self.task).items():
            self.progress.emit("plan", note=f"arm {name} cannot run: {problem}", stays=True)
        arms = self.task.arms
        self.session.reflector = open_reflector(self.session, self.progress, self.folder)
        plan = self._plan()
        if plan.test_rows is not None:
            self.workspace = self.session.workspace = with_test_questions(self.workspace, plan.test_rows)
        for note in describe_sample(self.workspace.sample, self.task) if self.workspace.sample else ():
            self.progress.emit("data", note=note, stays=True)
        place = {name: number for number, name in enumerate(plan.order)}
        in_order = sorted(arms, key=lambda arm: place.get(arm.name, len(place)))
        plan = self._make_remotely(in_order, plan)
        for arm in in_order:
            plan = self._replanned_for(plan, arm)
            self._make(arm, plan)
        plan = self._retrain_cut_arms(plan)
        self._more_seeds(plan)
        openings = count_opening(self.workspace, self.folder.name)
        self._answer_remotely(arms, plan)
        for arm in arms:
            self._show_time_left(plan)
            self._measure(arm, plan)
        plan = self._retrain_cut_arms(self._run_readmitted_arms(self._retrain_cut_arms(plan)))
        self._time_later_passes()
        self._time_again(plan)
        for name in (FORMER, WORKERS):  # an interrupted process may leave the first
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for arm in arms if self.task.target.probes else ():
            self._probe(arm, self.task.target.probes, plan)
        self.progress.emit("verdict")
        result = self._decide(arms, plan, openings)
        taken = result.verdict.use or best_arm(self.results, self.task)
        if any(self._probe(arm, self.task.probes, plan) for arm in arms if arm.name == taken):
            result = self._decide(arms, plan, openings)
        seen = manifest(
            self.session,
            self.depends,
            plan,
            openings,
            result,
            self.measured,
            self._variation(),
            self.usages,
            self.remote.machines.describe() if self.remote else (),
        )
        write_own(self.folder / "manifest.json", seen)
        write_record(self.folder / STUDY_FILE, result)
        write_report(self.folder)
        write_atomic(self.folder.parent / "latest", self.folder.name)
        return result

    def _plan(self) -> Plan:
        """Return the plan of a resumed study, else a new one, saved."""
        if self.kept_plan is not None:
            return self.kept_plan
        cores = self._remote_cores()
        if self.task.budget_seconds is None:  # with a budget the plan may leave out arms that retrieve
            self._embed_remotely(self.task.arms)
        self.progress.emit("plan", note="timing a few steps of every arm")
        with threads(cores):
            plan = plan_study(self.session, self.progress)
        write_record(self.folder / PLAN, plan)
        return plan

    def _remote_cores(self) -> int | None:
        """Return the cores of a job on other machines, with which arms are timed; None without such machines."""
        if self.remote is None:
            return None
        jobs = sum(not runs_locally(self.task, arm) for arm in self.task.arms) * self.task.study.seeds
        return self.remote.machines.divide_cores(jobs)

    def _make_remotely(self, arms: Sequence[Arm], plan: Plan) -> Plan:
        """Build on the other machines, if there are any, the arms that are not built yet. Return the plan with a fixed
        allowance for each, as they are built at the same time.
        """
        if self.remote is None:
            return plan
        self._remote_cores()
        wanted = []
        for arm in arms:
            plan = self._replanned_for(plan, arm)
            kept = read_arm(self.folder / "arms" / arm.name)
            finished = kept is not None and kept.digest == self._digest(arm, plan)
            if not finished and arm.name not in (*plan.left_out, *self.found):
                wanted.append(arm)
        self._embed_remotely(wanted)
        self._run_jobs(making_jobs(self.task, wanted, plan))
        return plan

    def _embed_remotely(self, arms: Sequence[Arm]) -> None:
        """Embed on the other machines the passages that the arms' indexes lack, and build the indexes for all jobs.
        Fewer than MANY_PASSAGES passages are left to the first job that needs them.
        """
        if self.remote is None:
            return
        machines, retriever = self.remote.machines, self.session.retriever
        load = partial(load_embedder, self.task.base.embedding, self.task.folder)

        def embed(batches: Iterator[list[str]], count: int, save: SaveVectors) -> None:
            self.progress.emit("plan", note=f"embedding {count:,} passages first", stays=True)

            def report_progress(done: int) -> None:
                self.progress.emit("index", step=done, of=count)

            self.retiming += machines.embed(load, retriever.embedder.digest, batches, save, report_progress)

        for words in sorted({context_for(arm).words for arm in arms if arm.retrieves}):
            if retriever.embed_ahead(words, embed, least=MANY_PASSAGES, seconds=LOCK_SECONDS):
                began = time.perf_counter()
                retriever.index_of(words)
                self.retiming += time.perf_counter() - began

    def _answer_remotely(self, arms: Sequence[Arm], plan: Plan) -> None:
        """Answer the test questions on the other machines, if there are any."""
        if self.remote is None:
            return
        asked = [arm for arm in arms if arm.name in self.artifacts and arm.name not in self.found]
        for arm in asked:
            self.hand_over(arm, self.artifacts[arm.name], plan)
        runs = {arm.name: len(self.artifacts[arm.name].folders) for arm in asked}
        for name in self._run_jobs(answering_jobs(self.task, asked, runs, plan)):
            self.artifacts.pop(name, None)
            self.measured.pop(name, None)
        for arm in asked:
            if arm.name in self.measured:
                self.measured[arm.name] = seconds_in(self.folder / EVENTS, arm.name) - self.former.get(arm.name, 0.0)

    def _run_jobs(self, jobs: Sequence[Job], *, optional: bool = False) -> Mapping[str, str]:
        """Run jobs on the other machines. Return the reason for each arm that failed; unless `optional`, record its
        failure as the arm's result.
        """
        if self.remote is None or not jobs:
            return {}
        machines = self.remote.machines
        for sentence in machines.forecast(jobs, self.task.cost):
            self.progress.emit("plan", note=sentence, stays=True)
        context = JobContext(
            task=self.task,
            folder=self.folder,
            allow=self.remote.allow,
            allow_commands=self.remote.allow_commands,
        )
        failed = machines.run(context, jobs, self.progress)
        if not optional:
            self.found |= {name: ArmResult(arm=name, status="failed", why=why) for name, why in failed.items()}
        return failed

    def _replanned_for(self, plan: Plan, arm: Arm) -> Plan:
        """Plan again at the pace of the arms trained so far, and fix this arm's allowance."""
        if plan.budget is not None and arm.name not in (*plan.allowances, *plan.left_out):
            found = replan(plan, self._standings(plan), self._spent())
            new = {} if arm.name in found.left_out else {arm.name: found.allowance}
            plan = replace(found, allowances={**plan.allowances, **new})
            write_record(self.folder / PLAN, plan)
        self._show_time_left(plan)
        return plan

    def _retrain_cut_arms(self, plan: Plan) -> Plan:
        """Retrain the arms that the budget cut while there is time. Return the plan after that.

        Time alone selects these arms; answers to the test questions have no part in it.
        """
        while not (self.folder / STUDY_FILE).exists():  # otherwise it was finished before
            standings = self._standings(plan)
            found = replan(plan, standings, self._spent())
            again = [arm for arm in self.task.arms if arm.name in standings and arm.name not in found.allowances]
            again = [arm for arm in again if arm.name in plan.allowances and arm.name not in self.stays]
            if not again:
                break
            names = ", ".join(arm.name for arm in again)
            left = (plan.budget or 0.0) - self._spent()
            note = f"{left / 60:.1f} min of the budget are left: {names} made again in that time"
            self.progress.emit("plan", note=note, stays=True)
            for arm in again:
                plan = self._retrain(arm, replace(plan, allowance=found.allowance))
        return self._with_cut_notes(plan)

    def _with_cut_notes(self, plan: Plan) -> Plan:
        """Return the plan with its cuts stated for the arms as they are now."""
        if plan.budget is None:
            return plan
        plan = replace(plan, cuts=describe_cuts(plan, self._standings(plan)))
        write_record(self.folder / PLAN, plan)
        return plan

    def _retrain(self, arm: Arm, plan: Plan) -> Plan:
        """Train an arm again within the plan's allowance, and measure it again if it was measured. If that fails, the
        earlier arm is kept.
        """
        name, folder, aside = arm.name, self.folder / "arms" / arm.name, self.folder / FORMER / arm.name
        states: tuple[dict[str, Any], ...] = (self.artifacts, self.found, self.usages, self.measured, self.making)
        before = [state.pop(name, None) for state in states]
        if folder.exists():
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
        again = replace(plan, allowances={**plan.allowances, name: plan.allowance})
        write_record(self.folder / PLAN, again)
        self.former[name] = seconds_in(self.folder / EVENTS, name)
        self._show_time_left(again)
        self._make_and_measure(arm, again, measured=before[1] is not None)
        failed = self.found.get(name)
        if failed is None or failed.status == "done":
            shutil.rmtree(aside, ignore_errors=True)
            return again
        self.progress.emit("plan", note=f"arm {name} stays as it was: {failed.why}", stays=True)
        self.stays.add(name)
        shutil.rmtree(folder, ignore_errors=True)
        if aside.exists():
            aside.rename(folder)
        for state, value in zip(states, before, strict=True):
            state.pop(name, None)
            state.update({} if value is None else {name: value})
        write_record(self.folder / PLAN, plan)
        return plan

    def _make_and_measure(self, arm: Arm, plan: Plan, *, measured: bool = True) -> None:
        """Train a single arm, and measure it if `measured`."""
        self._make_remotely([arm], plan)
        self._make(arm, plan)
        if measured:
            self._answer_remotely([arm], plan)
            self._measure(arm, plan)

    def _time_later_passes(self) -> None:
        """Time the questions of the later passes, alternating between arms, so that no arm is timed in a single
        stretch.

        If neighbouring timings of an arm are correlated, so that they give no bound yet, its questions are timed in
        further passes.
        """
        if self.runner.passes < PASSES:
            return
        for number in range(1, PASSES + MORE_PASSES):
            for arm in self.task.arms:
                folder = self.folder / "arms" / arm.name
                record = read_arm(folder)
                whole = len(self.session.workspace.timed_questions("test"))
                if record is None or not 0 < len(record.latencies) < whole * (number + 1) // PASSES:
                    continue
                if number >= PASSES and record.result.latency_p95_high_ms is not None:
                    continue
                saved = find_saved(self.task, arm, self.folder.name)
                artifact = self.artifacts.get(arm.name) or (self.runner.reuse(arm, saved) if saved else None)
                if artifact is None:
                    continue
                with self._contained_failure(arm, without="timing it in turn"):
                    usage, result, latencies = self.runner.time_pass(
                        arm, artifact, record.usage, record.result, record.latencies, number
                    )
                    self.usages[arm.name], self.found[arm.name] = usage, result
                    write_arm(folder, replace(record, usage=usage, result=result, latencies=latencies))
        self._bound_slow_spells()

    def _bound_slow_spells(self) -> None:
        """Bound the latencies of the arms of this machine together: a slow spell falls on the one that is timed."""
        records = {arm.name: read_arm(self.folder / "arms" / arm.name) for arm in self.task.arms if not arm.endpoint}
        timed = {name: record for name, record in records.items() if record is not None and record.latencies}
        whole = len(self.session.workspace.timed_questions("test"))
        sizes = [len(range(number % PASSES, whole, PASSES)) for number in range(PASSES + MORE_PASSES)]
        starts = [0, *accumulate(sizes)]
        passes = {
            name: [record.latencies[start:end] for start, end in pairwise(starts)] for name, record in timed.items()
        }
        for name, bound in bounds_in_turn(passes, len(self.task.arms)).items():
            result = replace(timed[name].result, latency_p95_high_ms=bound)
            if name in self.found:
                self.found[name] = result
            write_arm(self.folder / "arms" / name, replace(timed[name], result=result))

    def _time_again(self, plan: Plan) -> None:
        """Repeat the timing of single questions for arms that were timed on a busy machine, as far as the budget
        allows.
        """
        for arm in self.task.arms:
            artifact, usage = self.artifacts.get(arm.name), self.usages.get(arm.name)
            if artifact is None or usage is None or not is_busy(usage.answering_share):
                continue
            if plan.budget is not None:
                left = plan.budget / (1 - RESERVED) - self._spent()
                if self.session.workspace.timing_seconds(usage.seconds_per_question) > left:
                    continue
            folder = self.folder / "arms" / arm.name
            note = f"timing {arm.name} once more, as other programs kept the machine busy"
            self.progress.emit("plan", note=note, stays=True)
            with self._contained_failure(arm, without="timing it again"):
                usage, result = self.runner.time_again(arm, artifact, usage, self.found[arm.name])
                self.usages[arm.name], self.found[arm.name] = usage, result
                record = read_arm(folder)
                if record is not None:
                    write_arm(folder, replace(record, usage=usage, result=result))

    def _probe(self, arm: Arm, names: Collection[str], plan: Plan) -> bool:
        """Put the probes of these names to an arm that was measured, but those it had before, with as many questions as
        the budget allows. Return whether any was.
        """
        folder = self.folder / "arms" / arm.name
        record = read_arm(folder)
        wanted = {*names} - {one.probe for one in record.result.probes} if record else ()
        if record is None or not wanted:
            return False
        asked = self.workspace.splits["test"]
        fee = self.task.seconds_of(self._fee(record.usage)) / len(asked)
        each = passes(wanted) * (record.usage.evaluation_seconds / len(asked) + fee)
        left = math.inf if plan.budget is None else plan.budget + self._kept_for_probes(plan) - self._spent()
        most = min(PROBED, math.floor(left / each) if each * PROBED > left else PROBED)
        if most < LEAST_PROBED:
            takes = f"{LEAST_PROBED} questions take {LEAST_PROBED * each:.0f} s"
            note = f"the probes of {arm.name} did not fit the budget: {takes}"
            self.progress.emit("plan", note=note, stays=True)
            return False
        rows = self.workspace.subset("test", most)
        answers = {answer.item_id: answer for answer in reversed(self._answers(arm.name))}
        with self._contained_failure(arm, without="its probes"):
            artifact = self.artifacts.get(arm.name)
            if artifact is None and (saved := find_saved(self.task, arm, self.folder.name)):
                artifact = self.runner.reuse(arm, saved)
            if artifact is None:
                return False
            found = self.runner.probe(arm, artifact, wanted, rows, answers)
            result = replace(record.result, probes=adjusted((*record.result.probes, *found), self.task.target.margin))
            self.found[arm.name] = result
            write_arm(folder, replace(record, result=result))
            return bool(found)
        return False

    def _kept_for_probes(self, plan: Plan) -> float:
        return (plan.reserved - RESERVED) * (self.task.budget_seconds or 0.0)

    def _standings(self, plan: Plan) -> dict[str, TrainedStanding]:
        """Return the standing of every arm that was trained or failed, by name."""
        found = {}
        for arm in plan.included:
            artifact, result = self.artifacts.get(arm.arm), self.found.get(arm.arm)
            if artifact is not None:
                asked = (
                    None if result is None else (self.measured[arm.arm] - self.making[arm.arm]) / len(artifact.folders)
                )
                found[arm.arm] = standing(
                    plan, arm, self.making[arm.arm], artifact.effort, artifact.trained[0].figures, answer_seconds=asked
                )
            elif result is not None and result.status == "done":
                making = self.making[arm.arm]
                asked = (self.measured[arm.arm] - making) / result.seeds
                found[arm.arm] = standing(plan, arm, making, result.effort, result.extras, answer_seconds=asked)
            elif result is not None:
                found[arm.arm] = TrainedStanding(
                    allowance=plan.allowance_of(arm.arm), seconds=None, cut=False, answer_seconds=0.0
                )
        return found

    def _run_readmitted_arms(self, plan: Plan) -> Plan:
        """Train and measure left-out arms that fit into the rest of the budget. Return the plan after that."""
        if (self.folder / STUDY_FILE).exists():  # it was finished before
            return plan
        began = time.perf_counter()
        anew = readmit_arms(self.session, plan, self._spent(), self.progress)
        self.retiming += time.perf_counter() - began
        if anew is plan:
            return plan
        write_record(self.folder / PLAN, anew)
        for arm in self.task.arms:
            if arm.name in plan.left_out:
                self._show_time_left(anew)
                del self.found[arm.name]
                self._make_and_measure(arm, anew)
        return anew

    def _more_seeds(self, plan: Plan) -> None:
        """Train the arms that dev leaves among the best with more seeds; the decision is saved for a resumed study."""
        more = plan.more_seeds or more_seeds(self.task, plan, self.artifacts, self._records(), self._spent())
        if more and not plan.more_seeds:
            write_record(self.folder / PLAN, replace(plan, more_seeds=more))
        wanted = {arm.name: arm for arm in self.task.arms if more.get(arm.name, 1) > 1 and arm.name in self.artifacts}
        for name in self._train_seeds_remotely(wanted.values(), more, plan):
            del wanted[name]
        for arm in wanted.values():
            seeds, folder = more[arm.name], self.folder / "arms" / arm.name
            note = f"training with {seeds} seeds, as dev leaves it among the best"
            with self._contained_failure(arm, without="more seeds"):
                self.progress.emit("plan", note=note, stays=True)
                allowance = replace(plan.allowance_of(arm.name), seeds=seeds)
                first = read_built(folder, self._digest(arm, plan), seeds) or self.artifacts[arm.name]
                self.artifacts[arm.name] = self.runner.with_seeds(arm, first, folder, allowance)

    def _train_seeds_remotely(self, arms: Collection[Arm], more: Mapping[str, int], plan: Plan) -> Mapping[str, str]:
        """Train more seeds on the other machines, if there are any. Return the reason for each arm that lacks them."""
        if self.remote is None:
            return {}
        planned, jobs = {one.arm: one for one in plan.arms}, list[Job]()
        for arm in arms:
            if runs_locally(self.task, arm):
                continue
            self.hand_over(arm, self.artifacts[arm.name], plan)
            seeds = range(len(self.artifacts[arm.name].folders), more[arm.name])
            jobs += [seed_job(arm, seed, planned.get(arm.name), without="more seeds") for seed in seeds]
        return self._run_jobs(jobs, optional=True)

    def _records(self) -> dict[str, ArmRecord]:
        """Return the arms that were finished before."""
        found = {arm.name: read_arm(self.folder / "arms" / arm.name) for arm in self.task.arms}
        return {name: record for name, record in found.items() if record and name in self.found}

    def _spent(self) -> float:
        """Return the seconds of all arms in all processes; for a budget in money, fees converted to seconds are
        included.
        """
        seconds = sum(seconds_in(self.folder / EVENTS, arm.name) for arm in self.task.arms)
        began = datetime.strptime(self.folder.name.partition("-")[0], TIME).replace(tzinfo=UTC)
        fees = sum(map(self._fee, self.usages.values())) + judging_fee(self.task, began)
        return seconds + self.retiming + self.task.seconds_of(fees)

    def _fee(self, usage: Usage) -> float:
        """Return the fees of an arm's endpoints: for answers, teaching and rewriting instructions."""
        tests, price = len(self.workspace.splits["test"]), usage.token_fee
        answers = tests + len(self.session.workspace.timed_questions("test")) + 2
        each = (usage.prompt_tokens * price.input + usage.new_tokens * price.output) / 1e6 if price else 0.0
        return answers * each + usage.choose_fee

    def _decide(self, arms: Sequence[Arm], plan: Plan, look: int) -> StudyResult:
        """Return the result of the study, from the answers on disk."""
        answers = {result.arm: self._answers(result.arm) for result in self.results if result.status == "done"}
        found = decide_study(
            *(self.folder, with_labels(self.task, self.workspace.labels), self.results, answers, arms, self.usages),
            trivial=self._trivial_answers() if answers else {},
            cuts=plan.cuts,
            look=look,
        )
        return StudyResult(
            study=self.folder.name,
            task=self.task.task.name,
            metric=self.task.metric,
            target=self.task.target.quality,
            volume=volume_of(self.task.cost),
            report=str(self.folder / "report.html"),
            sample=self.workspace.sample,
            spent=self._budget_spent(),
            **found.fields,
        )

    def _budget_spent(self) -> BudgetSpent | None:
        """Return the budget and the seconds of the study: this process's, and those that earlier ones planned and
        worked on arms."""
        budget = self.task.budget_seconds
        if budget is None:
            return None
        seconds = self.earlier + time.perf_counter() - self.began
        return BudgetSpent(budget=self.task.study.budget, of=budget, seconds=seconds)

    def _trivial_answers(self) -> dict[str, tuple[Answer, ...]]:
        """Return the baselines' answers to the test questions, saved like an arm's."""
        splits, task = self.workspace.splits, self.task
        kept = {name: self.folder / "arms" / name / ANSWERS for name in TRIVIAL}
        if any(file.is_file() for file in kept.values()):
            return {name: load_answers(file) for name, file in kept.items() if file.is_file()}
        try:
            given = trivial_answers(
                self.workspace.training_rows("linear"),  # rules without a model take seconds with all, too
                splits["test"],
                task,
                self.runner.scorer,
                embed=None if meaning_seconds(self.session) is None else self.session.retriever.embed,
                documents=self.workspace.documents,
            )
        except StoppedError:
            raise
        except SURVIVED as error:  # of the task's scorer
            self.progress.emit("failed", note=f"trivial arms were not scored: {error}", stays=True)
            return {}
        for name, answers in given.items():
            kept[name].parent.mkdir(parents=True, exist_ok=True)
            save_answers(kept[name], answers)
        return given

    def _answers(self, arm: str) -> tuple[Answer, ...]:
        return load_answers(self.folder / "arms" / arm / ANSWERS)

    def _variation(self) -> Variation:
        """Return how much the arms' answers to the test questions differ from question to question."""
        found = [scores_of(self._answers(result.arm)) for result in self.results if result.status == "done"]
        groups = found[0].groups if found else [example.group for example in self.workspace.splits["test"]]
        return observed_variation([scores.values_N for scores in found], groups, "test answers")

    def _show_time_left(self, plan: Plan) -> None:
        """Set the display's predicted seconds left at the pace so far; none once they are over."""
        if self.display is None:
            return
        left = sum(remaining_seconds(plan, self._standings(plan)).values())
        began = time.monotonic()
        self.display.seconds_left = lambda: remains if (remains := left - (time.monotonic() - began)) > 0 else None
