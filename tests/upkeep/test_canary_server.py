"""A canary through the real server with simulated users: promoted, rolled back, undecided, killed and gone on with."""

from __future__ import annotations

import io
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from followed import registered, served, version
from judged import served_answer
from patience import no_patience, timed_once
from serving_tasks import Here, serving_apart, serving_here, wait_until

from trimtab import registry
from trimtab.arms.online import OnlineArm
from trimtab.base.task import load_task
from trimtab.serving import follow as following
from trimtab.serving.access import add_key, key_digest, read_keys
from trimtab.serving.feedback import open_feedback_store
from trimtab.serving.releases import Canary
from trimtab.serving.traffic import user_of, voter_of
from trimtab.serving.traffic_store import traffic_of, user_key
from trimtab.serving.worker import ModelWorker
from trimtab.upkeep import canary as upkeep
from trimtab.upkeep.canary import Canaries
from trimtab.upkeep.canary_functions import open_canaries
from trimtab.upkeep.registry import Registry
from trimtab.upkeep.user_comparison import LEAST_USERS

__all__ = ["no_patience", "registered", "timed_once"]

pytestmark = pytest.mark.slow

USERS = [f"user-{number}" for number in range(200)]
ENOUGH = LEAST_USERS + 2  # on each side


@pytest.fixture
def task(registered: Path, tmp_path: Path) -> Path:
    """The task in a folder of its own, with traffic, version 1 (`quick`) in production and 2 (`rag`) as the
    candidate."""
    copy = shutil.copytree(registered.parent, tmp_path / "task") / registered.name
    # With a limit, as `rag` may take more than 1.5 times as long as `quick`, and that alone would end a canary.
    more = '[target]\nlatency_p95_ms = 60000\n[traffic]\nshare = 1.0\n[upkeep]\npromote = "if-better"\n'
    copy.write_text(f"{copy.read_text()}\n{more}")
    with registry(copy) as own:
        own.promote(1, why="the first")
        own.promote(2, "candidate", why="to try")
    with traffic_of(load_task(copy)) as store:  # users who were known before a canary began
        store.add([served_answer(number, days=9, user=user) for number, user in enumerate(USERS)])
    return copy


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(following, "CANARY_POLL_SECONDS", 0.2)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A server that follows production with its canaries, and another process's view of both."""

    here: Here
    versions: Registry
    canaries: Canaries
    log: io.StringIO

    def line(self, what: str) -> dict[str, Any]:
        """The first line of the log of a kind, once it is there."""

        def lines() -> list[dict[str, Any]]:
            told = [json.loads(one) for one in self.log.getvalue().splitlines() if one.startswith("{")]
            return [one for one in told if one["what"] == what]

        wait_until(lambda: bool(lines()), 60)
        return lines()[0]

    def begun(self, **options: Any) -> Canary:
        """Begin a canary, and wait until its candidate answers."""
        canary = self.canaries.start(share=0.5, **options).canary
        wait_until(lambda: self.here.parts.dispatcher.canary is not None, 60)
        return canary


@contextmanager
def watched(task: Path) -> Iterator[Watched]:
    with (
        redirect_stderr(io.StringIO()) as log,
        registry(task) as versions,
        open_canaries(load_task(task), None, None, None) as source,
        open_canaries(load_task(task), None, None, None) as canaries,
        serving_here(task, follow=versions.follow(), canaries=source) as here,
    ):
        yield Watched(here=here, versions=versions, canaries=canaries, log=log)


