"""What the model sees: worked examples, examples like the question, or passages; how many of them is chosen on dev."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.files import sha256_text
from trimtab.base.grammar import PARTS, method_of, shots_of
from trimtab.base.records import Arm, Example, Hit, Prompt
from trimtab.data.prompts import Shot, compose
from trimtab.measurement.ranking import holds

DEV_ITEMS = 60  # of dev, for choosing a number; a finer choice than these can tell is not made
GOLD_MISSING = 0.1  # share of training prompts whose right passage is left out


@dataclass(frozen=True, kw_only=True)
class Context:
    """A way of asking: how many passages and shots stand before the question, and which kind of shots."""

    passages: int = 0
    shots: int = 0
    shot_kind: str | None = None

    def chosen(self) -> dict[str, float | int | str]:
        """What was chosen, by the names of the task file's settings."""
        return {name: count for name, count in (("passages", self.passages), ("shots", self.shots)) if count}

    @property
    def is_instruction_alone(self) -> bool:
        """Whether nothing stands before the question."""
        return not (self.passages or self.shots)


def context_for(arm: Arm, counts: Mapping[str, object] | None = None) -> Context:
    """The context of an arm: the numbers in `counts`, else those that its settings fix, else the usual ones."""
    known = {**arm.settings, **(counts or {})}
    numbers: dict[str, int] = {}
    for part in (PARTS[name] for name in arm.parts):
        fixed = known.get(part.setting)
        numbers[part.setting] = fixed if isinstance(fixed, int) else part.usual
    return Context(**numbers, shot_kind=shots_of(arm))


