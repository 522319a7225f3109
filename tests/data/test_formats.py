"""Layouts: each gives the same examples, is told from its fields, and says what it took for what."""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import types
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError, PackageError
from trimtab.base.records import Message
from trimtab.base.task import Task
from trimtab.data.columns import ColumnRequest
from trimtab.data.formats import LAYOUTS, ReadRows, detect, read_examples

PAIRS = [(f"Where is room {n}, please?", f"On floor {n}") for n in range(12)]
CONVERSATION = [("user", "Hi"), ("assistant", "Hello"), ("user", "Where?"), ("assistant", "Here")]


def task_for(folder: Path, *examples: str, kind: str = "answer", labels: tuple[str, ...] = (), **data: Any) -> Task:
    return Task(
        task={"name": "t", "kind": kind, "labels": labels},
        data={"examples": examples, **data},
        base={"model": "m"},
        file=folder / "trimtab.toml",
    )


def read(folder: Path, *examples: str, **more: Any) -> ReadRows:
    task = task_for(folder, *examples, **more)
    return read_examples(task, task.data.examples)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_tests_of_code_are_read_where_a_column_is_named_for_them(tmp_path: Path) -> None:
    rows = [{"input": f"q{n}", "output": f"a{n}", "checks": ["assert 1", "assert 2"], "tests": "x"} for n in range(3)]
    write_lines(tmp_path / "rows.jsonl", [*rows, {**rows[0], "input": "q", "checks": None}])
    found = read(tmp_path, "rows.jsonl", columns={"tests": "checks"}).examples
    assert [example.tests for example in found] == ["assert 1\nassert 2"] * 3 + [""]
    assert {example.tests for example in read(tmp_path, "rows.jsonl").examples} == {""}


def turns(question: str, answer: str, role: str, content: str, names: tuple[str, str]) -> list[dict[str, str]]:
    return [{role: names[0], content: question}, {role: names[1], content: answer}]


def as_layout(layout: str, question: str, answer: str) -> dict[str, Any]:
    """The same question and answer in one of the layouts."""
    return {
        "messages": {"messages": turns(question, answer, "role", "content", ("user", "assistant"))},
        "prompt-completion": {"prompt": question, "completion": answer},
        "instruction": {"instruction": question, "input": "", "output": answer},
        "conversations": {"conversations": turns(question, answer, "from", "value", ("human", "gpt"))},
        "input-label": {"text": question, "label": answer},
        "question-answer": {"question": question, "answer": answer},
        "pair": {"first": question, "second": answer},
        "table": {"utterance": question, "reply": answer},
    }[layout]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "squad"])
@pytest.mark.parametrize("named", [False, True])
def test_every_layout_gives_the_same_examples(tmp_path: Path, layout: str, named: bool) -> None:
    write_lines(tmp_path / "a.jsonl", [as_layout(layout, *pair) for pair in PAIRS])
    found = read(tmp_path, "a.jsonl", layout=layout if named else "")
    assert [(example.input, example.references) for example in found.examples] == [(q, (a,)) for q, a in PAIRS]
    assert [example.line for example in found.examples] == list(range(1, 13))
    write_lines(tmp_path / "b.jsonl", [as_layout("question-answer", *pair) for pair in PAIRS])
    assert [e.id for e in found.examples] == [e.id for e in read(tmp_path, "b.jsonl").examples]
    assert detect(tmp_path / "a.jsonl").layout == layout
    assert found.notes[0].startswith("a.jsonl: ")
    assert "12 rows" in found.notes[0]


def test_a_layout_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [as_layout("question-answer", *pair) for pair in PAIRS])
    with pytest.raises(InputError, match=r"unknown layout 'mesages'; did you mean messages\?"):
        read(tmp_path, "a.jsonl", layout="mesages")
    with pytest.raises(InputError, match=r"a\.jsonl:1:messages: no field 'messages' for the layout messages"):
        read(tmp_path, "a.jsonl", layout="messages")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "jsonl.gz", "json", "parquet", "ndjson"])
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"a.{suffix}", [{"question": q, "answer": a} for q, a in PAIRS]
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        tab = "\t" if suffix == "tsv" else ","
        table = [f"question{tab}answer", *(f'"{q}"{tab}{a}' for q, a in PAIRS)]
        data = "\n".join(table if "sv" in suffix else [json.dumps(row) for row in rows]).encode()
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    found = read(tmp_path, path.name)
    assert [(example.input, example.references) for example in found.examples] == [(q, (a,)) for q, a in PAIRS]


