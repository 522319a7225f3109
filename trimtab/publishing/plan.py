"""`surface plan`: which questions to answer next, and for each group what is at hand. No text is written for
publication."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.base.files import write_atomic
from trimtab.base.progress import Progress
from trimtab.base.records import Document, Hit
from trimtab.base.task import Task
from trimtab.data.duplicates import ellipsize
from trimtab.measurement.facts import read
from trimtab.measurement.numerals import words
from trimtab.publishing.assistant import SOURCES, THRESHOLD, SentenceJudge, open_index
from trimtab.publishing.content import CACHE, OWN, PublishedContent, competitors_of, content_of, owner_and_page
from trimtab.publishing.coverage import (
    EMBEDDING,
    EXTRACT,
    NO_DEMAND,
    AssistantSession,
    CoverageQuestions,
    all_questions,
    assistant_over,
    left_out,
)
from trimtab.publishing.coverage_page import plan_csv, plan_markdown, render_plan
from trimtab.publishing.questions import MOST, drawn_questions
from trimtab.publishing.records import (
    ContentBrief,
    CoveredQuestion,
    GroupCoverage,
    QuotedFact,
    SurfaceCoverage,
    SurfacePlan,
)
from trimtab.retrieval.extract import answer_type, matches_answer_type
from trimtab.retrieval.search import hybrid_search

DOCUMENTS = "documents"  # whose the files are that are not published
DEPTH = 20  # passages that are looked through for facts
FACTS = 3  # quoted for a question, at most
LACKED = 4  # words named that a page lacks of a question, at most
ALIKE = 0.95  # cosine from which two passages say the same
# Words of questions that name no subject.
_GENERAL = frozenset(
    words(
        "between without difference whole existing add adding use using make get work works find set way kind "
        "best good new other change changing several once during need want know tell mean means possible same "
        "different really just"
    )
)
_WANTED = {"number": "a number", "date": "a date or time", "name": "a name", "other": ""}


def surface_plan(
    source: str | Path,
    questions: CoverageQuestions,
    *,
    documents: Sequence[str | Path] = (),
    competitors: Sequence[str | Path] = (),
    engine: str = EXTRACT,
    task: Task | None = None,
    most: int = MOST,
    csv: Path | None = None,
    markdown: Path | None = None,
    page: Path | None = None,
    cache: Path = CACHE,
    embedding: str = EMBEDDING,
    progress: Progress | None = None,
) -> SurfacePlan:
    """Write a brief for each group of questions that own pages do not answer, in the order of demand × gap ×
    evidence at hand.

    `documents`: folders of files that are not published and may be quoted as evidence. `csv`, `markdown`, `page`:
    where the plan is written as such. The other arguments are those of `surface_coverage`, and so are the errors.
    """
    given = all_questions(questions)
    asked = drawn_questions(given, most)
    own = content_of(source, cache=cache, progress=progress)
    others = competitors_of(competitors, cache=cache, progress=progress)
    beside = [content_of(one, DOCUMENTS, cache=cache) for one in documents]
    with assistant_over(
        (own, *others), engine=engine, task=task, embedding=embedding, cache=cache, k=SOURCES, progress=progress
    ) as session:
        covered = session.coverage(asked, progress=progress)
        notes = (*covered.notes, *left_out((own, *others, *beside), given, asked))
        covered = replace(covered, notes=notes)
        result = plan_from(covered, session, own, beside, cache)
    for file, text in ((csv, plan_csv), (markdown, plan_markdown)):
        if file is not None:
            write_atomic(file, text(result))
    if page is not None:
        result = replace(result, page=str(page))
        write_atomic(page, render_plan(result))
    return result


def plan_from(
    covered: SurfaceCoverage,
    session: AssistantSession,
    own: PublishedContent,
    documents: Sequence[PublishedContent],
    cache: Path,
) -> SurfacePlan:
    """Make the plan that follows from a coverage result; own pages and unpublished documents are searched for facts."""
    at_hand = (*own.documents, *(one for content in documents for one in content.documents))
    index = open_index(cache / "evidence", session.encoder, at_hand)
    judge = SentenceJudge(index.passages, session.encoder)
    open_groups = [one for one in covered.groups if _gap(covered, one.group) > 0]
    wanted = [one for one in covered.questions if one.status != "answered"]
    found = hybrid_search(index, [one.question for one in wanted], DEPTH)
    looked = {
        one.question: UnansweredQuestion(question=one, hits=hits, judge=judge)
        for one, hits in zip(wanted, found, strict=True)
    }
    texts = _texts(own.documents)
    total = sum(one.demand or 0.0 for one in covered.groups)
    instructions: defaultdict[str, list[str]] = defaultdict(list)
    for finding in covered.findings:
        instructions[finding.page].append(f"“{finding.evidence}” ({finding.check})")
    briefs = [
        _brief(
            group,
            covered,
            [looked[one.question] for one in wanted if one.group == group.group],
            texts,
            instructions,
            total,
        )
        for group in open_groups
    ]
    briefs.sort(
        key=lambda one: (-one.priority, -(one.demand or 0.0) * one.gap, -len(one.questions) * one.gap, one.group)
    )
    unknown = sum(one.demand is None for one in briefs)
    notes = [note for note in covered.notes if note != NO_DEMAND]
    if not total:
        notes.append("no source gives a demand: priority takes each group's share of the questions in its place")
    elif unknown:
        notes.append(f"{unknown:,} groups have no known demand and stand last")
    return SurfacePlan(
        source=own.source,
        engine=covered.engine,
        date=covered.date,
        demand_known=bool(total),
        briefs=tuple(briefs),
        limits=covered.limits,
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class UnansweredQuestion:
    """A question that is not answered, and the passages at hand that are nearest to it."""

    question: CoveredQuestion
    hits: Sequence[Hit]
    judge: SentenceJudge

    def facts(self) -> tuple[QuotedFact, ...]:
        """Quote the sentences at hand that answer with at least the threshold's probability, but for the one that
        was cited already."""
        shown = _squeezed(self.question.span or "")
        return tuple(
            QuotedFact(
                question=self.question.question,
                quote=_squeezed(one.passage.text),
                document=_place(one),
                path=tuple(part for part in one.passage.path if part != one.passage.title),
                probability=one.score,
            )
            for _, one in self.judge.best(self.question.question, self.hits, k=FACTS + 1)
            if one.score >= THRESHOLD and _squeezed(one.passage.text) != shown
        )[:FACTS]

    def near(self) -> Iterator[tuple[str, float]]:
        """Find own pages about the question: the one that is cited with weight 1, others with the reciprocal rank of
        their best passage."""
        seen: set[str] = set()
        if self.question.cited and self.question.owner == OWN and self.question.page:
            seen.add(self.question.page)
            yield self.question.page, 1.0
        for hit in self.hits[:SOURCES]:
            owner, page = owner_and_page(hit.passage.document)
            if owner == OWN and page not in seen and self.judge.is_about(self.question.question, hit.passage):
                seen.add(page)
                yield page, 1 / hit.rank

    def repeats(self) -> Iterator[str]:
        """Find passages of two own pages that say the same."""
        own = [hit for hit in self.hits[:SOURCES] if owner_and_page(hit.passage.document)[0] == OWN]
        vectors = self.judge.encoder.encode([hit.passage.text for hit in own])
        for place, one in enumerate(own):
            for other in range(place):
                pages = {owner_and_page(hit.passage.document)[1] for hit in (one, own[other])}
                if len(pages) == 2 and float(vectors[place] @ vectors[other]) >= ALIKE:
                    yield (
                        f"{' and '.join(sorted(pages))} say the same (“{ellipsize(one.passage.text, 80)}”): keep it "
                        "in one place"
                    )


def _brief(
    group: GroupCoverage,
    covered: SurfaceCoverage,
    looked: Sequence[UnansweredQuestion],
    texts: Mapping[str, str],
    instructions: Mapping[str, Sequence[str]],
    total: float,
) -> ContentBrief:
    near: defaultdict[str, float] = defaultdict(float)
    for one in looked:
        for name, weight in one.near():
            near[name] += weight
    order = sorted(near, key=lambda name: (-near[name], name))
    page = order[0] if order else None
    facts = [one.facts() for one in looked]
    gap, evidence = _gap(covered, group.group), sum(map(bool, facts)) / len(looked)
    share = (group.demand or 0.0) / total if total else group.questions / len(covered.questions)
    return ContentBrief(
        group=group.group,
        questions=tuple(one.question.question for one in looked),
        demand=group.demand,
        gap=gap,
        evidence=evidence,
        priority=share * gap * evidence,
        page=page,
        lacks=tuple(dict.fromkeys(line for one in looked for line in _lacks(one, page, texts))),
        facts=tuple(dict.fromkeys(fact for found in facts for fact in found)),
        structure=tuple(_structure(group, looked, page, bool(any(facts)))),
        remove=tuple(
            dict.fromkeys((*instructions.get(page or "", ()), *(line for one in looked for line in one.repeats())))
        ),
        cited_instead=tuple(
            dict.fromkeys(
                f"{one.question.owner}: {one.question.page}, “{one.question.span}”"
                for one in looked
                if one.question.status == "competitor"
            )
        ),
        competing=tuple(order[1:4]),
    )


def _gap(covered: SurfaceCoverage, group: str) -> float:
    """Compute the share of a group's questions that own pages do not answer; a partly answered one counts half."""
    gaps = [{"answered": 0.0, "partly": 0.5}.get(one.status, 1.0) for one in covered.questions if one.group == group]
    return sum(gaps) / len(gaps)


