"""Fine-tuning from below, in one file: rows -> token ids with their loss mask -> LoRA on the one loop -> answers ->
saved and loaded again.

Run: trimtab pull smollm2-135m-q4 && python examples/sft_loop.py
"""

import tempfile
from pathlib import Path

from trimtab.inference import Engine, Request, generate_texts
from trimtab.model import (
    ChatEncoder,
    Message,
    accelerate,
    attach,
    load_adapter,
    load_base,
    merged,
    resolve,
    save_adapter,
)
from trimtab.training import (
    LoopSettings,
    Progress,
    SupervisedObjective,
    TrainingJob,
    answer_rows,
    evaluate_objective,
    train_model,
)

# The task: say whether a note from the workshop is urgent.
INSTRUCTION = "Sort the note. Answer with one word, urgent or later."
TRAIN = [
    ("Smoke comes out of the big press.", "urgent"),
    ("The forklift leaks oil on the ramp.", "urgent"),
    ("Sparks at the socket by the door.", "urgent"),
    ("The emergency stop of line 2 does not work.", "urgent"),
    ("Gas smell near the boiler.", "urgent"),
    ("A rack is about to fall over.", "urgent"),
    ("The coffee machine needs beans.", "later"),
    ("Please order more pencils.", "later"),
    ("The calendar in the hall is out of date.", "later"),
    ("We are low on paper towels.", "later"),
    ("The meeting room clock is two minutes slow.", "later"),
    ("Someone left an umbrella in the office.", "later"),
]
HELD_OUT = [
    ("Flames behind the welding session!", "urgent"),
    ("The crane's brake has failed.", "urgent"),
    ("The printer is out of paper.", "later"),
    ("A chair in the canteen squeaks.", "later"),
]


def conversation(note: str) -> list[Message]:
    return [Message(role="system", content=INSTRUCTION), Message(role="user", content=note)]


def answers(base, encoder, notes):
    requests = [Request(id=note, ids=encoder.prompt(conversation(note)), max_new=8) for note in notes]
    return [item.text.strip() for item in generate_texts(Engine(base, encoder.stop_ids), base.tokenizer, requests)]


def show(title, said):
    right = sum(answer == word for answer, (_, word) in zip(said, HELD_OUT, strict=True))
    print(f"{title}: {right} of {len(HELD_OUT)} right, {said}")
    return right


def main() -> tuple[int, int]:
    base = accelerate(load_base(resolve("smollm2-135m-q4"), precision="fp32"))
    encoder = ChatEncoder(base.tokenizer)
    notes = [note for note, _ in HELD_OUT]
    before = show("before", answers(base, encoder, notes))

    # Only the answer and its end token are trained on; the mask is built where the prompt is.
    def rows(pairs):
        return answer_rows((encoder.conversation(conversation(note), word), 1.0) for note, word in pairs)

    attach(base, "lora", seed=0, rank=8)
    dev = SupervisedObjective(rows(HELD_OUT), batch=4, seed=0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = TrainingJob(
            base=base,
            objective=SupervisedObjective(rows(TRAIN), batch=4, seed=0),
            settings=LoopSettings(learning_rate=1e-3, epochs=6, evaluations=2),
            folder=folder / "run",
            evaluate=lambda: evaluate_objective(base, dev),
            progress=Progress(path=folder / "events.jsonl"),
        )
        result = train_model(job)
        for reading in result.readings:
            print(f"step {reading.step}: loss {reading.train_loss:.3f}, held out {reading.dev_loss:.3f} nats a token")
        save_adapter(base, folder / "adapter")  # PEFT's format: adapter_model.safetensors, adapter_config.json

        # What is measured and served is what was saved: a fresh base, the adapter read from disk and merged.
        fresh = accelerate(load_base(base.folder, precision="fp32"))
        load_adapter(fresh, folder / "adapter")
        with merged(fresh.model):
            after = show("after", answers(fresh, encoder, notes))
    return before, after


if __name__ == "__main__":
    main()
