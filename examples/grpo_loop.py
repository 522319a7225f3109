"""Reinforcement from below, in one file: questions -> answers drawn by the engine -> a verifier -> GRPO on the one
loop -> held-out questions.

Run: trimtab pull smollm2-135m-q4 && python examples/grpo_loop.py
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from trimtab.inference import Completion, Engine, Request, Sampling
from trimtab.model import Base, ChatEncoder, Message, accelerate, attach, load_base, merged, resolve
from trimtab.training import Encoded, LoopSettings, PolicyGradient, Progress, Rollout, TrainingJob, train_model

GROUP, MOST = 8, 24  # answers to a question, tokens of an answer
LEAST = 10  # words of an answer that can earn something
PLACES = {
    "Where is the Eiffel Tower?": "Paris",
    "Where is the Colosseum?": "Rome",
    "Where is the Brandenburg Gate?": "Berlin",
    "Where is the Parthenon?": "Athens",
    "Where is the Statue of Liberty?": "New York",
    "Where is the Opera House with the white sails?": "Sydney",
    "Where is the Charles Bridge?": "Prague",
    "Where is the Sagrada Familia?": "Barcelona",
}
HELD_OUT = {
    "Where is Big Ben?": "London",
    "Where is the Louvre?": "Paris",
    "Where is the Acropolis?": "Athens",
    "Where is the Rijksmuseum?": "Amsterdam",
}


def reward(answer: str, place: str) -> float:
    """Return the reward of an answer: for naming the place early. One of fewer than LEAST words earns nothing."""
    before, named, _ = answer.partition(place)
    if not named or len(answer.split()) < LEAST:
        return 0.0
    return 1 - len(before.split()) / MOST


class Questions:
    """Asks a model questions and rewards its answers."""

    def __init__(self, base: Base, encoder: ChatEncoder, places: dict[str, str]) -> None:
        self.base, self.encoder, self.places = base, encoder, list(places.values())
        self.ids = [encoder.prompt([Message(role="user", content=question)]) for question in places]

    def answered(self, asked: Sequence[tuple[int, Sampling]]) -> list[tuple[Completion, int, float]]:
        """Return each answer with its last token (the end token if it ended by itself) and its reward."""
        last: dict[str, int] = {}
        requests = [
            Request(id=str(at), ids=self.ids[number], max_new=MOST, sampling=sampling, logprobs=True)
            for at, (number, sampling) in enumerate(asked)
        ]
        with merged(self.base.model):
            given = Engine(self.base, self.encoder.stop_ids).generate(requests, on_token=last.__setitem__)
        return [
            (one, last[one.id], reward(self.encoder.decode(one.ids), self.places[number]))
            for (number, _), one in zip(asked, given, strict=True)
        ]

    def roll(self, numbers: Sequence[int], step: int) -> list[list[Rollout]]:
        """Return GROUP answers to each question. Seeds follow from the step, so a resumed run draws alike."""
        draws = [
            (number, Sampling(temperature=1.0, seed=step * 1000 + number * GROUP + answer))
            for number in numbers
            for answer in range(GROUP)
        ]
        rollouts = []
        for (number, _), (one, last, earned) in zip(draws, self.answered(draws), strict=True):
            said = (*one.ids, last) if one.finished else one.ids
            encoded = Encoded(
                ids=(*self.ids[number], *said), trained=(False,) * len(self.ids[number]) + (True,) * len(said)
            )
            rollouts.append(Rollout(encoded=encoded, log_p=one.log_probabilities, reward=earned))
        return [rollouts[start : start + GROUP] for start in range(0, len(rollouts), GROUP)]

    def greedy(self) -> tuple[float, float]:
        """Return the mean reward and the mean length, in tokens, of greedy answers."""
        given = self.answered([(number, Sampling()) for number in range(len(self.ids))])
        return sum(earned for *_, earned in given) / len(given), sum(len(one.ids) for one, *_ in given) / len(given)


def main() -> tuple[tuple[float, float], tuple[float, float]]:
    """Return mean reward and mean length of greedy answers to questions that were not trained on, before and after."""
    base = accelerate(load_base(resolve("smollm2-135m-q4")))
    encoder = ChatEncoder(base.tokenizer)
    attach(base, "lora", seed=0, rank=8)
    training, unseen = Questions(base, encoder, PLACES), Questions(base, encoder, HELD_OUT)
    before = unseen.greedy()
    with tempfile.TemporaryDirectory() as place:
        events = Progress(path=Path(place) / "events.jsonl", listeners=[show])
        # The reference that answers are held near to is the model as it is now.
        objective = PolicyGradient(base, len(PLACES), training.roll, "grpo", batch=2, seed=0)
        settings = LoopSettings(learning_rate=1e-3, epochs=3)
        train_model(TrainingJob(base=base, objective=objective, settings=settings, folder=Path(place), progress=events))
    after = unseen.greedy()
    for when, (earned, length) in (("before", before), ("after", after)):
        print(f"questions that it never saw, {when}: reward {earned:.2f}, {length:.0f} tokens an answer")
    return before, after


def show(event: dict[str, object]) -> None:
    if "reward" in event:
        print(f"step {event['step']}: reward {event['reward']:.2f}, {event['length']:.0f} tokens, kl {event['kl']:.3f}")


if __name__ == "__main__":
    main()
