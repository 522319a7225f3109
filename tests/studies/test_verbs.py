"""The verbs without a language model: what is listed, found, cited, copied, refused; `check` where there is nothing
to predict."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from trimtab.arms.artifacts import TrainedWeights
from trimtab.arms.store import (
    Pick,
    RunRecord,
    find_saved,
    latest_winner,
    measured_precision,
    read_run,
    write_arm,
    write_run,
)
from trimtab.base.codec import write_record
from trimtab.base.errors import EXIT_NO, InputError, MissingError
from trimtab.base.files import write_own
from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Arm, Encoded, Hit, Passage
from trimtab.base.results import ArmRecord, ArmResult, Estimate, StudyResult, Usage, Verdict
from trimtab.base.task import load_task, parse_arm
from trimtab.cli.check_page import draw_data_audit, draw_rest
from trimtab.measurement.citations import supporting
from trimtab.studies import demo as demo_verb
from trimtab.studies.ask import ask
from trimtab.studies.check import check, mask_runs
from trimtab.studies.demo import copy_demo, demo
from trimtab.studies.run_context import run_context
from trimtab.studies.runs import runs
from trimtab.studies.study import study
from trimtab.studies.train import train
from trimtab.training.monitor import EvalRecord

UNKNOWN = "I don't know"


def hits(*texts: str) -> tuple[Hit, ...]:
    return tuple(
        Hit(
            passage=Passage(id=str(rank), document="d", title="T", path=(), text=text, source="d.md"),
            rank=rank,
            score=1 / rank,
        )
        for rank, text in enumerate(texts, 1)
    )


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("27th", (1, 3)),  # every passage that holds it word for word
        ("The 27TH.", (1, 3)),
        ("7th", ()),  # a part of a word is not the word
        ("salaries on the twenty-seventh", (1,)),  # else the one with most of its words
        ("paid on 27th, in April", ()),  # but only with all its numbers and dates: April stands elsewhere
        ("salaries are paid on the 28th", ()),
        ("Ada Quill says salaries are paid", ()),  # nor does a name stand there by itself
        ("about salaries and bananas", ()),  # less than half of its content words
        ("see it on the 31st", ()),  # "see", "on" and "the" are no evidence
        (UNKNOWN, ()),
        ("I don't know, salaries are paid on the 27th", ()),
        ("", ()),
    ],
)
def test_passages_are_cited_that_hold_the_answer(answer: str, cited: tuple[int, ...]) -> None:
    found = hits("Salaries are paid on the 27th.", "The bonus comes in April.", "See you on the 27th!")
    assert supporting(answer, found, UNKNOWN) == cited
    assert supporting(answer, (), UNKNOWN) == ()


def test_a_question_said_over_again_is_no_answer_that_a_passage_holds() -> None:
    found, question = hits("How salaries are paid: on the 27th."), "How are salaries paid?"
    assert supporting("How are salaries paid?", found, UNKNOWN, question) == ()
    assert supporting("On the 27th", found, UNKNOWN, question) == (1,)


@pytest.mark.parametrize(
    ("question", "answer", "cited"),
    [
        ("What is the door code?", "The door code is 4471.", ()),  # invented, and stands nowhere
        ("What is the door code?", "The door code is 30.", ()),  # that is days of leave
        ("What is the door code?", "The door code is 8250.", ()),  # that is the plumber's
        ("Who has the door code?", "Ask for the door code at the front desk.", (1,)),
        ("Does Idris Valcourt approve leave?", "Idris Valcourt approves the leave.", ()),  # the question says so alone
        ("How many days of leave has Idris Valcourt?", "Idris Valcourt has 30 days of leave.", (1,)),
        ("How many days?", "thirty days of leave", (1,)),
    ],
)
def test_a_number_that_stands_there_for_something_else_supports_nothing(
    question: str, answer: str, cited: tuple[int, ...]
) -> None:
    found = hits(
        "You have 30 days of leave a year. The door code is at the front desk. Ada Quill approves leave.",
        "Ring 8250 for the plumber. The door is green.",
    )
    assert supporting(answer, found, UNKNOWN, question) == cited


TASK = """
[task]
name = "tiny"
kind = "{kind}"
[data]
{data}
[base]
model = "someone/nowhere"
"""
WIDE = """
[arm.wide]
weights = "lora"
rank = 4
"""


def write_task(folder: Path, data: str, kind: str = "answer") -> Path:
    arm = WIDE if "examples" in data else ""
    (folder / "trimtab.toml").write_text(TASK.format(kind=kind, data=data) + arm)
    return folder


def write_known_rows(folder: Path, count: int = 40, extra: str = "") -> str:
    words = ["apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket"]
    rows = [
        {"question": f"{words[n % 10]} {words[n // 10]} {words[(3 * n) % 10]}{n}?", "answer": str(n)}
        for n in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)
    return 'examples = ["rows.jsonl"]'


def drawn(result: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    draw_data_audit(result, console)
    draw_rest(result, result, console, "trimtab study")
    text = console.export_text()
    console.file.close()
    return text


@pytest.mark.usefixtures("all_searched")
def test_while_a_verb_works_searches_for_garbage_pass_over_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nText of A.\n")
    with run_context(load_task(write_task(tmp_path, 'documents = ["a.md"]')), listeners=[]):
        assert gc.get_freeze_count() > 100_000
    assert gc.get_freeze_count() == 0


def test_check_without_labels_says_what_is_missing_and_what_works(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nText of A.\n")
    result = check(write_task(tmp_path, 'documents = ["a.md"]'))
    (remark,) = result.remarks
    assert remark.level == "stop"
    assert "no labelled examples" in remark.text
    assert f'trimtab ask "…" --task {tmp_path}' in remark.text
    assert "About 100 test questions" in remark.text
    assert (result.documents, result.splits, result.forecasts) == (1, {"train": 0, "dev": 0, "test": 0}, ())
    assert "trimtab ask" in drawn(result)


def test_a_study_of_documents_alone_says_what_works_now_and_how_to_label(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nText of A.\n")
    folder = write_task(tmp_path, 'documents = ["a.md"]')
    with pytest.raises(InputError, match="no labelled examples, so approaches cannot be compared") as caught:
        study(load_task(folder))
    assert caught.value.exit_code == EXIT_NO  # nothing is wrong with them
    assert "trimtab questions" in str(caught.value)
    notes = "\n".join(caught.value.__notes__)
    task = f"--task {tmp_path / 'trimtab.toml'}"
    for told in (
        f'trimtab ask "…" {task}',
        f"trimtab serve {task}",
        f"trimtab feedback export {task}",
        f"trimtab study {task}",
    ):
        assert told in notes
    file, settings = tmp_path / "questions.jsonl", 'examples = ["questions.jsonl"]'
    assert str(file) in notes
    assert settings in notes
    row = re.search(r"\{.*\}", notes)
    assert row
    assert json.loads(row[0]).keys() == {"question", "answer"}
    write_known_rows(tmp_path)  # of that shape
    (tmp_path / "rows.jsonl").rename(file)
    write_task(tmp_path, f'documents = ["a.md"]\n{settings}')
    assert sum(check(load_task(folder)).splits.values()) == 40


def test_check_shows_all_it_can_without_models(tmp_path: Path) -> None:
    bad = '{"question": "what?"}\n' + json.dumps({"question": "mail bob@example.com now", "answer": "yes"}) + "\n"
    result = check(write_task(tmp_path, write_known_rows(tmp_path, extra=bad)))
    assert sum(result.splits.values()) == 41
    assert [(Path(row.file).name, row.line) for row in result.refused] == [("rows.jsonl", 41)]
    assert [(finding.kind, finding.count) for finding in result.private] == [("email", 1)]
    assert result.smallest_difference is not None
    assert 0 < result.smallest_difference <= 1
    assert any(remark.level == "warn" and "nowhere" in remark.text for remark in result.remarks)
    shown = drawn(result)
    for part in ("rows.jsonl:41", "1 email in 1 row,", "Nothing stops a study"):
        assert part in shown


def test_check_stops_at_a_model_that_nothing_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, write_known_rows(tmp_path))
    file = tmp_path / "trimtab.toml"
    file.write_text(file.read_text().replace('"someone/nowhere"', '"nowhere"'))
    result = check(file)
    assert [remark.level for remark in result.remarks if "nowhere is neither" in remark.text] == ["stop"]
    assert "Mend what says stop first." in drawn(result)


def test_check_does_not_stop_at_overlaps_but_study_would(tmp_path: Path) -> None:
    data = write_known_rows(tmp_path)
    (tmp_path / "test.jsonl").write_text(
        (tmp_path / "rows.jsonl").read_text().splitlines()[0] + '\n{"question": "one of its own", "answer": "1"}\n'
    )
    folder = write_task(tmp_path, f'{data}\ntest = ["test.jsonl"]')
    result = check(folder)
    assert result.remarks[0].level == "stop"
    assert "test.jsonl:1" in result.remarks[0].text
    assert len(result.overlaps) == 1
    assert result.private == ()
    task = (folder / "trimtab.toml").read_text().replace("[base]", 'leakage = "report"\n[base]')
    (folder / "trimtab.toml").write_text(task)
    assert check(folder).remarks[0].level == "warn"


def test_labels_are_counted_the_most_frequent_first(tmp_path: Path) -> None:
    rows = [{"text": f"word{n} other{n * 7}", "label": "ab"[n % 3 == 0]} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = check(write_task(tmp_path, 'examples = ["rows.jsonl"]', kind="classify"))
    assert list(result.labels.items()) == [("a", 20), ("b", 10)]


def test_pieces_are_cut_where_the_loss_mask_changes() -> None:
    encoded = Encoded(ids=(5, 6, 7, 8, 9), trained=(False, False, True, True, False))
    pieces = mask_runs(encoded, lambda ids: "".join(map(str, ids)))
    assert [(piece.text, piece.trained) for piece in pieces] == [("56", False), ("78", True), ("9", False)]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A task with one finished study, one unfinished, and three training runs, written as the verbs write them."""
    folder = write_task(tmp_path, write_known_rows(tmp_path))
    home = folder / ".trimtab"

    def put_run(name: str, arm: Arm, result: TrainedWeights | None) -> None:
        (home / "runs" / name).mkdir(parents=True)
        record = RunRecord(
            arm=arm,
            seed=0,
            chosen={},
            depends={},
            model="someone/nowhere",
            revision=None,
            embedding="minilm-l6",
            recipe=None,
            precision="fp32",
            machine={},
            counts={},
            result=result,
        )
        write_run(home / "runs" / name, record)

    blend = arm_from_name("lora+few-shot")
    assert blend is not None
    score = Estimate(value=0.75, low=0.7, high=0.8, n=9)
    done = ArmResult(arm=blend.name, status="done", score=score, chosen={"shots": 8}, train_seconds=12.5)
    study = home / "studies" / "20260101T000000Z-aaaaaa"
    (study / "arms" / blend.name).mkdir(parents=True)
    usage = Usage(
        train_seconds=1.0,
        evaluation_seconds=1.0,
        index_seconds=0.0,
        seconds_per_question=1.0,
        prompt_tokens=1.0,
        new_tokens=1.0,
        runs_on_own_machine=True,
        trained=True,
        token_fee=None,
    )
    record = ArmRecord(
        arm=blend,
        digest="d",
        model="someone/nowhere",
        revision=None,
        embedding="minilm-l6",
        usage=usage,
        result=done,
        classes=None,
    )
    write_arm(study / "arms" / blend.name, record)
    result = StudyResult(
        study=study.name,
        task="t",
        metric="token_f1",
        target=None,
        verdict=Verdict(status="shown", arm=blend.name, sentence="s"),
        arms=(done, ArmResult(arm="x", status="failed", why="w")),
        comparisons=(),
        report="r",
    )
    write_record(study / "study.json", result)
    (home / "studies" / "20260103T000000Z-bbbbbb").mkdir()
    wide = Arm(name="wide", weights="lora", stages=("sft",), context="prompt", settings={"rank": 4})
    reading = EvalRecord(step=1, train_loss=1.0, dev_loss=1.0, dev_metric=0.5)
    trained = TrainedWeights(seconds=3.0, best=reading)
    put_run("20260102T000000Z-cccccc", wide, trained)
    put_run("20260104T000000Z-dddddd", wide, None)
    put_run("20260105T000000Z-eeeeee", replace(wide, settings={"rank": 64}), trained)
    return folder


