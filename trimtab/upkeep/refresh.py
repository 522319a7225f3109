"""`refresh`: makes the next version of the arm in production from what came since, and lets it through a gate or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from trimtab.arms.bundle import BundledArm, open_bundle
from trimtab.arms.forgetting import forgetting
from trimtab.arms.looks import DEV_QUESTIONS
from trimtab.arms.made_from import KnownRow, read_rows
from trimtab.arms.run import ArmRunner
from trimtab.arms.saved import (
    ANSWERS,
    RUNS,
    STUDIES,
    STUDY_FILE,
    SavedArm,
    find_saved,
    read_arm,
    read_result,
    read_run,
)
from trimtab.arms.session import Session
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import BusyError, InputError, MissingError
from trimtab.base.files import locked, new_folder
from trimtab.base.grammar import HEAD, REWARD, is_trained, method_of
from trimtab.base.progress import Listener
from trimtab.base.records import Answer, Example
from trimtab.base.results import ArmResult
from trimtab.base.show import Shown
from trimtab.base.task import TASK_FILE, Task, load_task, parse_arm
from trimtab.base.versions import Forgetting, GateRecord, Version, VersionScore
from trimtab.data.draw import sampled
from trimtab.decision.gate import gate, latency_held
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.power import assumed, smallest_difference
from trimtab.measurement.scorer import ScorerFunction
from trimtab.studies.opening import Opening, opened
from trimtab.studies.record import OPENINGS, look_at, opened_items
from trimtab.studies.study import study
from trimtab.studies.train import train
from trimtab.upkeep.news import LabelledRows, News, labelled_rows, new_rows, news_of, outdated, splits_of
from trimtab.upkeep.registry import PRODUCTION, Registry, registry

REFRESHES, RECORD = "refreshes", "refresh.json"
CANDIDATE = "candidate"
TURNS = 2  # in which candidate and production are timed
ASKED_BEFORE = 100  # new rows, none of them of the test, that production is asked before anything is made

Outcome = Literal["nothing new", "planned", "not worth it", "not passed", "candidate", "promoted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPlan:
    """What a refresh would take, and whether it can show anything.

    `production_on_new`: the mean score of production on new rows that are not of the test, `asked` of them; None where there are none.
    `most_gain`: how much better the candidate could be on new questions if it reached there what production was measured with on the old
    ones, by the favourable ends of both intervals. `smallest_shown`: the smallest difference that the new test questions show with 80%
    power. `seconds`: of making and measuring production's arm as its study took, `price` the same in the task's currency.
    """

    production: int
    arm: str
    asked: int
    production_on_new: float | None
    most_gain: float | None
    new_questions: int
    smallest_shown: float | None
    seconds: float | None
    price: float | None
    currency: str
    worth_it: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """One way in which the candidate's weights were made, and how it scored on dev questions: the choice among ways rests on these alone.

    `way`: from the base model on all rows, or from production's weights on new rows with as many old ones (replay).
    """

    way: Literal["from the base", "from production"]
    source: str
    dev_score: float
    dev_questions: int
    seconds: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Refreshed(Shown):
    """What a refresh came to. `folder` keeps its record, `study` is the study that made the candidate, `candidate` its version."""

    outcome: Outcome
    sentence: str
    folder: str | None
    news: News
    plan: RefreshPlan | None
    study: str | None = None
    gate: GateRecord | None = None
    candidate: int | None = None
    outdated: tuple[str, ...] = ()
    makings: tuple[Making, ...] = ()

    @property
    def headline(self) -> str:
        """In one line."""
        return self.sentence


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """`refresh.json`: what a refresh that may be gone on with has come to."""

    production: int
    when: str
    before: str | None  # the study that was the latest when it began
    study: str | None = None
    run: str | None = None  # that went on from production's weights
    makings: tuple[Making, ...] = ()
    candidate: int | None = None
    done: bool = False


def refresh(
    task: str | Path | Task = TASK_FILE,
    *,
    budget: str | None = None,
    resume: bool = False,
    anyway: bool = False,
    dry_run: bool = False,
    address: str | Path | None = None,
    artifacts: str | Path | None = None,
    store: str | None = None,
    by: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scorer: ScorerFunction | None = None,
    listeners: Sequence[Listener] | None = None,
) -> Refreshed:
    """Make the arm in production anew from the rows, labels and documents of today, and hold it against production.

    The candidate has to be better on test questions that came or changed since, and not worse by the margin on those that production was
    measured on; general text must not be forgotten, and the latency must fit (`decision.gate`). Where all of that is shown it is
    registered, `candidate` names it, and with `promote = "if-better"` in the task file `production` too. "Not shown" is no pass.

    `budget` is that of the study that makes it. `resume` goes on with the refresh that was stopped; `anyway` makes the candidate even
    where the plan says that nothing could be shown; `dry_run` ends with the plan, and changes nothing but the split of new rows.
    `address`, `artifacts`: the registry, as `registry` has them; `store`: that of traffic and its labels. `by`, `allow`,
    `allow_commands`, `scorer` and `listeners` are those of `study`. Raises MissingError where nothing is in production, BusyError beside
    another refresh, InputError where rows of a former test set would be trained on.
    """
    own = task if isinstance(task, Task) else load_task(Path(task))
    with registry(own, address, artifacts=artifacts, make=False) as kept:
        production = kept.current(PRODUCTION)
        own, labelled = labelled_rows(own, store)
        kept.task = own
        home = own.folder / FOLDER / REFRESHES
        with locked(home):
            arm = parse_arm(production.arm, own)
            with opened(
                own, [arm], listeners=listeners, allow=allow, allow_commands=allow_commands, scorer=scorer
            ) as opening:
                run = _Refresh(kept, production, opening, labelled, allow, allow_commands, scorer, listeners, by)
                return run.run(home, budget=budget, resume=resume, anyway=anyway, dry_run=dry_run)


class _Refresh:
    """One refresh under way."""

    def __init__(
        self,
        kept: Registry,
        production: Version,
        opening: Opening,
        labelled: LabelledRows,
        allow: Sequence[str],
        allow_commands: bool,
        scorer: ScorerFunction | None,
        listeners: Sequence[Listener] | None,
        by: str | None,
    ) -> None:
        self.kept, self.production, self.opening, self.task = kept, production, opening, opening.task
        self.given: dict[str, Any] = {
            "allow": allow,
            "allow_commands": allow_commands,
            "scorer": scorer,
            "listeners": opening.listeners if listeners is None else listeners,
        }
        self.by, self.allow = by, allow
        release = kept.follow(PRODUCTION)(())
        if release is None or release.version != production.number:
            raise BusyError(f"{kept.name}: {PRODUCTION} moved while the refresh began; run it again")
        self.bundled: BundledArm = open_bundle(release.folder, near=self.task.folder)
        self.known = self._known(release.folder)
        self.workspace = opening.workspace
        _refuse_leaks(self.workspace)
        documents = self.bundled.session.workspace.documents if self.bundled.arm.retrieves else None
        self.news = news_of(self.workspace, self.known, documents, labelled)
        self.new_test = new_rows(self.workspace.splits["test"], self.known)

    def run(self, home: Path, *, budget: str | None, resume: bool, anyway: bool, dry_run: bool) -> Refreshed:
        if resume:
            folder = self._to_go_on_with(home)
        else:
            if self.news.nothing:
                return Refreshed(
                    outcome="nothing new", sentence=self.news.sentence, folder=None, news=self.news, plan=None
                )
            folder = None
        plan = self._plan()
        self.opening.note(f"{self.news.sentence} {plan.sentence}")
        if dry_run:
            return Refreshed(outcome="planned", sentence=plan.sentence, folder=None, news=self.news, plan=plan)
        if not (plan.worth_it or anyway or folder):
            return Refreshed(outcome="not worth it", sentence=plan.sentence, folder=None, news=self.news, plan=plan)
        if folder is None:
            folder = new_folder(home, (self.production.artifact_sha256 or "")[:6])
            self._keep(folder, _Begun(production=self.production.number or 0, when=_now(), before=self._latest()))
        return self._made(folder, plan, budget)

    def _made(self, folder: Path, plan: RefreshPlan, budget: str | None) -> Refreshed:
        """Make the candidate, ask both, and hold the gate; every step that was done before is not done again."""
        self.opening.goes_on_with("refresh --resume")
        record = read_record(folder / RECORD, _Begun)
        arm = self.bundled.arm.name
        made = self._study(folder, record, budget)
        study_folder = self.task.folder / FOLDER / STUDIES / made
        result = read_arm(study_folder / "arms" / arm)
        if result is None:
            failed = next((one for one in (read_result(study_folder) or _none()).arms if one.arm == arm), None)
            why = failed.why if failed and failed.why else "it was not measured"
            raise InputError(
                f"the candidate could not be made: {why}", "see the report of its study", file=study_folder
            )
        makings = self._makings(folder, made, result.seconds or 0.0)
        source = next((one.source for one in makings if one.kept), made)
        ours: Sequence[Answer] = load_answers(study_folder / "arms" / arm / ANSWERS)
        candidate = result.result
        if source != made:
            ours, candidate = self._asked_once(folder, CANDIDATE, ours, partial(self._ask_run, source))
        theirs, measured = self._asked_once(folder, PRODUCTION, ours, self._ask_production)
        stale = outdated(theirs, self.workspace.splits["test"], self.workspace.documents)
        found = self._gate(made, source, ours, theirs, stale, candidate, measured)
        write_record(folder / "gate.json", found)
        if not found.passed:
            self._keep(folder, replace(read_record(folder / RECORD, _Begun), done=True))
            said = "The candidate is not let through" + (
                "" if found.passed is False else " (nothing is shown, which is no pass)"
            )
            return self._ended(
                "not passed", f"{said}: {'; '.join(found.reasons)}.", folder, plan, made, found, None, stale
            )
        number = self._registered(folder, source, candidate, found)
        outcome: Outcome = "candidate"
        how = "better on new questions, not worse on old ones"
        sentence = f"Version {number} passed its gate ({how}) and is {CANDIDATE}; try it on a share of users: {self.task.command('canary start')}"
        if self.task.upkeep.promote == "if-better":
            self._promote(number, PRODUCTION, f"refresh: {how}", found)
            outcome, sentence = "promoted", f"Version {number} passed its gate ({how}) and is in production."
        self._keep(folder, replace(read_record(folder / RECORD, _Begun), done=True))
        return self._ended(outcome, sentence, folder, plan, made, found, number, stale)

    def _ended(
        self,
        outcome: Outcome,
        sentence: str,
        folder: Path,
        plan: RefreshPlan,
        made: str,
        found: GateRecord,
        number: int | None,
        stale: Sequence[str],
    ) -> Refreshed:
        if stale:
            sentence += (
                f" {len(stale)} old test questions rest on sentences that the documents hold no more, and were left out: "
                f"answer them anew ({', '.join(stale[:3])}{' …' if len(stale) > 3 else ''})."
            )
        done = Refreshed(
            outcome=outcome,
            sentence=sentence,
            folder=str(folder),
            news=self.news,
            plan=plan,
            study=made,
            gate=found,
            candidate=number,
            outdated=tuple(stale),
            makings=read_record(folder / RECORD, _Begun).makings,
        )
        write_record(folder / "result.json", done)
        return done

    # ---- steps

    def _plan(self) -> RefreshPlan:
        """Ask production new rows that are not of the test, and work out what could be shown."""
        rows = [row for split in ("train", "dev") for row in new_rows(self.workspace.splits[split], self.known)]
        asked = rows[:: max(1, len(rows) // ASKED_BEFORE)][:ASKED_BEFORE]
        count = len(self.new_test)
        smallest = smallest_difference(count, assumed([row.group for row in self.new_test]), 1) if count else None
        score, gain = None, None
        if asked:
            answers, _ = self._ask_production(asked)
            here, then = score_estimate(answers, self.task), self.production.score
            score = here.value
            gain = max(0.0, (then.high if then else 1.0) - here.low)
        seconds = self._seconds()
        price = self.task.cost.machine_hour
        cost = seconds / 3600 * price.price if seconds is not None and price else None
        worth = smallest is not None and smallest < 1 and (gain is None or gain >= smallest)
        return RefreshPlan(
            production=self.production.number or 0,
            arm=self.production.arm,
            asked=len(asked),
            production_on_new=score,
            most_gain=gain,
            new_questions=count,
            smallest_shown=smallest,
            seconds=seconds,
            price=cost,
            currency=self.task.cost.currency,
            worth_it=worth,
            sentence=_plan_sentence(self, score, len(asked), gain, smallest, seconds, cost),
        )

    def _seconds(self) -> float | None:
        """What making and measuring production's arm took; None where its study is not here."""
        record = read_arm(self.task.folder / FOLDER / STUDIES / self.production.source / "arms" / self.production.arm)
        return record.seconds if record else None

    def _study(self, folder: Path, record: _Begun, budget: str | None) -> str:
        """The study that makes the candidate: a new one, or that of this refresh, gone on with."""
        home, latest = self.task.folder / FOLDER / STUDIES, self._latest()
        begun = record.study or (latest if latest != record.before else None)
        if begun is None or not (home / begun / STUDY_FILE).is_file():
            study(self.task, arms=[self.production.arm], budget=None if begun else budget, resume=begun, **self.given)
            begun = self._latest()
        if begun is None:
            raise MissingError(
                f"{home}: the study of this refresh is gone; begin anew with: {self.task.command('refresh')}"
            )
        self._keep(folder, replace(record, study=begun))
        return begun

    def _makings(self, folder: Path, made: str, seconds: float) -> tuple[Making, ...]:
        """The ways in which weights were made, the better one on dev kept; one alone where nothing of the base's weights is tuned."""
        record, arm = read_record(folder / RECORD, _Begun), self.bundled.arm
        if record.makings:
            return record.makings
        if not (is_trained(arm) and method_of(arm).staged) or {HEAD, REWARD} & set(arm.stages):
            return ()
        run = record.run
        if run is None:
            adapter = self.bundled.saved.folder / "adapter"
            run = train(
                self.task,
                arm.name,
                begin=adapter,
                only=self._replayed(),
                allow=self.given["allow"],
                allow_commands=self.given["allow_commands"],
                scorer=self.given["scorer"],
                listeners=self.given["listeners"],
            ).id
            self._keep(folder, replace(record, run=run))
        scores = {source: self._on_dev(source) for source in (made, run)}
        best = max(scores, key=lambda source: scores[source][0])  # the study's own where they are equal
        makings = tuple(
            Making(
                way="from the base" if source == made else "from production",
                source=source,
                dev_score=score,
                dev_questions=count,
                seconds=seconds if source == made else self._seconds_of_run(run),
                kept=source == best,
            )
            for source, (score, count) in scores.items()
        )
        self._keep(folder, replace(read_record(folder / RECORD, _Begun), run=run, makings=makings))
        return makings

    def _replayed(self) -> frozenset[str]:
        """The rows to go on with: those that are new, and as many of the others, drawn so that they stand for all of them."""
        rows = self.workspace.splits["train"]
        new = {row.id for row in new_rows(rows, self.known)}
        old = [row for row in rows if row.id not in new]
        if not old:
            return frozenset(new)
        kind = self.task.task.kind
        least = len({row.references[0] for row in old}) if kind == "classify" else 1
        most = min(len(old), max(len(new), least))
        kept = sampled(old, most, kind, every_label=kind == "classify", seed=self.task.data.split.seed)
        longest = max(rows, key=lambda row: len(row.references[0]))  # the room for answers is as long as the longest
        return frozenset({*new, longest.id, *(row.id for row in kept)})

    def _on_dev(self, source: str) -> tuple[float, int]:
        """What weights of a study or a run score on dev questions, and on how many."""
        answers, _ = self._ask_run(source, self.session.part("dev", DEV_QUESTIONS))
        return score_estimate(answers, self.task).value, len(answers)

    def _seconds_of_run(self, run: str) -> float:
        record = read_run(self.task.folder / FOLDER / RUNS / run)
        return record.result.seconds if record and record.result else 0.0

    @cached_property
    def session(self) -> Session:
        """The models with the task's rows and documents of today."""
        return self.opening.session(self.bundled.session.precision)

    def _ask_run(self, source: str, rows: Sequence[Example]) -> tuple[list[Answer], ArmResult]:
        """Ask weights of a study or a run questions."""
        arm, session = self.bundled.arm, self.session
        session.workspace = replace(self.workspace, splits={**self.workspace.splits, "test": tuple(rows)})
        runner = self._runner(session)
        outcome = runner.measure(arm, runner.taken(arm, self._saved(source)), "test")
        return list(outcome.answers), outcome.result

    def _asked_once(
        self,
        folder: Path,
        name: str,
        ours: Sequence[Answer],
        ask: Callable[[Sequence[Example]], tuple[list[Answer], ArmResult]],
    ) -> tuple[list[Answer], ArmResult]:
        """Answers to the test questions that the study asked, and how long they took; kept, and not asked again."""
        file, result = folder / f"{name}.parquet", folder / f"{name}.json"
        if file.is_file() and result.is_file():
            return list(load_answers(file)), read_record(result, ArmResult)
        items = {one.item_id for one in ours}
        answers, found = ask([row for row in self.workspace.splits["test"] if row.id in items])
        save_answers(file, answers)
        write_record(result, found)
        return answers, found

    def _ask_production(self, rows: Sequence[Example]) -> tuple[list[Answer], ArmResult]:
        """Ask the version in production questions, as it was registered: its own weights, index, documents and shots."""
        session, arm = self.bundled.session, self.bundled.arm
        _stand_in(session, arm.name, self.workspace, self.task, rows)
        runner = self._runner(session)
        outcome = runner.measure(arm, runner.taken(arm, self.bundled.saved), "test")
        return list(outcome.answers), outcome.result

    def _gate(
        self,
        made: str,
        source: str,
        ours: Sequence[Answer],
        theirs: Sequence[Answer],
        stale: Sequence[str],
        candidate: ArmResult,
        production: ArmResult,
    ) -> GateRecord:
        new = {row.id for row in self.new_test}
        old = [row.id for row in self.workspace.splits["test"] if row.id not in new]
        home = self.workspace.folder / OPENINGS
        return gate(
            ours,
            theirs,
            new=new,
            outdated=stale,
            task=self.task,
            old_look=look_at(home, old, made),
            new_look=look_at(home, sorted(new), made),
            forgetting=self._forgetting(source),
            latency=latency_held(candidate, production, *self._in_turn(source), self.task),
        )

    def _in_turn(self, source: str) -> tuple[list[float], list[float]]:
        """Seconds of questions alone, asked of the candidate and of production in turn, so that what else the machine does strikes both."""
        arm, ours, theirs = self.bundled.arm, [], []
        candidate, saved = self._runner(self.session), self._saved(source)
        production = self._runner(self.bundled.session)
        for _ in range(TURNS):
            theirs += production.time_alone(arm, production.taken(arm, self.bundled.saved))
            ours += candidate.time_alone(arm, candidate.taken(arm, saved))
        return ours, theirs

    def _runner(self, session: Session) -> ArmRunner:
        return ArmRunner(session, self.opening.scorer, self.opening.progress(arm=self.bundled.arm.name))

    def _saved(self, source: str) -> SavedArm:
        """The arm with its weights of a study or a run."""
        saved = find_saved(self.task, parse_arm(self.bundled.arm.name, self.task), source)
        if saved is None:
            raise MissingError(f"{source}: holds no arm {self.bundled.arm.name}")
        return saved

    def _forgetting(self, source: str) -> Forgetting | None:
        """How much more general text costs the candidate's weights; None where the base's weights are not changed."""
        arm = self.bundled.arm
        if not is_trained(arm) or not method_of(arm).uses_base:
            return None
        return forgetting(
            self.bundled.session, self._saved(source).folder / "adapter", self.bundled.saved.folder / "adapter"
        )

    def _registered(self, folder: Path, source: str, measured: ArmResult, found: GateRecord) -> int:
        """The candidate as a version, which the alias `candidate` names; registered once."""
        record, arm = read_record(folder / RECORD, _Begun), self.production.arm
        number = record.candidate
        if number is None:
            # By its source: a refresh that was killed between the row and its own record registers nothing twice.
            there = [one.version for one in self.kept.list() if one.source == source and one.arm == arm]
            if there:
                number = there[0]
            else:
                made = self.kept.register(
                    arm,
                    run=source,
                    parent=self.production.number,
                    by=self.by,
                    allow=self.allow,
                    listeners=self.given["listeners"],
                    score=_score_of(measured, self.task),
                )
                number = made.number
            self._keep(folder, replace(record, candidate=number))
        self._promote(number or 0, CANDIDATE, f"refresh {folder.name}", found)
        return number or 0

    def _promote(self, number: int, alias: str, why: str, found: GateRecord) -> None:
        """Have an alias name the candidate, unless it does, and unless production is no longer what it was held against."""
        now = self.kept.current(PRODUCTION).number
        if now not in (self.production.number, number):
            raise InputError(
                f"{PRODUCTION} named version {self.production.number} when the refresh began, and names version {now} now",
                f"the gate says nothing of that one; begin anew with: {self.task.command('refresh')}",
                file=self.kept.name,
            )
        try:
            if self.kept.current(alias).number == number:
                return
        except MissingError:
            pass
        self.kept.promote(number, alias, why=why, evidence=found, by=self.by)

    # ---- its record

    def _known(self, folder: Path) -> dict[str, KnownRow]:
        """The rows that production was made from and measured on."""
        home = self.task.folder / FOLDER
        places = (folder, *(home / kind / self.production.source for kind in (STUDIES, RUNS)))
        known = next((rows for place in places if (rows := read_rows(place)) is not None), None)
        if known is None:
            raise MissingError(
                f"{self.kept.name}: version {self.production.number} was made by an earlier version of Trimtab, and does not say from "
                f"which rows; measure the arm again ({self.task.command('study')}), register it and promote it"
            )
        return known

    def _to_go_on_with(self, home: Path) -> Path:
        """The newest refresh that was not ended."""
        for folder in sorted(home.glob("*/" + RECORD), reverse=True):
            record = read_record(folder, _Begun)
            if record.done:
                break
            if record.production != self.production.number:
                raise InputError(
                    f"it began with version {record.production} in production, which is version {self.production.number} now",
                    f"begin anew with: {self.task.command('refresh')}",
                    file=folder,
                )
            return folder.parent
        raise MissingError(f"{home}: no refresh was stopped; begin one with: {self.task.command('refresh')}")

    def _latest(self) -> str | None:
        pointer = self.task.folder / FOLDER / STUDIES / "latest"
        return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None

    def _keep(self, folder: Path, record: _Begun) -> None:
        write_record(folder / RECORD, record)


