"""`export`: what is written answers like the arm that was measured, is refused where it cannot, and is found out
where it does not."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from study_tasks import CLASSIFY, LABELLED, QUICK, folder_of, write_task

from trimtab import export, study, train
from trimtab.arms.answerers import ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.session import open_session
from trimtab.arms.store import find_saved
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import load_task, parse_arm
from trimtab.exports.readers import load_back
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.equivalence import (
    EquivalenceCheck,
    ReferenceAnswers,
    ask_consumer,
    by_text,
    compare_with_measured,
)
from trimtab.studies.export import draw_questions
from trimtab.studies.export import export as export_arm

HEADED = '[arm.headed]\nweights = "lora"\nstages = ["head"]\nepochs = 1\n'


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A task whose arm `quick` was trained."""
    file = write_task(tmp_path_factory.mktemp("task"), tiny_model_folder, ["prompt", "quick"], more=QUICK)
    train(file, "quick", listeners=[])
    return file


@pytest.mark.parametrize("format", ["peft", "merged"])
def test_a_trained_arm_is_written_and_answers_as_measured(format: Any, task: Path, tmp_path: Path) -> None:
    result = export(task, "quick", format=format, out=tmp_path / "out", listeners=[])
    (proof,) = result.proofs
    assert not result.failed
    assert proof.claimed
    assert (proof.same + proof.ties, proof.differ) == (proof.questions, 0)
    assert proof.same >= proof.questions - 1
    assert proof.same_prompts == proof.questions == 15
    assert proof.consumer.startswith("peft" if format == "peft" else "transformers")
    kept = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert kept["proofs"][0]["same"] == proof.same
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(("quantize", "claimed"), [("f32", True), ("f16", False), ("q8_0", False), ("q4_0", False)])
def test_gguf_claims_equal_answers_only_where_the_numbers_are_equal(
    quantize: str, claimed: bool, task: Path, tmp_path: Path
) -> None:
    result = export(task, "quick", format="gguf", quantize=quantize, out=tmp_path / "out", listeners=[])
    proof = result.proofs[-1]
    assert proof.consumer.startswith("transformers")
    assert proof.claimed is claimed
    assert proof.lost is not None
    assert proof.lost.low <= proof.lost.score <= proof.lost.high
    assert proof.agreement.low <= proof.agreement.value <= proof.agreement.high
    if claimed:
        assert proof.differ == 0
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert 'SYSTEM """Which city?"""' in text
    assert "ollama create" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["answers", "labels"])
