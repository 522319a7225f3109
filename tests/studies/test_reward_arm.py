"""A reward model from judged answers: trained, told, loaded by transformers and PEFT, part of a reward; it answers
nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from study_tasks import rows_of, write_task
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from trimtab import ask, check, study, train
from trimtab.arms.rewards import reward_for
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import load_task, parse_arm, with_arms
from trimtab.measurement.rewards import Answered
from trimtab.studies.eval import eval as score_arm
from trimtab.studies.train import TrainedRun

JUDGED = [
    {"prompt": row["question"], "chosen": row["answer"], "rejected": "nowhere", "group": row["pair"]}
    for row in rows_of(60)
]
ALONE = [{"prompt": row["question"], "answer": "nowhere", "good": False} for row in rows_of(70)[60:]]
DATA = 'group = "pair"\npreferences = ["judged.jsonl"]\nsplit = { dev = 0.25, test = 0.25, seed = 0 }'
OWN = '[arm.own]\nweights = "lora"\nstages = ["reward"]\nrank = 4\nepochs = 2\nlearning_rate = 2e-2\n'
BRIEF = '[arm.brief]\nweights = "lora"\nrank = 2\nepochs = 0.1\n'


def a_task(folder: Path, model: Path, arms: tuple[str, ...] = ("prompt",), *, more: str = "", **own: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*JUDGED, *ALONE]))
    return write_task(folder, model, arms, rows=rows_of(60), data=DATA, more=OWN + BRIEF + more, **own)


pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> tuple[Path, TrainedRun]:
    task = a_task(tmp_path_factory.mktemp("reward"), tiny_model_folder)
    return task, train(task, "own", listeners=[])


def answered(task: Path, texts: tuple[str, ...]) -> tuple[Any, list[Answered]]:
    session = open_session(open_workspace(load_task(task)))
    examples = session.workspace.splits["test"][:6]
    return session, [Answered(example=one, text=text, new_tokens=3) for one in examples for text in texts]


def test_it_tells_held_out_pairs_and_asks_no_question(made: tuple[Path, TrainedRun]) -> None:
    _, run = made
    assert run.pair_accuracy is not None
    assert run.pair_accuracy > 0.9
    assert (run.dev_metric, run.steps > 0) == (None, True)
    assert run.dev_loss is not None
    assert run.dev_loss < 0.5
    settings = json.loads((run.folder / "adapter" / "config.json").read_text())
    assert settings["id2label"] == {"0": "reward"}


def test_scores_are_those_of_transformers_and_peft(made: tuple[Path, TrainedRun], tiny_model_folder: Path) -> None:
    task, run = made
    more = f'[reward]\nmodel = {{ run = "{run.id}" }}\n'
    rewarded = a_task(task.parent, tiny_model_folder, more=more)
    session, items = answered(rewarded, ("Bonn", "nowhere", ""))
    found = [one.parts["model"] for one in reward_for(session, parse_arm("prompt", session.task))(items)]
    folder, tokenizer = run.folder / "adapter", AutoTokenizer.from_pretrained(tiny_model_folder)
    config = AutoConfig.from_pretrained(folder)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, config=config)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, num_labels=1)
    model, other = (PeftModel.from_pretrained(one, folder).eval() for one in (base, plain))
    rows = []
    for item in items:
        turns = [{"role": "system", "content": "Which city?"}, {"role": "user", "content": item.example.input}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        rows.append(prompt + tokenizer(item.text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id])
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[config.pad_token_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
        alone = other(input_ids=torch.tensor([rows[0]]), use_cache=False).logits[0, 0]
    assert torch.allclose(torch.tensor(found), theirs.sigmoid(), atol=1e-4)
    assert torch.allclose(alone, theirs[0], atol=1e-4)
    assert all(better > worse for better, worse in zip(found[::3], found[1::3], strict=True))


def test_the_end_token_is_no_padding_where_the_tokenizer_pads_with_it(tmp_path: Path, tiny_model_folder: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model_folder.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.add_special_tokens({"unk_token": "<|endoftext|>"})
    tokenizer.save_pretrained(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "pad_token_id": config["eos_token_id"]}))
    run = train(a_task(tmp_path / "task", model), "own", listeners=[])
    padding = json.loads((run.folder / "adapter" / "config.json").read_text())["pad_token_id"]
    assert padding == tokenizer.convert_tokens_to_ids("<|endoftext|>") != config["eos_token_id"]


def test_it_answers_nothing(made: tuple[Path, TrainedRun], tmp_path: Path, tiny_model_folder: Path) -> None:
    task, _ = made
    line = r"arm (own|lora-reward) answers nothing, it scores answers; leave it out here; make it with: trimtab train "
    for verb in (
        lambda: study(with_arms(load_task(task), ["prompt", "own"]), listeners=[]),
        lambda: score_arm(task, "own", listeners=[]),
        lambda: ask("Where?", task=task, arm="lora-reward", listeners=[]),
        lambda: load_task(a_task(tmp_path, tiny_model_folder, ("prompt", "lora-reward"))),
    ):
        with pytest.raises(InputError, match=line) as caught:
            verb()
        assert "\n" not in str(caught.value)
    assert "own" not in [arm.name for arm in load_task(a_task(tmp_path, tiny_model_folder, ())).arms]
    seen = check(a_task(tmp_path, tiny_model_folder), listeners=[])
    assert [one.arm for one in seen.forecasts] == ["prompt"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('weights = "soft-prompt"\nstages = ["reward"]', "soft-prompt takes no head"),
        ('weights = "lora"\nstages = ["reward", "sft"]', "stages go on after the head; put reward last"),
    ],
)
def test_stages_that_cannot_be_are_refused(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_task(write_task(tmp_path, "nowhere", ["prompt"], more=f"[arm.x]\n{table}\n"))
    with pytest.raises(InputError, match="soft-prompt takes no head"):
        parse_arm("soft-prompt-reward", load_task(write_task(tmp_path, "nowhere", ["prompt"])))
    with pytest.raises(InputError, match="needs judged answers and there are none"):
        parse_arm("lora-reward", load_task(write_task(tmp_path, "nowhere", ["prompt"])))


def test_one_sided_judgements_alone_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = a_task(tmp_path, tiny_model_folder)
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ALONE))
    with pytest.raises(InputError, match=r"no pairs of a better and a worse answer to train on; reward needs them"):
        train(task, "own", listeners=[])


def test_a_reward_model_that_is_not_there_is_told(made: tuple[Path, TrainedRun], tiny_model_folder: Path) -> None:
    task, _ = made
    other = train(task, "brief", listeners=[])
    for run, said in (("20200101T000000Z-abcdef", "no such run"), (other.id, "a run of arm brief, which scores no")):
        rewarded = a_task(task.parent, tiny_model_folder, more=f'[reward]\nmodel = {{ run = "{run}" }}\n')
        session, _ = answered(rewarded, ("Bonn",))
        with pytest.raises(MissingError, match=said) as caught:
            reward_for(session, parse_arm("prompt", session.task))
        assert "\n" not in str(caught.value)


def test_a_session_s_reward_knows_lengths_and_whether_passages_are_shown(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path, tiny_model_folder, more="[reward]\nlength = 1.0\nmetric = 2.0\n")
    session, items = answered(task, ("Bonn",))
    reward = reward_for(session, parse_arm("prompt", session.task))
    longest = max(len(session.encoder.answer(one.references[0])) for one in session.workspace.splits["train"])
    limit = session.output_tokens
    told = [Answered(example=items[0].example, text="x", new_tokens=count) for count in (1, longest, limit)]
    assert [one.parts["length"] for one in reward(told)] == [1.0, 1.0, 0.0 if limit > longest else 1.0]
    right = Answered(example=items[0].example, text=items[0].example.references[0], new_tokens=1)
    assert reward([right])[0].total == 3.0
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "one.md").write_text("# One\nBonn has a bridge.")
    cited = a_task(tmp_path, tiny_model_folder, more="[reward]\ncitation = 1.0\n", base="")
    text = cited.read_text().replace("[data]", '[data]\ndocuments = ["documents"]')
    cited.write_text(text)
    session, _ = answered(cited, ("Bonn",))
    with pytest.raises(
        InputError, match=r"arm lora is shown no passages to cite; take lora\+rag, or take citation out"
    ):
        reward_for(session, parse_arm("lora", session.task))
