"""`surface coverage`: measures whether a simulated assistant finds and cites a publisher's pages, and whether they
answer the questions that people ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import stats

from trimtab.base.errors import InputError
from trimtab.base.files import write_atomic
from trimtab.base.progress import Progress
from trimtab.base.records import Hit
from trimtab.base.results import Estimate
from trimtab.base.task import Task
from trimtab.measurement.clusters import group_codes
from trimtab.measurement.contains import stands_in
from trimtab.measurement.ranking import holds
from trimtab.measurement.resampling import bca, jackknife, sampling_units, statistic_draws
from trimtab.measurement.statistics import estimate
from trimtab.model.catalog import resolve
from trimtab.publishing import CACHE
from trimtab.publishing.assistant import (
    SOURCES,
    THRESHOLD,
    AnswerEngine,
    CachingEncoder,
    CitedAnswer,
    CitedSentence,
    ExtractiveEngine,
    SentenceJudge,
    SimulatedAssistant,
    instructions_in,
    is_supported,
    local_engine,
    open_index,
    remote_engine,
)
from trimtab.publishing.citable import Contradictions
from trimtab.publishing.content import OWN, PublishedContent, competitors_of, content_of, owner_and_page, page_label
from trimtab.publishing.coverage_page import render_coverage
from trimtab.publishing.questions import (
    MOST,
    UNSTABLE,
    column_named,
    decimal,
    drawn_questions,
    group_questions,
    merged_questions,
    question_key,
    read_questions,
    read_table,
)
from trimtab.publishing.records import (
    COVERAGE_STATUSES,
    ContradictingPages,
    CoverageChange,
    CoverageStatus,
    CoveredQuestion,
    GroupCoverage,
    ObservedAgreement,
    SurfaceCoverage,
    SurfaceFinding,
    SurfaceQuestion,
    read_result,
)
from trimtab.retrieval.embed import Embedder, Encoder
from trimtab.retrieval.extract import SURE
from trimtab.retrieval.rerank import Reranker

EMBEDDING = "minilm-l6"
EXTRACT = "extract"
UNPUBLISHED = "documents"  # the owner of files that are not published
PLANTED = 20  # questions whose passages get a planted instruction
LEAST_OBSERVED = 5  # questions that a rank correlation is computed from, at least
NO_DEMAND = "no source gives a demand, so every question counts once"
_YES = frozenset(("yes", "y", "true", "1", "cited", "answered"))
_NO = frozenset(("no", "n", "false", "0", "absent", "not cited"))
_QUESTION_COLUMNS = frozenset(("question", "query", "prompt"))
_OUTCOME_COLUMNS = frozenset(("cited", "share", "status", "rank", "mentioned"))

CoverageQuestions = str | Path | Sequence[str | Path | SurfaceQuestion]


def surface_coverage(
    source: str | Path,
    questions: CoverageQuestions,
    *,
    competitors: Sequence[str | Path] = (),
    engine: str = EXTRACT,
    task: Task | None = None,
    most: int = MOST,
    k: int = SOURCES,
    observed: Path | None = None,
    against: Path | None = None,
    page: Path | None = None,
    cache: Path = CACHE,
    embedding: str = EMBEDDING,
    progress: Progress | None = None,
) -> SurfaceCoverage:
    """Ask a simulated assistant the questions, over the pages of `source` and of `competitors` (folders or sites).

    `questions`: a file of questions or several, or questions. `engine`: `extract` (sentences word for word, no
    model), a local model's name, or `api.NAME` of the task file, to which questions and passages are then sent; the
    task's embedding and re-ranker are used where one is given. `observed`: a table with a column of questions and
    one of what real answers did (cited yes or no, or a share). `against`: an earlier result (JSON), to tell what has
    changed. `page`: where an HTML page is written. Each question is right or not by its reference answer or page
    where it has one, else by the probability that `retrieval/extract.py` gives. Raises InputError for sources or
    questions that cannot be read, MissingError without the embedding model.
    """
    given = read_input(source, questions, competitors, most=most, cache=cache, progress=progress)
    with assistant_over(
        given.contents, engine=engine, task=task, embedding=embedding, cache=cache, k=k, progress=progress
    ) as session:
        result = session.coverage(given.questions, progress=progress)
    result = replace(result, notes=(*result.notes, *given.notes))
    if observed is not None:
        result = replace(result, observed=agreement(result, observed))
    if against is not None:
        result = _since(result, against)
    if page is not None:
        result = replace(result, page=str(page))
        write_atomic(page, render_coverage(result))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceInput:
    """The questions to ask, and the contents to answer from: the publisher's first, then those of competitors.

    `unpublished`: contents that only a plan may quote. `notes`: what was not read or not asked.
    """

    questions: tuple[SurfaceQuestion, ...]
    contents: tuple[PublishedContent, ...]
    unpublished: tuple[PublishedContent, ...]
    notes: tuple[str, ...]


def read_input(
    source: str | Path,
    questions: CoverageQuestions,
    competitors: Sequence[str | Path],
    *,
    unpublished: Sequence[str | Path] = (),
    most: int,
    cache: Path,
    progress: Progress | None,
) -> SurfaceInput:
    """Read questions, at most `most` of them, and contents. Raises InputError for what cannot be read."""
    given = _all_questions(questions)
    asked = drawn_questions(given, most)
    contents = (
        content_of(source, cache=cache, progress=progress),
        *competitors_of(competitors, cache=cache, progress=progress),
    )
    hidden = tuple(content_of(folder, UNPUBLISHED, cache=cache) for folder in unpublished)
    notes = [f"not read: {why}" for content in (*contents, *hidden) for why in content.unread[:20]]
    if len(given) > len(asked):
        drawn = f"{len(asked):,} of {len(given):,} questions were asked"
        notes.append(f"{drawn}: those with the greatest demand, then a seeded draw")
    return SurfaceInput(questions=asked, contents=contents, unpublished=hidden, notes=tuple(notes))


def _all_questions(questions: CoverageQuestions) -> tuple[SurfaceQuestion, ...]:
    """Read the questions of files and take those that are given, each once. Raises InputError where there is none."""
    listed = [questions] if isinstance(questions, str | Path) else questions
    read = [
        question
        for entry in listed
        for question in ([entry] if isinstance(entry, SurfaceQuestion) else read_questions(Path(entry)))
    ]
    if not read:
        raise InputError("no question is given", "give a file of questions", field="questions")
    return merged_questions(read)


@dataclass(frozen=True, kw_only=True)
class AssistantSession:
    """A simulated assistant over the pages of a publisher (the first of `contents`) and its competitors, ready to be
    asked."""

    contents: tuple[PublishedContent, ...]
    assistant: SimulatedAssistant
    judge: SentenceJudge
    encoder: Encoder
    embedding: str
    date: str

    def coverage(self, questions: Sequence[SurfaceQuestion], *, progress: Progress | None = None) -> SurfaceCoverage:
        """Ask all questions, group those that ask the same, and sum up."""
        texts = [question.text for question in questions]
        judged: list[tuple[SurfaceQuestion, CitedAnswer, dict[int, Hit]]] = []
        for start in range(0, len(questions), 16):
            answers = self.assistant.ask(texts[start : start + 16])
            judged += [
                (question, answer, self.judge.each(question.text, answer.hits))
                for question, answer in zip(questions[start : start + 16], answers, strict=True)
            ]
            if progress is not None:
                progress.emit("answer", step=len(judged), of=len(questions))
        groups = group_questions(
            texts,
            self.encoder.encode(texts),
            answers=[max(best.values(), key=lambda hit: hit.score, default=None) for *_, best in judged],
            demands=[question.demand for question in questions],
        )
        group_of = {member: group.name for group in groups for member in group.members}
        covered = [self.covered(*answer, group_of[number]) for number, answer in enumerate(judged)]
        stability = {group.name: group.stability for group in groups}
        figures = [
            figures_of(name, [question for question in covered if question.group == name], stable)
            for name, stable in stability.items()
        ]
        figures.sort(key=lambda group: (-(group.demand or 0.0), -group.questions, group.group))
        return SurfaceCoverage(
            source=self.contents[0].source,
            engine=self.assistant.engine.name,
            embedding=self.embedding,
            date=self.date,
            limits=limits(self.assistant.engine.name, self.embedding, self.date),
            k=self.assistant.k,
            pages=len(self.contents[0].documents),
            passages=len(self.assistant.index.passages),
            competitors=tuple(content.owner for content in self.contents[1:]),
            overall=figures_of("all", covered, None),
            groups=tuple(figures),
            questions=tuple(covered),
            findings=self._instructions(),
            obeyed=self._obeyed(texts) if self.assistant.engine.writes else None,
            notes=(*_group_notes(figures), *_contradiction_notes(covered)),
        )

    def _obeyed(self, texts: Sequence[str]) -> Estimate:
        """Plant an instruction for up to PLANTED questions; return the share of answers that follow it."""
        spread = np.linspace(0, len(texts) - 1, min(PLANTED, len(texts))).astype(int)
        return estimate([float(obeyed) for obeyed in self.assistant.obeys([texts[n] for n in dict.fromkeys(spread)])])

    def covered(
        self, question: SurfaceQuestion, answer: CitedAnswer, best: Mapping[int, Hit], group: str
    ) -> CoveredQuestion:
        """Judge an answer: what it cites of the publisher, and its status. `best`: the most likely sentence of each
        hit, by rank."""
        own = {hit.rank: hit for hit in answer.hits if _is_own(hit)}
        right = [rank for rank, hit in own.items() if self._answers(question, hit, best.get(rank))]
        cited = [(sentence, rank) for sentence in answer.sentences for rank in sentence.sources if rank in own]
        status = self._status(question, answer, own, [rank for _, rank in cited], best)
        shown = self._shown(answer, status, own, best)
        owner, page = owner_and_page(shown[0].passage.document) if shown else (None, None)
        supported = [is_supported(sentence, own[rank], question.text) for sentence, rank in cited]
        plain, adjusted = shares(answer)
        return CoveredQuestion(
            question=question.text,
            group=group,
            status=status,
            page=page,
            span=shown[1] if shown else None,
            rank=min(right, default=None),
            cited=bool(cited),
            engine=self.assistant.engine.name,
            date=self.date,
            answer=answer.text,
            share=plain,
            adjusted_share=adjusted,
            supported=sum(supported) / len(supported) if supported else None,
            demand=question.demand,
            owner=owner,
            labelled=bool(question.references or question.page),
            contradictions=tuple(dict.fromkeys(self._contradicted(cited, own))),
        )

    @cached_property
    def contradictions(self) -> Contradictions:
        """Find the contradictions between own pages."""
        return Contradictions(self.contents[0].documents if self.contents else ())  # a trial has none

    def _contradicted(
        self, cited: Sequence[tuple[CitedSentence, int]], own: Mapping[int, Hit]
    ) -> Iterator[ContradictingPages]:
        """Yield what contradicts an answer: its sentences where they are word for word, else the cited passages."""
        for sentence, rank in cited:
            passage = own[rank].passage
            text = passage.text if self.assistant.engine.writes else sentence.text
            yield from self.contradictions.of(passage.source, text)

    def _answers(self, question: SurfaceQuestion, hit: Hit, best: Hit | None) -> bool:
        """Return True if a passage answers: by the question's reference or page, else by its most likely sentence."""
        if question.references:
            return any(stands_in(hit.passage.text, reference) for reference in question.references)
        if question.page:
            return holds(replace(hit.passage, document=owner_and_page(hit.passage.document)[1]), question.page)
        return best is not None and best.score >= THRESHOLD

    def _status(
        self,
        question: SurfaceQuestion,
        answer: CitedAnswer,
        own: Mapping[int, Hit],
        cited: Sequence[int],
        best: Mapping[int, Hit],
    ) -> CoverageStatus:
        if not cited:
            if any(sentence.sources for sentence in answer.sentences):
                return "competitor"
            near = any(self.judge.is_about(question.text, hit.passage) for hit in own.values())
            return "retrieved" if near else "absent"
        if question.references:
            text = " ".join(sentence.text for sentence in answer.sentences if set(sentence.sources) & set(cited))
            whole = any(stands_in(text, reference) for reference in question.references)
        else:
            whole = any(rank in best and best[rank].score >= SURE for rank in cited)
        return "answered" if whole else "partly"

    def _shown(
        self, answer: CitedAnswer, status: CoverageStatus, own: Mapping[int, Hit], best: Mapping[int, Hit]
    ) -> tuple[Hit, str] | None:
        """Return passage and words that show the status: what is cited, else the nearest own passage."""
        citable = own if status in ("answered", "partly") else {hit.rank: hit for hit in answer.hits}
        for sentence in answer.sentences:
            for rank in sentence.sources:
                if rank in citable:
                    is_verbatim = rank not in best or sentence.probability is not None
                    words = sentence.text if is_verbatim else best[rank].passage.text
                    return citable[rank], " ".join(words.split())
        if status == "absent":
            return None
        nearest = next(hit for hit in own.values() if self.judge.is_about(answer.question, hit.passage))
        words = best.get(nearest.rank, nearest).passage.text
        return nearest, " ".join(words.split())[:400]

    def _instructions(self) -> tuple[SurfaceFinding, ...]:
        findings = instructions_in(list(self.assistant.index.passages.values()))
        return tuple(replace(finding, page=page_label(finding.page)) for finding in findings)


