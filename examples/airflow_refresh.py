"""Refresh every week with Airflow: put this file into the folder of DAGs. Without Airflow it is plain Python, and
runs once.

Run: TRIMTAB_TASK=path/to/trimtab.toml python examples/airflow_refresh.py
"""

import os

import trimtab

try:
    from airflow.sdk import dag, task
except ImportError:

    def task(function):
        return function

    def dag(**_):
        return lambda function: function


@task
def news(file: str) -> bool:
    """Return True if rows or documents came or changed since the version in production was made."""
    return trimtab.refresh(file, dry_run=True).outcome != "nothing new"


@task
def renewed(file: str, is_news: bool) -> str:
    """Return the outcome: a candidate, in production, not let through, not worth it, or nothing to do."""
    return trimtab.refresh(file, budget="2h").outcome if is_news else "nothing new"


@dag(schedule="17 3 * * 0", catchup=False, max_active_runs=1)
def refresh_every_week():
    file = os.environ.get("TRIMTAB_TASK", "trimtab.toml")
    return renewed(file, news(file))


outcome = refresh_every_week()
