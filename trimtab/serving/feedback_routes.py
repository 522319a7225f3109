"""The route that takes judgements: what was judged comes from the page, who answered is filled in here."""

from __future__ import annotations

from fastapi import APIRouter, Request

from trimtab.base.errors import BusyError
from trimtab.base.records import Message
from trimtab.serving.dispatcher import Dispatcher, refusal
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.feedback_schema import JudgedAnswer, Judgement
from trimtab.serving.middleware import Refused
from trimtab.serving.schema import FeedbackRequest
from trimtab.serving.traffic import user_of


def feedback_routes(dispatcher: Dispatcher, store: FeedbackStore) -> APIRouter:
    """`/feedback`."""
    router = APIRouter()

    @router.post("/feedback")
    def feedback(body: FeedbackRequest, request: Request) -> dict[str, str]:
        """Keep a judgement; when this answers, it is on the disk. A plain function: the disk keeps no other request waiting."""
        try:
            judgement = _judgement(body, dispatcher, user_of(request, body.user))
            store.add(judgement)
        except BusyError as error:
            raise Refused(503, str(error), kind="server_error", code="busy", wait=1.0) from None
        except (ValueError, ConnectionError) as error:
            raise refusal(error) from None
        except OSError as error:
            problem = f"the judgement could not be kept ({error.strerror or type(error).__name__})"
            raise Refused(507, problem, kind="server_error", code="store") from None
        return {"id": judgement.id}

    return router


def _judgement(body: FeedbackRequest, dispatcher: Dispatcher, user: str | None) -> Judgement:
    """As it is kept; raises Refused for an answer of a model that is not here, InputError for one that says nothing to learn from."""
    answers = []
    for one in body.answers:
        arm, version = dispatcher.judged_version(
            one.model, user, one.version
        )  # no client writes an arm's name or version of its own
        answers.append(JudgedAnswer(arm=arm, version=version, text=one.text, passages=tuple(one.passages)))
    return Judgement(
        kind=body.kind,
        messages=tuple(Message(role=turn.role, content=turn.text) for turn in body.messages),
        answers=tuple(answers),
        chosen=body.chosen,
        correction=body.correction,
        blind=body.blind,
        session=body.session,
        user=user,
    )
