"""An arm that answers questions as they come: asked, gone on with pass by pass, told piece by piece, taken back at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from trimtab.arms.answerers import ReadyArm, ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.session import Session
from trimtab.arms.store import SavedArm
from trimtab.arms.workspace import FOLDER
from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Arm, Example, Generation, Hit, Message, Prompt
from trimtab.data.prompts import with_passages
from trimtab.inference.constraints import Constraint
from trimtab.inference.detokenize import token_bytes
from trimtab.inference.engine import Completion, Engine, GeneratedToken, Request
from trimtab.inference.request import require_room
from trimtab.inference.sampling import GREEDY, Sampling
from trimtab.measurement.citations import supporting
from trimtab.measurement.metrics import has_abstained

USUAL_HEAT = 1.0  # the highest temperature that clients send without being told to
TOGETHER = 16  # questions that are answered in one pass where answers are chosen, not written
SHOWN = 8  # questions whose prompts show what all prompts of an arm begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineQuestion:
    """A conversation up to the question, and how it is answered; `max_new` None is as long as answers were measured.

    A system turn takes the place of the task's instruction. `raw`: a prompt that is read as it is, as text or as ids of tokens,
    without template, instruction or passages; `messages` are then empty. `echo`: the reply has the prompt too, with the
    log-probabilities of its tokens where `logprobs` are asked for; `max_new` may then be 0. `top_logprobs`: of how many likeliest tokens
    beside each said one.
    `draws`: how many answers are asked for to the same question, of which this is one. `cache_salt`: who asks, for whom alone it is kept
    in memory, so that their next turn is quicker; it is not kept where that is empty.
    """

    id: str
    messages: tuple[Message, ...] = ()
    raw: str | tuple[int, ...] | None = None
    echo: bool = False
    max_new: int | None = None
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    constraint: Constraint | None = None
    draws: int = 1
    cache_salt: str = ""

    @property
    def asked(self) -> tuple[Message, ...] | str | tuple[int, ...]:
        """The conversation, or the raw prompt: one object for all draws of a question."""
        return self.messages if self.raw is None else self.raw


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidToken:
    """One token of an answer and the natural logarithm of its probability; `likeliest` as many as were asked for.

    `log_probability` is None for the first token of a prompt, which nothing predicts. `spelled`: its bytes, which may be a part of a
    letter; None where they are not known.
    """

    text: str
    spelled: bytes | None
    log_probability: float | None
    likeliest: tuple[SaidToken, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPiece:
    """What is new of an answer; the pieces of one add up to its text. `tokens`: where log-probabilities were asked for."""

    id: str
    text: str
    tokens: tuple[SaidToken, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineReply:
    """A whole answer: behind its last piece. `cited` are the ranks of the passages that support it.

    `echo`: the text of the prompt, where it was asked for, and `echo_tokens` its tokens where their log-probabilities were.
    """

    id: str
    text: str
    generation: Generation
    hits: tuple[Hit, ...]
    cited: tuple[int, ...]
    abstained: bool
    echo: str = ""
    echo_tokens: tuple[SaidToken, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedQuestion:
    """A question that could not be answered, and why."""

    id: str
    error: Exception


OnlineEvent = AnswerPiece | OnlineReply | FailedQuestion


class OnlineArm(Protocol):
    """An arm in use. For one thread: nothing is locked, but `is_prepared` and `prepare` may be called from any."""

    def is_prepared(self, question: OnlineQuestion) -> bool:
        """Whether nothing has to be prepared before a question can be taken on, or refused."""

    def prepare(self, question: OnlineQuestion) -> None:
        """What takes long before a question can be taken on; raises InputError for one that cannot be."""

    def ask(self, question: OnlineQuestion) -> None:
        """Take a question on; raises InputError for one that cannot be answered."""

    def step(self) -> list[OnlineEvent]:
        """Go on by one pass over the model: what is new."""

    def cancel(self, question_id: str) -> None:
        """Take a question back, whether it is known or not."""

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""


@contextmanager
def open_online(session: Session, arm: Arm, saved: SavedArm | None, *, sample: bool = True) -> Iterator[OnlineArm]:
    """Inside, the arm answers, with the weights and the context that were measured.

    `sample`: what prompts begin with is found on a few rows and read beforehand, which pays from the second question on. `session` is
    the arm's own: nothing else may put weights onto its base meanwhile.
    """
    context = context_for(arm, saved.chosen if saved else None)
    rows = session.workspace.splits["dev"] or session.workspace.splits["train"]
    with ready_arm(
        session, arm, context, saved.folder if saved else session.task.folder / FOLDER, rows[:SHOWN] if sample else ()
    ) as able:
        if arm.retrieves:
            _ = session.index_of(context.words)
        yield WritingArm(session, able, able.engine) if able.engine else ChoosingArm(session, able)


@dataclass(slots=True)
class _Answering:
    """A question on its way; blanks at the end of what was said are kept until more comes, as answers have none there."""

    question: OnlineQuestion
    prompt: Prompt | None  # None for a raw one
    ids: tuple[int, ...]
    said: str = ""
    blanks: str = ""

    def more(self, text: str) -> str:
        """The piece to tell, given what is new; what stands behind a raw prompt keeps its blanks."""
        if self.prompt is None:
            self.said += text
            return text
        text = self.blanks + text
        if not self.said:
            text = text.lstrip()
        piece = text.rstrip()
        self.blanks = text[len(piece) :]
        self.said += piece
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What was made of the messages or the raw prompt of a question, for each of its draws.

    Draws of one question share the object `asked`. It is compared by identity, not by its text: how long an answer takes must not show
    whether somebody else has asked the same.
    """

    asked: tuple[Message, ...] | str | tuple[int, ...]
    prompt: Prompt | None  # None for a raw one
    ids: tuple[int, ...] = ()
    public: int = 0


