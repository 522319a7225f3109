"""`surface plan`: which questions to answer next, and for each group what is at hand; no text for publication."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from trimtab.base.files import write_atomic
from trimtab.base.progress import Progress
from trimtab.base.records import Document, Hit
from trimtab.base.task import Task
from trimtab.data.duplicates import ellipsize
from trimtab.measurement.facts import read
from trimtab.measurement.numerals import words
from trimtab.publishing import CACHE
from trimtab.publishing.assistant import SOURCES, THRESHOLD, SentenceJudge, open_index
from trimtab.publishing.content import OWN, PublishedContent, owner_and_page, page_label
from trimtab.publishing.coverage import (
    EMBEDDING,
    EXTRACT,
    NO_DEMAND,
    AssistantSession,
    CoverageQuestions,
    assistant_over,
    read_input,
)
from trimtab.publishing.coverage_page import plan_csv, plan_markdown, render_plan
from trimtab.publishing.questions import MOST, question_key
from trimtab.publishing.records import (
    BriefOutcome,
    ContentBrief,
    CoveredQuestion,
    GroupCoverage,
    QuotedFact,
    SurfaceCoverage,
    SurfacePlan,
    read_result,
)
from trimtab.retrieval.extract import SURE, answer_type, matches_answer_type
from trimtab.retrieval.search import hybrid_search

DEPTH = 20  # passages that are looked through for facts
FACTS = 3  # quoted for a question, at most
LACKED = 4  # words named that a page lacks of a question, at most
ALIKE = 0.95  # cosine from which two passages say the same
# Cosine of a question and the nearest passage below which it is of another subject: some 2% of the own questions
# of four sites (MiniLM), and half of those asked of other sites (docs/log.md).
FAR = 0.2
# Words of questions that name no subject.
_GENERAL = frozenset(
    words(
        "between without difference whole existing add adding use using make get work works find set way kind "
        "best good new other change changing several once during need want know tell mean means possible same "
        "different really just"
    )
)
_ANSWER_KINDS = {"number": "a number", "date": "a date or time", "name": "a name", "method": "", "other": ""}


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
    against: Path | None = None,
    page: Path | None = None,
    cache: Path = CACHE,
    embedding: str = EMBEDDING,
    progress: Progress | None = None,
) -> SurfacePlan:
    """Write a brief for each group of questions that is not answered, or answered by a page that another contradicts,
    in the order of demand × gap, of equals the one with more evidence at hand first.

    `documents`: folders of files that are not published and may be quoted as evidence. `csv`, `markdown`, `page`:
    where the plan is written as such. `against`: an earlier plan (JSON), whose briefs are followed up. The other
    arguments are those of `surface_coverage`, and so are the errors.
    """
    given = read_input(source, questions, competitors, unpublished=documents, most=most, cache=cache, progress=progress)
    with assistant_over(
        given.contents, engine=engine, task=task, embedding=embedding, cache=cache, progress=progress
    ) as session:
        covered = session.coverage(given.questions, progress=progress)
        covered = replace(covered, notes=(*covered.notes, *given.notes))
        result = plan_from(covered, session, given.contents[0], given.unpublished, cache)
    if against is not None:
        result = follow_up(result, read_result(SurfacePlan, against), covered)
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
    at_hand = [document for content in (own, *documents) for document in content.documents]
    index = open_index(cache / "evidence", session.encoder, at_hand)
    judge = SentenceJudge(index.passages, session.encoder)
    unanswered = [question for question in covered.questions if not _is_settled(question)]
    hits_of = hybrid_search(index, [question.question for question in unanswered], DEPTH)
    by_group: defaultdict[str, list[UnansweredQuestion]] = defaultdict(list)
    for question, hits in zip(unanswered, hits_of, strict=True):
        by_group[question.group].append(UnansweredQuestion(question=question, hits=hits, judge=judge))
    texts = _texts(own.documents)
    total = sum(group.demand or 0.0 for group in covered.groups)
    instructions: defaultdict[str, list[str]] = defaultdict(list)
    for finding in covered.findings:
        instructions[finding.page].append(f"“{finding.evidence}” ({finding.check})")
    briefs = [
        _brief(group, covered, by_group[group.group], texts, instructions, total)
        for group in covered.groups
        if group.group in by_group
    ]
    briefs.sort(
        key=lambda brief: (
            -brief.priority,
            -brief.evidence,
            -len(brief.questions) * brief.gap,
            brief.group,
        )
    )
    unknown = sum(brief.demand is None for brief in briefs)
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


def follow_up(plan: SurfacePlan, earlier: SurfacePlan, covered: SurfaceCoverage) -> SurfacePlan:
    """Add to a plan what has become of the briefs of an earlier one, by the status that their questions have now."""
    now = {question_key(question.question): question for question in covered.questions}
    outcomes = []
    for brief in earlier.briefs:
        asked = [now[key] for key in map(question_key, brief.questions) if key in now]
        answered = sum(map(_is_settled, asked))
        outcomes.append(
            BriefOutcome(
                group=brief.group,
                page=brief.page,
                questions=len(brief.questions),
                answered=answered,
                partly=sum(question.status in ("answered", "partly") for question in asked) - answered,
                unasked=len(brief.questions) - len(asked),
                cited=tuple(dict.fromkeys(one.page for one in asked if one.page and one.cited and one.owner == OWN)),
            )
        )
    return replace(plan, since=earlier.date, outcomes=tuple(outcomes))


@dataclass(frozen=True, kw_only=True)
class UnansweredQuestion:
    """A question that is not answered, and the passages at hand that are nearest to it."""

    question: CoveredQuestion
    hits: Sequence[Hit]
    judge: SentenceJudge

    @property
    def similarity(self) -> float:
        """Return the cosine of the question and the nearest passage at hand."""
        return max((hit.similarity for hit in self.hits if hit.similarity is not None), default=0.0)

    def facts(self) -> tuple[QuotedFact, ...]:
        """Quote the sentences at hand that answer with probability THRESHOLD or more, without one cited already."""
        shown = _one_line(self.question.span or "")
        return tuple(
            QuotedFact(
                question=self.question.question,
                quote=_one_line(sentence.passage.text),
                document=page_label(sentence.passage.document.rpartition("#")[0]),  # cut from the passage PAGE#N
                path=tuple(part for part in sentence.passage.path if part != sentence.passage.title),
                probability=sentence.score,
                is_likely=sentence.score >= SURE,
            )
            for _, sentence in self.judge.best(self.question.question, self.hits, k=FACTS + 1)
            if sentence.score >= THRESHOLD and _one_line(sentence.passage.text) != shown
        )[:FACTS]

    def near(self) -> Iterator[tuple[str, float]]:
        """Find own pages about the question: a cited one with weight 1, others with their best passage's 1 / rank."""
        seen: set[str] = set()
        if self.question.cited and self.question.owner == OWN and self.question.page:
            seen.add(self.question.page)
            yield self.question.page, 1.0
        for hit in self.hits[:SOURCES]:
            owner, page = _owner_and_page(hit)
            if owner == OWN and page not in seen and self.judge.is_about(self.question.question, hit.passage):
                seen.add(page)
                yield page, 1 / hit.rank

    def repeats(self) -> Iterator[str]:
        """Find passages of two own pages that say the same."""
        own = [hit for hit in self.hits[:SOURCES] if _owner_and_page(hit)[0] == OWN]
        vectors = self.judge.encoder.encode([hit.passage.text for hit in own])
        for n, hit in enumerate(own):
            for m, earlier in enumerate(own[:n]):
                pages = sorted({_owner_and_page(one)[1] for one in (hit, earlier)})
                if len(pages) == 2 and float(vectors[n] @ vectors[m]) >= ALIKE:
                    quote = ellipsize(hit.passage.text, 80)
                    yield f"{' and '.join(pages)} say the same (“{quote}”): keep it in one place"


