"""Every objective once from end to end on the real small model: what it should move on held-out items, before and
after, and what is forgotten.

    python benchmarks/objectives.py run [--only dpo,grpo]   # trains; appends to results/objectives_runs.jsonl
    python benchmarks/objectives.py table                   # results/objectives.json, and the table

Each is a stage alone on the base model, trained by the code that trains arms, on a cut of a bundled example or on
made sums. Forgetting is the loss on rows of another bundled example. One seed and few rows: it shows that a stage
does what it is for, not which is the best.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from studies import write_sums

from trimtab.arms.answerers import score_on_dev
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.objectives import judged_answers, new_head, training_rows
from trimtab.arms.rewards import reward_for
from trimtab.arms.session import Session, open_session
from trimtab.arms.teacher import Teacher, answer_row, same_tokenization
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import open_workspace
from trimtab.base.config import ArmTable, RewardTable, TeacherTable
from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.grammar import DISTILL, PREFERENCES, REWARD, REWARDED
from trimtab.base.machine import describe_machine, release_memory, versions
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example, Split
from trimtab.base.task import Task, custom_arm, load_task
from trimtab.measurement.rewards import Answered
from trimtab.model.adapters.apply import merged
from trimtab.model.classifier import ClassificationHead, load_head
from trimtab.training.batch import TrainingRow
from trimtab.training.distill import Distillation
from trimtab.training.loop import evaluate_objective
from trimtab.training.preference import PreferenceObjective
from trimtab.training.reward import BradleyTerry
from trimtab.training.sft import document_rows, row_losses

RESULTS = Path(__file__).resolve().parent / "results"
RUNS, RESULT = RESULTS / "objectives_runs.jsonl", RESULTS / "objectives.json"
PRECISION, BATCH = "bf16", 8
# Those of dev decide which weights are kept, those of test are measured.
ROWS: dict[Split, int] = {"train": 64, "dev": 8, "test": 48}
PAIRS: dict[Split, int] = {"train": 32, "dev": 8, "test": 32}
OTHER_ROWS, DOCUMENTS, HELD_DOCUMENTS, TEACHER_EPOCHS = 24, 12, 6, 4.0
OTHER = {"handbook": "style", "style": "handbook", "sums": "handbook"}  # whose rows say what is forgotten
SUMS = """[task]
kind = "answer"
instruction = "Work out the sum. Answer with the number alone."
output_tokens = 16
[data]
examples = ["rows.jsonl"]
leakage = "report"
split = { dev = 0.2, test = 0.4, seed = 0 }
"""


WORDS = {
    "loss": "nats an answer token",
    "documents_loss": "nats a token of other documents",
    "teacher_loss": "nats from the teacher",
    "pair_accuracy": "pairs told right",
    "reward": "mean reward",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stage on an example: for how many epochs, at which rate and batch (the usual ones where None), and what it
    should move."""

    example: str
    moves: str
    epochs: float
    rate: float | None = None
    batch: int | None = None


# What goes on from weights that answer already has a tenth or a hundredth of the usual rate; here it begins with the
# base, and has half.
CASES = {
    "sft": Case(example="handbook", moves="loss", epochs=3.0),
    "docs": Case(example="handbook", moves="documents_loss", epochs=1.0),
    **{name: Case(example="style", moves="pair_accuracy", epochs=2.0, rate=5e-4) for name in (*PREFERENCES, REWARD)},
    **{name: Case(example="sums", moves="reward", epochs=1.5, rate=5e-4, batch=4) for name in REWARDED},
    DISTILL: Case(example="handbook", moves="teacher_loss", epochs=3.0),
}


