"""Runs the notebooks of docs/tutorials and writes their outputs and their pages; names after it take these alone.

`--check` runs them too, and fails where a cell raises, where other cells have outputs than the committed ones, or
where a page is not what its notebook says. Figures and texts of outputs are not compared: they may differ between
processors.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).with_name("tutorials")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LIMIT = 1800  # seconds of one cell, on the busiest machine
# Outputs in fences of their own, so that they are told from code.
PAGE = """{% extends 'markdown/index.md.j2' %}
{% block stream %}
```text
{{ output.text.rstrip() }}
```
{% endblock stream %}
{% block data_text %}
```text
{{ output.data['text/plain'].rstrip() }}
```
{% endblock data_text %}
"""


def run(notebook: NotebookNode) -> NotebookNode:
    """The notebook with fresh outputs; its cells work in a folder that is gone afterwards. Raises CellExecutionError
    where one fails."""
    fresh = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            fresh,
            timeout=LIMIT,
            kernel_name=KERNEL["name"],
            record_timing=False,
            coalesce_streams=True,
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            resources={"metadata": {"path": place}},
        )
        client.execute()
    fresh.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(fresh.cells, 1):
        cell.id, cell.metadata = f"cell-{number:02}", nbformat.from_dict({})
    return fresh


def unfit(notebook: NotebookNode) -> list[str]:
    """Outputs that no reader should see: errors and pictures, warnings and progress, colours of a terminal, paths of
    this machine."""
    here = re.compile(
        "|".join(re.escape(str(place)) for place in (tempfile.gettempdir(), FOLDER.parents[1], sys.prefix))
    )
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            reasons = {
                "is not plain text": not text or set(output.get("data", {})) - {"text/plain"},
                "is on standard error": output.get("name") == "stderr",
                "has escape codes": "\x1b" in text,
                "names a path of this machine": here.search(text),
            }
            found += [f"an output of {cell.id} {reason}: {text[:80]!r}" for reason, holds in reasons.items() if holds]
    return found


def shape(notebook: NotebookNode) -> list[list[str]]:
    """Of every cell the kinds of its outputs."""
    return [[output.output_type for output in cell.get("outputs", ())] for cell in notebook.cells]


def page(notebook: NotebookNode, name: str) -> str:
    """The notebook as CommonMark."""
    exporter = MarkdownExporter(template_file="page.md.j2", extra_loaders=[DictLoader({"page.md.j2": PAGE})])
    text, _ = exporter.from_notebook_node(notebook)
    parts = re.split(r"(^```.*?^```$)", text.strip(), flags=re.M | re.S)
    parts[::2] = [re.sub(r"\n\s*\n", "\n\n", part) for part in parts[::2]]  # between cells stand many empty lines
    lines = "\n".join(line.rstrip() for line in "".join(parts).splitlines())
    source = f"This page is the notebook [{name}]({name}), written by `python docs/make_tutorials.py`; do not edit it."
    return f"{lines}\n\n{source}\n"


def main() -> int:
    """Run every notebook; write it and its page, or say what is stale."""
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # Jupyter brings its widgets, a bare kernel does not
    check = "--check" in sys.argv[1:]
    names = [name for name in sys.argv[1:] if name != "--check"]
    faults = []
    for file in sorted(FOLDER.glob("*.ipynb")):
        if names and file.stem not in names:
            continue
        committed = nbformat.read(file, as_version=4)
        began = time.perf_counter()
        try:
            fresh = run(committed)
        except CellExecutionError as error:
            faults.append(f"{file.name}: a cell fails:\n{error}")
            continue
        sys.stdout.write(f"{file.name} ran in {time.perf_counter() - began:.0f} s\n")
        faults += [f"{file.name}: {fault}" for fault in unfit(fresh)]
        target = file.with_suffix(".md")
        if not check:
            nbformat.write(fresh, file)
            target.write_text(page(fresh, file.name), encoding="utf-8")
            continue
        if shape(fresh) != shape(committed):
            faults.append(f"{file.name}: other cells have outputs than the committed ones; run docs/make_tutorials.py")
        if not target.is_file() or target.read_text(encoding="utf-8") != page(committed, file.name):
            faults.append(f"{target.name}: not what {file.name} says; run docs/make_tutorials.py")
    sys.stderr.write("".join(f"{fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
