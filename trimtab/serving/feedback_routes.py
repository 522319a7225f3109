"""The `/feedback` route: stores judgements of answers that this server gave, which their receipts prove."""

from __future__ import annotations

from fastapi import APIRouter, Request

from trimtab.base.errors import BusyError, InputError
from trimtab.serving.app import AppParts
from trimtab.serving.dispatcher import refusal
from trimtab.serving.feedback_schema import JudgedAnswer, Judgement
from trimtab.serving.middleware import Refused
from trimtab.serving.receipts import Receipts
from trimtab.serving.schema import FeedbackRequest
from trimtab.serving.traffic import user_of, voter_of


def routes(parts: AppParts) -> APIRouter:
    """Return the router of `/feedback`."""
    router = APIRouter()

    @router.post("/feedback")
    def feedback(body: FeedbackRequest, request: Request) -> dict[str, str]:
        """Store a judgement and return its id, as `{"id": "…"}`; it is on the disk when this answers."""
        try:
            judgement = _judgement(body, parts.receipts, user_of(request, body.user), voter_of(request, body.user))
            parts.store.add(judgement)
        except BusyError as error:
            raise Refused(503, str(error), kind="server_error", code="busy", wait=1.0) from None
        except InputError as error:
            named = f"{error.field.removeprefix('judgement.')}: " if error.field else ""
            raise Refused(400, f"{named}{error.problem}; {error.remedy}", code="invalid") from None
        except (ValueError, ConnectionError) as error:
            raise refusal(error) from None
        except OSError as error:
            problem = f"the judgement could not be kept ({error.strerror or type(error).__name__})"
            raise Refused(507, problem, kind="server_error", code="store") from None
        return {"id": judgement.id}

    return router


def _judgement(body: FeedbackRequest, receipts: Receipts, user: str | None, voter: str | None) -> Judgement:
    """Build the record of a judgement; raises Refused for an answer that was not given, InputError for an unusable
    judgement."""
    messages = tuple(turn.message for turn in body.messages)
    answers = []
    for number, one in enumerate(body.answers):
        given = receipts.read(one.receipt, voter, messages, one.text)
        if given is None:
            problem = f"answers.{number}: this user was given no such answer to this question here"
            remedy = "send the receipt, the text and the user's turns as they were, with the same key and user"
            raise Refused(404, f"{problem}; {remedy}", code="answer_not_found")
        passages = tuple(one.passages)
        answers.append(
            JudgedAnswer(id=given.id, arm=given.arm, version=given.version, text=one.text, passages=passages)
        )
    return Judgement(
        kind=body.kind,
        messages=messages,
        answers=tuple(answers),
        chosen=body.chosen,
        correction=body.correction,
        blind=body.blind,
        session=body.session,
        user=user,
        voter=voter,
    )
