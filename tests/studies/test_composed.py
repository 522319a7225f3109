"""Contexts compose, on the base, on tuned weights and behind an endpoint, in one study, with what the parts do
together."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai_server import KEY, serving
from study_tasks import folder_of, rows_of, write_task

from trimtab import ask, study
from trimtab.measurement.evaluate import load_answers

ARMS = [
    "prompt",
    "few-shot",
    "rag",
    "rag+few-shot",
    "quick",
    "quick-rag",
    "api-big",
    "api-big+rag",
    "big-both",
]
MORE = """
[arm.quick]
weights = "lora"
epochs = 0.25
[arm.quick-rag]
weights = "lora"
context = "rag"
epochs = 0.25
[arm.big-both]
weights = "api-big"
context = "few-shot+rag"
passages = 1
shots = 2
[api.big]
url = "{url}"
model = "tiny"
key_env = "TINY_KEY"
price_per_million = {{ input = 1.0, output = 2.0, as_of = 2026-11-01, source = "list" }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    for city in sorted({row["answer"] for row in rows_of(80)}):
        (documents / f"{city.lower()}.md").write_text(f"# {city}\n{city} has it.\n")
    return tmp_path


def test_every_weights_takes_every_context(
    folder: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    with serving() as server:
        task = write_task(
            folder,
            tiny_model_folder,
            ARMS,
            rows=[{"question": row["question"][:14], "answer": row["answer"]} for row in rows_of(80)],
            task='kind = "answer"\nmetric = "token_f1"\noutput_tokens = 4',
            data='documents = ["documents/"]\nleakage = "report"',
            base=f'embedding = "{tiny_embedding_folder}"',
            more=MORE.format(url=server.url),
        )
        result = study(task, allow=[f"TINY_KEY@{server.url}"], listeners=[])
        assert [(arm.arm, arm.status, arm.why) for arm in result.arms if arm.status != "done"] == []
        names = [arm.arm for arm in result.arms]
        asked = [[turn["content"] for turn in body["messages"]] for body in server.bodies]
        answer = ask("bridge of Bonn?", task=task, arm="api-big+rag", allow=[f"TINY_KEY@{server.url}"], listeners=[])
    place = folder_of(task, result)
    answers = {name: load_answers(place / "arms" / name / "answers.parquet") for name in names}
    chosen = {arm.arm: dict(arm.chosen) for arm in result.arms}
    assert chosen["api-big+rag"]["passages"] == chosen["rag"]["passages"]
    assert set(chosen["rag+few-shot"]) == set(chosen["big-both"]) == {"passages", "shots"}
    for mine, base in (("api-big+rag", "rag"), ("rag+few-shot", "rag+few-shot")):
        for one, other in zip(answers[mine], answers[base], strict=True):
            assert one.item_id == other.item_id
            assert one.hits
            assert [hit.passage.id for hit in one.hits] == [hit.passage.id for hit in other.hits]
    assert any(turns[-1].startswith("Passages:") and len(turns) == 2 for turns in asked)
    assert any(turns[-1].startswith("Passages:") and len(turns) > 3 for turns in asked)  # shots as earlier turns
    assert answer.hits
    pairs = {frozenset((one.a, one.b)) for one in result.comparisons}
    assert {frozenset(("rag+few-shot", "rag")), frozenset(("rag+few-shot", "few-shot"))} <= pairs
    report = (place / "report.md").read_text()
    assert "With quick, tuning and retrieved passages" in report
