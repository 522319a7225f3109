"""An exported arm behind another OpenAI-compatible server, with Trimtab's retrieval in front (`api-fast+rag`): the
answers of the same weights with the same passages here, with their sources.

vLLM cannot run without a GPU. The engine is Trimtab's own server over the exported model, in a process of its own: it
is asked as any OpenAI-compatible server is, and gets the prompt whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from same_study import beside
from serving_tasks import serving_apart, serving_here, writing_task
from study_tasks import folder_of, write_task

from trimtab.measurement.evaluate import load_answers
from trimtab.studies.export import export
from trimtab.studies.study import study
from trimtab.studies.train import train

ENGINE = """
[api.fast]
url = "{url}/v1"
model = "prompt"
key_env = "ENGINE_KEY"
"""
QUESTION = {"messages": [{"role": "user", "content": "bridge of Bonn?"}]}


def test_an_exported_arm_behind_an_engine_answers_as_it_does_here(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = writing_task(beside(tmp_path, "tuned"), tiny_model_folder, tiny_embedding_folder)
    train(tuned, "quick", listeners=())
    export(tuned, "quick", format="merged", out=tmp_path / "model", questions=1, listeners=[])
    behind = write_task(beside(tmp_path, "engine"), tmp_path / "model", ["prompt"])
    with serving_apart(behind, "prompt") as engine:
        monkeypatch.setenv("ENGINE_KEY", engine.key)
        more, allow = ENGINE.format(url=engine.url), [f"ENGINE_KEY@{engine.url}/v1"]
        arms = ("rag", "api-fast+rag")
        front = writing_task(beside(tmp_path, "front"), tmp_path / "model", tiny_embedding_folder, more, arms)
        result = study(front, allow=allow, listeners=[])
        assert [(arm.status, arm.why) for arm in result.arms] == [("done", None)] * 2
        here, there = (load_answers(folder_of(front) / "arms" / arm / "answers.parquet") for arm in arms)
        assert [(one.item_id, one.answer) for one in there] == [(one.item_id, one.answer) for one in here]
        assert len({one.answer for one in here}) > 1
        with serving_here(front, *arms, allow=allow) as server, server.client() as client:
            replies = [client.post("/v1/chat/completions", json={"model": arm, **QUESTION}).json() for arm in arms]
    own, other = ((one["choices"][0]["message"]["content"], one["trimtab"]["passages"]) for one in replies)
    assert other == own
    assert own[1]