def _brief(
    group: GroupCoverage,
    covered: SurfaceCoverage,
    unanswered: Sequence[UnansweredQuestion],
    texts: Mapping[str, str],
    instructions: Mapping[str, Sequence[str]],
    total: float,
) -> ContentBrief:
    near: defaultdict[str, float] = defaultdict(float)
    for question in unanswered:
        for name, weight in question.near():
            near[name] += weight
    order = sorted(near, key=lambda name: (-near[name], name))
    page = order[0] if order else None
    facts = [question.facts() for question in unanswered]
    gap = _gap(covered, group.group)
    evidence = sum(max((fact.probability for fact in one), default=0.0) for one in facts) / len(unanswered)
    share = (group.demand or 0.0) / total if total else group.questions / len(covered.questions)
    repeats = (line for question in unanswered for line in question.repeats())
    instead = (question.question for question in unanswered if question.question.status == "competitor")
    return ContentBrief(
        group=group.group,
        questions=tuple(question.question.question for question in unanswered),
        asked=tuple(question.question.demand for question in unanswered),
        demand=group.demand,
        gap=gap,
        evidence=evidence,
        priority=share * gap,
        off_topic=_is_off_topic(unanswered, page, any(facts)),
        page=page,
        lacks=tuple(dict.fromkeys(line for question in unanswered for line in _lacks(question, page, texts))),
        facts=tuple(dict.fromkeys(chain.from_iterable(facts))),
        structure=tuple(_structure(group, unanswered, page, facts)),
        remove=tuple(dict.fromkeys((*instructions.get(page or "", ()), *repeats))),
        cited_instead=tuple(
            dict.fromkeys(f"{question.owner}: {question.page}, “{question.span}”" for question in instead)
        ),
        competing=tuple(order[1:4]),
        contradictions=tuple(dict.fromkeys(chain.from_iterable(one.question.contradictions for one in unanswered))),
    )


