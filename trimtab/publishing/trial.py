"""`surface try`: an edited page against the present one, paired by question, with a placebo and adopting rivals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.files import write_atomic
from trimtab.base.progress import Progress
from trimtab.base.records import Document, Section
from trimtab.base.task import Task
from trimtab.measurement.contains import sentences
from trimtab.measurement.power import observed_variation, smallest_difference
from trimtab.measurement.statistics import LEVEL, compare_paired, holm, p_noninferior
from trimtab.publishing import CACHE
from trimtab.publishing.assistant import SOURCES, CachingEncoder, SentenceJudge, SimulatedAssistant, open_index
from trimtab.publishing.content import OWN, content_of, owner_and_page, with_owner
from trimtab.publishing.coverage import (
    EMBEDDING,
    EXTRACT,
    AssistantSession,
    CoverageQuestions,
    encoder_of,
    engine_named,
    limits,
    read_input,
)
from trimtab.publishing.coverage_page import render_trial, trial_markdown
from trimtab.publishing.questions import group_questions
from trimtab.publishing.records import SurfaceQuestion, SurfaceTrial, TrialOutcome, TrialVerdict
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.search import EQUAL_WEIGHT

SEEDS = 3
MARGIN = 0.02
ADOPTIONS = (0.0, 0.5, 1.0)
OUTCOMES = ("share of the answer", "cited", "right passage found", "reciprocal rank")
CHUNKS, WEIGHTS = (80, 100, 120, 140, 160), (0.3, 0.4, 0.5, 0.6, 0.7)  # that seeds draw from
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantSettings:
    """The settings of one simulated assistant.

    `words`: of a passage. `vector_weight`: of the two searches. `shuffle`: the seed of the order in which passages
    are read, None as ranked.
    """

    words: int
    vector_weight: float
    shuffle: int | None


def settings_of(seed: int) -> AssistantSettings:
    """Draw the settings of a seed; seed 0 has the usual ones."""
    if seed == 0:
        return AssistantSettings(words=WORDS, vector_weight=EQUAL_WEIGHT, shuffle=None)
    random = np.random.default_rng(seed)
    return AssistantSettings(
        words=int(random.choice(CHUNKS)), vector_weight=float(random.choice(WEIGHTS)), shuffle=seed
    )


def surface_try(
    edit: str | Path,
    source: str | Path,
    questions: CoverageQuestions,
    *,
    competitors: Sequence[str | Path] = (),
    engine: str = EXTRACT,
    task: Task | None = None,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    most: int = 300,
    markdown: Path | None = None,
    page: Path | None = None,
    cache: Path = CACHE,
    embedding: str = EMBEDDING,
    progress: Progress | None = None,
) -> SurfaceTrial:
    """Ask the same questions with the present pages and with edited ones (a file or a folder) in their place.

    An edited file takes the place of the page with its path or name; without one it is a new page. `seeds`:
    simulated assistants, which differ in how they cut pages, weigh their two searches and order passages; each
    question's figures are means over them. The placebo is the present page under these seeds against other ones.
    With competitors the trial is repeated while half and all of the competing pages say what the edit adds.
    `margin`: how much worse still counts as not worse. Raises as `surface_coverage`.
    """
    if seeds < 1:
        raise InputError(f"{seeds} seeds", "give one or more", field="--seeds")
    given = read_input(source, questions, competitors, most=most, cache=cache, progress=progress)
    own, *others = given.contents
    edited, edits = with_edits(own.documents, content_of(edit).documents)
    theirs = [document for other in others for document in other.documents]
    embedding, encoder = encoder_of(task, embedding)
    texts = [question.text for question in given.questions]
    group_of = {
        member: group.name for group in group_questions(texts, encoder.encode(texts)) for member in group.members
    }
    groups = [group_of[number] for number in range(len(texts))]
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(
            questions=given.questions, encoder=encoder, engine=engine, task=task, folder=Path(folder), progress=progress
        )
        result = run_trial(bench.ask, own.documents, edited, theirs, groups, edits=edits, seeds=seeds, margin=margin)
    date = datetime.now(UTC).date().isoformat()
    result = replace(
        result,
        source=own.source,
        engine=bench.engine_name,
        date=date,
        limits=limits(bench.engine_name, embedding, date),
        notes=(*result.notes, *given.notes),
    )
    if markdown is not None:
        write_atomic(markdown, trial_markdown(result))
    if page is not None:
        result = replace(result, page=str(page))
        write_atomic(page, render_trial(result))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFigures:
    """One state of the pages under one seed: OUTCOMES by question [O, Q], and the documents retrieved for each."""

    figures_OQ: Array
    documents: tuple[frozenset[str], ...]


Ask = Callable[[Sequence[Document], int], StateFigures]


def run_trial(
    ask: Ask,
    present: Sequence[Document],
    edited: Sequence[Document],
    theirs: Sequence[Document],
    groups: Sequence[str],
    *,
    edits: Sequence[str],
    seeds: int,
    margin: float,
) -> SurfaceTrial:
    """Run the trial. `ask` asks the questions of a state of all pages under a seed; `groups`: that of each question."""
    before = [ask([*present, *theirs], seed) for seed in range(seeds)]
    after = [ask([*edited, *theirs], seed) for seed in range(seeds)]
    placebo_figures = [ask([*present, *theirs], seed) for seed in range(seeds, 2 * seeds)]
    pages = {f"{OWN}/{name}" for name in edits}
    touched_Q = np.zeros(len(groups), dtype=bool)
    for state in (*before, *after):
        touched_Q |= np.array([not pages.isdisjoint(documents) for documents in state.documents])
    pairs: list[tuple[float, Array, Array]] = [(0.0, _mean(before), _mean(after))]
    added = added_text(present, edited)
    near = {
        name
        for state in before
        for documents, is_touched in zip(state.documents, touched_Q, strict=True)
        if is_touched
        for name in documents
    }
    rivals = sorted(near & {document.id for document in theirs})
    notes = []
    if not theirs:
        notes.append("no competitors are given, so that nobody else could adopt the edit")
    elif not (added and rivals):
        notes.append(
            "the edit adds no sentence, or no competing page is retrieved beside it: there is nothing to adopt"
        )
    else:
        for share in ADOPTIONS[1:]:
            adopted = [with_adopters(theirs, rivals, added, share, seed) for seed in range(seeds)]
            before_adopted = [ask([*present, *documents], seed) for seed, documents in enumerate(adopted)]
            after_adopted = [ask([*edited, *documents], seed) for seed, documents in enumerate(adopted)]
            pairs.append((share, _mean(before_adopted), _mean(after_adopted)))
    outcomes = outcomes_of(pairs, groups, margin)
    placebo = outcomes_of([(0.0, _mean(placebo_figures), _mean(before))], groups, margin)
    verdict: TrialVerdict = outcomes[0].verdict
    if placebo[0].p < LEVEL:
        verdict = "not shown"
        notes.append("the placebo differs: settings of the assistant move these questions as much as an edit does")
    if not touched_Q.any():
        notes.append("no passage of an edited page is retrieved for any question: these questions cannot tell")
        verdict = "not shown"
    return SurfaceTrial(
        source="",
        edits=tuple(edits),
        engine="",
        date="",
        questions=len(groups),
        touched=int(touched_Q.sum()),
        seeds=seeds,
        margin=margin,
        outcomes=outcomes,
        placebo=placebo,
        verdict=verdict,
        limits=(),
        notes=tuple(notes),
    )


def outcomes_of(
    pairs: Sequence[tuple[float, Array, Array]], groups: Sequence[str], margin: float
) -> tuple[TrialOutcome, ...]:
    """Test each outcome at each adoption: differences clustered by group, Holm over all of them.

    `pairs`: adoption, present and edited [O, Q].
    """
    tested = [
        (adoption, name, present_Q, edited_Q)
        for adoption, present_OQ, edited_OQ in pairs
        for name, present_Q, edited_Q in zip(OUTCOMES, present_OQ, edited_OQ, strict=True)
    ]
    gaps = [compare_paired(edited, present, groups) for _, _, present, edited in tested]
    outcomes = []
    for (adoption, name, present, edited), gap, p in zip(tested, gaps, holm([gap.p for gap in gaps]), strict=True):
        p_not_worse = p_noninferior(edited, present, margin, groups)
        verdict: TrialVerdict = "not worse" if p_not_worse < LEVEL else "not shown"
        if p < LEVEL:
            verdict = "better" if gap.difference > 0 else "worse"
        power = observed_variation([edited, present], groups, "test answers")
        outcomes.append(
            TrialOutcome(
                outcome=name,
                adoption=adoption,
                present=float(present.mean()),
                edited=float(edited.mean()),
                difference=gap.difference,
                low=gap.low,
                high=gap.high,
                p=p,
                p_not_worse=p_not_worse,
                smallest=smallest_difference(len(groups), power, len(tested), groups),
                verdict=verdict,
            )
        )
    return tuple(outcomes)


def with_edits(present: Sequence[Document], edits: Sequence[Document]) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """Put each edited page in the place of the page with its path, else its name; return all, and the edited names.

    Raises InputError where several pages have the name, or nothing differs.
    """
    pages = {owner_and_page(document.id)[1]: document for document in present}
    names: list[str] = []
    state = dict(pages)
    for document in edits:
        name = owner_and_page(document.id)[1]
        if name not in pages:
            tails = [page for page in pages if page.rstrip("/").endswith("/" + name)]
            if len(tails) > 1:
                raise InputError(
                    f"{', '.join(sorted(tails)[:4])} have this name", "give a folder with the page's path", file=name
                )
            name = tails[0] if tails else name
        new = with_owner(replace(document, id=name), OWN)
        if name not in pages or new.sections != pages[name].sections or new.title != pages[name].title:
            names.append(name)
        state[name] = new
    if not names:
        raise InputError("says what the present pages say", "change something, or name the right folder", file="EDIT")
    return tuple(state.values()), tuple(names)


def added_text(present: Sequence[Document], edited: Sequence[Document]) -> str:
    """Return the sentences that the edited pages have and none of the present ones has."""
    before = set(_sentences(present))
    return "\n".join(dict.fromkeys(sentence for sentence in _sentences(edited) if sentence not in before))


def _sentences(documents: Sequence[Document]) -> Iterator[str]:
    for document in documents:
        for section in document.sections:
            yield from (" ".join(sentence.split()) for sentence in sentences(section.text))


def with_adopters(
    theirs: Sequence[Document], rivals: Sequence[str], added: str, share: float, seed: int
) -> tuple[Document, ...]:
    """Return the competitors' pages; a seeded share of `rivals` has the added text in a section at the end."""
    order = np.random.default_rng(seed).permutation(len(rivals))
    adopters = {rivals[number] for number in order[: round(share * len(rivals))]}
    section = Section(path=(), text=added)
    return tuple(
        replace(document, sections=(*document.sections, section), digest=f"{document.digest}+")
        if document.id in adopters
        else document
        for document in theirs
    )