def test_a_table_parted_by_semicolons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question;answer\nWho, now?;A\nHow?;B\n")
    assert [example.input for example in read(tmp_path, "a.csv").examples] == ["Who, now?", "How?"]


def test_json_lines_under_a_json_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", [{"question": q, "answer": a} for q, a in PAIRS])
    assert [example.line for example in read(tmp_path, "a.json").examples] == list(range(1, 13))


def test_conversation_keeps_its_turns_and_asks_for_the_last(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "system", "content": "Be brief"}, *({"role": r, "content": c} for r, c in CONVERSATION)]
    }
    share = {"conversations": [{"from": {"user": "human", "assistant": "gpt"}[r], "value": c} for r, c in CONVERSATION]}
    write_lines(tmp_path / "a.jsonl", [row, row])
    write_lines(tmp_path / "b.jsonl", [share, share])
    before = tuple(Message(role=role, content=text) for role, text in CONVERSATION[:-1])  # type: ignore[arg-type]
    first = read(tmp_path, "a.jsonl").examples[0]
    assert first.messages == (Message(role="system", content="Be brief"), *before)
    assert first.references == ("Here",)
    assert read(tmp_path, "b.jsonl").examples[0].messages == before


def test_prompt_and_completion_may_be_turns(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]}
    write_lines(tmp_path / "a.jsonl", [row, {"prompt": "Hi", "completion": "Hello"}])
    first, second = read(tmp_path, "a.jsonl").examples
    assert (first.messages, first.references) == (second.messages, second.references)


def test_text_parts_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "now?"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "So"}]}
    write_lines(tmp_path / "a.jsonl", [row, row])
    assert read(tmp_path, "a.jsonl").examples[0].input == "How now?"


def test_instruction_with_its_input(tmp_path: Path) -> None:
    rows = [{"instruction": "Sum up.", "input": "A long text", "output": "Short"}, {"instruction": "Go", "output": "x"}]
    write_lines(tmp_path / "a.jsonl", rows)
    assert [example.input for example in read(tmp_path, "a.jsonl").examples] == ["Sum up.\n\nA long text", "Go"]


