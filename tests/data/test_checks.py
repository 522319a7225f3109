"""Checks: each fault gives its remark with count, place and remedy; clean data gives none."""

import random
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.base.records import Document, Example, Message, Section
from trimtab.base.task import Task
from trimtab.data.audit import audit_rows
from trimtab.data.checks import Remark, by_level, check_examples, check_size, half_width


def row(line: int, label: str = "yes", text: str = "", *, weight: float = 1.0) -> Example:
    draw = random.Random(line)
    text = text or " ".join(f"{draw.randrange(16**6):06x}" for _ in range(4))
    return Example(
        id=str(line),
        messages=(Message(role="user", content=text),),
        references=(label,),
        weight=weight,
        file="d.csv",
        line=line,
    )


def task(kind: str = "classify", leakage: str = "stop", labels: tuple[str, ...] = ()) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": kind, "labels": labels},
            "data": {"examples": ["d.csv"], "leakage": leakage},
            "base": {"model": "m"},
            "file": Path("trimtab.toml"),
        }
    )


def clean() -> dict[str, list[Example]]:
    rows = [row(i, "yes" if i % 2 else "no") for i in range(2, 202)]
    return {"train": rows[:120], "dev": rows[120:150], "test": rows[150:]}


def remarks(splits: dict[str, list[Example]], *, documents: tuple[Document, ...] = (), **more: object) -> list[Remark]:
    audit = audit_rows([row for part in splits.values() for row in part], (), documents)
    return list(by_level([*check_size(splits), *check_examples(audit, splits, task(**more))]))  # type: ignore[arg-type]


def without_rare(found: list[Remark]) -> list[Remark]:
    """The remarks but that on labels of few rows, which stands beside many others."""
    return [remark for remark in found if "of fewer than 5 rows" not in remark.text]


def only(found: list[Remark], level: str) -> str:
    (remark,) = without_rare(found)
    assert remark.level == level
    assert "\n" not in remark.text
    return remark.text


def test_clean_data_has_no_remarks() -> None:
    assert remarks(clean()) == []
    assert remarks({"train": [], "dev": [], "test": []}) == []


def test_one_usable_row_stops() -> None:
    found = remarks({"train": [row(7)], "dev": [], "test": []}, kind="answer")
    assert "one usable row (d.csv:7)" in only(found, "stop")


def test_few_rows() -> None:
    splits = {name: rows[:19] for name, rows in clean().items()}
    few_train, few_test = remarks(splits)
    assert "Train has 19 rows" in few_train.text
    assert "Test has 19 rows" in few_test.text
    assert "±17 points" in few_test.text


@pytest.mark.parametrize("n", [5, 19, 100, 1000])
def test_half_width_is_wilsons(n: int) -> None:
    from scipy.stats import binomtest

    seen = round(0.8 * n)
    interval = binomtest(seen, n).proportion_ci(method="wilson")
    assert half_width(n, seen / n) == pytest.approx((interval.high - interval.low) / 2, abs=1e-4)


def test_one_class_stops() -> None:
    splits = {name: [row(r.line) for r in rows] for name, rows in clean().items()}
    assert "All 200 rows have the label 'yes'" in only(remarks(splits), "stop")


def test_dominant_class() -> None:
    splits = {name: [row(r.line, "no" if r.line % 10 == 0 else "yes") for r in rows] for name, rows in clean().items()}
    text = only(remarks(splits), "warn")
    assert "180 of 200 rows (90%)" in text
    assert "macro_f1" in text
    assert "macro_f1" not in only(remarks(splits, kind="answer"), "warn")


def test_a_group_of_most_rows() -> None:
    splits = {name: [replace(row, group="leave") for row in rows] for name, rows in clean().items()}
    found = only(remarks(splits), "warn")
    assert "200 of 200 rows are one group (leave)" in found
    assert 'input = ["document", "question"]' in found


def test_unseen_labels() -> None:
    splits = clean()
    splits["test"].append(row(900, "new"))
    assert "1 label is in test and never in train ('new' at d.csv:900)" in only(remarks(splits), "stop")
    splits = clean()
    splits["dev"].append(row(900, "new"))
    assert "in dev and never in train" in only(remarks(splits), "warn")
    assert remarks(splits, kind="answer") == []


def test_numbers_mixed_with_strings() -> None:
    splits = clean()
    splits["train"] += [row(900, "3"), row(901, "-2.5e3")]
    assert "'3' at d.csv:900" in only(remarks(splits), "stop")
    assert without_rare(remarks(splits, labels=("yes", "no", "3", "-2.5e3"))) == []


def test_variants_of_labels() -> None:
    splits = clean()
    splits["train"] += [row(900, "Yes"), row(901, "ｎｏ")]
    text = only(remarks(splits), "warn")
    assert "2 labels are written in several ways" in text
    assert "d.csv:900" in text or "d.csv:901" in text
    assert text.endswith('to join them write under [labels]: merge = { "ｎｏ" = "no", "Yes" = "yes" }')


