"""The reward of a session's task: lengths from its rows, and the trained reward model that the task file names."""

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
    """What an answer of this arm earns, as `[reward]` says: see `reward_of`, whose `scorer` and `program` these are.

    Raises InputError for a part that has nothing to look at, MissingError for a reward model that is not there.
    """
    task, train = session.task, session.workspace.splits["train"]
    if task.reward.citation is not None and not arm.retrieves:
        problem = f"arm {arm.name} is shown no passages to cite"
        raise InputError(problem, f"take {arm.name}+rag, or take citation out", file=task.file, field="reward.citation")
    longest = max((len(session.encoder.answer(example.references[0])) for example in train), default=0)
    return reward_of(
        task,
        train,
        AnswerTokens(longest=longest, limit=session.answer_room),
        scorer=scorer,
        program=program,
        model=RewardModel(session, task.reward.model.run) if task.reward.model else None,
    )


class RewardModel:
    """Scores answers by a trained reward model, on a base of its own: the session's has other weights on."""

    def __init__(self, session: Session, run: str) -> None:
        """Load what the finished run `run` holds; raises MissingError for one that is not there or scores nothing."""
        folder, record = scoring_run(session.task, run)
        self._base = accelerate(load_base(session.base_folder, session.base.precision))
        load_adapter(self._base, folder / "adapter")
        self._head = load_head(self._base, folder / "adapter")
        self._builder = PromptBuilder(session, context_for(record.arm, record.chosen))
        self._encoder, self._most = session.encoder, session.context_tokens

    @torch.inference_mode()
    def __call__(self, items: Sequence[Answered]) -> list[float]:
        """A score for each answer behind its row's prompt as the reward model was trained on it; what is too long is cut."""
        prompts = self._builder.prompts([item.example for item in items])
        whole = [
            self._encoder.conversation(prompt.messages, item.text).ids[: self._most]
            for prompt, item in zip(prompts, items, strict=True)
        ]
        scores: list[float] = self._head(last_hidden_states(self._base, whole))[:, 0].tolist()
        return scores