def test_a_reference_may_be_a_list(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": ["a", "b", "a"]}, {"question": "r", "answer": "c"}])
    assert [example.references for example in read(tmp_path, "a.jsonl").examples] == [("a", "b"), ("c",)]


def test_every_extra_field(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "id": 7, "group": "g", "slice": "s", "weight": 2, "source": "web"}
    write_lines(tmp_path / "a.jsonl", [{**row, "license": "MIT", "passages": ["d.md", "e.md"]}, {**row, "id": 8}])
    found = read(tmp_path, "a.jsonl")
    first = found.examples[0]
    assert (first.id, first.group, first.slice, first.weight, first.source) == ("7", "g", "s", 2.0, "web")
    assert (first.licence, first.passages) == ("MIT", ("d.md", "e.md"))
    assert not any("not used" in note for note in found.notes)


def test_times_are_dates_or_numbers_and_not_both(tmp_path: Path) -> None:
    def times(*values: object) -> list[str | None]:
        write_lines(
            tmp_path / "a.jsonl", [{"question": f"q{n}", "answer": "a", "at": at} for n, at in enumerate(values)]
        )
        return [row.time for row in read(tmp_path, "a.jsonl", columns={"time": "at"}).examples]

    assert times("2026-03-01", "2026-03-01T08:30:00+02:00", "2026-03") == [
        "2026-03-01",
        "2026-03-01T08:30:00+02:00",
        "2026-03",
    ]
    assert times(2024, 1_700_000_000.5, "2025") == ["2024", "1700000000.5", "2025"]
    for bad, told in (("last week", "neither an ISO date nor a number"), ("", "is empty"), ([1], "is a list")):
        with pytest.raises(InputError, match=rf"a\.jsonl:2:at: the time .*{told}"):
            times("2026-03-01", bad)
    with pytest.raises(InputError, match=r"a\.jsonl:2:at: the time is a number; it was a date from line 1 on"):
        times("2026-03-01", 2026)
    write_lines(tmp_path / "b.jsonl", [{"question": f"r{n}", "answer": "a", "at": 2026} for n in range(3)])
    times("2026-03-01", "2026-03-02")
    with pytest.raises(InputError, match=r"b\.jsonl:1:time: the time '2026' cannot be compared"):
        read(tmp_path, "a.jsonl", "b.jsonl", columns={"time": "at"})
    write_lines(tmp_path / "a.jsonl", [{"question": f"q{n}", "answer": "a", "time": "x"} for n in range(3)])
    assert {row.time for row in read(tmp_path, "a.jsonl").examples} == {None}  # only where it is named


def test_columns_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,ask,say,doc,topic,text,label\n1,q1,a1,d1,t1,x,y\n2,q2,a2,d2,t2,x,y\n")
    named = {"input": "ask", "output": "say", "id": "key", "passage": "doc"}
    found = read(tmp_path, "a.csv", columns=named, group="doc", slice="topic")
    first = found.examples[0]
    assert (first.id, first.input, first.references, first.passages) == ("1", "q1", ("a1",), ("d1",))
    assert (first.group, first.slice) == ("d1", "t1")
    assert "a.csv: fields that are not used: label, text" in found.notes
    with pytest.raises(
        InputError, match=r"trimtab\.toml:data\.group: a\.csv has no column 'topics'; did you mean topic\?"
    ):
        read(tmp_path, "a.csv", columns=named, group="topics")


def test_a_column_that_is_not_there_is_told_of_the_task_file(tmp_path: Path) -> None:
    """Not of a row, with the columns that are there and without one that is only a little alike."""
    (tmp_path / "a.csv").write_text("message,intent\nhello,greet\nbye,part\n")
    said = f"{tmp_path / 'trimtab.toml'}:data.columns: a.csv has no column 'text'; it has message and intent"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        read(tmp_path, "a.csv", columns={"input": "text", "label": "intent"})
    alone = f"{tmp_path / 'a.csv'}: a.csv has no column 'text', named as input; it has message and intent"
    with pytest.raises(InputError, match=f"^{re.escape(alone)}$"):
        detect(tmp_path / "a.csv", request=ColumnRequest(columns={"input": "text"}))


def test_table_tells_text_and_label_by_their_values(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [f"{draw.choice('abc')},the {n}th long remark of somebody,{n}" for n in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["mood,remark,nr", *rows]))
    found = read(tmp_path, "a.csv", kind="classify")
    assert found.notes[0] == (
        "a.csv: column `remark` is the input, `mood` the label (a guess: set data.columns if it is wrong): 3 "
        "classes, 30 rows"
    )
    assert detect(tmp_path / "a.csv").columns == {"input": "remark", "output": "mood"}
    assert (
        read(tmp_path, "a.csv", kind="answer").examples[0].references[0] in "abc"
    )  # what numbers the rows is no answer
    (tmp_path / "a.csv").write_text("\n".join(["mood,remark,note", *(f"{row} and more of it" for row in rows)]))
    with pytest.raises(
        InputError, match=r"a\.csv:2: cannot tell .* answer; the fields are: mood, remark, note; .*output"
    ):
        read(tmp_path, "a.csv", kind="answer")


def test_a_table_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sms.tsv").write_text("ham\tGo until the point\nspam\tFree entry now\nham\tOk then\n")
    with pytest.raises(InputError, match=r"sms\.tsv:1: the first line looks like a row, .*'ham'.*; add a first line"):
        read(tmp_path, "sms.tsv", kind="classify")


def test_labels_are_trimmed_and_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none, spam \ntwo,ham\nthree,spma\n")
    assert read(tmp_path, "a.csv", kind="classify").examples[0].references == ("spam",)
    with pytest.raises(
        InputError, match=r"a\.csv:4:label: the label 'spma' is not in task\.labels; did you mean 'spam'"
    ):
        read(tmp_path, "a.csv", kind="classify", labels=("spam", "ham"))


def test_number_labels_become_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": f"t{n}", "label": n % 2} for n in range(4)])
    assert [e.references for e in read(tmp_path, "a.jsonl", kind="classify").examples] == [("0",), ("1",)] * 2


SQUAD = {
    "data": [
        {
            "title": "Big_Cats",
            "paragraphs": [
                {
                    "context": "Lions roar.",
                    "qas": [{"id": "a", "question": "Who?", "answers": [{"text": "Lions"}] * 2}],
                },
                {
                    "context": "Tigers swim.",
                    "qas": [
                        {"id": "b", "question": "Who swims?", "answers": [{"text": "Tigers"}, {"text": "tigers"}]},
                        {"id": "c", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                },
            ],
        }
    ]
}


@pytest.mark.parametrize("indent", [None, 1])
def test_squad(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "cats.json").write_text(json.dumps(SQUAD, indent=indent))
    examples = read(tmp_path, "cats.json").examples
    assert [e.id for e in examples] == ["a", "b", "c"]
    assert [e.references for e in examples] == [("Lions",), ("Tigers", "tigers"), ("I don't know",)]
    assert [e.passages for e in examples] == [("cats/Big_Cats/0",), ("cats/Big_Cats/1",), ("cats/Big_Cats/1",)]
    assert {e.group for e in examples} == {"Big_Cats"}
    text = (tmp_path / "cats.json").read_text().split("\n")
    assert all(f'"{e.id}"' in text[e.line - 1] for e in examples)
    assert detect(tmp_path / "cats.json").kind == "answer"


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=2, max_size=12), seed=st.integers()
)
def test_ids_are_unique_and_stay_when_rows_are_reordered(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    shuffled = random.Random(seed).sample(rows, len(rows))
    write_lines(folder / "a.jsonl", [{"question": q, "answer": a} for q, a in rows])
    write_lines(folder / "b.jsonl", [{"question": q, "answer": a} for q, a in shuffled])
    first = {e.id: (e.input, e.references) for e in read(folder, "a.jsonl").examples}
    second = {e.id: (e.input, e.references) for e in read(folder, "b.jsonl").examples}
    assert first == second
    assert len(first) == len(rows)


def test_globs_and_folders_give_each_file_once(tmp_path: Path) -> None:
    for name in ("rows/b.jsonl", "rows/a.jsonl", "rows/deep/c.jsonl", "rows/.hidden/d.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(tmp_path / name, [{"question": name, "answer": "x"}])
    (tmp_path / "rows" / "notes.txt").write_text("no rows")
    assert [e.input for e in read(tmp_path, "rows").examples] == ["rows/a.jsonl", "rows/b.jsonl", "rows/deep/c.jsonl"]
    assert len(read(tmp_path, "rows/*.jsonl", "rows/a.jsonl").examples) == 2
    assert len(read(tmp_path, f"{tmp_path}/rows/**/*.jsonl").examples) == 4
    with pytest.raises(InputError, match=r"nothing\.csv does not exist"):
        read(tmp_path, "nothing.csv", "rows")


def test_a_hub_dataset_goes_through_the_optional_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PackageError, match=r"pip install 'trimtab\[hub\]'"):
        read(tmp_path, "someone/emotions", kind="classify")

    class ClassLabel:
        def int2str(self, number: int) -> str:
            return ["joy", "fear"][number]

    class Rows(list[dict[str, Any]]):
        features = {"text": object(), "label": ClassLabel()}  # noqa: RUF012

    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, *, split: str) -> Rows:
        asked.append((name, split))
        return Rows([{"text": "ha", "label": 0}, {"text": "oh", "label": 1}])

    stub = types.ModuleType("datasets")
    vars(stub).update(ClassLabel=ClassLabel, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    found = read(tmp_path, "someone/emotions", kind="classify")
    assert [e.references for e in found.examples] == [("joy",), ("fear",)]
    task = task_for(tmp_path, "someone/emotions", kind="classify", test=["someone/emotions"])
    read_examples(task, task.data.test)
    read_examples(task, task.data.examples)
    assert asked == [("someone/emotions", split) for split in ("train", "test", "train")]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["yes", "no", "maybe"] * 10, "classify"),
        ([f"On floor {n}" for n in range(30)], "answer"),
        (["yes"], "answer"),
        (["yes", "no"], "answer"),
        (["yes", "yes", "no"], "answer"),
        ([f"{n} - {n + 2} days (at most)" for n in range(30)], "answer"),
        ([f"{n} = x" if n % 3 else f"$ {n}.50" for n in range(30)], "answer"),
        ([f"find . -mtime {n} | wc -l" for n in range(30)], "generate"),
        ([f"First you go up to floor {n}, and then you turn left." for n in range(30)], "generate"),
    ],
)
def test_detect_guesses_the_kind(tmp_path: Path, answers: list[str], kind: str) -> None:
    write_lines(tmp_path / "a.jsonl", [{"question": f"q{n}", "answer": a} for n, a in enumerate(answers)])
    assert detect(tmp_path / "a.jsonl").kind == kind


