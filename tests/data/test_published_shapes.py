"""Files in the shapes that data sets are published in: rows by id, by split, as pairs; input of several columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published import of_clinc, of_pubmed

from trimtab.arms.workspace import open_for_answering, open_workspace
from trimtab.base.errors import InputError
from trimtab.base.task import Task, load_task
from trimtab.data.formats import ReadRows, detect, read_examples
from trimtab.data.nested import split_of


def task_of(folder: Path, name: str, kind: str = "classify", **data: Any) -> Task:
    tables = {"task": {"kind": kind}, "data": {"examples": [name], **data}}
    return Task(**tables, file=folder / "trimtab.toml")


def read(folder: Path, name: str, kind: str = "classify", **data: Any) -> ReadRows:
    task = task_of(folder, name, kind, **data)
    return read_examples(task, task.data.examples)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_dictionary_by_id_gives_its_rows_with_ids_and_lines(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "ori.json").write_text(json.dumps(of_pubmed(), indent=indent))
    found = read(tmp_path, "ori.json")
    assert [row.id for row in found.examples] == list(of_pubmed())
    first = of_pubmed()["21645374"]
    assert found.examples[0].input == "\n".join(first["CONTEXTS"]) + "\n\n" + first["QUESTION"]
    assert found.examples[0].references == ("yes",)
    text = (tmp_path / "ori.json").read_text().splitlines()
    for row in found.examples if indent else ():
        assert text[row.line - 1].strip() == f'"{row.id}": {{'
    assert found.notes[0] == (
        "ori.json: columns `CONTEXTS` and `QUESTION` are the input, `final_decision` the label, also `id`: "
        "3 classes, 24 rows"
    )


def test_rows_by_id_may_have_ids_of_their_own(tmp_path: Path) -> None:
    rows = {f"key{n}": {"id": f"own{n}", "question": f"q{n}", "answer": f"a{n}"} for n in range(3)}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [row.id for row in read(tmp_path, "a.json", "answer").examples] == ["own0", "own1", "own2"]


def test_a_dictionary_of_splits_is_the_splits(tmp_path: Path) -> None:
    (tmp_path / "data_full.json").write_text(json.dumps(of_clinc(), indent=1))
    workspace = open_workspace(task_of(tmp_path, "data_full.json"))
    assert {name: len(rows) for name, rows in workspace.splits.items()} == {"train": 16, "dev": 7, "test": 9}
    for name, rows in workspace.splits.items():
        assert {split_of(row.input.partition(" saying")[0]) for row in rows} == {name}
    assert workspace.labels == ("balance", "oos", "transfer", "weather")
    assert workspace.notes == (
        "data_full.json: of each pair the first is the input, the second the label: 4 classes, 32 rows",
        "data_full.json: its parts are the splits: train 16 (train, oos_train); dev 7 (val, oos_val); test 9 "
        "(test, oos_test)",
    )
    lines = (tmp_path / "data_full.json").read_text().splitlines()
    row = workspace.splits["dev"][3]
    assert json.loads(lines[row.line].strip(" ,")) == row.input
    again = open_workspace(task_of(tmp_path, "data_full.json"))
    assert again.splits == workspace.splits


def test_what_a_dictionary_of_splits_lacks_is_cut_from_train(tmp_path: Path) -> None:
    parts = of_clinc()
    (tmp_path / "a.json").write_text(json.dumps({"train": parts["train"] + parts["test"], "validation": parts["val"]}))
    splits = open_workspace(task_of(tmp_path, "a.json")).splits
    assert [row.input for row in splits["dev"]] == [text for text, _ in parts["val"]]
    assert 3 <= len(splits["test"]) <= 7
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.json").write_text(json.dumps({"train": parts["train"], "test": parts["test"]}))
    splits = open_workspace(task_of(tmp_path / "b", "a.json")).splits
    assert [row.input for row in splits["test"]] == [text for text, _ in parts["test"]]
    assert 0 < len(splits["dev"]) < len(splits["train"]) < 12


def test_with_files_as_the_test_set_the_part_of_that_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(of_clinc()))
    (tmp_path / "b.jsonl").write_text("".join(f'{{"text": "another {n}", "label": "oos"}}\n' for n in range(2)))
    workspace = open_workspace(task_of(tmp_path, "a.json", test=["b.jsonl"]))
    assert [row.input for row in workspace.splits["test"]] == ["another 0", "another 1"]
    assert any("(test, oos_test left out, as data.test is given)" in note for note in workspace.notes)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.json").write_text(json.dumps(of_clinc()))
    both = open_workspace(task_of(tmp_path / "c", "a.json", test=["a.json"])).splits  # one file named twice
    assert {name: len(rows) for name, rows in both.items()} == {"train": 16, "dev": 7, "test": 9}


def test_a_part_that_is_no_split_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**of_clinc(), "version": "1.0"}))
    (refusal,) = read(tmp_path, "a.json").refusals
    assert (refusal.reason, refusal.remedy) == (
        "the part 'version' is no split by its name",
        "call it train, dev or test",
    )


def test_a_question_on_both_sides_of_given_splits_stops_without_speaking_of_groups(tmp_path: Path) -> None:
    parts = of_clinc()
    (tmp_path / "a.json").write_text(json.dumps({**parts, "test": [*parts["test"], parts["train"][0]]}))
    with pytest.raises(
        InputError,
        match=r'1 test row repeats train; .*; set data.leakage = "drop", which takes out 1 row of train, '
        r"take rows out yourself, or",
    ):
        open_workspace(task_of(tmp_path, "a.json"))


@pytest.mark.parametrize("kind", ["classify", "answer"])
def test_a_list_of_pairs(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([[f"Where is {n}?", "ab"[n % 2]] for n in range(6)]))
    found = read(tmp_path, "a.json", kind)
    assert [(row.input, *row.references) for row in found.examples][:2] == [("Where is 0?", "a"), ("Where is 1?", "b")]
    (tmp_path / "a.json").write_text('[["a", "b"], ["a", "b", "c"]]')
    with pytest.raises(InputError, match=r"a\.json:2: the row is a list, not an object"):
        read(tmp_path, "a.json", kind)


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("QUESTION", "Does treatment 0 help patients of ward 0?"),
        (["QUESTION", "LONG_ANSWER"], "Does treatment 0 help patients of ward 0?\n\nIn ward 0 the treatment seems"),
        (
            "Read: {CONTEXTS}\n---\n{QUESTION}!",
            "Read: Ward 0 was treated for 3 weeks.\nOf 40 patients 0 were better.\n---\nDoes",
        ),
    ],
)
def test_the_input_is_one_column_or_several_or_a_template(tmp_path: Path, asked: Any, first: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(of_pubmed()))
    text = (
        '[task]\nkind = "classify"\n[data]\nexamples = ["a.json"]\n'
        f'columns = {{ input = {json.dumps(asked)}, label = "final_decision" }}\n'
    )
    (tmp_path / "trimtab.toml").write_text(text)
    task = load_task(tmp_path)
    assert read_examples(task, task.data.examples).examples[0].input.startswith(first)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"input": ["QUESTION", "CONTEXT"], "label": "final_decision"},
            "no column 'CONTEXT'; did you mean CONTEXTS",
        ),
        ({"input": "{QUESTIONS}", "label": "final_decision"}, "no column 'QUESTIONS'; did you mean QUESTION"),
    ],
)
def test_a_column_of_a_template_that_is_not_there_is_named(tmp_path: Path, columns: Any, said: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(of_pubmed()))
    with pytest.raises(InputError, match=said):
        read(tmp_path, "a.json", columns=columns)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{ input = ["a", "b"], output = "b" }', "column 'b' is named as question and as answer"),
        ('{ input = "{a} {b}", label = "b" }', "column 'b' is named as question and as answer"),
        ('{ output = ["a", "b"] }', r"columns\.output names several columns; name one"),
        ("{ input = [] }", "columns.input names no column; name one or more"),
    ],
)
def test_columns_that_cannot_be_are_refused(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "trimtab.toml").write_text(
        f'[task]\nkind = "answer"\n[data]\nexamples = ["a.json"]\ncolumns = {written}\n'
    )
    with pytest.raises(InputError, match=said):
        load_task(tmp_path)


def test_a_context_stands_before_its_question_and_may_be_empty(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "answer": "Ada", "context": "Ada wrote it."},
        {"question": "When?", "answer": "1843", "context": None},
        {"question": " ", "answer": "x", "context": "Nothing is asked here."},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(tmp_path, "a.jsonl", "answer")
    assert [row.input for row in found.examples] == ["Ada wrote it.\n\nWho?", "When?"]
    assert [refusal.reason for refusal in found.refusals] == ["no text in question"]
    assert "columns `context` and `question` are the input" in found.notes[0]
    asked = read(tmp_path, "a.jsonl", "answer", columns={"input": ["context", "question"], "output": "answer"})
    assert (asked.examples, asked.refusals) == (found.examples, found.refusals)
    assert read(tmp_path, "a.jsonl", "answer", columns={"input": "question"}).examples[0].input == "Who?"
    assert read(tmp_path, "a.jsonl", "answer", group="context").examples[0].input == "Who?"  # it is something else


def test_detect_tells_the_shape(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(of_pubmed()))
    (tmp_path / "b.json").write_text(json.dumps(of_clinc()))
    pubmed, clinc = detect(tmp_path / "a.json"), detect(tmp_path / "b.json")
    assert (pubmed.kind, pubmed.columns["input"], pubmed.columns["output"]) == (
        "classify",
        ("CONTEXTS", "QUESTION"),
        "final_decision",
    )
    assert (clinc.kind, clinc.layout, clinc.splits, clinc.rows) == ("classify", "pair", {"train", "dev", "test"}, 32)


SNIPS = {
    name: [{"data": [{"text": f"please {verb} "}, {"text": f"item {n}", "entity": "thing"}]} for n in range(6)]
    for name, verb in (("AddToPlaylist", "add"), ("PlayMusic", "play"))
}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_dictionary_with_a_list_for_each_class(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SNIPS, indent=indent))
    found = read(tmp_path, "a.json")
    assert [(row.input, row.references) for row in found.examples][5:7] == [
        ("please add item 5", ("AddToPlaylist",)),
        ("please play item 0", ("PlayMusic",)),
    ]
    assert (detect(tmp_path / "a.json").kind, found.refusals) == ("classify", ())
    texts = {name: [f"{name} {n}" for n in range(6)] for name in "ab"}
    (tmp_path / "b.json").write_text(json.dumps(texts, indent=indent))
    assert {(row.input[0], *row.references) for row in read(tmp_path, "b.json").examples} == {("a", "a"), ("b", "b")}


def test_a_list_under_a_word_for_rows_is_no_class(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(6)]
    (tmp_path / "a.json").write_text(json.dumps({"data": rows}))
    assert {row.references for row in read(tmp_path, "a.json").examples} == {("a",), ("b",)}
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "b.json").write_text(json.dumps(talk))
    assert detect(tmp_path / "b.json").layout == "messages"


def test_rows_of_json_on_one_line_are_named_by_their_number(tmp_path: Path) -> None:
    rows = [[f"Where is {n}?", "ab"[n % 2]] for n in range(6)]
    (tmp_path / "a.json").write_text(json.dumps({"train": rows, "test": rows[:2]}))
    assert [row.line for row in read(tmp_path, "a.json").examples] == [1, 2, 3, 4, 5, 6, 1, 2]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=0))
    assert [row.line for row in read(tmp_path, "a.json").examples][:2] == [2, 6]


@pytest.mark.parametrize(
    ("name", "text", "place", "column"),
    [
        ("a.json", '[\n {"text": "a", "label": "b"},\n {"text": "c", "label": "d" ,},\n]', 3, 29),
        ("a.json", '[\n {"text": "a", "label": "b"},\n {"text": "c", "label": "d"},\n]', 3, 29),
        ("a.json", '{"a": {"text": ["x", ]}}', 1, 20),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a", "label": "b", }\n', 2, 27),
    ],
)
def test_a_comma_too_many_is_named_with_its_column(
    tmp_path: Path, name: str, text: str, place: int, column: int
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf":{place}: a comma at column {column} with nothing behind it") as caught:
        read(tmp_path, name)
    assert caught.value.remedy == "take the comma out"
    assert text.split("\n")[place - 1][column - 1] == ","


def test_commas_at_the_ends_of_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"},\n{"text": "c", "label": "d"},\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: a comma at column 28 behind the object; take the commas"):
        read(tmp_path, "a.jsonl")


def test_text_alone_is_told_with_the_two_ways_on(tmp_path: Path) -> None:
    days = "".join(f"{n},Message number {n} of many,2026-01-{n % 28 + 1:02d}\n" for n in range(40))
    (tmp_path / "a.csv").write_text("id,body,received\n" + days)
    with pytest.raises(
        InputError, match=r"there is text \(body\) and no column of labels or answers; label some: .* draft about 100"
    ):
        detect(tmp_path / "a.csv")


def test_dropped_rows_leave_train_stand_in_the_ledger_and_stay_out(tmp_path: Path) -> None:
    parts = of_clinc()
    (tmp_path / "a.json").write_text(
        json.dumps({**parts, "test": [*parts["test"], parts["train"][0], parts["val"][0]]})
    )
    own = task_of(tmp_path, "a.json", leakage="drop")
    workspace = open_workspace(own)
    assert (workspace.overlaps, len(workspace.splits["train"]), len(workspace.splits["dev"])) == ((), 15, 6)
    assert [(Path(one.file).name, one.reason.split(" /")[0]) for one in workspace.refusals] == [
        ("a.json", "repeats test")
    ] * 2
    assert (
        'data.leakage = "drop": 1 row of train and 1 row of dev left out, which repeat rows held out' in workspace.notes
    )
    assert len((tmp_path / ".trimtab" / "refused.jsonl").read_text().splitlines()) == 2
    assert open_for_answering(own, rows=True).splits == workspace.splits


def test_a_test_set_that_is_a_copy_of_train_leaves_nothing(tmp_path: Path) -> None:
    rows = [[f"{n**9:x} {n**8:x} {n**7:x}", "ab"[n % 2]] for n in range(20, 40)]
    (tmp_path / "a.json").write_text(json.dumps({"train": rows, "dev": rows[:3], "test": rows}))
    with pytest.raises(InputError, match=r"every row of train repeats one that is held out"):
        open_workspace(task_of(tmp_path, "a.json", leakage="drop"))


def test_merged_labels_are_one_and_no_row_moves(tmp_path: Path) -> None:
    rows = [(f"{n**9:x} {n**8:x} {n**7:x}", "No" if n % 7 == 0 else "yn"[n % 2]) for n in range(20, 80)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    before = open_workspace(task_of(tmp_path, "a.csv"))
    tables = {
        "task": {"kind": "classify"},
        "data": {"examples": ["a.csv"]},
        "labels": {"merge": {"No": "n", "Nein": "n"}},
    }
    own = Task(**tables, file=tmp_path / "trimtab.toml")
    after = open_workspace(own)
    assert (before.labels, after.labels) == (("No", "n", "y"), ("n", "y"))
    assert {name: [row.id for row in part] for name, part in after.splits.items()} == {
        name: [row.id for row in part] for name, part in before.splits.items()
    }
    assert "labels.merge: 9 rows joined to other labels ('No' 9, 'Nein' is in no row)" in after.notes
