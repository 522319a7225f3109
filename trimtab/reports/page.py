"""Writes the report of a study: one self-contained HTML page, and a short version as Markdown."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.base.files import write_atomic
from trimtab.reports.all_answers import answers_json
from trimtab.reports.charts import chart_svg, icon
from trimtab.reports.folder import read_study
from trimtab.reports.formatting import replace_unprintable
from trimtab.reports.markdown import study_markdown
from trimtab.reports.study_view import StudyView, build_view


def write_report(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a study folder.

    Raises MissingError without `study.json`, InputError if it has an unknown format.
    """
    view = build_view(read_study(folder))
    write_atomic(folder / "report.md", study_markdown(view))
    page = folder / "report.html"
    write_atomic(page, render_study(view))
    return page


def render_study(view: StudyView) -> str:
    """Return the page as HTML: no requests, and a content security policy that allows only our own script."""
    script = _static_file("every.js") if view.all_answers else ""
    answers = Markup(answers_json(view.all_answers)) if view.all_answers else ""  # noqa: S704 - made for such a place
    return render_page("page.html.j2", title=view.title, view=view, script=script, answers=answers)


def render_page(template: str, *, package: str = "trimtab.reports", **values: object) -> str:
    """Render a template with the shared style sheet; `title` and `script` (empty for none) are among the values.

    `package`: the one whose folder `templates` holds the template, which may build on those of the reports.
    """
    return _templates(package).get_template(template).render(style=_static_file("style.css"), **values) + "\n"


def _static_file(name: str) -> Markup:
    """Return one of our own files, to be embedded unescaped."""
    return Markup(files("trimtab.reports").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704


def _digest(text: str) -> str:
    """Return the hash of an embedded style sheet or script, as a content security policy writes it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _templates(package: str) -> Environment:
    """Return the template environment; texts are escaped, and unknown names raise an error."""
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, "trimtab.reports"))]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_replace_unprintable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"chart_svg": chart_svg, "icon": icon, "digest": _digest}
    return templates


def _replace_unprintable(value: object) -> object:
    """Replace characters of a text that HTML does not allow; markup stays as it is."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else replace_unprintable(value)
