"""reStructuredText as documents."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Section
from trimtab.data.documents import read_below
from trimtab.data.markdown import parse_markdown
from trimtab.data.rst import markdown_of

PAGE = """\
.. _label:

#######
 Title
#######

Intro with ``code``, a :ref:`named place <label>`, and a `link
of two lines <https://example.org>`_.

*****
 One
*****

.. note::

    It is *not* for Windows.

Run this::

    $ thing --all

Two
===

.. toctree::
    :maxdepth: 2

    other

.. list-table::
    :header-rows: 1

    - - Name
      - Price
    - - tea
      - 2 euros,
        with milk

Deep
----

#. First.
#. Second.
"""


def test_headings_code_tables_and_notes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_text(PAGE)
    ((document,), errors) = read_below(tmp_path)
    assert not errors
    assert document.title == "Title"
    assert document.sections == (
        Section(path=(), text="Intro with `code`, a named place, and a link\nof two lines."),
        Section(path=("One",), text="It is *not* for Windows.\n\nRun this:\n\n```\n$ thing --all\n```"),
        Section(path=("One", "Two"), text="| Name | Price |\n| --- | --- |\n| tea | 2 euros, with milk |"),
        Section(path=("One", "Two", "Deep"), text="1. First.\n1. Second."),
    )


@given(
    st.lists(
        st.sampled_from(
            ["a word", "====", "----", "", ".. x::", ".. note:: n", "  b", "    - - c", "d::", "`e", "..", "|"]
        )
    )
)
def test_any_lines_are_read(lines: list[str]) -> None:
    markdown = markdown_of("\n".join(lines))
    parse_markdown(markdown, "t")
    assert markdown.count("a word") <= lines.count("a word")


def test_directives_within_each_other_have_an_end() -> None:
    deep = "\n".join(f"{'  ' * depth}.. note:: n{depth}" for depth in range(2000))
    assert "n0" in markdown_of(deep)
