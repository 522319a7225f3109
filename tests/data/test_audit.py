"""Audit: the rows are joined once an opening, and what is read off equals looking at every two splits by themselves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.arms.workspace import open_workspace
from trimtab.base.config import SplitTable
from trimtab.base.records import Document, Example, Message, Section
from trimtab.base.task import load_task
from trimtab.data import audit as audit_module
from trimtab.data import duplicates, similarity_join
from trimtab.data.audit import Audit, audit_rows
from trimtab.data.checks import check_examples
from trimtab.data.duplicates import DuplicatePair, dedup_text, duplicate_pairs
from trimtab.data.leakage import find_overlaps
from trimtab.data.split import SPLITS, assign_splits
from trimtab.studies.check import check

WORDS = [
    "when",
    "is",
    "the",
    "harbour",
    "ferry",
    "office",
    "open",
    "on",
    "sunday",
    "may",
    "I",
    "bring",
    "a",
    "dog",
    "or",
    "bicycle",
    "aboard",
]
QUESTION = st.lists(st.sampled_from(WORDS), min_size=4, max_size=12).map(" ".join)
CHANGES = (str.upper, lambda text: text + "?", lambda text: text + " now", lambda text: text.replace(" ", "  "), str)
TEMPLATES = ("", "Please answer the customer in one word: ")


def rows_of(texts: list[str], template: str, name: str) -> list[Example]:
    return [
        Example(
            id=f"{name}{i}",
            messages=(Message(role="user", content=template + text),),
            references=("yes" if i % 3 else "no",),
            file=f"{name}.jsonl",
            line=i + 1,
        )
        for i, text in enumerate(texts)
    ]


@st.composite
def two_files(draw: st.DrawFn) -> tuple[list[Example], list[Example]]:
    """Rows and a test set of their own (maybe none), with many repetitions, with and without a template."""
    texts = draw(st.lists(QUESTION, min_size=12, max_size=40))
    change = st.tuples(st.integers(0, 10**6), st.sampled_from(CHANGES))
    texts += [how(texts[at % len(texts)]) for at, how in draw(st.lists(change, max_size=25))]
    more = draw(st.lists(QUESTION, max_size=25))
    more += [how(texts[at % len(texts)]) for at, how in draw(st.lists(change, max_size=12 if more else 0))]
    one, other = draw(st.sampled_from(TEMPLATES)), draw(st.sampled_from(TEMPLATES))
    return rows_of(texts, one, "a"), rows_of(more, other, "b")


def sides(rows: list[Example], fixed: list[Example], **more: object) -> dict[str, tuple[Example, ...]]:
    with TemporaryDirectory() as folder:
        return assign_splits(rows, fixed, SplitTable(), Path(folder) / "s", "answer", **more)  # type: ignore[arg-type]


@given(two_files())
def test_splits_are_those_of_the_examples_looked_at_alone(files: tuple[list[Example], list[Example]]) -> None:
    rows, fixed = files
    likeness = audit_rows(rows, fixed, ()).examples
    alone = duplicates.find_duplicates([dedup_text(row) for row in rows])
    assert likeness.components.tolist() == alone.components.tolist()
    try:
        expected = sides(rows, fixed)
    except ValueError:  # one group only
        return
    assert sides(rows, fixed, duplicates=likeness) == expected


@given(two_files(), st.randoms(use_true_random=False))
def test_what_is_read_off_equals_a_join_of_every_two_splits(files, shuffler) -> None:
    rows, fixed = files
    audit = audit_rows(rows, fixed, ())
    mixed = shuffler.sample(rows, len(rows))  # a ledger may have put a row anywhere, its duplicates elsewhere
    cut = [len(mixed) // 2, len(mixed) * 3 // 4]
    splits = {"train": mixed[: cut[0]], "dev": mixed[cut[0] : cut[1]], "test": [*mixed[cut[1] :], *fixed]}
    # the template is that of all rows, that of the examples where only they are looked at
    bare = {
        end: dict(zip(of.texts, of.compared_texts(range(len(of))), strict=True))
        for end, of in (("dev", audit.examples), ("test", audit.rows))
    }
    found = Counter((o.left_split, o.right_split, o.left.id, o.right.id) for o in find_overlaps(audit, splits))
    expected: Counter[tuple[str, ...]] = Counter()
    for left, right in (("train", "dev"), ("train", "test"), ("dev", "test")):
        raw = [[dedup_text(row) for row in splits[side]] for side in (left, right)]
        expected.update(
            (left, right, splits[left][pair.a].id, splits[right][pair.b].id) for pair in best_pairs(*raw, bare[right])
        )
    assert found == expected
    order = [row for name in SPLITS for row in splits[name]]
    numbers = [number for name in SPLITS for number in audit.row_numbers(splits)[name]]
    own, again = audit.rows.pairs(numbers), duplicate_pairs([dedup_text(row) for row in order])
    assert [(p.a, p.b, p.kind) for p in own if p.kind != "near"] == [
        (p.a, p.b, p.kind) for p in again if p.kind != "near"
    ]
    assert len(own) == len(again)  # near pairs are a forest of the same parts: as many, maybe others


def best_pairs(left: list[str], right: list[str], bare: dict[str, str]) -> list[DuplicatePair]:
    """The most alike of each right text, by looking at every pair."""
    plain = duplicates.normalise_text
    found = []
    for b, text in enumerate(right):
        scored = []
        for a, other in enumerate(left):
            near = jaccard(bare[other], bare[text])
            rank = 3.0 if other.strip() == text.strip() else 2.0 if plain(other) == plain(text) else near
            scored.append((rank, -a))
        rank, a = max(scored, default=(0.0, 0))
        if rank >= 0.8 - 1e-9:
            found.append(DuplicatePair(-a, b, "near", rank))
    return found


def jaccard(a: str, b: str) -> float:
    one, other = (
        {f" {t} ".ljust(4)[i : i + 4] for i in range(max(1, len(t) - 1))} | {f"w{w}" for w in t.split()} for t in (a, b)
    )
    return len(one & other) / len(one | other)


def write_task(folder: Path, *, start: str = "", repeated: bool = False, leakage: str = "stop") -> Path:
    """A task with a test file and a document; `repeated`: the test file repeats rows, the document a question of test.

    `start`: what all rows begin with but those of the test file.
    """
    rows = [{"question": f"{start}{n} plus {n % 7 + 1} is what, {n % 5}?", "answer": f"It is {n}."} for n in range(60)]
    tests = [{"question": f"Where does ferry {n} leave from in winter?", "answer": f"Quay {n}."} for n in range(35)]
    tests += rows[:3] if repeated else []
    for name, lines in (("a", rows), ("b", tests)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "faq.md").write_text("# Ferries\n\n" + (f"{tests[5]['question']} From quay 5." if repeated else "None."))
    (folder / "trimtab.toml").write_text(
        '[task]\nname = "t"\nkind = "answer"\n[data]\nexamples = ["a.jsonl"]\ntest = ["b.jsonl"]\n'
        'documents = ["faq.md"]\n'
        f'leakage = "{leakage}"\n[base]\nmodel = "{folder / "nowhere"}"\n'
    )
    return folder / "trimtab.toml"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the heavy scans run."""
    counts: Counter[str] = Counter()
    for module, name in (
        (duplicates, "join_within"),
        (duplicates, "join_between"),
        (audit_module, "find_quotes"),
        (audit_module, "private_kinds"),
    ):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name), counts))
    return counts


