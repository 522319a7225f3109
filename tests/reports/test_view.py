"""The view: plain words without markup, all of which the page says; the Markdown says nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from html import unescape
from importlib.resources import files
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest
from arm_files import put_probabilities, write_arm_file
from markupsafe import Markup

from trimtab.base.codec import read_record, write_record
from trimtab.base.results import BrokenAnswer, Classes, ClassRow, Probe, StudyResult
from trimtab.measurement.evaluate import answers_schema
from trimtab.reports.charts import chart_svg
from trimtab.reports.components import ArmLabel, Curves, Grid, Listing, StyledText, TableSection
from trimtab.reports.folder import read_study
from trimtab.reports.markdown import study_markdown
from trimtab.reports.page import render_study, write_report
from trimtab.reports.study_view import StudyView, build_view

Make = Callable[..., Path]
PROBED = Probe(
    probe="typing",
    change="with typing errors",
    before=0.84,
    after=0.71,
    difference=-0.13,
    low=-0.18,
    high=-0.08,
    n=200,
    p=0.001,
    found=True,
    examples=(BrokenAnswer(asked="wher is it?", reference="here", before="here now", after="there now"),),
)
DRAWING = {"family", "shape", "style", "tone", "level", "id"}  # how a thing is drawn, not what is said


def words(part: object) -> Iterator[str]:
    """Every text of a view; of a list without entries there is none."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        yield from (text for one in part.values() for text in words(one))
    elif isinstance(part, tuple):
        yield from (text for one in part for text in words(one))
    elif is_dataclass(part) and part != Listing(title=getattr(part, "title", ""), entries=()):
        for field in fields(part):
            if field.name not in DRAWING:
                yield from words(getattr(part, field.name))


def grids(part: object) -> Iterator[Grid]:
    if isinstance(part, Grid):
        yield part
    elif isinstance(part, tuple):
        yield from (grid for one in part for grid in grids(one))
    elif is_dataclass(part):
        yield from (grid for field in fields(part) for grid in grids(getattr(part, field.name)))


@pytest.fixture
def view(make_study: Make, tmp_path: Path) -> StudyView:
    """The view of a study that has every section."""
    folder = make_study(tmp_path)
    for arm in (folder / "arms").iterdir():
        row = ClassRow(label="a|b", precision=0.5, recall=0.25, f1=0.333, support=8)
        write_arm_file(arm, arm.name, classes=Classes(rows=(row,), selective={0.5: 0.9}))
        put_probabilities(arm, 0.8)
    study = read_record(folder / "study.json", StudyResult)
    first, *others = study.arms
    write_record(folder / "study.json", replace(study, arms=(replace(first, probes=(PROBED,)), *others)))
    return build_view(read_study(folder))


def test_nothing_in_it_is_markup(view: StudyView) -> None:
    texts = list(words(view))
    assert len(view.sections) == 17
    assert not [text for text in texts if isinstance(text, Markup) or "</" in text or "&#" in text]


def test_the_page_says_all_of_it(view: StudyView) -> None:
    page = unescape(render_study(view))
    missing = [text for text in words(view) if text not in page]
    assert view.manifest is not None
    assert missing == list(view.manifest.origins), "the manifest in short, which stands there whole"


def test_the_page_says_nothing_else(view: StudyView) -> None:
    """But for the names of a few fields, what stands outside charts is what the view says."""
    page = re.sub(r"<(style|svg|script)\b.*?</\1>", "", render_study(view), flags=re.S)
    known = {" ".join(text.split()) for text in words(view)}
    said = {" ".join(unescape(text).split()) for text in re.split(r"<[^>]*>", page)} - {""}
    own = {"Task", f"study {view.header.study}", "Question", "Reference", "Arm", "Outcome", "Slice", "Words", "all"}
    own |= {"The chosen instruction:", "Before", "After"}
    left = {text for text in said - known - own if text.removeprefix(": ").removeprefix("passages: ") not in known}
    brackets = {text for text in left if text.startswith("[") or text.endswith("]")}
    assert {text.split("[")[-1].removesuffix("]") for text in brackets} <= known
    assert {text.rstrip(".: ").lstrip(": ") for text in left - brackets} <= {
        text.rstrip(".: ").lstrip() for text in known
    }


def test_every_table_of_the_page_is_a_table_of_the_view(view: StudyView) -> None:
    page = render_study(view)
    assert page.count("<table") == len(list(grids(view))) > 10
    for grid in grids(view):
        assert all(len(row) == len(grid.columns) for row in grid.rows), grid.label


