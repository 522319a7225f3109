"""Shared setup of all commands: loads the task, requires consent, opens the data, shows progress, and handles stops."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from trimtab.arms.device_check import ensure_checked
from trimtab.arms.judges import open_judge
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import FOLDER, Workspace, open_workspace, require_sound
from trimtab.base.display import Display
from trimtab.base.errors import StoppedError
from trimtab.base.files import refuse_links
from trimtab.base.grammar import method_of
from trimtab.base.machine import gc_frozen
from trimtab.base.progress import Listener, Progress
from trimtab.base.records import Arm
from trimtab.base.sanitize import visible
from trimtab.base.task import Task
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.scorer import ScorerFunction, ScorerProgram
from trimtab.studies.consent import require_consent
from trimtab.studies.sources import DataSource, task_for
from trimtab.studies.track import Tracking


class RunContext:
    """A command in progress: its task, and data, models and scorer, each opened at first use.

    `again`: the command that resumes it; set by `goes_on_with` if the work is saved.
    """

    def __init__(
        self,
        task: Task,
        listeners: Sequence[Listener] | None,
        scorer: ScorerFunction | None,
        reward: ScorerFunction | None,
        track: str | None,
        stack: ExitStack,
    ) -> None:
        self.task, self.again = task, ""
        self.display = Display() if listeners is None else None
        self.listeners: list[Listener] = [self.display] if self.display else list(listeners or ())
        self.tracking = Tracking(track, task.task.name, self.note) if track else None
        self._scorer, self._reward, self._stack = scorer, reward, stack

    @cached_property
    def workspace(self) -> Workspace:
        """Return the audited data. Raises InputError if they cannot support a study."""
        workspace = open_workspace(self.task)
        require_sound(workspace)
        return workspace

    def goes_on_with(self, words: str) -> None:
        """Declare that work is saved from here on: `words` (`study --resume ID`) resume it."""
        self.again = self.task.command(words)

    def session(self, precision: str | None = None) -> Session:
        """Return the session with the models. `precision`: that of resumed work."""
        if any(method_of(arm).uses_base for arm in self.task.arms):
            ensure_checked(self.note)
        return open_session(self.workspace, precision)

    @cached_property
    def scorer(self) -> Scorer | None:
        """Return the scorer that replaces a metric: the caller's function, the task's program, started now, or its
        judge; None without one.
        """
        if self._scorer is None and self.task.judge is not None:
            return open_judge(self.task)
        if self._scorer is None and self.task.task.scorer:
            return self._stack.enter_context(ScorerProgram(self.task.task.scorer, self.task.folder))
        return self._scorer

    @cached_property
    def reward_program(self) -> Scorer | None:
        """Return the reward's component `program`: the caller's function, or the task's program, started now; None
        without one.
        """
        part = self.task.reward.program
        if self._reward is None and part is not None:
            program = ScorerProgram(part.argv, self.task.folder, what="reward program", field="reward.program.argv")
            return self._stack.enter_context(program)
        return self._reward

    def progress(self, file: Path | None = None, arm: str | None = None) -> Progress:
        """Return the stream of events: written to `file`, if given, and passed to the listeners and the tracker."""
        if self.tracking is None or file is None:
            return Progress(path=file, listeners=self.listeners, arm=arm)
        self.tracking.home = file.parent
        return Progress(path=file, listeners=[*self.listeners, self.tracking], arm=arm)

    def note(self, text: str) -> None:
        """Show a note on a line of its own; not after a stop was requested."""
        with suppress(KeyboardInterrupt):
            Progress(listeners=self.listeners).emit("track", note=text, stays=True)


def resolve_task(
    task: DataSource,
    listeners: Sequence[Listener] | None = None,
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Task:
    """Return a task: as given, read from its file, or generated from data; what was detected is reported like
    progress.
    """

    def tell(line: str) -> None:
        if listeners is None:
            sys.stderr.write(f"{visible(line)}\n")
        Progress(listeners=list(listeners or ())).emit("data", note=line, stays=True)

    return task_for(task, settings, folder, tell)


@contextmanager
def run_context(
    task: Task,
    arms: Sequence[Arm] = (),
    *,
    listeners: Sequence[Listener] | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scorer: ScorerFunction | None = None,
    reward: ScorerFunction | None = None,
    scores: bool = True,
    rewards: bool = False,
    reflector: str | None = None,
    asked: Sequence[str] = (),
    track: str | None = None,
) -> Iterator[RunContext]:
    """Context manager: yields the context of a command on a task. `listeners` get every event; None shows progress on
    standard error.

    `arms`: those that will answer. `scores`: True if their answers are scored. `rewards`: True if a stage learns
    from `[reward]`. `reflector`: the endpoint that rewrites instructions. `asked`: further endpoints that are sent
    questions. `track`: the experiment tracker for training figures. `reward` replaces the reward's program. Raises
    ConsentError before anything is opened if the task requests what was not allowed, PackageError for a tracker that
    is not installed, InputError for an unknown tracker and for links in the task's `.trimtab/`, and StoppedError,
    with the resuming command, instead of KeyboardInterrupt.
    """
    require_consent(
        task,
        [*(arm.endpoint for arm in arms if arm.endpoint), *asked],
        reflector=reflector,
        judge=task.judging_endpoint if scores and scorer is None else None,
        allow=allow,
        allow_commands=allow_commands,
        scores=scores and scorer is None,
        rewards=[name for name in task.reward.weights if name != "program" or reward is None] if rewards else (),
    )
    refuse_links(task.folder / FOLDER)
    with gc_frozen(), ExitStack() as stack:
        ctx = RunContext(task, listeners, scorer, reward, track, stack)
        if ctx.display:
            stack.callback(ctx.display.close)
        if ctx.tracking:
            stack.callback(ctx.tracking.close)
        try:
            yield ctx
        except StoppedError as error:
            raise StoppedError(f"{error}: {ctx.again}" if ctx.again else str(error)) from None
        except KeyboardInterrupt:  # outside the training loop, which saves by itself
            kept = f"finished work is saved; go on with --resume: {ctx.again}"
            raise StoppedError(f"stopped, {kept if ctx.again else 'nothing was saved'}") from None
