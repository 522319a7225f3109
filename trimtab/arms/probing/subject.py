"""What a probe is given: an arm that is ready to answer, and what it answered in the study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.arms.answerers import ReadyArm
from trimtab.arms.session import Session
from trimtab.base.records import Answer, Arm, Example, Message, Prompt
from trimtab.base.results import BrokenAnswer, Probe
from trimtab.measurement.evaluate import Scorer, evaluate_prompts
from trimtab.measurement.statistics import compare_paired

LEAST_CHANGED = 20  # questions that a change must apply to; fewer show nothing
SHOWN = 3  # answers that a change turned wrong, as examples
LONGEST = 600  # characters of a text in an example


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The arm that is probed.

    `ready`: its first run, ready to answer. `rows`: the test questions that the probes change. `answers`: what the arm
    answered to them in the study, by id. `untrained`: what the base model answered to general questions, where training
    changed it and the probe is asked for. `tell`: shows what is being done, for good with `stays`.
    """

    session: Session
    arm: Arm
    ready: ReadyArm
    rows: Sequence[Example]
    answers: Mapping[str, Answer]
    scorer: Scorer | None
    untrained: Sequence[Answer]
    tell: Callable[..., None]

    def ask(self, examples: Sequence[Example], prompts: Sequence[Prompt] | None = None) -> tuple[Answer, ...]:
        """Return the arm's scored answers to questions; `prompts`: in place of those that it would build itself."""
        given = self.ready.builder.prompts(examples) if prompts is None else prompts
        return evaluate_prompts(
            examples, given, self.ready.answer_batch, self.session.task, split="test", seed=0, scorer=self.scorer
        )

    def compare(self, probe: str, change: str, after: Sequence[Answer], *, before: Sequence[Answer] = ()) -> Probe:
        """Return the finding on questions that were answered with a change. `before`: their answers without it, by
        default those of the study."""
        former = {answer.item_id: answer for answer in before} or self.answers
        pairs = [(former[answer.item_id], answer) for answer in after]
        return finding(probe, change, pairs)

    def reworded(self, probe: str, change: str, reword: Callable[[str, str], str]) -> Iterator[Probe]:
        """Yield the finding on the questions that `reword(text, id)` changes; none where these are too few."""
        changed = [with_input(row, text) for row in self.rows if (text := reword(row.input, row.id)) != row.input]
        if len(changed) >= LEAST_CHANGED:
            self.tell(f"asking {len(changed)} questions {change}")
            yield self.compare(probe, change, self.ask(changed))


def finding(probe: str, change: str, pairs: Sequence[tuple[Answer, Answer]]) -> Probe:
    """Return the finding on answers before and after a change. `adjusted` says whether it is shown."""
    before_N, after_N = (np.array([pair[side].score for pair in pairs]) for side in (0, 1))
    groups = [before.group for before, _ in pairs]
    named = [group for group in groups if group is not None]
    found = compare_paired(after_N, before_N, groups if len(set(named)) < len(named) else None)
    broken = sorted(((new.score - old.score, new.item_id, old, new) for old, new in pairs), key=lambda one: one[:2])
    return Probe(
        probe=probe,
        change=change,
        before=float(before_N.mean()),
        after=float(after_N.mean()),
        difference=found.difference,
        low=found.low,
        high=found.high,
        n=len(pairs),
        p=found.p,
        examples=tuple(_shown(old, new) for lost, _, old, new in broken[:SHOWN] if lost < 0),
    )


def _shown(before: Answer, after: Answer) -> BrokenAnswer:
    texts = (after.input, after.reference[0], before.answer, after.answer)
    asked, reference, old, new = (text if len(text) <= LONGEST else f"{text[:LONGEST]} …" for text in texts)
    return BrokenAnswer(asked=asked, reference=reference, before=old, after=new)


def with_input(example: Example, text: str) -> Example:
    """Return a row that asks another text in its last turn."""
    *earlier, last = example.messages
    return replace(example, messages=(*earlier, Message(role=last.role, content=text)))