@contextmanager
def assistant_over(
    contents: Sequence[PublishedContent],
    *,
    engine: str = EXTRACT,
    task: Task | None = None,
    embedding: str = EMBEDDING,
    cache: Path = CACHE,
    k: int = SOURCES,
    progress: Progress | None = None,
    encoder: Encoder | None = None,
) -> Iterator[AssistantSession]:
    """Context manager: a simulated assistant over the contents, ready to be asked; the first is the publisher's own."""
    name, remembered = encoder_of(task, embedding, encoder)
    if progress is not None:
        progress.emit("index")
    with ExitStack() as stack:
        documents = [document for content in contents for document in content.documents]
        index = open_index(cache / "index", remembered, documents)
        judge = SentenceJudge(index.passages, remembered)
        writer = stack.enter_context(engine_named(engine, judge, task))
        reranker = None
        if task is not None and task.base.reranker:
            reranker = Reranker(resolve(task.base.reranker, near=task.folder))
        yield AssistantSession(
            contents=tuple(contents),
            assistant=SimulatedAssistant(index, writer, k=k, reranker=reranker),
            judge=judge,
            encoder=remembered,
            embedding=name,
            date=datetime.now(UTC).date().isoformat(),
        )


def encoder_of(task: Task | None, embedding: str, encoder: Encoder | None = None) -> tuple[str, CachingEncoder]:
    """Open the task's embedding model, else the named one, unless an encoder is given; return name and encoder."""
    name = task.base.embedding if task is not None else embedding
    inner = encoder or Embedder(resolve(name, near=task.folder if task is not None else Path()))
    return name, CachingEncoder(inner)


