"""Leakage: found in every pair of splits and in documents, stopped with both places named, or reported."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Example, Message, Section
from trimtab.base.task import Task
from trimtab.data.audit import Audit, audit_rows, find_quotes
from trimtab.data.duplicates import duplicate_pairs
from trimtab.data.leakage import Overlap, drop_repeats, dropped_refusal, find_overlaps, refuse_overlaps


def row(text: str, line: int, answer: str = "a", system: str = "") -> Example:
    turns = [Message(role="system", content=system)] if system else []
    return Example(
        id=str(line),
        messages=(*turns, Message(role="user", content=text)),
        references=(answer,),
        file="faq.csv",
        line=line,
    )


def task(leakage: str) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "answer"},
            "data": {"examples": ["faq.csv"], "leakage": leakage},
            "base": {"model": "m"},
            "file": Path("trimtab.toml"),
        }
    )


WORDS = [f"{(i + 7) ** 9:x}" for i in range(26)]
CLEAN = {
    "train": [row("my card was stolen", 2), row("how do I pay in euros", 3)],
    "dev": [row("my card has arrived", 4)],
    "test": [row("how do I pay in dollars", 5), row("where is my parcel", 6)],
}


def audit_of(splits: dict[str, list[Example]]) -> Audit:
    return audit_rows([row for part in splits.values() for row in part], (), ())


def overlaps(splits: dict[str, list[Example]]) -> list[Overlap]:
    return list(find_overlaps(audit_of(splits), splits))  # type: ignore[arg-type]


def test_clean_splits_pass() -> None:
    assert overlaps(CLEAN) == []
    refuse_overlaps((), task("stop"), ())


@pytest.mark.parametrize(("left", "right"), [("train", "dev"), ("train", "test"), ("dev", "test")])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Which of the two lifts goes up to the roof terrace?", "exact"),
        ("which of the two lifts goes up to the  roof terrace", "normalised"),
        ("Which of the two lifts goes up to the roof terraces?", "near"),
    ],
)
def test_every_kind_between_every_two(left: str, right: str, text: str, kind: str) -> None:
    splits = {name: list(rows) for name, rows in CLEAN.items()}
    splits[left].append(row("Which of the two lifts goes up to the roof terrace?", 20))
    splits[right].append(row(text, 21, answer="another"))
    (overlap,) = overlaps(splits)
    assert (overlap.kind, overlap.left_split, overlap.right_split) == (kind, left, right)
    assert (overlap.left.line, overlap.right.line) == (20, 21)
    _, dropped = drop_repeats(audit_of(splits), splits)
    refuse_overlaps([overlap], task("report"), dropped)
    with pytest.raises(
        InputError,
        match=rf"1 {right} row repeats {left}.*{right} faq.csv:21 repeats {left} faq.csv:20.*"
        rf'data.leakage = "drop", which takes out 1 row of {left},.*`group`.*report',
    ):
        refuse_overlaps([overlap], task("stop"), dropped)


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["train", "dev", "test"]), st.booleans()), min_size=1))
def test_nothing_overlaps_after_a_drop_and_no_more_goes_than_must(rows: list[tuple[int, str, bool]]) -> None:
    """Each row that goes repeats one that is held out and stays; test keeps all its rows."""
    splits: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for line, (number, split, capital) in enumerate(rows):
        text = " ".join(f"{(9 * number + place + 7) ** 9:x}" for place in range(9))  # no two near each other
        splits[split].append(row(text.upper() if capital else text, line))
    audit = audit_of(splits)
    kept, dropped = drop_repeats(audit, splits)  # type: ignore[arg-type]
    assert find_overlaps(audit, kept) == ()
    assert list(kept["test"]) == splits["test"]
    assert sum(map(len, kept.values())) + len(dropped) == len(rows)
    for one in dropped:
        assert one.left in kept[one.left_split]
        assert one.left.input.casefold() == one.right.input.casefold()
    if not overlaps(splits):
        assert not dropped


def test_a_dropped_row_stands_in_the_ledger_with_what_it_repeats() -> None:
    splits = {**CLEAN, "train": [*CLEAN["train"], row("where is my parcel", 20)]}
    _, (dropped,) = drop_repeats(audit_of(splits), splits)  # type: ignore[arg-type]
    line = dropped_refusal(dropped)
    assert (line.file, line.line, line.reason) == ("faq.csv", 20, "repeats test faq.csv:6 (exact)")
    assert line.remedy == 'left train, as data.leakage = "drop" says'


def test_same_system_message_is_no_overlap_and_earlier_turns_count() -> None:
    system = "You are a helpful assistant of a bank and answer in one short sentence, always politely."
    assert overlaps({"train": [row("lost card", 1, system=system)], "test": [row("new pin", 2, system=system)]}) == []

    def talk(topic: str, line: int) -> Example:
        turns = (
            Message(role="user", content=f"tell me about {topic}"),
            Message(role="assistant", content=f"{topic} it is, shall I go on"),
            Message(role="user", content="yes please"),
        )
        return Example(id=str(line), messages=turns, references=("a",))

    assert overlaps({"train": [talk("fees", 1)], "test": [talk("parental leave", 2)]}) == []


def test_template_is_that_of_all_rows() -> None:
    template = (
        "Read the message below with care and say in one word, without any further explanation, which of the "
        "nineteen departments of the bank (cards, loans, savings, fraud and so on) should answer the customer:"
    )
    asked = [row(f"{template} {word[:6]}", i) for i, word in enumerate(WORDS)]
    splits = {"train": asked[:20], "dev": asked[20:23], "test": asked[23:]}
    assert duplicate_pairs([asked[20].input], [asked[23].input])  # two rows alone look alike
    assert overlaps(splits) == []
    splits["dev"].append(row(f"{template}  {WORDS[-1][:6]}!", 90))
    (overlap,) = overlaps(splits)
    assert overlap.kind == "normalised"


def test_questions_in_documents() -> None:
    text = "Payday. How do I claim my travel  costs? With the form.\nAsk Ida, who runs payroll for all sites."
    section = Section(path=("A", "Where is the harbour office now?"), text=text)
    documents = [Document(id="faq.md", title="FAQ", source="faq.md", sections=(section,), digest="0")]
    asked = [
        row("how do I claim my travel costs", 1),
        row("How do I claim my travel card?", 2),
        row("Payday", 3),
        row("Who runs payroll for all sites?", 4),  # a clause, not a question
        row("where is the harbour office now", 5),
        row("How do I claim my travel costs? With the form!", 6),
        row("Ask Ida, who runs payroll", 7),  # the beginning of a sentence
    ]
    quotes = find_quotes([row.input for row in asked], documents)
    assert {asked[quote.row].line for quote in quotes} == {1, 5, 6}
    assert find_quotes([row.input for row in asked], []) == []
