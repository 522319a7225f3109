"""The report of a study: one HTML page that needs nothing else, and the same in short as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from trimtab.base.files import write_atomic
from trimtab.reports import classes, details, effects, made, results
from trimtab.reports.folder import Study, read_study
from trimtab.reports.markdown import brief
from trimtab.reports.markup import Html, el, join, mark
from trimtab.reports.style import STYLE
from trimtab.reports.summary import verdict

SECTIONS: tuple[tuple[str, str, Callable[[Study], Html | None]], ...] = (
    ("quality", "Quality", results.quality),
    ("tradeoffs", "Trade-offs", results.tradeoffs),
    ("factorial", "Weights × context", effects.weights_context),
    ("comparisons", "Comparisons", effects.comparisons),
    ("costs", "Cost", effects.costs),
    ("failures", "Failures", details.failures),
    ("classes", "Classes", classes.classes),
    ("answers", "Answers", details.side_by_side),
    ("slices", "Slices", details.slices),
    ("training", "Training", details.training),
    ("data", "Data", details.data),
    ("manifest", "Manifest", made.manifest),
)


def write_report(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a study folder from its `study.json` and what lies beside it.

    Raises MissingError when there is no `study.json`, InputError when it is not of the known shape.
    """
    study = read_study(folder)
    write_atomic(folder / "report.md", brief(study))
    page = folder / "report.html"
    write_atomic(page, render(study))
    return page


def render(study: Study) -> str:
    """The page as HTML: no script, no request, and a policy that forbids both."""
    made = [(name, title, part) for name, title, make in SECTIONS if (part := make(study)) is not None]
    links = [el("li", el("a", title, href=f"#{name}")) for name, title, _ in made]
    contents = el("nav", el("ul", links), aria_label="Sections")
    main = el("main", verdict(study), contents, [part for _, _, part in made], _marks())
    return "<!doctype html>\n" + el("html", _head(study), el("body", main), lang="en") + "\n"


def _marks() -> Html:
    return el(
        "footer",
        join(mark("measured"), " in this study; "),
        join(mark("predicted"), " from measured figures; "),
        join(
            mark("yours"), " as you gave it in the task file. This page is one file; it loads nothing and runs nothing."
        ),
    )


def _head(study: Study) -> Html:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{study.task}: {study.verdict.sentence}"),
        el("style", Html(STYLE)),
    )
