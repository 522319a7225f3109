"""`refresh`: makes the next version of the arm in production from new data, and promotes it only if it is shown to
be better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from trimtab.arms.bundle import BundledArm, open_bundle
from trimtab.arms.dev_eval import DEV_QUESTIONS
from trimtab.arms.known_rows import KnownRow, read_known_rows
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session
from trimtab.arms.store import (
    ANSWERS,
    RUNS,
    STUDIES,
    SavedArm,
    find_saved,
    read_arm,
    read_result,
    read_run,
)
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import BusyError, InputError, MissingError
from trimtab.base.files import locked, new_folder
from trimtab.base.grammar import HEAD, REWARD, is_trained, method_of
from trimtab.base.progress import Listener
from trimtab.base.records import Answer, Example
from trimtab.base.results import ArmRecord, ArmResult
from trimtab.base.show import Shown
from trimtab.base.task import TASK_FILE, Task, as_task, parse_arm
from trimtab.data.draw import sample_groups, sample_rows
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.power import assumed_variation, smallest_difference
from trimtab.measurement.scorer import ScorerFunction
from trimtab.studies.paths import selection
from trimtab.studies.record import OPENINGS, look_number, opened_items, retired_items
from trimtab.studies.run_context import RunContext, run_context
from trimtab.studies.study import study
from trimtab.studies.train import train
from trimtab.upkeep.config import upkeep_of
from trimtab.upkeep.data_changes import (
    DataChanges,
    LabelledRows,
    compare_data,
    labelled_rows,
    new_rows,
    outdated_questions,
)
from trimtab.upkeep.forgetting import forgetting
from trimtab.upkeep.gate import candidate_gate, chance_to_pass, latency_held
from trimtab.upkeep.registry import CANDIDATE, PRODUCTION, Registry, registry
from trimtab.upkeep.versions import Forgetting, GateRecord, Version, VersionScore

REFRESHES, RECORD, GATE, RESULT = "refreshes", "refresh.json", "gate.json", "result.json"
TURNS = 2  # in which candidate and production are timed
ASKED_BEFORE = 100  # new rows, none of them of the test, that production is asked before anything is made
SUPPOSED_GAIN = 0.1  # on new questions, for which the plan gives the chance to pass
LET_THROUGH = "better on new questions, not worse on old ones"

RefreshOutcome = Literal["nothing new", "planned", "not worth it", "not passed", "candidate", "promoted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPlan:
    """A forecast of what a refresh takes, and of whether it can show anything.

    `production_on_new`: the mean score of production on `asked` new rows that are not of the test; None where there
    are none. `most_gain`: how much better the candidate could be on new questions if it reached the score that
    production was measured with on the old ones, by the favourable ends of both intervals. `smallest_shown`: the
    smallest difference that the new test questions show with 80% power; None without such questions. `chance`: of the
    gate passing a candidate that is better by SUPPOSED_GAIN on the new questions and as good on the `old_questions`, by
    `margin`; None in records of before December 2026. `seconds`: of
    making and measuring production's arm, as its study took; None where that study is not here. `price`: the same in
    `currency`; None where the task file has no price of the machine.
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
    old_questions: int = 0
    margin: float = 0.0
    chance: float | None = None

    @property
    def worth_it(self) -> bool:
        """True if the new test questions could show a gain that is possible."""
        smallest, gain = self.smallest_shown, self.most_gain
        return smallest is not None and smallest < 1 and (gain is None or gain >= smallest)

    @property
    def sentence(self) -> str:
        """Return the plan in words."""
        count = self.new_questions
        if self.smallest_shown is None:
            return (
                "Not worth it: no test question is new, so that nothing could show the candidate to be better. "
                "Add labelled questions on what changed."
            )
        if self.smallest_shown >= 1:
            return f"Not worth it: {count} new test questions show nothing, however great the difference. Add more."
        shown = f"{count} new test questions show a difference of {self.smallest_shown:.3f}"
        if self.most_gain is not None:
            score = f"production scores {self.production_on_new:.3f} on {self.asked} new rows"
            shown = f"{score}, so that at most {self.most_gain:.3f} can be gained; {shown}"
        if not self.worth_it:
            return f"Not worth it: {shown}. Wait for more questions, or refresh with --anyway."
        said = f"{shown[0].upper()}{shown[1:]}."
        if self.chance is not None:
            said += (
                f" A candidate that is better by {SUPPOSED_GAIN:g} on these and as good on the {self.old_questions:,} "
                f"old test questions (margin {self.margin:g}) passes with a chance of {self.chance:.0%}."
            )
        if self.seconds is not None:
            price = f" ({self.currency} {self.price:.2f})" if self.price is not None else ""
            said += f" Making and measuring {self.arm} took {self.seconds / 60:.1f} min{price}."
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateTraining:
    """One training of the candidate's weights, and its mean score on dev questions; the choice between trainings
    rests on these alone.

    `way`: from the base model on all rows, or from production's weights on the new rows and as many old ones
    (replay). `source`: the ID of the study or the run that holds the weights.
    """

    way: Literal["from the base", "from production"]
    source: str
    dev_score: float
    dev_questions: int
    seconds: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RefreshResult(Shown):
    """The result of a refresh. `folder` keeps its record, `study` is the study that made the candidate, `candidate`
    its version.

    `outdated`: ids of old test questions whose sentence the documents hold no more; they were left out of the
    comparison.
    """

    outcome: RefreshOutcome
    sentence: str
    changes: DataChanges
    plan: RefreshPlan | None = None
    folder: str | None = None
    study: str | None = None
    gate: GateRecord | None = None
    candidate: int | None = None
    outdated: tuple[str, ...] = ()
    trainings: tuple[CandidateTraining, ...] = ()

    @property
    def headline(self) -> str:
        """Return the outcome in a sentence."""
        return self.sentence


