"""A judge behind a real address that fails in the middle: no mark is lost, none is invented, and the study goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hostile_server import answering, reply
from study_tasks import folder_of, rows_of, write_task

import trimtab
from trimtab.arms import judges
from trimtab.arms.store import ANSWERS
from trimtab.base.errors import InputError
from trimtab.base.results import StudyResult
from trimtab.inference.remote import RemoteModel
from trimtab.measurement import judge as measured
from trimtab.measurement.evaluate import load_answers

TESTS = 12  # of 48 rows
TASK = 'kind = "generate"\nmetric = "judged"\noutput_tokens = 8'
MORE = """
[judge]
criteria = {{ right = "Names the city." }}
by = "big"
{judge}
[api.big]
url = "{url}"
model = "judge"
[api.one]
url = "{url}"
model = "one"
[api.two]
url = "{url}"
model = "two"
"""


class Endpoint:
    """Writes for two arms and judges them: its mark of an answer hangs on the answer alone. From the judgement `sound`
    on it does `fault`."""

    def __init__(self) -> None:
        self.sound, self.fault = float("inf"), ""
        self.asked: Counter[str] = Counter()
        self.judged: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answer(self, connection: socket.socket, body: bytes) -> None:
        asked = json.loads(body)
        text, model = asked["messages"][-1]["content"], asked["model"]
        with self._lock:
            self.asked[model] += 1
            number = self.asked["judge"]
        if model != "judge":
            connection.sendall(said(f"{model} says {len(text) % 3}", model))
        elif number <= self.sound:
            with self._lock:
                self.judged[text] += 1
            words = ("first", "second", "tie") if "First answer" in text else ("yes", "partly", "no")
            connection.sendall(said(f"{words[len(text) % 3]}\nSo it is.", "judge-1"))
        elif self.fault == "silent":
            time.sleep(0.6)
        else:
            connection.sendall(
                {
                    "nonsense": said("I would give it 7 of 10.", "judge-1"),
                    "renamed": said("first" if "First answer" in text else "yes", "judge-2"),
                    "limit": reply(b'{"error": "monthly limit reached"}', status="402 Payment Required"),
                    "busy": reply(b"{}", "Retry-After: 0", status="429 Too Many Requests"),
                }[self.fault]
            )


def said(text: str, model: str) -> bytes:
    message = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "model": model}
    return reply(json.dumps(message | {"usage": {"prompt_tokens": 50, "completion_tokens": 5}}).encode())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(table: Any, log_file: Path | None = None) -> RemoteModel:
        return RemoteModel(table.url, table.model, attempts=2, timeout=0.3, log_file=log_file)

    monkeypatch.setattr(judges, "remote_model", model)
    monkeypatch.setattr(measured, "BATCH", 4)
    monkeypatch.setattr("trimtab.inference.remote.FIRST_WAIT", 0.01)


def written(folder: Path, url: str, judge: str = "") -> Path:
    folder.mkdir()
    more = MORE.format(url=url, judge=judge)
    return write_task(folder, "smollm2-135m-q4", ["api-one", "api-two"], rows=rows_of(48), task=TASK, more=more)


def run(task: Path, url: str, **given: Any) -> StudyResult:
    return trimtab.study(task, allow=[url], listeners=[], **given)


@pytest.mark.parametrize(
    ("fault", "told", "against"),
    [
        ("silent", "no answer within 0.3 s", ""),
        ("renamed", "is now 'judge-2', and was 'judge-1'", ""),
        ("limit", "answered 402", ""),
        ("nonsense", "answered 'I would give it 7 of 10.'", 'against = "reference"'),
        ("busy", "answered 429", 'against = "reference"'),
    ],
)
def test_a_judge_that_fails_in_the_middle(tmp_path: Path, fault: str, told: str, against: str) -> None:
    endpoint = Endpoint()
    with answering(endpoint.answer) as url:
        task = written(tmp_path / "failing", url, against)
        endpoint.sound, endpoint.fault = 6, fault
        first = run(task, url)
        assert [arm.status for arm in first.arms] == ["failed", "failed"]
        for arm in first.arms:
            assert told in (arm.why or "")
            assert "judgements are missing; those before are kept" in (arm.why or "")
            assert "\n" not in (arm.why or "")
            assert not (folder_of(task, first) / "arms" / arm.arm / ANSWERS).exists()  # nothing is scored in part
        kept = judgements(task)
        assert 4 <= len(kept) <= 6  # of a part of which one reply failed, the others wait as replies
        assert {line["degree"] for line in kept} <= {"yes", "partly", "no", "first", "second", "tie"}
        assert "api-one" in first.verdict.sentence
        assert "judge" in first.verdict.sentence

        endpoint.sound = float("inf")
        endpoint.asked["one"] = 0
        again = run(task, url, resume="latest")
        assert [arm.status for arm in again.arms] == ["done", "done"]
        assert max(endpoint.judged.values()) == 1  # what was judged once is not asked again
        lines = judgements(task)
        assert lines[: len(kept)] == kept
        assert len(lines) == len({line["key"] for line in lines}) == sum(endpoint.judged.values())
        assert endpoint.asked["one"] < 36  # answers that were paid for are not asked again; timings are
        for arm in (*again.arms, *again.trivial):
            assert scored(folder_of(task, again), lines, arm.arm)


def test_the_order_of_two_answers_is_told_and_a_row_without_reference_is_refused(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with answering(endpoint.answer) as url:
        task = written(tmp_path / "whole", url, 'against = "reference"')
        details = run(task, url).verdict.details
    assert "The order of the two answers changed the judge's choice in " in details
    paragraph = {
        "context": "A text.",
        "qas": [{"id": "q", "question": "What?", "answers": [{"text": "", "answer_start": 0}]}],
    }
    (task.parent / "squad.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    task.write_text(task.read_text().replace('["rows.jsonl"]', '["rows.jsonl", "squad.json"]'))
    found = trimtab.check(task, listeners=[], timing=False)
    assert [one.level for one in found.remarks if "squad.json:1 has none" in one.text] == ["stop"]
    with pytest.raises(InputError, match="compares answers with references"):
        run(task, url)


def scored(study: Path, lines: list[dict[str, Any]], arm: str) -> bool:
    """True if an arm's scores are the means of what the judge said of its answers; an answer equal to its reference is
    not compared."""
    values = {"yes": 1.0, "partly": 0.5, "no": 0.0, "tie": 0.5}
    marks: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        value = values.get(line["degree"], float(line["degree"] == line.get("place")))
        marks.setdefault((line["item"], line["answer"]), []).append(value)
    given = load_answers(study / "arms" / arm / ANSWERS)
    return all(
        one.score == fmean(marks.get((one.item_id, one.answer), [0.5 if one.answer == one.reference[0] else -1]))
        for one in given
    )


def test_a_judge_that_fails_at_the_fixed_rules_leaves_them_to_a_resumed_study(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with answering(endpoint.answer) as url:
        task = written(tmp_path / "failing", url)
        of_arms = 2 * TESTS
        endpoint.sound, endpoint.fault = of_arms, "limit"
        first = run(task, url)
        assert [arm.status for arm in first.arms] == ["done", "done"]
        assert not first.trivial
        assert "rules without a model were not scored" in first.verdict.details
        endpoint.sound = float("inf")
        again = run(task, url, resume="latest")
        assert again.trivial
        assert "were not scored" not in again.verdict.details


def judgements(task: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (task.parent / ".trimtab" / "judgements.jsonl").read_text().splitlines()]
