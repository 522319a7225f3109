"""Lengths of prompts and answers in tokens, and the speed of answering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.base.records import Generation, Hit
from trimtab.data.prompts import passages_text
from trimtab.retrieval.chunk import chunk_document

ROWS = 16
PASSAGES = 64  # and documents that the passages are taken from


def prompt_tokens(session: Session, context: Context) -> float:
    """Return the tokens of a prompt: instruction, question (mean of a few), shots and passages."""
    plain = PromptBuilder(session, Context()).prompts(session.workspace.subset("train", ROWS))
    question_tokens = sum(len(session.encoder.prompt(prompt.messages)) for prompt in plain) / len(plain)
    passages = context.passages * passage_tokens(session, context.words) if context.passages else 0.0
    return question_tokens + shot_tokens(session, context) + passages


def shot_tokens(session: Session, context: Context) -> float:
    """Return the tokens of a prompt's shots."""
    rows = session.workspace.subset("train", ROWS)
    questions = sum(len(session.encoder.answer(row.input)) for row in rows) / len(rows)
    return context.shots * (questions + answer_tokens(session))


def answer_tokens(session: Session) -> float:
    """Return the mean tokens of an answer, from the training rows."""
    rows = session.workspace.subset("train", ROWS)
    return sum(len(session.encoder.answer(row.references[0])) for row in rows) / len(rows)


def passage_tokens(session: Session, words: int) -> float:
    """Return the mean tokens that a passage of about `words` words adds to a prompt."""
    texts = [passages_text([hit]) for hit in some_passages(session, words)]
    return sum(len(session.encoder.answer(text)) for text in texts) / max(1, len(texts))


def some_passages(session: Session, words: int) -> list[Hit]:
    """Return passages of about `words` words from all over the documents, each as the first hit."""
    documents = session.workspace.documents
    some = documents[:: max(1, len(documents) // PASSAGES)]
    cut = [passage for document in some for passage in chunk_document(document, words=words)]
    return [Hit(passage=passage, rank=1, score=0.0) for passage in cut[:: max(1, len(cut) // PASSAGES)]]


@dataclass(frozen=True, kw_only=True)
class AnsweringRate:
    """Answering speed: seconds a question in a batch (`each`) and alone (`alone`), and of prefill a token (`token`).

    `tokens`: of a prompt. `together`: extra seconds per batch, whatever its size: each pass reads all weights.
    `memory_mb`: memory for answering the test beyond the process's present one. `own`: tokens of the longest prompt
    after the shared prefix.
    `decoding`: the share of the seconds spent on new tokens, of which there are `new_tokens` per question.
    """

    each: float
    together: float
    alone: float
    token: float
    tokens: float
    own: int
    memory_mb: float
    timed: bool
    decoding: float = 0.0
    new_tokens: float = 1.0

    def seconds(self, questions: int) -> float:
        """Return the seconds of answering `questions` questions in batches."""
        return questions * self.each + math.ceil(questions / BATCH_ITEMS) * self.together

    @property
    def batch_mean_seconds(self) -> float:
        """Return the seconds per question in a full batch."""
        return self.seconds(BATCH_ITEMS) / BATCH_ITEMS

    def with_judging(self, seconds: float) -> AnsweringRate:
        """Return the rate of answers that are judged, too, each in so many seconds; a question timed alone is not."""
        return replace(self, each=self.each + seconds)

    def with_new_tokens(self, new_tokens: float) -> AnsweringRate:
        """Return the rate of weights trained to answer in `new_tokens` tokens: the base model writes more."""
        fewer = min(1.0, new_tokens / max(self.new_tokens, 1.0))
        left = 1 - self.decoding * (1 - fewer)
        return replace(self, each=self.each * left, together=self.together * left, alone=self.alone * left)

    def at_usual_length(self, new_tokens: float) -> AnsweringRate:
        """Return the rate corrected for answers of the usual length, where those timed alone were not."""
        alone = self.alone * (1 - self.decoding * (1 - new_tokens / max(self.new_tokens, 1.0)))
        decoding = 1 - (1 - self.decoding) * self.alone / max(alone, 1e-9)
        return replace(self, alone=alone, decoding=decoding, new_tokens=new_tokens)

    def of_head(self) -> AnsweringRate:
        """Return the rate of a classification head, which reads the prompt and no label."""
        reading = self.token * self.tokens
        return replace(self, each=min(self.each, reading), together=0.0, alone=min(self.alone, reading))


def shared_seconds(few: int, few_seconds: float, several: int, several_seconds: float) -> float:
    """Return the seconds that do not grow with the number of questions, from two timings."""
    if few == several:
        return 0.0
    shared = (several * few_seconds - few * several_seconds) / (several - few)
    return min(max(shared, 0.0), several_seconds)


def decoding_share(generations: Sequence[Generation]) -> float:
    """Return the share of the answers' seconds spent on new tokens; 0 for labels."""
    reading = sum(generation.prefill_seconds or 0.0 for generation in generations)
    return 1 - reading / max(sum(generation.seconds for generation in generations), 1e-9)


def mean_tokens(generations: Sequence[Generation]) -> float:
    """Return the mean number of new tokens of an answer."""
    return sum(generation.new_tokens for generation in generations) / len(generations)