def _score_of(result: ArmResult, task: Task) -> VersionScore | None:
    found = result.score
    if found is None:
        return None
    return VersionScore(value=found.value, low=found.low, high=found.high, n=found.n, metric=task.metric)


def _stand_in(session: Session, arm: str, workspace: Workspace, task: Task, rows: Sequence[Example]) -> None:
    """Have a bundle's session answer rows of the task, and be scored as the task says: its own documents, shots and instruction stay."""
    theirs = session.workspace
    scored = theirs.task.model_copy(
        update={
            "task": theirs.task.task.model_copy(
                update={name: getattr(task.task, name) for name in ("metric", "format", "scorer")}
            ),
            "data": task.data,  # what the bundle answers from stands in the workspace, whatever files the task names
            "arm": task.arm,
            "study": task.study.model_copy(update={"arms": (arm,)}),
            "labels": task.labels,
            "target": task.target,
            "cost": task.cost,
            "file": task.file,
        }
    )
    session.task = scored
    session.workspace = replace(
        theirs, task=scored, splits={**theirs.splits, "test": tuple(rows)}, sample=workspace.sample
    )


def _refuse_leaks(workspace: Workspace) -> None:
    """Raise InputError where a question that a study was tested on stands among the rows to learn from."""
    splits = splits_of(workspace)
    torn = [item for item in opened_items(workspace) if splits.get(item) in ("train", "dev")]
    if torn:
        raise InputError(
            f"{len(torn)} questions of a former test set are rows to train on now ({', '.join(sorted(torn)[:3])})",
            f"restore {workspace.folder / 'splits.parquet'}, which says where each row stands, from a copy",
            file=workspace.task.file,
        )


