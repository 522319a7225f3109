"""The model worker: clients that leave, many at once, documents that change, questions that make something raise,
endpoints that hang."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import torch
from hostile_server import answering, chat, reply
from serving_tasks import Here, serving_here, wait_until, writing_task
from study_tasks import CITIES

from trimtab import study
from trimtab.arms.online import ChoosingArm, WritingArm
from trimtab.base.errors import InputError
from trimtab.data import prompts, text_extraction
from trimtab.serving import documents
from trimtab.serving import serve as verb
from trimtab.serving.access import ApiKey, key_digest, new_key

QUESTION = "bridge 12nnob of Bonn?"


def body(text: str = QUESTION, arm: str = "prompt", **more: Any) -> dict[str, Any]:
    return {"model": arm, "messages": [{"role": "user", "content": text}], "max_tokens": 12, **more}


def arm_of(here: Here, name: str) -> Any:
    return here.parts.dispatcher.find_model(name).worker.arms[name]


def is_idle(here: Here) -> bool:
    rooms = {one.worker for one in here.parts.dispatcher.models.values()}
    return here.parts.limiter.inside == 0 and not any(worker._active for worker in rooms)


def posted(here: Here, path: str, asked: Any) -> socket.socket:
    """A request that was sent; its client has left once the connection is closed."""
    data, line = (
        json.dumps(asked).encode(),
        socket.create_connection(("127.0.0.1", int(here.url.rpartition(":")[2])), 9),
    )
    head = f"POST {path} HTTP/1.1\r\nHost: {here.url[7:]}\r\nAuthorization: Bearer {here.key}\r\n"
    line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return line


@contextmanager
def slowed(here: Here, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[WritingArm, list[int]]]:
    """Inside, each pass of an arm takes a twentieth of a second more, as a larger model's does; the arm, and a
    number for each pass."""
    arm, passes = arm_of(here, name), []
    quick = arm.step

    def step() -> Any:
        passes.append(len(passes))
        time.sleep(0.05)
        return quick()

    with monkeypatch.context() as patch:
        patch.setattr(arm, "step", step)
        yield arm, passes


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses"])
def test_a_client_that_leaves_frees_its_slot_within_a_second(
    writing: Here, monkeypatch: pytest.MonkeyPatch, stream: bool, route: str
) -> None:
    own = {"input": QUESTION, "max_output_tokens": 190} if route.endswith("responses") else {"max_tokens": 190}
    asked = {**body(), **own, "stream": stream}  # ten seconds of passes
    left = writing.metric("trimtab_clients_left_total")
    with slowed(writing, "prompt", monkeypatch) as (arm, passes), writing.client() as client:
        if stream:
            with client.stream("POST", route, json=asked) as reply:
                parts = reply.iter_raw()  # kept: without it the connection is closed
                next(parts)
                assert (writing.parts.limiter.inside, arm.pending_count) == (1, 1)
        else:
            with ThreadPoolExecutor(1) as beside:
                leaving = beside.submit(client.post, route, json=asked, timeout=2)
                wait_until(lambda: (writing.parts.limiter.inside, arm.pending_count) == (1, 1), 2)  # before it leaves
                with pytest.raises(httpx.ReadTimeout):
                    leaving.result()
        gone = len(passes)
        wait_until(lambda: is_idle(writing) and arm.pending_count == arm._engine.in_flight == 0, 9)
        assert len(passes) - gone <= 20  # a second's: a clock that no other program on this machine stops
        assert writing.metric("trimtab_clients_left_total") + stream >= left + 1
    wait_until(lambda: is_idle(writing), 9)  # a place is given back after the reply


def test_questions_of_a_client_that_left_are_not_prepared_and_its_place_is_free_when_the_engine_lets_go(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, freed, prepared = arm_of(writing, "rag"), Event(), []
    sound = arm.ask

    def ask(question: Any) -> None:
        prepared.append(question.id)
        freed.wait(30)
        sound(question)

    def has_started() -> bool:
        return (len(prepared), writing.metric("trimtab_waiting")) == (1, 32)

    asked = {"model": "rag", "prompt": CITIES[:4], "n": 8, "max_tokens": 8, "temperature": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(arm, "ask", ask)
        try:
            line = posted(writing, "/v1/completions", asked)
            wait_until(has_started, 9)
            line.close()
            wait_until(lambda: writing.metric("trimtab_waiting") == 0, 9)
            assert writing.metric("trimtab_inside") == 1  # one of its questions is still being prepared
        finally:
            freed.set()
        wait_until(lambda: is_idle(writing), 9)
    assert len(prepared) == 1
    assert arm.pending_count == arm._engine.in_flight == 0


def test_the_draws_of_a_question_share_its_prompt_and_those_of_another_request_do_not(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, prepared = arm_of(writing, "rag"), []
    builder = arm._ready.builder
    sound = builder.prompts
    monkeypatch.setattr(builder, "prompts", lambda rows: [prepared.append(rows[0].input), sound(rows)][1])
    asked = {"model": "rag", "prompt": CITIES[:2], "n": 4, "max_tokens": 4, "temperature": 1.0, "seed": 5}
    with writing.client() as client:
        replies = [client.post("/v1/completions", json=asked).json() for _ in range(2)]
        assert prepared == CITIES[:2] * 2  # not told by its text: that somebody asked the same before must not show
        first, second = ([choice["text"] for choice in reply["choices"]] for reply in replies)
        alone = client.post("/v1/completions", json={**asked, "prompt": CITIES[1], "n": 1}).json()
    assert first == second
    assert first[4] == alone["choices"][0]["text"]
    assert len(set(first)) > 2  # draws of their own


@pytest.mark.parametrize("text", ["the bridge of Bonn " * 10_000, "-" * 190_000])
def test_a_question_that_is_far_too_long_is_refused_before_it_is_tokenized_or_looked_up(
    writing: Here, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    arm, done = arm_of(writing, "rag"), []
    encoder, builder = arm._session.encoder, arm._ready.builder
    with writing.client() as client:
        assert client.post("/v1/chat/completions", json=body(arm="rag")).status_code == 200
        monkeypatch.setattr(encoder, "prompt", lambda messages: done.append(messages))
        monkeypatch.setattr(builder, "prompts", lambda rows: done.append(rows))
        refused = client.post("/v1/chat/completions", json=body(text, "rag"))
    assert refused.status_code == 400
    assert "do not fit the model's context of 256" in refused.json()["error"]["message"]
    assert not done


def test_a_question_that_is_a_little_too_long_is_refused_before_it_is_looked_up(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, looked_up = arm_of(writing, "rag"), []
    builder = arm._ready.builder
    sound = builder.retrieve
    monkeypatch.setattr(builder, "retrieve", lambda rows: [looked_up.append(rows), sound(rows)][1])
    with writing.client() as client:
        codes = [client.post("/v1/chat/completions", json=body("x " * count, "rag")).status_code for count in (40, 130)]
    assert (codes, len(looked_up)) == ([200, 400], 1)


def test_many_at_once_are_answered_like_each_alone(writing: Here) -> None:
    questions = [f"{thing} {number} of {city}?" for number, city in enumerate(CITIES) for thing in ("bridge", "tower")]
    with writing.client() as client:

        def said(text: str, **more: Any) -> str:
            reply = client.post("/v1/chat/completions", json=body(text, **more))
            assert reply.status_code == 200, reply.text
            return str(reply.json()["choices"][0]["message"]["content"])

        for more in ({}, {"arm": "rag"}, {"temperature": 1.0, "seed": 3}):
            alone = [said(text, **more) for text in questions]
            with ThreadPoolExecutor(20) as pool:
                together = list(pool.map(partial(said, **more), questions))
            assert together == alone


def test_passages_that_come_again_are_not_read_again_and_what_was_asked_is_no_one_elses(writing: Here) -> None:
    def asked(text: str, *before: str) -> tuple[list[str], int, int]:
        turns = [{"role": role, "content": said} for role, said in zip(("user", "assistant"), before, strict=False)]
        messages = [*turns, {"role": "user", "content": text}]
        reply = client.post("/v1/chat/completions", json={**body(arm="rag"), "messages": messages}).json()
        read = reply["usage"]
        passages = [passage["text"] for passage in reply["trimtab"]["passages"]]
        return passages, read["prompt_tokens"], read["prompt_tokens_details"]["cached_tokens"]

    def beside(said: tuple[list[str], int, int]) -> int:
        return said[1] - said[2]

    arm_of(writing, "rag")._engine._prefix_cache._public.clear()
    with writing.client() as client:
        first, second = (asked(f"{QUESTION} {word} {word}") for word in ("one", "two"))
        assert first[0] == second[0]
        assert beside(second) < beside(first) - 16
        assert beside(asked(f"{QUESTION} two two")) > len(
            f"{QUESTION} two two".split()
        )  # the question is read each time
        again = [asked(f"{QUESTION} four", "Is it old?", "It is.") for _ in range(2)]
        assert again[0] == again[1]


def test_the_next_turn_goes_on_behind_the_answer_for_the_same_key_alone(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = new_key()
    entry = ApiKey(name="stranger", sha256=key_digest(stranger))
    monkeypatch.setitem(writing.parts.keys._keys, entry.sha256, entry)

    def asked(key: str, *said: str) -> tuple[str, int, int]:
        turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)]
        with httpx.Client(base_url=writing.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            reply = client.post("/v1/chat/completions", json={**body(), "messages": turns}).json()
        usage = reply["usage"]
        text = reply["choices"][0]["message"]["content"]
        return text, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    question = f"{QUESTION} {' '.join(CITIES)}"
    text, read, _ = asked(writing.key, question)
    turns = (question, text, "And when was it built?")
    theirs, ours, theirs_again = (asked(key, *turns) for key in (stranger, writing.key, stranger))
    assert theirs[2] == theirs_again[2] < 16
    assert ours[2] > read
    assert ours[0] == theirs[0]


def test_documents_that_change_on_disk_are_answered_from(writing: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "POLL_SECONDS", 0.02)
    file = writing.folder / "docs" / "Zwickau.md"
    asked = body("Where is the observatory of Zwickau?", "rag")

    def found() -> list[str]:
        with writing.client() as client:
            reply = client.post("/v1/chat/completions", json=asked).json()
        return [passage["text"] for passage in reply["trimtab"]["passages"]]

    assert not any("observatory" in text for text in found())
    try:
        file.write_text("# Zwickau\n\nThe observatory of Zwickau stands on the hill.\n")
        wait_until(lambda: any("on the hill" in text for text in found()), 10)
        file.write_bytes(b"\xff\xfe\x00broken \x00")  # half written: what was read stays
        assert any("on the hill" in text for text in found())
        file.write_text("# Zwickau\n\nThe observatory of Zwickau has moved to the valley.\n")
        wait_until(lambda: any("the valley" in text for text in found()), 10)
    finally:
        file.unlink()
    wait_until(lambda: not any("observatory" in text for text in found()), 10)


def test_questions_are_answered_from_the_former_documents_while_changed_ones_are_read(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "POLL_SECONDS", 0.02)
    started, go_on, read = Event(), Event(), documents.read_documents

    def slow(task: Any) -> Any:
        started.set()
        go_on.wait(60)
        return read(task)

    monkeypatch.setattr(documents, "read_documents", slow)
    file = writing.folder / "docs" / "Zwickau.md"
    asked = body("Where is the observatory of Zwickau?", "rag")

    def finds() -> bool:
        with writing.client() as client:
            reply = client.post("/v1/chat/completions", json=asked).json()
        return any("observatory" in passage["text"] for passage in reply["trimtab"]["passages"])

    try:
        file.write_text("# Zwickau\n\nThe observatory of Zwickau stands on the hill.\n")
        assert started.wait(10)
        assert not finds()
        go_on.set()
        wait_until(finds, 10)
    finally:
        go_on.set()
        file.unlink()
    wait_until(lambda: not finds(), 10)


def test_a_document_beyond_its_bounds_is_named_once_and_the_former_ones_stay(
    writing: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documents, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(documents, "RETRY_FACTOR", 0)
    monkeypatch.setattr(text_extraction, "MOST_LETTERS", 1000)
    file = writing.folder / "docs" / "Zwickau.html"
    lines: list[str] = []

    def looks() -> bool:
        lines.extend(line for line in capfd.readouterr().err.splitlines() if "documents as they were" in line)
        return bool(lines)

    try:
        file.write_text(f"<html><body><main><p>{'Words of Zwickau. ' * 100}</p></main></body></html>")
        wait_until(looks, 30)
        time.sleep(0.2)  # it is tried again meanwhile
        looks()
        assert len(lines) == 1
        assert (
            f"{file}:data.documents: {file.stat().st_size:,} bytes give more than 1,000 letters; save its" in lines[0]
        )
        with writing.client() as client:
            reply = client.post("/v1/chat/completions", json=body("Where is Zwickau?", "rag"))
        assert not any("Words of" in passage["text"] for passage in reply.json()["trimtab"]["passages"])
    finally:
        file.unlink()


def test_a_question_that_makes_the_tokenizer_raise_ends_alone(writing: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = arm_of(writing, "prompt")._session.encoder
    sound = type(encoder).prompt

    def prompt(self: Any, messages: Any) -> Any:
        if "poison" in messages[-1].content:
            raise KeyError("poison")
        return sound(self, messages)

    log = io.StringIO()
    monkeypatch.setattr(writing.parts.log, "_stream", log)
    monkeypatch.setattr(type(encoder), "prompt", prompt)
    with writing.client() as client:
        failed = client.post("/v1/chat/completions", json=body("poison"))
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
        assert client.post("/v1/chat/completions", json=body()).status_code == 200
    wait_until(lambda: is_idle(writing), 9)  # a place is given back after the reply
    (fault,) = (line for line in map(json.loads, log.getvalue().splitlines()) if line["what"] == "fault")
    assert (fault["model"], fault["error"]) == ("tiny:prompt", "KeyError")
    assert "online.py" in "".join(fault["where"])
    assert "poison" not in log.getvalue()  # what was asked stands in no log


@pytest.mark.parametrize("error", [ValueError("odd"), IndexError("odd"), RuntimeError("odd"), MemoryError()])
@pytest.mark.parametrize("stream", [False, True])
def test_a_pass_that_raises_ends_its_questions_and_not_the_room(
    writing: Here, monkeypatch: pytest.MonkeyPatch, error: Exception, stream: bool
) -> None:
    engine = arm_of(writing, "prompt")._engine
    sound, passes = engine._decode, 0

    def decode() -> Any:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise error
        return sound()

    monkeypatch.setattr(engine, "_decode", decode)
    with writing.client() as client:
        failed = client.post("/v1/chat/completions", json=body(stream=stream))
        if stream:  # it has begun already: its last event says so
            assert failed.text.rstrip().rpartition("\n\n")[2].startswith('event: error\ndata: {"error": {"message":')
        else:
            assert failed.status_code == (503 if isinstance(error, MemoryError) else 500)
            assert "odd" not in failed.text
        assert client.post("/v1/chat/completions", json=body()).status_code == 200
        assert client.get("/health/live").status_code == 200
    wait_until(lambda: is_idle(writing), 9)  # a place is given back after the reply
    assert engine.in_flight == 0


def test_one_bad_question_does_not_spoil_those_that_are_chosen_with_it(
    deciding: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm: ChoosingArm = arm_of(deciding, "linear")
    able = arm._ready

    def many(prompts: Any) -> Any:
        time.sleep(0.1)  # so that the others wait and come together
        if any("poison" in prompt.messages[-1].content for prompt in prompts):
            raise ValueError("poison")
        return able.answer_batch(prompts)

    monkeypatch.setattr(arm, "_ready", replace(able, answer_batch=many, answer_one=lambda prompt: many([prompt])[0]))
    with deciding.client() as client, ThreadPoolExecutor(6) as pool:
        texts = [QUESTION, "poison", "tower of Gera?", "poison too", "garden of Hamm?", "Jena?"]
        codes = list(
            pool.map(lambda text: client.post("/v1/chat/completions", json=body(text, "linear")).status_code, texts)
        )
    assert codes == [200, 500, 200, 500, 200, 200]
    wait_until(lambda: is_idle(deciding), 9)  # a place is given back after the reply


def test_an_endpoint_that_hangs_stalls_no_other_arm(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    freed = Event()

    def hang(connection: Any, _: bytes) -> None:
        freed.wait(20)

    with answering(hang) as url:
        table = f'[api.slow]\nurl = "{url}"\nmodel = "x"\n'
        task = writing_task(tmp_path, tiny_model_folder, tiny_embedding_folder, table, ("prompt", "api-slow"))
        try:
            with serving_here(task, "prompt", "api-slow", most=4, allow=[url]) as here, here.client() as client:
                with ThreadPoolExecutor(2) as pool:
                    hung = [
                        pool.submit(
                            httpx.post,
                            f"{here.url}/v1/chat/completions",
                            json=body(arm="api-slow"),
                            headers=here.headers,
                            timeout=3,
                        )
                        for _ in range(2)
                    ]
                    wait_until(lambda: here.parts.limiter.inside == 2, 5)
                    began = time.monotonic()
                    assert client.post("/v1/chat/completions", json=body()).status_code == 200
                    assert time.monotonic() - began < 2.5  # the other two wait for three seconds
                    more = client.post("/v1/chat/completions", json=body(arm="api-slow"))
                    assert (more.status_code, more.headers["Retry-After"]) == (429, "1")  # half of the places stay free
                    for one in hung:
                        assert isinstance(one.exception(), httpx.ReadTimeout)
                wait_until(lambda: here.parts.limiter.inside == 0, 5)
                freed.set()
        finally:
            freed.set()


def test_an_endpoint_that_is_down_at_the_start_is_told_and_can_be_left_to_come_back(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    is_down = False

    def answer(connection: Any, _: bytes) -> None:
        connection.sendall(reply(b"{}", status="503 Down") if is_down else reply(chat("Bonn")))

    with answering(answer) as url:
        table = f'[api.far]\nurl = "{url}"\nmodel = "x"\n'
        task = writing_task(tmp_path, tiny_model_folder, tiny_embedding_folder, table, ("prompt", "api-far"))
        study(task, allow=[url], listeners=[])
        is_down = True
        with (
            pytest.raises(InputError, match=r"no answer to stored questions from api-far \(.*503.*; .*--unequal"),
            serving_here(task, "all", allow=[url]),
        ):
            raise AssertionError
        with serving_here(task, "all", allow=[url], unequal=True) as here, here.client() as client:
            assert list(here.silent) == ["api-far"]
            checks = {model.arm: model.check for model in here.parts.dispatcher.models.values()}
            assert checks["api-far"] is None
            assert checks["prompt"] is not None
            assert checks["prompt"].equal == checks["prompt"].questions
            assert client.post("/v1/chat/completions", json=body()).status_code == 200
            assert client.post("/v1/chat/completions", json=body(arm="api-far")).status_code == 502
            is_down = False
            assert client.post("/v1/chat/completions", json=body(arm="api-far")).status_code == 200


def test_what_is_kept_of_questions_stays_bounded(writing: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MOST_FRAMES", 8)
    arm = arm_of(writing, "rag")
    with writing.client() as client:
        for number in range(5):
            assert (
                client.post("/v1/chat/completions", json=body(f"bridge {number}?", "rag", max_tokens=1)).status_code
                == 200
            )
        assert not arm._session.retriever._hits
        for number in range(40):  # orders of roles, which clients choose
            roles = ["user" if number >> bit & 1 else "assistant" for bit in range(6)]
            turns = [{"role": role, "content": "a"} for role in [*roles, "user"]]
            asked = {"model": "prompt", "messages": turns, "max_tokens": 1}
            assert client.post("/v1/chat/completions", json=asked).status_code in (200, 400)
    assert len(arm._session.encoder._frames) <= 8
    wait_until(lambda: is_idle(writing), 9)  # a place is given back after the reply


def test_the_room_has_all_threads_and_who_loads_its_arms_has_one(
    written: Path, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second thread with helpers of its own would put those of the first to sleep between two products."""
    loading, answering, load, step = [], [], verb.open_online, WritingArm.step

    def loaded(*given: Any) -> Any:
        loading.append(torch.get_num_threads())
        return load(*given)

    def stepped(arm: WritingArm) -> Any:
        answering.append(torch.get_num_threads())
        return step(arm)

    monkeypatch.setattr(verb, "open_online", loaded)
    monkeypatch.setattr(WritingArm, "step", stepped)
    threads(2)  # of threads that begin from now on too
    with serving_here(written, "prompt") as here, here.client() as client:
        assert client.post("/v1/chat/completions", json=body()).status_code == 200
    assert set(loading) == {1}
    assert set(answering) == {2}


