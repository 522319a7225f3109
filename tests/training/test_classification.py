"""The classification head: as plain torch with one padded batch, whatever the batch, through a kill, and saved."""

import math
import random

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, base_of, plain_model

from trimtab.base.errors import InputError, MissingError
from trimtab.base.progress import Progress
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.model.adapters.apply import add_lora, detach, load_adapter, save_adapter, unfreeze
from trimtab.model.classifier import ClassificationHead, load_head, save_head
from trimtab.training import batch as batches_of
from trimtab.training import checkpoint, loop
from trimtab.training.classification import ClassificationObjective, class_probabilities, label_rows
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model

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
    return base, ClassificationHead(LABELS, 32, seed=3)


def probabilities(base, own, asked):
    return class_probabilities(own, last_hidden_states(base, [tuple(ids) for ids in asked]))


def job(base, own, folder, **more):
    settings = LoopSettings(learning_rate=1e-2, epochs=5, evaluations=2, patience=99)
    objective = ClassificationObjective(rows(), own, batch=6, seed=0)
    unseen = ClassificationObjective(rows(12, seed=9), own, batch=6, seed=0)
    given = {"settings": settings, "objective": objective, "evaluate": lambda: evaluate_objective(base, unseen), **more}
    return TrainingJob(base=base, folder=folder, **given)


def trained(method, folder):
    """A base of which the method's part moved with a head for a few real steps, saved in `folder/adapter`."""
    base, own = base_of("llama"), ClassificationHead(LABELS, 32, seed=3)
    if method == "lora":
        add_lora(base, 4, 8.0, seed=0)
    else:
        unfreeze(base, method, layers=1)
    train_model(job(base, own, folder / "run"))
    save_head(base, own, folder / "adapter")
    return base, own