def task_of(example: str, scratch: Path) -> Task:
    """A bundled example or the sums, copied, with a metric that runs no program."""
    folder = scratch / example
    if example == "sums":
        folder.mkdir(parents=True)
        write_sums(folder / "rows.jsonl", range(10, 60), range(2, 10), 160)
        (folder / "trimtab.toml").write_text(SUMS)
        return load_task(folder)
    with as_file(files("trimtab.demos") / example) as source:
        task = load_task(shutil.copytree(source, folder))
    if not task.task.scorer:
        return task
    other = {"metric": "rouge_l", "scorer": (), "output_tokens": 32}  # judgements are what counts there
    return task.model_copy(update={"task": task.task.model_copy(update=other)})


def session_of(example: str, scratch: Path, **tables: Any) -> Session:
    """A session over few rows of an example; `tables` take the place of the task's own."""
    session = open_session(open_workspace(task_of(example, scratch).model_copy(update=tables)), PRECISION)
    splits = {name: session.workspace.subset(name, most) for name, most in ROWS.items()}
    preferences = {name: session.workspace.preferences[name][:most] for name, most in PAIRS.items()}
    session.workspace = replace(session.workspace, splits=splits, preferences=preferences)
    return session


class Measure:
    """Looks at the weights that are on: what an objective is about on held-out items, and the loss on rows of
    another example."""

    def __init__(self, session: Session, arm: Arm, scratch: Path) -> None:
        self.session, self.arm, self.stage = session, arm, arm.stages[0]
        splits, preferences = session.workspace.splits, session.workspace.preferences
        self.test, self.builder = splits["test"], PromptBuilder(session, Context())
        others = session_of(OTHER[CASES[self.stage].example], scratch / "others")
        self.others, _ = training_rows(others, Context(), others.workspace.splits["test"][:OTHER_ROWS], 0)
        self.rows, _ = training_rows(session, Context(), self.test, 0)
        self.judged, _ = judged_answers(session, Context(), "test") if preferences["test"] else ([], 0)
        self.documents = document_rows(session.workspace.documents[1::2][:HELD_DOCUMENTS], session.encoder)
        trained = session.workspace.documents[::2][:DOCUMENTS]
        session.workspace = replace(session.workspace, documents=trained)
        self.lessons = lessons_of(session, self.test, scratch) if self.stage == DISTILL else None

    def look(self, head: ClassificationHead | None) -> dict[str, float]:
        """The figures of the weights that are on."""
        base = self.session.base
        found = {"forgetting": sum(row_losses(base, self.others)) / sum(row.trained_tokens for row in self.others)}
        if head is not None:
            scored = BradleyTerry(self.judged, head, batch=BATCH, seed=0)
            return {**found, "pair_accuracy": evaluate_objective(base, scored).figures["pair_accuracy"]}
        if self.judged:  # by the mean over an answer's tokens, which needs no reference
            told = evaluate_objective(
                base, PreferenceObjective(base, self.judged, "simpo", batch=BATCH, seed=0, cache_activations=False)
            )
            return {**found, "pair_accuracy": told.figures["pair_accuracy"]}
        for name, rows in (("loss", self.rows), ("documents_loss", self.documents)):
            if rows:
                found[name] = sum(row_losses(base, rows)) / sum(row.trained_tokens for row in rows)
        if self.lessons is not None:
            found["teacher_loss"] = evaluate_objective(base, self.lessons).dev_loss or 0.0
        with merged(base.model):
            found["metric"], _ = score_on_dev(self.session, self.test, self.builder, self.session.answer, None)
            if self.stage in REWARDED:
                found["reward"] = self.earned()
        return found

    def earned(self) -> float:
        """Return the mean reward of greedy answers."""
        given = self.session.answer(self.builder.prompts(self.test))
        items = [
            Answered(example=row, text=one.text, new_tokens=one.new_tokens, finished=one.finished)
            for row, one in zip(self.test, given, strict=True)
        ]
        earned = [one.total for one in reward_for(self.session, self.arm)(items)]
        return sum(earned) / len(earned)


