from __future__ import annotations

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from trimtab.base.records import Document, Section
from trimtab.retrieval.chunk import chunk_document


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
