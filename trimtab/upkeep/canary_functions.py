"""The Python API of canaries: `trimtab.canary_start`, `canary_status` and `canary_stop`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.task import TASK_FILE, Task, as_task
from trimtab.serving.releases import Followed
from trimtab.upkeep.user_comparison import UserOutcome

if TYPE_CHECKING:
    from datetime import datetime

    from trimtab.serving.feedback import FeedbackStore
    from trimtab.upkeep.canary import Canaries, CanaryStatus
    from trimtab.upkeep.canary_records import CanaryRecord


def canary_start(
    task: str | Path | Task = TASK_FILE,
    *,
    version: int | None = None,
    share: float = 0.1,
    days: float = 14.0,
    why: str = "",
    by: str | None = None,
    dry_run: bool = False,
    anyway: bool = False,
    address: str | Path | None = None,
    artifacts: str | Path | None = None,
    store: str | None = None,
) -> CanaryStatus:
    """Start a canary: a candidate answers a share of the users. Forecasts how many users a result needs.

    `version`: the candidate's number, by default the version that the alias `candidate` names. `share`: of the users,
    0.001 to 0.5; a user stays with one version. `days`: without a result after that time the canary ends undecided, and
    production stays. A candidate that is shown to be good waits for a person, with `promote = "if-better"` in the task
    file it is promoted. `why` and `by` are recorded. `dry_run` only forecasts. `anyway`: also a candidate that was
    measured to be worse than production. `address` and `artifacts`: the registry, as
    for `registry`; `store`: of traffic, labels and feedback, as for `serve`. A running `serve` that follows production
    loads the candidate within seconds.

    Returns the canary with its forecast. Raises InputError without a table `[traffic]`, if another canary is open, and
    for a version that is in production, was measured to be worse or has damaged files; MissingError without a registry,
    or without a version in production.
    """
    with open_canaries(task, address, artifacts, store) as own:
        return own.start(version, share=share, days=days, why=why, by=by, dry_run=dry_run, anyway=anyway)


def canary_status(
    task: str | Path | Task = TASK_FILE,
    *,
    address: str | Path | None = None,
    artifacts: str | Path | None = None,
    store: str | None = None,
) -> CanaryStatus:
    """Return the state of the open canary, or how the last one ended; end it if it is due.

    `record` of the result is None while the canary is open; `record.passed` tells whether the candidate was promoted,
    `record.outcome` is `held` where it was shown to be good and waits for a person.
    Arguments as for `canary_start`. Raises MissingError if there was no canary yet.
    """
    with open_canaries(task, address, artifacts, store) as own:
        return own.status()


def canary_stop(
    task: str | Path | Task = TASK_FILE,
    *,
    why: str,
    by: str | None = None,
    address: str | Path | None = None,
    artifacts: str | Path | None = None,
    store: str | None = None,
) -> CanaryRecord:
    """End the open canary by hand: rolled back, so that production answers everybody again.

    Arguments as for `canary_start`. Returns the record of its end. Raises MissingError if none is open, InputError
    without a reason.
    """
    with open_canaries(task, address, artifacts, store) as own:
        return own.stop(why, by)


def user_outcomes(judgements: FeedbackStore, since: datetime) -> Iterator[UserOutcome]:
    """Yield the outcomes of known users' single answers from `since` on: like is right, dislike and correct are
    wrong."""
    for judgement in judgements.of_single_answers(since):
        if voter := judgement.voter or judgement.user:
            version, right = judgement.answers[0].version, float(judgement.kind == "like")
            yield UserOutcome(user=voter, version=version, right=right, when=judgement.when)


def open_canaries(
    task: str | Path | Task, address: str | Path | None, artifacts: str | Path | None, store: str | None
) -> Canaries:
    """Open the canaries of a task, with the users' judgements in its feedback store.

    Raises MissingError if there is no registry.
    """
    from trimtab.upkeep.canary import Canaries
    from trimtab.upkeep.registry import registry

    own = as_task(task)

    def judged(since: datetime) -> Iterator[UserOutcome]:
        from trimtab.base.errors import MissingError
        from trimtab.serving.feedback import open_feedback_store

        try:
            judgements = open_feedback_store(own, store, make=False)
        except MissingError:
            return
        with judgements:
            yield from user_outcomes(judgements, since)

    return Canaries(registry(own, address, artifacts=artifacts, make=False), store=store, judged=judged)


@contextmanager
def open_followed(
    task: str | Path | Task, alias: str, address: str | None, *, artifacts: str | None, store: str | None
) -> Iterator[Followed]:
    """Context manager: an alias of the registry for a server to follow, with the canaries if it is that of production.

    Raises MissingError if there is no registry.
    """
    from trimtab.upkeep.registry import PRODUCTION, registry

    with registry(task, address, artifacts=artifacts, make=False) as versions:
        if alias != PRODUCTION:
            yield Followed(follow=versions.follow(alias))
            return
        with open_canaries(versions.task, address, artifacts, store) as canaries:
            yield Followed(follow=versions.follow(alias), canaries=canaries)
