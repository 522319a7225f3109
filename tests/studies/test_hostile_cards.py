"""A card built of hostile text: no HTML, no heading, no YAML and no command but our own comes out of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from study_tasks import write_task

from trimtab.arms.artifacts import TrainedWeights
from trimtab.arms.session import Session
from trimtab.arms.store import SavedArm, write_arm
from trimtab.arms.workspace import open_workspace
from trimtab.base.grammar import arm_from_name
from trimtab.base.results import ArmRecord, ArmResult, Estimate, Usage
from trimtab.base.sanitize import visible
from trimtab.base.task import load_task
from trimtab.model.catalog import loadable_name
from trimtab.model.load import load_base
from trimtab.studies.equivalence import EquivalenceCheck
from trimtab.studies.model_card import Facts, render_model_card

HOSTILE = [
    "<script>alert(1)</script>",
    "x\n# forged\n\n## Licences",
    "forged\n===",
    "- [a](javascript:x) ![b](c)",
    "`` ` ``` ```` `",
    "```\n</code><script>\n```\n# forged",
    "~~~\n<b>\n~~~",
    "\x1b]0;title\x07\x1b[31m \x7f \x9b31m \x85 \u2028",
    "a\n---\nb: c\n...\n--- # d",
    "&lt;script&gt; &#96;",
    '\'; rm -rf ~; "$(id)" \\',
    "{a: [1, 2]} | > ! & * % @ ?",
    "no",
    "1. x",
    " \t lead and trail \t ",
    "🙂 \ufeff \u202e \ud83d",
    "-x",
    "$'\\x1b'",
]
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=40)
ARM = arm_from_name("lora")
ONE = Estimate(value=0.5, low=0.25, high=0.75, n=8)
USAGE = dict.fromkeys(("train_seconds", "evaluation_seconds", "index_seconds", "seconds_per_question"), 0.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Session:
    folder = tmp_path_factory.mktemp("hostile-card")
    (folder / "model").mkdir()
    for file in tiny_model_folder.iterdir():
        shutil.copyfile(file, folder / "model" / file.name)
    task = load_task(write_task(folder, "model", ["lora"]))
    return Session(open_workspace(task), base=load_base(folder / "model", "fp32"))


def hostile(session: Session, base: str, row: str, licence: str, instruction: str, file: str) -> Session:
    """The session of a task whose every text is hostile; the model is read from a folder of a plain name."""
    workspace, task = session.workspace, session.task
    (task.folder / "model" / "trimtab-model.json").write_text(json.dumps({"licence": licence}))
    splits = {
        name: tuple(replace(one, source=row, licence=row) for one in part) for name, part in workspace.splits.items()
    }
    changed = task.model_copy(
        update={
            "task": task.task.model_copy(update={"instruction": instruction}),
            "base": task.base.model_copy(update={"model": base, "revision": row}),
            "file": task.folder / file.replace("/", "-"),
        }
    )
    own = Session(replace(workspace, task=changed, splits=splits), base=session.base)
    own.base_folder = task.folder / "model"
    return own


def saved_arm(folder: Path, text: str) -> SavedArm:
    """The record of an arm with hostile slices and settings, and an adapter of LoRA's kind."""
    usage = Usage(**USAGE, prompt_tokens=1, new_tokens=1, runs_on_own_machine=True, trained=True, token_fee=None)
    name = text.encode("utf-8", "replace").decode()  # a row with half a character is refused when it is read
    slices, figures = {name: ONE, f"{name}2": ONE}, {name: 0.5}
    result = ArmResult(arm="lora", status="done", score=ONE, slices=slices, abstention=figures)
    assert ARM is not None
    record = ArmRecord(
        arm=ARM, digest="", model="", revision=None, embedding="", usage=usage, result=result, classes=None
    )
    write_arm(folder, record)
    adapter = folder / "seed0" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x.lora_A.weight": torch.zeros(16, 2)}, adapter / "adapter_model.safetensors")
    return SavedArm(id="1", folder=folder / "seed0", chosen={"rank": 16, "way": text}, trained=TrainedWeights())


def facts(saved: SavedArm | None, consumer: str) -> Facts:
    proof = EquivalenceCheck(
        consumer=consumer,
        precision="fp32",
        what="answers",
        questions=8,
        same=8,
        ties=0,
        differ=0,
        same_prompts=8,
        agreement=ONE,
        claimed=True,
        failed=False,
        lost=None,
        differing=(),
    )
    assert ARM is not None
    form = "peft" if saved else "merged"
    return Facts(arm=ARM, saved=saved, format=form, quantize=None, proofs=(proof,), openings=1, signed=True)


HEADINGS = [
    "What it is",
    "Does it answer like what was measured",
    "Scores",
    "How it was made",
    "Run it",
    "Data",
    "Limits",
    "Licences",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=7, max_size=7), measured=st.booleans())
@example(texts=[HOSTILE[1]] * 7, measured=True)
@example(texts=[HOSTILE[5]] * 7, measured=False)
@example(texts=[HOSTILE[7]] * 7, measured=True)
@example(texts=[HOSTILE[10]] * 7, measured=False)
@example(texts=["a \u202e b \u2066 c \u200f"] * 7, measured=True)
def test_nothing_of_hostile_text_is_markup(session: Session, texts: list[str], measured: bool) -> None:
    base, row, licence, instruction, file, inner, note = texts
    own = hostile(session, base, row, licence, instruction, file)
    with TemporaryDirectory() as folder:
        saved = saved_arm(Path(folder), inner) if measured else None
        text = render_model_card(own, facts(saved, note), [note])

    text.encode()  # no half of a surrogate pair
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    _, front, body = re.split("^---\n", text, maxsplit=2, flags=re.MULTILINE)
    assert front.isascii()
    found = yaml.safe_load(front)
    assert found["license_name"] == licence or found["license"] == licence.lower()
    assert found["tags"] == ["trimtab", "lora"]
    assert found.get("model-index", [{}])[0].get("name") == ("tiny-lora" if measured else None)
    assert ModelCard(text).data.to_dict() == found

    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(body)
    kinds = {one.type for one in tokens} | {child.type for one in tokens for child in one.children or []}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "strong_open", "s_open", "hr"}
    assert "table_open" not in kinds
    titles = [tokens[at + 1].content for at, one in enumerate(tokens) if one.type == "heading_open"]
    assert titles == ["tiny: lora", *HEADINGS]

    blocks = [one.content.removesuffix("\n") for one in tokens if one.type == "fence"]
    assert plain(blocks[0]) == plain(instruction)
    served = [shlex.split(block) for block in blocks if block.startswith("vllm serve")]
    assert len(served) == 1
    path = loadable_name(base, own.base_folder, own.task.folder)[0] if measured else "."
    assert plain(served[0][2]) == plain(path)
    if not measured:
        (command,) = (shlex.split(block) for block in blocks if block.startswith("trimtab study"))
        assert [plain(word) for word in command] == ["trimtab", "study", "--task", plain(str(own.task.file))]


def plain(text: str) -> str:
    """With control characters drawn, and what no file may hold as one letter."""
    return re.sub("[\ud800-\udfff\ufffe\uffff\ufffd]", "?", visible(text))
