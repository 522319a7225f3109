"""The command `trimtab runs`."""

from __future__ import annotations

from trimtab.cli.options import DEFAULT_TASK, ExistingSourceArgument, JsonOption, TaskOption, existing_task
from trimtab.cli.output import Output


def command(
    source: ExistingSourceArgument = None, task_file: TaskOption = DEFAULT_TASK, as_json: JsonOption = False
) -> None:
    """List studies and training runs, the newest first.

    \b
    Example:
      trimtab runs
      trimtab runs tickets/ --json
    """
    with Output(as_json) as output:
        task = existing_task(task_file, source)
        from trimtab.studies.runs import runs

        output.rows("runs", runs(task))
