"""Preference learning from below, in one file: pairs of answers -> DPO on the one loop -> held-out pairs -> saved.

Run: trimtab pull smollm2-135m-q4 && python examples/dpo_loop.py
"""

import tempfile
from pathlib import Path

from trimtab.base.progress import Progress
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters import add_lora, load_adapter, save_adapter
from trimtab.model.catalog import resolve
from trimtab.model.load import load_base
from trimtab.training.loop import LoopSettings, TrainingJob, held_out, train
from trimtab.training.preference import Judged, Preference, sums

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


def main() -> tuple[float, float, float, float]:
    base = load_base(resolve("smollm2-135m-q4"), precision="fp32")
    encoder = ChatEncoder(base.tokenizer)
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

        # What is asked is what was saved: a fresh base, and the adapter read from disk. DPO widens the gap between two answers;
        # what the model writes by itself follows where it has first learnt to answer so (`lora-dpo` imitates examples before).
        fresh = load_base(base.folder, precision="fp32")
        pairs = [row.answers for row in judged(encoder, HELD_OUT)]
        before = [better - worse for better, worse in sums(fresh, pairs)]
        load_adapter(fresh, folder / "adapter")
        after = [better - worse for better, worse in sums(fresh, pairs)]
    for question, old, new in zip(HELD_OUT, before, after, strict=True):
        print(f"{question} the short answer is likelier by {old:.1f} nats before, {new:.1f} after")
    first, last = (reading.figures["margin"] for reading in (result.readings[0], result.readings[-1]))
    return first, last, min(before), min(after)


if __name__ == "__main__":
    main()
