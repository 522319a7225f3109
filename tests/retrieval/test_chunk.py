from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Section
from trimtab.retrieval.chunk import WORDS, chunk_document


def document(*sections: tuple[tuple[str, ...], str]) -> Document:
    parts = tuple(Section(path=path, text=text) for path, text in sections)
    return Document(id="a/b.md", title="Title", source="docs/a/b.md", sections=parts, digest="x")


def numbered(count: int, sentence: int = 10) -> str:
    """Sentences of `sentence` words, no word twice."""
    words = [f"w{index}" for index in range(count)]
    return " ".join(" ".join(words[at : at + sentence]) + "." for at in range(0, count, sentence))


def _unlike_any_other(parts: list[str]) -> str:
    """The parts as a text in which every word stands once, so that a passage can stand in one place only."""
    return " ".join(part.replace("N", str(at)).replace("漢", chr(0x4E00 + at)) for at, part in enumerate(parts))


PARTS = [
    "aN",
    "bN.",
    "cN!",
    "dN?”",
    "\n",
    "\n\n",
    " ",
    "漢",
    "漢。",
    "(“qN.”)",
    "- iN",
    "\t",
    "🙂N",
    "\u2028eN",
    "\rfN",
]
texts = st.lists(st.sampled_from(PARTS), max_size=100).map(_unlike_any_other)


@example(["一。 - i1 丂。"], 3, 0)  # the last passage is a mark that stands in the first one too
@given(st.lists(texts, max_size=3), st.integers(3, 30), st.integers(0, 8))
def test_every_word_is_in_a_passage_in_order_and_nothing_is_added(
    sections: list[str], words: int, overlap: int
) -> None:
    passages = chunk_document(
        document(*(((str(at),), text) for at, text in enumerate(sections))), words=words, overlap=overlap
    )
    for at, text in enumerate(sections):
        reached = 0
        for passage in (item for item in passages if item.path == (str(at),)):
            start = text.find(passage.text, max(0, reached + 1 - len(passage.text)))  # each has something new
            assert start >= 0
            assert not text[reached:start].strip()
            reached = start + len(passage.text)
        assert not text[reached:].strip()


def test_a_long_blob_is_cut_and_kept_whole() -> None:
    blob = "".join(chr(0x400 + index) for index in range(250))
    passages = chunk_document(document(((), blob)), words=3, overlap=0)
    assert "".join(item.text for item in passages) == blob
    assert max(len(item.text) for item in passages) == 120


@given(texts, st.integers(3, 30), st.integers(0, 8))
def test_no_passage_is_longer_than_words_plus_overlap(text: str, words: int, overlap: int) -> None:
    for passage in chunk_document(document(((), text)), words=words, overlap=overlap):
        count = len(re.findall(r"[\u4e00-\u4eff]|[^\s\u4e00-\u4eff]+", passage.text))
        assert count <= words + overlap
        assert passage.text == passage.text.strip() != ""


def test_ids_count_up_and_everything_is_carried_along() -> None:
    passages = chunk_document(document((("A",), "one"), (("A", "B"), "two"), (("C",), " \n")))
    assert [(item.id, item.path, item.text) for item in passages] == [
        ("a/b.md#0", ("A",), "one"), ("a/b.md#1", ("A", "B"), "two"),
    ]  # fmt: skip
    assert {(item.document, item.title, item.source) for item in passages} == {("a/b.md", "Title", "docs/a/b.md")}


def test_paragraphs_that_fit_together_stay_together_and_are_verbatim() -> None:
    text = "First one.\n\n- a list\n- of two\n\n| a | b |\n"
    (passage,) = chunk_document(document(((), text)))
    assert passage.text == text.strip()


def test_a_paragraph_is_not_cut_when_it_fits_in_a_passage_of_its_own() -> None:
    passages = chunk_document(document(((), numbered(70) + "\n\n" + numbered(80))), words=100, overlap=0)
    assert [len(item.text.split()) for item in passages] == [70, 80]


def test_a_long_paragraph_is_cut_between_sentences_and_repeats_whole_ones() -> None:
    passages = chunk_document(document(((), numbered(300))), words=100, overlap=20)
    assert len(passages) > 2
    for before, after in itertools.pairwise(passages):
        assert before.text.endswith(".")
        repeated = [word for word in after.text.split() if word in before.text.split()]
        assert len(repeated) == 20
        assert before.text.endswith(" ".join(repeated))


