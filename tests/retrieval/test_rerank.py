"""Passages in the order of a cross-encoder: the scores of sentence-transformers' own, and folders that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cross_encoder import WORDS, save_cross_encoder
from safetensors.torch import load_file, save_file

from trimtab.base.errors import InputError
from trimtab.base.records import Hit, Passage
from trimtab.model.model_files import SINGLE
from trimtab.retrieval.embed import embedded_text
from trimtab.retrieval.rerank import RERANK_DEPTH, Reranker


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross") / "model")


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "model")


def texts(count: int, words: int = 9) -> list[str]:
    drawn = np.random.default_rng(0)
    return [" ".join(drawn.choice(WORDS, size=drawn.integers(2, words))) for _ in range(count)]


def hits_of(count: int) -> list[Hit]:
    return [
        Hit(
            passage=Passage(id=f"d#{at}", document="d", title="", path=(), text=text, source="d"),
            rank=at + 1,
            score=1 / (at + 1),
        )
        for at, text in enumerate(texts(count))
    ]


def test_scores_are_those_of_sentence_transformers(model_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(model_folder), device="cpu", local_files_only=True, activation_fn=torch.nn.Identity())
    question, passages = "which city has the oldest bridge", texts(40)
    ours = Reranker(model_folder, batch=7).scores(question, passages)
    expected = theirs.predict([(question, passage) for passage in passages], show_progress_bar=False)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.ptp(ours) > 0.1


def test_what_is_longer_than_the_model_is_cut_and_still_read(model_folder: Path) -> None:
    reranker, long = Reranker(model_folder), " ".join(WORDS * 20)
    some = texts(3)
    scores = reranker.scores(long, [*some, long])
    assert np.isfinite(scores).all()
    assert np.ptp(scores[:3]) > 1e-3  # passages keep room beside a question however long
    assert len(reranker.scores("which", [])) == 0


def test_the_best_stand_in_the_order_of_the_scores_and_the_rest_as_it_was(model_folder: Path) -> None:
    reranker, hits, question = Reranker(model_folder), hits_of(RERANK_DEPTH + 5), "who built it"
    ranked = reranker.rerank(question, hits)
    assert [hit.rank for hit in ranked] == list(range(1, len(hits) + 1))
    first = ranked[:RERANK_DEPTH]
    assert {hit.passage.id for hit in first} == {hit.passage.id for hit in hits[:RERANK_DEPTH]}
    scores = reranker.scores(question, [embedded_text(hit.passage) for hit in first])
    np.testing.assert_allclose([hit.score for hit in first], scores, atol=1e-5)
    assert list(scores) == sorted(scores, reverse=True)
    assert [hit.passage for hit in ranked[RERANK_DEPTH:]] == [hit.passage for hit in hits[RERANK_DEPTH:]]


def test_the_digest_changes_with_the_weights(folder: Path) -> None:
    before = Reranker(folder).digest
    tensors = load_file(folder / SINGLE)
    tensors["classifier.bias"] += 1
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    assert Reranker(folder).digest != before


def test_a_model_with_more_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 outputs, and one is wanted"):
        Reranker(save_cross_encoder(tmp_path / "three", labels=3)).scores("which", ["city"])


def test_weights_that_lack_the_classifier_are_refused(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    del tensors["classifier.weight"]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"the weights lack classifier\.weight"):
        Reranker(folder).scores("which", ["city"])


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    assert len(Reranker(folder).scores("which", ["city"])) == 1
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_refused_at_once(folder: Path) -> None:
    (folder / SINGLE).write_bytes(b"no weights")
    with pytest.raises(InputError, match="damaged or cut off"):
        Reranker(folder)
