"""How answers are read off transformers: greedy text, label scores as a whole pass gives them, and where two answers
part."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from trimtab.base.errors import InputError
from trimtab.exports.readers import LlamaCppReader, ReadAnswer, has_llama_cpp, load_back

pytestmark = pytest.mark.no_kernels

PROMPT = [5, 9, 3, 17, 20]
LABELS = [[7, 8, 2], [7, 2], [30, 31, 32, 33, 2]]


@pytest.fixture(scope="module")
def consumer(tiny_model_folder):
    return load_back(tiny_model_folder, "merged", precision="fp32")


def test_labels_score_as_in_a_pass_over_each_alone(consumer, tiny_model_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    wanted = []
    for label in LABELS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*PROMPT, *label]])).logits[0].log_softmax(-1)
        wanted.append(sum(float(logits[len(PROMPT) - 1 + at, token]) for at, token in enumerate(label)))
    assert consumer.label_log_probabilities(PROMPT, LABELS) == pytest.approx(wanted, abs=1e-4)


def test_a_greedy_answer_stops_and_knows_how_sure_it_was(consumer):
    written = consumer.generate(PROMPT, 8, [2])
    assert 0 < len(written.ids) <= 8
    first = consumer.generate(PROMPT, 8, [written.ids[0]])
    assert first.ids == written.ids[:1]
    stepwise = consumer._stepwise(PROMPT, 8, [2])
    assert stepwise.ids == written.ids


def test_answers_part_where_their_tokens_first_differ():
    logits = torch.log_softmax(torch.tensor([[0.0, 5.0, 1.0], [2.0, 1.9, 0.0]]), -1)
    written = ReadAnswer(text="", ids=(1, 0), logits_TV=logits)
    assert written.gap((1, 1)) == pytest.approx(0.1, abs=1e-6)
    assert written.gap((2, 0)) == pytest.approx(4.0)
    assert written.gap((1, 0, 2)) == float("inf")  # one goes on where the other has ended


def test_a_damaged_folder_is_told_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load it"):
        load_back(tmp_path, "merged", precision="fp32")


@pytest.mark.skipif(not has_llama_cpp(), reason="llama-cpp-python is not installed, and it is not built for a test")
def test_llama_cpp_reads_the_same_tokens_and_writes_the_same_answer(tiny_model_folder, tmp_path):
    from trimtab.data.prompts import ChatEncoder
    from trimtab.exports.gguf import write_gguf
    from trimtab.exports.hf import merged_config, merged_weights
    from trimtab.model.load import load_base

    base = load_base(tiny_model_folder, "fp32")
    encoder, weights = ChatEncoder(base.tokenizer), merged_weights(base)
    write_gguf(
        *(tmp_path / "m.gguf", merged_config(base, weights), weights, base.tokenizer),
        template=encoder.chat_template,
        end=base.tokenizer.eos_token_id,
        kind="f32",
    )
    native = LlamaCppReader(tmp_path / "m.gguf", 256)
    turns = [{"role": "system", "content": "Which?"}, {"role": "user", "content": "the bridge of Bonn"}]
    theirs = load_back(tiny_model_folder, "merged", precision="fp32")
    assert native.prompt(turns) == theirs.prompt(turns)
    asked = theirs.prompt(turns)
    ours, wanted = native.generate(asked, 6, [2]), theirs.generate(asked, 6, [2])
    assert (ours.text, ours.ids) == (wanted.text, wanted.ids)
    other = [*wanted.ids[:1], (wanted.ids[1] + 1) % len(base.tokenizer)]
    assert ours.gap(other) == pytest.approx(wanted.gap(other), abs=1e-3)
    labels = [*LABELS, [7, 8, 9, 2], [30, 2]]  # some begin alike
    assert native.label_log_probabilities(asked, labels) == pytest.approx(
        theirs.label_log_probabilities(asked, labels), abs=1e-3
    )
    assert native.label_log_probabilities(asked, labels[:1]) == pytest.approx(
        theirs.label_log_probabilities(asked, labels[:1]), abs=1e-3
    )
