"""Drift end to end, on stores filled by hand: no alarm without a change, and the change named, with what to do,
where there is one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judged import judgement, said, served_answer
from registered import DRAFT
from safetensors.numpy import load_file, save_file
from transformers import BertTokenizerFast
from typer.testing import CliRunner

from trimtab.arms.bundle import DOCUMENTS_FILE, BundledDocuments
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import Task, load_task
from trimtab.cli.main import app
from trimtab.data.documents import read_documents
from trimtab.serving.feedback import open_feedback_store
from trimtab.serving.traffic_store import ServedAnswer, traffic_of
from trimtab.upkeep.drift import drift
from trimtab.upkeep.drift_report import DriftReport
from trimtab.upkeep.labels import label
from trimtab.upkeep.registry import registry
from trimtab.upkeep.versions import VersionScore

WINDOW = 40
CITIES = ("rome", "oslo", "lima", "cairo", "paris")
Make = Callable[..., Task]


@pytest.fixture(scope="module")
def embedding_folder(tiny_embedding_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny embedding model with a tokenizer that reads letters, and larger weights: different texts have
    different vectors."""
    folder = tmp_path_factory.mktemp("embedding") / "model"
    shutil.copytree(tiny_embedding_folder, folder)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?'+="
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words[:85])}).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    larger = {name: value * (10 if value.ndim == 2 else 1) for name, value in weights.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def make(tmp_path: Path, embedding_folder: Path) -> Make:
    def made(kind: str = "answer", more: str = "", embedding: str | None = None) -> Task:
        (tmp_path / "docs").mkdir(exist_ok=True)
        for city in CITIES:
            (tmp_path / "docs" / f"{city}.md").write_text(f"# {city}\n\nThe mayor of {city} is anna.\n")
        rows = ({"question": f"who rules {city}", "answer": "anna"} for city in CITIES)
        (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        (tmp_path / "trimtab.toml").write_text(
            f'[task]\nname = "cities"\nkind = "{kind}"\noutput_tokens = 16\n[data]\nexamples = ["rows.jsonl"]\n'
            'documents = ["docs"]\n'
            f'[base]\nmodel = "none"\nembedding = "{embedding or embedding_folder}"\n'
            f"[upkeep]\ndrift = {{ window = {WINDOW}, alarm_free = 20 }}\n{more}"
        )
        return load_task(tmp_path / "trimtab.toml")

    return made


def asked(count: int, seed: int = 0, *, topic: str = "who is the mayor of {}", **more: Any) -> list[ServedAnswer]:
    """Answers to questions of one topic, from one source."""
    own = random.Random(seed)
    found = []
    for number in range(count):
        city = own.choice(CITIES)
        given = {
            "messages": said(topic.format(city)),
            "passages": (f"{city}.md#0",),
            "answer": " ".join(["anna"] * own.randint(1, 5)),
            "similarity": own.uniform(0.5, 0.9),
            "supported": own.random() < 0.8,
            "probability": None,
        }
        found.append(served_answer(10_000 * seed + number, **{**given, **more}))
    return found


def by_day(answers: Sequence[ServedAnswer], each: int) -> list[ServedAnswer]:
    """The answers, so many given on each day."""
    first = answers[0].when
    return [replace(one, when=first + timedelta(days=number // each)) for number, one in enumerate(answers)]


def keep(task: Task, *answers: Sequence[ServedAnswer]) -> None:
    with traffic_of(task) as store:
        for some in answers:
            store.add(some)


def shown(*words: str, task: Task) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["drift", "--task", str(task.folder), *words])
    return found.exit_code, found.output


def registered(task: Task, **more: Any) -> None:
    """A version of the arm rag with the present documents, in production."""
    folder = task.folder / "bundle"
    folder.mkdir(exist_ok=True)
    write_record(folder / DOCUMENTS_FILE, BundledDocuments(documents=read_documents(task)))
    with registry(task) as own:
        version = own.add(replace(DRAFT, task="cities", arm="rag", **more), folder)
        own.promote(version.number or 0, why="a test")


def test_without_a_change_nothing_has_to_be_done(make: Make) -> None:
    task = make()
    keep(task, asked(5 * WINDOW + 7))
    code, output = shown(task=task)
    assert code == 0, output
    assert "No drift in 4 windows" in output
    assert f"lacks {WINDOW - 7} answers" in output


def test_another_topic_is_an_alarm_with_its_questions_and_since_when(make: Make) -> None:
    task = make()
    keep(task, asked(3 * WINDOW), asked(2 * WINDOW, 1, topic="7 + 12 = ? {}"))
    code, output = shown("--json", task=task)
    found = json.loads(output)
    assert code == 1
    assert found["action"] == "label"
    assert [one["number"] for one in found["windows"] if one["drifted"]] == [3, 4]
    assert found["windows"][2]["changes"][0]["signal"] in ("questions", "classifier")
    assert all(one["question"].startswith("7 + 12") for one in found["examples"])
    page = task.folder / "drift.html"
    code, output = shown("--page", str(page), task=task)
    assert code == 1
    assert "Drift since window 3" in output
    assert "7 + 12" in page.read_text()
    assert "<script" not in page.read_text()


def test_one_user_who_asks_about_another_topic_is_no_drift(make: Make) -> None:
    """As many answers to one user as a window has: a sample of one, whatever they say."""
    task = make()
    keep(task, [replace(one, user=f"{number:064x}") for number, one in enumerate(asked(3 * WINDOW))])
    other = asked(WINDOW, 1, topic="is there rain in {} today")
    keep(task, [replace(one, user="f" * 64) for one in other])
    found = drift(task=task)
    assert [one.drifted for one in found.windows] == [False] * 3
    assert found.windows[2].why_not is not None
    assert any("Not judged: window 3" in note for note in found.notes)
    assert "No drift in 2 windows" in found.sentence


def test_alarms_that_were_looked_into_can_be_left_out(make: Make) -> None:
    task = make()
    keep(task, asked(2 * WINDOW), asked(WINDOW, 1, topic="7 + 12 = ? {}"), asked(WINDOW, 2))
    assert shown(task=task)[0] == 1
    code, output = shown("--after", "2", task=task)
    assert code == 0
    assert "looked into: 2" in output


@pytest.mark.parametrize(
    ("changed", "signal", "action"),
    [
        ({"similarity": 0.2}, "similarity", "retrieval"),
        ({"abstained": True, "answer": "no idea at all"}, "abstained", "label"),
        ({"answer": "anna " * 30}, "length", "label"),
    ],
)
def test_each_signal_is_named_and_says_what_to_do(
    make: Make, changed: dict[str, Any], signal: str, action: str
) -> None:
    task = make()
    keep(task, asked(2 * WINDOW), asked(WINDOW, 1, **changed))
    found = drift(task=task)
    assert found.windows[-1].changes[0].signal == signal
    assert found.action == action
    assert found.must_act


def test_a_mix_of_labels_that_moved_is_told_by_the_label(make: Make) -> None:
    task = make("classify")
    rare = ["yes"] * 9 + ["no"]
    own = random.Random(3)
    first = [replace(one, answer=own.choice(rare)) for one in asked(2 * WINDOW)]
    then = [replace(one, answer=own.choice(["yes", "no"])) for one in asked(WINDOW, 1)]
    keep(task, first, then)
    found = drift(task=task)
    (change,) = found.windows[-1].changes
    assert change.signal == "labels"
    assert "is answered in" in change.sentence
    assert not found.windows[0].drifted


def test_a_signal_that_old_answers_lack_is_left_out(make: Make) -> None:
    task = make()
    keep(task, asked(WINDOW, similarity=None, supported=None), asked(WINDOW, 1))
    (window,) = drift(task=task).windows
    assert "similarity" not in window.signals
    assert "abstained" in window.signals


def test_the_order_is_that_of_the_store_whatever_the_clocks_said(make: Make) -> None:
    task = make()
    own = random.Random(5)
    answers = [*asked(2 * WINDOW), *asked(WINDOW, 1, topic="7 + 12 = ? {}")]
    jumping = [replace(one, when=datetime.now(UTC) - timedelta(hours=own.randint(0, 500))) for one in answers]
    keep(task, jumping)
    assert [one.drifted for one in drift(task=task).windows] == [False, True]


def test_the_reference_begins_anew_at_a_promotion(make: Make) -> None:
    task = make()
    registered(task)
    keep(task, asked(2 * WINDOW, version="1"), asked(30, 1, version="2"))  # the second is a canary's
    registered(task)
    keep(task, asked(WINDOW, 2, version="1"), asked(2 * WINDOW, 3, topic="7 + 12 = ? {}", version="2"))
    found = drift(task=task)
    assert (found.version, found.answers) == ("2", 2 * WINDOW)
    assert [one.drifted for one in found.windows] == [False]


def test_the_reference_grows_by_what_did_not_drift_and_stays_at_an_alarm(make: Make) -> None:
    task = make()
    keep(task, asked(6 * WINDOW))
    assert [one.reference // WINDOW for one in drift(task=task).windows] == [1, 2, 3, 3, 3]
    other = make()
    with traffic_of(other) as store:
        store.expire(1, now=datetime.now(UTC) + timedelta(days=9))
    keep(other, asked(2 * WINDOW, 1), asked(3 * WINDOW, 2, topic="7 + 12 = ? {}"))
    found = drift(task=other).windows
    assert [one.drifted for one in found] == [False, True, True, True]
    assert [one.reference // WINDOW for one in found] == [1, 2, 2, 2]


def test_documents_that_changed_are_named_with_the_questions_that_rest_on_them(make: Make) -> None:
    task = make()
    registered(task)
    keep(task, asked(2 * WINDOW, version="1"))
    assert drift(task=task).documents == ()
    (task.folder / "docs" / "new.md").write_text("# new\n\nNothing was said of it before.\n")
    found = drift(task=task)
    assert [(one.document, one.change) for one in found.documents or ()] == [("new.md", "added")]
    assert not found.must_act  # no answer rests on it
    (task.folder / "docs" / "rome.md").write_text("# rome\n\nThe mayor of rome is bert.\n")
    (task.folder / "docs" / "oslo.md").unlink()
    code, output = shown(task=task)
    assert code == 1
    assert "rome.md: changed, 1 of its facts gone" in output
    assert "oslo.md: removed" in output
    assert "who is the mayor of rome" in output
    assert "who is the mayor of lima" not in output
    assert "Refresh (trimtab refresh" in output


def test_questions_are_asked_again_with_the_documents_as_they_are(make: Make) -> None:
    task = make()
    folder = task.folder / "bundle"
    folder.mkdir()
    write_record(folder / DOCUMENTS_FILE, BundledDocuments(documents=read_documents(task)))
    with registry(task) as own:
        draft = replace(DRAFT, task="cities", arm="extract", source="", settings={"chunk_words": 1})
        own.promote(own.add(draft, folder).number or 0, why="a test")
    keep(task, asked(2 * WINDOW, version="1"))
    (task.folder / "docs" / "rome.md").write_text("# rome\n\nThe mayor of rome is bert.\n")
    found = drift(task=task, ask=True)
    (one,) = found.affected
    assert one.question == "who is the mayor of rome"
    assert one.now is not None
    assert one.now != one.answer


def labelled(task: Task, count: int, is_right: Callable[[int], bool], by: str = "anna") -> None:
    with label(task=task, questions=count, by=by) as session:
        for item in session.pending:
            session.judge(item, is_right(int(item.item_id[2:])))


def test_labels_that_fall_below_the_target_ask_for_a_refresh(make: Make) -> None:
    task = make(more="[target]\nquality = 0.9\n")
    keep(task, by_day(asked(8 * WINDOW), 20))
    half = 4 * WINDOW
    labelled(task, 8 * WINDOW, lambda number: number < half or number % 2 == 0)
    found = drift(task=task)
    assert found.quality is not None
    assert found.quality.fell
    assert found.quality.floor == 0.9
    assert found.quality.since is not None
    assert found.quality.since >= 2
    assert (found.action, found.must_act) == ("refresh", True)
    assert "fallen below 0.900" in found.sentence


def test_labels_at_the_target_ask_for_nothing_and_contradictions_are_told(make: Make) -> None:
    task = make(more="[target]\nquality = 0.8\n")
    keep(task, by_day(asked(4 * WINDOW), 20))
    labelled(task, 4 * WINDOW, lambda number: number % 8 > 0)
    labelled(task, 4 * WINDOW, lambda number: number % 8 > 1, by="maria")
    found = drift(task=task)
    assert found.quality is not None
    assert not found.quality.fell
    assert found.quality.contradicted == 4 * WINDOW // 8
    assert any("another wrong count by half" in note for note in found.notes)
    assert found.action == "nothing"


def test_without_a_target_the_measured_score_is_what_quality_is_held_to(make: Make) -> None:
    task = make()
    registered(task, score=VersionScore(value=0.8, low=0.7, high=0.9, n=100, metric="contains"))
    keep(task, by_day(asked(2 * WINDOW, version="1"), 10))
    labelled(task, 2 * WINDOW, lambda number: number % 10 > 6)
    found = drift(task=task)
    assert found.quality is not None
    assert (found.quality.floor, found.quality.fell) == (0.7, True)


def test_labels_of_one_day_do_not_say_that_the_quality_fell(make: Make) -> None:
    task = make(more="[target]\nquality = 0.9\n")
    keep(task, asked(2 * WINDOW))
    labelled(task, 2 * WINDOW, lambda number: number % 10 > 6)
    found = drift(task=task)
    assert found.quality is not None
    assert not found.quality.fell
    assert found.quality.why_not is not None
    assert any("cannot be told yet: it takes 8 days with labels" in note for note in found.notes)


def test_users_who_like_fewer_answers_than_at_first_are_heard(make: Make) -> None:
    task = make()
    keep(task, asked(2 * WINDOW))
    kinds = [*(["like"] * 45 + ["dislike"] * 15), *["dislike"] * 80]
    with open_feedback_store(task) as store:
        for number, kind in enumerate(kinds):
            store.add(judgement(kind, "anna", at=number, id=f"j{number}"))
    code, output = shown(task=task)
    assert (code, "judgements of users" in output) == (0, False)  # of another version than the answers
    keep(task, asked(2 * WINDOW, 1, version="1"))
    code, output = shown(task=task)
    assert code == 1
    assert "Users like fewer answers" in output
    assert "Label" in output


def test_a_user_who_judges_an_answer_again_counts_with_the_last_judgement_alone(make: Make) -> None:
    task = make()
    keep(task, asked(2 * WINDOW, version="1"))
    with open_feedback_store(task) as store:
        for number in range(100):
            kind = "like" if number % 10 else "dislike"
            store.add(judgement(kind, at=number, given=[f"q-{number}"]))
        for number in range(100, 140):  # one user, of another mind each time
            store.add(judgement("dislike", at=number, given=["again"]))
    code, output = shown("--json", task=task)
    found = json.loads(output)["judgements"]
    assert (code, found["labels"], found["fell"]) == (0, 101, False)


def error(task: Task) -> str:
    code, output = shown(task=task)
    assert code == 2
    assert len(output.strip().splitlines()) == 1
    return output


def test_too_little_is_said_in_one_line_with_what_is_missing(make: Make) -> None:
    task = make()
    assert "no answers in use are kept there" in error(task)
    keep(task, asked(WINDOW + 5))
    assert f"{WINDOW + 5} are kept, and {WINDOW - 5} more are needed" in error(task)
    registered(task)
    code, output = shown(task=task)  # without an answer of it, its documents can still be compared
    assert code == 0
    assert f"{2 * WINDOW} more answers tell whether questions drift" in output
    assert "serve --alias production" in output


def test_labels_are_told_before_there_are_enough_answers_for_a_window(make: Make) -> None:
    task = make(more="[target]\nquality = 0.9\n")
    keep(task, by_day(asked(WINDOW + 5), 15))
    labelled(task, WINDOW + 5, lambda _: False)
    found = drift(task=task)
    assert found.windows == ()
    assert found.quality is not None
    assert [(one.labels, one.quality) for one in found.quality.points] == [(15, 0.0)] * 3
    assert any("it takes 8 days" in note and "there are 3" in note for note in found.notes)


def test_a_missing_embedding_model_is_named_with_the_command_that_fetches_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "empty"))
    task = make(embedding="minilm-l6")
    keep(task, asked(2 * WINDOW))
    assert "trimtab pull minilm-l6" in error(task)


@pytest.mark.parametrize("setting", ["window = 1", "window = 1.5", "alarm_free = 0", "weekly = true"])
def test_settings_that_are_nonsense_are_refused(make: Make, setting: str) -> None:
    task = make()
    file = task.folder / "trimtab.toml"
    file.write_text(file.read_text().replace(f"window = {WINDOW}, alarm_free = 20", setting))
    with pytest.raises(InputError, match=r"upkeep\.drift"):
        load_task(file)


def test_what_is_reported_is_plain_json_and_the_reader_gets_the_same(make: Make) -> None:
    task = make()
    keep(task, asked(2 * WINDOW))
    found = drift(task=task)
    assert isinstance(found, DriftReport)
    assert found.sentence in repr(found).replace("\n", " ")
    with pytest.raises(MissingError):
        drift(task=task, store=str(task.folder / "elsewhere" / "feedback.db"))
