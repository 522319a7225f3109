"""Refresh every week with Prefect: `python examples/prefect_refresh.py` serves the schedule. Without Prefect it runs
once.

Run: TRIMTAB_TASK=path/to/trimtab.toml python examples/prefect_refresh.py
"""

import os

import trimtab

try:
    from prefect import flow, task
except ImportError:
    flow = None

    def task(**_):
        return lambda function: function


@task(retries=0)
def renewed(file: str) -> str:
    """Return the outcome of a refresh; one that was stopped is resumed."""
    try:
        return trimtab.refresh(file, resume=True).outcome
    except FileNotFoundError:  # none was stopped
        return trimtab.refresh(file, budget="2h").outcome


def refresh_every_week() -> str:
    return renewed(os.environ.get("TRIMTAB_TASK", "trimtab.toml"))


if flow is not None:
    flow(refresh_every_week).serve(name="refresh", cron="17 3 * * 0")
else:
    outcome = refresh_every_week()
