"""One arm's part of a study: builds it, answers the questions, keeps its record; a failure fails this arm alone."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from trimtab.arms.artifacts import ArmArtifact
from trimtab.arms.fingerprint import Fingerprint, digest_of
from trimtab.arms.planning.plan import Plan
from trimtab.arms.run import ArmRunner, forget_replies
from trimtab.arms.search.context_search import SEARCHES
from trimtab.arms.session import Session
from trimtab.arms.store import (
    ANSWERS,
    forget_kept_runs,
    read_answered,
    read_arm,
    read_built,
    write_answered,
    write_arm,
    write_built,
)
from trimtab.arms.teacher import TAUGHT
from trimtab.base.errors import NO_MEMORY, InputError, StoppedError, TrimtabError, is_out_of_memory, is_write_failure
from trimtab.base.grammar import learns_from_rewards
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.results import ArmRecord, ArmResult, Usage
from trimtab.measurement.evaluate import save_answers
from trimtab.studies.record import EVENTS, seconds_in
from trimtab.studies.run_context import RunContext

# Errors that fail an arm but not the study.
SURVIVED = (
    *(TrimtabError, RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, KeyError, TypeError),
    SafetensorError,
)


class ArmWork:
    """The arms of a study in this process, and what is known of each: built, answered, or failed."""

    def __init__(
        self,
        ctx: RunContext,
        session: Session,
        folder: Path,
        depends: Fingerprint,
        progress: Progress,
        searches: Path | None = None,
    ) -> None:
        """`searches`: the file of the base model's dev scores; by default the study's."""
        self.task, self.folder, self.session, self.workspace = ctx.task, folder, session, session.workspace
        self.depends, self.progress = depends, progress
        session.teacher_folder = folder / TAUGHT
        reward_program = ctx.reward_program if any(map(learns_from_rewards, self.task.arms)) else None
        self.runner = ArmRunner(
            session, ctx.scorer, progress, searches or folder / SEARCHES, reward_program, in_turn=True
        )
        self.artifacts: dict[str, ArmArtifact] = {}
        self.found: dict[str, ArmResult] = {}
        self.usages: dict[str, Usage] = {}
        self.measured: dict[str, float] = {}  # seconds of an arm in its present form
        self.making: dict[str, float] = {}  # of these, the seconds before the test questions
        self.former: dict[str, float] = {}  # seconds of the earlier form of a retrained arm
        self.failures: dict[str, str] = {}  # why an arm, or an optional part of it, failed last

    def build_run(self, arm: Arm, plan: Plan, seed: int, *, without: str = "") -> None:
        """Build one run of an arm for another process, which finds it in the run's folder; nothing if it is there.

        A later seed's run needs that of the first. `without`: as in `_contained_failure`.
        """
        folder, digest, allowance = self._arm_folder(arm), self._digest(arm, plan), plan.allowance_of(arm.name)
        built = read_built(folder, digest, seed + 1)
        if built is not None and len(built.folders) > seed:
            return
        self.measured[arm.name] = 0.0
        with self._contained_failure(arm, without=without, seed=seed):
            first = read_built(folder, digest, 1) if seed else None
            if first is None:
                artifact = self.runner.make_first(arm, folder, allowance)
            else:
                artifact = self.runner.make_later(arm, first, folder, allowance, seed)
            write_built(folder / f"run-{seed}", digest, artifact)

    def choose_passages(self, arm: Arm, plan: Plan, *, without: str) -> None:
        """Choose the passages in an arm's prompts for the processes that train it; nothing if its first run is built.

        `without`: as in `_contained_failure`.
        """
        if read_built(self._arm_folder(arm), self._digest(arm, plan), 1) is None:
            self.measured[arm.name] = 0.0
            with self._contained_failure(arm, without=without):
                self.runner.choose_passages(arm, plan.allowance_of(arm.name))

    def train_trial(self, arm: Arm, plan: Plan, step: int, *, without: str) -> None:
        """Train one rate of the ladder of an arm for the process that builds its first run; nothing if that is done.

        `without`: as in `_contained_failure`.
        """
        folder = self._arm_folder(arm)
        if read_built(folder, self._digest(arm, plan), 1) is None:
            self.measured[arm.name] = 0.0
            with self._contained_failure(arm, without=without):
                self.runner.train_trial(arm, folder, plan.allowance_of(arm.name), step)

    def hand_over(self, arm: Arm, artifact: ArmArtifact, plan: Plan) -> None:
        """Keep the runs that this process built for the other machines."""
        folder, digest = self._arm_folder(arm), self._digest(arm, plan)
        for seed, (trained, run) in enumerate(zip(artifact.trained, artifact.folders, strict=True)):
            built = read_built(folder, digest, seed + 1)
            if built is None or len(built.folders) <= seed:
                write_built(run, digest, replace(artifact, trained=(trained,), folders=(run,)))

    def answer_run(self, arm: Arm, plan: Plan, seed: int) -> None:
        """Answer the test questions with one built run for another process; nothing if the answers are there."""
        folder, digest = self._arm_folder(arm), self._digest(arm, plan)
        built = read_built(folder, digest, seed + 1)
        if built is None or seed in read_answered(built.folders, digest):
            return
        self.measured[arm.name] = 0.0
        with self._contained_failure(arm, seed=seed):
            write_answered(built.folders[seed], digest, self.runner.answer(arm, built, "test", seed))

    def _arm_folder(self, arm: Arm) -> Path:
        return self.folder / "arms" / arm.name

    def _digest(self, arm: Arm, plan: Plan) -> str:
        return digest_of(self.depends, repr(arm.identity), repr(plan.allowance_of(arm.name)))

    def _make(self, arm: Arm, plan: Plan) -> None:
        """Search and train an arm, unless it is finished, does not fit, or failed on another machine. What other
        machines built of it is used.
        """
        if arm.name in self.found:
            return
        folder, allowance = self._arm_folder(arm), plan.allowance_of(arm.name)
        kept = read_arm(folder)
        if kept is not None and kept.digest == self._digest(arm, plan):
            self.usages[arm.name], self.found[arm.name] = kept.usage, kept.result
            if kept.seconds is not None:
                self.measured[arm.name] = kept.seconds
            self.making[arm.name] = max(0.0, (kept.seconds or 0.0) - kept.usage.evaluation_seconds)
        elif arm.name in plan.left_out:
            self.found[arm.name] = ArmResult(arm=arm.name, status="not_run", why=plan.left_out[arm.name])
        else:
            self.measured[arm.name] = seconds_in(self.folder / EVENTS, arm.name) - self.former.get(arm.name, 0.0)
            with self._contained_failure(arm):
                built = read_built(folder, self._digest(arm, plan), allowance.seeds)
                if built is None:
                    self.artifacts[arm.name] = self.runner.make(arm, folder, allowance)
                else:
                    self.artifacts[arm.name] = self.runner.with_seeds(arm, built, folder, allowance)
            self.making[arm.name] = self.measured.get(arm.name, 0.0)

    def _measure(self, arm: Arm, plan: Plan) -> None:
        """Answer the test questions with a trained arm, unless other machines did, time it, and save the result."""
        artifact, folder = self.artifacts.get(arm.name), self._arm_folder(arm)
        if artifact is None:
            return
        with self._contained_failure(arm, without="its learning curve"):
            artifact = self.runner.with_curve(arm, artifact)
        with self._contained_failure(arm):
            answered = read_answered(artifact.folders, self._digest(arm, plan))
            outcome = self.runner.measure(arm, artifact, "test", answered)
            folder.mkdir(parents=True, exist_ok=True)
            save_answers(folder / ANSWERS, outcome.answers)
        if arm.name in self.found:  # failed
            return
        self.usages[arm.name], self.found[arm.name] = outcome.usage, outcome.result
        base = self.task.base
        record = ArmRecord(
            arm=arm,
            digest=self._digest(arm, plan),
            model=base.model,
            revision=base.revision,
            embedding=base.embedding,
            usage=outcome.usage,
            result=outcome.result,
            classes=outcome.classes,
            seconds=self.measured[arm.name],
            dev_scores=outcome.dev_scores,
            latencies=outcome.latencies,
        )
        write_arm(folder, record)
        for checkpoints in folder.glob("*/*/checkpoints"):
            shutil.rmtree(checkpoints)
        forget_replies(folder)
        forget_kept_runs(folder)

    @contextmanager
    def _contained_failure(self, arm: Arm, *, without: str = "", seed: int = 0) -> Iterator[None]:
        """Context manager: a failure inside fails only this arm, not the study; its seconds are counted.

        `without`: an optional part of the arm, which continues without it.
        """
        self.progress.arm, self.progress.seed = arm.name, seed
        began = time.perf_counter()
        try:
            self.progress.emit("begin")
            yield
        except StoppedError:
            raise
        except SURVIVED as error:
            why = self.failures[arm.name] = self._failure_text(arm, error)
            if without:
                self.progress.emit("failed", note=f"arm {arm.name} goes on without {without}: {why}", stays=True)
                self.measured[arm.name] += time.perf_counter() - began
                return
            self.progress.emit("failed", note=f"arm {arm.name} failed: {why}", stays=True)
            self.found[arm.name] = ArmResult(arm=arm.name, status="failed", why=why)
            self.artifacts.pop(arm.name, None)
            self.measured.pop(arm.name, None)
        else:
            self.measured[arm.name] += time.perf_counter() - began
        finally:
            self.progress.arm = self.progress.seed = None

    def _failure_text(self, arm: Arm, error: Exception) -> str:
        """Return the text of a failure; raise it again if the next arm would fail for the same reason."""
        full, own = is_out_of_memory(error), isinstance(error, TrimtabError)
        said = str(error) if own else ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        why = f"{NO_MEMORY}; --resume tries this arm again" if full and not own else said
        if is_write_failure(error):
            if own:
                raise error
            remedy = "free disk space, then run the same command with --resume"
            raise InputError(f"arm {arm.name} could not be kept ({why})", remedy, file=self._arm_folder(arm)) from error
        if not (own or full) and os.environ.get("TRIMTAB_DEBUG"):
            traceback.print_exception(error)  # a bug of Trimtab: what to report
        return why