class WritingArm:
    """An arm that writes its answers, all of them together in one engine."""

    def __init__(self, session: Session, able: ReadyArm, engine: Engine) -> None:
        self._session, self._able, self._engine = session, able, engine
        self._asked: dict[str, _Answering] = {}
        self._prepared: _Prepared | None = None  # of the question that came last

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""
        return len(self._asked)

    def is_prepared(self, question: OnlineQuestion) -> bool:
        """Whether what its answer has to fit is compiled."""
        return question.constraint is None or self._engine.is_prepared(question.constraint)

    def prepare(self, question: OnlineQuestion) -> None:
        """Compile the constraint of its answer. Raises InputError for a constraint that an arm that quotes cannot apply."""
        self._require_free(question)
        if question.constraint:
            self._engine.prepare(question.constraint)

    def ask(self, question: OnlineQuestion) -> None:
        """Look its passages up and put it into the engine; the second of several draws is put there with what the first has found."""
        self._require_free(question)
        max_new = self._session.output_tokens if question.max_new is None else question.max_new
        if self._prepared is None or self._prepared.asked is not question.asked:
            self._prepared = None
            self._prepared = self._prepare(question, max_new)
        prompt = self._prepared.prompt and replace(self._prepared.prompt, id=question.id)
        request = Request(
            id=question.id,
            ids=self._prepared.ids,
            max_new=max_new,
            sampling=question.sampling,
            stops=question.stops,
            logprobs=question.logprobs,
            top_logprobs=question.top_logprobs,
            prompt_logprobs=question.echo and (question.logprobs or not max_new),
            constraint=self._session.quote(prompt) if prompt and self._quotes else question.constraint,
            stream=True,
            public=self._prepared.public,
            cache_salt=question.cache_salt,
        )
        self._engine.submit(request)
        self._asked[question.id] = _Answering(question=question, prompt=prompt, ids=self._prepared.ids)

    @property
    def _quotes(self) -> bool:
        """True if answers may only be words of their passages."""
        return self._able.builder.context.quote

    def _require_free(self, question: OnlineQuestion) -> None:
        """Raise InputError if an arm that quotes is asked for another constraint, or with a raw prompt, which has no passages."""
        if self._quotes and question.constraint:
            problem = "an answer of this arm is held to its passages already"
            raise InputError(problem, "leave response_format and tools out", field="response_format")
        if self._quotes and question.raw is not None:
            problem = "this arm quotes from passages, which a raw prompt has none of"
            raise InputError(problem, "ask it at /v1/chat/completions", field="model")

    def _raw_ids(self, question_id: str, raw: str | tuple[int, ...], max_new: int) -> tuple[int, ...]:
        """The ids of a prompt that is read as it is, special tokens only where the text spells them."""
        tokenizer, context = self._session.base.tokenizer, self._session.context_tokens
        if isinstance(raw, str):
            fewest = self._session.encoder.fewest_tokens((Message(role="user", content=raw),))
            require_room(question_id, fewest, max_new, context, at_least=True)
            return tuple(tokenizer(raw, add_special_tokens=False)["input_ids"])
        strange = next((token for token in raw if not 0 <= token < len(tokenizer)), None)
        if strange is not None:
            problem = f"{strange} is no id of this model's tokenizer, which has {len(tokenizer)} tokens"
            raise InputError(problem, "send ids that its own tokenizer made", field="prompt")
        return raw

    def _prepare(self, question: OnlineQuestion, max_new: int) -> _Prepared:
        if question.raw is not None:
            return _Prepared(asked=question.raw, prompt=None, ids=self._raw_ids(question.id, question.raw, max_new))
        prompt = prompt_for(self._able, question, max_new)
        self._session.forget_hits()  # a server's questions have no end
        ids = self._session.encoder.prompt(prompt.messages)
        require_room(question.id, len(ids), max_new, self._session.context_tokens)
        public = self._public(question, prompt, ids)
        return _Prepared(asked=question.messages, prompt=prompt, ids=ids, public=public)

    def _public(self, question: OnlineQuestion, prompt: Prompt, ids: tuple[int, ...]) -> int:
        """How many of a prompt's first tokens stand before what was asked: instruction, shots and passages.

        None where clients bring turns of their own, which are no one else's to know of.
        """
        if len(question.messages) > 1:
            return 0
        *before, last = prompt.messages
        blank = replace(last, content=with_passages("", prompt.hits) if prompt.hits else "")
        return common_prefix_length(ids, self._session.encoder.prompt((*before, blank)))

    def step(self) -> list[OnlineEvent]:
        """One pass of the engine; where it fails, every question does, and those asked later are answered again."""
        try:
            events = self._engine.step()
        except Exception as error:  # noqa: BLE001  (whatever it is, it ends these questions and not the arm)
            lost, self._asked = list(self._asked), {}
            return [FailedQuestion(id=one, error=error) for one in lost]
        return [told for event in events if (told := self._told_or_failed(event)) is not None]

    def _told_or_failed(self, event: GeneratedToken | Completion) -> OnlineEvent | None:
        """What an event of the engine means; a question that it cannot be told of is taken back."""
        if event.id not in self._asked:  # taken back just now, within the same pass
            return None
        try:
            return self._told(event)
        except Exception as error:  # noqa: BLE001  (this question fails, not the arm)
            self.cancel(event.id)
            return FailedQuestion(id=event.id, error=error)

    def cancel(self, question_id: str) -> None:
        """End its request and free its slot."""
        if self._asked.pop(question_id, None) is not None:
            self._engine.cancel(question_id)

    def _told(self, event: GeneratedToken | Completion) -> OnlineEvent | None:
        one = self._asked[event.id]
        if isinstance(event, GeneratedToken):
            tokens: tuple[SaidToken, ...] = ()
            # The token that ends an answer is no part of it, but of what stands behind a raw prompt.
            if event.log_probability is not None and (one.prompt is None or event.token not in self._engine.stop_ids):
                others = tuple(self._said(token, value) for token, value in event.likeliest)
                tokens = (replace(self._said(event.token, event.log_probability), likeliest=others),)
            piece = one.more(event.text)
            return AnswerPiece(id=event.id, text=piece, tokens=tokens) if piece or tokens else None
        generation = Generation(
            id=event.id,
            text=one.said,
            prompt_tokens=event.prompt_tokens,
            cached_tokens=event.cached_tokens,
            new_tokens=len(event.ids),
            seconds=event.seconds,
            prefill_seconds=event.prefill_seconds,
            finished=event.finished,
        )
        if one.prompt is None:
            reply = self._raw_reply(one, event, generation)
        else:
            reply = reply_from(self._session, one.question, one.prompt, generation)
        del self._asked[event.id]
        return reply

    def _raw_reply(self, one: _Answering, event: Completion, generation: Generation) -> OnlineReply:
        """What stands behind a raw prompt, and the prompt where it was asked for."""
        question, echo = one.question, ""
        if question.echo:
            raw, tokenizer = question.raw, self._session.base.tokenizer
            echo = raw if isinstance(raw, str) else tokenizer.decode(list(one.ids))
        return OnlineReply(
            id=question.id,
            text=one.said,
            generation=generation,
            hits=(),
            cited=(),
            abstained=False,
            echo=echo,
            echo_tokens=self._scored(one.ids, event) if question.echo and question.logprobs else (),
        )

    def _scored(self, ids: tuple[int, ...], event: Completion) -> tuple[SaidToken, ...]:
        """The tokens of a prompt with their log-probabilities and the likeliest beside each."""
        values = (None, *event.prompt_log_probabilities)
        likeliest = ((), *(event.prompt_likeliest or [()] * (len(ids) - 1)))
        return tuple(
            replace(self._said(token, value), likeliest=tuple(self._said(*pair) for pair in pairs))
            for token, value, pairs in zip(ids, values, likeliest, strict=True)
        )

    def _said(self, token: int, log_probability: float | None) -> SaidToken:
        tokenizer = self._session.base.tokenizer
        text = tokenizer.decode([token])
        spelled = token_bytes(text, tokenizer.convert_ids_to_tokens(token))
        return SaidToken(text=text, spelled=spelled, log_probability=log_probability)


