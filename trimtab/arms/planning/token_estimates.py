"""Estimates of prompt and answer lengths in tokens, counted on a few rows and passages without retrieval or timing."""

from __future__ import annotations

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.base.records import Hit
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
    """Return the tokens that a passage of about `words` words adds to a prompt: a mean over some passages of the
    documents.
    """
    documents = session.workspace.documents
    some = documents[:: max(1, len(documents) // PASSAGES)]
    cut = [passage for document in some for passage in chunk_document(document, words=words)]
    texts = [passages_text([Hit(passage=one, rank=1, score=0.0)]) for one in cut[:: max(1, len(cut) // PASSAGES)]]
    return sum(len(session.encoder.answer(text)) for text in texts) / max(1, len(texts))
