"""The report of a study: one HTML page that needs nothing else, and the same in short as Markdown."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.base.files import write_atomic
from trimtab.reports.all_answers import packed
from trimtab.reports.charts import drawn, icon
from trimtab.reports.folder import read_study
from trimtab.reports.formatting import clean
from trimtab.reports.markdown import brief
from trimtab.reports.study_view import view_of
from trimtab.reports.view import StudyView


def write_report(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a study folder from its `study.json` and what lies beside it.

    Raises MissingError when there is no `study.json`, InputError when it is not of the known shape.
    """
    view = view_of(read_study(folder))
    write_atomic(folder / "report.md", brief(view))
    page = folder / "report.html"
    write_atomic(page, render(view))
    return page


def render(view: StudyView) -> str:
    """The page as HTML: no request, no script but our own, and a policy that forbids every other."""
    script = _own("every.js") if view.every else ""
    answers = Markup(packed(view.every)) if view.every else ""  # noqa: S704 - made for such a place
    return filled("page.html.j2", title=view.title, view=view, script=script, answers=answers)


def filled(template: str, **values: object) -> str:
    """A page by one of the templates, with the style that all share; `title` and `script` (empty for none) are among the values."""
    return _templates().get_template(template).render(style=_own("style.css"), **values) + "\n"


def _own(name: str) -> Markup:
    """A file of our own, to stand in the page as it is."""
    return Markup(files("trimtab.reports").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704


def _digest(text: str) -> str:
    """As a policy names a style sheet or a script that may stand in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _templates() -> Environment:
    """The templates, in which every text is escaped and a name that does not exist is an error."""
    templates = Environment(
        loader=PackageLoader("trimtab.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"drawn": drawn, "icon": icon, "digest": _digest}
    return templates


def _printable(value: object) -> object:
    """What a template writes: text without characters that no page may hold."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value)
