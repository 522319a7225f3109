"""Training the real small model: bfloat16 as float32, and the adapter in PEFT as here and merged."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora, load_adapter, merged, save_adapter
from trimtab.model.attention import PackedSequences
from trimtab.model.catalog import resolve
from trimtab.model.load import load_base
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.sft import SupervisedObjective, answer_rows

FACTS = [
    (f"What is the code of door {number}?", f"The code of door {number} is {number * 37 % 101}.")
    for number in range(24)
]
SETTINGS = LoopSettings(learning_rate=5e-4, epochs=4.0)


def rows_of(base, facts):
    encoder = ChatEncoder(base.tokenizer)
    return answer_rows(
        (encoder.conversation([Message(role="user", content=asked)], told), 1.0) for asked, told in facts
    )


def trained(precision, folder):
    base = load_base(resolve("smollm2-135m-q4"), precision)
    unseen = SupervisedObjective(rows_of(base, FACTS[12:]), batch=6, seed=0)
    before = evaluate_objective(base, unseen).dev_loss
    add_lora(base, 8, 16.0, seed=0)
    facts = SupervisedObjective(rows_of(base, FACTS[:12]), batch=4, seed=0)
    train_model(TrainingJob(base=base, objective=facts, settings=SETTINGS, folder=folder))
    return base, before, evaluate_objective(base, unseen).dev_loss


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory):
    return trained("fp32", tmp_path_factory.mktemp("fp32"))


def test_bfloat16_trains_as_float32_does(in_float32, tmp_path):
    _, before, expected = in_float32
    _, _, reached = trained("bf16", tmp_path)
    assert expected < before - 0.1  # it learned something
    assert reached == pytest.approx(expected, abs=0.01)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_adapter_answers_alike_in_peft_here_and_merged(in_float32, tmp_path):
    base = in_float32[0]
    save_adapter(base, tmp_path)
    folder = resolve("smollm2-135m-q4")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    theirs = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    fresh = load_base(folder, "fp32")
    load_adapter(fresh, tmp_path)
    encoder = ChatEncoder(base.tokenizer)
    for asked, _ in FACTS[:2]:
        prompt = encoder.prompt([Message(role="user", content=asked)])
        expected = greedy(lambda ids: theirs(input_ids=ids[None], use_cache=False).logits[0], prompt)
        assert greedy(lambda ids: logits(fresh, ids), prompt) == expected
        with merged(fresh.model):
            assert greedy(lambda ids: logits(fresh, ids), prompt) == expected


def logits(base, ids):
    layout = PackedSequences([len(ids)])
    return base.logits(base.hidden(ids, layout.positions_N, layout))


def greedy(step, prompt, count=6):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(step(torch.tensor(ids))[-1].argmax()))
    return ids[len(prompt) :]
