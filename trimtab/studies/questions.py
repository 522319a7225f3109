"""`questions`: drafts questions from a task's documents, and lets people approve, mend or refuse them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.arms.drafting import (
    ASK,
    DRAFT_TOKENS,
    REASONS,
    drafted_by_model,
    own_questions,
    sentences_of,
    sifted,
    topic_by_topic,
)
from trimtab.arms.retriever import Retriever
from trimtab.arms.session import Session
from trimtab.arms.workspace import open_for_answering
from trimtab.base.errors import InputError
from trimtab.base.files import locked, sha256_text
from trimtab.base.progress import Listener
from trimtab.base.show import Shown
from trimtab.base.task import DRAFTED_QUESTIONS, TASK_FILE, Task
from trimtab.data.documents import read_documents
from trimtab.data.drafted_questions import DraftedQuestion, State, read_drafts, write_drafts
from trimtab.data.encodings import detect_encoding
from trimtab.data.formats import read_examples
from trimtab.data.sources import read_text_lines
from trimtab.inference.remote import remote_model
from trimtab.measurement.audit import AuditItem
from trimtab.measurement.raters import rater_name
from trimtab.retrieval.chunk import chunk_document
from trimtab.retrieval.drafting import Draft, draft_questions, topic_of
from trimtab.studies.consent import require_consent
from trimtab.studies.run_context import resolve_task, run_context
from trimtab.studies.sources import DataSource

BY_FACTS, BY_BASE = "facts", "base"
LEAST_APPROVED = 40  # approved questions from which on a study of them can show something
_LONGEST_QUESTION = 1_000
_QUESTION_MARK = re.compile(r"(?<=[?？؟])(?!.*[?？؟])", re.DOTALL)  # the end of the last question of a text
_OTHER_WAYS = "a model that drafts, --by api-NAME, or questions that people asked, --asked FILE"


@dataclass(frozen=True, kw_only=True, repr=False)
class QuestionsResult(Shown):
    """The drafted questions of a task. `new`: those that this call drafted; `left_out`: drafts that nobody has to read,
    by reason; `waiting`: those that nobody has read; `file`: where they lie."""

    new: int
    left_out: dict[str, int]
    waiting: int
    approved: int
    mended: int
    refused: int
    file: Path
    next: str

    @property
    def usable(self) -> int:
        """The number of those that are rows of the task."""
        return self.approved + self.mended

    @property
    def suffices(self) -> bool:
        """True if a study of the usable ones can show something."""
        return self.usable >= LEAST_APPROVED

    @property
    def headline(self) -> str:
        """Return what there is, and what to do next."""
        mended = f" ({self.mended:,} mended)" if self.mended else ""
        refused = f", {self.refused:,} refused" if self.refused else ""
        approved = f"{self.usable:,} drafted question{'s' * (self.usable != 1)} approved{mended}{refused}"
        return f"{approved}, {self.waiting:,} wait{'s' * (self.waiting == 1)}. {self.next}"


class QuestionReview:
    """A review in progress: `pending` are the drafts that nobody has read, every topic once before any twice. `judge`
    saves at once; `correct` mends the answer or the question."""

    def __init__(
        self,
        task: Task,
        drafts: Sequence[DraftedQuestion],
        new: int,
        left_out: Counter[str],
        who: str,
        exhausted: bool = False,
        documents_note: str = "",
    ) -> None:
        self.task, self._new, self._left_out, self._who = task, new, left_out, who
        self._exhausted, self._documents_note = exhausted, documents_note
        self._drafts = {one.id: one for one in drafts}
        self.pending = [_item(one) for one in drafts if one.state == "drafted"]

    @property
    def notes(self) -> Iterator[str]:
        """Yield how many questions were drafted, how many drafts were left out and why, and what to approve."""
        if self._new:
            yield f"{self._new:,} question{'s' * (self._new != 1)} drafted from the documents."
        elif self._exhausted:
            yield "The documents give no further question."
        if self._new and self._left_out:
            told = ", ".join(f"{reason} {count:,}" for reason, count in self._left_out.most_common())
            yield f"Left out: {told}."
        if self._new and self._documents_note:
            yield self._documents_note
        if self.pending:
            yield "Approve what somebody could ask and what the document answers so; only approved ones count."

    def judge(self, asked: AuditItem, value: float | None) -> None:
        """Save what a person says of a draft: 1 approved, 0 refused."""
        self._keep(asked, "approved" if value else "refused")

    def undo(self, asked: AuditItem) -> None:
        """Take back what was said of a draft, mended words included."""
        self._keep(asked, "drafted")

    def correct(self, asked: AuditItem, text: str) -> None:
        """Mend the question, which is the text up to its last question mark, and the answer, which is the rest. A text
        that changes neither approves the draft.
        """
        *before, after = _QUESTION_MARK.split(text.strip(), maxsplit=1)
        question, answer = "".join(before).strip(), after.strip()
        changed = question not in ("", asked.question) or answer not in ("", asked.answer)
        self._keep(asked, "mended" if changed else "approved", question=question, answer=answer)

    def _keep(self, asked: AuditItem, state: State, *, question: str = "", answer: str = "") -> None:
        before = self._drafts[asked.item_id]
        said = replace(before, state=state, question=question or before.question, answer=answer or before.answer)
        if state != "drafted":
            said = replace(said, who=self._who, time=datetime.now(UTC).isoformat(timespec="seconds"))
        with locked(_folder(self.task), seconds=10):
            now = {one.id: one for one in read_drafts(self.task.folder)}
            write_drafts(self.task.folder, (now | {said.id: said}).values())

    def finish(self) -> QuestionsResult:
        """Return what there is now."""
        states = Counter(one.state for one in read_drafts(self.task.folder))
        usable = states["approved"] + states["mended"]
        study, again = self.task.command("study"), self.task.command("questions")
        if not usable:
            then = f"Approve some: {again}"
        elif usable < LEAST_APPROVED:
            if self._exhausted and usable + states["drafted"] < LEAST_APPROVED:
                more = f"the documents give too few; add {_OTHER_WAYS}: {again}"
            else:
                more = again
            then = f"About {LEAST_APPROVED - usable} more can show something: {more}; or compare with these: {study}"
        else:
            then = f"Compare with these: {study}"
        if usable and self.task.data.examples and DRAFTED_QUESTIONS not in self.task.data.examples:
            then += f' (they count once data.examples in {self.task.file.name} names "{DRAFTED_QUESTIONS}")'
        return QuestionsResult(
            new=self._new,
            left_out=dict(self._left_out),
            waiting=states["drafted"],
            approved=states["approved"],
            mended=states["mended"],
            refused=states["refused"],
            file=self.task.folder / DRAFTED_QUESTIONS,
            next=then,
        )


def questions(
    source: DataSource = TASK_FILE,
    *,
    count: int = 100,
    by: str = BY_FACTS,
    asked: str | Path | None = None,
    who: str | None = None,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
) -> QuestionReview:
    """Draft questions from the documents of a task until `count` wait for a person, and return the review of them.

    `source`: a task file or a folder of documents, for which a task file is written. `by`: "facts" (no model: amounts,
    dates, names, definitions, tables; English), "base" (the task's base model), or the name of an `[api.NAME]`, which
    is sent passages. `asked`: a file of questions that people asked, one a line; each gets the sentence that answers
    it best. `who`: who reads, the user of this machine unless named. Raises InputError for a task without documents,
    or whose documents give no question; ConsentError for an endpoint that the user did not allow.
    """
    task = resolve_task(source, listeners)
    if not task.data.documents:
        raise InputError("there are no documents to draft from", "name some in data.documents", file=task.file)
    if task.task.kind == "classify":
        raise InputError("the answers are labels, which no document states", "label some texts instead", file=task.file)
    name = rater_name(who)
    endpoint = _endpoint(task, by)
    require_consent(task, [], drafter=endpoint, allow=allow, scores=False)
    own = [] if asked is None else _read_questions(Path(asked))
    drafts, left_out, documents_note = read_drafts(task.folder), Counter[str](), ""
    wanted = count - sum(one.state == "drafted" for one in drafts)
    new: list[DraftedQuestion] = []
    if wanted > 0 or own:
        with run_context(task, listeners=listeners, allow=allow, scores=False) as ctx:
            session = Session(open_for_answering(task, rows=False))
            read = len(session.workspace.documents)
            note = f"embedding the sentences of {read:,} document{'s' * (read != 1)}; what is done is kept"
            ctx.progress().emit("index", note=note)
            known = [one.question for one in drafts] + _known_questions(task)
            drafted, documents_note = _drafted(task, session, by, endpoint, max(0, wanted - len(own)), known, left_out)
            found = [
                *sifted(own_questions(own, session.retriever, left_out), known, session.retriever, left_out, len(own)),
                *drafted,
            ]
            source_of = f"api-{endpoint}" if endpoint else by
            new = [_kept(one, "extract" if one.kind == "own question" else source_of) for one in found]
        new = [one for one in new if one.id not in {old.id for old in drafts}]
        with locked(_folder(task), seconds=10):
            write_drafts(task.folder, [*drafts, *new])
    if not drafts and not new:
        raise _nothing(task, by, left_out)
    if drafts:  # drafted again for nothing: they are in the file
        del left_out[REASONS[2]]
    exhausted = len(new) < wanted
    return QuestionReview(task, [*drafts, *new], len(new), left_out, name, exhausted, documents_note)


def _folder(task: Task) -> Path:
    folder = task.folder / ".trimtab"
    folder.mkdir(exist_ok=True)
    return folder


def _endpoint(task: Task, by: str) -> str | None:
    if by in (BY_FACTS, BY_BASE):
        return None
    name = by.removeprefix("api-")
    if name not in task.api:
        known = ", ".join((BY_FACTS, BY_BASE, *(f"api-{one}" for one in task.api)))
        raise InputError(f"{by!r} drafts no questions", f"use one of: {known}", file=task.file, field="--by")
    return name


def _drafted(
    task: Task, session: Session, by: str, endpoint: str | None, wanted: int, known: list[str], left_out: Counter[str]
) -> tuple[list[Draft], str]:
    """Return up to `wanted` drafts that passed the sieve, and a note on the documents that state no
    fact; an empty one if there are none."""
    if wanted <= 0:
        return [], ""
    retriever: Retriever = session.retriever
    documents = session.workspace.documents
    if by == BY_FACTS:
        drafts = list(draft_questions(documents, sentences_of(retriever), task.task.unknown))
        without_fact = len(documents) - len({name for draft in drafts for name in draft.passages})
        note = (
            f"No question from {without_fact:,} of {len(documents):,} documents: without a model, only facts stated in "
            f"English are asked for. For more, name {_OTHER_WAYS}."
        )
        return sifted(drafts, known, retriever, left_out, wanted), note if without_fact else ""
    chunks = (one for document in documents for one in chunk_document(document))
    passages = topic_by_topic(chunks, lambda one: topic_of(one.document, one.path), wanted)
    ask = _ask(task, session, endpoint)
    by_model = drafted_by_model(passages, ask, task.task.unknown, left_out)
    return sifted(by_model, known, retriever, left_out, wanted), ""


def _ask(task: Task, session: Session, endpoint: str | None) -> ASK:
    if endpoint is None:
        return lambda prompts: session.answer(prompts, most=DRAFT_TOKENS)
    remote = remote_model(task.api[endpoint], _folder(task) / "drafting_replies.jsonl")
    return lambda prompts: remote.generate(prompts, DRAFT_TOKENS)


def _read_questions(file: Path) -> list[str]:
    """Return the questions of a text file, one a line. Raises InputError for an absent file, or one without any."""
    if not file.is_file():
        raise InputError("there is no such file", "name a text file with one question a line", file=file)
    lines = [line.strip() for line in read_text_lines(file, detect_encoding(file))]
    found = list(dict.fromkeys(line[:_LONGEST_QUESTION] for line in lines if line))
    if not found:
        raise InputError("no question in it", "write one a line", file=file)
    return found


def _known_questions(task: Task) -> list[str]:
    names = [name for name in task.data.examples if name != DRAFTED_QUESTIONS]
    return [row.input for row in read_examples(task, names).examples] if names else []


def _kept(draft: Draft, by: str) -> DraftedQuestion:
    return DraftedQuestion(
        id=sha256_text(draft.question, draft.answer)[:16],
        question=draft.question,
        answer=draft.answer,
        passage=draft.passages,
        sentence=draft.sentence,
        group=draft.topic,
        kind=draft.kind,
        by=by,
    )


def _item(draft: DraftedQuestion) -> AuditItem:
    return AuditItem(
        item_id=draft.id,
        question=draft.question,
        references=(draft.sentence,) if draft.sentence else (),
        answer=draft.answer,
        passages=(draft.group,),
    )


def _nothing(task: Task, by: str, left_out: Counter[str]) -> InputError:
    told = ", ".join(f"{reason} {count:,}" for reason, count in left_out.most_common())
    why = f"every draft was left out ({told})" if told else "no sentence states a fact that can be asked for"
    count = len(read_documents(task))
    files = f"{count:,} document{'s' * (count != 1)}"
    remedy = f"name {_OTHER_WAYS}"
    if by == BY_FACTS:
        why += "; drafting without a model reads English alone"
    return InputError(f"nothing to draft from {files}: {why}", remedy, file=task.file)
