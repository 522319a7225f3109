"""Two servers for all tests of the folder: one whose arms write, one whose arms decide; each with a finished study."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import no_patience, timed_once
from serving_tasks import Here, deciding_task, serving_here, writing_task

from trimtab import study

__all__ = ["no_patience", "timed_once"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Path:
    """The task file of a study whose arms write."""
    task = writing_task(tmp_path_factory.mktemp("writing"), tiny_model_folder, tiny_embedding_folder)
    study(task, listeners=[])
    return task


@pytest.fixture(scope="session")
def writing(written: Path) -> Iterator[Here]:
    with serving_here(written, "prompt", "rag", "quick") as here:
        yield here


@pytest.fixture(scope="session")
def calling(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> Iterator[Here]:
    """A server whose model has room for the definitions of functions."""
    folder = tmp_path_factory.mktemp("calling")
    model = shutil.copytree(tiny_model_folder, folder / "model")
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 4096}))
    task = writing_task(folder, model, tiny_embedding_folder, arms=("prompt", "rag"))
    study(task, listeners=[])
    with serving_here(task, "prompt", "rag") as here:
        yield here


@pytest.fixture(scope="session")
def deciding(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path
) -> Iterator[Here]:
    task = deciding_task(tmp_path_factory.mktemp("deciding"), tiny_model_folder, tiny_embedding_folder)
    study(task, listeners=[])
    with serving_here(task, "prompt", "linear") as here:
        yield here
