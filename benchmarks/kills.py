"""Kills training with SIGKILL at random moments, inside saves too, resumes it, and compares the weights that come
out to the bit.

Run: python benchmarks/kills.py  →  benchmarks/results/kills.json On a tiny random model every objective is trained
undisturbed (`full` and `freeze`: `sft` of a model's own weights, in bfloat16 and by our kernels), then again and
again in processes that die, by a clock or at one of their own writes (before it, after it, or with half a file of
weights written), each time gone on with, until it is done. Half of the runs save after every step, half at their
looks at dev alone. A killed process leaves the system standing: what a power cut does is not shown. It forks: Linux
or macOS.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trimtab.base import files
from trimtab.base.files import read_json_lines, sha256_file, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Progress
from trimtab.base.records import Encoded
from trimtab.inference.engine import Engine, Request
from trimtab.inference.sampling import Sampling
from trimtab.model import classifier
from trimtab.model.adapters import apply as adapters
from trimtab.model.adapters.apply import add_lora, unfreeze
from trimtab.model.attention import ATTENTION
from trimtab.model.classifier import ClassificationHead
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base
from trimtab.training import checkpoint, loop
from trimtab.training.batch import TrainingRow
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.distill import Distillation
from trimtab.training.judged_answers import JudgedAnswers
from trimtab.training.loop import LoopSettings, TrainingJob, TrainingObjective, evaluate_objective, train_model
from trimtab.training.preference import PreferenceObjective
from trimtab.training.reward import SCORE_LABELS, BradleyTerry
from trimtab.training.rl import PolicyGradient, Rollout
from trimtab.training.sft import SupervisedObjective

RESULT = Path(__file__).resolve().parent / "results" / "kills.json"
VOCABULARY, LABELS, ROWS, DEV_ROWS, BATCH = 96, ("yes", "no", "perhaps"), 12, 6, 4
SETTINGS = LoopSettings(learning_rate=2e-2, epochs=4.0, evaluations=4)
BY_CLOCK, MOST_DEATHS = 0.4, 6  # the share of deaths that comes by the clock; deaths of one run
OWN_WEIGHTS = ("full", "freeze")  # what of a model in bfloat16 moves, in `sft` again
WRITES, SAVING = 0, 1  # places of what a process tells about itself
Sides = tuple[TrainingObjective[Any], TrainingObjective[Any]]  # over the rows of training and over those of dev


def tiny_base(layers: int = 2, moves: str = "lora") -> Base:
    """A random Llama of few layers, the same each time: LoRA moves beside it in float32, or its own weights in
    bfloat16.

    Those by `full` or `freeze`, in sizes that our kernels take.
    """
    own = moves != "lora"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64 if own else 32,
        intermediate_size=64 if own else 48,
        num_hidden_layers=layers,
        num_attention_heads=1 if own else 4,
        num_key_value_heads=1 if own else 2,
        max_position_embeddings=128,
        initializer_range=0.2,
        attn_implementation=ATTENTION,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    base = Base(model=model, tokenizer=None, precision="bf16" if own else "fp32", folder=Path())
    if own:
        model.bfloat16()
        accelerate(base)
        unfreeze(base, moves, 1)
    else:
        add_lora(base, 4, 8.0, seed=0)
    return base


def encoded(draw: random.Random, prompt: Sequence[int], whole: bool = False) -> Encoded:
    """A random answer of one to eight tokens after a prompt; `whole`: every token is trained on."""
    answer = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 8))]
    return Encoded(ids=(*prompt, *answer), trained=(whole,) * len(prompt) + (True,) * len(answer))


def prompts(count: int, seed: int) -> list[tuple[random.Random, list[int]]]:
    draw = random.Random(seed)
    return [(draw, [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(2, 12))]) for _ in range(count)]


def supervised(_: Base, *, whole: bool) -> Sides:
    train_rows, dev_rows = (
        [TrainingRow(encoded=encoded(draw, prompt, whole)) for draw, prompt in prompts(count, seed)]
        for count, seed in ((ROWS, 0), (DEV_ROWS, 1))
    )
    return SupervisedObjective(train_rows, batch=BATCH, seed=0), SupervisedObjective(dev_rows, batch=DEV_ROWS, seed=0)


def distilled(_: Base) -> Sides:
    teacher = tiny_base(layers=3)

    def over(count: int, seed: int, batch: int) -> Distillation:
        said = [TrainingRow(encoded=encoded(draw, prompt)) for draw, prompt in prompts(count, seed)]
        return Distillation(said, said, teacher, batch=batch, seed=0)

    return over(ROWS, 0, BATCH), over(DEV_ROWS, 1, DEV_ROWS)


def classification(base: Base) -> Sides:
    head = ClassificationHead(LABELS, base.model.config.hidden_size, seed=0)
    train_rows, dev_rows = (
        label_rows([(prompt, draw.randrange(len(LABELS)), 1.0) for draw, prompt in prompts(count, seed)], len(LABELS))
        for count, seed in ((ROWS, 0), (DEV_ROWS, 1))
    )
    return ClassificationObjective(train_rows, head, batch=BATCH, seed=0), ClassificationObjective(
        dev_rows, head, batch=DEV_ROWS, seed=0
    )


def judged(base: Base, *, loss: str) -> Sides:
    train_rows, dev_rows = (
        [
            JudgedAnswers(chosen=encoded(draw, prompt), rejected=encoded(draw, prompt))
            for draw, prompt in prompts(count, seed)
        ]
        for count, seed in ((ROWS, 0), (DEV_ROWS, 1))
    )
    return PreferenceObjective(base, train_rows, loss, batch=BATCH, seed=0), PreferenceObjective(
        base, dev_rows, loss, batch=DEV_ROWS, seed=0
    )


def compared(base: Base) -> Sides:
    head = ClassificationHead(SCORE_LABELS, base.model.config.hidden_size, seed=0)
    train_rows, dev_rows = (
        [
            JudgedAnswers(chosen=encoded(draw, prompt), rejected=encoded(draw, prompt))
            for draw, prompt in prompts(count, seed)
        ]
        for count, seed in ((ROWS, 0), (DEV_ROWS, 1))
    )
    return BradleyTerry(train_rows, head, batch=BATCH, seed=0), BradleyTerry(dev_rows, head, batch=DEV_ROWS, seed=0)


def rewarded(base: Base, *, loss: str) -> Sides:
    def over(count: int, seed: int) -> PolicyGradient:
        asked = [tuple(prompt) for _, prompt in prompts(count, seed)]
        return PolicyGradient(base, count, partial(rollouts, base, asked), loss, batch=BATCH, seed=seed)

    return over(ROWS, 0), over(DEV_ROWS, 1)


def rollouts(base: Base, asked: Sequence[tuple[int, ...]], numbers: Sequence[int], step: int) -> list[list[Rollout]]:
    """Three answers to each prompt; a token earns by being of the lower half."""
    groups = []
    for number in numbers:
        requests = [
            Request(
                id=str(answer),
                ids=asked[number],
                max_new=6,
                sampling=Sampling(temperature=1.0, seed=1000 * step + 10 * number + answer),
                logprobs=True,
            )
            for answer in range(3)
        ]
        given = Engine(base, frozenset()).generate(requests)
        groups.append(
            [
                Rollout(
                    encoded=Encoded(
                        ids=(*asked[number], *one.ids),
                        trained=(False,) * len(asked[number]) + (True,) * len(one.ids),
                    ),
                    log_p=one.log_probabilities,
                    reward=sum(token < VOCABULARY // 2 for token in one.ids) / len(one.ids),
                )
                for one in given
            ]
        )
    return groups


OBJECTIVES: dict[str, Callable[[Base], Sides]] = {
    "sft": partial(supervised, whole=False),
    "docs": partial(supervised, whole=True),
    **{moves: partial(supervised, whole=False) for moves in OWN_WEIGHTS},
    "distill": distilled,
    "head": classification,
    **{loss: partial(judged, loss=loss) for loss in ("dpo", "ipo", "simpo", "orpo", "kto")},
    "reward": compared,
    **{loss: partial(rewarded, loss=loss) for loss in ("rloo", "grpo", "ppo")},
}


def trained(name: str, folder: Path) -> None:
    """Train an objective, or go on, and save what moved."""
    base = tiny_base(moves=name if name in OWN_WEIGHTS else "lora")
    objective, dev = OBJECTIVES[name](base)
    train_model(
        TrainingJob(
            base=base,
            objective=objective,
            settings=SETTINGS,
            folder=folder,
            evaluate=lambda: evaluate_objective(base, dev),
            progress=Progress(path=folder / "metrics.jsonl"),
            fingerprint=name,
        )
    )
    if isinstance(objective, ClassificationObjective | BradleyTerry):
        classifier.save_head(base, objective.head, folder / "adapter")
    else:
        adapters.save_adapter(base, folder / "adapter")


def outcome(folder: Path) -> dict[str, str]:
    """Return the outcome of a run: the files in its folder, with a digest of every file of its weights.

    Raises InputError where a line of its events is damaged.
    """
    list(read_json_lines(folder / "metrics.jsonl"))
    digests = {
        path.name: sha256_file(path) if path.is_file() else "" for path in sorted((folder / "adapter").iterdir())
    }
    return dict.fromkeys(sorted(path.name for path in folder.iterdir()), "") | digests


@dataclass(frozen=True, kw_only=True)
class Death:
    """The moment at which a process dies: `after` seconds, or at its `write`-th write, before or after it (`late`)."""

    after: float | None = None
    write: int = 0
    late: bool = False


@dataclass
class Told:
    """The counts of one objective."""

    kills: int = 0
    kills_inside_saves: int = 0
    kills_by_the_clock: int = 0
    runs: int = 0
    resumes: int = 0
    failures: int = 0
    mismatches: int = 0


class Watched:
    """Counts the writes of this process, tells whether it is inside a save, and kills it at one of them."""

    def __init__(self, seen: Any, death: Death) -> None:
        self.seen, self.death = seen, death
        for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.counted(getattr(os, name)))
        files.open = self.counted(open)  # type: ignore[attr-defined]
        for room in (checkpoint, adapters):
            room.save_file = self.counted(room.save_file, torn=True)
        checkpoint.save = self.marked(checkpoint.save)
        adapters.save_adapter = self.marked(adapters.save_adapter)
        classifier.save_head = self.marked(classifier.save_head)

    def counted(self, write: Callable[..., Any], *, torn: bool = False) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.seen[WRITES] += 1
            dies = self.seen[WRITES] == self.death.write
            if dies and not self.death.late:
                os.kill(os.getpid(), signal.SIGKILL)
            found = write(*given, **named)
            if dies:
                if torn:
                    os.truncate(given[1], os.path.getsize(given[1]) // 2)
                    shutil.copy(
                        given[1], Path(given[1]).with_name(".tmpKilled")
                    )  # safetensors writes to such a name first
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    def marked(self, save: Callable[..., None]) -> Callable[..., None]:
        def call(*given: Any, **named: Any) -> None:
            self.seen[SAVING] = 1
            save(*given, **named)
            self.seen[SAVING] = 0

        return call


def sitting(name: str, folder: Path, save_seconds: float, death: Death) -> tuple[int, Any, float]:
    """A process that trains until it is done or dies: its exit code (negative: the signal), what it told, and its
    seconds."""
    seen = RawArray("q", 2)
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 1
        try:
            loop.SAVE_SECONDS = save_seconds
            Watched(seen, death)
            trained(name, folder)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    if death.after is not None:
        time.sleep(death.after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), seen, time.monotonic() - began


def undisturbed(name: str, scratch: Path) -> tuple[dict[str, str], dict[float, tuple[int, float]]]:
    """Return the outcome of an objective that is not killed, and for each way of saving its writes and seconds."""
    found, spans = [], {}
    for save_seconds in (0.0, math.inf):
        folder = scratch / f"{name}-{save_seconds}"
        code, seen, seconds = sitting(name, folder, save_seconds, Death())
        if code:
            raise SystemExit(f"{name} cannot be trained at all")
        found.append(outcome(folder))
        spans[save_seconds] = (seen[WRITES], seconds)
    if found[0] != found[1]:
        raise SystemExit(f"{name}: two runs that nobody disturbed differ")
    return found[0], spans


def killed_until_done(name: str, scratch: Path, kills: int, draw: random.Random) -> Told:
    """Runs of an objective, each killed some times and gone on with, until there were so many kills."""
    expected, spans = undisturbed(name, scratch)
    told = Told()
    while told.kills < kills:
        save_seconds = draw.choice(sorted(spans))
        folder = scratch / f"{name}-{told.runs}"
        told.runs += 1
        for turn in range(MOST_DEATHS + 1):
            dies = turn < MOST_DEATHS and told.kills < kills
            death = drawn(draw, *spans[save_seconds]) if dies else Death()
            told.resumes += turn > 0
            code, seen, _ = sitting(name, folder, save_seconds, death)
            if code != -signal.SIGKILL:
                told.failures += code != 0
                if code == 0 and (differs := outcome(folder).items() ^ expected.items()):
                    told.mismatches += 1
                    print(f"{name}: run {told.runs} came to something else in {sorted(differs)}", file=sys.stderr)
                break
            told.kills += 1
            told.kills_inside_saves += seen[SAVING]
            told.kills_by_the_clock += death.after is not None
        shutil.rmtree(folder)
    return told


def drawn(draw: random.Random, writes: int, seconds: float) -> Death:
    """A moment within the span of a whole run."""
    if draw.random() < BY_CLOCK:
        return Death(after=draw.random() * seconds)
    return Death(write=draw.randint(1, writes), late=draw.random() < 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=240, help="in all")
    parser.add_argument("--objectives", default=",".join(OBJECTIVES), help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    names = given.objectives.split(",")
    torch.set_num_threads(1)  # before any is started: a forked process has none but its own
    found: dict[str, Told] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            draw = random.Random(f"{given.seed}:{name}")
            found[name] = killed_until_done(name, Path(scratch), -(-given.kills // len(names)), draw)
        print(name, asdict(found[name]), flush=True)
    total = {field.name: sum(getattr(one, field.name) for one in found.values()) for field in fields(Told)}
    what = (
        f"{SETTINGS.epochs:g} epochs over {ROWS} rows, a tiny random Llama with LoRA, or in bfloat16 with its own "
        f"weights, seed {given.seed}"
    )
    told = {"what": what, "machine": describe_machine(), "versions": versions(), "total": total}
    write_json(given.out, {**told, "objectives": {name: asdict(one) for name, one in found.items()}})
    print("total", total)
    sys.exit(bool(total["failures"] or total["mismatches"]))


if __name__ == "__main__":
    main()
