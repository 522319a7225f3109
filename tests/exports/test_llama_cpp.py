"""llama.cpp itself reads a GGUF file of ours: the same tokens, the same answers and the same scores of labels as
transformers has from the same weights in float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trimtab.base.errors import InputError, RemoteError
from trimtab.data.prompts import ChatEncoder
from trimtab.exports.gguf import write_gguf
from trimtab.exports.hf import merged_config, merged_weights
from trimtab.exports.llama_cpp import LlamaCppReader
from trimtab.exports.readers import TransformersReader, load_back
from trimtab.model.load import load_base

pytestmark = pytest.mark.no_kernels

TURNS = [
    [{"role": "system", "content": "Which?"}, {"role": "user", "content": "the bridge of Bonn"}],
    [{"role": "user", "content": "  two  blanks\n\tand é 日本 12345 don't"}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "and z?"}],
]
LABELS = [[7, 8, 2], [7, 2], [30, 31, 32, 33, 2], [7, 8, 9, 2], [30, 2]]  # some begin alike


def write(folder: Path, file: Path, kind: str) -> None:
    base = load_base(folder, "fp32")
    encoder, weights = ChatEncoder(base.tokenizer), merged_weights(base)
    write_gguf(
        *(file, merged_config(base, weights), weights, base.tokenizer),
        template=encoder.chat_template,
        end=base.tokenizer.eos_token_id,
        kind=kind,
    )


@pytest.fixture(scope="module", params=["f32", "f16"])
def readers(
    request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LlamaCppReader, TransformersReader]]:
    """llama.cpp, and transformers in float32 over the same file."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    write(tiny_model_folder, folder / "m.gguf", request.param)
    exact = load_back(folder, "gguf", precision="fp32", gguf_file="m.gguf")
    with closing(LlamaCppReader(folder / "m.gguf", 256)) as native:
        yield native, exact


def test_log_probabilities_stand_at_their_tokens(readers: Any) -> None:
    """The server leaves out those of tokens that end within a character, of which this vocabulary has many."""
    native, exact = readers
    for turns in TURNS:
        ids = exact.prompt(turns)
        theirs, expected = native.generate(ids, 24, []), exact.generate(ids, 24, [2])
        assert len(theirs.log_probabilities) == len(theirs.ids)
        for mine, step, other in zip(theirs.ids, theirs.log_probabilities, expected.log_probabilities, strict=False):
            assert not step or step[mine] == pytest.approx(other[mine], abs=2e-2)


@pytest.mark.parametrize("turns", TURNS)
def test_the_same_tokens_and_the_same_answer(readers: Any, turns: list[dict[str, str]]) -> None:
    native, exact = readers
    ids = exact.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert native.prompt(turns) == exact.prompt(turns) == tuple(ids)
    theirs, expected = native.generate(ids, 8, [2]), exact.generate(ids, 8, [2])
    assert (theirs.text, theirs.ids) == (expected.text, expected.ids)
    other = [*expected.ids[:1], list(expected.log_probabilities[1])[1]]  # the second likeliest
    assert theirs.gap(other) == pytest.approx(expected.gap(other), abs=5e-3)


def test_labels_have_the_same_scores(readers: Any) -> None:
    native, exact = readers
    ids = exact.prompt(TURNS[0])
    expected = exact.label_log_probabilities(ids, LABELS)
    assert native.label_log_probabilities(ids, LABELS) == pytest.approx(expected, abs=2e-2)
    assert native.label_log_probabilities(ids, LABELS[:1]) == pytest.approx(expected[:1], abs=2e-2)


def test_what_llama_cpp_cannot_read_or_answer_is_one_line(readers: Any, tmp_path: Path) -> None:
    native, _ = readers
    with pytest.raises(RemoteError, match=r"^llama.cpp \(xllamacpp .*\) refused /completion: .*context"):
        native.generate([5] * 300, 1, [])
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + os.urandom(64))
    with pytest.raises(InputError, match=r"m.gguf: llama.cpp \(xllamacpp .*\) cannot load it.*; export it again"):
        LlamaCppReader(tmp_path / "m.gguf", 256)