@dataclass(frozen=True, kw_only=True)
class _RefreshRecord:
    """`refresh.json`: the finished steps of a refresh, from which it resumes.

    `before`: the study that was the newest when it began. `training`: the run in which it goes on from production's
    weights, `run`: the same once it is done.
    """

    production: int
    when: str
    before: str | None
    plan: RefreshPlan
    training: str | None = None
    run: str | None = None
    study: str | None = None
    trainings: tuple[CandidateTraining, ...] = ()
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
) -> RefreshResult:
    """Make the arm in production anew from the rows, labels and documents of today, and compare it with production.

    The candidate has to be better on test questions that came or changed since, and not worse by the margin on those
    that production was measured on; general text must not be forgotten, and the latency must fit
    (`decision.candidate_gate`). Where all of that is shown it is registered, the alias `candidate` names it, and
    with `promote = "if-better"` in the task file `production` does too. "Not shown" is no pass.

    `budget` is that of the study that makes it. `resume` goes on with the refresh that was stopped; `anyway` makes
    the candidate even where the plan says that nothing could be shown; `dry_run` ends with the plan: new rows are
    put into their splits, and rows of labels are written, but nothing is made. `address`, `artifacts`: the registry,
    as `registry` has them; `store`: that of traffic and its labels. `by`: who promotes. `allow`, `allow_commands`,
    `scorer` and `listeners` are those of `study`. Raises MissingError where nothing is in production, BusyError
    beside another refresh, InputError where rows of a former test set would be trained on.
    """
    own, labelled = labelled_rows(as_task(task), store)
    with registry(own, address, artifacts=artifacts, make=False) as versions:
        production, home = versions.current(PRODUCTION), own.folder / FOLDER / REFRESHES
        arm = parse_arm(production.arm, own)
        with (
            locked(home),
            run_context(
                own, [arm], listeners=listeners, allow=allow, allow_commands=allow_commands, scorer=scorer
            ) as ctx,
        ):
            given = _Given(allow=allow, allow_commands=allow_commands, scorer=scorer, listeners=ctx.listeners, by=by)
            run = _Refresh(versions, production, ctx, labelled, given, home)
            return run.run(budget=budget, resume=resume, anyway=anyway, dry_run=dry_run)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The options that a refresh passes to the commands that it uses."""

    allow: Sequence[str]
    allow_commands: bool
    scorer: ScorerFunction | None
    listeners: Sequence[Listener]
    by: str | None

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of `study` and `train`."""
        names = ("allow", "allow_commands", "scorer", "listeners")
        return {name: getattr(self, name) for name in names}


