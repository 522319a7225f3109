"""Rollouts for reinforcement learning: answers sampled from the current weights to training questions, with their
rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.base.records import Encoded, Example
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.sampling import Sampling
from trimtab.measurement.rewards import Answered, Reward
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.training.rl import GROUP, Rollout


class Rollouts:
    """Samples GROUP answers to each question at temperature 1, with the inference engine and merged adapters.

    A sample depends on the seed, the step, the question and its number alone.
    """

    def __init__(
        self, session: Session, context: Context, examples: Sequence[Example], reward: Reward, *, seed: int
    ) -> None:
        self.session, self.reward, self.seed = session, reward, seed
        examples = [one for one in examples if one.weight > 0]
        prompts = PromptBuilder(session, context).prompts(examples)
        asked = [
            (one, prompt, session.encoder.prompt(prompt.messages))
            for one, prompt in zip(examples, prompts, strict=True)
        ]
        room = session.context_tokens - session.output_tokens
        self.asked = [one for one in asked if len(one[2]) <= room]
        self.skipped = len(asked) - len(self.asked)

    def __call__(self, numbers: Sequence[int], step: int) -> list[list[Rollout]]:
        """Return the rollouts of each question, each with its reward."""
        session, said_last = self.session, dict[str, int]()
        draws = [(number, answer) for number in numbers for answer in range(GROUP)]
        requests = [
            Request(
                id=f"{number}/{answer}",
                ids=self.asked[number][2],
                max_new=session.output_tokens,
                sampling=Sampling(temperature=1.0, seed=_seed(self.seed, step, number, answer)),
                logprobs=True,
            )
            for number, answer in draws
        ]
        with merged_and_packed(session.base):
            engine = Engine(session.base, session.encoder.stop_ids)
            completions = engine.generate(requests, on_token=said_last.__setitem__)
        rewards = self.reward(
            [self._answered(number, one) for (number, _), one in zip(draws, completions, strict=True)]
        )
        rollouts = [
            self._rollout(request, one, said_last[one.id], reward.total)
            for request, one, reward in zip(requests, completions, rewards, strict=True)
        ]
        return [rollouts[start : start + GROUP] for start in range(0, len(rollouts), GROUP)]

    def _answered(self, number: int, completion: Completion) -> Answered:
        example, prompt, _ = self.asked[number]
        return Answered(
            example=example,
            text=self.session.encoder.decode(completion.ids),
            new_tokens=len(completion.ids),
            finished=completion.finished,
            hits=prompt.hits,
        )

    def _rollout(self, request: Request, completion: Completion, last: int, reward: float) -> Rollout:
        answer = (*completion.ids, last) if completion.finished else completion.ids
        trained = (False,) * len(request.ids) + (True,) * len(answer)
        encoded = Encoded(ids=(*request.ids, *answer), trained=trained)
        return Rollout(encoded=encoded, log_p=completion.log_probabilities, reward=reward)


def _seed(*parts: int) -> int:
    digest = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")