def test_llama_cpp_itself_is_asked_and_answers_as_exact_arithmetic_does(
    kind: str, task: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")
    if kind == "labels":
        task = write_task(tmp_path, tiny_model_folder, ["prompt"], task=CLASSIFY, data=LABELLED)
    result = export(task, "quick" if kind == "answers" else "prompt", format="gguf", out=tmp_path / "out", listeners=[])
    measured, exact, _ = result.proofs
    assert measured.consumer.startswith("llama.cpp (xllamacpp ")
    assert exact.reference == f"those of transformers {version('transformers')} in fp32 from the same file"
    for proof in (measured, exact):
        assert (proof.what, proof.questions, proof.left, proof.same_prompts) == (kind, 15, 0, 15)
        assert proof.same >= 14
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{exact.same} of 15 {kind} are the same as those of transformers" in card
    assert "llama.cpp itself was not asked" not in card


def test_without_llama_cpp_the_card_says_who_was_asked_and_what_to_install(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.studies.export.has_llama_cpp", lambda: False)
    result = export(task, "quick", format="gguf", questions=1, out=tmp_path / "out", listeners=[])
    (proof,) = result.proofs
    assert proof.consumer == f"transformers {version('transformers')} in fp32"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "llama.cpp itself was not asked, only the GGUF reader of transformers" in card
    assert "pip install 'trimtab\\[gguf\\]'" in card


def test_an_arm_without_a_language_model_is_told_the_command_that_exports_it(tmp_path: Path) -> None:
    file = write_task(tmp_path, "nowhere", ["linear"], rows=LABELLED, task=CLASSIFY)
    with pytest.raises(InputError) as caught:
        export_arm(file, "linear", format="merged", out=tmp_path / "my out", listeners=[])
    command = f"trimtab export linear --format bundle --out '{tmp_path}/my out' --task {file}"
    assert str(caught.value) == f"arm linear is no language model, so only a bundle holds it; run: {command}"


def test_the_card_names_a_modelfile_only_where_there_is_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"])
    file.write_text(file.read_text().replace('"Which city?"', '\'Which """city"""?\''))
    result = export(file, "prompt", format="gguf", out=tmp_path / "out", listeners=[])
    assert not (tmp_path / "out" / "Modelfile").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "No Modelfile: " in card
    assert "ollama create" not in card
    assert "llama-server -m model.gguf" in card
    assert [shlex.split(line)[:3] for line in result.use] == [["llama-server", "-m", f"{tmp_path}/out/model.gguf"]]


def test_the_winner_is_exported_unless_an_arm_is_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(MissingError, match="no study has finished; name an arm, or run: trimtab study"):
        export(file, format="merged", out=tmp_path / "out")
    study(file, listeners=[])
    result = export(file, "prompt", format="merged", out=tmp_path / "out", listeners=[])
    assert (result.arm, result.failed) == ("prompt", False)
    measured = load_answers(folder_of(file) / "arms" / "prompt" / "answers.parquet")
    assert result.proofs[0].questions == len(measured)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "opened the test questions 1 time before this export" in card


def test_labels_are_chosen_and_heads_read_as_measured(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = write_task(
        *(tmp_path, tiny_model_folder, ["prompt", "quick", "headed"]),
        task=CLASSIFY,
        data=LABELLED,
        more=QUICK + HEADED,
    )
    for arm in ("quick", "headed"):
        train(file, arm, listeners=[])
        for format in ("peft", "merged"):
            result = export(file, arm, format=format, out=tmp_path / f"{arm}-{format}", listeners=[])
            (proof,) = result.proofs
            assert (result.failed, proof.what, proof.claimed) == (False, "labels", True)
            assert proof.same >= proof.questions - 1
    settings = json.loads((tmp_path / "headed-merged" / "config.json").read_text())
    assert settings["architectures"] == ["LlamaForSequenceClassification"]
    assert "Aalen" in settings["label2id"]
    with pytest.raises(InputError, match="classification head"):
        export(file, "headed", format="gguf", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "kind"), [("soft-prompt", CLASSIFY), ("prefix", 'kind = "answer"\noutput_tokens = 6')]
)
def test_virtual_tokens_are_proven_through_peft_alone(
    method: str, kind: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    more = f'[arm.soft]\nweights = "{method}"\nepochs = 1\n'
    file = write_task(tmp_path, tiny_model_folder, ["prompt", "soft"], task=kind, more=more)
    train(file, "soft", listeners=[])
    assert not export(file, "soft", format="peft", out=tmp_path / "peft", listeners=[]).failed
    with pytest.raises(InputError, match="virtual tokens precede the prompt"):
        export(file, "soft", format="merged", out=tmp_path / "merged", listeners=[])
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob(".merged*"))


@pytest.mark.parametrize("arm", ["rag", "rag+few-shot", "nearest-shots"])
def test_a_bundle_builds_the_same_prompts(
    arm: str, tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "documents").mkdir()
    for name in ("Aalen", "Bonn", "Celle"):
        (tmp_path / "documents" / f"{name}.md").write_text(f"# {name}\nThe bridge of {name} is old.\n")
    file = write_task(
        *(tmp_path, tiny_model_folder, [arm]),
        data='documents = ["documents/"]\nleakage = "report"',
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    result = export(file, arm, format="bundle", out=tmp_path / "out", listeners=[])
    assert not result.failed
    assert [(proof.what, proof.same) for proof in result.proofs] == [("prompts", 15), ("answers", 15)]
    kept = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert kept["prompt"][-1]["content"].endswith("{question}")
    assert str(tmp_path) not in (tmp_path / "out" / "bundle.json").read_text().replace(str(tiny_embedding_folder), "")
    test = {item.id for item in open_workspace(load_task(file)).splits["test"]}
    shots = tmp_path / "out" / "shots.json"
    shown = {shot["id"] for shot in json.loads(shots.read_text())["shots"]} if shots.is_file() else set()
    assert not shown & test
    assert bool(shown) is ("shots" in arm or "shot" in arm)


def test_the_first_questions_are_drawn_from_all_of_them(task: Path) -> None:
    workspace = open_workspace(load_task(task))
    everything = [row.id for row in workspace.subset("test", 100)]
    drawn = [row.id for row in draw_questions(workspace, 100)]
    assert drawn == [row.id for row in draw_questions(workspace, 100)]
    assert drawn != everything
    assert sorted(drawn) == sorted(everything)


def test_weights_that_were_changed_afterwards_are_found_out(task: Path, tmp_path: Path) -> None:
    export(task, "quick", format="merged", out=tmp_path / "out", listeners=[])
    own = load_task(task)
    arm = parse_arm("quick", own)
    saved = find_saved(own, arm)
    assert saved is not None
    session = open_session(open_workspace(own))
    examples = session.workspace.subset("test", 100)
    with ready_arm(session, arm, context_for(arm, saved.chosen), saved.folder) as ready:
        prompts = ready.builder.prompts(examples)
        asked = ReferenceAnswers(task=own, examples=examples, prompts=prompts, measured=ready.answer_batch(prompts))
    consumer = load_back(tmp_path / "out", "merged", precision="fp32")

    def check(reference: ReferenceAnswers, **more: Any) -> EquivalenceCheck:
        way = by_text(session, consumer)
        answers = ask_consumer(session, reference, consumer, way, own_ids=False, step=lambda *_: None, **more)
        return compare_with_measured(reference, answers, session.precision, claimed=True)

    whole = check(asked)
    assert not whole.failed
    assert "of 15 answers are the same as measured, 95% interval " in whole.sentence
    assert whole.agreement.low < 1
    short = check(asked, seconds=0.0)
    assert (short.questions, short.left) == (1, 14)
    assert short.sentence.endswith("14 more were not asked, as the time was up")
    with torch.no_grad():
        for value in consumer.model.parameters():
            value += 0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    proof = check(asked)
    assert proof.differ > 5
    assert not proof.failed, "as measured no answer was right, so that no loss can be shown"
    assert proof.parting.token is not None
    assert proof.parting.token >= 1
    right = [replace(one, text=row.references[0]) for one, row in zip(asked.measured, examples, strict=True)]
    worse = check(replace(asked, measured=right))
    assert worse.failed
    assert worse.lost is not None
    assert worse.lost.low > own.target.margin
    assert f"; {proof.differ} differ, first at token " in proof.sentence
    rewritten = [replace(one, text="something else") for one in asked.measured]
    assert check(replace(asked, measured=rewritten)).same == 0


@pytest.mark.parametrize(
    ("arm", "changes", "problem"),
    [
        ("prompt", {"format": "peft"}, "trained nothing, so there is no adapter; export it as merged"),
        ("quick", {"format": "zip"}, "unknown format 'zip'; use one of: peft, merged, gguf, bundle"),
        ("quick", {"format": "merged", "quantize": "q8_0"}, "quantize is for gguf"),
        ("quick", {"format": "gguf", "quantize": "q4_k_m"}, "cannot write 'q4_k_m'; use one of: f32, f16"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    arm: str, changes: dict[str, Any], problem: str, task: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        export(task, arm, out=tmp_path / "out", **changes)


def test_nothing_is_overwritten(task: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="nothing is overwritten"):
        export(task, "quick", format="merged", out=tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_untrained_arm_says_how_it_is_made(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt", "lora"])
    with pytest.raises(MissingError, match="no trained weights yet; make them with: trimtab train lora"):
        export(file, "lora", format="merged", out=tmp_path / "out", listeners=[])