def test_the_line_that_joins_labels_leaves_one_spelling_of_each() -> None:
    """Whatever the spellings: pasted into the task file, it makes them one, the most frequent."""
    splits = clean()
    odd = ['Ye\t"s', "YE S", "yés", "NO", "n o"]
    splits["train"] += [row(900 + i, label) for i, label in enumerate([*odd, 'Ye"s', 'Ye"s'])]
    line = next(one.text for one in remarks(splits) if "several ways" in one.text).split("[labels]: ")[1]
    merge = tomllib.loads(line)["merge"]
    assert merge == {"YE S": "yes", "yés": "yes", "NO": "no", "n o": "no", 'Ye\t"s': 'Ye"s'}
    joined = {
        name: [replace(one, references=(merge.get(one.references[0], one.references[0]),)) for one in part]
        for name, part in splits.items()
    }
    assert not [one for one in remarks(joined) if "several ways" in one.text]


def test_labels_of_few_rows_are_named_with_their_rows() -> None:
    splits = clean()
    splits["train"] += [row(900, "rare"), row(901, "rare"), row(902, "once")]
    (text,) = [one.text for one in remarks(splits)]
    assert text.startswith("2 labels are of fewer than 5 rows ('once' 1, 'rare' 2), too few")


def test_many_classes() -> None:
    splits = clean()
    splits["train"] += [row(1000 + i, f"label {i}") for i in range(998)]
    text = only(remarks(splits), "warn")
    assert "1,000 labels" in text
    terms = 7 * len(splits["train"])  # four words and three pairs a row, hardly one twice
    told = int(re.search(r"about ([\d,]+) MB", text)[1].replace(",", ""))  # type: ignore[index]
    assert told == pytest.approx(terms * 1000 * 300 / 1e6, rel=0.01)


def test_same_question_other_answer() -> None:
    splits = clean()
    splits["train"] += [row(900, "yes", "Is the quay open late?"), row(901, "no", "is the quay open late")]
    torn, repeated = remarks(splits)
    assert (torn.level, repeated.level) == ("warn", "note")
    assert "1 question has different answers" in torn.text
    assert "'yes' at d.csv:900, 'no' at d.csv:901" in torn.text
    assert (
        "1 of 202 rows repeats another (1 but for case and punctuation; d.csv:901 repeats d.csv:900)" in repeated.text
    )


def test_answers_that_differ_late_are_shown_where_they_differ() -> None:
    splits, beginning = clean(), "installed electrical lamps that were designed by its founder in the "
    splits["train"] += [
        row(900, f"{beginning}north", "What did it do?"),
        row(901, f"{beginning}south", "What did it do?"),
    ]
    torn, *_ = remarks(splits, kind="answer")
    assert "'…north' at d.csv:900, '…south' at d.csv:901" in torn.text


@pytest.mark.parametrize(
    "text", ["pay\u200bload here", "open \u202etxt.exe", "ignore \U000e0041 this", "pass\u200dword", "two\u2063fold"]
)
def test_invisible_characters(text: str) -> None:
    splits = clean()
    splits["train"].append(row(900, "yes", text))
    assert "1 row has invisible characters (U+" in only(remarks(splits), "warn")


@pytest.mark.parametrize(
    "text",
    [
        "شكرا جزيلا لكم",
        "می‌خواهم",
        "👨‍👩‍👧 family",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "naïve\tcafé",
    ],
)
def test_scripts_and_emoji_are_no_fault(text: str) -> None:
    splits = clean()
    splits["train"].append(row(900, "yes", text))
    assert remarks(splits) == []


@pytest.mark.parametrize("text", ["say <|im_start|>system now", "the end</s>", "[INST] go on"])
def test_text_of_special_tokens(text: str) -> None:
    splits = clean()
    splits["train"].append(row(900, "yes", text))
    said = only(remarks(splits), "warn")
    assert "1 row has text that looks like a special token" in said
    assert "d.csv:900" in said


def test_repetition_and_bursts() -> None:
    splits = clean()
    text = "claim the prize of the weekly draw with the secret word hyacinth at the counter of the harbour"
    splits["train"] += [row(900 + i, "yes", f"{text} {i}") for i in range(40)]
    repeated, burst = remarks(splits)
    assert (repeated.level, burst.level) == ("warn", "warn")
    assert "39 of 240 rows repeat another (39 nearly" in repeated.text
    assert "201 independent rows" in repeated.text
    assert "1 burst of at least 10" in burst.text
    assert "has 40 rows" in burst.text
    assert "d.csv:900" in burst.text
    splits["train"].append(row(999, "no", f"{text} 99"))
    assert not any("burst" in remark.text for remark in remarks(splits))


def test_zero_weights_stop() -> None:
    splits = clean()
    splits["train"] = [row(r.line, r.references[0], weight=0.0) for r in splits["train"]]
    assert "All weights" in only(remarks(splits), "stop")


def test_questions_in_documents() -> None:
    splits = clean()
    splits["test"].append(row(900, "yes", "Is the harbour office open on Sundays?"))
    section = Section(path=("FAQ",), text="Is the harbour office open on Sundays? Yes.")
    documents = (Document(id="faq.md", title="FAQ", source="faq.md", sections=(section,), digest="0"),)
    assert "(d.csv:900 in faq.md)" in only(remarks(splits, documents=documents), "stop")
    assert only(remarks(splits, documents=documents, leakage="report"), "warn")


def test_stops_come_first() -> None:
    splits = clean()
    splits["train"] += [row(900, "Yes"), row(901, "7")]
    assert [remark.level for remark in remarks(splits)] == ["stop", "warn", "note"]
