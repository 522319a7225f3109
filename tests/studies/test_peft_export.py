"""A PEFT export opens as its readers open one: `AutoPeftModelForCausalLM.from_pretrained(folder)`, from any working
directory."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from study_tasks import CLASSIFY, LABELLED, QUICK, write_task
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab import export, train
from trimtab.arms.store import find_saved
from trimtab.base.task import load_task, parse_arm

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADED = '[arm.headed]\nweights = "lora"\nstages = ["head"]\nepochs = 1\n'
IDS = [5, 9, 3, 17, 20, 8]
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # what PEFT says to transformers


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([IDS]), use_cache=False).logits[0]


def base_named(kind: str, home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The name of a base model in a task file, and where it lies: the tiny model as each kind of base that there is."""
    if kind == "catalogue":
        monkeypatch.setenv("TRIMTAB_CACHE", str(home / "cache"))
        name, folder = "smollm2-135m-q4", home / "cache" / "models" / "smollm2-135m-q4"
    elif kind == "hub":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        repository = home / "hub" / "models--some--model"
        name, folder = "some/model", repository / "snapshots" / COMMIT
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
    else:
        name, folder = "bases/a tiny one", home / "bases" / "a tiny one"
    shutil.copytree(tiny, folder)
    if kind == "catalogue":
        (folder / "trimtab-model.json").write_text('{"licence": "Apache-2.0"}')
    return name, folder


@pytest.mark.parametrize("kind", ["catalogue", "hub", "relative folder"])
def test_peft_finds_the_base_model_by_itself_and_the_card_names_the_same(
    kind: str, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = base_named(kind, tmp_path, tiny_model_folder, monkeypatch)
    file = write_task(tmp_path, name, ["prompt", "quick"], more=QUICK)
    train(file, "quick", listeners=[])
    assert not export(file, "quick", format="peft", out=tmp_path / "out", listeners=[]).failed

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    own = load_task(file)
    saved = find_saved(own, parse_arm("quick", own))
    assert saved is not None
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    before = logits(plain)
    after = logits(PeftModel.from_pretrained(plain, saved.folder / "adapter"))
    assert torch.equal(logits(model), after)
    assert not torch.allclose(after, before)

    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    expected = ("some/model", COMMIT) if kind == "hub" else (str(folder), None)
    assert (settings["base_model_name_or_path"], settings["revision"]) == expected
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [{"role": "user", "content": "the bridge"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nthe bridge<|im_end|>\n<|im_start|>assistant\n"

    card = (tmp_path / "out" / "README.md").read_text()
    words = shlex.split(next(line for line in card.splitlines() if line.startswith("vllm serve")))
    served = ["some/model", "--revision", COMMIT] if kind == "hub" else [str(folder), "--dtype", "float32"]
    assert words[2:5] == served
    moved = {"catalogue": f"`trimtab pull {name}`", "hub": f"at commit {COMMIT}", "relative folder": "copy its folder"}
    assert moved[kind] in card


def test_a_folder_below_the_home_folder_is_named_without_the_user(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = base_named("relative folder", tmp_path, tiny_model_folder, monkeypatch)
    file = write_task(tmp_path, name, ["prompt", "quick"], more=QUICK)
    train(file, "quick", listeners=[])
    monkeypatch.setenv("HOME", str(tmp_path))
    export(file, "quick", format="peft", out=tmp_path / "out", listeners=[])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "vllm serve ~/'bases/a tiny one' --dtype" in card
    assert f"{tmp_path}/bases" not in card


@pytest.mark.parametrize("arm", ["quick", "headed"])
def test_the_python_of_the_card_loads_the_adapter(
    arm: str, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = QUICK + HEADED
    file = write_task(tmp_path, tiny_model_folder, ["prompt", arm], task=CLASSIFY, data=LABELLED, more=more)
    train(file, arm, listeners=[])
    export(file, arm, format="peft", out=tmp_path / "out", listeners=[])
    card = (tmp_path / "out" / "README.md").read_text()
    code = next(block for block in card.split("```\n") if block.startswith("from peft"))
    monkeypatch.chdir(tmp_path / "out")
    named: dict[str, Any] = {}
    exec(code, named)
    assert named["tokenizer"].chat_template
    assert named["model"].dtype == torch.float32
    if arm == "headed":
        assert "AutoPeftModelForSequenceClassification" in code
        assert named["model"].config.id2label[0] == "Aalen"
        assert isinstance(named["model"], AutoPeftModelForSequenceClassification._target_peft_class)


def test_the_card_of_a_bundle_says_how_its_base_model_is_brought(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = write_task(tmp_path, tiny_model_folder, ["prompt"])
    export(file, "prompt", format="bundle", out=tmp_path / "out", listeners=[])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The base model is not in this folder" in card
    assert "`bundle.json`" in card