@contextmanager
def engine_named(name: str, judge: SentenceJudge, task: Task | None = None) -> Iterator[AnswerEngine]:
    """Open the engine of a name: `extract`, `api.NAME` of the task file, or a local model."""
    if name == EXTRACT:
        yield ExtractiveEngine(judge)
    elif name.startswith("api."):
        table = task.api.get(name.removeprefix("api.")) if task is not None else None
        if table is None or not table.writes_text:
            raise InputError(
                f"no [{name}] that answers in text", "name a chat endpoint of the task file", field="--engine"
            )
        yield remote_engine(name.removeprefix("api."), table)
    else:
        with local_engine(name, task.folder if task is not None else Path()) as engine:
            yield engine


def limits(engine: str, embedding: str, date: str) -> tuple[str, ...]:
    """Write what the simulation cannot say, in sentences; they stand above every result."""
    return (
        f"Simulated on {date}: hybrid search with {embedding}, answers by {engine}. No real assistant was asked, "
        "and none is imitated.",
        "A real assistant rewrites questions, searches the whole web, weighs links, age and its own memory, and "
        "answers differently from day to day. None of that is simulated, so no share here is a share of real answers.",
        "Only the given pages take part. A page that is not among them can be cited in place of yours.",
        "Use it to compare your own pages, questions and edits with each other, and hold its order against real "
        "answers with --observed.",
    )


