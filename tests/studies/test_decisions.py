"""A study with an endpoint that decides: an arm like any other, with its probabilities; only for closed sets, and
only with consent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from decision_server import KEY, DecisionServer, deciding
from hostile_server import answering, reply
from study_tasks import CLASSIFY, LABELLED, arm_of, folder_of, write_task

from trimtab.base.errors import ConsentError, InputError
from trimtab.base.task import load_task
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.study import study

ENDPOINT = '[api.big]\napi = "{api}"\nurl = "{url}"\nmodel = "tiny"\nkey_env = "TINY_KEY"\n'
PRICE = 'price_per_million = { input = 2.0, output = 0.0, as_of = 2026-11-01, source = "list" }\n'


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr("trimtab.inference.remote.FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[DecisionServer]:
    with deciding() as running:
        yield running


def closed(folder: Path, model: Path, api: str, url: str, *arms: str, more: str = "") -> Path:
    table = ENDPOINT.format(api=api, url=url) + more
    return write_task(folder, model, arms, task=CLASSIFY, data=LABELLED, more=table)


@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_it_is_an_arm_like_any_other(tmp_path: Path, tiny_model_folder: Path, server: DecisionServer, api: str) -> None:
    task = closed(tmp_path, tiny_model_folder, api, server.url, "prompt", "api-big", "api-big+few-shot", more=PRICE)
    server.faults += ["busy", "garbage"]
    result = study(task, allow=[f"TINY_KEY@{server.url}"], listeners=[])
    assert [arm.status for arm in result.arms] == ["done"] * 3
    for name in ("api-big", "api-big+few-shot"):
        arm = arm_of(result, name)
        assert arm.score is not None
        assert arm.score.value == 1.0  # every question names its city
        assert arm.extras["ece"] == pytest.approx(0.09, abs=1e-6)  # of ten labels the right one gets .9 + .1 / 10
        assert arm.cost is not None
        answers = load_answers(folder_of(task, result) / "arms" / name / "answers.parquet")
        assert [answer.probability for answer in answers] == pytest.approx([0.91] * len(answers))
        assert all(answer.prompt_tokens > 100 for answer in answers)
    assert {path for path, _ in server.bodies} == {api}
    files = b"".join(path.read_bytes() for path in (tmp_path / ".trimtab").rglob("*") if path.is_file())
    assert KEY.encode() not in files


def test_nothing_is_sent_without_consent(tmp_path: Path, tiny_model_folder: Path, server: DecisionServer) -> None:
    task = closed(tmp_path, tiny_model_folder, "decisions", server.url, "api-big")
    with pytest.raises(ConsentError, match=f"--allow TINY_KEY@{server.url}"):
        study(task, listeners=[])
    assert not server.bodies


@pytest.mark.parametrize(
    "sent",
    [
        b'{"answers": {"label": {"type": "choice", "choice": "Bonn", "probabilities": {"Bonn": 1.0}}}}',
        b'{"answers": {"label": {"type": "choice", "choice": "Bonn", "probabilities": NaN}}}',
        b'{"answers": {"label": "Bonn"}}',
        b" " * 17_000_000,
        b"[" * 100_000,
    ],
    ids=["a label is missing", "NaN", "another type", "huge", "deep"],
)
def test_a_hostile_reply_ends_that_arm_only(tmp_path: Path, tiny_model_folder: Path, sent: bytes) -> None:
    with answering(lambda connection, _: connection.sendall(reply(sent))) as url:
        task = closed(tmp_path, tiny_model_folder, "systemone", url, "api-big", "prompt")
        result = study(task, allow=[f"TINY_KEY@{url}"], listeners=[])
    assert [arm.status for arm in result.arms] == ["failed", "done"]
    why = arm_of(result, "api-big").why or ""
    assert why.startswith(f"{url}/systemone: ")
    assert "\n" not in why


def test_it_is_for_closed_sets(tmp_path: Path, tiny_model_folder: Path) -> None:
    table = ENDPOINT.format(api="systemone", url="http://127.0.0.1:9/v1")
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], more=table)
    told = (
        r"api\.big\.api: api = 'systemone' decides among the labels of a task of kind classify, "
        r"and this is 'answer'; set api"
    )
    with pytest.raises(InputError, match=told):
        load_task(task)
    write_task(tmp_path, tiny_model_folder, ["prompt"], more=table.replace("systemone", "decide"))
    with pytest.raises(
        InputError, match=r"api\.big\.api: 'decide' is no kind of endpoint; use one of: chat, systemone, decisions"
    ):
        load_task(task)
