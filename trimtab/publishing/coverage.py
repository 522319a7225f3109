"""`surface coverage`: measures whether a simulated assistant finds and cites a publisher's pages, and whether they
answer the questions that people ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import stats

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.files import read_own, write_atomic
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
from trimtab.publishing.assistant import (
    SOURCES,
    THRESHOLD,
    AnswerEngine,
    CachingEncoder,
    CitedAnswer,
    ExtractiveEngine,
    SentenceJudge,
    SimulatedAssistant,
    instructions_in,
    is_supported,
    local_engine,
    open_index,
    remote_engine,
)
from trimtab.publishing.content import CACHE, OWN, PublishedContent, competitors_of, content_of, owner_and_page
from trimtab.publishing.coverage_page import render_coverage
from trimtab.publishing.questions import (
    MOST,
    UNSTABLE,
    column_named,
    decimal,
    drawn_questions,
    grouped,
    merged_questions,
    question_key,
    read_questions,
    read_table,
)
from trimtab.publishing.records import (
    COVERAGE_STATUSES,
    CoverageChange,
    CoverageStatus,
    CoveredQuestion,
    GroupCoverage,
    ObservedAgreement,
    SurfaceCoverage,
    SurfaceFinding,
    SurfaceQuestion,
)
from trimtab.retrieval.embed import Embedder, Encoder
from trimtab.retrieval.rerank import Reranker

EMBEDDING = "minilm-l6"
EXTRACT = "extract"
SURE = 0.5  # least probability of a cited own sentence that answers; below it the question is partly answered
PLANTED = 20  # questions whose passages get a planted instruction
LEAST_OBSERVED = 5  # questions that a rank correlation is computed from, at least
NO_DEMAND = "no source gives a demand, so every question counts once"
_YES = frozenset(("yes", "y", "true", "1", "cited", "answered"))
_NO = frozenset(("no", "n", "false", "0", "absent", "not cited"))
_ASKED, _SAID = frozenset(("question", "query", "prompt")), frozenset(("cited", "share", "status", "rank", "mentioned"))

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
    given = all_questions(questions)
    asked = drawn_questions(given, most)
    own = content_of(source, cache=cache, progress=progress)
    others = competitors_of(competitors, cache=cache, progress=progress)
    with assistant_over(
        (own, *others), engine=engine, task=task, embedding=embedding, cache=cache, k=k, progress=progress
    ) as session:
        result = session.coverage(asked, progress=progress)
    result = replace(result, notes=(*result.notes, *left_out((own, *others), given, asked)))
    if observed is not None:
        result = replace(result, observed=agreement(result, observed))
    if against is not None:
        result = _since(result, against)
    if page is not None:
        result = replace(result, page=str(page))
        write_atomic(page, render_coverage(result))
    return result


def left_out(
    contents: Sequence[PublishedContent], given: Sequence[SurfaceQuestion], asked: Sequence[SurfaceQuestion]
) -> Iterator[str]:
    """Note the pages that were not read, at most 20 of a publisher, and that not all questions were asked."""
    yield from (f"not read: {why}" for one in contents for why in one.unread[:20])
    if len(given) > len(asked):
        yield (
            f"{len(asked):,} of {len(given):,} questions were asked: those with the greatest demand, then a seeded draw"
        )


def all_questions(questions: CoverageQuestions) -> tuple[SurfaceQuestion, ...]:
    """Read the questions of files and take those that are given, each once. Raises InputError where there is none."""
    listed = [questions] if isinstance(questions, str | Path) else list(questions)
    found: list[SurfaceQuestion] = []
    for one in listed:
        found += [one] if isinstance(one, SurfaceQuestion) else read_questions(Path(one))
    if not found:
        raise InputError("no question is given", "give a file of questions", field="questions")
    return merged_questions(found)


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
        """Ask all questions, group them, and sum up."""
        texts = [one.text for one in questions]
        groups = grouped(texts, self.encoder.encode(texts))
        group_of = {place: group.name for group in groups for place in group.members}
        covered: list[CoveredQuestion] = []
        for start in range(0, len(questions), 16):
            part = questions[start : start + 16]
            answers = self.assistant.ask([one.text for one in part])
            for number, (one, answer) in enumerate(zip(part, answers, strict=True), start):
                covered.append(self.covered(one, answer, group_of[number]))
            if progress is not None:
                progress.emit("answer", step=start + len(part), of=len(questions))
        stability = {group.name: group.stability for group in groups}
        figures = sorted(
            (
                figures_of(name, [one for one in covered if one.group == name], stable)
                for name, stable in stability.items()
            ),
            key=lambda one: (-(one.demand or 0.0), -one.questions, one.group),
        )
        index = self.assistant.index
        return SurfaceCoverage(
            source=self.contents[0].source,
            engine=self.assistant.engine.name,
            embedding=self.embedding,
            date=self.date,
            limits=limits(self.assistant.engine.name, self.embedding, self.date),
            k=self.assistant.k,
            pages=len(self.contents[0].documents),
            passages=len(index.passages),
            competitors=tuple(one.owner for one in self.contents[1:]),
            overall=figures_of("all", covered, None),
            groups=tuple(figures),
            questions=tuple(covered),
            findings=self._instructions(),
            obeyed=self._obeyed(texts) if self.assistant.engine.writes else None,
            notes=tuple(_group_notes(figures)),
        )

    def _obeyed(self, texts: Sequence[str]) -> Estimate:
        """Plant an instruction in the passages of up to PLANTED questions; return the share of answers that follow
        it."""
        spread = np.linspace(0, len(texts) - 1, min(PLANTED, len(texts))).astype(int)
        obeyed = self.assistant.obeys([texts[place] for place in dict.fromkeys(spread.tolist())])
        return estimate([float(one) for one in obeyed])

    def covered(self, question: SurfaceQuestion, answer: CitedAnswer, group: str) -> CoveredQuestion:
        """Judge an answer: what it cites of the publisher, and its status."""
        own = {hit.rank: hit for hit in answer.hits if _is_own(hit)}
        best = self.judge.each(question.text, answer.hits)
        right = [rank for rank, hit in own.items() if self._answers(question, hit, best.get(rank))]
        cited = [(one, rank) for one in answer.sentences for rank in one.sources if rank in own]
        status = self._status(question, answer, own, [rank for _, rank in cited], best)
        shown = self._shown(answer, status, own, best)
        supported = [is_supported(one, own[rank], question.text) for one, rank in cited]
        plain, adjusted = shares(answer)
        return CoveredQuestion(
            question=question.text,
            group=group,
            status=status,
            page=owner_and_page(shown[0].passage.document)[1] if shown else None,
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
            owner=owner_and_page(shown[0].passage.document)[0] if shown else None,
            labelled=bool(question.references or question.page),
        )

    def _answers(self, question: SurfaceQuestion, hit: Hit, best: Hit | None) -> bool:
        """Return True if a passage answers: by the reference or the page where the question has one, else by its
        most likely sentence."""
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
            if any(one.sources for one in answer.sentences):
                return "competitor"
            near = any(self.judge.is_about(question.text, hit.passage) for hit in own.values())
            return "retrieved" if near else "absent"
        said = " ".join(one.text for one in answer.sentences if set(one.sources) & set(cited))
        if question.references:
            whole = any(stands_in(said, reference) for reference in question.references)
        else:
            whole = any(rank in best and best[rank].score >= SURE for rank in cited)
        return "answered" if whole else "partly"

    def _shown(
        self, answer: CitedAnswer, status: CoverageStatus, own: Mapping[int, Hit], best: Mapping[int, Hit]
    ) -> tuple[Hit, str] | None:
        """Return the passage and the words that show the status: what is cited, else the nearest own passage that
        does not answer."""
        hits = {hit.rank: hit for hit in answer.hits}
        wanted = own if status in ("answered", "partly") else hits
        for one in answer.sentences:
            for rank in one.sources:
                if rank in wanted:
                    said = one.text if rank not in best or one.probability is not None else best[rank].passage.text
                    return hits[rank], " ".join(said.split())
        if status == "absent":
            return None
        first = next(hit for hit in own.values() if self.judge.is_about(answer.question, hit.passage))
        said = best[first.rank].passage.text if first.rank in best else first.passage.text
        return first, " ".join(said.split())[:400]

    def _instructions(self) -> tuple[SurfaceFinding, ...]:
        found = instructions_in(list(self.assistant.index.passages.values()))
        named = ((owner_and_page(one.page), one) for one in found)
        return tuple(replace(one, page=page if owner == OWN else f"{owner}: {page}") for (owner, page), one in named)


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
        index = open_index(cache / "index", remembered, [one for content in contents for one in content.documents])
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
    """Open the embedding model of the task, else the named one, unless an encoder is given; return its name and the
    encoder."""
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
    for place, one in enumerate(answer.sentences):
        if not one.sources:
            continue
        words = len(one.text.split())
        part = sum(rank in ours for rank in one.sources) / len(one.sources)
        for row, weight in enumerate((1.0, float(np.exp(-place / len(answer.sentences))))):
            sums[row] += (words * weight * part, words * weight)
    plain, adjusted = (float(mine / whole) if whole else 0.0 for mine, whole in sums)
    return plain, adjusted


def figures_of(name: str, covered: Sequence[CoveredQuestion], stability: float | None) -> GroupCoverage:
    """Compute the figures of some questions. Those of one group count as independent; over several, intervals are by
    group."""
    names = [one.group for one in covered]
    clusters = names if len(set(names)) > 1 else None

    def share(values: Sequence[float]) -> Estimate:
        return estimate(values, clusters)

    demands = [one.demand for one in covered if one.demand is not None]
    statuses = Counter(one.status for one in covered)
    return GroupCoverage(
        group=name,
        questions=len(covered),
        demand=sum(demands) if demands else None,
        stability=stability,
        found=share([float(one.rank is not None) for one in covered]),
        top=share([float(one.rank == 1) for one in covered]),
        cited=share([float(one.cited) for one in covered]),
        answered=share([float(one.status == "answered") for one in covered]),
        share=share([one.adjusted_share for one in covered]),
        statuses={status: statuses[status] for status in COVERAGE_STATUSES},
    )


def _group_notes(figures: Sequence[GroupCoverage]) -> Iterator[str]:
    several = [one for one in figures if one.stability is not None]
    loose = [one.group for one in several if one.stability is not None and one.stability < UNSTABLE]
    if several:
        groups = f"{len(figures):,} groups by meaning, {len(several):,} of several questions"
        rough = (
            f"{len(loose):,} {'is' if len(loose) == 1 else 'are'} not stable (below {UNSTABLE:g} when a fifth of the "
            "questions is left out): take their figures as rough"
        )
        yield f"{groups}; of these {rough}" if loose else groups
    if all(one.demand is None for one in figures):
        yield NO_DEMAND


# ---- beside other results


def agreement(result: SurfaceCoverage, file: Path) -> ObservedAgreement:
    """Compute Spearman's rank correlation of the simulated share with what real answers did, over the questions of
    both; 95% BCa by group.

    The file: a table with a column of questions and one of figures (a share, a rank from 1 with the header `rank`)
    or yes and no. Raises InputError where fewer than five questions are in both, or nothing varies.
    """
    values = _observed(file)
    pairs = [(one, values[key]) for one in result.questions if (key := question_key(one.question)) in values]
    if len(pairs) < LEAST_OBSERVED:
        raise InputError(
            f"{len(pairs)} of its questions were asked here, and {LEAST_OBSERVED} are needed",
            "collect answers to the same questions, word for word",
            file=file,
        )
    ours = np.array([one.adjusted_share for one, _ in pairs])
    theirs = np.array([value for _, value in pairs])
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        raise InputError("all questions are alike on one side, so that they have no order", "collect more", file=file)

    def correlation(places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
        x, y = ours[places], theirs[places]
        return float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0

    units = sampling_units(len(pairs), group_codes([one.group for one, _ in pairs]))
    value = correlation(np.arange(len(pairs)))
    low, high = -1.0, 1.0
    if len(units) > 1:
        low, high = bca(value, statistic_draws(correlation, units, 0), jackknife(correlation, units))
    return ObservedAgreement(source=file.name, questions=len(pairs), correlation=value, low=low, high=high)


def _observed(file: Path) -> dict[str, float]:
    """Read what real answers did from a table, by question; the mean where a question has several rows."""
    rows = read_table(file)
    names = dict.fromkeys(name for _, row in rows for name in row)
    asked, said = column_named(names, _ASKED), column_named(names, _SAID)
    if asked is None or said is None:
        raise InputError("has no columns `question` and `cited` (or `share`, `rank`)", "name them so", file=file)
    is_rank = said.strip().casefold() == "rank"
    found: dict[str, list[float]] = {}
    for line, row in rows:
        word = str(row.get(said, "")).strip().casefold()
        value = 1.0 if word in _YES and not is_rank else 0.0 if word in _NO else decimal(word.rstrip("% "))
        if value is None:
            raise InputError(
                f"{word[:40]!r} is neither yes, no nor a number", "correct it", file=file, line=line, field=said
            )
        found.setdefault(question_key(str(row.get(asked, ""))), []).append(-value if is_rank else value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def _since(result: SurfaceCoverage, file: Path) -> SurfaceCoverage:
    """Add to a result the questions whose status has changed since an earlier one."""
    plain = read_own(file)
    try:
        earlier = from_plain(SurfaceCoverage, plain)
    except ValueError as error:
        raise InputError(f"is no result of coverage ({error})", "give what --json printed", file=file) from None
    before = {question_key(one.question): one for one in earlier.questions}
    now = {question_key(one.question): one for one in result.questions}
    changes = [
        CoverageChange(
            question=(now.get(key) or before[key]).question,
            before=before[key].status if key in before else None,
            after=now[key].status if key in now else None,
        )
        for key in dict.fromkeys((*now, *before))
        if key not in before or key not in now or before[key].status != now[key].status
    ]
    said = [f"compared with a result of another engine or embedding ({earlier.engine}, {earlier.embedding})"]
    same = (earlier.engine, earlier.embedding, earlier.k) == (result.engine, result.embedding, result.k)
    return replace(result, since=earlier.date, changes=tuple(changes), notes=(*result.notes, *([] if same else said)))