class _Refresh:
    """A refresh in progress. Each step stores its result in the record and is not repeated."""

    def __init__(
        self,
        versions: Registry,
        production: Version,
        ctx: RunContext,
        labelled: LabelledRows,
        given: _Given,
        home: Path,
    ) -> None:
        self.versions, self.production, self.ctx, self.task = versions, production, ctx, ctx.task
        self.given, self.home = given, home
        self.workspace = ctx.workspace
        _refuse_leaks(self.workspace)
        release = versions.follow(PRODUCTION)(())
        if release is None or release.version != production.number:
            raise BusyError(f"{versions.name}: {PRODUCTION} moved while the refresh began; run it again")
        self.bundled: BundledArm = open_bundle(release.folder, near=self.task.folder)
        self.known = self._known(release.folder)
        arm = self.bundled.arm
        self.changes = compare_data(
            self.workspace,
            self.known,
            self.bundled.session.workspace.documents if arm.retrieves else None,
            labelled,
            learnt=production.documents_sha256 if "docs" in arm.stages else None,
        )
        self.new_test = new_rows(self.workspace.splits["test"], self.known)

    def run(self, *, budget: str | None, resume: bool, anyway: bool, dry_run: bool) -> RefreshResult:
        """Run all steps, or the remaining ones."""
        if resume:
            self.folder = self._to_go_on_with()
            self.record = read_record(self.folder / RECORD, _RefreshRecord)
        else:
            if self.changes.nothing:
                return RefreshResult(outcome="nothing new", sentence=self.changes.sentence, changes=self.changes)
            plan = self._plan()
            self.ctx.note(f"{self.changes.sentence} {plan.sentence}")
            if dry_run or not (plan.worth_it or anyway):
                outcome: RefreshOutcome = "planned" if dry_run else "not worth it"
                return RefreshResult(outcome=outcome, sentence=plan.sentence, changes=self.changes, plan=plan)
            self.folder = new_folder(self.home, (self.production.artifact_sha256 or "")[:6])
            self.record = _RefreshRecord(
                production=self.production.number or 0,
                when=datetime.now(UTC).isoformat(),
                before=self._newest_study(),
                plan=plan,
            )
            self._keep()
        self.ctx.goes_on_with("refresh --resume")
        return self._made(budget)

    def _made(self, budget: str | None) -> RefreshResult:
        """Make the candidate, ask both arms, and apply the gate."""
        self._train_on()
        made = self._study(budget)
        source = self._chosen(made)
        ours, candidate = self._candidate_answers(made, source)
        theirs, production = self._asked_once(PRODUCTION, ours, self._ask_production)
        outdated = outdated_questions(theirs, self.workspace.splits["test"], self.workspace.documents)
        found = self._gate(made, source, ours, theirs, outdated, candidate, production)
        write_record(self.folder / GATE, found)
        outcome, sentence, number = self._let_through(source, candidate, found)
        if outdated:
            sentence += (
                f" {len(outdated)} old test questions rest on sentences that the documents hold no more, "
                f"and were left out: answer them anew ({', '.join(outdated[:3])}{' …' if len(outdated) > 3 else ''})."
            )
        self._keep(done=True)
        result = RefreshResult(
            outcome=outcome,
            sentence=sentence,
            changes=self.changes,
            plan=self.record.plan,
            folder=str(self.folder),
            study=made,
            gate=found,
            candidate=number,
            outdated=tuple(outdated),
            trainings=self.record.trainings,
        )
        write_record(self.folder / RESULT, result)
        return result

    # ---- steps

    def _plan(self) -> RefreshPlan:
        """Ask production new rows that are not in the test set, and forecast what the test could show."""
        rows = [row for split in ("train", "dev") for row in new_rows(self.workspace.splits[split], self.known)]
        asked = sample_rows(rows, ASKED_BEFORE, self.task.task.kind)
        count = len(self.new_test)
        score, gain = None, None
        if asked:
            here, then = score_estimate(self._production_answers(asked), self.task), self.production.score
            score = here.value
            gain = max(0.0, (then.high if then else 1.0) - here.low)
        seconds, price = self._seconds_of_study(), self.task.cost.machine_hour
        new = {row.id for row in self.new_test}
        old = [row for row in self.workspace.splits["test"] if row.id not in new and self.known[row.id].split == "test"]
        looks = [
            look_number(self.workspace.folder / OPENINGS, [row.id for row in rows], "") for rows in (old, self.new_test)
        ]
        effects = [
            assumed_variation([row.group for row in rows]).effect if rows else 1.0 for rows in (old, self.new_test)
        ]
        return RefreshPlan(
            old_questions=len(old),
            margin=self.task.target.margin,
            chance=chance_to_pass(
                len(old),
                count,
                SUPPOSED_GAIN,
                self.task.target.margin,
                (effects[0], effects[1]),
                (looks[0], max(looks[1], self._attempt())),
            ),
            production=self.production.number or 0,
            arm=self.production.arm,
            asked=len(asked),
            production_on_new=score,
            most_gain=gain,
            new_questions=count,
            smallest_shown=smallest_difference(count, assumed_variation([row.group for row in self.new_test]), 1)
            if count
            else None,
            seconds=seconds,
            price=seconds / 3600 * price.price if seconds is not None and price else None,
            currency=self.task.cost.currency,
        )

    def _train_on(self) -> None:
        """Continue training from production's weights, if these are tuned weights of the base model.

        This comes before the study: the newest weights of an arm are those that `ask` takes, and that shall be
        measured ones.
        """
        arm = self.bundled.arm
        tuned = is_trained(arm) and method_of(arm).staged and not {HEAD, REWARD} & set(arm.stages)
        if not tuned or self.record.run is not None:
            return
        adapter, rows = self.bundled.saved.folder / "adapter", self._replayed()
        run = train(
            self.task,
            arm.name,
            begin=adapter,
            only=rows,
            resume=self.record.training,
            begun=lambda name: self._keep(training=name),
            **self.given.options,
        )
        self._keep(run=run.id)

    def _replayed(self) -> frozenset[str]:
        """Return the ids of the rows to continue training on: the new ones, and a stratified sample of as many
        others."""
        rows = self.workspace.splits["train"]
        new = {row.id for row in new_rows(rows, self.known)}
        old = [row for row in rows if row.id not in new]
        kind = self.task.task.kind
        labels = len({row.references[0] for row in old}) if kind == "classify" else 1
        kept = sample_groups(
            old, max(len(new), labels), kind, every_label=kind == "classify", seed=self.task.data.split.seed
        )
        longest = max(rows, key=lambda row: len(row.references[0]))  # the room for answers is as long as the longest
        return frozenset({*new, longest.id, *(row.id for row in kept)})

    def _study(self, budget: str | None) -> str:
        """Return the ID of the study that makes the candidate from the base: a new one, or that of this refresh,
        resumed."""
        if self.record.study is not None:
            return self.record.study
        arms, newest = [self.production.arm], self._newest_study()
        # One that somebody began meanwhile by hand, of other arms, is none of this refresh.
        begun = (
            newest if newest != self.record.before and newest and selection(self._studies / newest) == arms else None
        )
        study(self.task, arms=arms, budget=None if begun else budget, resume=begun, **self.given.options)
        made = begun or self._newest_study() or ""
        self._keep(study=made)
        return made

    def _chosen(self, made: str) -> str:
        """Return the study or run whose weights score higher on dev; the study if both score the same."""
        run = self.record.run
        if run is None:
            return made
        if not self.record.trainings:
            self._measured(made)  # says why, where the study made none
            dev = self.session.workspace.subset("dev", DEV_QUESTIONS)
            scores = {source: score_estimate(self._answers(source, dev), self.task).value for source in (made, run)}
            best = max(scores, key=scores.__getitem__)
            trained = read_run(self.task.folder / FOLDER / RUNS / run)
            seconds = {
                made: self._measured(made).seconds or 0.0,
                run: trained.result.seconds if trained and trained.result else 0.0,
            }
            trainings = tuple(
                CandidateTraining(
                    way="from the base" if source == made else "from production",
                    source=source,
                    dev_score=score,
                    dev_questions=len(dev),
                    seconds=seconds[source],
                    kept=source == best,
                )
                for source, score in scores.items()
            )
            self._keep(trainings=trainings)
        return next(one.source for one in self.record.trainings if one.kept)

    def _candidate_answers(self, made: str, source: str) -> tuple[Sequence[Answer], ArmResult]:
        """Return the candidate's answers to the test questions of its study, and its result."""
        measured = self._measured(made)
        ours = load_answers(self._studies / made / "arms" / self.bundled.arm.name / ANSWERS)
        return (
            (ours, measured.result) if source == made else self._asked_once(CANDIDATE, ours, partial(self._ask, source))
        )

    def _gate(
        self,
        made: str,
        source: str,
        ours: Sequence[Answer],
        theirs: Sequence[Answer],
        outdated: Sequence[str],
        candidate: ArmResult,
        production: ArmResult,
    ) -> GateRecord:
        """Compare both arms' answers, their latencies, and their losses on general text."""
        new = {row.id for row in self.new_test}
        old = [row.id for row in self.workspace.splits["test"] if row.id not in new]
        openings = self.workspace.folder / OPENINGS
        asked = {one.item_id for one in theirs}
        rows = [row for row in self.workspace.splits["test"] if row.id in asked]
        return candidate_gate(
            ours,
            theirs,
            new=new,
            outdated=outdated,
            learnt=[item for item in old if self.known[item].split != "test"],
            task=self.task,
            old_look=look_number(openings, old, made),
            new_look=max(look_number(openings, sorted(new), made), self._attempt()),
            first=self._first_answers(),
            forgetting=self._forgetting(source),
            latency=latency_held(candidate, production, *self._timed_in_turn(source, rows), self.task),
        )

    def _attempt(self) -> int:
        """Return which refresh of the version in production this is that comes to the gate."""
        gates = (file for file in self.home.glob(f"*/{GATE}") if file.parent != getattr(self, "folder", None))
        records = (read_record(file.parent / RECORD, _RefreshRecord) for file in gates)
        return 1 + sum(record.production == self.production.number for record in records)

    def _first_answers(self) -> Sequence[Answer] | None:
        """Return the test answers of the first version of production's line; none where production is the first, None
        where they are gone."""
        first = self.production
        while first.parent is not None:
            first = self.versions.show(first.parent)
        if first.number == self.production.number:
            return ()
        file = self._studies / first.source / "arms" / first.arm / ANSWERS
        return load_answers(file) if file.is_file() else None

    def _timed_in_turn(self, source: str, rows: Sequence[Example]) -> tuple[list[float], list[float]]:
        """Return the seconds of single questions asked of the candidate and of production in turn, so that other
        load affects both alike."""
        arm, ours, theirs = self.bundled.arm, [], []
        candidate, production = self._candidate_runner(rows), self._production_runner(rows)
        for _ in range(TURNS):
            theirs += production.time_alone(arm, production.reuse(arm, self.bundled.saved))
            ours += candidate.time_alone(arm, candidate.reuse(arm, self._saved(source)))
        return ours, theirs

    def _forgetting(self, source: str) -> Forgetting | None:
        """Compare both arms' losses on general text; None if the base model's weights are not changed."""
        arm = self.bundled.arm
        if not is_trained(arm) or not method_of(arm).uses_base:
            return None
        candidate, production = self._saved(source).folder, self.bundled.saved.folder
        return forgetting(self.bundled.session, candidate / "adapter", production / "adapter")

    def _let_through(
        self, source: str, measured: ArmResult, found: GateRecord
    ) -> tuple[RefreshOutcome, str, int | None]:
        """Register and promote a candidate that passed its gate. Return the outcome, a sentence, and the number of
        the version."""
        if not found.passed:
            shown = "" if found.passed is False else " (nothing is shown, which is no pass)"
            return "not passed", f"The candidate is not let through{shown}: {'; '.join(found.reasons)}.", None
        number = self._registered(source, measured)
        self._promote(number, CANDIDATE, f"refresh {self.folder.name}", found)
        passed = f"Version {number} passed its gate ({LET_THROUGH})"
        if upkeep_of(self.task).promote == "if-better":
            self._promote(number, PRODUCTION, f"refresh: {LET_THROUGH}", found)
            return "promoted", f"{passed} and is in production.", number
        again = self.task.command("canary start")
        return "candidate", f"{passed} and is {CANDIDATE}; try it on a share of the users: {again}.", number

    def _registered(self, source: str, measured: ArmResult) -> int:
        """Return the number of the candidate's version, which is registered once, however often a refresh resumes."""
        number = self.record.candidate
        if number is None:
            arm = self.production.arm
            # A refresh that was killed between the version and its own record finds it by its source.
            there = [one.version for one in self.versions.list() if (one.source, one.arm) == (source, arm)]
            number = there[0] if there else self._register(arm, source, measured)
            self._keep(candidate=number)
        return number

    def _register(self, arm: str, source: str, measured: ArmResult) -> int:
        score, found = None, measured.score
        if found is not None:
            score = VersionScore(value=found.value, low=found.low, high=found.high, n=found.n, metric=self.task.metric)
        made = self.versions.register(
            arm,
            run=source,
            parent=self.production.number,
            by=self.given.by,
            allow=self.given.allow,
            listeners=self.given.listeners,
            score=score,
        )
        return made.number or 0

    def _promote(self, number: int, alias: str, why: str, found: GateRecord) -> None:
        """Point an alias to the candidate, unless it does already.

        Raises InputError where production is no longer the version that the candidate was compared with.
        """
        now = self.versions.current(PRODUCTION).number
        if now not in (self.production.number, number):
            raise InputError(
                f"{PRODUCTION} named version {self.production.number} when the refresh began, "
                f"and names version {now} now",
                f"the gate says nothing of that one; begin anew with: {self.task.command('refresh')}",
                file=self.versions.name,
            )
        with suppress(MissingError):
            if self.versions.current(alias).number == number:
                return
        self.versions.promote(number, alias, why=why, evidence=found, by=self.given.by)

    # ---- asking

    @cached_property
    def session(self) -> Session:
        """Return the models with the task's present rows and documents."""
        return self.ctx.session(self.bundled.session.precision)

    def _runner(self, session: Session) -> ArmRunner:
        return ArmRunner(session, self.ctx.scorer, self.ctx.progress(arm=self.bundled.arm.name))

    def _candidate_runner(self, rows: Sequence[Example]) -> ArmRunner:
        """Return a runner of the candidate with these rows in place of the test questions."""
        self.session.workspace = replace(self.workspace, splits={**self.workspace.splits, "test": tuple(rows)})
        return self._runner(self.session)

    def _production_runner(self, rows: Sequence[Example]) -> ArmRunner:
        """Return a runner of production with these rows: its own weights, index, documents, shots and instruction,
        scored as the task says."""
        session = self.bundled.session
        scored = _scored_as(session.workspace.task, self.task, self.bundled.arm.name)
        session.task = scored
        session.workspace = replace(
            session.workspace, task=scored, splits={**session.workspace.splits, "test": tuple(rows)}
        )
        return self._runner(session)

    def _answers(self, source: str, rows: Sequence[Example]) -> list[Answer]:
        """Return the answers of the weights of a study or run to rows."""
        runner, arm = self._candidate_runner(rows), self.bundled.arm
        return runner.answers_to(arm, runner.reuse(arm, self._saved(source)), rows)

    def _production_answers(self, rows: Sequence[Example]) -> list[Answer]:
        runner, arm = self._production_runner(rows), self.bundled.arm
        return runner.answers_to(arm, runner.reuse(arm, self.bundled.saved), rows)

    def _ask(self, source: str, rows: Sequence[Example]) -> tuple[list[Answer], ArmResult]:
        """Measure the weights of a study or run on rows."""
        runner, arm = self._candidate_runner(rows), self.bundled.arm
        outcome = runner.measure(arm, runner.reuse(arm, self._saved(source)), "test")
        return list(outcome.answers), outcome.result

    def _ask_production(self, rows: Sequence[Example]) -> tuple[list[Answer], ArmResult]:
        """Measure production on rows."""
        runner, arm = self._production_runner(rows), self.bundled.arm
        outcome = runner.measure(arm, runner.reuse(arm, self.bundled.saved), "test")
        return list(outcome.answers), outcome.result

    def _asked_once(
        self,
        name: str,
        ours: Sequence[Answer],
        ask: Callable[[Sequence[Example]], tuple[list[Answer], ArmResult]],
    ) -> tuple[Sequence[Answer], ArmResult]:
        """Return answers to the test questions of the study, and their result; stored as files, and not asked again."""
        file, result = self.folder / f"{name}.parquet", self.folder / f"{name}.json"
        if not (file.is_file() and result.is_file()):
            items = {one.item_id for one in ours}
            answers, found = ask([row for row in self.workspace.splits["test"] if row.id in items])
            save_answers(file, answers)
            write_record(result, found)
        return load_answers(file), read_record(result, ArmResult)

    # ---- what is kept

    @property
    def _studies(self) -> Path:
        return self.task.folder / FOLDER / STUDIES

    def _newest_study(self) -> str | None:
        pointer = self._studies / "latest"
        return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None

    def _seconds_of_study(self) -> float | None:
        """Return the seconds in which production's arm was made and measured; None if its study is not here."""
        record = read_arm(self._studies / self.production.source / "arms" / self.production.arm)
        return record.seconds if record else None

    def _measured(self, made: str) -> ArmRecord:
        """Return the record of the candidate's arm in its study; raises InputError with the reason if it was not
        measured."""
        folder, arm = self._studies / made, self.bundled.arm.name
        record = read_arm(folder / "arms" / arm)
        if record is None:
            finished = read_result(folder)
            why = next((one.why for one in (finished.arms if finished else ()) if one.arm == arm), None)
            problem = f"the candidate could not be made: {why or 'its study did not end'}"
            remedy = f"see {folder / 'report.html'}" if finished else f"begin anew: {self.task.command('refresh')}"
            raise InputError(problem, remedy, file=folder)
        return record

    def _saved(self, source: str) -> SavedArm:
        """Return the arm with its weights of a study or run."""
        saved = find_saved(self.task, parse_arm(self.bundled.arm.name, self.task), source)
        if saved is None:
            again = self.task.command("study")
            raise MissingError(f"{source}: holds no arm {self.bundled.arm.name}; measure it again with: {again}")
        return saved

    def _known(self, folder: Path) -> dict[str, KnownRow]:
        """Return the rows that production was made from and measured on."""
        home = self.task.folder / FOLDER
        places = (folder, *(home / kind / self.production.source for kind in (STUDIES, RUNS)))
        known = next((rows for place in places if (rows := read_known_rows(place)) is not None), None)
        if known is None:
            raise MissingError(
                f"{self.versions.name}: the rows that version {self.production.number} was made from are not "
                f"recorded any more; measure the arm again: {self.task.command('study')}; then "
                f"{self.task.command('registry register')}, and "
                + self.task.command('registry promote VERSION --why "…"')
            )
        return known

    def _to_go_on_with(self) -> Path:
        """Return the folder of the newest refresh, which must be unfinished."""
        newest = max(self.home.glob(f"*/{RECORD}"), default=None)
        record = read_record(newest, _RefreshRecord) if newest else None
        if newest is None or record is None or record.done:
            raise MissingError(f"{self.home}: no refresh was stopped; begin one with: {self.task.command('refresh')}")
        if record.production != self.production.number:
            raise InputError(
                f"it began with version {record.production} in production, "
                f"which is version {self.production.number} now",
                f"begin anew with: {self.task.command('refresh')}",
                file=newest,
            )
        return newest.parent

    def _keep(self, **changes: Any) -> None:
        """Write the record with changed fields."""
        self.record = replace(self.record, **changes)
        write_record(self.folder / RECORD, self.record)


def _scored_as(bundled: Task, task: Task, arm: str) -> Task:
    """Return the task of a bundle with everything of the present task that scores answers; what it answers from
    stays its own."""
    scoring = {name: getattr(task.task, name) for name in ("metric", "format", "scorer")}
    return bundled.model_copy(
        update={
            "task": bundled.task.model_copy(update=scoring),
            "data": task.data,  # documents and shots of a bundle stand in its workspace, whatever files the task names
            "arm": task.arm,
            "study": task.study.model_copy(update={"arms": (arm,)}),
            "labels": task.labels,
            "target": task.target,
            "cost": task.cost,
            "file": task.file,
        }
    )


def _refuse_leaks(workspace: Workspace) -> None:
    """Raise InputError if a question of a former test set is a row to train on, and was not retired from that set."""
    learnt = {row.id for split in ("train", "dev") for row in workspace.splits[split]}
    torn = sorted((opened_items(workspace) - retired_items(workspace)) & learnt)
    if torn:
        raise InputError(
            f"{len(torn)} questions of a former test set are rows to train on now ({', '.join(torn[:3])})",
            f"restore {workspace.folder / 'splits.parquet'}, which says where each row stands, from a copy",
            file=workspace.task.file,
        )
