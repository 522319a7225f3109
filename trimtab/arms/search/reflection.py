"""Instructions improved by reflection: another model reads what the base model answered, and rewrites the instruction.

After GEPA (Agrawal et al. 2025, arXiv 2507.19457): an instruction is drawn from those that are best on some dev
question, tried on a few training rows, rewritten by a model that sees these answers, and the new one goes on if it does
better on the same rows. It departs in the end: what is kept is chosen across folds of dev, and the former instruction
stays unless that favours another. The other model sees training rows only, never rows of dev or documents.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from trimtab.arms.contexts import Context, saved_context
from trimtab.arms.search.trials import ContextTrials, successive_halving
from trimtab.arms.session import Session
from trimtab.arms.teacher import teacher_folder, teacher_session
from trimtab.base.config import TokenPrice
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.files import append_own, read_own_lines, sha256_text
from trimtab.base.grammar import is_trained, method_of
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Answer, Arm, Example, Generation, Message, Prompt
from trimtab.base.results import Reflection
from trimtab.base.sanitize import visible
from trimtab.base.task import Task
from trimtab.data.draw import sample_rows
from trimtab.inference.engine import Engine, Request, generate_texts
from trimtab.inference.remote import remote_model

LEAST_DEV = 50  # dev rows: with fewer, folds of ten rows could not tell instructions apart
BATCH = 6  # training rows that are shown at once
ANSWER_TOKENS = 800  # of a proposal
CALL_SECONDS = 5.0  # predicted for an endpoint, which is not timed
SHOWN_LETTERS = 600  # of a question, an answer, or what was right
LONGEST_RUN, SHORTEST_RUN = 8, 4  # words in a row that count as copied; all words of a text of at least so few, too
COMMON_SHARE, COMMON_ROWS = 0.1, 3  # words that more rows than both have in common belong to a template, not to a row
ROOM_SHARE = 0.25  # of the model's context that an instruction may take
REPLIES, PRACTICE = "reflections.jsonl", "practice.jsonl"
_MARKED = re.compile(r"<instruction>(.*?)</instruction>", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"\w+")

AskRows = Callable[[Context, Sequence[Example]], Sequence[Answer]]
"""Answers training rows in a context with the base model, and scores the answers."""


@dataclass(frozen=True, kw_only=True)
class Reflector:
    """The model that rewrites instructions. Its replies are kept in a file and not asked for again.

    `call_seconds`: predicted for one reply, from the seconds of a question to the base model.
    """

    name: str
    generate: Callable[[Prompt], Generation]
    call_seconds: Callable[[float], float]
    release: Callable[[], None] = lambda: None
    price: TokenPrice | None = None
    kept: Path | None = None

    def ask(self, request: str) -> tuple[str, float, float]:
        """Return the reply to a request, its seconds, and its fee. Raises RemoteError if an endpoint fails."""
        key = sha256_text(self.name, request)
        known = read_own_lines(self.kept, "request", "text", "seconds", "fee") if self.kept else ()
        line = next((line for line in known if line["request"] == key), None)
        if line is None:
            began = time.perf_counter()
            reply = self.generate(Prompt(id="reflection", messages=(Message(role="user", content=request),)))
            fee = self.price.fee(reply.prompt_tokens, reply.new_tokens) if self.price else 0.0
            line = {"request": key, "text": reply.text, "seconds": time.perf_counter() - began, "fee": fee}
            if self.kept:
                append_own(self.kept, line)
        return line["text"], line["seconds"], line["fee"]


def reflecting_endpoint(task: Task, arms: Sequence[Arm]) -> str | None:
    """Return the endpoint that rewrites instructions, if an arm may try them; None if a local model does, or none."""
    endpoint = task.reflecting_endpoint
    return endpoint if endpoint and may_reflect(task, arms) else None


def may_reflect(task: Task, arms: Sequence[Arm]) -> bool:
    """True if the task names a model that rewrites instructions, and an arm of the base model may try them."""
    prompted = any(method_of(arm).uses_base and not is_trained(arm) for arm in arms)
    return task.reflects and prompted and task.study.effort != "none" and bool(task.data.examples)


def open_reflector(session: Session, progress: Progress, folder: Path | None = None) -> Reflector | None:
    """Return the model that rewrites instructions; None where none may, or could not, with a note that says why."""
    task = session.task
    if not may_reflect(task, task.arms):
        return None
    dev, kept = len(session.workspace.splits["dev"]), folder / REPLIES if folder else None
    if dev < LEAST_DEV:
        note = (
            f"no instruction is rewritten: dev has {dev} rows, and fewer than {LEAST_DEV} cannot tell which is better"
        )
        progress.emit("choose", note=note, stays=True)
        return None
    endpoint = task.reflecting_endpoint
    if endpoint is None:
        return _local_reflector(session, kept)
    table = task.api[endpoint]
    try:
        remote = remote_model(table)
    except InputError as error:
        progress.emit("choose", note=f"api.{endpoint} rewrites no instruction: {error}", stays=True)
        return None
    return Reflector(
        name=f"api.{endpoint}",
        generate=lambda prompt: remote.generate([prompt], ANSWER_TOKENS)[0],
        call_seconds=lambda _: CALL_SECONDS,
        price=table.price_per_million,
        kept=kept,
    )


def _local_reflector(session: Session, kept: Path | None) -> Reflector:
    """Return the model of `[teacher]`, loaded beside the base model while an arm reflects. Raises MissingError for an
    absent one."""
    teacher_folder(session.task)
    loaded: list[Session] = []

    def generate(prompt: Prompt) -> Generation:
        if not loaded:
            loaded.append(teacher_session(session))
        own = loaded[0]
        ids = own.encoder.prompt(prompt.messages)
        longest = min(ANSWER_TOKENS, own.context_tokens - len(ids))
        if longest < 1:
            raise InputError("what it should read is longer than its context", "name a teacher with a longer one")
        request = Request(id=prompt.id, ids=ids, max_new=longest)
        return generate_texts(Engine(own.base, own.encoder.stop_ids), own.base.tokenizer, [request])[0]

    def release() -> None:
        loaded.clear()
        release_memory()

    return Reflector(
        name="the teacher",
        generate=generate,
        call_seconds=lambda each: 2 * BATCH * each,  # it reads as much as these questions, and writes more
        release=release,
        kept=kept,
    )


class Practice:
    """The base model's answers to training rows, kept in a file: the search of an arm that was killed repeats none."""

    def __init__(self, file: Path | None, ask: AskRows) -> None:
        self._file, self._ask = file, ask
        self._known: dict[tuple[Context, tuple[str, ...]], tuple[list[tuple[str, float]], float]] = {}
        for line in read_own_lines(file, "context", "rows", "answers", "seconds") if file else ():
            answers = [(text, score) for text, score in line["answers"]]
            self._known[saved_context(line["context"]), tuple(line["rows"])] = answers, line["seconds"]

    def __call__(self, context: Context, rows: Sequence[Example]) -> tuple[list[tuple[str, float]], float]:
        """Return the text and the score of each row's answer, and the seconds that they took."""
        ids = tuple(row.id for row in rows)
        if (context, ids) not in self._known:
            began = time.perf_counter()
            answers = [(answer.answer, answer.score) for answer in self._ask(context, rows)]
            self._known[context, ids] = answers, time.perf_counter() - began
            if self._file:
                line = {"context": asdict(context), "rows": ids, "answers": answers}
                append_own(self._file, {**line, "seconds": self._known[context, ids][1]})
        return self._known[context, ids]