def moved(base, own):
    return {
        name: value.detach().clone()
        for name, value in ClassificationObjective(rows(), own, batch=1, seed=0).parameters(base).items()
    }


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_a_separable_problem(tmp_path, dtype):
    base, own = fresh(dtype=dtype)
    events: list = []
    before = moved(base, own)
    settings = LoopSettings(learning_rate=1e-2, epochs=10, evaluations=2, patience=99)
    learned = ClassificationObjective(rows(240), own, batch=12, seed=0)
    unseen = ClassificationObjective(rows(30, seed=9), own, batch=30, seed=0)
    told = Progress(listeners=[events.append])
    train_model(
        job(
            base,
            own,
            tmp_path,
            settings=settings,
            objective=learned,
            progress=told,
            evaluate=lambda: evaluate_objective(base, unseen),
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
    chosen = probabilities(base, own, [ids for ids, _ in asked]).argmax(-1).tolist()
    told_right = sum(answer == label for answer, (_, label) in zip(chosen, asked, strict=True)) / len(asked)
    seen = evaluate_objective(base, unseen)
    assert told_right == pytest.approx(seen.figures["accuracy"])
    assert len(seen.rows) == 30
    assert sum(seen.rows) / 30 == pytest.approx(seen.dev_loss, abs=1e-6)


def padded(model, own, chosen):
    """The reference: one batch padded to the right, the hidden state of each prompt's last token, torch's cross
    entropy."""
    longest = max(len(row.encoded.ids) for row in chosen)
    ids, seen = torch.zeros(len(chosen), longest, dtype=torch.long), torch.zeros(len(chosen), longest, dtype=torch.long)
    for number, row in enumerate(chosen):
        ids[number, : len(row.encoded.ids)] = torch.tensor(row.encoded.ids)
        seen[number, : len(row.encoded.ids)] = 1
    hidden = model.base_model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(chosen)), seen.sum(1) - 1]
    labels = torch.tensor([row.scored[0][1] for row in chosen])
    weights = torch.tensor([row.weight for row in chosen])
    losses = torch.nn.functional.cross_entropy(last @ own.weight.T, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("tokens", [20, 512])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_plain_torch_on_one_padded_batch(family, tokens, monkeypatch):
    monkeypatch.setattr(batches_of, "MICRO_TOKENS", tokens)
    base, own, twin = base_of(family), ClassificationHead(LABELS, 32, seed=3), plain_model(family)
    torch.nn.init.normal_(own.weight, std=0.5)
    unfreeze(base, "full")
    objective = ClassificationObjective(rows(10, weights=True), own, batch=10, seed=0)
    loss = sum(objective.loss(base, batch).value for batch in objective.batches(0))
    loss.backward()
    ours = {name: value.grad for name, value in objective.parameters(base).items()}
    own.zero_grad(set_to_none=True)
    expected = padded(twin, own, objective.rows)
    expected.backward()
    theirs = {name: value.grad for name, value in twin.named_parameters()}
    theirs |= {"head.weight": own.weight.grad}
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert (grad is None) == (ours[name] is None)
        assert grad is None or torch.allclose(ours[name], grad, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_killed_stopped_and_resumed_is_never_stopped_and_the_head_is_in_the_checkpoint(tmp_path, monkeypatch, dtype):
    whole, own = fresh(dtype=dtype)
    expected = train_model(job(whole, own, tmp_path / "whole"))
    base, cut = fresh(dtype=dtype)
    train_model(job(base, cut, tmp_path / "cut"), until=7)
    kept = checkpoint.load(tmp_path / "cut" / "checkpoints")
    assert torch.equal(kept.weights["head.weight"], cut.weight.detach())
    assert "head.weight/exp_avg" in kept.moments

    class KilledError(Exception):
        pass

    def die(event):
        if event["step"] == 13:
            raise KilledError

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    base, cut = fresh(dtype=dtype)
    with pytest.raises(KilledError):
        train_model(job(base, cut, tmp_path / "cut", progress=Progress(listeners=[die])))
    base, cut = fresh(dtype=dtype)
    result = train_model(job(base, cut, tmp_path / "cut"))
    assert same(moved(whole, own), moved(base, cut))
    assert result.readings == expected.readings


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_what_is_saved_answers_as_what_was_trained(tmp_path, method):
    base, own = trained(method, tmp_path)
    loaded = base_of("llama")
    load_adapter(loaded, tmp_path / "adapter")
    again = load_head(loaded, tmp_path / "adapter")
    assert again.labels == LABELS
    asked = [ids for ids, _ in prompts(5)]
    assert torch.equal(probabilities(loaded, again, asked), probabilities(base, own, asked))
    detach(loaded)
    assert same(loaded.model.state_dict(), base_of("llama").model.state_dict())


def test_a_head_that_is_gone_or_damaged_is_refused_by_name(tmp_path):
    base, _ = trained("lora", tmp_path)
    folder = tmp_path / "adapter"
    for file in ("adapter_model.safetensors", "config.json"):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[:-5])
        with pytest.raises(InputError, match=f"{file}: .*damaged"):
            load_head(base, folder)
        (folder / file).unlink()
        with pytest.raises(MissingError, match="no classification head"):
            load_head(base, folder)
        (folder / file).write_bytes(whole)
    (folder / "config.json").write_text('{"id2label": {"0": 1}}')
    with pytest.raises(InputError, match="no labels in id2label"):
        load_head(base, folder)
    (folder / "config.json").write_text('{"id2label": {"0": "later", "1": "urgent"}}')
    with pytest.raises(InputError, match="does not fit the model and the 2 labels"):
        load_head(base, folder)
    save_adapter(base, folder)
    with pytest.raises(MissingError, match=r"adapter_model\.safetensors: no classification head"):
        load_head(base, folder)


def test_rows_that_cannot_be_learned_from_are_refused():
    with pytest.raises(InputError, match="row 2 has an empty prompt"):
        label_rows([([3], 0, 1.0), ([], 0, 1.0)], 3)
    with pytest.raises(InputError, match=r"row 1 has label number 3.*from 0 to 2"):
        label_rows([([3], 3, 1.0)], 3)
    with pytest.raises(InputError, match="weight above 0"):
        label_rows([([3], 0, 0.0)], 3)
    [row] = label_rows([([3, 4], 2, 1.0), ([3], 1, 0.0)], 3)
    assert row.targets == ((1, 2),)
