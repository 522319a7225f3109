"""Traffic: a masked sample of answers where the task file asks for it, nothing where it does not, and no answer that
waits or breaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judged import served_answer
from serving_tasks import Here, deciding_task, serving_here, wait_until, writing_task

from trimtab.arms.fingerprint import task_settings
from trimtab.base.task import Task, load_task
from trimtab.serving import traffic as recording
from trimtab.serving.config import TrafficTable
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.traffic import is_sampled
from trimtab.serving.traffic_store import Label, ServedAnswer, TrafficStore, traffic_of, user_key

ALL = "[traffic]\nshare = 1.0\nkeep_days = 30"
SECRET = "Write to anna.kowalska@example.org or +44 20 7946 0958"


def label(item: str, by: str = "anna") -> Label:
    return Label(item=item, by=by, right=True, correction=None, when=datetime.now(UTC))


def chat(here: Here, text: str, **more: Any) -> None:
    body = {"model": "rag", "messages": [{"role": "user", "content": text}], "max_tokens": 3}
    with here.client() as client:
        assert client.post("/v1/chat/completions", json={**body, **more}).status_code == 200


def kept(here: Here, count: int) -> list[ServedAnswer]:
    """What was written, once there is so much of it."""
    wait_until(lambda: here.metric("trimtab_traffic_written_total") >= count, 20)
    with traffic_of(load_task(here.folder / "trimtab.toml"), make=False) as store:
        return store.answers()


@pytest.fixture
def recorded(tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Iterator[Here]:
    task = writing_task(tmp_path, tiny_model_folder, tiny_embedding_folder, ALL, arms=("prompt", "rag"))
    with serving_here(task, "prompt", "rag") as here:
        yield here


def test_off_means_that_nothing_is_written(writing: Here) -> None:
    chat(writing, "Where is the bridge of Bonn?")
    folder = writing.folder / ".trimtab"
    assert not list(folder.glob("traffic*"))
    assert writing.parts.traffic is None
    for file in folder.rglob("*"):
        assert not file.is_file() or b"Where is the bridge of Bonn?" not in file.read_bytes()


def test_what_was_asked_and_answered_is_kept_masked(recorded: Here) -> None:
    chat(recorded, SECRET, user="customer-7", stream=False)
    chat(recorded, "Where is the bridge of Bonn?", n=2, temperature=1.0)
    first, *others = kept(recorded, 3)
    assert first.messages[-1].content == "Write to [email] or [phone]"
    assert (first.arm, first.user, first.masked) == ("rag", user_key("customer-7"), True)
    assert first.passages
    assert first.similarity is not None
    assert -1 <= first.similarity <= 1
    assert isinstance(first.supported, bool)
    assert first.milliseconds > 0
    assert {one.user for one in others} == {user_key(recorded.key)}
    assert len({one.id for one in others}) == 2
    for file in (recorded.folder / ".trimtab").glob("traffic*"):
        assert b"kowalska" not in file.read_bytes()


def test_a_stream_is_kept_and_raw_prompts_and_self_checks_are_not(recorded: Here) -> None:
    with recorded.client() as client:
        raw = {"model": "prompt", "prompt": "Bonn?", "max_tokens": 1}
        assert client.post("/v1/raw/completions", json=raw).status_code == 200
    chat(recorded, "Where is Bonn?", stream=True)
    assert [one.messages[-1].content for one in kept(recorded, 1)] == ["Where is Bonn?"]


def test_the_sample_is_a_share_by_the_id_of_the_request(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    ids = [f"request-{number}" for number in range(4_000)]
    sampled = [one for one in ids if is_sampled(one, 0.1)]
    assert 300 < len(sampled) < 500  # 400 expected, 19 the standard deviation
    assert set(sampled) < {one for one in ids if is_sampled(one, 0.2)}
    assert all(is_sampled(one, 1.0) for one in ids)
    more = ALL.replace("1.0", "0.3")
    task = deciding_task(tmp_path, tiny_model_folder, tiny_embedding_folder, more, arms=("prompt",))
    with serving_here(task, "prompt") as here, here.client() as client:
        for one in ids[:20]:
            body = {"model": "prompt", "input": one, "questions": [{"type": "choice", "name": "a"}]}
            assert client.post("/v1/decisions", json=body, headers={"X-Request-Id": one}).status_code == 200
        wanted = [one for one in ids[:20] if is_sampled(one, 0.3)]
        found = kept(here, len(wanted))
    assert [one.messages[-1].content for one in found] == wanted
    assert all(one.probability and one.share == 0.3 for one in found)


def test_a_store_that_hangs_keeps_no_answer_waiting_and_what_is_dropped_is_counted(
    recorded: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, is_free = recorded.parts.traffic, threading.Event()
    assert recorder is not None
    monkeypatch.setattr(recorder._queue, "maxsize", 2)
    monkeypatch.setattr(recorder._store, "add", lambda answers: is_free.wait(30))
    try:
        for number in range(5):
            chat(recorded, f"Question {number}?")
        # one is in the writer's hands and two wait, or up to two more where it took them together
        assert 1 <= recorded.metric("trimtab_traffic_dropped_total") <= 2
    finally:
        is_free.set()


def test_a_store_that_fails_breaks_no_answer(
    recorded: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(answers: object) -> None:
        raise OSError(28, "No space left on device", "traffic.db")

    assert recorded.parts.traffic is not None
    monkeypatch.setattr(recorded.parts.traffic._store, "add", full)
    chat(recorded, "Where is Bonn?")
    wait_until(lambda: recorded.metric("trimtab_traffic_dropped_total") == 1, 20)
    with recorded.client() as client:
        assert 'trimtab_traffic_dropped_total{reason="store"} 1.0' in client.get("/metrics").text
    assert capsys.readouterr().err.count("trimtab: traffic is not kept: ") == 1


def test_what_is_older_than_its_days_goes_when_the_server_starts(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    task = writing_task(tmp_path, tiny_model_folder, tiny_embedding_folder, ALL, arms=("prompt",))
    with traffic_of(load_task(task)) as store:
        store.add([served_answer(1, days=31, answer="an-old-answer"), served_answer(2, days=29)])
        store.label(label("q-1"))
        store.label(label("q-2"))
    with serving_here(task, "prompt"), traffic_of(load_task(task), make=False) as store:
        assert [one.id for one in store.answers()] == ["q-2"]
        assert [one.item for one in store.labels()] == ["q-2"]
    for file in (tmp_path / ".trimtab").glob("traffic*"):
        assert b"an-old-answer" not in file.read_bytes()


def test_what_is_too_old_goes_once_a_day_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    monkeypatch.setattr(recording, "SECONDS_PER_DAY", 0.05)
    task = writing_task(tmp_path, tiny_model_folder, tiny_embedding_folder, ALL, arms=("prompt",))
    with serving_here(task, "prompt"), traffic_of(load_task(task), make=False) as store:
        store.add([served_answer(1, days=31), served_answer(2)])
        wait_until(lambda: len(store.answers()) == 1, 20)


def test_a_user_is_forgotten_with_labels_and_the_bytes_go(tmp_path: Path) -> None:
    with TrafficStore(tmp_path / "traffic.db") as store:
        store.add(
            [served_answer(1, user="anna", answer="a-secret-answer"), served_answer(2, user="bert"), served_answer(3)]
        )
        store.label(label("q-1"))
        store.label(label("q-2"))
        assert store.forget("anna") == 1
        assert store.forget("anna") == 0
        assert [one.id for one in store.answers()] == ["q-2", "q-3"]
        assert [one.item for one in store.labels()] == ["q-2"]
        assert store.forget(user_key("bert")) == 1  # by its hash, as a file of keys has it
        for file in tmp_path.iterdir():
            assert b"a-secret-answer" not in file.read_bytes()
        store.forget(user_key("bert"))
        last = store.draw("traffic", "random").last_row
        store.expire(1, datetime.now(UTC) + timedelta(days=2))
        store.add([served_answer(4)])
        assert store.draw("traffic", "random", after=last).after_row == last  # a number is not given again


def test_a_users_judgements_are_forgotten(recorded: Here) -> None:
    messages = [{"role": "user", "content": "Bonn?"}]
    with recorded.client() as client:
        for more in ({}, {"user": "anna"}):
            asked = {"model": "rag", "messages": messages, "max_tokens": 3, **more}
            reply = client.post("/v1/chat/completions", json=asked).json()
            text = reply["choices"][0]["message"]["content"]
            answer = {"receipt": reply["trimtab"]["receipts"][0], "text": text}
            said = {"kind": "like", "messages": messages, "answers": [answer], **more}
            assert client.post("/feedback", json=said).status_code == 200
        refused = client.post("/feedback", json={**said, "kind": "prefer"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            400,
            "answers: 1 to compare; give 2 to 16",
        )
    with FeedbackStore(recorded.folder / ".trimtab" / "feedback.db") as store:
        assert [one.user for one in store] == [user_key(recorded.key), user_key("anna")]
        assert store.forget("anna") == 1
        assert store.forget(recorded.key) == 1
        assert store.count() == 0


def test_what_a_server_keeps_is_no_setting_of_an_arm() -> None:
    tables = {"task": {"kind": "answer"}, "data": {"examples": ["a.csv"]}, "base": {"model": "m"}}
    kept = Task.model_validate({**tables, "traffic": {"share": 0.5}})
    assert kept.table(TrafficTable) is not None
    assert task_settings(kept) == task_settings(Task.model_validate(tables))