def teacher_in(scratch: Path) -> Path:
    """A teacher that knows the handbook's questions: the base with all its weights tuned on them, as a folder."""
    session = session_of("handbook", scratch / "taught")
    arm = custom_arm("teacher", ArmTable(weights="full", stages=("sft",), epochs=TEACHER_EPOCHS))
    train_weights(session, arm, Context(), scratch / "teacher-run", Progress())
    for part in (session.base.model, session.base.tokenizer):
        part.save_pretrained(scratch / "teacher")
    return scratch / "teacher"


def lessons_of(session: Session, examples: Sequence[Example], scratch: Path) -> Distillation:
    """Return the teacher's answers to held-out questions, as an objective to evaluate."""
    teacher = Teacher(session, scratch / "asked", Progress())
    taught, own = teacher.answers(Context(), "test", examples), teacher.own
    if own is None or not same_tokenization(session.encoder, own.encoder, taught):
        raise SystemExit("the teacher is another model than it was made of")
    rows, read = (
        [TrainingRow(encoded=answer_row(encoder, one)) for one in taught] for encoder in (session.encoder, own.encoder)
    )
    return Distillation(rows, read, own.base, batch=BATCH, seed=0, cache_activations=False)


def run(name: str, scratch: Path) -> dict[str, Any]:
    """Train one objective; its line of the result."""
    case = CASES[name]
    tables = {"reward": RewardTable(number=1.0, length=0.5)} if name in REWARDED else {}
    if name == DISTILL:
        tables = {"teacher": TeacherTable(model=str(teacher_in(scratch)))}
    session = session_of(case.example, scratch, **tables)
    table = ArmTable(weights="lora", stages=(name,), epochs=case.epochs, learning_rate=case.rate, batch=case.batch)
    arm, folder = custom_arm(f"own-{name}", table), scratch / "run"
    measure = Measure(session, arm, scratch)
    session.fresh_base()
    before = measure.look(new_head(session, arm, 0))
    trained = train_weights(session, arm, Context(), folder, Progress(listeners=[show]))
    after = measure.look(load_head(session.base, folder / "adapter") if name == REWARD else None)
    rate = trained.recipe.stages[0].learning_rate if trained.recipe else None
    figures = {"steps": trained.steps, "tokens": trained.tokens}
    return {"objective": name, "example": case.example, "rate": rate, **figures, "before": before, "after": after}


def show(event: Mapping[str, Any]) -> None:
    """A line now and then."""
    told = [f"{key} {value:.3g}" for key, value in event.items() if isinstance(value, float) and key != "time"]
    if told and (event["stage"] == "dev" or event.get("step", 1) % 4 == 0):
        print("   ", event["stage"], event["step"], *told, flush=True)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """One row an objective, in the order of the cases."""
    by_name = {line["objective"]: line for line in lines}
    head = "| objective | held out | before → after | loss on another example | trained |"
    written = [head, "| --- " * 5 + "|"]
    for name in (name for name in CASES if name in by_name):
        line, moves = by_name[name], CASES[name].moves
        pairs = [(line["before"][key], line["after"][key]) for key in (moves, "forgetting")]
        moved, forgot = (f"{before:.2f} → {after:.2f}" for before, after in pairs)
        took = f"{line['steps']} steps"
        written.append(f"| `{name}` | {WORDS[moves]}, {line['example']} | {moved} | {forgot} | {took} |")
    return "\n".join(written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--only", default=",".join(CASES), help="these objectives, separated by commas")
    given = parser.parse_args()
    done = {line["objective"] for line in read_json_lines(RUNS)}
    for name in given.only.split(",") if given.what == "run" else ():
        if name in done:
            continue
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            append_line(RUNS, {**run(name, Path(scratch)), "machine": describe_machine(), "versions": versions()})
        release_memory()
    lines = list(read_json_lines(RUNS))
    what = (
        f"one stage of LoRA on smollm2-135m-q4 in {PRECISION}, one seed, {ROWS['test']} held-out questions or "
        f"{PAIRS['test']} pairs"
    )
    write_json(RESULT, {"what": what, "table": table(lines), "runs": lines})
    print(table(lines))


if __name__ == "__main__":
    main()