def test_a_passage_repeats_at_most_a_sixth_unless_told_otherwise() -> None:
    text = document(((), numbered(600)))
    for words in (60, 120, 240):
        assert chunk_document(text, words=words) == chunk_document(text, words=words, overlap=words // 6)
    assert chunk_document(text) == chunk_document(text, words=120, overlap=20)


def test_without_overlap_nothing_is_repeated() -> None:
    passages = chunk_document(document(((), numbered(300))), words=100, overlap=0)
    assert " ".join(item.text for item in passages) == numbered(300)


def test_a_text_without_spaces_is_cut_by_characters() -> None:
    passages = chunk_document(document(((), "漢" * 500)), words=100, overlap=0)
    assert [len(item.text) for item in passages] == [100] * 5
    assert max(len(item.text) for item in chunk_document(document(((), "x" * 50_000)), words=100)) <= 120 * 40


def sentences(text: str) -> list[str]:
    return [item.text for item in chunk_document(document(((), text)), words=SENTENCE)]


MARKDOWN_PARTS = [
    *PARTS,
    "\n- ",
    "\n\n  1. ",
    "eN:",
    "\n```\n",
    "\n| aN | bN |\n",
    "\n|---|---|\n",
    "<!-- cN -->",
    "\n> ",
]


@given(st.lists(st.sampled_from(MARKDOWN_PARTS), max_size=60).map(_unlike_any_other))
def test_sentences_stand_in_the_text_in_order_and_none_is_long(text: str) -> None:
    reached = 0
    for found in sentences(text):
        start = text.find(found, reached)
        assert start >= 0
        assert found == found.strip() != ""
        assert len(found.split()) <= WORDS
        reached = start + len(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("There are two reasons:\n\n1. It is free.\n2. It is fast.\n\nMore text here.", 2),
        ("There are two reasons:\n- It is free.\n- It is fast.\n\nMore text here.", 2),
        ("To install it, run:\n\n```bash\npip install thing\n```\n\nMore text here.", 2),
        ("Install it as follows.\n\n```bash\npip install thing\n```\n\nMore text here.", 2),
        ("The prices are these:\n\n| what | price |\n|---|---|\n| tea | 2 euros |\n\nMore text here.", 2),
        ("Please note:\nThe office is closed on Mondays.\n\nMore text here.", 2),
        ("- A list within a list:\n  - one\n  - two\n- another item\n", 2),
        ("It is free.\n- It is fast.", 2),
    ],
)
def test_what_introduces_stands_with_what_it_introduces(text: str, found: int) -> None:
    assert len(sentences(text)) == found


def test_a_list_that_is_too_long_stays_with_its_introduction_as_far_as_it_fits() -> None:
    items = "\n".join(f"- item {at} has some more words that say what it is" for at in range(30))
    first, *others = sentences(f"These are the items:\n\n{items}")
    assert first.startswith("These are the items:")
    assert WORDS - 12 <= len(first.split()) <= WORDS
    assert {text.partition("\n")[0][:7] for text in others} == {"- item "}


@pytest.mark.parametrize(
    "mark",
    [
        "!!! note",
        '??? warning "Title"',
        "<!-- a comment\nof two lines -->",
        "[link]: https://example.org/page",
        "> [!NOTE]",
        "---",
        "|   |   |",
        "3.",
        ":widths: 30 40",
        '<p align="center">',
        "{% include x %}",
    ],
)
def test_marks_of_markdown_are_no_sentences(mark: str) -> None:
    assert sentences(f"Before it.\n\n{mark}\n\nAfter it.") == ["Before it.", "After it."]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "A line that is wrapped where it is long, at\n`code` or a Name, goes on. The next.",
            ["A line that is wrapped where it is long, at\n`code` or a Name, goes on.", "The next."],
        ),
        ("Ada Quill\nPayroll Office\nBrannock", ["Ada Quill", "Payroll Office", "Brannock"]),
        ("Use (a, b, ...) and\nthen (c?)\nof it. Good.", ["Use (a, b, ...) and\nthen (c?)\nof it.", "Good."]),
        ("1. First do this. It is easy.\n2. Then that.", ["1. First do this. It is easy.", "2. Then that."]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", ["| 1 | 2 |", "| 3 | 4 |"]),
        ("```yaml\na: 1. B\n\nc: 2\n```\nText.", ["```yaml\na: 1. B\n\nc: 2\n```", "Text."]),
        ("> Quoted words\n> go on here.", ["> Quoted words\n> go on here."]),
    ],
)
def test_a_sentence_ends_where_it_ends(text: str, found: list[str]) -> None:
    assert sentences(text) == found


def test_a_long_sentence_is_cut_between_words() -> None:
    words = [f"{'long' * 25}{at}" for at in range(70)]  # each counts as three
    assert " ".join(sentences(" ".join(words))).split() == words
