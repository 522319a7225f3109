"""Draws the result of `trimtab check` on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.arms.search.context_search import RATES
from trimtab.measurement.power import GUESSED_DISCORDANCE
from trimtab.studies.schedule import LONG_STUDY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimtab.arms.search.context_search import TrialPlan
    from trimtab.base.records import Refusal
    from trimtab.data.checks import Remark
    from trimtab.studies.check import CheckResult, MaskRun

MAX_LISTED = 5  # refused rows and overlaps that are listed
MAX_LABELS = 10
MAX_TEXT = 1600  # characters of an untrained part of the example
_STYLES = {"stop": "bold red", "warn": "yellow", "note": "dim"}


def draw_data_audit(result: CheckResult, console: Console) -> None:
    """Draw the part of a check that needs no model."""
    _draw_data(result, console)
    _draw_refused(result, result.refused, console)
    if result.overlaps:
        _print_heading(console, f"Overlap between splits: {len(result.overlaps)}")
        for line in result.overlaps[:MAX_LISTED]:
            console.print(Text(line))
    _print_heading(console, "Remarks" if result.remarks else "No remarks")
    _draw_remarks(result.remarks, console)


def draw_rest(audit: CheckResult, result: CheckResult, console: Console, study: str) -> None:
    """Draw the part that needs models, without what `draw_data_audit` has drawn of `audit`, and the next step.

    `study`: the command that comes next.
    """
    _draw_refused(result, result.refused[len(audit.refused) :], console)
    if result.example:
        _draw_example(result, console)
    if result.forecasts:
        _draw_plan(result, console)
    console.print()
    _draw_remarks([remark for remark in result.remarks if remark not in audit.remarks], console)
    stopped = any(remark.level == "stop" for remark in result.remarks)
    ready = " once its models are here" if result.tokens is None else ""
    done = "Mend what says stop first." if stopped else f"Nothing stops a study{ready}. Next: {study}"
    console.print(Text(done, style="bold red" if stopped else "bold green"))


def _draw_remarks(remarks: Sequence[Remark], console: Console) -> None:
    for remark in remarks:
        console.print(Text.assemble((f"{remark.level:<5}", _STYLES[remark.level]), remark.text))


def _draw_data(result: CheckResult, console: Console) -> None:
    console.print(Text(f"{result.task}: {result.kind}, scored by {result.metric}", style="bold"))
    for note in result.notes:
        console.print(Text(note))
    sizes = ", ".join(f"{count} {name}" for name, count in result.splits.items())
    documents = f"; {result.documents} document{'s' * (result.documents != 1)}" if result.documents else ""
    console.print(Text(f"Rows: {sizes}{documents}"))
    if result.judged:
        console.print(
            Text(f"Judged answers: {', '.join(f'{count:,} {name}' for name, count in result.judged.items())}")
        )
    if result.labels:
        shown = ", ".join(f"{label} {count}" for label, count in list(result.labels.items())[:MAX_LABELS])
        more = len(result.labels) - MAX_LABELS
        console.print(Text(f"Labels ({len(result.labels):,}): {shown}{f' and {more:,} more' if more > 0 else ''}"))
    for finding in result.private:
        console.print(
            Text(
                f"Private data: {finding.count} {finding.kind} in {finding.rows} "
                f"row{'s' * (finding.rows != 1)}, first {finding.places[0]}"
            )
        )
    if result.smallest_difference is not None:
        points, count = 100 * result.smallest_difference, result.comparisons
        power = (
            f"(80% power, {count} comparison{'s' * (count > 1)}; assumed: arms differ on "
            f"{GUESSED_DISCORDANCE:.0%} of questions)"
        )
        can_show = (
            f"can show a difference of about {points:.0f} points between arms {power}; smaller ones need more "
            "questions."
        )
        cannot_show = f"are too few to show any difference between arms {power}."
        console.print(Text(f"The {result.splits['test']:,} test questions {can_show if points < 90 else cannot_show}"))


def _draw_refused(result: CheckResult, refused: Sequence[Refusal], console: Console) -> None:
    """Draw some of the refused rows and files, and their number."""
    for what, is_file in (("Rows not used", False), ("Files and sheets not read", True)):
        new = [one for one in refused if one.is_file == is_file]
        if new:
            count = sum(one.is_file == is_file for one in result.refused)
            _print_heading(console, f"{what}: {count:,} (all in .trimtab/refused.jsonl)")
        for one in new[:MAX_LISTED]:
            place = one.file if one.is_file else f"{one.file}:{one.line}"
            console.print(Text(f"{place}: {one.reason}; {one.remedy}"))


def _draw_example(result: CheckResult, console: Console) -> None:
    _print_heading(console, f"One training row as the arm {result.example_arm} reads it")
    plain = console.color_system is None or console.no_color
    key = "Between « and » is what it is trained to write." if plain else "Green is what it is trained to write."
    console.print(Text(f"Grey is only read. {key}" if not plain else f"{key} The rest is only read.", style="italic"))
    _draw_runs(result.example, console, plain)
    shown: tuple[MaskRun, ...] = ()
    for side, runs in result.judged_example.items():
        console.print(Text(f"\nA judged answer, the {side} one", style="bold"))
        _draw_runs(runs[-1:] if runs[:-1] == shown[:-1] else runs, console, plain)  # the prompt once
        shown = runs
    tokens = result.tokens
    if tokens is not None:
        console.print(
            Text(
                f"\nTokens of a row, the median (and most): prompt {tokens.prompt_median:.0f} "
                f"({tokens.prompt_longest:,}), "
                f"answer {tokens.answer_median:.0f} ({tokens.answer_longest:,}); the model takes {tokens.context:,}"
            )
        )


def _draw_runs(runs: Sequence[MaskRun], console: Console, plain: bool) -> None:
    for run in runs:
        text = f"«{run.text}»" if plain and run.trained else _elide_middle(run.text)
        console.print(Text(text, style="bold green" if run.trained else "dim"), end="")
    console.print()


def _draw_plan(result: CheckResult, console: Console) -> None:
    _print_heading(console, "What a study will take, predicted from a few seconds of each arm")
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for name in ("minutes", "memory MB", *([f"cost {result.currency}"] if _has_costs(result) else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in result.forecasts:
        cost = [f"{row.cost:.2g}" if row.cost is not None else ""] if _has_costs(result) else []
        minutes = "" if row.minutes is None else "<0.1" if row.minutes < 0.1 else f"{row.minutes:.1f}"
        memory = f"{row.memory_mb:,.0f}" if row.memory_mb is not None else ""
        table.add_row(
            Text(row.arm), minutes, memory, *cost, Text(row.left_out or row.problem or row.note or "", style="yellow")
        )
    console.print(table)
    if result.minutes is not None:
        console.print(Text(_total_sentence(result)))
    _draw_machines(result, console)
    _draw_search(result, console)
    for cut in result.cuts:
        console.print(Text(f"To fit the budget: {cut}", style="yellow"))


def _draw_machines(result: CheckResult, console: Console) -> None:
    """Draw the wall time and cost of a long study on several machines, and which jobs wait for others there."""
    if len(result.wall_times) < 2 or result.wall_times[0].seconds < LONG_STUDY_SECONDS:
        return
    console.print(Text("With --on, on machines like this one:"))
    table = Table(box=None, pad_edge=False)
    for name in ("machines", "minutes", *([f"cost {result.currency}"] if result.currency else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.wall_times:
        cost = [f"{one.cost:.2g}"] if one.cost is not None else []
        table.add_row(f"{one.machines}", f"{one.seconds / 60:.0f}", *cost)
    console.print(table)
    for sentence in result.waits:
        console.print(Text(f"  {sentence}"))


def _draw_search(result: CheckResult, console: Console) -> None:
    """Draw what every arm may try on dev, and for how long."""
    searching = [row for row in result.forecasts if row.trials and not row.left_out]
    if not searching or not result.search_seconds:
        return
    most = _seconds(result.search_seconds)
    console.print(Text(f"Effort {result.effort}: each arm may search its settings on train and dev for up to {most}"))
    for row in searching:
        tried = ", ".join(
            f"{f'{trial.count} ' * (trial.count > 1)}{trial.what} ({_price(trial, result.currency)})"
            for trial in row.trials
        )
        console.print(Text(f"  {row.arm}: {tried}"))
    if any(trial.what == RATES for row in searching for trial in row.trials):
        more = "Trained arms that dev leaves among the best are trained up to three times, as far as time allows."
        console.print(Text(more))


def _price(trial: TrialPlan, currency: str | None) -> str:
    """Return what the trials of one kind take at most: seconds, and calls of an endpoint with their fee."""
    calls = f", {trial.calls} calls" if trial.calls else ""
    fee = f", at most {trial.fee:.2g} {currency or ''}".rstrip() if trial.fee else ""
    return f"{_seconds(trial.seconds)}{calls}{fee}"


def _seconds(seconds: float) -> str:
    return f"{max(1, seconds):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _total_sentence(result: CheckResult) -> str:
    """Return how long a study takes, and how long it would take without a budget."""
    planned = [row for row in result.forecasts if row.minutes is not None]
    within_budget = _minutes(result.minutes or 0.0)
    if not any(row.left_out for row in planned):
        return f"All together {within_budget}"
    in_all = _minutes(sum(row.minutes or 0.0 for row in planned))
    fits_text = "No arm fits the budget" if all(row.left_out for row in planned) else f"What fits takes {within_budget}"
    return f"{fits_text}; all arms would take {in_all}"


def _minutes(minutes: float) -> str:
    return "under a minute" if minutes < 1 else f"about {minutes:.0f} min"


def _elide_middle(text: str) -> str:
    """Return a long text, such as passages, by its beginning and end."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters more …] {text[-half:]}"


def _has_costs(result: CheckResult) -> bool:
    return any(row.cost is not None for row in result.forecasts)


def _print_heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"))