def _plan_sentence(
    of: _Refresh,
    score: float | None,
    asked: int,
    gain: float | None,
    smallest: float | None,
    seconds: float | None,
    price: float | None,
) -> str:
    """What the plan says, in words."""
    count = len(of.new_test)
    if smallest is None:
        return (
            "Not worth it: no test question is new, so that nothing could show the candidate to be better. "
            "Add labelled questions on what changed."
        )
    parts = []
    if score is not None and gain is not None:
        parts.append(f"Production scores {score:.3f} on {asked} new rows, so that at most {gain:.3f} can be gained")
    parts.append(f"{count} new test questions show a difference of {min(1.0, smallest):.3f}")
    said = "; ".join(parts) + "."
    if smallest >= 1:
        return f"Not worth it: {count} new test questions show nothing, however great the difference. Add more."
    if gain is not None and gain < smallest:
        return f"Not worth it: {said[0].lower() + said[1:]} Wait for more questions, or refresh with --anyway."
    takes = f" Making and measuring {of.production.arm} took {seconds / 60:.1f} min" if seconds is not None else ""
    costs = f" ({of.task.cost.currency} {price:.2f})" if price is not None else ""
    return f"{said}{takes}{costs}{'.' if takes else ''}"


def _none() -> Any:
    raise MissingError("the study of this refresh did not end; go on with --resume")


def _now() -> str:
    return datetime.now(UTC).isoformat()