def _is_own(hit: Hit) -> bool:
    return owner_and_page(hit.passage.document)[0] == OWN


def shares(answer: CitedAnswer, is_ours: Callable[[Hit], bool] = _is_own) -> tuple[float, float]:
    """Compute the share of an answer's cited words that rest on our pages, plain and with early sentences weighing
    more; 0 without a citation.

    Position-adjusted word count (Aggarwal et al. 2024, GEO, section 3.3): a sentence counts its words times
    exp(-place / sentences), divided evenly among its sources; here as a share of the sum over all sources.
    """
    ours = {hit.rank for hit in answer.hits if is_ours(hit)}
    sums = np.zeros((2, 2))  # plain and adjusted, ours and all
    for number, sentence in enumerate(answer.sentences):
        if not sentence.sources:
            continue
        words = len(sentence.text.split())
        part = sum(rank in ours for rank in sentence.sources) / len(sentence.sources)
        for row, weight in enumerate((1.0, float(np.exp(-number / len(answer.sentences))))):
            sums[row] += (words * weight * part, words * weight)
    plain, adjusted = (float(mine / whole) if whole else 0.0 for mine, whole in sums)
    return plain, adjusted


def figures_of(name: str, covered: Sequence[CoveredQuestion], stability: float | None) -> GroupCoverage:
    """Compute the figures of questions: those of one group count as independent, over several the group is the unit."""
    names = [question.group for question in covered]
    clusters = names if len(set(names)) > 1 else None

    def share(value: Callable[[CoveredQuestion], float]) -> Estimate:
        return estimate([float(value(question)) for question in covered], clusters)

    demands = [question.demand for question in covered if question.demand is not None]
    statuses = Counter(question.status for question in covered)
    return GroupCoverage(
        group=name,
        questions=len(covered),
        demand=sum(demands) if demands else None,
        stability=stability,
        found=share(lambda question: question.rank is not None),
        top=share(lambda question: question.rank == 1),
        cited=share(lambda question: question.cited),
        answered=share(lambda question: question.status == "answered"),
        share=share(lambda question: question.adjusted_share),
        statuses={status: statuses[status] for status in COVERAGE_STATUSES},
    )


