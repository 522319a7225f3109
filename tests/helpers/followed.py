"""A task with three registered versions, and what a server that follows production answers, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving_tasks import Here, writing_task

from trimtab import registry, study
from trimtab.base.files import sha256_file

QUESTIONS = ["Where is the bridge of Bonn?", "harbour 17 of Celle?", "Jena?"]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """The task file of a study, with three versions: `quick`, `rag` and `prompt`."""
    task = writing_task(tmp_path_factory.mktemp("registered"), tiny_model_folder, tiny_embedding_folder)
    study(task, listeners=[])
    with registry(task) as own:
        for arm in ("quick", "rag", "prompt"):
            own.register(arm, by="jo", listeners=[])
    return task


def version(here: Here) -> int:
    """The version that answers whoever is in no canary."""
    with here.client() as client:
        return int(client.get("/v1/models").json()["data"][0]["trimtab"]["release"]["version"])


def served(here: Here) -> dict[str, Any]:
    """What is answered, byte for byte but for ids and times, and the hashes of the weights that answer."""
    (one,) = here.parts.dispatcher.models.values()
    assert one.release is not None
    files = {
        path.relative_to(one.release.folder).as_posix(): sha256_file(path)
        for path in one.release.folder.rglob("*")
        if path.is_file()
    }
    told = []
    with here.client() as client:
        for question in QUESTIONS:
            body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "logprobs": True}
            reply = client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            told.append(json.dumps(reply.json()["choices"], sort_keys=True))
    return {"model": one.id, "files": files, "answers": told}
