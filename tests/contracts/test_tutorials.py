"""The tutorials as they are committed: every cell was run, in order, and each page is what its notebook says."""

import runpy
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def test_there_are_four_tutorials():
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_committed_tutorial_was_run_and_its_page_is_what_it_says(file):
    script = runpy.run_path(str(DOCS / "make_tutorials.py"))
    notebook = nbformat.read(file, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert script["unfit"](notebook) == []
    assert file.with_suffix(".md").read_text(encoding="utf-8") == script["page"](notebook, file.name)


def test_outputs_that_no_reader_should_see_are_named():
    unfit = runpy.run_path(str(DOCS / "make_tutorials.py"))["unfit"]
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a warning\n"),
        nbformat.v4.new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m\n"),
        nbformat.v4.new_output("stream", name="stdout", text=f"{DOCS}\n"),
        nbformat.v4.new_output("display_data", data={"text/html": "<b>bold</b>"}),
    ]
    cells = [nbformat.v4.new_code_cell(outputs=[output]) for output in outputs]
    found = unfit(nbformat.v4.new_notebook(cells=cells))
    assert [fault.split(" ")[3] for fault in found] == [cell.id for cell in cells]
    fine = nbformat.v4.new_output("stream", name="stdout", text="42\n")
    assert unfit(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[fine])])) == []