def test_a_column_called_category_holds_labels_however_many(tmp_path: Path) -> None:
    rows = [{"message": f"message number {n}", "category": f"class {n % 40}"} for n in range(100)]
    write_lines(tmp_path / "a.jsonl", rows)
    assert detect(tmp_path / "a.jsonl").kind == "classify"


def test_one_class_is_counted_in_the_singular(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "t", "label": "x"}])
    assert detect(tmp_path / "a.jsonl").notes[0].endswith(": 1 class, 1 row")


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table", "records", "list"])
def test_every_form_of_a_pandas_table_gives_its_rows(tmp_path: Path, orient: Any) -> None:
    frame = pandas.DataFrame([{"text": f"Text {n}", "label": "ab"[n % 2]} for n in range(60)])
    content = json.dumps(frame.to_dict(orient)) if orient == "list" else frame.to_json(orient=orient)
    (tmp_path / "a.json").write_text(content)
    examples = read(tmp_path, "a.json", kind="classify").examples
    assert [(row.input, row.references[0]) for row in examples] == list(frame.itertuples(index=False, name=None))


def test_a_table_under_the_name_of_json_lines_is_refused_by_its_name(tmp_path: Path) -> None:
    pandas.DataFrame([{"text": f"Text {n}", "label": "ab"[n % 2]} for n in range(60)]).to_json(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"a\.jsonl:1: a table by columns, and .*; rename it to \.json, or write"):
        detect(tmp_path / "a.jsonl")


