"""A bundle holds what a prompt is built from, and no more; what does not fit it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from study_tasks import write_task

from trimtab.arms.answerers import read_calibration
from trimtab.arms.bundle import BundledArm, open_bundle, write_bundle
from trimtab.arms.contexts import PromptBuilder, context_for
from trimtab.arms.online import open_online
from trimtab.arms.session import Session, open_session
from trimtab.arms.store import StoredQuestion
from trimtab.arms.workspace import open_workspace
from trimtab.base.codec import to_plain, write_record
from trimtab.base.errors import ContextLengthError, InputError, MissingError
from trimtab.base.files import FORM, sha256_file
from trimtab.base.records import Calibration, Example, Message
from trimtab.base.results import ArmResult, Cost, Estimate, Volume
from trimtab.base.task import load_task, parse_arm

ASKED = Example(id="q", messages=(Message(role="user", content="Which bridge is old?"),), references=())


def session_in(folder: Path, model: Path, embedding: Path) -> Session:
    (folder / "documents").mkdir()
    for name in ("Aalen", "Bonn", "Celle", "Dachau"):
        (folder / "documents" / f"{name}.md").write_text(f"# {name}\nThe bridge of {name} is old.\n")
    file = write_task(
        *(folder, model, ["rag+few-shot"]),
        data='documents = ["documents/"]\nleakage = "report"',
        base=f'embedding = "{embedding}"',
    )
    return open_session(open_workspace(load_task(file)))


@pytest.fixture
def session(tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path: Path) -> Session:
    return session_in(tmp_path, tiny_model_folder, tiny_embedding_folder)


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


def test_worked_examples_that_a_search_chose_keep_their_order(session: Session, tmp_path: Path) -> None:
    ids = [row.id for row in session.workspace.splits["train"][:3]][::-1]
    builder = bundled(session, "few-shot", tmp_path / "out", {"shots": 3, "shot_ids": json.dumps(ids)})
    assert [shot.id for shot in builder.fixed] == ids
    opened = open_bundle(tmp_path / "out", base=session.fresh_base())
    assert rebuilt(opened).prompts([ASKED])[0].messages == builder.prompts([ASKED])[0].messages


def test_the_index_is_not_made_anew(session: Session, tmp_path: Path) -> None:
    bundled(session, "rag", tmp_path / "out", {"passages": 2})
    opened = open_bundle(tmp_path / "out", base=session.fresh_base())
    assert opened.session.retriever.texts_to_embed() == []
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


def test_a_model_that_is_not_the_one_a_bundle_was_made_with_is_named(
    session: Session, tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path: Path
) -> None:
    """The bundle names its models by the hash of every file; on this machine lies a base of the same name."""
    bundled(session, "rag", tmp_path / "out", {"passages": 2})
    file = tmp_path / "out" / "bundle.json"
    plain = json.loads(file.read_text())
    assert plain["files"]["base"]["model.safetensors"] == sha256_file(tiny_model_folder / "model.safetensors")
    for name, folder in (("model", tiny_model_folder), ("embedding", tiny_embedding_folder)):
        shutil.copytree(folder, tmp_path / name)
    file.write_text(json.dumps({**plain, "model": str(tmp_path / "model"), "embedding": str(tmp_path / "embedding")}))

    def edited(name: str, old: str, new: str) -> None:
        changed, was = tmp_path / name, (tmp_path / name).read_bytes()
        assert old.encode() in was
        changed.write_bytes(was.replace(old.encode(), new.encode()))
        model = "base" if name.startswith("model") else "embedding"
        said = rf"bundle\.json: was made with another {changed.name} of the {model} model than this machine has; copy"
        with pytest.raises(InputError, match=said):
            open_bundle(tmp_path / "out")
        changed.write_bytes(was)

    edited("model/config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1')
    edited("model/chat_template.jinja", "assistant", "model")
    edited("model/generation_config.json", "eos_token_id", "eos_token_ids")
    assert open_bundle(tmp_path / "out").arm.name == "rag"
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    said = r"was made with another weights of the base model \(model\.safetensors\) than this machine has"
    with pytest.raises(InputError, match=said):
        open_bundle(tmp_path / "out")


ODD: list[tuple[str, Any]] = [
    ("output_tokens", 10**12),
    ("output_tokens", 0),
    ("output_tokens", -1),
    ("precision", "fp8"),
    ("precision", ""),
    ("task", "../x"),
    ("task", "\x1b[31m"),
    ("labels", ["a", "a"]),
    ("labels", ["a"]),
    ("model", ""),
    ("model", "a\0b"),
    ("model", "x" * 100_000),
    ("files", {"other": {}}),
    ("files", {"base": {"config.json": 1}}),
    ("volume", {"questions_per_month": "many"}),
    ("arm.name", "\x1b[31mrag"),
    ("arm.weights", "linear"),
    ("arm.weights", "poem"),
    ("arm.stages", ["sft"]),
    ("arm.context", ""),
    ("arm.context", "few-shot+rag"),
    ("arm.context", "rag+rag"),
    ("chosen.passages", -1),
    ("chosen.passages", 10**12),
    ("chosen.passages", 1.5),
    ("chosen.passages", "3"),
    ("chosen.shots", -1),
    ("chosen.chunk_words", -5),
    ("chosen.vector_weight", 2.0),
    ("chosen.poem", 1),
    ("id", ""),
    ("id", "\x1b[31m"),
    ("id", "x" * 100_000),
    ("arm.name", "x" * 100_000),
    ("arm.settings", {"a": 1}),
    ("arm.settings", {"passages": -1}),
    ("arm.settings", {"passages": 10**12}),
    ("volume.questions_per_month", -1),
    ("volume.questions_per_month", 1e300),
    ("volume.questions_per_month", 1e-300),
    ("volume.horizon_months", 0),
    ("result.arm", "prompt"),
    *((f"result.{name}", value) for name in ("score", "low", "high", "n", "latency_p50_ms") for value in (-1, 1e308)),
    *((f"result.{name}", 1.5) for name in ("score", "score_floor", "p_target", "format_ok", "processor_share")),
    *((f"result.{name}", -0.5) for name in ("train_seconds", "peak_memory_mb", "seconds_per_question")),
    ("result.seeds", -1),
    ("result.stored_bytes", -1),
    ("result.seed_scores", [2.0]),
    ("result.low", 0.9),
    ("result.slices", {"a": {"score": 5, "low": 0, "high": 1, "n": 1}}),
    ("result.extras", {"ece": 1e308}),
    *((f"result.cost.{name}", value) for name in ("total", "up_front", "monthly") for value in (-1, 1e308)),
    ("result.cost.currency", "\x1b[31m"),
]


MEASURED = ArmResult(
    arm="rag",
    status="done",
    score=Estimate(value=0.5, low=0.4, high=0.6, n=30),
    score_floor=0.42,
    p_target=0.1,
    format_ok=1.0,
    seed_scores=(0.5,),
    latency_p50_ms=20.0,
    seconds_per_question=0.02,
    peak_memory_mb=900.0,
    cost=Cost(total=9.0, up_front=1.0, monthly=0.5, currency="USD", low=8.0, high=10.0),
    extras={"log_probability": -3.0},
    chosen={"passages": 2},
    processor_share=0.99,
)
VOLUME = Volume(questions_per_month=100, horizon_months=12, assumed=False)


def with_measurement(session: Session, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A bundle of an arm that a study measured: its record as a file and as JSON."""
    bundled(session, "rag", folder, {"passages": 2})
    file = folder / "bundle.json"
    plain = json.loads(file.read_text()) | {"result": to_plain(MEASURED), "volume": to_plain(VOLUME)}
    file.write_text(json.dumps(plain))
    return file, plain


