"""An embedding folder that lacks something, is damaged, reaches elsewhere or brings code: refused in one line,
nothing drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edited_models import change, set_in

from trimtab.base.errors import InputError
from trimtab.model.model_files import SINGLE
from trimtab.retrieval.embed import Embedder


@pytest.fixture
def folder(tmp_path: Path, tiny_embedding_folder: Path) -> Path:
    return shutil.copytree(tiny_embedding_folder, tmp_path / "model")


def set_module(folder: Path, number: int, **values: Any) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[number] |= values
    (folder / "modules.json").write_text(json.dumps(modules))


def move_out(folder: Path) -> None:
    (folder / SINGLE).rename(folder.parent / SINGLE)
    (folder / SINGLE).symlink_to(folder.parent / SINGLE)


def reach_out(folder: Path) -> None:
    shutil.copytree(folder / "1_Pooling", folder.parent / "pooling")
    set_module(folder, 1, path="../pooling")


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


LAYER = "encoder.layer.0.output.dense.weight"
CASES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: change(folder, lambda all_: all_.pop(LAYER)), rf"the weights lack {LAYER};"),
    (
        lambda folder: change(folder, lambda all_: all_.update({LAYER: torch.ones(3)})),
        rf"the weights have another shape for {LAYER};",
    ),
    (
        lambda folder: change(folder, lambda all_: all_.update({LAYER: all_[LAYER] * torch.nan})),
        "the embedding model gives vectors that are no numbers",
    ),
    (lambda folder: (folder / SINGLE).write_bytes(b"\xff" * 900), r"model\.safetensors: is damaged or cut off \("),
    (lambda folder: (folder / SINGLE).unlink(), r"the folder has no model\.safetensors"),
    (move_out, "lies outside the folder"),
    (reach_out, r"module '\.\./pooling' lies outside the folder"),
    (lambda folder: set_module(folder, 1, path=7), "module '7' lies outside the folder"),
    (lambda folder: set_module(folder, 1, type="os.system"), "'os.system' is code from elsewhere"),
    (
        lambda folder: set_module(folder, 1, type="sentence_transformers.models.Router"),
        "Router' is code from elsewhere",
    ),
    (lambda folder: (folder / "modules.json").write_text('[{"path": '), r"modules\.json: is damaged \("),
    (lambda folder: (folder / "modules.json").write_text("[" * 100_000), r"modules\.json: is damaged \("),
    (lambda folder: (folder / "modules.json").write_text("[]"), "does not list modules"),
    (lambda folder: (folder / "modules.json").write_text('["x"]'), "does not list modules"),
    (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: is damaged"),
    (lambda folder: set_in(folder / "config.json", num_hidden_layers=10**9), "num_hidden_layers is 1000000000, and"),
    (lambda folder: set_in(folder / "config.json", vocab_size=10**12), "vocab_size is 1000000000000, and the weights"),
    (lambda folder: set_in(folder / "config.json", hidden_size="wide"), r"cannot be (used|loaded) \("),
    (lambda folder: set_in(folder / "config.json", model_type="new"), "architecture 'new' is not supported"),
    (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter is in the model's folder"),
    (no_tokenizer, r"no tokenizer \(tokenizer\.json, "),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"the embedding model cannot be loaded \("),
    (
        lambda folder: set_in(folder / "1_Pooling" / "config.json", pooling_mode="none", pooling_mode_mean_tokens=0),
        r"the embedding model (cannot be loaded|gives no vectors) \(",
    ),
    (lambda folder: (folder / "1_Pooling" / "config.json").write_text("{"), "the embedding model cannot be loaded"),
]


@pytest.mark.parametrize(("harm", "told"), CASES, ids=[told[:40] for _, told in CASES])
def test_what_is_no_whole_embedding_is_refused_in_one_line(folder: Path, capfd, harm, told) -> None:
    harm(folder)
    with pytest.raises(InputError, match=told) as caught:
        Embedder(folder).encode(["a question"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_vectors_have_length_1_and_none_for_no_text(folder: Path) -> None:
    embedder = Embedder(folder)
    vectors = embedder.encode(["a question", "another"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert embedder.encode([]).shape == (0, vectors.shape[1])


def test_a_pooler_is_not_read_and_need_not_be_there(folder: Path) -> None:
    before = Embedder(folder).encode(["a question"])
    change(folder, lambda all_: [all_.pop(name) for name in list(all_) if "pooler" in name])
    assert (Embedder(folder).encode(["a question"]) == before).all()


def test_questions_and_passages_get_what_the_folder_wants_before_them(folder: Path) -> None:
    plain = Embedder(folder)
    assert (plain.encode_questions(["a question"]) == plain.encode(["a question"])).all()
    before = Embedder(folder).digest
    settings = folder / "config_sentence_transformers.json"
    set_in(settings, prompts={"query": "find this now: ", "passage": "read: "}, default_prompt_name="query")
    asking = Embedder(folder)
    assert asking.digest != before
    assert np.abs(asking.encode_questions(["a question"]) - asking.encode(["a question"])).max() > 1e-3
    assert asking.encode_questions(["a question"]) == pytest.approx(
        plain.encode(["find this now: a question"]), abs=1e-6
    )
    assert asking.encode(["a question"]) == pytest.approx(plain.encode(["read: a question"]), abs=1e-6)
    set_in(
        settings, prompts={"query": "find this now: "}
    )  # what is meant for questions alone does not come before passages
    assert Embedder(folder).encode(["a question"]) == pytest.approx(plain.encode(["a question"]), abs=1e-6)
    set_in(settings, prompts={"query": 7})
    with pytest.raises(InputError, match="the embedding model cannot be loaded"):
        Embedder(folder).encode_questions(["a question"])


@pytest.mark.parametrize("name", [SINGLE, "tokenizer.json", "1_Pooling/config.json", "spiece.model"])
def test_the_digest_changes_with_every_file_that_vectors_depend_on(folder: Path, name: str) -> None:
    (folder / "spiece.model").write_bytes(b"x")
    before = Embedder(folder).digest
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert Embedder(folder).digest != before


def test_a_snapshot_of_the_hubs_cache_is_links_to_blobs_beside_it(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--o--n" / "snapshots" / "0a1b", tmp_path / "models--o--n" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(blobs / str(number))
    assert (Embedder(snapshot).encode(["a"]) == Embedder(folder).encode(["a"])).all()