def test_json_in_a_cell_is_free_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"question": f"Q {n}", "answer": json.dumps({"n": n})} for n in range(30)])
    seen = detect(tmp_path / "a.jsonl")
    assert (seen.kind, seen.form) == ("generate", "json")


def test_lists_of_texts_by_class_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"greet": ["Hello", "Hi there"], "part": ["Bye", "So long"]}))
    assert [row.references[0] for row in read(tmp_path, "a.json", kind="classify").examples] == [
        "greet",
        "greet",
        "part",
        "part",
    ]


SLOTS = [{"text": f"To {n} für {n % 3}", "output": {"to": f"Köln {n}", "for": [n % 3]}} for n in range(20)]


def test_an_object_is_learnt_as_json(tmp_path: Path) -> None:
    rows = [*SLOTS, {"text": "To nowhere", "output": {}}]
    write_lines(tmp_path / "a.jsonl", rows)
    assert detect(tmp_path / "a.jsonl").kind == "generate"
    examples = read(tmp_path, "a.jsonl", kind="generate").examples
    assert [json.loads(row.references[0]) for row in examples] == [row["output"] for row in rows]
    assert "Köln" in examples[0].references[0]
    with pytest.raises(InputError, match=r'is an object, not text; write text, or set task.kind = "generate"'):
        read(tmp_path, "a.jsonl", kind="answer")


def test_a_list_of_no_entities_is_an_answer_too(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": f"t {n}", "entities": [{"n": n}] if n % 2 else []} for n in range(20)])
    examples = read(tmp_path, "a.jsonl", kind="generate", columns={"output": "entities"}).examples
    assert [row.references[0] for row in examples[:2]] == ["[]", '[{"n": 1}]']


def test_choices_stand_behind_their_question(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"question": f"Q {n}", "choices": ["a", "b"], "answer": "a"} for n in range(9)])
    assert read(tmp_path, "a.jsonl").examples[0].input == "Q 0\n\na\nb"