def test_runs_are_listed_the_newest_first(kept: Path) -> None:
    listed = [(info.id[-6:], info.kind, info.state, info.arm, info.score) for info in runs(kept)]
    assert listed == [
        ("eeeeee", "run", "done", "wide", 0.5),
        ("dddddd", "run", "unfinished", "wide", None),
        ("bbbbbb", "study", "unfinished", None, None),
        ("cccccc", "run", "done", "wide", 0.5),
        ("aaaaaa", "study", "done", "lora+few-shot", 0.75),
    ]
    assert runs(kept)[-1].when == "2026-01-01 00:00 UTC"


def test_weights_are_those_of_the_newest_finished_run_of_this_very_arm_else_of_a_study(kept: Path) -> None:
    task = load_task(kept)
    found = find_saved(task, parse_arm("wide", task))
    assert found is not None
    assert (found.id[-6:], found.trained.seconds, found.chosen) == ("cccccc", 3.0, {})
    blend = parse_arm("lora+few-shot", task)
    studied = find_saved(task, blend)
    assert studied is not None
    assert (studied.chosen, studied.trained.seconds) == ({"shots": 8}, 12.5)
    assert studied.folder.parts[-2:] == ("lora+few-shot", "run-0")
    assert latest_winner(task) == Pick("lora+few-shot", studied.id, "shown")
    assert find_saved(task, blend, studied.id) == studied
    assert find_saved(task, parse_arm("lora", task)) is None
    for run, words in (
        ("20260104T000000Z-dddddd", "--resume 20260104T000000Z-dddddd"),
        ("20260102T000000Z-cccccc", "not of lora[+]few-shot"),
        ("..", "no such run or study"),
        ("gone", "no such run or study"),
        ("20260103T000000Z-bbbbbb", "a study that has not finished arm lora[+]few-shot"),
    ):
        arm = parse_arm("wide", task) if "dddddd" in run else blend
        with pytest.raises(MissingError, match=words):
            find_saved(task, arm, run)


