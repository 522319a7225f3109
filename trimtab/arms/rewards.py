"""Reinforcement learning: rewards of a task, with the reward model that it may name, and the answers that earn them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.session import Session
from trimtab.arms.store import scoring_run
from trimtab.base.errors import InputError
from trimtab.base.records import Arm, Encoded, Example
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.inference.sampling import Sampling
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.rewards import Answered, AnswerTokens, Reward, reward_of
from trimtab.model.adapters.apply import load_adapter
from trimtab.model.classifier import load_head
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.rl import GROUP, Rollout


def reward_for(session: Session, arm: Arm, *, scorer: Scorer | None = None, program: Scorer | None = None) -> Reward:
    """Return the reward function of `[reward]` for an arm; see `reward_of` for `scorer` and `program`.

    Raises InputError for a component without anything to compare with, MissingError for an absent reward model.
    """
    task, train = session.task, session.workspace.splits["train"]
    if task.reward.citation is not None and not arm.retrieves:
        problem = f"arm {arm.name} is shown no passages to cite"
        raise InputError(problem, f"take {arm.name}+rag, or take citation out", file=task.file, field="reward.citation")
    longest = max((len(session.encoder.answer(example.references[0])) for example in train), default=0)
    return reward_of(
        task,
        train,
        AnswerTokens(longest=longest, limit=session.max_answer_tokens),
        scorer=scorer,
        program=program,
        model=RewardModel(session, task.reward.model.run) if task.reward.model else None,
    )


class RewardModel:
    """Scores answers with a trained reward model on a base model of its own, as the session's has other weights."""

    def __init__(self, session: Session, run: str) -> None:
        """Load the reward model of the finished run `run`. Raises MissingError if it is absent or scores nothing."""
        folder, record = scoring_run(session.task, run)
        self._base = accelerate(load_base(session.base_folder, session.base.precision))
        load_adapter(self._base, folder / "adapter")
        self._head = load_head(self._base, folder / "adapter")
        self._builder = PromptBuilder(session, context_for(record.arm, record.chosen))
        self._encoder, self._most = session.encoder, session.context_tokens

    @torch.inference_mode()
    def __call__(self, items: Sequence[Answered]) -> list[float]:
        """Return a score for each answer after its row's prompt; long texts are truncated."""
        prompts = self._builder.prompts([item.example for item in items])
        whole = [
            self._encoder.conversation(prompt.messages, item.text).ids[: self._most]
            for prompt, item in zip(prompts, items, strict=True)
        ]
        scores: list[float] = self._head(last_hidden_states(self._base, whole))[:, 0].tolist()
        return scores


class Rollouts:
    """Samples GROUP answers to each question at temperature 1, with the inference engine and merged adapters.

    A sample depends on the seed, the step, the question and its number alone.
    """

    def __init__(
        self, session: Session, context: Context, examples: Sequence[Example], reward: Reward, *, seed: int
    ) -> None:
        self.session, self.reward, self.seed = session, reward, seed
        examples = [example for example in examples if example.weight > 0]
        prompts = PromptBuilder(session, context).prompts(examples)
        asked = [
            (example, prompt, session.encoder.prompt(prompt.messages))
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        room = session.context_tokens - session.output_tokens
        self.asked = [question for question in asked if len(question[2]) <= room]
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
            [self._answered(number, completion) for (number, _), completion in zip(draws, completions, strict=True)]
        )
        rollouts = [
            self._rollout(request, completion, said_last[completion.id], reward.total)
            for request, completion, reward in zip(requests, completions, rewards, strict=True)
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
