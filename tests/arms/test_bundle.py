"""A bundle holds what a prompt is built from, and no more; what does not fit it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_tasks import write_task

from trimtab.arms.bundle import BundledArm, open_bundle, write_bundle
from trimtab.arms.contexts import PromptBuilder, context_for
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task, parse_arm

ASKED = Example(id="q", messages=(Message(role="user", content="Which bridge is old?"),), references=())


@pytest.fixture
def session(tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path: Path) -> Session:
    (tmp_path / "documents").mkdir()
    for name in ("Aalen", "Bonn", "Celle", "Dachau"):
        (tmp_path / "documents" / f"{name}.md").write_text(f"# {name}\nThe bridge of {name} is old.\n")
    file = write_task(
        *(tmp_path, tiny_model_folder, ["rag+few-shot"]),
        data='documents = ["documents/"]\nleakage = "report"',
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    return open_session(open_workspace(load_task(file)))


def bundled(session: Session, name: str, folder: Path, chosen: dict[str, Any]) -> PromptBuilder:
    arm = parse_arm(name, session.task)
    context = context_for(arm, chosen)
    builder = PromptBuilder(session, context)
    folder.mkdir()
    write_bundle(session, arm, context, builder, folder)
    return builder


def rebuilt(bundle: BundledArm) -> PromptBuilder:
    return PromptBuilder(bundle.session, context_for(bundle.arm, bundle.saved.chosen))


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("few-shot", {"shots": 3, "draw": 2}),
        ("nearest-shots", {"shots": 2}),
        ("rag", {"passages": 2, "instruction": "Say the city.", "chunk_words": 60, "vector_weight": 0.8}),
        ("rag+few-shot", {"passages": 1, "shots": 1, "shot_passages": 1}),
    ],
)
def test_prompts_are_the_same_without_the_task(
    name: str, chosen: dict[str, Any], session: Session, tmp_path: Path
) -> None:
    builder = bundled(session, name, tmp_path / "out", chosen)
    questions = [ASKED, *session.workspace.splits["test"]]
    wanted = [prompt.messages for prompt in builder.prompts(questions)]
    opened = open_bundle(tmp_path / "out", base=session.fresh_base())
    assert [prompt.messages for prompt in rebuilt(opened).prompts(questions)] == wanted
    assert opened.session.output_tokens == session.output_tokens
    shots = tmp_path / "out" / "shots.json"
    kept = len(json.loads(shots.read_text())["shots"]) if shots.is_file() else 0
    rows = len(session.workspace.splits["train"])
    assert kept == {"few-shot": 3, "nearest-shots": rows, "rag": 0, "rag+few-shot": 1}[name]
    assert (tmp_path / "out" / "documents.json").is_file() is ("rag" in name)


def test_the_index_is_not_made_anew(session: Session, tmp_path: Path) -> None:
    bundled(session, "rag", tmp_path / "out", {"passages": 2})
    opened = open_bundle(tmp_path / "out", base=session.fresh_base())
    assert opened.session.unindexed() == []
    before = sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "out" / "index").rglob("*.lance"))
    assert rebuilt(opened).prompts([ASKED])[0].hits
    after = sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "out" / "index").rglob("*.lance"))
    assert after == before != []


def test_what_is_no_bundle_of_ours_is_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no bundle; make one with: trimtab export ARM --format bundle"):
        open_bundle(tmp_path / "out")
    bundled(session, "rag", tmp_path / "out", {"passages": 2})
    file = tmp_path / "out" / "bundle.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "arm": {**plain["arm"], "endpoint": "elsewhere"}}))
    with pytest.raises(InputError, match="names an endpoint, which no bundle holds"):
        open_bundle(tmp_path / "out")
    file.write_text(json.dumps(plain))
    (tmp_path / "out" / "run" / "adapter").symlink_to(tmp_path)
    with pytest.raises(InputError, match="adapter: is a symbolic link"):
        open_bundle(tmp_path / "out")


def test_another_embedding_and_damage_are_refused(session: Session, tmp_path: Path) -> None:
    bundled(session, "rag", tmp_path / "out", {"passages": 2})
    file = tmp_path / "out" / "bundle.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "embedding_digest": "other"}))
    with pytest.raises(InputError, match="made with other weights of"):
        open_bundle(tmp_path / "out")
    file.write_text(json.dumps({**plain, "kind": "poem"}))
    with pytest.raises(InputError, match=r"bundle.json: is damaged \(kind"):
        open_bundle(tmp_path / "out")
