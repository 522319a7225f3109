"""The commands `trimtab surface coverage`, `plan` and `try`, one function each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import JsonOption, task_from_options
from trimtab.cli.output import Output
from trimtab.publishing import CACHE
from trimtab.publishing.cli.audit import print_plain, progress_display

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.publishing.records import SurfaceCoverage, SurfacePlan, SurfaceQuestion, SurfaceTrial

SiteArgument = Annotated[
    str,
    typer.Argument(metavar="SITE", help="Your pages: an https address, or a folder of HTML, Markdown, text or PDF."),
]
QuestionsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help=(
            "Questions: one a line, or a table such as Search Console's Queries.csv, Bing's, site search, "
            "tickets. Several may be given."
        ),
    ),
]
TrafficOption = Annotated[
    Path | None,
    typer.Option(
        "--traffic",
        metavar="TASK",
        help="Also ask what was asked of `trimtab serve`: a task file with traffic or judgements.",
    ),
]
CompetitorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--competitor", metavar="SITE", help="Pages of a competitor, an address or a folder. Several may be given."
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Who writes the answers: extract (sentences word for word), a local model, or api.NAME of the task file.",
    ),
]
TaskFileOption = Annotated[
    Path | None,
    typer.Option("--task", "-t", metavar="PATH", help="A task file, for its embedding, re-ranker and endpoints."),
]
MaxQuestionsOption = Annotated[
    int, typer.Option("--most", metavar="N", min=1, help="Ask at most N questions, the most asked first.")
]
CacheOption = Annotated[
    Path, typer.Option("--cache", metavar="FOLDER", help="The folder for fetched pages and vectors.")
]
PageOption = Annotated[
    Path | None, typer.Option("--page", metavar="FILE", help="Also write an HTML page to this file.")
]
AgainstOption = Annotated[
    Path | None, typer.Option("--against", metavar="FILE", help="An earlier result of --json, to tell what changed.")
]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Also write Markdown to this file.")
]


def coverage(
    source: SiteArgument,
    questions: QuestionsOption = None,
    competitor: CompetitorOption = None,
    traffic: TrafficOption = None,
    engine: EngineOption = "extract",
    most: MaxQuestionsOption = 1_000,
    observed: Annotated[
        Path | None,
        typer.Option(
            "--observed",
            metavar="FILE",
            help="Real answers that you collected: a table with `question` and `cited`, `share` or `rank`.",
        ),
    ] = None,
    against: AgainstOption = None,
    task: TaskFileOption = None,
    cache: CacheOption = CACHE,
    page: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a simulated assistant your users' questions: are your pages found, cited, and enough?

    No real assistant is asked. Questions and pages stay on this machine, unless --engine names an endpoint.

    \b
    Example:
      trimtab surface coverage docs/ --questions Queries.csv
      trimtab surface coverage https://example.com --questions faq.txt --competitor ../other-docs --page coverage.html
    """
    with Output(as_json) as output:
        settings = task_from_options(task) if task else None
        asked = [*(questions or ()), *_questions_of_server(traffic)]
        from trimtab.publishing.coverage import surface_coverage

        with progress_display() as progress:
            result = surface_coverage(
                source,
                asked,
                competitors=competitor or (),
                engine=engine,
                task=settings,
                most=most,
                observed=observed,
                against=against,
                page=page,
                cache=cache,
                progress=progress,
            )
        output.show_read_back(result, lambda console: draw_coverage(console, result))


