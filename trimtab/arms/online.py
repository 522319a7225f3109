"""Online answering with an arm: questions are added and cancelled at any time, and answers stream as they are
generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from trimtab.arms.answerers import ReadyArm, ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.session import Session
from trimtab.arms.store import SavedArm
from trimtab.arms.workspace import FOLDER
from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Arm, Example, Generation, Hit, Message, Prompt
from trimtab.data.function_calls import functions_in_words, turns_as_text
from trimtab.data.prompts import with_passages
from trimtab.inference.constraints import Constraint
from trimtab.inference.detokenize import token_bytes
from trimtab.inference.engine import Completion, Engine, GeneratedToken, Request
from trimtab.inference.request import require_room
from trimtab.inference.sampling import GREEDY, Sampling
from trimtab.measurement.citations import supporting
from trimtab.measurement.metrics import has_abstained

CONSTRAINED_TOKENS = 1024  # of a constrained answer whose length the request leaves open
IGNORED_TEMPERATURE = 1.0  # the highest temperature that clients send by default; choosing arms ignore it
LABEL_BATCH = 16  # questions per pass of a choosing arm
SAMPLE_PROMPTS = 8  # questions whose prompts show the common prefix of an arm's prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineQuestion:
    """A conversation up to the question, with its generation parameters. `max_new`: None for the measured limit.

    A first system turn replaces the task's instruction. After the user's last turn, calls and what they returned may
    follow. `functions`: the definitions (JSON) of the functions that the model is shown; the calls that the answer may
    make are part of `constraint`. `raw`: a prompt used as it is, as text or token ids, without template, instruction or
    passages; `messages` is then empty. `echo`: the reply contains the prompt, with the log-probabilities of its tokens
    if `logprobs` is set; `max_new` may then be 0. `top_logprobs`: the number of likeliest alternatives per token.
    `draws`: the number of samples requested for the same question, of which this is one. `cache_salt`: identifies the
    client; its prefix is cached for this client alone, to speed up its next turn, and is not cached if empty.
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
    functions: tuple[str, ...] = ()
    draws: int = 1
    cache_salt: str = ""

    @property
    def source(self) -> tuple[Message, ...] | str | tuple[int, ...]:
        """Return the conversation, or the raw prompt: the same object for all draws of a question."""
        return self.messages if self.raw is None else self.raw

    @property
    def asked(self) -> tuple[Message, ...]:
        """Return the conversation up to the user's last turn: what follows are calls and what they returned."""
        end = next(
            (number for number in range(len(self.messages), 0, -1) if self.messages[number - 1].role == "user"), 0
        )
        return self.messages[:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token of an answer and its natural-log probability. `likeliest`: the requested alternatives.

    `log_probability`: None for the first token of a prompt, which nothing predicts. `raw_bytes`: the token's bytes,
    perhaps part of a character; None if unknown.
    """

    text: str
    raw_bytes: bytes | None
    log_probability: float | None
    likeliest: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPiece:
    """A new piece of an answer; all pieces add up to its text. `tokens`: if log-probabilities were requested."""

    id: str
    text: str
    tokens: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineReply:
    """A complete answer, sent after its last piece. `cited`: the ranks of the passages that support it.

    `tokens`: its tokens, if their log-probabilities were requested, for whoever waits for the whole answer (the pieces
    have them as well). `echo`: the text of the prompt, if requested. `echo_tokens`: its tokens, if their
    log-probabilities were. `receipt`: the server's, by which it can be judged.
    """

    generation: Generation
    hits: tuple[Hit, ...] = ()
    cited: tuple[int, ...] = ()
    abstained: bool = False
    tokens: tuple[TokenLogprob, ...] = ()
    echo: str = ""
    echo_tokens: tuple[TokenLogprob, ...] = ()
    receipt: str = ""

    @property
    def id(self) -> str:
        """The id of the question."""
        return self.generation.id

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.generation.text


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedQuestion:
    """A question that could not be answered, with the reason."""

    id: str
    error: Exception


OnlineEvent = AnswerPiece | OnlineReply | FailedQuestion


@contextmanager
def open_online(session: Session, arm: Arm, saved: SavedArm | None, *, sample: bool = True) -> Iterator[OnlineArm]:
    """Context manager: yields the arm with its measured weights and context, ready for questions.

    `sample`: precompute the common prefix of its prompts from a few rows, which pays from the second question on.
    `session` must be the arm's own: nothing else may attach weights to its base model meanwhile.
    """
    context = context_for(arm, saved.chosen if saved else None)
    rows = session.workspace.splits["dev"] or session.workspace.splits["train"]
    with ready_arm(
        session,
        arm,
        context,
        saved.folder if saved else session.task.folder / FOLDER,
        rows[:SAMPLE_PROMPTS] if sample else (),
    ) as ready:
        if arm.retrieves:
            _ = session.retriever.index_of(context.words)
        yield WritingArm(session, ready, ready.engine) if ready.engine else ChoosingArm(session, ready)


@dataclass(slots=True)
class _ActiveQuestion:
    """A question in progress. Trailing blanks are held back until text follows, as answers end without blanks."""

    question: OnlineQuestion
    prompt: Prompt | None  # None for a raw one
    ids: tuple[int, ...]
    text_so_far: str = ""
    blanks: str = ""

    def more(self, text: str) -> str:
        """Return the piece to send for new text. Blanks after a raw prompt are kept."""
        if self.prompt is None:
            self.text_so_far += text
            return text
        text = self.blanks + text
        if not self.text_so_far:
            text = text.lstrip()
        piece = text.rstrip()
        self.blanks = text[len(piece) :]
        self.text_so_far += piece
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedQuestion:
    """The prompt and token ids of a question, shared by its draws.

    Draws of one question share the object `source`. It is compared by identity, not by text: the time of an answer
    must not reveal whether another client has asked the same.
    """

    source: tuple[Message, ...] | str | tuple[int, ...]
    prompt: Prompt | None  # None for a raw one
    ids: tuple[int, ...] = ()
    public_tokens: int = 0


class WritingArm:
    """An arm that generates its answers, all of them together in one engine."""

    def __init__(self, session: Session, ready: ReadyArm, engine: Engine) -> None:
        self._session, self._ready, self._engine = session, ready, engine
        self._asked: dict[str, _ActiveQuestion] = {}
        self._prepared: _PreparedQuestion | None = None  # of the newest question

    @property
    def pending_count(self) -> int:
        """Return the number of unanswered questions."""
        return len(self._asked)

    def is_prepared(self, question: OnlineQuestion) -> bool:
        """True if the constraint of its answer is compiled."""
        return question.constraint is None or self._engine.is_prepared(question.constraint)

    def prepare(self, question: OnlineQuestion) -> None:
        """Compile the constraint of its answer. Raises InputError for a constraint that a quoting arm cannot apply."""
        self._require_free(question)
        if question.constraint:
            self._engine.prepare(question.constraint)

    def ask(self, question: OnlineQuestion) -> None:
        """Add the question to the engine, with its passages; later draws of it reuse the first one's prompt."""
        self._require_free(question)
        least = self._session.output_tokens if question.max_new is None else question.max_new
        if self._prepared is None or self._prepared.source is not question.source:
            self._prepared = None
            self._prepared = self._prepare(question, least)
        max_new = self._answer_tokens(question, least, len(self._prepared.ids))
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
            public_tokens=self._prepared.public_tokens,
            cache_salt=question.cache_salt,
        )
        self._engine.submit(request)
        self._asked[question.id] = _ActiveQuestion(question=question, prompt=prompt, ids=self._prepared.ids)

    def _answer_tokens(self, question: OnlineQuestion, least: int, prompt_tokens: int) -> int:
        """Return the most tokens of an answer: more than measured for JSON and calls, which are of no use if cut."""
        if question.max_new is not None or question.constraint is None:
            return least
        return max(least, min(CONSTRAINED_TOKENS, self._session.context_tokens - prompt_tokens))

    @property
    def _quotes(self) -> bool:
        """True if answers may only contain words of their passages."""
        return self._ready.builder.context.quote

    def _require_free(self, question: OnlineQuestion) -> None:
        """Raise InputError if a quoting arm gets another constraint, or a raw prompt, which has no passages."""
        if self._quotes and question.constraint:
            problem = "an answer of this arm is held to its passages already"
            raise InputError(problem, "leave response_format and tools out", field="response_format")
        if self._quotes and question.raw is not None:
            problem = "this arm quotes from passages, which a raw prompt has none of"
            raise InputError(problem, "ask it at /v1/chat/completions", field="model")

    def _raw_ids(self, question_id: str, raw: str | tuple[int, ...], max_new: int) -> tuple[int, ...]:
        """Return the token ids of a raw prompt, with special tokens only if the text contains them."""
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

    def _prepare(self, question: OnlineQuestion, max_new: int) -> _PreparedQuestion:
        if question.raw is not None:
            return _PreparedQuestion(
                source=question.raw, prompt=None, ids=self._raw_ids(question.id, question.raw, max_new)
            )
        prompt = prompt_for(self._ready, question, max_new)
        self._session.retriever.forget_hits()  # a server's questions are unlimited, so this must not grow
        ids = self._encoded(question, prompt.messages)
        require_room(question.id, len(ids), max_new, self._session.context_tokens)
        public_tokens = self._shared_tokens(question, prompt, ids)
        return _PreparedQuestion(source=question.messages, prompt=prompt, ids=ids, public_tokens=public_tokens)

    def _encoded(self, question: OnlineQuestion, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Return the ids of a prompt, with functions as the template shows them, or else in words of ours."""
        encoder = self._session.encoder
        if encoder.shows(question.functions):
            return encoder.prompt(messages, question.functions)
        return encoder.prompt(functions_in_words(messages, question.functions))

    def _shared_tokens(self, question: OnlineQuestion, prompt: Prompt, ids: tuple[int, ...]) -> int:
        """Return the number of leading tokens before the client's content: instruction, shots and passages.

        0 if clients bring turns or functions of their own, which are private.
        """
        if len(question.messages) > 1 or question.functions:
            return 0
        *before, last = prompt.messages
        blank = replace(last, content=with_passages("", prompt.hits) if prompt.hits else "")
        return common_prefix_length(ids, self._session.encoder.prompt((*before, blank)))

    def step(self) -> list[OnlineEvent]:
        """Run one pass of the engine. If it fails, all current questions fail; later ones are answered again."""
        try:
            events = self._engine.step()
        except Exception as error:  # noqa: BLE001  (whatever it is, it ends these questions and not the arm)
            lost, self._asked = list(self._asked), {}
            return [FailedQuestion(id=question_id, error=error) for question_id in lost]
        return [reply for event in events if (reply := self._event_or_failure(event)) is not None]

    def _event_or_failure(self, event: GeneratedToken | Completion) -> OnlineEvent | None:
        """Return the online event for an event of the engine. A question whose event fails is cancelled."""
        if event.id not in self._asked:  # cancelled within the same pass
            return None
        try:
            return self._event_from(event)
        except Exception as error:  # noqa: BLE001  (this question fails, not the arm)
            self.cancel(event.id)
            return FailedQuestion(id=event.id, error=error)

    def cancel(self, question_id: str) -> None:
        """Cancel the request and free its slot."""
        if self._asked.pop(question_id, None) is not None:
            self._engine.cancel(question_id)

    def _event_from(self, event: GeneratedToken | Completion) -> OnlineEvent | None:
        active = self._asked[event.id]
        if isinstance(event, GeneratedToken):
            tokens: tuple[TokenLogprob, ...] = ()
            # The end token is not part of an answer, but of the completion of a raw prompt.
            if event.log_probability is not None and (
                active.prompt is None or event.token not in self._engine.stop_ids
            ):
                others = tuple(self._token_logprob(token, value) for token, value in event.likeliest)
                tokens = (replace(self._token_logprob(event.token, event.log_probability), likeliest=others),)
            piece = active.more(event.text)
            return AnswerPiece(id=event.id, text=piece, tokens=tokens) if piece or tokens else None
        if active.prompt is None:
            reply = self._raw_reply(active, event)
        else:
            reply = reply_from(self._session, active.question, active.prompt, event.generation(active.text_so_far))
        del self._asked[event.id]
        return reply

    def _raw_reply(self, active: _ActiveQuestion, event: Completion) -> OnlineReply:
        """Return the completion of a raw prompt, with the prompt if `echo` is set."""
        question, generation = active.question, event.generation(active.text_so_far)
        if not question.echo:
            return OnlineReply(generation=generation)
        raw, tokenizer = question.raw, self._session.base.tokenizer
        return OnlineReply(
            generation=generation,
            echo=raw if isinstance(raw, str) else tokenizer.decode(list(active.ids)),
            echo_tokens=self._scored(active.ids, event) if question.logprobs else (),
        )

    def _scored(self, ids: tuple[int, ...], event: Completion) -> tuple[TokenLogprob, ...]:
        """Return the tokens of a prompt with their log-probabilities and likeliest alternatives."""
        values = (None, *event.prompt_log_probabilities)
        likeliest = ((), *(event.prompt_likeliest or [()] * (len(ids) - 1)))
        return tuple(
            replace(self._token_logprob(token, value), likeliest=tuple(self._token_logprob(*pair) for pair in pairs))
            for token, value, pairs in zip(ids, values, likeliest, strict=True)
        )

    def _token_logprob(self, token: int, log_probability: float | None) -> TokenLogprob:
        tokenizer = self._session.base.tokenizer
        text = tokenizer.decode([token])
        raw_bytes = token_bytes(text, tokenizer.convert_ids_to_tokens(token))
        return TokenLogprob(text=text, raw_bytes=raw_bytes, log_probability=log_probability)


class ChoosingArm:
    """An arm that returns whole answers: a label, or an endpoint's text. Waiting questions are answered together."""

    def __init__(self, session: Session, ready: ReadyArm) -> None:
        self._session, self._ready = session, ready
        self._asked: dict[str, tuple[OnlineQuestion, Prompt]] = {}
        self._prepared: tuple[tuple[Message, ...], Prompt] | None = None  # the newest question, and its prompt

    @property
    def pending_count(self) -> int:
        """Return the number of unanswered questions."""
        return len(self._asked)

    def is_prepared(self, question: OnlineQuestion) -> bool:  # noqa: ARG002
        """Always True: nothing has to be prepared."""
        return True

    def prepare(self, question: OnlineQuestion) -> None:
        """Refuse options that only generated answers support."""
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
        # A label has its length; an endpoint's text has the limit that it was measured with, and no less.
        room = None if self._session.task.task.kind == "classify" else self._session.output_tokens
        for name in unsupported_options(question, room):
            problem = f"{name} would change nothing, as this arm's answer is chosen whole and the same each time"
            raise InputError(problem, f"leave {name} out", field=name)

    def ask(self, question: OnlineQuestion) -> None:
        """Retrieve the question's passages and queue it for the next pass."""
        self.prepare(question)
        if self._prepared is None or self._prepared[0] is not question.messages:
            self._prepared = None
            plain = replace(question, messages=turns_as_text(question.messages))
            self._prepared = question.messages, prompt_for(self._ready, plain, 0)
            self._session.retriever.forget_hits()
        self._asked[question.id] = question, replace(self._prepared[1], id=question.id)

    def step(self) -> list[OnlineEvent]:
        """Answer the oldest waiting questions; if that fails, each alone, so that one does not spoil the others."""
        taken = dict(islice(self._asked.items(), LABEL_BATCH))
        for question_id in taken:
            del self._asked[question_id]
        return self._answers(taken)

    def _answers(self, taken: Mapping[str, tuple[OnlineQuestion, Prompt]]) -> list[OnlineEvent]:
        prompts = [prompt for _, prompt in taken.values()]
        try:
            generations = (
                self._ready.answer_batch(prompts)
                if len(prompts) > 1
                else [self._ready.answer_one(prompt) for prompt in prompts]
            )
            replies = [reply_from(self._session, *taken[generation.id], generation) for generation in generations]
        except RemoteError as error:  # the endpoint's retries are used up already
            return [FailedQuestion(id=question_id, error=error) for question_id in taken]
        except Exception as error:  # noqa: BLE001  (whatever it is, it ends a question and not the arm)
            if len(taken) == 1:
                return [FailedQuestion(id=question_id, error=error) for question_id in taken]
            return [event for question_id, asked in taken.items() for event in self._answers({question_id: asked})]
        return [event for reply in replies for event in (AnswerPiece(id=reply.id, text=reply.text), reply)]

    def cancel(self, question_id: str) -> None:
        """Remove the question from the queue."""
        self._asked.pop(question_id, None)


OnlineArm = WritingArm | ChoosingArm
"""An arm that answers questions as they come. Single-threaded, except that `is_prepared` and `prepare` may be called
from any thread.
"""


def unsupported_options(question: OnlineQuestion, room: int | None) -> Iterator[str]:
    """Yield the options of a question that a choosing arm cannot apply. `room`: the most tokens of an answer.

    One answer at a usual temperature passes: clients send it by default, and the arm gives its likeliest answer.
    """
    how = question.sampling
    unsupported = {
        "n": question.draws > 1 and how.temperature > 0,
        "temperature": how.temperature > IGNORED_TEMPERATURE,
        "stop": bool(question.stops),
        "max_tokens": room is not None and question.max_new is not None and question.max_new < room,
        "frequency_penalty": how.frequency_penalty != 0,
        "presence_penalty": how.presence_penalty != 0,
        "repetition_penalty": how.repetition_penalty != 1,
    }
    return (name for name, wanted in unsupported.items() if wanted)


def prompt_for(ready: ReadyArm, question: OnlineQuestion, answer_tokens: int) -> Prompt:
    """Return the prompt of a question. Passages are those of the user's last turn, and stand there.

    Raises InputError for a conversation that does not end with a turn to answer, or that does not fit the model's
    context with `answer_tokens` more tokens.
    """
    asked = question.asked
    if not asked or question.messages[-1].role == "assistant":
        raise InputError("the last turn is not the user's", "end with the question", field="messages")
    example = Example(id=question.id, messages=asked, references=())
    ready.builder.require_room(example, answer_tokens)
    prompt = ready.builder.prompts([example])[0]
    return replace(prompt, messages=(*prompt.messages, *question.messages[len(asked) :]))


def reply_from(session: Session, question: OnlineQuestion, prompt: Prompt, generation: Generation) -> OnlineReply:
    """Return a generation as a reply, with the passages that support it."""
    unknown, text = session.task.task.unknown, generation.text
    return OnlineReply(
        generation=generation,
        hits=prompt.hits,
        cited=supporting(text, prompt.hits, unknown, question.asked[-1].content) if prompt.hits else (),
        abstained=session.task.task.kind == "answer" and has_abstained(text, unknown),
    )
