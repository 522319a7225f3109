"""`trimtab runs`."""

from __future__ import annotations

from trimtab.cli.options import DEFAULT_TASK, JsonOption, TaskOption, loaded
from trimtab.cli.output import Output


def command(task: TaskOption = DEFAULT_TASK, as_json: JsonOption = False) -> None:
    """List studies and training runs, the newest first.

    \b
    Example:
      trimtab runs
      trimtab runs --task tickets/trimtab.toml --json
    """
    with Output(as_json) as output:
        own = loaded(task)
        from trimtab.studies.runs import runs

        output.rows("runs", runs(own))