@pytest.mark.parametrize(
    ("trained", "taken"), [("20251231T000000Z-ffffff", "20260101T000000Z-aaaaaa"), ("20260102T000000Z-ffffff", None)]
)
def test_weights_are_those_that_were_made_or_measured_last(kept: Path, trained: str, taken: str | None) -> None:
    """A study trains anew: what it says of an arm it says of its own weights, not of an older run's, whose nobody
    measured."""
    task = load_task(kept)
    blend = parse_arm("lora+few-shot", task)
    run = read_run(kept / ".trimtab" / "runs" / "20260102T000000Z-cccccc")
    assert run is not None
    write_run(kept / ".trimtab" / "runs" / trained, replace(run, arm=blend))
    found = find_saved(task, blend)
    assert found is not None
    assert found.id == (taken or trained)
    assert (found.result is not None) is (taken is not None)
    winner = latest_winner(task)  # its weights are the study's, whatever was trained since
    assert winner is not None
    picked = find_saved(task, blend, winner.study)
    assert picked is not None
    assert (picked.id, picked.result is not None) == ("20260101T000000Z-aaaaaa", True)


def test_the_precision_is_that_of_the_measurement_unless_the_task_says_one(kept: Path) -> None:
    task = load_task(kept)
    of_a_run, of_a_study = (find_saved(task, parse_arm(name, task)) for name in ("wide", "lora+few-shot"))
    assert measured_precision(of_a_run, task) == "fp32"
    assert measured_precision(of_a_study, task) is None  # nothing was saved
    manifest = kept / ".trimtab" / "studies" / "20260101T000000Z-aaaaaa" / "manifest.json"
    write_own(manifest, {"precision": "bf16"})
    assert measured_precision(of_a_study, task) == "bf16"
    assert measured_precision(None, task) is None
    told = task.model_copy(update={"base": task.base.model_copy(update={"precision": "fp32"})})
    assert measured_precision(of_a_study, told) is None