FORMS = [{"type": "regex", "pattern": f"[a-c]{{{count}}}"} for count in range(21, 29)]


def test_who_leaves_the_line_of_forms_gives_a_place_back_and_keeps_nobody_waiting(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = arm_of(writing, "prompt")
    sound, started, freed = arm.prepare, [], Event()

    def prepare(question: Any) -> None:
        started.append(question.constraint.regex)
        freed.wait(60)
        sound(question)

    def waiting(count: int) -> bool:
        return writing.metric("trimtab_waiting") == count

    known, slow, *others, last = FORMS
    with writing.client() as client, ThreadPoolExecutor(8) as pool:
        ask = partial(client.post, "/v1/chat/completions", timeout=90)
        assert ask(json=body(response_format=known)).status_code == 200
        monkeypatch.setattr(arm, "prepare", prepare)
        try:
            before = writing.metric("trimtab_clients_left_total")
            lines = []
            for count, form in enumerate((slow, *others), 1):
                lines.append(posted(writing, "/v1/chat/completions", body(response_format=form)))
                wait_until(partial(waiting, count), 9)
            for line in lines:
                line.close()
            wait_until(lambda: is_idle(writing), 9)  # though the first of their forms is still being compiled
            assert writing.metric("trimtab_clients_left_total") == before + len(others) + 1
            behind = pool.submit(ask, json=body(response_format=last))
            wait_until(partial(waiting, 1), 9)
            assert ask(json=body()).status_code == ask(json=body(response_format=known)).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(writing.parts.dispatcher, "_share", 1)
                busy = ask(json=body(response_format=others[0]))  # refused before anything is done for it
                assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
        finally:
            freed.set()
        assert behind.result().status_code == 200
    assert started == [slow["pattern"], last["pattern"]]
    wait_until(lambda: is_idle(writing), 9)


def test_texts_of_a_client_that_left_the_line_are_not_embedded(writing: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, started, freed = verb.Embedder.encode, [], Event()

    def encode(self: Any, texts: Any) -> Any:
        started.append(list(texts))
        freed.wait(60)
        return sound(self, texts)

    def inside(count: int) -> bool:
        return writing.parts.limiter.inside == count

    asked = {"model": writing.parts.embedding}
    monkeypatch.setattr(verb.Embedder, "encode", encode)
    lines = []
    try:
        for count, text in enumerate(("first", "second", "third"), 1):
            lines.append(posted(writing, "/v1/embeddings", {**asked, "input": text}))
            wait_until(partial(inside, count), 9)
        wait_until(lambda: started == [["first"]], 60)  # the model is loaded before
        for line in lines:
            line.close()
        wait_until(partial(inside, 0), 9)
    finally:
        freed.set()
    with writing.client() as client:
        assert client.post("/v1/embeddings", json={**asked, "input": "last"}).status_code == 200
    assert started == [["first"], ["last"]]


def test_questions_that_wait_and_those_that_run_are_counted_apart(
    writing: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> tuple[float, float]:
        return writing.metric("trimtab_waiting"), writing.metric("trimtab_running")

    wait_until(lambda: counted() == (0, 0), 9)
    arm, freed = arm_of(writing, "rag"), Event()
    quick, cached = arm.step, writing.metric("trimtab_cached_prompt_tokens_total")
    monkeypatch.setattr(arm, "step", lambda: [freed.wait(30), quick()][1])
    with writing.client() as client, ThreadPoolExecutor(2) as pool:
        try:
            asked = pool.submit(client.post, "/v1/chat/completions", json=body(arm="rag"))
            wait_until(lambda: counted() == (1, 0), 9)
        finally:
            freed.set()
        usage = asked.result().json()["usage"]
        found = writing.metric("trimtab_cached_prompt_tokens_total") - cached
        assert found == usage["prompt_tokens_details"]["cached_tokens"] > 0
        long = body(arm="rag", max_tokens=40, stream=True)
        with (
            slowed(writing, "rag", monkeypatch),
            client.stream("POST", "/v1/chat/completions", json=long) as reply,
        ):
            parts = reply.iter_raw()  # kept: without it the connection is closed
            next(parts)
            assert counted() == (0, 1)
    wait_until(lambda: counted() == (0, 0), 9)
