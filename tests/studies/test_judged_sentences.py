"""A study whose judge says of each sentence whether the passages support it: over a real address, and on this
machine."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hostile_server import answering, reply
from study_tasks import folder_of, rows_of, write_task

import trimtab
from trimtab.arms import judges
from trimtab.arms.store import ANSWERS
from trimtab.base.errors import ConsentError
from trimtab.base.results import StudyResult
from trimtab.inference.remote import RemoteModel
from trimtab.measurement import judge as measured
from trimtab.measurement.groundedness import JUDGED_SENTENCES
from trimtab.measurement.judge import GROUNDEDNESS

TESTS = 12  # of 48 rows
TASK = 'kind = "generate"\nmetric = "judged"\noutput_tokens = 8'
TABLE = """
[judge]
criteria = { right = "Names the city." }
groundedness = true
"""
ENDPOINTS = """by = "big"
[api.big]
url = "{url}"
model = "judge"
price_per_million = {{ input = 1.0, output = 2.0, as_of = 2026-11-01, source = "list" }}
[api.one]
url = "{url}"
model = "one"
"""


class Endpoint:
    """Writes two sentences for an arm, of which the judge finds the first supported and the second missing; answers
    written with passages score more. From the judgement of a sentence `sound` on it does `fault`."""

    def __init__(self) -> None:
        self.sound, self.fault = float("inf"), ""
        self.sentences: Counter[str] = Counter()
        self.answers = 0
        self._lock = threading.Lock()

    def answer(self, connection: socket.socket, body: bytes) -> None:
        asked = json.loads(body)
        text = asked["messages"][-1]["content"]
        if asked["model"] != "judge":
            with self._lock:
                self.answers += 1
            read = "With passages" if text.startswith("Passages:") else "Without"
            connection.sendall(said(f"{read} {len(text)} has it. The moon is green."))
        elif "Sentence:" not in text:
            connection.sendall(said("yes" if "With passages" in text else "no"))
        elif sum(self.sentences.values()) < self.sound:
            with self._lock:
                self.sentences[text] += 1
            sentence = text.rsplit("Sentence:", 1)[1]
            connection.sendall(said("missing\nNobody says so." if "moon" in sentence else "supported"))
        elif self.fault == "silent":
            time.sleep(0.6)
        elif self.fault == "nonsense":
            connection.sendall(said("I would not know."))
        else:
            connection.sendall(reply(b'{"error": "monthly limit reached"}', status="402 Payment Required"))


def said(text: str) -> bytes:
    message = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "model": "m"}
    return reply(json.dumps(message | {"usage": {"prompt_tokens": 50, "completion_tokens": 5}}).encode())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(table: Any, log_file: Path | None = None) -> RemoteModel:
        return RemoteModel(table.url, table.model, attempts=2, timeout=0.3, log_file=log_file)

    monkeypatch.setattr(judges, "remote_model", model)
    monkeypatch.setattr(measured, "BATCH", 4)
    monkeypatch.setattr("trimtab.inference.remote.FIRST_WAIT", 0.01)


def written(folder: Path, model: Path | str, embedding: Path, arms: list[str], more: str) -> Path:
    (folder / "documents").mkdir(parents=True)
    for city in sorted({row["answer"] for row in rows_of(48)}):
        (folder / "documents" / f"{city.lower()}.md").write_text(f"# {city}\n{city} has it.\n")
    return write_task(
        folder,
        model,
        arms,
        rows=rows_of(48),
        task=TASK,
        data='documents = ["documents/"]\nleakage = "report"',
        base=f'embedding = "{embedding}"',
        more=TABLE + more,
    )


def run(task: Path, url: str, **given: Any) -> StudyResult:
    return trimtab.study(task, allow=[url], listeners=[], **given)


def checked(task: Path) -> list[dict[str, Any]]:
    lines = (task.parent / ".trimtab" / "judgements.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "sentence" in line]


def test_figures_and_verdict_name_the_judge(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    endpoint, arms = Endpoint(), ["api-one", "api-one+rag"]
    with answering(endpoint.answer) as url:
        task = written(tmp_path / "t", tiny_model_folder, tiny_embedding_folder, arms, ENDPOINTS.format(url=url))
        with pytest.raises(ConsentError, match="with passages, references and answers to judge"):
            trimtab.study(task, listeners=[])
        result = run(task, url)
        assert [(arm.arm, arm.why) for arm in result.arms] == [("api-one", None), ("api-one+rag", None)]
        plain, rag = result.arms
        assert not any(name.startswith("sentences_") for name in plain.extras)
        assert {name: value for name, value in rag.extras.items() if name.startswith("sentences_")} == {
            "sentences_supported": 0.5,
            "sentences_contradicted": 0.0,
            "sentences_not_there": 0.5,
            JUDGED_SENTENCES: 2.0 * TESTS,
        }
        lines = checked(task)
        assert len(lines) == len({line["key"] for line in lines}) == sum(endpoint.sentences.values())
        assert {line["degree"] for line in lines} == {"supported", "missing"}
        again = run(task, url)
        assert [arm.extras.get("sentences_not_there") for arm in again.arms] == [None, 0.5]
        assert checked(task) == lines  # nothing is asked twice
        by_function = run(task, url, scorer=lambda *_: 1.0).arms[1]  # in the judge's place
        assert "sentences_supported" in by_function.extras
        assert JUDGED_SENTENCES not in by_function.extras
        told = [remark.text for remark in trimtab.check(task, listeners=[]).remarks]
        assert any("judgements of test answers and about 24 of their sentences" in text for text in told)
        task.write_text(task.read_text().replace(', "api-one+rag"', ""))
        told = [remark.text for remark in trimtab.check(task, listeners=[], timing=False).remarks]
        assert any(text.startswith("judge.groundedness changes nothing: no arm reads passages") for text in told)
    assert "50 say what its passages do not say, and 0 contradict them: by the judge" in result.verdict.details
    page = (folder_of(task, result) / "report.html").read_text()
    assert "Sentences that the passages support (by the judge)" in page
    assert "by facts and words" not in page


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("silent", "no answer within 0.3 s"),
        ("limit", "answered 402"),
        ("nonsense", "answered 'I would not know.', which is none of supported, contradicted, missing"),
    ],
)
def test_a_judge_that_fails_at_the_sentences_marks_none_of_them(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, fault: str, told: str
) -> None:
    endpoint = Endpoint()
    with answering(endpoint.answer) as url:
        more = ENDPOINTS.format(url=url)
        task = written(tmp_path / "t", tiny_model_folder, tiny_embedding_folder, ["api-one+rag"], more)
        endpoint.sound, endpoint.fault = 6, fault
        [arm] = run(task, url).arms
        assert arm.status == "failed"
        assert told in (arm.why or "")
        assert "judgements are missing; those before are kept" in (arm.why or "")
        assert "\n" not in (arm.why or "")
        assert not arm.extras
        assert not (folder_of(task) / "arms" / arm.arm / ANSWERS).exists()
        kept = checked(task)
        assert 4 <= len(kept) <= 6
        assert {line["degree"] for line in kept} <= set(GROUNDEDNESS)
        endpoint.sound = float("inf")
        [arm] = run(task, url, resume="latest").arms
        assert arm.status == "done"
        assert arm.extras["sentences_not_there"] == 0.5
        assert checked(task)[: len(kept)] == kept
        assert max(endpoint.sentences.values()) == 1  # what was judged once is not asked again


def test_a_local_judge_chooses_among_the_three_words(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(tiny_model_folder, longer)
    settings = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 4096}))
    task = written(tmp_path / "t", longer, tiny_embedding_folder, ["rag", "extract"], "")
    result = trimtab.study(task, listeners=[])
    for arm in result.arms:
        assert arm.status == "done", arm.why
        if JUDGED_SENTENCES in arm.extras:
            assert sum(arm.extras[f"sentences_{kind}"] for kind in GROUNDEDNESS.values()) == pytest.approx(1)
    assert any(JUDGED_SENTENCES in arm.extras for arm in result.arms)
    assert {line["degree"] for line in checked(task)} <= set(GROUNDEDNESS)