@pytest.mark.parametrize("change", [("nowhere", "elsewhere"), ('nowhere"', 'nowhere"\nrevision = "v2"')])
def test_what_was_made_on_another_base_model_is_not_used_and_that_is_told(kept: Path, change: tuple[str, str]) -> None:
    from trimtab.studies.eval import eval as score

    file = kept / "trimtab.toml"
    assert latest_winner(load_task(kept)) == Pick("lora+few-shot", "20260101T000000Z-aaaaaa", "shown")
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(
        InputError, match=r"chose lora\+few-shot on someone/nowhere, and the task file now names .*--arm"
    ):
        ask("Why?", task=kept)
    for verb in (
        lambda: ask("Why?", task=kept, arm="lora+few-shot"),
        lambda: score(kept, "lora+few-shot"),
        lambda: ask("Why?", task=kept, arm="wide"),
        lambda: score(kept, "wide", run="20260102T000000Z-cccccc"),
    ):
        with pytest.raises(
            MissingError, match=r"trained on someone/nowhere, and the task file now names .*: trimtab train"
        ):
            verb()


def test_a_run_is_gone_on_with_as_the_arm_it_is_of(kept: Path) -> None:
    with pytest.raises(InputError, match="is a run of arm wide; go on with: trimtab train wide --resume 2026"):
        train(kept, "lora", resume="20260104T000000Z-dddddd", listeners=[])


