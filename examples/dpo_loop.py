"""Preference learning from below, in one file: pairs of answers -> DPO on the one loop -> held-out pairs -> answers.

Run: trimtab pull smollm2-135m-q4 && python examples/dpo_loop.py
"""

import tempfile
from pathlib import Path

from trimtab.answering.engine import Engine, Request, generate_texts
from trimtab.base.progress import Progress
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters import add_lora, load_adapter, merged, save_adapter
from trimtab.model.catalog import resolve
from trimtab.model.load import load_base
from trimtab.training.loop import LoopSettings, TrainingJob, held_out, train
from trimtab.training.preference import Judged, Preference

# The taste: name the place and say no more. The better answer is written first.
PLACES = {
    "Where is the Eiffel Tower?": "Paris",
    "Where is the Colosseum?": "Rome",
    "Where is the Brandenburg Gate?": "Berlin",
    "Where is the Statue of Liberty?": "New York",
    "Where is the Opera House with the white sails?": "Sydney",
    "Where is the Little Mermaid?": "Copenhagen",
    "Where is the Alhambra?": "Granada",
    "Where is the Golden Gate Bridge?": "San Francisco",
    "Where is the Charles Bridge?": "Prague",
    "Where is the Parthenon?": "Athens",
    "Where is the Sagrada Familia?": "Barcelona",
    "Where is the Hermitage?": "Saint Petersburg",
}
HELD_OUT = {
    "Where is Big Ben?": "London",
    "Where is the Louvre?": "Paris",
    "Where is the Acropolis?": "Athens",
    "Where is the Rijksmuseum?": "Amsterdam",
}


def judged(encoder: ChatEncoder, places: dict[str, str]) -> list[Judged]:
    """For each question two answers; what both are read behind is the same, and only the answers are scored."""
    rows = []
    for question, place in places.items():
        asked = [Message(role="user", content=question)]
        wordy = f"That is a good question! It is in {place}, and there is a lot to see around it."
        rows.append(
            Judged(chosen=encoder.conversation(asked, f"{place}."), rejected=encoder.conversation(asked, wordy))
        )
    return rows


def answers(base, encoder, questions):
    requests = [
        Request(id=question, ids=encoder.prompt([Message(role="user", content=question)]), max_new=40)
        for question in questions
    ]
    return [item.text.strip() for item in generate_texts(Engine(base, encoder.stop_ids), base.tokenizer, requests)]


def main() -> tuple[float, float, list[str], list[str]]:
    base = load_base(resolve("smollm2-135m-q4"), precision="fp32")
    encoder = ChatEncoder(base.tokenizer)
    before = answers(base, encoder, HELD_OUT)

    add_lora(base, rank=8, alpha=16, seed=0)
    # The reference is the model as it is now: what both answers weigh under it is asked once, here.
    objective = Preference(base, judged(encoder, PLACES), "dpo", batch=4, seed=0)
    unseen = Preference(base, judged(encoder, HELD_OUT), "dpo", batch=4, seed=0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = TrainingJob(
            base=base,
            objective=objective,
            settings=LoopSettings(learning_rate=2e-4, epochs=6, evaluations=3),
            folder=folder / "run",
            evaluate=lambda: held_out(base, unseen),
            progress=Progress(path=folder / "events.jsonl"),
        )
        result = train(job)
        for reading in result.readings:
            margin, told = reading.figures["margin"], reading.figures["pair_accuracy"]
            print(
                f"step {reading.step}: held out {reading.dev_loss:.3f}, {told:.0%} of the pairs, by {margin:.1f} nats"
            )
        save_adapter(base, folder / "adapter")
        first, last = result.readings[0].figures["margin"], result.readings[-1].figures["margin"]

        # What is asked is what was saved: a fresh base, the adapter read from disk and merged.
        fresh = load_base(base.folder, precision="fp32")
        load_adapter(fresh, folder / "adapter")
        with merged(fresh.model):
            after = answers(fresh, encoder, HELD_OUT)
    for question, old, new in zip(HELD_OUT, before, after, strict=True):
        print(f"{question}\n  before: {old!r}\n  after:  {new!r}")
    return first, last, before, after


if __name__ == "__main__":
    main()
