"""Model folders that lack something, are damaged, or reach elsewhere: each refused in one line, and no weight is
ever drawn."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edited_models import change, set_in
from safetensors.torch import load_file, save_file

from trimtab.arms.fingerprint import weights_digest
from trimtab.base.errors import InputError
from trimtab.model.load import load_base
from trimtab.model.model_files import INDEX, SINGLE, weight_files

pytestmark = pytest.mark.no_kernels

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    return tmp_path / "model"


def lose_a_tensor(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def swap_a_shape(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))


def fewer_layers(folder: Path) -> None:
    set_in(folder / "config.json", num_hidden_layers=1, layer_types=["full_attention"])


def cut_off(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: len(data) // 2])


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


CASES: list[tuple[Callable[[Path], object], str]] = [
    (lose_a_tensor, r"the weights lack model\.layers\.1\.mlp\.up_proj\.weight;"),
    (swap_a_shape, r"the weights have another shape for model\.norm\.weight;"),
    (fewer_layers, r"the weights have more layers than config\.json: model\.layers\.1\..* and 6 more;"),
    (cut_off, r"model\.safetensors: is damaged or cut off \("),
    (lambda folder: (folder / SINGLE).write_bytes(b""), r"model\.safetensors: is damaged or cut off \("),
    (lambda folder: (folder / SINGLE).write_bytes(b"\xff" * 900), r"model\.safetensors: is damaged or cut off \("),
    (lambda folder: (folder / SINGLE).unlink(), r"the folder has no model\.safetensors;"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": '), r"config\.json: is damaged \("),
    (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json: is damaged \("),
    (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: is damaged \(not an object\)"),
    (lambda folder: set_in(folder / "config.json", hidden_size="wide"), r"config\.json: cannot be used \("),
    (lambda folder: set_in(folder / "config.json", model_type=7), r"config\.json: architecture 7 is not supported"),
    (
        lambda folder: set_in(folder / "config.json", num_hidden_layers=10**9),
        r"num_hidden_layers is 1000000000, and the",
    ),
    (lambda folder: set_in(folder / "config.json", vocab_size=10**12), r"vocab_size is 1000000000000, and the weights"),
    (
        lambda folder: set_in(folder / "config.json", intermediate_size=10**6),
        r"config\.json: describes .* numbers, and",
    ),
    (no_tokenizer, r"no tokenizer \(tokenizer\.json, "),
    (lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0", '), r"the tokenizer cannot be read \("),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"the tokenizer cannot be read \("),
    (
        lambda folder: set_in(folder / "tokenizer_config.json", model_max_length="x"),
        r"the tokenizer cannot be read \(TypeError",
    ),
    (lambda folder: (folder / "adapter_config.json").write_text("{}"), r"an adapter is in the model's folder"),
    (lambda folder: os.mkfifo(folder / "added_tokens.json"), r"added_tokens\.json: is no regular file"),
]


@pytest.mark.parametrize(("harm", "told"), CASES, ids=[told[:40] for _, told in CASES])
def test_what_is_no_whole_model_is_refused_in_one_line(folder: Path, capfd, harm, told) -> None:
    load_base(folder, "fp32")
    harm(folder)
    with pytest.raises(InputError, match=told) as caught:
        load_base(folder, "fp32")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def sharded(folder: Path) -> dict[str, str]:
    """The same weights in two files and an index of them."""
    tensors = load_file(folder / SINGLE)
    names = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for part in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == part}, folder / part, {"format": "pt"})
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return names


def test_shards_are_read_and_counted(folder: Path) -> None:
    whole = load_base(folder, "fp32").model.state_dict()
    sharded(folder)
    parts = load_base(folder, "fp32").model.state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert [file.name for file in weight_files(folder)] == ["part-0.safetensors", "part-1.safetensors"]


def link_out(folder: Path, outside: Path) -> str:
    (folder / "link.safetensors").symlink_to(outside)
    return "link.safetensors"


@pytest.mark.parametrize(
    ("name_of", "told"),
    [
        (lambda folder, outside: "../outside.safetensors", "lies outside the folder"),
        (lambda folder, outside: str(outside), "lies outside the folder"),
        (link_out, "lies outside the folder"),
        (lambda folder, outside: "gone.safetensors", "is not there"),
        (lambda folder, outside: "pytorch_model.bin", "is not safetensors"),
        (lambda folder, outside: "a\0.safetensors", "is no path|is not there"),
        (lambda folder, outside: "a" * 5000 + ".safetensors", "is no path|is not there"),
    ],
)
def test_an_index_names_nothing_but_safetensors_of_its_own_folder(folder: Path, name_of: Any, told: str) -> None:
    names = sharded(folder)
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / names[EMBEDDING], outside)
    (folder / "pytorch_model.bin").write_bytes(b"")
    named = name_of(folder, outside)
    names = {name: part if part != names[EMBEDDING] else named for name, part in names.items()}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for read in (lambda: load_base(folder, "fp32"), lambda: weights_digest(folder)):
        with pytest.raises(InputError, match=told) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_the_one_file_is_not_a_link_out_of_the_folder(folder: Path) -> None:
    (folder / SINGLE).rename(folder.parent / SINGLE)
    (folder / SINGLE).symlink_to(folder.parent / SINGLE)
    for read in (lambda: load_base(folder, "fp32"), lambda: weights_digest(folder)):
        with pytest.raises(InputError, match="lies outside the folder"):
            read()


def test_a_snapshot_of_the_hubs_cache_is_links_to_blobs_beside_it(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(repository / "blobs" / f"hash-of-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-of-{file.name}")
    load_base(snapshot, "fp32")
    assert len(weights_digest(snapshot)) == 64


def test_weights_in_a_folder_within_are_hashed(folder: Path) -> None:
    names = sharded(folder)
    (folder / "deep").mkdir()
    for part in set(names.values()):
        (folder / part).rename(folder / "deep" / part)
    deep = {name: f"deep/{part}" for name, part in names.items()}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": deep}))
    load_base(folder, "fp32")
    before = weights_digest(folder)
    data = bytearray((folder / "deep" / "part-0.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "deep" / "part-0.safetensors").write_bytes(data)
    assert weights_digest(folder) != before