def _is_settled(question: CoveredQuestion) -> bool:
    """Return True if a question is answered, and no own page contradicts the answer."""
    return question.status == "answered" and not question.contradictions


def _is_off_topic(unanswered: Sequence[UnansweredQuestion], page: str | None, facts: bool) -> bool:
    """True if no own page and no fact at hand is near any of the questions."""
    return page is None and not facts and all(question.similarity < FAR for question in unanswered)


def _gap(covered: SurfaceCoverage, group: str) -> float:
    """Compute the share of a group's questions that own pages do not answer; one that is partly answered, or answered
    by a page that another contradicts, counts half."""
    gaps = [
        0.0 if _is_settled(question) else 0.5 if question.status in ("answered", "partly") else 1.0
        for question in covered.questions
        if question.group == group
    ]
    return sum(gaps) / len(gaps)


def _lacks(unanswered: UnansweredQuestion, page: str | None, texts: Mapping[str, str]) -> Iterator[str]:
    """Name what a question asks for and its page does not say: words, and the kind of fact."""
    asked, judge = unanswered.question.question, unanswered.judge
    if page is None:
        nearest = next((name for owner, name in map(_owner_and_page, unanswered.hits) if owner == OWN), None)
        yield f"“{asked}”: no own page is about it in these words{f'; the nearest is {nearest}' if nearest else ''}"
        return
    missing = judge.scorer.missing_terms(asked, texts.get(page, ""))
    named = (word for word in missing if word.casefold() not in _GENERAL and (len(word) > 2 or word.isdigit()))
    missing = tuple(named)[:LACKED]
    if missing:
        yield f"“{asked}”: the page never says {', '.join(f'“{word}”' for word in missing)}"
    kind = answer_type(asked)
    hits = [hit for hit in unanswered.hits if hit.passage.document == f"{OWN}/{page}"]
    known = {token.value for token in read(asked)}
    tokens = [
        token
        for _, sentence in judge.best(asked, hits, k=1)
        for token in read(sentence.passage.text)
        if token.value not in known
    ]
    if _ANSWER_KINDS[kind] and not matches_answer_type(kind, tokens):
        yield f"“{asked}”: its nearest sentence gives no answer that is {_ANSWER_KINDS[kind]}"


def _structure(
    group: GroupCoverage,
    unanswered: Sequence[UnansweredQuestion],
    page: str | None,
    facts: Sequence[Sequence[QuotedFact]],
) -> Iterator[str]:
    """Say how the answer should stand on its page, from what is there."""
    scorer = unanswered[0].judge.scorer
    if _is_off_topic(unanswered, page, any(facts)):
        yield "nothing here is near it: write of it only if the site should be about that"
        return
    if page is None:
        yield "a page of its own, or a section where readers look for it, with the subject in its title"
    else:
        hits = [hit for question in unanswered for hit in question.hits]
        headings = {hit.passage.path for hit in hits if hit.passage.document == f"{OWN}/{page}"}
        shared = [scorer.shared_terms(group.group, " ".join(path)) for path in headings]
        if max(shared, default=0.0) < 0.5:
            yield f"a heading in the words of “{group.group}”; no heading near it has half of them"
    kinds = {_ANSWER_KINDS[answer_type(question.question.question)] for question in unanswered}
    for kind in sorted(kinds - {""}):
        yield f"one sentence that says {kind} together with what it is of, so that it can be quoted alone"
    if any(question.question.status == "retrieved" for question in unanswered):
        yield (
            "the answer in the first sentences below that heading: its passage is found, and holds no sentence that "
            "answers"
        )
    if not any(fact.is_likely for fact in chain.from_iterable(facts)):
        yield "find the facts out first: nothing at hand is likely to answer"


def _texts(documents: Sequence[Document]) -> dict[str, str]:
    """Return the whole text of each page, with its title and headings."""
    return {
        owner_and_page(document.id)[1]: "\n".join(
            (document.title, *(line for section in document.sections for line in (*section.path, section.text)))
        )
        for document in documents
    }


def _owner_and_page(hit: Hit) -> tuple[str, str]:
    return owner_and_page(hit.passage.document)


def _one_line(text: str) -> str:
    return " ".join(text.split())