def plan(
    source: SiteArgument,
    questions: QuestionsOption = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--documents",
            metavar="FOLDER",
            help="Files that are not published, to quote facts from. Several may be given.",
        ),
    ] = None,
    competitor: CompetitorOption = None,
    traffic: TrafficOption = None,
    engine: EngineOption = "extract",
    most: MaxQuestionsOption = 1_000,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Also write a table to this file.")] = None,
    markdown: MarkdownOption = None,
    against: AgainstOption = None,
    task: TaskFileOption = None,
    cache: CacheOption = CACHE,
    page: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan which questions to answer next, by demand, coverage gap and available facts, with a brief for each group.

    A brief quotes your pages and documents with their locations. No text is written for publication, no figure is
    invented.

    \b
    Example:
      trimtab surface plan docs/ --questions Queries.csv --markdown plan.md --csv plan.csv
      trimtab surface plan https://example.com --questions faq.txt --documents notes/ --page plan.html
      trimtab surface plan docs/ --questions Queries.csv --against plan.json --json > next.json
    """
    with Output(as_json) as output:
        settings = task_from_options(task) if task else None
        asked = [*(questions or ()), *_questions_of_server(traffic)]
        from trimtab.publishing.plan import surface_plan

        with progress_display() as progress:
            result = surface_plan(
                source,
                asked,
                documents=documents or (),
                competitors=competitor or (),
                engine=engine,
                task=settings,
                most=most,
                csv=csv,
                markdown=markdown,
                against=against,
                page=page,
                cache=cache,
                progress=progress,
            )
        output.show_read_back(result, lambda console: draw_coverage(console, result))


def try_edit(
    edit: Annotated[str, typer.Argument(metavar="EDIT", help="The edited page, or a folder of edited pages.")],
    source: SiteArgument,
    questions: QuestionsOption = None,
    competitor: CompetitorOption = None,
    traffic: TrafficOption = None,
    engine: EngineOption = "extract",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            metavar="N",
            min=1,
            help="Number of simulated assistants, which chunk and search pages in different ways.",
        ),
    ] = 3,
    margin: Annotated[
        float,
        typer.Option("--margin", metavar="SHARE", min=0.0, max=1.0, help="The loss that still counts as not worse."),
    ] = 0.02,
    most: MaxQuestionsOption = 300,
    markdown: MarkdownOption = None,
    task: TaskFileOption = None,
    cache: CacheOption = CACHE,
    page: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try an edit before it is published: is it better, not worse, or is nothing shown?

    The same questions are asked with the present and the edited page, with a placebo, and with competitors that adopt
    the edit. Exits 0 if the edit is better or not worse, 1 if it is worse or nothing is shown: a check for pull
    requests.

    \b
    Example:
      trimtab surface try edited/returns.md docs/ --questions Queries.csv --markdown comment.md
    """
    with Output(as_json) as output:
        settings = task_from_options(task) if task else None
        asked = [*(questions or ()), *_questions_of_server(traffic)]
        from trimtab.publishing.trial import surface_try

        with progress_display() as progress:
            result = surface_try(
                edit,
                source,
                asked,
                competitors=competitor or (),
                engine=engine,
                task=settings,
                seeds=seeds,
                margin=margin,
                most=most,
                markdown=markdown,
                page=page,
                cache=cache,
                progress=progress,
            )
        output.show_read_back(result, lambda console: draw_coverage(console, result))
    if result.verdict not in ("better", "not worse"):
        raise typer.Exit(EXIT_NO)


def _questions_of_server(path: Path | None) -> list[SurfaceQuestion]:
    """Read the questions asked of `trimtab serve`: its recorded traffic, and those whose answers users judged."""
    if path is None:
        return []
    from trimtab.base.errors import MissingError

    task = task_from_options(path)
    from trimtab.publishing.questions import questions_of_traffic
    from trimtab.publishing.records import SurfaceQuestion
    from trimtab.serving.feedback import open_feedback_store
    from trimtab.serving.traffic_store import traffic_of

    questions: list[SurfaceQuestion] = []
    missing: list[MissingError] = []
    try:
        with traffic_of(task, make=False) as store:
            questions += questions_of_traffic(store.answers())
    except MissingError as error:
        missing.append(error)
    try:
        with open_feedback_store(task, make=False) as judgements:
            asked = ([turn.content for turn in row.messages if turn.role == "user"] for row in judgements)
            questions += [SurfaceQuestion(text=turns[-1], source="judgements") for turns in asked if turns]
    except MissingError as error:
        missing.append(error)
    if len(missing) == 2:
        raise missing[0]
    return questions


def draw_coverage(console: Console, result: SurfaceCoverage | SurfacePlan | SurfaceTrial) -> None:
    """Print a coverage, a plan or a trial for people; the limits of the simulation come first."""
    from trimtab.base.show import text_table

    for text in result.limits:
        print_plain(console, f"! {text}")
    print_plain(console, f"\n{result.headline}\n{text_table(result.screen())}")
    for text in result.notes:
        print_plain(console, f"- {text}")
    if result.page:
        print_plain(console, f"\nPage: {result.page}")