def reflection_questions(steps: int, first: int) -> int:
    """Return the most questions of so many steps: training rows before and after, and the first rung of dev."""
    return steps * (2 * BATCH + first)


def request_tokens(session: Session) -> float:
    """Return about how many tokens a request has, for predicting its fee."""
    rows = session.workspace.subset("train", BATCH)
    shown = [(row, row.references[0]) for row in rows]
    return len(session.encoder.text(_request(session, Context(), [(row, text, 0.0) for row, text in shown])))


@dataclass
class ReflectionSearch:
    """The search of one arm. `steps`: at most so many rewritings; `tell`: shows a note."""

    session: Session
    reflector: Reflector
    practice: Practice
    tried: ContextTrials
    steps: int
    tell: Callable[[str], None]
    found: Reflection = field(init=False)

    def run(self, now: Context, rungs: Sequence[Sequence[Example]]) -> Context:
        """Return the context with the instruction that is kept; `found` then says what was tried."""
        self.found = Reflection(by=self.reflector.name)
        pool = [now]
        if self.tried.try_context(now, now, rungs[0]) is None:
            return now
        for number, rows in enumerate(self._batches()):
            each = self.tried.seconds_a_question(now)
            ahead = each * (2 * len(rows) + len(rungs[0])) + self.reflector.call_seconds(each)
            if not self.tried.has_time(ahead):
                break
            try:
                child = self._rewritten(self._parent(pool, rungs[0], number), rows)
            except (RemoteError, InputError) as error:
                self.tell(f"{self.reflector.name} rewrites no further instruction: {error}")
                break
            if child and child not in pool and self.tried.try_context(child, now, rungs[0]) is not None:
                pool.append(child)
        self.reflector.release()
        kept = successive_halving(self.tried, rungs, now, pool, across_folds=True) if len(pool) > 1 else now
        self.found = replace(self.found, compared=len(pool) - 1, kept=kept != now)
        return kept

    def _batches(self) -> Iterator[Sequence[Example]]:
        """Yield the training rows of each step, none twice."""
        rows = list(
            sample_rows(self.session.workspace.splits["train"], self.steps * BATCH, self.session.task.task.kind)
        )
        random.Random("reflection").shuffle(rows)
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]

    def _parent(self, pool: Sequence[Context], rows: Sequence[Example], step: int) -> Context:
        """Draw a context, each as often as it is among the best on a dev question."""
        scores = [self.tried.known(context) for context in pool]
        best = {row.id: max(own[row.id] for own in scores) for row in rows}
        weights = [sum(own[name] == value for name, value in best.items()) for own in scores]
        return random.Random(f"parent:{step}").choices(pool, weights)[0]

    def _rewritten(self, parent: Context, rows: Sequence[Example]) -> Context | None:
        """Return the context with a rewritten instruction; None if it is refused, or no better on these rows."""
        before = self._practised(parent, rows)
        if all(score >= 1 for _, score in before):
            return None
        shown = [(row, text, score) for row, (text, score) in zip(rows, before, strict=True)]
        reply, seconds, fee = self.reflector.ask(_request(self.session, parent, shown))
        self.tried.charge(seconds)
        self.found = replace(
            self.found,
            calls=self.found.calls + 1,
            seconds=self.found.seconds + seconds,
            fee=self.found.fee + fee,
        )
        text = read_instruction(reply)
        problem = self._problem(text)
        if problem:
            self.found = replace(self.found, refused=self.found.refused + 1)
            self.tell(f"an instruction of {self.reflector.name} is refused: {problem}")
            return None
        child = replace(parent, instruction=text)
        after = self._practised(child, rows)
        return child if sum(score for _, score in after) > sum(score for _, score in before) else None

    def _practised(self, context: Context, rows: Sequence[Example]) -> list[tuple[str, float]]:
        answers, seconds = self.practice(context, rows)
        self.tried.charge(seconds)
        self.found = replace(
            self.found, questions=self.found.questions + len(rows), seconds=self.found.seconds + seconds
        )
        return answers

    def _problem(self, text: str) -> str:
        """Return why an instruction cannot be tried; empty if it can."""
        session = self.session
        if not text:
            return "it is empty"
        room = ROOM_SHARE * session.context_tokens
        if len(session.encoder.text(text)) > room:
            return f"it has more than {room:.0f} tokens"
        splits, table = session.workspace.splits, session.task.task
        closed = table.kind == "classify"  # its labels belong into the instruction
        rows = (row for name in ("train", "dev") for row in splits[name])
        texts = ([row.input, *(() if closed else row.references)] for row in rows)
        spared = (table.instruction, table.unknown, *session.workspace.labels) if closed else (table.instruction,)
        copied = copied_words(text, texts, len(splits["train"]) + len(splits["dev"]), spared)
        return f'it repeats a row of train or dev ("{visible(copied)}")' if copied else ""