def _lacks(one: UnansweredQuestion, page: str | None, texts: Mapping[str, str]) -> Iterator[str]:
    """Name what a question asks for and its page does not say: words that stand nowhere on it, and the kind of fact
    that is asked for."""
    asked = one.question.question
    if page is None:
        yield f"“{asked}”: no own page is about it"
        return
    missing = one.judge.scorer.missing_terms(asked, texts.get(page, ""))
    missing = tuple(word for word in missing if word.casefold() not in _GENERAL)[:LACKED]
    if missing:
        yield f"“{asked}”: the page never says {', '.join(f'“{word}”' for word in missing)}"
    kind = answer_type(asked)
    best = one.judge.best(asked, [hit for hit in one.hits if owner_and_page(hit.passage.document) == (OWN, page)], k=1)
    known = {token.value for token in read(asked)}
    said = [token for _, hit in best for token in read(hit.passage.text) if token.value not in known]
    if _WANTED[kind] and not matches_answer_type(kind, said):
        yield f"“{asked}”: its nearest sentence gives no answer that is {_WANTED[kind]}"


def _structure(
    group: GroupCoverage, looked: Sequence[UnansweredQuestion], page: str | None, facts: bool
) -> Iterator[str]:
    """Say how the answer should stand on its page, from what is there."""
    scorer = looked[0].judge.scorer
    if page is None:
        yield "a page of its own, or a section where readers look for it, with the subject in its title"
    else:
        headings = {hit.passage.path for one in looked for hit in one.hits if hit.passage.document == f"{OWN}/{page}"}
        shared = [scorer.shared_terms(group.group, " ".join(path)) for path in headings]
        if max(shared, default=0.0) < 0.5:
            yield f"a heading in the words of “{group.group}”; no heading near it has half of them"
    kinds = sorted({_WANTED[answer_type(one.question.question)] for one in looked} - {""})
    for kind in kinds:
        yield f"one sentence that says {kind} together with what it is of, so that it can be quoted alone"
    if any(one.question.status == "retrieved" for one in looked):
        yield (
            "the answer in the first sentences below that heading: its passage is found, and holds no sentence that "
            "answers"
        )
    if not facts:
        yield "find the facts out first: nothing at hand answers"


def _texts(documents: Sequence[Document]) -> dict[str, str]:
    """Return the whole text of each page, with its title and headings."""
    return {
        owner_and_page(one.id)[1]: "\n".join(
            (one.title, *(line for part in one.sections for line in (*part.path, part.text)))
        )
        for one in documents
    }


def _place(hit: Hit) -> str:
    """Return the page or file of a sentence, whose document is the passage that it was cut from."""
    owner, page = owner_and_page(hit.passage.document.rpartition("#")[0])
    return page if owner == OWN else f"{owner}: {page}"


def _squeezed(text: str) -> str:
    return " ".join(text.split())