def test_the_markdown_says_nothing_else(view: StudyView) -> None:
    """Every cell of its tables and every line of its lists is made of what the view says."""
    known = " ".join(" ".join(text.split()) for text in words(view))
    lines = [re.sub(r"\\(.)", r"\1", line) for line in study_markdown(view).splitlines()]
    tables = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert len(tables) > 20
    heads = {lines[index - 1] for index, line in enumerate(lines) if line.startswith("| ---")}
    for line in tables:
        for cell in line.replace("a|b", "a/b").strip("| ").split(" | "):
            bare = cell.strip("*").replace("a/b", "a|b")
            found = [bare] if line not in heads else [*re.split(r" \((?=measured|predicted)|\)$", bare)]
            assert all(part.lower() in known.lower() for part in found), (line, cell)
    for line in lines:
        if line.startswith("- "):
            assert all(part in known for part in re.split(r": | did not run", line[2:])), line


def test_every_section_has_its_template_and_every_template_its_section(view: StudyView) -> None:
    stored = {file.name.removesuffix(".html.j2") for file in files("trimtab.reports").joinpath("templates").iterdir()}
    own = {section.heading.id for section in view.sections if not isinstance(section, TableSection)}
    assert stored == own | {"table", "base", "compared", "page", "components", "header", "in_full"}


def test_white_space_of_answers_is_their_own(make_study: Make, tmp_path: Path) -> None:
    """Their elements keep white space: what a template puts into them would be seen."""
    folder = make_study(tmp_path, items=20)
    for file in folder.glob("arms/*/answers.parquet"):
        table = parquet.read_table(file).to_pylist()
        for row in table:
            row["answer"] = "  two\n  lines "
        parquet.write_table(pyarrow.Table.from_pylist(table, schema=answers_schema()), file)
    page = write_report(folder).read_text()
    said = re.findall(r'class="said">([^<]*)</div>', page)
    assert said
    assert set(said) == {"  two\n  lines "}


def test_a_chart_is_drawn_twice_from_its_record(view: StudyView) -> None:
    charts = [chart for run in view.training.runs for chart in run.charts] if view.training else []
    assert charts
    for chart in charts:
        assert isinstance(chart, Curves)
        assert chart_svg(chart).count("<svg") == 2


def test_a_rewritten_instruction_is_shown_in_full_with_what_it_took(view: StudyView) -> None:
    assert view.effort is not None
    arms = {one.arm.name: one for one in view.effort.arms}
    told = arms["few-shot"].reflection
    for part in ("api.big", "48 training questions", "5 rewritings", "0.25 USD", "2 refused", "1 compared", "kept"):
        assert part in told
    assert arms["few-shot"].instruction == "Name the queue.\nOne word, no more."
    assert not arms["prompt"].reflection


def test_what_was_tried_is_told_arm_by_arm(view: StudyView) -> None:
    assert view.effort is not None
    rows = {row[0].name: row for row in view.effort.grid.rows if isinstance(row[0], ArmLabel)}
    assert rows["lora"][3] == "loss 1.500 (1), 1.400 (2), 1.300 (3)"  # lower is better
    assert rows["prompt"][3] == "0.400 (1), 0.500 (2)"
    assert isinstance(rows["lora"][4], StyledText)
    assert rows["lora"][4].text == "its time was over, and it was still improving"
    assert rows["rag"][4] == "nothing tried was better"
    trials = {one.arm.name: one.grid.rows for one in view.effort.arms}
    assert [row[0].text for row in trials["prompt"] if isinstance(row[0], StyledText)] == [
        "“Be short.”"
    ]  # the kept one, first
    assert "learning rate 0.0033, epochs 3" in str(trials["lora"][0][0])
    titles = {one.arm.name: [column.title for column in one.grid.columns] for one in view.effort.arms}
    assert "Right passage shown" not in titles["lora"]
    place = titles["lora+rag"].index("Right passage shown")
    assert [row[place] for row in trials["lora+rag"]] == [
        "–",
        "0.950",
        "–",
        "–",
        "0.810",
        "0.960",
    ]  # the kept ones first


def test_what_is_remembered_is_told_of_arms_that_were_trained_on_canaries(view: StudyView) -> None:
    assert view.memorisation is not None
    rows = {row[0].name: row[1:] for row in view.memorisation.grid.rows if isinstance(row[0], ArmLabel)}
    assert rows == dict.fromkeys(("lora", "lora+rag"), ("3.46", "8.00", "4.69", "8"))
    assert "16 made rows" in view.memorisation.heading.lead
    assert "255 rows like them" in view.memorisation.heading.lead


def test_what_more_labels_would_add_is_told(view: StudyView) -> None:
    assert view.learning is not None
    titles = [column.title for column in view.learning.grid.columns]
    assert titles == ["Arm", "180 rows", "360 rows", "720 rows", "500 more rows would add"]
    assert {row[0].name for row in view.learning.grid.rows if isinstance(row[0], ArmLabel)} == {"lora", "lora+rag"}
