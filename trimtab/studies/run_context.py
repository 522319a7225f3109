"""How every verb begins and ends: the task loaded, consent asked for, the data opened, one display, one way to be stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import FOLDER, Workspace, open_workspace, require_sound
from trimtab.base.display import Display
from trimtab.base.errors import StoppedError
from trimtab.base.files import refuse_links
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
    """A verb under way: its task, and whatever of data, models and scorer it asks for, each opened once, when first asked for.

    `again` is the command that goes on with it; a verb that keeps its work says how by `goes_on_with`.
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
        """The data, audited; raises InputError where they cannot carry a study."""
        workspace = open_workspace(self.task)
        require_sound(workspace)
        return workspace

    def goes_on_with(self, words: str) -> None:
        """From here on being stopped is no loss: `words` (`study --resume ID`) go on."""
        self.again = self.task.command(words)

    def session(self, precision: str | None = None) -> Session:
        """The models; `precision` is that of work to go on with."""
        return open_session(self.workspace, precision)

    @cached_property
    def scorer(self) -> Scorer | None:
        """What scores answers in place of a metric: the caller's function, or the task's program, which is started now."""
        if self._scorer is None and self.task.task.scorer:
            return self._stack.enter_context(ScorerProgram(self.task.task.scorer, self.task.folder))
        return self._scorer

    @cached_property
    def reward_program(self) -> Scorer | None:
        """What the part `program` of the reward asks: the caller's function, or the task's program, which is started now."""
        part = self.task.reward.program
        if self._reward is None and part is not None:
            program = ScorerProgram(part.argv, self.task.folder, what="reward program", field="reward.program.argv")
            return self._stack.enter_context(program)
        return self._reward

    def progress(self, file: Path | None = None, arm: str | None = None) -> Progress:
        """The stream of events, written to `file` where one is given, and told to whoever listens and to the tracker."""
        if self.tracking is None or file is None:
            return Progress(path=file, listeners=self.listeners, arm=arm)
        self.tracking.home = file.parent
        return Progress(path=file, listeners=[*self.listeners, self.tracking], arm=arm)

    def note(self, text: str) -> None:
        """Tell whoever listens, in a line of its own that stays; not any more once a stop was asked for."""
        with suppress(KeyboardInterrupt):
            Progress(listeners=self.listeners).emit("track", note=text, stays=True)


def resolve_task(
    task: DataSource,
    listeners: Sequence[Listener] | None = None,
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Task:
    """A task as it was given, read from its file, or made of data; what the data were taken for is told like progress."""

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
    proposes: Sequence[str] = (),
    teachers: Sequence[str] = (),
    track: str | None = None,
) -> Iterator[RunContext]:
    """Inside, a verb works on a task; `listeners` get every event, None shows progress on standard error.

    `arms` are those that will be asked, `scores` is whether their answers are scored, `rewards` whether a stage learns from what
    `[reward]` says of them, `proposes` are endpoints that are asked for instructions, `teachers` those whose answers are imitated, `track` is the tracker that gets the figures of
    training. `reward` takes the place of the reward's program. Raises ConsentError before anything is opened where the task asks for
    what was not allowed, PackageError for a tracker that is not installed, InputError for one that is not known and for links in its
    `.trimtab/`, and StoppedError, with how to go on, in place of KeyboardInterrupt.
    """
    require_consent(
        task,
        [*(arm.endpoint for arm in arms if arm.endpoint), *teachers],
        proposes=proposes,
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
        except KeyboardInterrupt:  # between the steps of training, where the loop does not save
            kept = f"what was finished is kept; go on with --resume: {ctx.again}"
            raise StoppedError(f"stopped, {kept if ctx.again else 'nothing was kept'}") from None
