"""How answers are read off transformers: greedy text, label scores as a whole pass gives them, and where two answers
part."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from trimtab.base.errors import InputError
from trimtab.exports.readers import ReadAnswer, load_back

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
    written = ReadAnswer(text="", ids=(1, 0), log_probabilities=({1: -0.5, 2: -4.5}, {0: -1.0, 1: -1.1}))
    assert written.gap((1, 1)) == pytest.approx(0.1, abs=1e-6)
    assert written.gap((2, 0)) == pytest.approx(4.0)
    assert written.gap((3, 0)) == pytest.approx(4.0)  # at least that much
    assert written.gap((1, 0, 2)) == float("inf")  # one goes on where the other has ended


def test_a_damaged_folder_is_told_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load it"):
        load_back(tmp_path, "merged", precision="fp32")
