"""`init`: what it writes is accepted, says what was found, and overwrites nothing."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from published import of_clinc, of_pubmed

from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import load_task
from trimtab.data.documents import read_documents
from trimtab.data.formats import read_examples
from trimtab.studies.init import init

SQUAD = {"data": [{"title": "Cats", "paragraphs": [{"context": "Lions roar.", "qas": []}]}]}


def table(rows: int, label: str = "topic") -> str:
    return "\n".join([f"message,{label}", *(f"This is message number {n},{'abc'[n % 3]}" for n in range(rows)), ""])


def questions(rows: int, answer: str = "On floor {}") -> str:
    return "".join(
        json.dumps({"question": f"Where is {n}?", "answer": answer.format(n), "area": "xyz"[n % 3]}) + "\n"
        for n in range(rows)
    )


def accepted(folder: Path) -> None:
    """The written file loads, and everything it names can be read."""
    task = load_task(folder)
    if task.data.examples:
        assert read_examples(task, task.data.examples).examples
    if task.data.test:
        assert read_examples(task, task.data.test).examples
    assert len(read_documents(task)) >= len(task.data.documents)


def test_a_table_with_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "bank.train.csv").write_text(table(300, "category"))
    (tmp_path / "bank.test.csv").write_text(table(30, "category"))
    text = init(tmp_path)
    assert (tmp_path / "trimtab.toml").read_text() == text
    task = load_task(tmp_path)
    assert (task.data.examples, task.data.test) == (("bank.train.csv",), ("bank.test.csv",))
    assert task.task.kind == "classify"
    assert task.data.columns == {"input": "message", "label": "category"}
    assert task.task.instruction.endswith("one of: a, b, c.")
    assert [arm.name for arm in task.arms] == ["linear", "prompt", "few-shot", "lora"]
    assert "examples: bank.train.csv: column `message` is the input, `category` the label" in text
    assert "3 classes, 300 rows" in text
    assert "are few" not in text
    accepted(tmp_path)


@pytest.mark.parametrize("names", ["{}.csv", "{}-00000-of-00001.csv", "{}/rows.csv"])
def test_files_named_as_splits(tmp_path: Path, names: str) -> None:
    files = {split: names.format(split) for split in ("train", "validation", "test")}
    for file in files.values():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(table(60))
    text = init(tmp_path)
    task = load_task(tmp_path)
    assert set(task.data.examples) == {files["train"], files["validation"]}
    assert task.data.test == (files["test"],)
    assert text.count("examples (a dev set by its name; it joins the others, and dev is drawn from all): ") == 1


def test_questions_and_documents(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "questions.jsonl").write_text(questions(50))
    for folder in ("documents", "documents-old"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text("# A\ntext")
    (tmp_path / "README.md").write_text("About this folder")
    (tmp_path / "notes.txt").write_text("A loose document")
    text = init(tmp_path)
    task = load_task(tmp_path)
    assert task.task.kind == "answer"
    assert task.task.metric == task.metric == "contains"
    assert task.data.examples == ("data/questions.jsonl",)
    assert task.data.documents == ("documents/", "notes.txt")
    assert task.data.columns == {}
    assert {"rag", "lora+rag"} <= {arm.name for arm in task.arms}
    assert "left out: documents-old/: documents of the same names" in text
    assert "50 examples are few" in text
    assert '# slice = "area"' in text
    accepted(tmp_path)


def test_answers_that_are_objects_of_json_are_scored_by_their_keys_and_values(tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text(
        "".join(
            json.dumps({"question": f"Order {n}", "answer": json.dumps({"item": n, "city": "Bonn"})}) + "\n"
            for n in range(60)
        )
    )
    text = init(tmp_path)
    task = load_task(tmp_path)
    assert (task.task.kind, task.metric) == ("generate", "json_f1")
    assert 'metric = "json_f1"   # or: rouge_l, exact_match, chrf, scorer' in text


@pytest.mark.parametrize("answer", ["[{}]", "{{{}}}", "In the very long hall on the floor that has number {}"])
def test_other_answers_are_not(answer: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(questions(60, answer))
    init(tmp_path)
    assert load_task(tmp_path).metric != "json_f1"


def test_squad_gives_examples_and_documents(tmp_path: Path) -> None:
    squad = json.loads(json.dumps(SQUAD))
    squad["data"][0]["paragraphs"][0]["qas"] = [
        {"id": str(n), "question": f"q{n}", "answers": [{"text": "Lions"}]} for n in range(3)
    ]
    (tmp_path / "cats.json").write_text(json.dumps(squad))
    assert "3 questions on 1 article (SQuAD)" in init(tmp_path)
    task = load_task(tmp_path)
    assert task.data.examples == task.data.documents == ("cats.json",)
    accepted(tmp_path)


def test_long_answers_are_generated(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(questions(20, "You go up the stairs, turn left, and then it is door number {}."))
    init(tmp_path)
    assert load_task(tmp_path).task.kind == "generate"
    accepted(tmp_path)


def test_documents_alone_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "a.txt").write_text("text")
    assert "No labelled examples yet" in init(tmp_path)
    assert [arm.name for arm in load_task(tmp_path).arms] == ["extract", "rag"]
    accepted(tmp_path)
    (tmp_path / "rows.jsonl").write_text(questions(20))
    file = tmp_path / "trimtab.toml"
    file.write_text(file.read_text().replace("examples = []", 'examples = ["rows.jsonl"]'))
    assert {"prompt", "lora", "extract", "lora+rag"} <= {
        arm.name for arm in load_task(tmp_path).arms
    }  # once there are labels


def test_preferences_and_other_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(questions(20))
    (tmp_path / "prefs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    (tmp_path / "broken.csv").write_text('question,answer\n"a,b\n')
    (tmp_path / "other.csv").write_text(table(5))
    text = init(tmp_path)
    task = load_task(tmp_path)
    assert (task.data.examples, task.data.preferences) == (("a.jsonl",), ("prefs.jsonl",))
    assert "left out: broken.csv: a double quote opens here and never closes" in text
    assert "left out: other.csv (5 rows): other columns than a.jsonl" in text


@pytest.mark.parametrize(("answer", "good"), [("answer", "good"), ("completion", "label")])
def test_one_sided_preferences_are_no_examples(tmp_path: Path, answer: str, good: str) -> None:
    rows = [{"prompt": f"p{n}", answer: "a bad one" if n % 2 else "a good one", good: n % 2 == 0} for n in range(20)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"only preferences here \(votes.jsonl\), no examples and no documents; put"):
        init(tmp_path)
    (tmp_path / "a.jsonl").write_text(questions(20))
    init(tmp_path)
    task = load_task(tmp_path)
    assert (task.data.examples, task.data.preferences) == (("a.jsonl",), ("votes.jsonl",))


def test_commands_are_scored_by_every_sign(tmp_path: Path) -> None:
    rows = ({"text": f"what changed in {n} days", "output": f"find . -mtime {n} | wc -l"} for n in range(30))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(tmp_path)
    task = load_task(tmp_path)
    assert (task.task.kind, task.metric) == ("generate", "chrf")


def test_a_completion_with_a_class_is_no_preference(tmp_path: Path) -> None:
    rows = ({"prompt": f"p{n}", "completion": f"text {n}", "label": "news" if n % 2 else "sport"} for n in range(20))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(tmp_path)
    assert load_task(tmp_path).data.preferences == ()


def test_of_many_columns_the_fewest_values_are_the_label(tmp_path: Path) -> None:
    head = "created,language,body,department,user\n"
    days = (f"2026-01-{n % 28 + 1:02d},en,This is message number {n},{'abc'[n % 3]},u{n % 31}\n" for n in range(90))
    (tmp_path / "a.csv").write_text(head + "".join(days))
    text = init(tmp_path)
    assert load_task(tmp_path).data.columns == {"input": "body", "label": "department"}
    assert '# group = "user"' in text
    assert '# slice = "created"' in text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-8-sig", "utf-16"])
def test_the_encoding_is_found_and_written(tmp_path: Path, encoding: str) -> None:
    rows = [f"Wo ist Tür Nummer {n} in der Straße?;Im {n}. Stock, grün" for n in range(12)]
    (tmp_path / "fragen.csv").write_bytes("\n".join(["frage;antwort", *rows, ""]).encode(encoding))
    (tmp_path / "büro.txt").write_bytes("Öffnungszeiten des Büros: täglich".encode(encoding))
    (tmp_path / "plain.md").write_text("# Nothing odd\nPlain letters only.\n", encoding=encoding)
    text = init(tmp_path)
    task = load_task(tmp_path)
    expected = {"latin-1": "cp1252", "utf-8-sig": "utf-8"}.get(encoding, encoding)
    assert task.data.encoding == expected
    assert ("encoding: cp1252, a guess, which gives words such as " in text) == (expected == "cp1252")
    assert task.data.columns == {"input": "frage", "output": "antwort"}
    assert read_examples(task, task.data.examples).examples[0].references == ("Im 0. Stock, grün",)
    assert {document.sections[0].text for document in read_documents(task)} == {
        "Öffnungszeiten des Büros: täglich",
        "Plain letters only.",
    }


def test_a_file_in_another_encoding_than_most_is_left_out_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        "".join(f"Größe {n},über\n" for n in range(50)).join(["text,label\n", ""]).encode()
    )
    (tmp_path / "b.csv").write_bytes("text,label\nGröße,über\n".encode("cp1252"))
    (tmp_path / "note.txt").write_bytes("Größe".encode("cp1252"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_bytes("Größe".encode("cp1252"))
    (tmp_path / "docs" / "b.md").write_bytes("Größe".encode())
    text = init(tmp_path)
    task = load_task(tmp_path)
    assert (task.data.examples, task.data.documents, task.data.encoding) == (("a.csv",), (), "utf-8")
    for name in ("b.csv", "note.txt", "docs/: a.md"):
        assert f"left out: {name}: is CP1252, and most here is UTF-8; save it as UTF-8" in text


def test_a_document_that_reading_would_refuse_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty.md").touch()
    with pytest.raises(InputError, match=r"empty\.md: the file is empty; fill it, or leave it out"):
        init(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Text of A.")
    (tmp_path / "docs" / "b.md").touch()
    (tmp_path / "note.txt").write_text("A note.")
    text = init(tmp_path)
    assert load_task(tmp_path).data.documents == ("note.txt",)
    assert "left out: empty.md: the file is empty; fill it, or leave it out" in text
    assert "left out: docs/: b.md: the file is empty; fill it, or leave it out" in text
    accepted(tmp_path)


def test_no_guess_falls_on_a_column_that_is_empty_or_numbers_the_rows(tmp_path: Path) -> None:
    head = "ticket_id,label,notes,text,team,opened,lang\n"
    rows = (
        f"T-{n:05d},,,Message number {n} of many,{'abc'[n % 3]},2026-01-{n % 28 + 1:02d} {n:05d},en\n"
        for n in range(90)
    )
    (tmp_path / "a.csv").write_text(head + "".join(rows))
    text = init(tmp_path)
    assert load_task(tmp_path).data.columns == {"input": "text", "label": "team"}
    assert '# slice = "…"' in text
    assert '# group = "…"' in text


@pytest.mark.parametrize("ids", ["T-{:05d}", "{}", "00{:02x}-{:03d}-ab1", "2026-11-{:02d}"])
def test_an_id_is_never_the_answer(tmp_path: Path, ids: str) -> None:
    rows = (f"{ids.format(n, n)},Message number {n} of many\n" for n in range(1, 30))
    (tmp_path / "a.csv").write_text("reference,remark\n" + "".join(rows))
    with pytest.raises(
        InputError, match=r"there is text \(remark\) and no column of labels or answers; label some: .*draft about 100"
    ):
        init(tmp_path)


def test_an_answer_that_is_a_number_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("remark,sum\n" + "".join(f"What is sum {n}?,{n * 7919 % 977}\n" for n in range(30)))
    init(tmp_path)
    assert load_task(tmp_path).data.columns == {"input": "remark", "output": "sum"}


def test_what_a_layout_reads_by_itself_is_not_written_as_columns(tmp_path: Path) -> None:
    """Written out, rows whose `input` is empty would be refused."""
    rows = [{"instruction": f"Do {n}", "input": "it" if n % 2 else "", "output": f"done with {n}"} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(tmp_path)
    task = load_task(tmp_path)
    assert task.data.columns == {}
    assert len(read_examples(task, task.data.examples).examples) == 30


def graded() -> str:
    return "".join(
        json.dumps({"question": f"Why {n}?", "answer": f"As {n}", "agent": "xy"[n % 2], "grade": "abc"[n % 3]}) + "\n"
        for n in range(60)
    )


def test_a_guess_names_what_was_not_taken_and_how_to_change_it(tmp_path: Path) -> None:
    for name, rows in (("grade", graded()), ("plain", questions(60)), ("faq", graded().replace("grade", "category"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(rows)
    text = init(tmp_path / "grade")
    assert "`grade` the label: 3 classes, 60 rows; a guess: `answer` (“As 0”) could be meant instead, see" in text
    text = init(tmp_path / "faq")
    assert (
        "`answer` the answer: 60 rows; a guess: `category` (“a”) could be meant instead, see data.columns or --output "
        "NAME" in text
    )
    assert '# columns = { input = "question", output = "category" }   # if `category` is to be learnt instead' in text
    assert "a guess:" not in init(tmp_path / "plain")


def test_who_is_asked_decides_what_is_learnt(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(graded().replace("grade", "category"))
    asked: list[object] = []

    def choose(guess: str, rivals: Mapping[str, str]) -> str:
        asked.append((guess, dict(rivals)))
        return "category"

    assert "could be meant instead" not in init(tmp_path, choose=choose)
    assert asked == [("answer", {"category": "a"})]
    task = load_task(tmp_path)
    assert (task.task.kind, task.data.columns) == ("classify", {"input": "question", "label": "category"})
    accepted(tmp_path)


def test_arms_follow_the_kind_that_is_set_later(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(questions(60))
    file = tmp_path / "trimtab.toml"
    file.write_text(init(tmp_path).replace('kind = "answer"', 'kind = "classify"').replace('"contains"', '"accuracy"'))
    assert "linear" in {arm.name for arm in load_task(tmp_path).arms}


def test_labels_that_never_come_back_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"What is {n}?,{n * 7919 % 9973}\n" for n in range(40)))
    init(tmp_path)
    assert load_task(tmp_path).task.kind == "answer"


def test_what_is_published_needs_no_edit(tmp_path: Path) -> None:
    for folder, rows in (("pubmed", of_pubmed()), ("clinc", of_clinc())):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.json").write_text(json.dumps(rows))
        init(tmp_path / folder)
        accepted(tmp_path / folder)
    pubmed, clinc = load_task(tmp_path / "pubmed"), load_task(tmp_path / "clinc")
    assert pubmed.data.columns == {"input": ("CONTEXTS", "QUESTION"), "label": "final_decision"}
    assert pubmed.task.instruction.endswith("one of: maybe, no, yes.")
    assert (clinc.task.kind, clinc.data.columns) == ("classify", {})
    text = (tmp_path / "clinc" / "trimtab.toml").read_text()
    assert "its parts are the splits: train 16 (train, oos_train); dev 7 (val, oos_val); test 9" in text
    assert "\nsplit =" not in text


def test_a_readme_is_a_document_where_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# About\nThe whole handbook.\n")
    (tmp_path / "LICENSE").write_text("Free.\n")
    init(tmp_path)
    assert load_task(tmp_path).data.documents == ("README.md",)
    (tmp_path / "trimtab.toml").unlink()
    (tmp_path / "leave.md").write_text("# Leave\n28 days.\n")
    assert "left out: README.md: about this folder by name; name it under data.documents" in init(tmp_path)
    assert load_task(tmp_path).data.documents == ("leave.md",)


@pytest.mark.parametrize(
    ("asked", "learnt", "joined"),
    [("all.nl", "all.cm", "all.csv"), ("train_text.txt", "train_labels.txt", "train.csv"), ("x.de", "x.en", "x.csv")],
)
def test_parallel_files_are_refused_with_a_line_that_joins_them(
    tmp_path: Path, asked: str, learnt: str, joined: str
) -> None:
    (tmp_path / asked).write_text("".join(f'"Line {n}\n' for n in range(30)))
    (tmp_path / learnt).write_text("".join(f"{'ab'[n % 2]}\n" for n in range(30)))
    (tmp_path / "mapping.txt").write_text("a is one\nb is two\n")
    with pytest.raises(InputError, match=rf"{asked}: is parallel to {learnt}: each has 30 lines") as refused:
        init(tmp_path)
    command = refused.value.remedy.removeprefix("make one file of them: ")
    assert not (tmp_path / joined).exists()
    program, script, *files, _, goal = shlex.split(command)[:1] + shlex.split(command)[2:]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, check=True, text=True)
    assert (program, Path(goal)) == ("python3", tmp_path / joined)
    Path(goal).write_text(done.stdout)
    text = init(tmp_path)
    assert f"examples: {joined}: column `text` is the input" in text
    assert "is parallel to" not in text
    accepted(tmp_path)
    assert load_task(tmp_path).data.examples == (joined,)


def test_of_two_files_with_all_splits_one_is_taken(tmp_path: Path) -> None:
    for name, rows in (("full", 40), ("small", 20)):
        parts = {part: [[f"Text {part} {n}", "ab"[n % 2]] for n in range(rows)] for part in ("train", "val", "test")}
        (tmp_path / f"{name}.json").write_text(json.dumps(parts))
    assert "left out: small.json (60 rows): splits of its own beside full.json: run trimtab init on it" in init(
        tmp_path
    )
    assert load_task(tmp_path).data.examples == ("full.json",)


def test_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(questions(20))
    (tmp_path / "trimtab.toml").write_text("mine")
    with pytest.raises(InputError, match=r"trimtab\.toml: there is a task file already; edit it"):
        init(tmp_path)
    assert (tmp_path / "trimtab.toml").read_text() == "mine"


def test_nothing_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examples and no documents here; put a"):
        init(tmp_path)
    (tmp_path / "README.md").write_text("About")
    (tmp_path / "a.jsonl").write_text('{"question": "a", "answer": NaN}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: NaN is not JSON"):
        init(tmp_path)
    assert not (tmp_path / "trimtab.toml").exists()
    with pytest.raises(MissingError, match="no such folder"):
        init(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ['odd "name" \\ here', "…", "-x-", "Ünïcode"])
def test_odd_names_are_written_so_that_they_load(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.csv").write_text(table(9, 'the "label"\t\\x'.replace('"', "'")))
    init(folder)
    assert load_task(folder).data.examples == (f"{name}.csv",)
    accepted(folder)


def test_schema_writes_nothing(tmp_path: Path) -> None:
    schema = json.loads(init(tmp_path, schema=True))
    assert set(schema["required"]) == {"task", "data"}
    assert "file" not in schema["properties"]
    assert not list(tmp_path.iterdir())


def test_a_link_to_the_folder_itself_shows_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(questions(20))
    (tmp_path / "notes.md").write_text("# Notes\ntext")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    init(tmp_path)
    task = load_task(tmp_path)
    assert (task.data.examples, task.data.documents) == (("a.jsonl",), ("notes.md",))
    accepted(tmp_path)


def test_a_link_to_data_elsewhere_is_followed(tmp_path: Path) -> None:
    for name in ("far", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "far" / "a.jsonl").write_text(questions(20))
    (tmp_path / "here" / "data").symlink_to(tmp_path / "far")
    init(tmp_path / "here")
    assert load_task(tmp_path / "here").data.examples == ("data/a.jsonl",)


@pytest.mark.parametrize(("rows", "said"), [(1, "# 1 example is few"), (2, "# 2 examples are few")])
def test_a_row_or_two_are_no_classification(tmp_path: Path, rows: int, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(questions(rows))
    text = init(tmp_path)
    assert load_task(tmp_path).task.kind == "answer"
    assert said in text


def test_the_kind_is_that_of_the_largest_file_and_the_labels_those_of_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("message,mood\nA short one,glad\nAnother here,sad\nAnd a third,glad\n")
    (tmp_path / "b.csv").write_text(
        "message,mood\n" + "".join(f"Message {n} is here,{'xyz'[n % 3]}\n" for n in range(60))
    )
    text = init(tmp_path)
    assert load_task(tmp_path).task.kind == "classify"
    assert "b.csv: column `message` is the input, `mood` the label" in text


def test_many_loose_documents_are_named_by_a_pattern_that_takes_later_ones_too(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"page{number}.md").write_text(f"# Page {number}\nText of page {number}.\n")
    (tmp_path / "note.txt").write_text("A note.\n")
    init(tmp_path)
    assert load_task(tmp_path).data.documents == ("*.md", "note.txt")
    accepted(tmp_path)
    (tmp_path / "page9.md").write_text("# Page 9\nText of page 9.\n")
    assert len(read_documents(load_task(tmp_path))) == 7


def test_a_text_of_questions_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "leave.txt").write_text("Everybody has 28 days.\nWho asks?\n")
    (tmp_path / "asked.txt").write_text("How many days?\n\nWho pays?\nWhere do I park?\n")
    (tmp_path / "faq.txt").write_text(
        "How many days?\n28.\nWho pays?\nThe firm.\nWhere do I park?\nBehind building B.\n"
    )
    assert "left out: asked.txt: 3 of 3 lines are questions, so it is no document; write the right answer" in init(
        tmp_path
    )
    assert load_task(tmp_path).data.documents == ("faq.txt", "leave.txt")
    accepted(tmp_path)
    (tmp_path / "trimtab.toml").unlink()
    with pytest.raises(InputError, match=r"asked\.txt: 3 of 3 lines are questions"):
        init(tmp_path / "asked.txt")


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"__label__{'ab'[n % 2]} some words {n}\n" for n in range(30)))
    with pytest.raises(InputError, match=r"train\.txt: its lines begin with __label__: rows of fastText"):
        init(tmp_path)
    (tmp_path / "train.txt").rename(tmp_path / "train.conll")
    with pytest.raises(InputError, match=r"no examples and no documents here, but train\.conll; put a"):
        init(tmp_path)
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "rows.jsonl").write_text(questions(20))
    with pytest.raises(InputError, match=r"but deeper: a/b/c/rows\.jsonl; name a folder at most one level above"):
        init(tmp_path)


def test_a_column_of_labels_beside_an_answer_is_named(tmp_path: Path) -> None:
    head = "agent,subject,body,answer,queue\n"
    rows = (f"{'xy'[n % 2]},No {n},I have {n} of them,You are right about {n},{'abc'[n % 3]}\n" for n in range(60))
    (tmp_path / "a.csv").write_text(head + "".join(rows))
    assert "a guess: `queue` (“a”) could be meant instead" in init(tmp_path)
    assert load_task(tmp_path).data.columns == {"input": ("subject", "body"), "output": "answer"}


def test_rows_of_one_label_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"Message {n},spam\n" for n in range(30)))
    assert "# Every row has the label spam: name another column" in init(tmp_path)


def test_a_pattern_never_takes_what_is_no_document(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "README"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\nText of {name}.\n")
    init(tmp_path)
    assert load_task(tmp_path).data.documents == ("a.md", "b.md", "c.md", "d.md")


def test_folders_that_share_a_readme_are_read_as_one(tmp_path: Path) -> None:
    for folder in ("guide", "reference"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"About the {folder}.\n")
        (tmp_path / folder / f"{folder}.md").write_text(f"The {folder} has 3 pages.\n")
    init(tmp_path)
    ids = {document.id for document in read_documents(load_task(tmp_path))}
    assert ids == {f"{folder}/{name}.md" for folder in ("guide", "reference") for name in ("README", folder)}