def test_a_tuned_arm_without_weights_names_the_command_that_makes_them(kept: Path) -> None:
    from trimtab.studies.eval import eval as score

    for verb in (lambda: ask("Why?", task=kept, arm="lora"), lambda: score(kept, "lora")):
        with pytest.raises(MissingError, match="trimtab train lora"):
            verb()
    with pytest.raises(InputError, match="nothing to train"):
        train(kept, "prompt")
    with pytest.raises(MissingError, match="no run of lora to go on with"):
        train(kept, "lora", resume="latest")
    with pytest.raises(InputError, match="question is empty"):
        ask(" ", task=kept)


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the arguments of calls of `study` and `pull`, neither of which runs."""
    called: list[Any] = []
    monkeypatch.setattr(
        demo_verb, "study", lambda task, **named: called.append((task, named)) or SimpleNamespace(study="S")
    )
    monkeypatch.setattr(demo_verb, "fetch_model", lambda model, near, listeners: called.append(model))
    return called


def test_the_demo_copies_its_example_and_says_what_comes(studied, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    demo("handbook", cut=True)
    *models, (task, named) = studied
    assert models == ["smollm2-135m-q4", "minilm-l6"]
    assert task.file == Path("trimtab-demo-handbook/demo.toml")
    assert named == {"allow_commands": True, "listeners": None}
    place = tmp_path / "trimtab-demo-handbook"
    assert (place / "documents" / "payday.md").is_file()
    assert not (place / "make.py").exists()
    told = capsys.readouterr().err
    assert "5 ways" in told
    assert "at most about 12 minutes" in told
    for arm in task.arms:
        assert f"  {arm.name} " in told
    (place / ".trimtab").mkdir()
    (place / "mine.txt").write_text("mine")
    demo("handbook", cut=True)
    assert (place / "mine.txt").read_text() == "mine"


def test_the_demo_overwrites_nothing_and_every_example_has_its_cut(studied, tmp_path) -> None:
    (tmp_path / "score.py").write_text("print('mine')")
    with pytest.raises(InputError, match="choose another place with --folder"):
        demo("style", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["score.py"]
    for name in ("handbook", "spam", "style"):
        file = copy_demo(name, tmp_path / name, cut=True)
        assert (file.name, load_task(file).task.name) == ("demo.toml", f"{name}-demo")
    with pytest.raises(MissingError, match="no bundled example"):
        demo("nothing", folder=tmp_path / "nothing")
    assert studied == []


def test_a_question_in_another_encoding_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the question is not UTF-8 text; write it in UTF-8"):
        ask("caf\udce9?", task=tmp_path / "none.toml")