def test_slots_beside_an_intent_are_named(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "intent": "ab"[n % 2], "slots": row["output"]} for n, row in enumerate(SLOTS)]
    write_lines(tmp_path / "a.jsonl", rows)
    pieces = [{"data": [{"text": f"fly {n} to "}, {"text": "Rome", "entity": "city"}]} for n in range(20)]
    (tmp_path / "b.json").write_text(json.dumps({"fly": pieces, "other": pieces}))
    assert [[*detect(tmp_path / name).rivals] for name in ("a.jsonl", "b.json")] == [["slots"], ["data"]]


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Rome", "In Rome"], "answer_start": [3, 0]},
        [{"text": "Rome", "answer_start": 3}, {"text": "In Rome", "answer_start": 0}],
    ],
)
def test_answers_with_their_positions_are_texts(tmp_path: Path, answers: Any) -> None:
    write_lines(tmp_path / "a.jsonl", [{"question": f"Where {n}?", "answers": answers} for n in range(20)])
    assert read(tmp_path, "a.jsonl").examples[0].references == ("Rome", "In Rome")


def test_a_list_of_rows_beside_other_fields_is_read(tmp_path: Path) -> None:
    rows = [{"text": f"Text {n}", "label": "ab"[n % 2]} for n in range(20)]
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "about": {"by": "us"}, "items": rows}))
    assert len(read(tmp_path, "a.json", kind="classify").examples) == 20


GRADED = {
    "question": "Why does bulb {n} shine?",
    "reference_answer": "Terminal {n} is connected",
    "student_answer": "It is the battery {n}",
    "grade": ("correct", "partial", "wrong"),
}


@pytest.mark.parametrize(
    ("columns", "asked", "learnt"),
    [
        (GRADED, ("question", "reference_answer", "student_answer"), "grade"),
        (
            {"question": "Why {n}?", "answer": "Because {n}", "verdict": ("right", "wrong")},
            ("question", "answer"),
            "verdict",
        ),
        ({"question": "Why {n}?", "answer": "Because {n}", "category": ("a", "b", "c")}, "question", "answer"),
        (
            {"gold": ("yes", "no"), "hypothesis": "It is {n}", "premise": "There are {n}", "annotator": ("A", "B")},
            ("premise", "hypothesis"),
            "gold",
        ),
        (
            {"sentence_1": "one {n}", "sentence_2": "two {n}", "similar": ("0", "1")},
            ("sentence_1", "sentence_2"),
            "similar",
        ),
        ({"text_a": "one {n}", "text_b": "two {n}", "label": ("0", "1")}, ("text_a", "text_b"), "label"),
        ({"title": "No {n}", "body": "Text {n}", "category": ("a", "b")}, ("title", "body"), "category"),
        (
            {"remark": "I write {n}", "right A": ("y", "n"), "right B": ("n", "y"), "category": ("a", "b")},
            "remark",
            "category",
        ),
        (
            {"question": "Which {n}?", "options": "A {n}, B {n}", "answer": ("A", "B")},
            ("question", "options"),
            "answer",
        ),
        (
            {"prompt": "Write {n}", "response_a": "So {n}", "response_b": "Thus {n}", "winner": ("a", "b")},
            ("prompt", "response_a", "response_b"),
            "winner",
        ),
        ({"agent": ("Ann", "Bob"), "remark": "I write {n}", "queue": ("a", "b", "c")}, "remark", "queue"),
        ({"user": ("Ann", "Bob"), "text": "I write {n}", "rating": ("1", "2", "3")}, "text", "rating"),
        ({"text": "I write {n}", "agent": ("Ann", "Bob")}, "text", "agent"),
        (
            {"question": "Is it {n}?", "long_answer": "In {n} it seems so", "decision": ("yes", "no")},
            "question",
            "decision",
        ),
    ],
)
def test_what_is_learnt_is_a_judgement_before_an_answer_and_metadata_last(
    tmp_path: Path, columns: dict[str, str | tuple[str, ...]], asked: Any, learnt: str
) -> None:
    rows = [
        {
            name: value.format(n=n) if isinstance(value, str) else value[n % len(value)]
            for name, value in columns.items()
        }
        for n in range(60)
    ]
    write_lines(tmp_path / "a.jsonl", rows)
    seen = detect(tmp_path / "a.jsonl")
    assert (seen.columns["input"], seen.columns["output"]) == (asked, learnt)