class PromptBuilder:
    """Builds the prompts of a context. The same function serves training, evaluation and asking.

    `fits`: what the base model's context does not hold is left out; an endpoint's length is not known, so nothing is there.
    """

    def __init__(self, session: Session, context: Context, *, fits: bool = True) -> None:
        self.session, self.context, self.fits = session, context, fits
        self._instruction = session.task.task.instruction
        pool = session.workspace.splits["train"]
        self._fixed = fixed_shots(pool, context.shots) if context.shot_kind == "few-shot" else []
        self._near = NearestShots(session, pool) if context.shot_kind == "nearest-shots" else None

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Prompts as they are asked; what does not fit the model is dropped, the least alike first."""
        hits = self.session.hits(examples) if self.context.passages else [()] * len(examples)
        return [
            self._fitted(example, own, found[: self.context.passages])
            for example, own, found in zip(examples, self._shots(examples), hits, strict=True)
        ]

    def _shots(self, examples: Sequence[Example]) -> list[list[Shot]]:
        """The shots of each example; one of the training rows is not shown its own answer."""
        if self._near:
            return self._near(examples, self.context.shots)
        return [[shot for shot in self._fixed if shot[0] != example.input] for example in examples]

    def training_prompts(self, examples: Sequence[Example], seed: int) -> list[tuple[Prompt, str]]:
        """Prompts with the answer to imitate.

        With passages (after RAFT, Zhang et al. 2024): the right one among retrieved ones, put in where retrieval missed it, and
        left out of a tenth of the prompts; there the answer is the task's `unknown` where the data knows such answers.
        """
        if not self.context.passages:
            prompts = self.prompts(examples)
            return [(prompt, example.references[0]) for prompt, example in zip(prompts, examples, strict=True)]
        abstains = any(_unknown(example, self.session) for example in examples)
        rows = []
        for example, own, found in zip(examples, self._shots(examples), self.session.hits(examples), strict=True):
            draw = random.Random(f"{seed}:{example.id}")
            right = self._right(example, found)
            missing = bool(right) and draw.random() < GOLD_MISSING
            others = [hit for hit in found if hit not in right]
            picked = [*([] if missing else right[:1]), *others][: self.context.passages]
            draw.shuffle(picked)
            answer = self.session.task.task.unknown if missing and abstains else example.references[0]
            rows.append((self._fitted(example, own, picked), answer))
        return rows

    def with_right_passage(self, examples: Sequence[Example]) -> list[tuple[Example, Prompt]]:
        """The questions whose passages lack a right one that the documents hold, with prompts that it leads."""
        put_right = []
        for example, own, prompt in zip(examples, self._shots(examples), self.prompts(examples), strict=True):
            right = self._right(example, prompt.hits)
            if right and right[0] not in prompt.hits:
                hits = [right[0], *prompt.hits[: self.context.passages - 1]]
                put_right.append((example, self._fitted(example, own, hits)))
        return put_right

    def _right(self, example: Example, found: Sequence[Hit]) -> list[Hit]:
        """The passages that hold the answer: among those found, else among all of the documents that the row names."""
        if _unknown(example, self.session):
            return []
        named = example.passages
        right = [hit for hit in found if _holds_answer(hit, example) and (not named or _is_gold(hit, example))]
        if right or not named:
            return right
        unranked = (Hit(passage=passage, rank=1, score=0.0) for passage in self.session.index.passages.values())
        return [hit for hit in unranked if _is_gold(hit, example) and _holds_answer(hit, example)]

    def _fitted(self, example: Example, shots: Sequence[Shot], hits: Sequence[Hit]) -> Prompt:
        """The prompt with as much of the context as the model takes: passages go before shots do, the least alike first."""
        shots, hits = list(shots), list(hits)
        while True:
            prompt = compose(example, self._instruction, shots, hits)
            if not self.fits or not (shots or hits) or self._has_room(prompt):
                return prompt
            if hits:
                hits.pop()
            else:
                shots.pop(0)

    def _has_room(self, prompt: Prompt) -> bool:
        room = self.session.context_tokens - self.session.output_tokens
        return len(self.session.encoder.prompt(prompt.messages)) <= room


def _is_gold(hit: Hit, example: Example) -> bool:
    return any(holds(hit.passage, name) for name in example.passages)


def _holds_answer(hit: Hit, example: Example) -> bool:
    text = hit.passage.text.casefold()
    return any(reference.casefold() in text for reference in example.references)


def _unknown(example: Example, session: Session) -> bool:
    return example.references[0].strip().casefold() == session.task.task.unknown.strip().casefold()


def fixed_shots(pool: Sequence[Example], count: int) -> list[Shot]:
    """The same examples for every question: a fixed draw of short ones, no answer or group twice while there is a choice."""
    order = sorted(pool, key=lambda example: sha256_text("shots", example.id))
    median = sorted(len(example.input) for example in pool)[len(pool) // 2] if pool else 0
    short = [example for example in order if len(example.input) <= 2 * median]
    picked: list[Example] = []
    seen: set[str] = set()
    for example in [*short, *order]:
        keys = {example.references[0], example.group or example.id}
        if len(picked) < count and not keys & seen:
            picked.append(example)
            seen |= keys
    picked += [example for example in order if example not in picked][: count - len(picked)]
    return [(example.input, example.references[0]) for example in picked]


class NearestShots:
    """Training examples most like the question by embedding, the most alike last; never the question itself."""

    def __init__(self, session: Session, pool: Sequence[Example]) -> None:
        self.session, self.pool = session, pool
        self._vectors_PD = session.embedder.encode([example.input for example in pool])

    def __call__(self, examples: Sequence[Example], count: int) -> list[list[Shot]]:
        """For each example its `count` shots."""
        if not examples:
            return []
        alike_NP = self.session.embedder.encode([example.input for example in examples]) @ self._vectors_PD.T
        chosen = []
        for example, row in zip(examples, alike_NP, strict=True):
            alike = (self.pool[place] for place in np.argsort(-row, kind="stable"))
            own = list(islice((shot for shot in alike if self._may_stand(shot, example)), count))
            chosen.append([(shot.input, shot.references[0]) for shot in reversed(own)])
        return chosen

    def _may_stand(self, shot: Example, example: Example) -> bool:
        return shot.id != example.id and (shot.group is None or shot.group != example.group)


def context_key(arm: Arm) -> tuple[object, ...]:
    """What arms that share one choice of numbers have in common: the context, and which numbers of it their settings fix."""
    return (arm.context, *(arm.settings.get(PARTS[part].setting) for part in arm.parts))


def tries(arm: Arm) -> int:
    """How many contexts are asked on dev to choose the arm's numbers; none for a model that is not the base."""
    open_parts = [PARTS[part] for part in arm.parts if PARTS[part].setting not in arm.settings]
    return sum(len(part.tried) for part in open_parts) if method_of(arm).uses_base else 0


def choose_context(session: Session, arm: Arm, score: Callable[[Context], float], *, search: bool = True) -> Context:
    """The context of an arm: each number that its settings do not fix is the one that scores best on dev, the smaller of equals.

    One number after the other, passages first, the rest at what is usual or was chosen before.
    """
    context = context_for(arm)
    if not search or not session.workspace.splits["dev"]:
        return context
    for part in (PARTS[name] for name in arm.parts):
        if part.setting not in arm.settings:
            options = [context_for(arm, {**context.chosen(), part.setting: count}) for count in part.tried]
            context = max(options, key=score)  # max keeps the first, smaller, of equals
    return context