class ChoosingArm:
    """An arm that chooses its answers whole: a label, or what an endpoint says. Those that wait are answered together."""

    def __init__(self, session: Session, able: ReadyArm) -> None:
        self._session, self._able = session, able
        self._asked: dict[str, tuple[OnlineQuestion, Prompt]] = {}
        self._prepared: tuple[tuple[Message, ...], Prompt] | None = None  # the question that came last, and its prompt

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""
        return len(self._asked)

    def is_prepared(self, question: OnlineQuestion) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def prepare(self, question: OnlineQuestion) -> None:
        """Refuse what only written answers have."""
        if question.raw is not None:
            problem = "this arm chooses its answers whole, and reads no raw prompt"
            raise InputError(problem, "ask an arm that writes, or ask it at /v1/chat/completions", field="model")
        if question.constraint:
            problem = "an answer that is chosen whole has a form already"
            raise InputError(problem, "leave response_format and tools out", field="response_format")
        if question.logprobs:
            problem = "there are no log-probabilities of tokens where an answer is chosen whole"
            remedy = "leave logprobs out; the reply has the probabilities of the answers"
            raise InputError(problem, remedy, field="logprobs")
        # A label has its length; what an endpoint writes has the room that it was measured with, and no less.
        room = None if self._session.task.task.kind == "classify" else self._session.output_tokens
        for name in unsupported_options(question, room):
            problem = f"{name} would change nothing, as this arm's answer is chosen whole and the same each time"
            raise InputError(problem, f"leave {name} out", field=name)

    def ask(self, question: OnlineQuestion) -> None:
        """Look its passages up and let it wait for the next pass."""
        self.prepare(question)
        if self._prepared is None or self._prepared[0] is not question.messages:
            self._prepared = None
            self._prepared = question.messages, prompt_for(self._able, question, 0)
            self._session.forget_hits()
        self._asked[question.id] = question, replace(self._prepared[1], id=question.id)

    def step(self) -> list[OnlineEvent]:
        """Answer those that have waited longest; where that fails, each alone, so that one does not spoil the others."""
        taken = dict(islice(self._asked.items(), TOGETHER))
        for one in taken:
            del self._asked[one]
        return self._answers(taken)

    def _answers(self, taken: Mapping[str, tuple[OnlineQuestion, Prompt]]) -> list[OnlineEvent]:
        prompts = [prompt for _, prompt in taken.values()]
        try:
            given = self._able.many(prompts) if len(prompts) > 1 else [self._able.alone(prompt) for prompt in prompts]
            replies = [reply_from(self._session, *taken[generation.id], generation) for generation in given]
        except RemoteError as error:  # the endpoint's patience is spent already
            return [FailedQuestion(id=one, error=error) for one in taken]
        except Exception as error:  # noqa: BLE001  (whatever it is, it ends a question and not the arm)
            if len(taken) == 1:
                return [FailedQuestion(id=one, error=error) for one in taken]
            return [event for one, asked in taken.items() for event in self._answers({one: asked})]
        return [event for reply in replies for event in (AnswerPiece(id=reply.id, text=reply.text), reply)]

    def cancel(self, question_id: str) -> None:
        """Leave it out of the next pass."""
        self._asked.pop(question_id, None)


