"""Reward function of a task for reinforcement learning, including the trained reward model that the task file names."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trimtab.arms.contexts import PromptBuilder, context_for
from trimtab.arms.session import Session
from trimtab.arms.store import scoring_run
from trimtab.base.errors import InputError
from trimtab.base.records import Arm
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.rewards import Answered, AnswerTokens, Reward, reward_of
from trimtab.model.adapters.apply import load_adapter
from trimtab.model.classifier import load_head
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base


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
    """Scores answers with a trained reward model on a base model of its own: the session's has other weights
    attached.
    """

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
        """Return a score for each answer after its row's prompt, as in the reward model's training; long texts are
        truncated.
        """
        prompts = self._builder.prompts([item.example for item in items])
        whole = [
            self._encoder.conversation(prompt.messages, item.text).ids[: self._most]
            for prompt, item in zip(prompts, items, strict=True)
        ]
        scores: list[float] = self._head(last_hidden_states(self._base, whole))[:, 0].tolist()
        return scores