def _mean(states: Sequence[StateFigures]) -> Array:
    return np.asarray(np.mean([state.figures_OQ for state in states], axis=0), dtype=np.float64)


@dataclass(kw_only=True)
class _Bench:
    """Asks the questions of a state of all pages, in an index of its own; vectors are kept over all states."""

    questions: Sequence[SurfaceQuestion]
    encoder: CachingEncoder
    engine: str
    task: Task | None
    folder: Path
    progress: Progress | None
    states: int = 0
    engine_name: str = ""

    def ask(self, documents: Sequence[Document], seed: int) -> StateFigures:
        """Ask all questions under the settings of a seed."""
        settings = settings_of(seed)
        self.states += 1
        if self.progress is not None:
            self.progress.emit("answer", step=self.states)
        index = open_index(self.folder / str(self.states), self.encoder, documents, words=settings.words)
        judge = SentenceJudge(index.passages, self.encoder)
        with engine_named(self.engine, judge, self.task) as engine:
            self.engine_name = engine.name
            assistant = SimulatedAssistant(index, engine, k=SOURCES, vector_weight=settings.vector_weight)
            session = AssistantSession(
                contents=(), assistant=assistant, judge=judge, encoder=self.encoder, embedding="", date=""
            )
            texts = [question.text for question in self.questions]
            answers = assistant.ask(texts, shuffle=settings.shuffle if engine.reads_in_order else None)
        covered = [
            session.covered(question, answer, judge.each(question.text, answer.hits), "")
            for question, answer in zip(self.questions, answers, strict=True)
        ]
        rows = [
            (
                question.adjusted_share,
                question.cited,
                question.rank is not None,
                1 / question.rank if question.rank else 0.0,
            )
            for question in covered
        ]
        documents_of = tuple(frozenset(hit.passage.document for hit in answer.hits) for answer in answers)
        return StateFigures(figures_OQ=np.array(rows, dtype=np.float64).T, documents=documents_of)
