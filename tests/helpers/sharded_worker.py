"""One process of a group that trains a tiny model, for the tests of training over several processes."""

import argparse
import json
import os
import signal
from pathlib import Path

import torch
from tiny_models import answered, base_of, random_rows

from trimtab.base.progress import Progress
from trimtab.model import process_group
from trimtab.model.adapters.apply import attach, save_adapter, trainable_parameters
from trimtab.model.classifier import ClassificationHead
from trimtab.model.divided import saved_value
from trimtab.model.sharded import shard
from trimtab.training import batch as batches_of
from trimtab.training import loop
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.preference import JudgedAnswers, PreferenceObjective
from trimtab.training.reward import SCORE_LABELS, BradleyTerry, ComparedAnswers
from trimtab.training.sft import SupervisedObjective

BATCH, STEPS = 6, 20


def pairs(count, seed):
    rows = random_rows(2 * count, seed)
    return [
        (answered(one.encoded.ids[:2], one.encoded.ids[2:]), answered(one.encoded.ids[:2], other.encoded.ids[2:]))
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]


def objective_over(base, name, count, seed, batch):
    if name in ("sft", "weighted"):
        return SupervisedObjective(random_rows(count, seed, weights=name == "weighted"), batch=batch, seed=0)
    if name == "head":
        head = ClassificationHead(("yes", "no", "perhaps"), base.model.config.hidden_size, seed=0)
        rows = [(one.encoded.ids, number % 3, 1.0) for number, one in enumerate(random_rows(count, seed))]
        return ClassificationObjective(label_rows(rows, 3), head, batch=batch, seed=0)
    if name == "reward":
        head = ClassificationHead(SCORE_LABELS, base.model.config.hidden_size, seed=0)
        rows = [ComparedAnswers(chosen=one, rejected=other) for one, other in pairs(count, seed)]
        return BradleyTerry(rows, head, batch=batch, seed=0)
    judged = [JudgedAnswers(chosen=one, rejected=other) for one, other in pairs(count, seed)]
    return PreferenceObjective(base, judged, name, batch=batch, seed=0)


def prepared(method, family):
    base = base_of(family)
    attach(base, method, seed=3, rank=4, layers=1, virtual_tokens=4)
    if process_group.size() > 1:
        shard(base)
    return base


def disturbed(given):
    """A listener that kills or stops this process when a step has ended."""

    def listen(event):
        if event["stage"] == "train" and event["step"] == given.at and given.rank == process_group.rank():
            os.kill(os.getpid(), getattr(signal, given.signal))

    return [listen] if given.signal else []


def train(given, case):
    method, name, family = case.split(":")
    folder = given.folder / case.replace(":", "-").replace(" ", "-")
    base = prepared(method, family)
    objective = objective_over(base, name, 20, 0, BATCH)
    dev = objective_over(base, name, 7, 9, 7)
    if name in ("head", "reward"):
        dev.head = objective.head
    events = []
    progress = Progress(listeners=[events.append, *disturbed(given)])
    job = TrainingJob(
        base=base,
        objective=objective,
        settings=LoopSettings(learning_rate=3e-3, epochs=STEPS / objective.steps_per_epoch, evaluations=2),
        folder=folder,
        evaluate=lambda: evaluate_objective(base, dev),
        progress=progress,
        fingerprint=case,
    )
    result = train_model(job, until=given.until)
    save_adapter(base, folder / "adapter")
    parameters = objective.parameters(base)
    weights = {name: saved_value(base, value).flatten().tolist() for name, value in sorted(parameters.items())}
    found = {
        "weights": weights,
        "losses": [(one["loss"], one["gradient_norm"]) for one in events if "loss" in one],
        "dev": [(one.dev_loss, list(one.rows), dict(one.figures)) for one in result.readings],
        "steps": result.steps,
        "finished": result.finished,
        "names": sorted(trainable_parameters(base.model)),
    }
    (folder / f"result-{process_group.rank()}.json").write_text(json.dumps(found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+", help="method:objective:family")
    parser.add_argument("--until", type=int)
    parser.add_argument("--rank", type=int, default=-1)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--signal", default="")
    parser.add_argument("--version", default="1")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batches_of.MICRO_TOKENS, loop.SAVE_SECONDS = 40, 0.0
    process_group.JOIN_SECONDS = process_group.COLLECTIVE_SECONDS = given.seconds
    try:
        with process_group.joined(process_group.launch_of(os.environ), {"version": given.version}):
            for case in given.cases:
                train(given, case)
    except process_group.InputError as error:
        raise SystemExit(f"refused: {error}") from None
    except process_group.StoppedError as error:
        raise SystemExit(f"stopped: {error}") from None


if __name__ == "__main__":
    main()