def copied_words(text: str, rows: Iterator[Sequence[str]], count: int, spared: Sequence[str] = ()) -> str:
    """Return words that a text repeats from one of `count` rows; empty if it repeats none.

    Repeated is a run of LONGEST_RUN words, or a row's whole text of SHORTEST_RUN words or more. What stands in one of
    the texts `spared`, or in many rows alike, is not counted.
    """
    sizes = range(SHORTEST_RUN, LONGEST_RUN + 1)
    own = {size: set(_runs(_words(text), size)) for size in sizes}
    for spared_text in spared:
        for size in sizes:
            own[size] -= set(_runs(_words(spared_text), size))
    seen: Counter[tuple[str, ...]] = Counter()
    for texts in rows:
        shared: set[tuple[str, ...]] = set()
        for words in map(_words, texts):
            size = min(LONGEST_RUN, len(words))
            shared |= own[size].intersection(_runs(words, size)) if size >= SHORTEST_RUN else set()
        seen.update(shared)
    most = max(COMMON_ROWS, COMMON_SHARE * count)
    return next((" ".join(run) for run, number in seen.items() if number <= most), "")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + size]) for start in range(len(words) - size + 1))


def read_instruction(reply: str) -> str:
    """Return the instruction of a reply: between the marks that were asked for, else all of it."""
    marked = _MARKED.findall(reply)
    return visible((marked[-1] if marked else reply).strip())


def _request(session: Session, context: Context, shown: Sequence[tuple[Example, str, float]]) -> str:
    """Return what the other model is asked. `shown`: training rows with the base model's answers and scores."""
    table, labels = session.task.task, ", ".join(session.workspace.labels)
    own = (table.instruction if context.instruction is None else context.instruction).strip()
    more = " Passages of documents are shown to it below each question." if context.passages else ""
    more += f" {context.shots} worked examples stand before each question." if context.shots else ""
    closed = table.kind == "classify"
    more += f" Its answer is always one of these labels: {labels[:SHOWN_LETTERS]}." if closed else ""
    parts = [
        f"Question: {row.input[:SHOWN_LETTERS]}\nIts answer: {text[:SHOWN_LETTERS]}\n"
        f"Right answer: {row.references[0][:SHOWN_LETTERS]}\nScore: {score:.2f} of 1"
        for row, text, score in shown
    ]
    return (
        f"A small language model follows this instruction:\n\n{own or '(none)'}\n\n"
        f"It is followed by a question.{more} Here is what it answered:\n\n" + "\n\n".join(parts) + "\n\nFind out what "
        "the wrong answers have in common, and write a better instruction for it: short and plain, with the general "
        "rules that would have led to the right answers and hold for other questions of this kind, too. Repeat no "
        "question and no answer from above. Write the instruction between <instruction> and </instruction>."
    )