def ask(client: httpx.Client, user: str | None, text: str = "Bonn?", **more: Any) -> dict[str, Any]:
    """Ask as a user; the reply."""
    body: dict[str, Any] = {"model": "production", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    reply = client.post("/v1/chat/completions", json={**body, **({"user": user} if user else {}), **more})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def judge(client: httpx.Client, user: str, reply: dict[str, Any], *, likes: bool) -> None:
    """Judge an answer as the page does, by its receipt."""
    done = client.post("/feedback", json={**judged_body(reply, likes=likes), "user": user})
    assert done.status_code == 200, done.text


def judged_body(reply: dict[str, Any], *, likes: bool = True) -> dict[str, Any]:
    """What a page sends of an answer, without the user."""
    answer = {"receipt": reply["trimtab"]["receipts"][0], "text": reply["choices"][0]["message"]["content"]}
    messages = [{"role": "user", "content": "Bonn?"}]
    return {"kind": "like" if likes else "dislike", "messages": messages, "answers": [answer]}


def drawn(canary: Canary, count: int = ENOUGH) -> list[str]:
    """So many users of the candidate, and of production."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for user in USERS:
        sides[canary.takes(user_key(user))].append(user)
    return sides[True][:count] + sides[False][:count]


def used(client: httpx.Client, canary: Canary, likes: Callable[[int], bool], users: list[str]) -> None:
    """Have users ask once, and then say whether they like answers of the version that answered them."""
    replies = {user: ask(client, user) for user in users}
    for user, reply in replies.items():
        number = reply["trimtab"]["release"]["version"]
        assert number == (canary.candidate if canary.takes(user_key(user)) else canary.production)
        judge(client, user, reply, likes=likes(number))


def test_a_candidate_that_users_like_better_becomes_production_without_being_loaded_again(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[ModelWorker] = []
    made = ModelWorker.__init__

    def noted(self: ModelWorker, *given: Any, **more: Any) -> None:
        made(self, *given, **more)
        rooms.append(self)

    monkeypatch.setattr(ModelWorker, "__init__", noted)
    with watched(task) as one, one.here.client() as client:
        canary = one.begun(why="documents")
        assert version(one.here) == 1
        candidate = one.here.parts.dispatcher.canary
        assert candidate is not None
        used(client, canary, lambda number: number == 2, drawn(canary))
        wait_until(lambda: version(one.here) == 2, 60)
        assert one.line("canary_ended")["outcome"] == "promoted"
        assert one.line("release")["version"] == 1
        (now,) = one.here.parts.dispatcher.models.values()
        assert now.worker is candidate.served.worker
        assert now.release is not None
        assert now.release.alias == "production"
        assert len(rooms) == 2
        assert {ask(client, user)["trimtab"]["release"]["version"] for user in USERS[:6]} == {2}
        record = one.canaries.status().record
        assert record is not None
        assert one.versions.history("production")[0].evidence == record
        assert record.evidence.quality is not None
        assert min(record.evidence.quality.candidate_users, record.evidence.quality.production_users) >= LEAST_USERS
        wait_until(lambda: len(one.here.parts.dispatcher._requests_of) == 1, 60)  # version 1 is let go
        one.versions.rollback(why="after all")
        wait_until(lambda: version(one.here) == 1, 60)


def test_a_candidate_that_users_like_less_is_rolled_back_and_what_is_served_is_byte_equal(task: Path) -> None:
    with watched(task) as one, one.here.client() as client:
        before = served(one.here)
        canary = one.begun()
        assert served(one.here)["files"] == before["files"]
        active = one.here.parts.dispatcher.canary
        assert active is not None
        worker = weakref.ref(active.served.worker)
        del active
        used(client, canary, lambda number: number == 1, drawn(canary))
        wait_until(lambda: one.here.parts.dispatcher.canary is None, 60)
        assert one.line("canary_ended")["outcome"] == "rolled_back"
        assert served(one.here) == before
        assert {ask(client, user)["trimtab"]["release"]["version"] for user in USERS[:6]} == {1}
        assert [move.version for move in one.versions.history("production")] == [1]
        wait_until(lambda: len(one.here.parts.dispatcher._requests_of) == 1, 60)
        found = worker()
        assert found is None or not found.is_alive


def test_at_the_deadline_production_stays_byte_equal(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(task) as one, one.here.client() as client:
        before = served(one.here)
        canary = one.begun(days=14)
        used(client, canary, lambda number: True, USERS[:4])
        assert one.canaries.status().record is None
        monkeypatch.setattr(upkeep, "SECONDS_A_DAY", 1e-3)
        wait_until(lambda: one.here.parts.dispatcher.canary is None, 60)
        assert one.line("canary_ended")["outcome"] == "undecided"
        assert served(one.here) == before


def test_a_user_stays_with_one_version_by_every_route_and_who_is_unknown_gets_production(task: Path) -> None:
    with watched(task) as one, one.here.client() as client:
        canary = one.begun()
        taken, other = (
            next(user for user in USERS if canary.takes(user_key(user)) is takes) for takes in (True, False)
        )
        own = canary.takes(user_key(one.here.key))
        for user, takes in ((taken, True), (other, False), (None, own)):
            named = {"user": user} if user else {}
            expected = 2 if takes else 1
            for name in ("production", "tiny", "tiny:quick"):
                assert ask(client, user, model=name)["trimtab"]["release"]["version"] == expected
            body = {"model": "tiny", "prompt": "Bonn?", "max_tokens": 2, **named}
            assert client.post("/v1/completions", json=body).json()["model"] == ("tiny:rag" if takes else "tiny:quick")
            body = {"model": "tiny", "input": "Bonn?", "max_output_tokens": 2, **named}
            assert client.post("/v1/responses", json=body).json()["model"] == ("tiny:rag" if takes else "tiny:quick")
            with client.stream(
                "POST",
                "/v1/chat/completions",
                json={"model": "tiny", "messages": [{"role": "user", "content": "Bonn?"}], "stream": True, **named},
            ) as stream:
                assert f'"version": {expected}' in "".join(stream.iter_text())
        wait_until(lambda: one.here.metric("trimtab_traffic_written_total") >= 18, 20)
    with traffic_of(load_task(task), make=False) as store:
        kept = {(answer.user, answer.version) for answer in store.answers() if answer.version != "one"}
    assert kept == {
        (user_key(taken), "2"),
        (user_key(other), "1"),
        (user_key(one.here.key), "2" if own else "1"),
    }


def test_all_names_of_a_key_that_is_not_marked_are_one_voter(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    plain, naming = add_key(keys, "plain"), add_key(keys, "naming", names_users=True)
    parts = SimpleNamespace(scope={})
    found = read_keys(keys)
    parts.scope["trimtab.key"] = found.find(plain)
    voters = {voter_of(parts, name) for name in (*USERS, None)}  # type: ignore[arg-type]
    assert voters == {f"key:{key_digest(plain)}"}
    assert user_of(parts, USERS[0]) == user_key(USERS[0])  # type: ignore[arg-type]  # by whom it can be forgotten
    parts.scope["trimtab.key"] = found.find(naming)
    assert voter_of(parts, USERS[0]) == user_key(USERS[0])  # type: ignore[arg-type]


def test_a_judgement_goes_to_the_version_that_answered_and_to_no_other(task: Path) -> None:
    with watched(task) as one, one.here.client() as client:
        earlier = ask(client, USERS[0])
        canary = one.begun()
        judge(client, USERS[0], earlier, likes=True)
        for user in USERS[1:5]:
            judge(client, user, ask(client, user), likes=True)
        refused = client.post("/feedback", json={**judged_body(earlier), "user": USERS[6]})
        assert refused.status_code == 404
        assert "answers.0: this user was given no such answer to this question here" in refused.text
        with open_feedback_store(load_task(task), make=False) as store:
            versions = {judgement.user: judgement.answers[0].version for judgement in store}
    assert versions == {
        user_key(USERS[0]): "1",
        **{user_key(user): "2" if canary.takes(user_key(user)) else "1" for user in USERS[1:5]},
    }


def test_a_candidate_that_cannot_be_loaded_is_rolled_back_with_the_reason(task: Path) -> None:
    with watched(task) as one:
        before = served(one.here)
        bad = one.versions.show(2)
        folder = one.versions.artifacts.get(bad.artifact_sha256 or "", task.parent / "odd")
        plain = json.loads((folder / "questions.json").read_text())
        plain["questions"] = [{**question, "answer": "another"} for question in plain["questions"]]
        (folder / "questions.json").write_text(json.dumps(plain))
        odd = one.versions.add(bad, folder)
        one.canaries.start(odd.number)
        ended = one.line("canary_ended")
        assert ended["outcome"] == "rolled_back"
        assert "rag: 0 of 15 stored answers equal, 15 different" in ended["why"]
        record = one.canaries.status().record
        assert record is not None
        assert record.why == ended["why"]
        assert served(one.here) == before
        assert version(one.here) == 1


def test_answers_that_fail_take_the_candidate_back(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(task) as one, one.here.client() as client:
        canary = one.begun()
        active = one.here.parts.dispatcher.canary
        assert active is not None

        def fails(*_: object) -> None:
            raise RuntimeError("a fault of the candidate")

        live: OnlineArm = active.served.worker.arms[active.served.arm]
        monkeypatch.setattr(live, "ask", fails)
        failed = 0
        for user in drawn(canary):
            body = {"model": "tiny", "messages": [{"role": "user", "content": "Bonn?"}], "max_tokens": 1, "user": user}
            status = client.post("/v1/chat/completions", json=body).status_code
            if one.here.parts.dispatcher.canary is not None:
                assert status == (500 if canary.takes(user_key(user)) else 200)
            failed += status == 500
        wait_until(lambda: one.here.parts.dispatcher.canary is None, 60)
        assert "more of its answers fail" in one.line("canary_ended")["why"]
        assert failed >= LEAST_USERS


def test_no_request_is_lost_when_a_canary_begins_and_ends(task: Path) -> None:
    with watched(task) as one, one.here.client() as client:
        stop = threading.Event()

        def asks(user: str) -> int:
            count = 0
            while not stop.is_set():
                ask(client, user)
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            counts = [pool.submit(asks, user) for user in USERS[:4]]
            try:
                for _ in range(2):
                    one.begun(version=2)  # ending one takes the name `candidate` from it
                    one.canaries.stop("enough")
                    wait_until(lambda: one.here.parts.dispatcher.canary is None, 60)
            finally:
                stop.set()
            assert all(count.result() > 0 for count in counts)


def test_a_server_that_is_killed_goes_on_with_the_canary(task: Path) -> None:
    with open_canaries(load_task(task), None, None, None) as canaries:
        canary = canaries.start(share=0.5).canary
        users = drawn(canary)
        with serving_apart(task, "--alias", "production") as server:
            with httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client:
                wait_until(lambda: any('"what": "canary"' in line for line in server.lines), 120)
                used(client, canary, lambda number: number == 2, users[::2])
            server.process.kill()
            server.process.wait()
        assert canaries.current() == canary
        with watched(task) as one, one.here.client() as client:
            wait_until(lambda: one.here.parts.dispatcher.canary is not None, 60)
            used(client, canary, lambda number: number == 2, users[1::2])
            wait_until(lambda: version(one.here) == 2, 60)
        record = canaries.status().record
        assert record is not None
        assert record.outcome == "promoted"
        assert record.evidence.quality is not None
        # Each server had half of them, which shows nothing alone.
        assert min(record.evidence.quality.candidate_users, record.evidence.quality.production_users) >= LEAST_USERS
