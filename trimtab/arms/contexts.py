"""What the model sees: worked examples, examples like the question, or passages; how many of them is chosen on dev."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.files import sha256_text
from trimtab.base.records import Arm, Example, Hit, Prompt
from trimtab.data.prompts import Shot, compose
from trimtab.measurement.ranking import holds

SHOTS, PASSAGES = (2, 4, 8), (1, 3, 5)
DEV_ITEMS = 60  # of dev, for choosing a number; a finer choice than these can tell is not made
GOLD_MISSING = 0.1  # share of training prompts whose right passage is left out
CUSTOMARY = {"few-shot": 4, "nearest-shots": 4, "rag": 3, "prompt": 0}


@dataclass(frozen=True, kw_only=True)
class Context:
    """A way of asking: its kind, and how many shots or passages."""

    kind: str
    count: int

    def chosen(self) -> dict[str, float | int | str]:
        """What was chosen, by the names of the task file's settings."""
        return {} if self.kind == "prompt" else {"passages" if self.kind == "rag" else "shots": self.count}


class PromptBuilder:
    """Builds the prompts of a context. The same function serves training, evaluation and asking."""

    def __init__(self, session: Session, context: Context) -> None:
        self.session, self.context = session, context
        self._instruction = session.task.task.instruction
        pool = session.workspace.splits["train"]
        self._fixed = fixed_shots(pool, context.count) if context.kind == "few-shot" else []
        self._near = NearestShots(session, pool) if context.kind == "nearest-shots" else None

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Prompts as they are asked; what does not fit the model is dropped, the least alike first."""
        shots = self._near(examples, self.context.count) if self._near else [self._others(item) for item in examples]
        hits = self.session.hits(examples) if self.context.kind == "rag" else [()] * len(examples)
        return [
            self._fitted(example, own, found[: self.context.count])
            for example, own, found in zip(examples, shots, hits, strict=True)
        ]

    def _others(self, example: Example) -> list[Shot]:
        """The fixed shots; an example of the training rows is not shown its own answer."""
        return [shot for shot in self._fixed if shot[0] != example.input]

    def training_prompts(self, examples: Sequence[Example], seed: int) -> list[tuple[Prompt, str]]:
        """Prompts with the answer to imitate.

        With passages (after RAFT, Zhang et al. 2024): the right one among retrieved ones, put in where retrieval missed it, and
        left out of a tenth of the prompts; there the answer is the task's `unknown` where the data knows such answers.
        """
        prompts = self.prompts(examples)
        if self.context.kind != "rag":
            return [(prompt, example.references[0]) for prompt, example in zip(prompts, examples, strict=True)]
        abstains = any(_unknown(example, self.session) for example in examples)
        rows = []
        for example, found in zip(examples, self.session.hits(examples), strict=True):
            draw = random.Random(f"{seed}:{example.id}")
            right = self._right(example, found)
            missing = bool(right) and draw.random() < GOLD_MISSING
            others = [hit for hit in found if hit not in right]
            picked = [*([] if missing else right[:1]), *others][: self.context.count]
            draw.shuffle(picked)
            answer = self.session.task.task.unknown if missing and abstains else example.references[0]
            rows.append((self._fitted(example, [], picked), answer))
        return rows

    def with_right_passage(self, examples: Sequence[Example]) -> list[tuple[Example, Prompt]]:
        """The questions whose passages lack a right one that the documents hold, with prompts that it leads."""
        put_right = []
        for example, prompt in zip(examples, self.prompts(examples), strict=True):
            right = self._right(example, prompt.hits)
            if right and right[0] not in prompt.hits:
                hits = [right[0], *prompt.hits[: self.context.count - 1]]
                put_right.append((example, self._fitted(example, [], hits)))
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
        room = self.session.context_tokens - self.session.output_tokens
        shots, hits = list(shots), list(hits)
        while True:
            prompt = compose(example, self._instruction, shots, hits)
            if not (shots or hits) or len(self.session.encoder.prompt(prompt.messages)) <= room:
                return prompt
            if hits:
                hits.pop()
            else:
                shots.pop(0)


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


def choose_context(session: Session, arm: Arm, score: Callable[[Context], float], *, search: bool = True) -> Context:
    """The context of an arm: the count that its settings fix, else the one that scores best on dev, the smaller of equals."""
    fixed = arm.settings.get("passages" if arm.context == "rag" else "shots")
    if arm.context == "prompt" or fixed is not None or not search:
        return Context(kind=arm.context, count=int(fixed or CUSTOMARY[arm.context]))
    options = [Context(kind=arm.context, count=count) for count in (PASSAGES if arm.context == "rag" else SHOTS)]
    if not session.workspace.splits["dev"]:
        return Context(kind=arm.context, count=CUSTOMARY[arm.context])
    return max(options, key=score)  # max keeps the first, smaller, of equals