def _group_notes(figures: Sequence[GroupCoverage]) -> Iterator[str]:
    stabilities = [group.stability for group in figures if group.stability is not None]
    loose = sum(stability < UNSTABLE for stability in stabilities)
    if stabilities:
        groups = f"{len(figures):,} groups by meaning, {len(stabilities):,} of several questions"
        rough = (
            f"{loose:,} {'is' if loose == 1 else 'are'} not stable (below {UNSTABLE:g} when a fifth of the "
            "questions is left out): take their figures as rough"
        )
        yield f"{groups}; of these {rough}" if loose else groups
    if all(group.demand is None for group in figures):
        yield NO_DEMAND


def _contradiction_notes(covered: Sequence[CoveredQuestion]) -> Iterator[str]:
    told = list(dict.fromkeys(pages for question in covered for pages in question.contradictions))
    if told:
        count = sum(bool(question.contradictions) for question in covered)
        questions = f"{count:,} {'question is' if count == 1 else 'questions are'}"
        yield f"{questions} answered by a page that another contradicts: {told[0]}"


# ---- beside other results


def agreement(result: SurfaceCoverage, file: Path) -> ObservedAgreement:
    """Compute Spearman's rank correlation of the simulated share with what real answers did, over the questions of
    both; 95% BCa by group.

    The file: a table with a column of questions and one of figures (a share, a rank from 1 with the header `rank`)
    or yes and no. Raises InputError where fewer than five questions are in both, or nothing varies.
    """
    values = _observed(file)
    pairs = [
        (question, values[key]) for question in result.questions if (key := question_key(question.question)) in values
    ]
    if len(pairs) < LEAST_OBSERVED:
        raise InputError(
            f"{len(pairs)} of its questions were asked here, and {LEAST_OBSERVED} are needed",
            "collect answers to the same questions, word for word",
            file=file,
        )
    ours = np.array([question.adjusted_share for question, _ in pairs])
    theirs = np.array([value for _, value in pairs])
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        raise InputError("all questions are alike on one side, so that they have no order", "collect more", file=file)

    def correlation(places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
        x, y = ours[places], theirs[places]
        return float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0

    units = sampling_units(len(pairs), group_codes([question.group for question, _ in pairs]))
    value = correlation(np.arange(len(pairs)))
    low, high = -1.0, 1.0
    if len(units) > 1:
        low, high = bca(value, statistic_draws(correlation, units, 0), jackknife(correlation, units))
    return ObservedAgreement(source=file.name, questions=len(pairs), correlation=value, low=low, high=high)


def _observed(file: Path) -> dict[str, float]:
    """Read what real answers did from a table, by question; the mean where a question has several rows."""
    rows = read_table(file)
    names = dict.fromkeys(name for _, row in rows for name in row)
    question, outcome = column_named(names, _QUESTION_COLUMNS), column_named(names, _OUTCOME_COLUMNS)
    if question is None or outcome is None:
        raise InputError("has no columns `question` and `cited` (or `share`, `rank`)", "name them so", file=file)
    is_rank = outcome.strip().casefold() == "rank"
    values_of: dict[str, list[float]] = {}
    for line, row in rows:
        word = str(row.get(outcome, "")).strip().casefold()
        value = 1.0 if word in _YES and not is_rank else 0.0 if word in _NO else decimal(word.rstrip("% "))
        if value is None:
            raise InputError(
                f"{word[:40]!r} is neither yes, no nor a number", "correct it", file=file, line=line, field=outcome
            )
        values_of.setdefault(question_key(str(row.get(question, ""))), []).append(-value if is_rank else value)
    return {key: sum(values) / len(values) for key, values in values_of.items()}


def _since(result: SurfaceCoverage, file: Path) -> SurfaceCoverage:
    """Add to a result the questions whose status has changed since an earlier one."""
    earlier = read_result(SurfaceCoverage, file)
    before = {question_key(question.question): question for question in earlier.questions}
    now = {question_key(question.question): question for question in result.questions}
    changes = [
        CoverageChange(
            question=(now.get(key) or before[key]).question,
            before=before[key].status if key in before else None,
            after=now[key].status if key in now else None,
        )
        for key in dict.fromkeys((*now, *before))
        if key not in before or key not in now or before[key].status != now[key].status
    ]
    notes = result.notes
    if (earlier.engine, earlier.embedding, earlier.k) != (result.engine, result.embedding, result.k):
        other = f"({earlier.engine}, {earlier.embedding})"
        notes = (*notes, f"compared with a result of another engine or embedding {other}")
    return replace(result, since=earlier.date, changes=tuple(changes), notes=notes)
