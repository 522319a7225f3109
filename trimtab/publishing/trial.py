"""`surface try`: an edited page against the present one, paired by question, with a placebo and competitors who
follow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
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
from trimtab.measurement.power import observed, smallest_difference
from trimtab.measurement.statistics import LEVEL, compare_paired, holm, p_noninferior
from trimtab.publishing.assistant import SOURCES, CachingEncoder, SentenceJudge, SimulatedAssistant, open_index
from trimtab.publishing.content import CACHE, OWN, competitors_of, content_of, owned, owner_and_page
from trimtab.publishing.coverage import (
    EMBEDDING,
    EXTRACT,
    AssistantSession,
    CoverageQuestions,
    all_questions,
    encoder_of,
    engine_named,
    left_out,
    limits,
)
from trimtab.publishing.coverage_page import render_trial, trial_markdown
from trimtab.publishing.questions import drawn_questions, grouped
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
    """Put an edited page (a file, or a folder of them) in the place of the present one, and ask the same questions
    of both states.

    An edited file takes the place of the page with its path or name; without one it is a new page. `seeds`:
    simulated assistants, which differ in how they cut pages, weigh their two searches and order passages; each
    question's figures are means over them. The placebo is the present page under these seeds against other ones.
    With competitors the trial is repeated while half and all of the competing pages say what the edit adds.
    `margin`: how much worse still counts as not worse. Raises as `surface_coverage`.
    """
    if seeds < 1:
        raise InputError(f"{seeds} seeds", "give one or more", field="--seeds")
    given = all_questions(questions)
    asked = drawn_questions(given, most)
    own = content_of(source, cache=cache, progress=progress)
    others = competitors_of(competitors, cache=cache, progress=progress)
    edited, names = with_edits(own.documents, content_of(edit).documents)
    theirs = [one for other in others for one in other.documents]
    name, remembered = encoder_of(task, embedding)
    groups = grouped([one.text for one in asked], remembered.encode([one.text for one in asked]))
    group_of = {place: group.name for group in groups for place in group.members}
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(asked, remembered, engine, task, name, Path(folder), progress)
        result = run_trial(
            bench.ask,
            own.documents,
            edited,
            theirs,
            [group_of[place] for place in range(len(asked))],
            edits=names,
            seeds=seeds,
            margin=margin,
        )
        date = datetime.now(UTC).date().isoformat()
        result = replace(
            result,
            source=own.source,
            engine=bench.engine_name,
            date=date,
            limits=limits(bench.engine_name, name, date),
            notes=(*result.notes, *left_out((own, *others), given, asked)),
        )
    if markdown is not None:
        write_atomic(markdown, trial_markdown(result))
    if page is not None:
        result = replace(result, page=str(page))
        write_atomic(page, render_trial(result))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFigures:
    """The figures of one state of the pages under one seed: OUTCOMES by question [O, Q], and the documents retrieved
    for each question."""

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
    """Run the trial. `ask` asks the questions of a state of all pages under a seed; `groups` has the group of each
    question."""
    drawn_seeds, others = range(seeds), range(seeds, 2 * seeds)
    first = [ask([*present, *theirs], seed) for seed in drawn_seeds]
    second = [ask([*edited, *theirs], seed) for seed in drawn_seeds]
    again = [ask([*present, *theirs], seed) for seed in others]
    pages = {f"{OWN}/{name}" for name in edits}
    touched_Q = np.zeros(len(groups), dtype=bool)
    for one in (*first, *second):
        touched_Q |= np.array([bool(found & pages) for found in one.documents])
    pairs: list[tuple[float, Array, Array]] = [(0.0, _mean(first), _mean(second))]
    added = added_text(present, edited)
    rivals = sorted(
        {name for one in first for found, near in zip(one.documents, touched_Q, strict=True) if near for name in found}
        & {one.id for one in theirs}
    )
    notes = []
    if not theirs:
        notes.append("no competitors are given, so that nobody else could adopt the edit")
    elif not (added and rivals):
        notes.append(
            "the edit adds no sentence, or no competing page is retrieved beside it: there is nothing to adopt"
        )
    else:
        for share in ADOPTIONS[1:]:
            states = [adopting(theirs, rivals, added, share, seed) for seed in drawn_seeds]
            there = [ask([*present, *state], seed) for seed, state in zip(drawn_seeds, states, strict=True)]
            here = [ask([*edited, *state], seed) for seed, state in zip(drawn_seeds, states, strict=True)]
            pairs.append((share, _mean(there), _mean(here)))
    outcomes = outcomes_of(pairs, groups, margin)
    placebo = outcomes_of([(0.0, _mean(again), _mean(first))], groups, margin)
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
    """Test each outcome at each adoption: differences clustered by group, Holm over all of them. Pairs: adoption,
    present and edited [O, Q]."""
    tested = [
        (adoption, place, present_OQ[place], edited_OQ[place])
        for adoption, present_OQ, edited_OQ in pairs
        for place in range(len(OUTCOMES))
    ]
    gaps = [compare_paired(edited, present, groups) for _, _, present, edited in tested]
    found = []
    for (adoption, place, present, edited), gap, p in zip(tested, gaps, holm([gap.p for gap in gaps]), strict=True):
        p_not_worse = p_noninferior(edited, present, margin, groups)
        verdict: TrialVerdict = "not worse" if p_not_worse < LEVEL else "not shown"
        if p < LEVEL:
            verdict = "better" if gap.difference > 0 else "worse"
        found.append(
            TrialOutcome(
                outcome=OUTCOMES[place],
                adoption=adoption,
                present=float(present.mean()),
                edited=float(edited.mean()),
                difference=gap.difference,
                low=gap.low,
                high=gap.high,
                p=p,
                p_not_worse=p_not_worse,
                smallest=smallest_difference(
                    len(groups), observed([edited, present], groups, "test answers"), len(tested), groups
                ),
                verdict=verdict,
            )
        )
    return tuple(found)


def with_edits(present: Sequence[Document], edits: Sequence[Document]) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """Put each edited page in the place of the page with its path, else its name; return all pages, and the names of
    those edited.

    Raises InputError where several pages have the name, or nothing differs.
    """
    pages = {owner_and_page(one.id)[1]: one for one in present}
    names: list[str] = []
    state = dict(pages)
    for one in edits:
        name = owner_and_page(one.id)[1]
        if name not in pages:
            tails = [page for page in pages if page.rstrip("/").endswith("/" + name)]
            if len(tails) > 1:
                raise InputError(
                    f"{', '.join(sorted(tails)[:4])} have this name", "give a folder with the page's path", file=name
                )
            name = tails[0] if tails else name
        new = owned(replace(one, id=name), OWN)
        if name not in pages or new.sections != pages[name].sections or new.title != pages[name].title:
            names.append(name)
        state[name] = new
    if not names:
        raise InputError("says what the present pages say", "change something, or name the right folder", file="EDIT")
    return tuple(state.values()), tuple(names)


def added_text(present: Sequence[Document], edited: Sequence[Document]) -> str:
    """Return the sentences that the edited pages have and none of the present ones has."""
    before = {" ".join(line.split()) for one in present for part in one.sections for line in sentences(part.text)}
    now = (" ".join(line.split()) for one in edited for part in one.sections for line in sentences(part.text))
    return "\n".join(dict.fromkeys(line for line in now if line not in before))


def adopting(
    theirs: Sequence[Document], rivals: Sequence[str], added: str, share: float, seed: int
) -> tuple[Document, ...]:
    """Return the competitors' pages; a share of `rivals`, drawn by the seed, has the added text in a section at the
    end."""
    order = np.random.default_rng(seed).permutation(len(rivals))
    chosen = {rivals[place] for place in order[: round(share * len(rivals))]}
    return tuple(
        replace(one, sections=(*one.sections, Section(path=(), text=added)), digest=f"{one.digest}+")
        if one.id in chosen
        else one
        for one in theirs
    )


def _mean(asked: Sequence[StateFigures]) -> Array:
    return np.asarray(np.mean([one.figures_OQ for one in asked], axis=0), dtype=np.float64)


class _Bench:
    """Asks the questions of a state of all pages, in an index of its own; vectors are kept over all states."""

    def __init__(
        self,
        questions: Sequence[SurfaceQuestion],
        encoder: CachingEncoder,
        engine: str,
        task: Task | None,
        embedding: str,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self._questions, self._encoder, self._engine, self._task = questions, encoder, engine, task
        self._embedding, self._folder, self._progress = embedding, folder, progress
        self._states = 0
        self.engine_name = engine

    def ask(self, documents: Sequence[Document], seed: int) -> StateFigures:
        """Ask all questions under the settings of a seed."""
        settings = settings_of(seed)
        self._states += 1
        if self._progress is not None:
            self._progress.emit("answer", step=self._states)
        index = open_index(self._folder / str(self._states), self._encoder, documents, words=settings.words)
        judge = SentenceJudge(index.passages, self._encoder)
        texts = [one.text for one in self._questions]
        with engine_named(self._engine, judge, self._task) as engine:
            self.engine_name = engine.name
            assistant = SimulatedAssistant(index, engine, k=SOURCES, vector_weight=settings.vector_weight)
            session = AssistantSession(
                contents=(), assistant=assistant, judge=judge, encoder=self._encoder, embedding=self._embedding, date=""
            )
            answers = assistant.ask(texts, shuffle=settings.shuffle if engine.reads_in_order else None)
        covered = [session.covered(one, answer, "") for one, answer in zip(self._questions, answers, strict=True)]
        rows = [
            (one.adjusted_share, float(one.cited), float(one.rank is not None), 1 / one.rank if one.rank else 0.0)
            for one in covered
        ]
        documents_of = tuple(frozenset(hit.passage.document for hit in answer.hits) for answer in answers)
        return StateFigures(figures_OQ=np.array(rows, dtype=np.float64).T, documents=documents_of)
