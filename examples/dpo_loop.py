"""Preference learning from below, in one file: pairs of answers -> DPO on the one loop -> held-out pairs -> saved.

Run: trimtab pull smollm2-135m-q4 && python examples/dpo_loop.py
"""

import tempfile
from pathlib import Path

from trimtab.model import ChatEncoder, Message, accelerate, attach, load_adapter, load_base, resolve, save_adapter
from trimtab.training import (
    JudgedAnswers,
    LoopSettings,
    PreferenceObjective,
    Progress,
    TrainingJob,
    answer_log_probabilities,
    evaluate_objective,
    train_model,
)

# The taste: name the city and leave the country out. The model as it is prefers the answer with the country.
# Both answers begin alike. Where they differ from the first word on, DPO gains most by making the worse one unlikely,
# and what the model writes by itself falls apart while the pairs are all told right: read its answers, or imitate
# examples first (`lora-dpo`).
PLACES = {
    "The Eiffel Tower": ("Paris", "France"),
    "The Colosseum": ("Rome", "Italy"),
    "The Brandenburg Gate": ("Berlin", "Germany"),
    "The Sydney Opera House": ("Sydney", "Australia"),
    "The Little Mermaid": ("Copenhagen", "Denmark"),
    "The Alhambra": ("Granada", "Spain"),
    "The Parthenon": ("Athens", "Greece"),
    "The Sagrada Familia": ("Barcelona", "Spain"),
    "The Hermitage": ("Saint Petersburg", "Russia"),
    "The Trevi Fountain": ("Rome", "Italy"),
    "The Arc de Triomphe": ("Paris", "France"),
    "The Imperial Palace": ("Tokyo", "Japan"),
}
HELD_OUT = {
    "Big Ben": ("London", "England"),
    "The Louvre": ("Paris", "France"),
    "The Acropolis": ("Athens", "Greece"),
    "The Prado": ("Madrid", "Spain"),
    "The Uffizi Gallery": ("Florence", "Italy"),
    "The Blue Mosque": ("Istanbul", "Turkey"),
    "The Reichstag": ("Berlin", "Germany"),
    "The Tokyo Tower": ("Tokyo", "Japan"),
    "The Pantheon": ("Rome", "Italy"),
    "The Notre Dame Cathedral": ("Paris", "France"),
}


def judged(encoder: ChatEncoder, places: dict[str, tuple[str, str]]) -> list[JudgedAnswers]:
    """Return two answers to each question, the better one and the worse; both follow the same prompt, and only the
    answers are scored."""
    rows = []
    for sight, (city, country) in places.items():
        asked = [Message(role="user", content=f"Where is {sight.replace('The ', 'the ')}?")]
        better, worse = f"{sight} is located in {city}.", f"{sight} is located in {city}, {country}."
        rows.append(
            JudgedAnswers(chosen=encoder.conversation(asked, better), rejected=encoder.conversation(asked, worse))
        )
    return rows


def main() -> tuple[list[float], list[float]]:
    """Return by how many nats each held-out pair's better answer is likelier than the worse one, before and after
    training."""
    base = accelerate(load_base(resolve("smollm2-135m-q4"), precision="fp32"))
    encoder = ChatEncoder(base.tokenizer)
    attach(base, "lora", seed=0, rank=8)
    # The reference is the model as it is now; its log-probabilities of all answers are computed once, here.
    objective = PreferenceObjective(base, judged(encoder, PLACES), "dpo", batch=4, seed=0)
    unseen = PreferenceObjective(base, judged(encoder, HELD_OUT), "dpo", batch=4, seed=0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = TrainingJob(
            base=base,
            objective=objective,
            settings=LoopSettings(learning_rate=2e-4, epochs=4, evaluations=3),
            folder=folder / "run",
            evaluate=lambda: evaluate_objective(base, unseen),
            progress=Progress(path=folder / "events.jsonl"),
        )
        for reading in train_model(job).readings:
            gained, share = reading.figures["margin"], reading.figures["pair_accuracy"]
            print(
                f"step {reading.step}: dev loss {reading.dev_loss:.3f}, "
                f"{share:.0%} of pairs moved the right way, by {gained:.1f} nats"
            )
        save_adapter(base, folder / "adapter")

        # What is measured is what was saved: a fresh base model, and the adapter read from disk.
        fresh = accelerate(load_base(base.folder, precision="fp32"))
        pairs = [row.answers for row in judged(encoder, HELD_OUT)]
        before = [better - worse for better, worse in answer_log_probabilities(fresh, pairs)]
        load_adapter(fresh, folder / "adapter")
        after = [better - worse for better, worse in answer_log_probabilities(fresh, pairs)]
    for sight, old, new in zip(HELD_OUT, before, after, strict=True):
        print(f"{sight}: the better answer by {old:.1f} nats before, {new:.1f} after")
    old, new = (sum(nats > 0 for nats in lead) for lead in (before, after))
    print(f"held-out pairs whose better answer is the likelier one: {old} of {len(before)} before, {new} after")
    return before, after


if __name__ == "__main__":
    main()