def test_a_bundle_keeps_what_was_measured(session: Session, tmp_path: Path) -> None:
    with_measurement(session, tmp_path / "out")
    saved = open_bundle(tmp_path / "out").saved
    assert (saved.result, saved.volume) == (MEASURED, VOLUME)


@pytest.fixture(scope="module")
def measured_bundle(
    tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The record of a measured bundle, as a file that a test writes anew, and what is in it at first."""
    folder = tmp_path_factory.mktemp("measured")
    file, plain = with_measurement(session_in(folder, tiny_model_folder, tiny_embedding_folder), folder / "out")
    return file, json.dumps(plain)


@pytest.mark.parametrize(("field", "value"), ODD, ids=[f"{field}={str(value)[:20]!r}" for field, value in ODD])
def test_odd_values_in_a_strangers_bundle_end_in_one_line(
    field: str, value: Any, measured_bundle: tuple[Path, str]
) -> None:
    file, plain = measured_bundle[0], json.loads(measured_bundle[1])
    *keys, last = field.split(".")
    at = plain
    for key in keys:
        at = at[key]
    at[last] = value
    file.write_text(json.dumps(plain))
    with pytest.raises((InputError, MissingError)) as refused:
        open_bundle(file.parent)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


def test_an_instruction_that_no_context_holds_is_refused_before_it_is_read(session: Session, tmp_path: Path) -> None:
    bundled(session, "prompt", tmp_path / "out", {})
    for name, change in (
        ("bundle.json", {"instruction": "long " * 20_000}),
        ("questions.json", {"questions": [to_plain(StoredQuestion(messages=ASKED.messages, answer=""))] * 2}),
    ):
        file = tmp_path / "out" / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    opened = open_bundle(tmp_path / "out", base=session.fresh_base())
    with pytest.raises(ContextLengthError), open_online(opened.session, opened.arm, opened.saved):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("questions.json", "questions", [{"messages": [], "answer": ""}]),
        ("questions.json", "questions", [{"messages": [{"role": "poet", "content": ""}], "answer": ""}]),
        ("shots.json", "shots", [{"id": "a", "messages": [{"role": "user", "content": "x"}], "references": []}]),
        ("shots.json", "shots", [{"id": "a", "messages": [], "references": ["x"]}]),
    ],
)
def test_rows_of_a_strangers_bundle_that_hold_nothing_end_in_one_line(
    name: str, key: str, value: Any, session: Session, tmp_path: Path
) -> None:
    bundled(session, "few-shot", tmp_path / "out", {"shots": 1})
    file = tmp_path / "out" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match="is damaged"):
        open_bundle(tmp_path / "out")


@pytest.mark.parametrize("odd", [{"temperature": 0.0}, {"temperature": -1.0}, {"way": "poem"}, {"offsets": {"a": "b"}}])
def test_an_odd_calibration_ends_in_one_line(odd: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path / "calibration.json", Calibration())
    assert read_calibration(tmp_path) == Calibration()
    (tmp_path / "calibration.json").write_text(json.dumps({"form": FORM, **odd}))
    with pytest.raises(InputError, match=r"calibration\.json: is damaged"):
        read_calibration(tmp_path)


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