def unsupported_options(question: OnlineQuestion, room: int | None) -> Iterator[str]:
    """What of a question an arm that chooses its answers whole cannot heed, by OpenAI's names; `room`: tokens that an answer may take.

    One answer at a usual temperature passes: clients send it by themselves, and the likeliest answer is what it gives most.
    """
    how = question.sampling
    asked = {
        "n": question.draws > 1 and how.temperature > 0,
        "temperature": how.temperature > USUAL_HEAT,
        "stop": bool(question.stops),
        "max_tokens": room is not None and question.max_new is not None and question.max_new < room,
        "frequency_penalty": how.frequency_penalty != 0,
        "presence_penalty": how.presence_penalty != 0,
        "repetition_penalty": how.repetition_penalty != 1,
    }
    return (name for name, wanted in asked.items() if wanted)


def prompt_for(able: ReadyArm, question: OnlineQuestion, answer_tokens: int) -> Prompt:
    """What the model is asked.

    Raises InputError for a conversation that does not end with a turn to answer, or that does not fit the model's context with an
    answer of so many tokens.
    """
    if not question.messages or question.messages[-1].role not in ("user", "tool"):
        raise InputError("the last turn is not the user's", "end with the question", field="messages")
    example = Example(id=question.id, messages=question.messages, references=())
    able.builder.require_room(example, answer_tokens)
    return able.builder.prompts([example])[0]


def reply_from(session: Session, question: OnlineQuestion, prompt: Prompt, generation: Generation) -> OnlineReply:
    """A generation as a reply, with what supports it."""
    unknown, text = session.task.task.unknown, generation.text
    return OnlineReply(
        id=question.id,
        text=text,
        generation=generation,
        hits=prompt.hits,
        cited=supporting(text, prompt.hits, unknown, question.messages[-1].content) if prompt.hits else (),
        abstained=session.task.task.kind == "answer" and has_abstained(text, unknown),
    )
