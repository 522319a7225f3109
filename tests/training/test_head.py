"""The classification head: as plain torch with one padded batch, whatever the batch, through a kill, and saved."""

import math
import random

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, base_of, plain_model

from trimtab.base.errors import InputError, MissingError
from trimtab.base.progress import Progress
from trimtab.model.adapters import add_lora, load_adapter, save_adapter, trainable, unfreeze
from trimtab.training import batch as batches_of
from trimtab.training import checkpoint, head, loop
from trimtab.training.head import Classification, Head, label_probabilities, label_rows, load_head, save_head
from trimtab.training.loop import LoopSettings, TrainingJob, held_out, train

LABELS = ("later", "urgent", "never")


def prompts(count, seed=0):
    """Prompts whose label is told by a token that stands somewhere in them: (ids, label)."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        label = draw.randrange(len(LABELS))
        ids = [draw.randrange(10, VOCABULARY) for _ in range(draw.randint(2, 14))]
        ids.insert(draw.randrange(len(ids)), 5 + label)
        found.append((ids, label))
    return found


def rows(count=24, seed=0, weights=False):
    draw = random.Random(seed)
    weighted = ((ids, label, draw.choice([0.5, 1.0, 3.0]) if weights else 1.0) for ids, label in prompts(count, seed))
    return label_rows(weighted, len(LABELS))


def fresh(family="llama", dtype=torch.float32):
    base = base_of(family, dtype)
    add_lora(base, 4, 8.0, seed=0)
    return base, Head(LABELS, 32, seed=3)


def job(base, own, folder, **more):
    settings = LoopSettings(learning_rate=1e-2, epochs=5, evaluations=2, patience=99)
    objective = Classification(rows(), own, batch=6, seed=0)
    unseen = Classification(rows(12, seed=9), own, batch=6, seed=0)
    given = {"settings": settings, "objective": objective, "evaluate": lambda: held_out(base, unseen), **more}
    return TrainingJob(base=base, folder=folder, **given)


def moved(base, own):
    return {
        name: value.detach().clone()
        for name, value in Classification(rows(), own, batch=1, seed=0).parameters(base).items()
    }


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_a_separable_problem(tmp_path, dtype):
    base, own = fresh(dtype=dtype)
    events: list = []
    before = moved(base, own)
    settings = LoopSettings(learning_rate=1e-2, epochs=10, evaluations=2, patience=99)
    learned = Classification(rows(240), own, batch=12, seed=0)
    unseen = Classification(rows(30, seed=9), own, batch=30, seed=0)
    told = Progress(listeners=[events.append])
    train(
        job(
            base,
            own,
            tmp_path,
            settings=settings,
            objective=learned,
            progress=told,
            evaluate=lambda: held_out(base, unseen),
        )
    )
    steps = [event for event in events if event["stage"] == "train" and "loss" in event]
    assert steps[0]["loss"] == pytest.approx(math.log(len(LABELS)), abs=0.5)
    assert steps[-1]["loss"] < 0.1
    assert steps[-1]["accuracy"] == pytest.approx(1.0)
    assert [event["accuracy"] for event in events if event["stage"] == "dev"][-1] > 0.8
    after = moved(base, own)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(value.dtype == torch.float32 for value in after.values())
    asked = prompts(30, seed=9)
    chosen = label_probabilities(base, own, [ids for ids, _ in asked]).argmax(-1).tolist()
    told_right = sum(answer == label for answer, (_, label) in zip(chosen, asked, strict=True)) / len(asked)
    seen = held_out(base, unseen)
    assert told_right == pytest.approx(seen.figures["accuracy"])
    assert len(seen.rows) == 30
    assert sum(seen.rows) / 30 == pytest.approx(seen.dev_loss, abs=1e-6)


def padded(model, own, chosen):
    """The reference: one batch padded to the right, the hidden state of each prompt's last token, torch's cross entropy."""
    longest = max(len(row.encoded.ids) for row in chosen)
    ids, seen = torch.zeros(len(chosen), longest, dtype=torch.long), torch.zeros(len(chosen), longest, dtype=torch.long)
    for number, row in enumerate(chosen):
        ids[number, : len(row.encoded.ids)] = torch.tensor(row.encoded.ids)
        seen[number, : len(row.encoded.ids)] = 1
    hidden = model.base_model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(chosen)), seen.sum(1) - 1]
    labels = torch.tensor([row.scored[0][1] for row in chosen])
    weights = torch.tensor([row.weight for row in chosen])
    losses = torch.nn.functional.cross_entropy(last @ own.weight.T + own.bias, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("tokens", [20, 512])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_plain_torch_on_one_padded_batch(family, tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, own, twin = base_of(family), Head(LABELS, 32, seed=3), plain_model(family)
    torch.nn.init.normal_(own.weight, std=0.5)
    unfreeze(base, "full")
    objective = Classification(rows(10, weights=True), own, batch=10, seed=0)
    loss = sum(objective.loss(base, batch).value for batch in objective.batches(0))
    loss.backward()
    ours = {name: value.grad for name, value in objective.parameters(base).items()}
    own.zero_grad(set_to_none=True)
    expected = padded(twin, own, objective.rows)
    expected.backward()
    theirs = {name: value.grad for name, value in twin.named_parameters()}
    theirs |= {"head.weight": own.weight.grad, "head.bias": own.bias.grad}
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert (grad is None) == (ours[name] is None)
        assert grad is None or torch.allclose(ours[name], grad, atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_probabilities_are_those_of_each_prompt_alone_in_the_order_asked(tokens, monkeypatch):
    base, own = fresh()
    torch.nn.init.normal_(own.weight)
    asked = [ids for ids, _ in prompts(9)]
    monkeypatch.setattr(head, "MICRO_TOKENS", tokens)
    together = label_probabilities(base, own, asked)
    alone = torch.cat([label_probabilities(base, own, [ids]) for ids in asked])
    assert together.shape == (9, len(LABELS))
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.sum(-1), torch.ones(9))
    assert label_probabilities(base, own, []).shape == (0, len(LABELS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_killed_stopped_and_resumed_is_never_stopped_and_the_head_is_in_the_checkpoint(tmp_path, monkeypatch, dtype):
    whole, own = fresh(dtype=dtype)
    expected = train(job(whole, own, tmp_path / "whole"))
    base, cut = fresh(dtype=dtype)
    train(job(base, cut, tmp_path / "cut"), until=7)
    kept = checkpoint.load(tmp_path / "cut" / "checkpoints")
    assert torch.equal(kept.weights["head.weight"], cut.weight.detach())
    assert torch.equal(kept.weights["head.bias"], cut.bias.detach())
    assert "head.weight/exp_avg" in kept.moments

    class KilledError(Exception):
        pass

    def die(event):
        if event["step"] == 13:
            raise KilledError

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    base, cut = fresh(dtype=dtype)
    with pytest.raises(KilledError):
        train(job(base, cut, tmp_path / "cut", progress=Progress(listeners=[die])))
    base, cut = fresh(dtype=dtype)
    result = train(job(base, cut, tmp_path / "cut"))
    assert same(moved(whole, own), moved(base, cut))
    assert result.readings == expected.readings


def test_what_is_saved_answers_as_what_was_trained(tmp_path):
    base, own = fresh()
    train(job(base, own, tmp_path / "run"))
    save_adapter(base, tmp_path / "adapter")
    save_head(own, tmp_path / "adapter")
    loaded = base_of("llama")
    load_adapter(loaded, tmp_path / "adapter")
    again = load_head(loaded, tmp_path / "adapter")
    assert again.labels == LABELS
    asked = [ids for ids, _ in prompts(5)]
    assert torch.equal(label_probabilities(loaded, again, asked), label_probabilities(base, own, asked))
    assert trainable(loaded.model).keys() == trainable(base.model).keys()


@pytest.mark.parametrize("file", [head.WEIGHTS_FILE, head.LABELS_FILE])
def test_a_head_that_is_gone_damaged_or_of_another_model_is_refused_by_name(tmp_path, file):
    base = base_of("llama")
    save_head(Head(LABELS, 32), tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:-5])
    with pytest.raises(InputError, match=f"{file}: .*damaged"):
        load_head(base, tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(MissingError, match=f"no classification head.*{file}"):
        load_head(base, tmp_path)
    (tmp_path / file).write_bytes(whole)
    (tmp_path / head.LABELS_FILE).write_text('{"labels": [1]}')
    with pytest.raises(InputError, match="no list of labels"):
        load_head(base, tmp_path)
    for other in (Head(LABELS, 48), Head(LABELS[:2], 32)):
        save_head(other, tmp_path)
        (tmp_path / head.LABELS_FILE).write_text('{"labels": ["later", "urgent", "never"]}')
        with pytest.raises(InputError, match="does not fit the model and the 3 labels"):
            load_head(base, tmp_path)


def test_rows_that_cannot_be_learned_from_are_refused():
    with pytest.raises(InputError, match="row 2 has an empty prompt"):
        label_rows([([3], 0, 1.0), ([], 0, 1.0)], 3)
    with pytest.raises(InputError, match=r"row 1 has label number 3.*from 0 to 2"):
        label_rows([([3], 3, 1.0)], 3)
    with pytest.raises(InputError, match="weight above 0"):
        label_rows([([3], 0, 0.0)], 3)
    [row] = label_rows([([3, 4], 2, 1.0), ([3], 1, 0.0)], 3)
    assert row.targets == ((1, 2),)