def counted(name: str, scan, counts: Counter[str]):
    def call(*given):
        counts[name] += 1
        return scan(*given)

    return call


@pytest.mark.parametrize("verb", [lambda file: open_workspace(load_task(file)), check])
def test_every_scan_runs_once_an_opening(tmp_path: Path, calls: Counter[str], verb) -> None:
    verb(write_task(tmp_path))
    assert calls == {"join_within": 1, "find_quotes": 1, "private_kinds": 95}  # once a row


def test_examples_are_joined_alone_where_the_test_file_lacks_their_template(tmp_path: Path, calls) -> None:
    open_workspace(load_task(write_task(tmp_path, start="Say in one word, as a clerk would: ")))
    assert calls["join_within"] == 2  # else the template would make them all alike, and one group


def test_only_what_a_split_tore_apart_is_looked_at_again(tmp_path: Path, calls: Counter[str]) -> None:
    result = check(write_task(tmp_path, repeated=True))
    assert len(result.overlaps) == 3
    assert calls["join_within"] == 1
    assert calls["join_between"] == 0  # exact repetitions need no join


def facts_of(audit: Audit) -> dict[str, Any]:
    """Every field of an audit and of its two indexes, arrays and texts as lists."""
    found = {field.name: getattr(audit, field.name) for field in fields(audit)}
    for name in ("examples", "rows"):
        index = found[name]
        parts = {field.name: getattr(index, field.name) for field in fields(index)}
        arrays = {part: value.tolist() for part, value in parts.items() if isinstance(value, np.ndarray)}
        found[name] = {**parts, **arrays, "texts": list(index.texts)}
    return found


def test_severity_follows_the_settings_and_the_facts_do_not(tmp_path: Path) -> None:
    said, facts = {}, {}
    for leakage in ("stop", "report"):
        (tmp_path / leakage).mkdir()
        task = load_task(write_task(tmp_path / leakage, repeated=True, leakage=leakage))
        workspace = open_workspace(task, refuse_leaks=False)
        facts[leakage] = facts_of(workspace.audit)
        said[leakage] = [(r.level, r.text) for r in check_examples(workspace.audit, workspace.splits, task)]
    assert facts["stop"] == facts["report"]
    changed = [
        (one[0], other[0]) for one, other in zip(said["stop"], said["report"], strict=True) if one[0] != other[0]
    ]
    assert changed == [("stop", "warn")]


def test_an_estimate_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_task(tmp_path)

    def said() -> list[str]:
        return [remark.level for remark in open_workspace(load_task(file)).remarks if "MinHash" in remark.text]

    assert said() == []
    monkeypatch.setattr(similarity_join, "PRODUCTS_A_FEATURE", 0)
    monkeypatch.setattr(similarity_join, "FEW_PRODUCTS", 0)
    assert said() == ["note"]


def test_a_question_in_two_splits_is_placed_in_the_first_document_that_holds_it() -> None:
    asked = "Where does the ferry leave from in winter?"
    rows = rows_of([asked, "Is there any other way to go?", asked.upper()], "", "a")
    parts = [Section(path=(), text=f"Nothing. {asked} From the quay.")]
    documents = [Document(id=name, title=name, source=name, sections=tuple(parts), digest=name) for name in ("x", "y")]
    quotes = audit_rows(rows, (), documents).quotes
    assert [(quote.row, quote.document) for quote in quotes] == [(0, "x"), (2, "x")]
