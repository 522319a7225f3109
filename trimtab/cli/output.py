"""Output of the verbs: one JSON object, or tables for people; in JSON mode nothing else is written to standard
output."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import indent
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from trimtab.base.sanitize import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from trimtab.base.records import Hit
    from trimtab.base.results import ArmResult, Estimate, StudyComparison, StudyResult, TrivialArm, Volume

    Render = Callable[[Console], object]


def _to_json(value: Any) -> Any:
    from trimtab.base.codec import to_plain  # imports pydantic

    return to_plain(value)


_CONTROL_CHARACTERS = re.compile("[\x7f-\x9f]")  # not escaped by JSON, but control sequences on some terminals


class Output:
    """Standard output of a verb; while it is open in JSON mode, output of libraries goes to standard error."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._redirect = contextlib.ExitStack()
        self._stdout = sys.stdout

    def __enter__(self) -> Output:
        if self._json:
            self._redirect.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redirect.close()

    def raw(self, text: str) -> None:
        """Print `text` as it is."""
        with self._guard_writes():
            self._stdout.write(text if text.endswith("\n") else f"{text}\n")

    def show(self, result: Any, render: Render, *, indent: int | None = 2) -> None:
        """Print `result` as a JSON object (on one line without `indent`), or let `render` draw it."""
        if self._json:
            ascii_only = (self._stdout.encoding or "").lower() not in ("utf-8", "utf8")
            text = json.dumps(_to_json(result), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
            return self.raw(_CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        return self.draw(render)

    def show_read_back(self, result: Any, render: Render) -> None:
        """Show a result whose JSON a later command reads back: with the form number of Trimtab's files."""
        from trimtab.base.files import FORM

        self.show({"form": FORM, **_to_json(result)}, render)

    def draw(self, render: Render) -> None:
        """Let `render` draw for people; does nothing in JSON mode."""
        if not self._json:
            with self._guard_writes():
                render(_console(self._stdout))

    @contextlib.contextmanager
    def _guard_writes(self) -> Iterator[None]:
        """Context manager: ignores a closed reader; after another error nothing more is written."""
        try:
            yield
            self._stdout.flush()
        except SystemExit:  # raised by rich if the reader has closed the pipe
            return
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "standard output") from error

    def record(self, result: Any) -> None:
        """Print one record, one field per line."""
        self.show(result, lambda console: console.print(_fields(_to_json(result))))

    def rows(self, name: str, results: Sequence[Any]) -> None:
        """Print records of one kind as a table; in JSON as the list `name`."""
        self.show({name: results}, lambda console: console.print(_rows(name, [_to_json(row) for row in results])))

    def arm(self, result: ArmResult) -> None:
        """Print the measured figures of one arm."""

        def render(console: Console) -> None:
            _show_arms(console, (result,))
            if result.eight_bit:
                console.print(result.eight_bit.sentence, style="bold")

        self.show(result, render)

    def study(self, result: StudyResult) -> None:
        """Print the table of arms, the verdict, and the path of the report."""

        def render(console: Console) -> None:
            _show_arms(console, result.arms, result.trivial)
            if result.volume is not None and any(arm.cost for arm in result.arms):
                console.print(_volume_sentence(result.volume), style="dim")
            if result.spent is not None:
                console.print(f"Time: {result.spent.sentence}.", style="dim")
            if result.sample is not None:
                console.print(result.sample.sentence, style="yellow")
            console.print(f"\n{result.verdict.sentence}", style="bold")
            if result.verdict.before_relying:
                console.print("\nBefore you rely on it:")
                for line in result.verdict.before_relying:
                    console.print(f"- {line}")
            console.print(f"\nReport: {result.report}")

        self.show(result, render)

    def comparison(self, result: StudyComparison) -> None:
        """Print both verdicts, the arms with their differences, and what changed."""

        def render(console: Console) -> None:
            for study, verdict in ((result.first, result.first_verdict), (result.second, result.second_verdict)):
                console.print(f"{study}: {verdict}\n")
            console.print(_rows("arms", [_to_json(arm) for arm in result.arms]))
            if result.changes:
                console.print(_rows("changes", [_to_json(change) for change in result.changes]))
            else:
                console.print("Nothing that is known changed.")
            if result.page:
                console.print(f"\nPage: {result.page}")

        self.show(result, render)

    def exported(self, result: Any) -> None:
        """Print the findings of an export's proof, one line per consumer, what could not be written, the folder, and
        the commands that use it."""

        def render(console: Console) -> None:
            for proof in result.proofs:
                console.print(proof.sentence, style="bold")
            for note in result.notes:
                console.print(note)
            size = f"{result.bytes / 1e6:,.1f} MB"
            console.print(f"{result.arm} as {result.format}, {size}: {result.folder}")
            readme = f"Load it with the lines under “Run it” in {result.folder / 'README.md'}"
            console.print("\n".join(f"Use it: {line}" for line in result.use) or readme, markup=False, soft_wrap=True)

        self.show(result, render)

    def answer(self, result: Any, *, indent: int | None = 2) -> None:
        """Print an answer and its sources; JSON without `indent` is one line, for one of many."""

        def render(console: Console) -> None:
            console.print(result.answer, style="bold")
            _show_sources(console, result)

        self.show(result, render, indent=indent)

    def sources(self, result: Any) -> None:
        """Print the sources of an answer that was printed before."""
        with self._guard_writes():
            _show_sources(_console(self._stdout), result)


def _show_sources(console: Console, result: Any) -> None:
    """Print the passages of an answer, with a star before those that hold it, and the sentence that does; a sentence of
    the documents with those beside it, and if it is not sure, the next best ones, too."""
    contexts = result.contexts[:1] if result.is_sure else result.contexts
    for hit, context in zip_longest(result.hits, contexts):
        console.print(_source(hit, hit.rank in result.cited))
        if context:
            console.print(indent(context, "      "), style="dim")
    if result.sentence:
        verb = "holds" if result.is_sure else "may hold"
        text = f"* {verb} the answer: “{' '.join(result.sentence.split())}”"
        console.print(text, style="dim")
    elif result.found is False:
        console.print("not found in the passages", style="yellow")
    console.print(f"{result.arm}, {result.seconds:.2f} s", style="dim")


def _console(stdout: TextIO) -> Console:
    """Return a console that prints foreign text as it is: without markup, with control characters visible."""
    from rich.console import Console, ConsoleOptions, RenderHook
    from rich.segment import Segment

    class Visible:
        def __init__(self, inner: RenderableType) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            for text, style, control in console.render(self.inner, options):
                yield Segment(text, style, control) if control else Segment(visible(text), style)

    class EachVisible(RenderHook):
        def process_renderables(self, renderables: list[Any]) -> list[Any]:
            return [Visible(item) for item in renderables]

    width = None if stdout.isatty() else 160
    console = Console(file=stdout, width=width, markup=False, highlight=False, emoji=False)
    console.push_render_hook(EachVisible())
    return console


def _source(hit: Hit, cited: bool) -> str:
    headings = [part for part in hit.passage.path if part != hit.passage.title]  # the first heading is often the title
    place = " › ".join(part for part in (hit.passage.title, *headings) if part)
    return f"{'*' if cited else ' '} [{hit.rank}] {place}  ({hit.passage.source})"


def _table(*columns: str) -> Table:
    """Return a table with its first column left-aligned and the others, which hold numbers, right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _show_arms(console: Console, arms: Sequence[ArmResult], trivial: Sequence[TrivialArm] = ()) -> None:
    """Print a line for each finished arm, without empty columns, then warnings, and why others did not run."""
    from rich.text import Text

    from trimtab.reports.labels import fact_disagreements

    finished = [arm for arm in arms if arm.status == "done"]
    currency = next((arm.cost.currency for arm in finished if arm.cost), "")
    columns: list[tuple[str, Callable[[ArmResult], str]]] = [
        ("score", lambda arm: _score_cells(arm.score)[0]),
        ("95% interval", lambda arm: _score_cells(arm.score)[1]),
        ("exact", lambda arm: arm.exact),
        ("words", lambda arm: f"{arm.extras['answer_words']:.0f}" if "answer_words" in arm.extras else ""),
        ("passes", lambda arm: {True: "yes", False: "no", None: ""}[arm.passes]),
        ("train s", lambda arm: f"{arm.train_seconds:.0f}" if arm.train_seconds else ""),
        ("p50 ms", lambda arm: _number(arm.latency_p50_ms)),
        ("p95 ms", lambda arm: _number(arm.latency_p95_ms)),
        (f"cost {currency}".strip(), lambda arm: _number(arm.cost.total) if arm.cost else ""),
        ("processor", lambda arm: f"{arm.processor_share:.0%}, busy" if arm.busy_machine else ""),
    ]
    used_columns = [(head, cell) for head, cell in columns if any(cell(arm) for arm in finished)]
    table = _table("arm", *(head for head, _ in used_columns))
    for arm in finished:
        table.add_row(Text(arm.arm), *(Text(cell(arm)) for _, cell in used_columns))
    for one in trivial:
        table.add_row(one.arm, *_score_cells(one.score), *([""] * (len(used_columns) - 2)), style="dim")
    if finished:
        console.print(table)
    effective = next((arm.score.effective for arm in finished if arm.score), "")
    if effective:
        console.print(f"Scores are of {effective}.", style="dim")
    busy = [arm.arm for arm in finished if arm.busy_machine]
    if busy:
        marked = f"Measured on a busy machine, so that times and costs are too high: {', '.join(busy)}."
        console.print(marked, style="yellow")
    facts = fact_disagreements({arm.arm: arm.extras for arm in finished})
    if facts:
        console.print(facts, style="yellow")
    for arm in arms:
        if arm.status != "done":
            console.print(f"{arm.arm}  {arm.status.replace('_', ' ')}: {arm.why}")


def _volume_sentence(volume: Volume) -> str:
    """Return the volume of questions that the costs are for, and whether it is assumed."""
    questions = f"{volume.questions_per_month:,.0f} questions a month over {volume.horizon_months:g} months"
    if not volume.assumed:
        return f"Costs are for {questions}."
    return f"Costs are for an assumed {questions}; state yours as questions_per_month under [cost]."


def _score_cells(score: Estimate | None) -> tuple[str, str]:
    """Return a score and its interval as text."""
    return (f"{score.value:.3f}", f"[{score.low:.3f}, {score.high:.3f}]") if score else ("", "")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _fields(plain: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for key, value in plain.items():
        if value is not None:
            table.add_row(Text(key.replace("_", " "), style="dim"), Text(_cell(value)))
    return table


def _rows(name: str, rows: Sequence[Mapping[str, Any]]) -> Table | str:
    from rich.text import Text

    if not rows:
        return f"no {name} yet"
    table = _table(*(key.replace("_", " ") for key in rows[0]))
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table
