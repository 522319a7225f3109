"""`refresh`: makes the next version of the arm in production from new data, and promotes it only if it is shown to
be better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.arms.bundle import BundledArm, open_bundle
from trimtab.arms.dev_eval import DEV_QUESTIONS
from trimtab.arms.fingerprint import fingerprint_rows
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
from trimtab.base.machine import user_name
from trimtab.base.progress import Listener
from trimtab.base.records import Answer, Example, Split
from trimtab.base.results import ArmRecord, ArmResult
from trimtab.base.task import TASK_FILE, Task, as_task, parse_arm
from trimtab.data.draw import sample_groups, sample_rows
from trimtab.measurement.evaluate import load_answers, save_answers
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.power import assumed_variation, smallest_difference
from trimtab.measurement.scorer import ScorerFunction
from trimtab.retrieval.chunk import chunk_document
from trimtab.studies.paths import selection
from trimtab.studies.record import OPENINGS, look_number, opened_items, retired_items
from trimtab.studies.run_context import RunContext, run_context
from trimtab.studies.study import study
from trimtab.studies.train import train
from trimtab.upkeep.config import upkeep_of
from trimtab.upkeep.data_changes import (
    LabelledRows,
    compare_data,
    labelled_rows,
    new_rows,
)
from trimtab.upkeep.forgetting import forgetting
from trimtab.upkeep.gate import (
    INDEX_DISCORDANCE,
    candidate_gate,
    chance_not_worse,
    chance_to_pass,
    independent_discordance,
    latency_held,
    new_discordance,
)
from trimtab.upkeep.index_update import (
    MOST_ASKED,
    former_passages,
    learns_no_row,
    reads_documents_alone,
    updated_session,
    updated_version,
    write_updated,
)
from trimtab.upkeep.refresh_plan import (
    SUPPOSED_GAIN,
    CandidateTraining,
    RefreshOutcome,
    RefreshPlan,
    RefreshResult,
)
from trimtab.upkeep.register import Measurement, version_score
from trimtab.upkeep.registry import CANDIDATE, PRODUCTION, Registry, registry
from trimtab.upkeep.statements import StatedFacts, outdated_rows
from trimtab.upkeep.versions import Forgetting, GateLatency, GateRecord, Version

REFRESHES, RECORD, GATE, RESULT = "refreshes", "refresh.json", "gate.json", "result.json"
TURNS, TIMED = 3, 20  # turns in which candidate and production are timed, and the questions of each
ASKED_BEFORE = 100  # new rows, none of them of the test, that production is asked before anything is made
LET_THROUGH = {"weights": "better on new questions, not worse on old ones", "index": "not worse with today's documents"}


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
    documents: bool = False,
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

    Where nothing could show new weights to be better, and the arm reads documents that changed, its index alone is
    made anew: the candidate has to be not worse on the questions that still hold. Without training, that takes as long
    as asking these. A version that is made so is registered unless it is shown to be worse, and the alias `candidate`
    names it once it passed; with `documents = "if-not-worse"` in the task file `production` does too.

    Else the candidate has to be better on test questions that came or changed since, and not worse by the margin on
    those that production was measured on; general text must not be forgotten, and the latency must fit
    (`gate.candidate_gate`). Where all of that is shown it is registered, the alias `candidate` names it, and
    with `promote = "if-better"` in the task file `production` does too. "Not shown" is no pass.

    `budget` is that of the study that makes it. `resume` goes on with the refresh that was stopped; `anyway` makes
    the candidate even where the plan says that nothing could be shown; `documents` updates the index alone. `dry_run`
    ends with the plan: new rows are put into their splits, and rows of labels are written, but nothing is made.

    `address`, `artifacts`: the registry, as `registry` has them; `store`: that of traffic and its labels. `by`: who
    promotes. `allow`, `allow_commands`, `scorer` and `listeners` are those of `study`. Raises MissingError where
    nothing is in production, BusyError beside another refresh, InputError where rows of a former test set would be
    trained on.
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
            return run.run(budget=budget, resume=resume, anyway=anyway, documents=documents, dry_run=dry_run)


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
        self.release = release
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

    def run(self, *, budget: str | None, resume: bool, anyway: bool, documents: bool, dry_run: bool) -> RefreshResult:
        """Run all steps, or the remaining ones."""
        if resume:
            self.folder = self._to_go_on_with()
            self.record = read_record(self.folder / RECORD, _RefreshRecord)
        else:
            if self.changes.nothing:
                again = self.task.command("drift")
                sentence = f"{self.changes.sentence} Add rows or documents; {again} tells what changed in use."
                return RefreshResult(outcome="nothing new", sentence=sentence, changes=self.changes)
            plan = self._plan(documents)
            made = self._made_before() if plan.way == "index" else None
            if made is not None and not anyway:
                return RefreshResult(outcome="nothing new", sentence=made, changes=self.changes, outdated=self.outdated)
            self.ctx.note(f"{self.changes.sentence} {plan.sentence}")
            if dry_run or not (plan.worth_it or anyway):
                outcome: RefreshOutcome = "planned" if dry_run else "not worth it"
                return RefreshResult(
                    outcome=outcome, sentence=plan.sentence, changes=self.changes, plan=plan, outdated=self.outdated
                )
            self.folder = new_folder(self.home, (self.production.artifact_sha256 or "")[:6])
            self.record = _RefreshRecord(
                production=self.production.number or 0,
                when=datetime.now(UTC).isoformat(),
                before=self._newest_study(),
                plan=plan,
            )
            self._keep()
        self.ctx.goes_on_with("refresh --resume")
        return self._made(budget) if self.record.plan.way == "weights" else self._updated()

    # ---- which questions still hold

    @cached_property
    def facts(self) -> StatedFacts:
        """Return what the documents of today state, to be compared with production's."""
        return StatedFacts(self.bundled.session.workspace.documents, self.workspace.documents)

    def _outdated(self, rows: Sequence[Example]) -> tuple[str, ...]:
        """Return the ids of rows that production knew and whose right answer the documents hold no more, now or when
        production was measured."""
        new = {row.id for row in new_rows(rows, self.known)}
        before = [row.id for row in rows if row.id in self.production.outdated and row.id not in new]
        asked = [row for row in rows if row.id not in {*new, *before}]
        if not (self.bundled.arm.retrieves and self.changes.documents_differ):
            return tuple(before)
        return (*before, *outdated_rows(asked, self.facts, partial(former_passages, self.bundled)))

    @cached_property
    def outdated(self) -> tuple[str, ...]:
        """Return the ids of the test questions that are left out."""
        return self._outdated(self.workspace.splits["test"])

    def _made(self, budget: str | None) -> RefreshResult:
        """Make the candidate, ask both arms, and apply the gate."""
        self._train_on()
        made = self._study(budget)
        source = self._chosen(made)
        ours, candidate = self._candidate_answers(made, source)
        theirs, production = self._asked_once(PRODUCTION, ours, self._ask_production)
        found = self._gate(
            ours,
            theirs,
            old_look=self._looks_at_old(made),
            new_look=max(self._look(sorted(row.id for row in self.new_test), made), self._attempt()),
            forgetting=self._forgetting(source),
            latency=latency_held(candidate, production, *self._timed_in_turn(source, theirs), self.task),
        )
        if found.passed:
            number = self._registered(source, candidate, ours)
            outcome, sentence = self._let_through(number, found)
        else:
            number, outcome, sentence = None, "not passed", _not_let_through(found)
            if self._index_alone:
                alone = self.task.command("refresh --documents")
                sentence += f" Today's documents may pass without new weights: {alone}"
        return self._finish(outcome, sentence, found, number, made)

    def _finish(
        self, outcome: RefreshOutcome, sentence: str, found: GateRecord, number: int | None, made: str | None
    ) -> RefreshResult:
        """Return the result, and write it with the gate's record."""
        write_record(self.folder / GATE, found)
        if outdated := self.outdated:
            names = f"{', '.join(outdated[:3])}{' …' if len(outdated) > 3 else ''}"
            sentence += (
                f" {len(outdated)} old test questions rest on facts that the documents hold no more, and were left "
                f"out: answer them anew ({names})."
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
            outdated=self.outdated,
            trainings=self.record.trainings,
        )
        write_record(self.folder / RESULT, result)
        return result

    # ---- steps

    @property
    def _index_alone(self) -> bool:
        """True if documents changed that reach production's arm by its index."""
        return reads_documents_alone(self.bundled.arm) and self.changes.documents_differ

    def _made_before(self) -> str | None:
        """Say which version is production's arm with the documents of today; None if there is none."""
        now = fingerprint_rows(self.workspace)["documents"]
        same = [
            one
            for one in self.versions.lineage().versions
            if one.parent == self.production.number
            and (one.source, one.documents_sha256) == (self.production.source, now)
        ]
        if not same or same[-1].number in self.versions.lineage().collected:
            return None
        promote = self.task.command(f'registry promote {same[-1].number} --why "…"')
        return (
            f"Version {same[-1].number} answers from today's documents already, {same[-1].scored}; "
            f"put it into production: {promote}, or make it again with --anyway."
        )

    def _plan(self, documents: bool) -> RefreshPlan:
        """Forecast new weights, or the index alone, where that is asked for or new weights could show nothing."""
        if documents and not self._index_alone:
            raise InputError(
                f"nothing to update: {self.bundled.arm.name} reads no documents, or they did not change",
                f"leave it out: {self.task.command('refresh')}",
                field="--documents",
            )
        plan = None if documents else self._plan_of_weights()
        return plan if plan and (plan.worth_it or not self._index_alone) else self._plan_of_index()

    def _plan_of_index(self) -> RefreshPlan:
        """Forecast whether production with today's documents can be shown to be not worse."""
        old = [row for row in self._asked_of_index() if row.id in self.known]
        discordance = min(INDEX_DISCORDANCE, independent_discordance(self.production.score))
        return RefreshPlan(
            way="index",
            production=self.production.number or 0,
            arm=self.production.arm,
            asked=0,
            production_on_new=None,
            most_gain=None,
            new_questions=len(self.new_test),
            smallest_shown=None,
            seconds=None,
            price=None,
            currency=self.task.cost.currency,
            old_questions=len(old),
            margin=self.task.target.margin,
            chance=chance_not_worse(
                len(old), self.task.target.margin, discordance, _effect(old), self._looks_at_old("")
            ),
            outdated=len(self.outdated),
            facts_gone=self._facts_gone(),
        )

    def _plan_of_weights(self) -> RefreshPlan:
        """Ask production new rows that are not in the test set, and forecast what the test could show."""
        rows = [row for split in ("train", "dev") for row in new_rows(self.workspace.splits[split], self.known)]
        asked = sample_rows(rows, ASKED_BEFORE, self.task.task.kind)
        count, then = len(self.new_test), self.production.score
        score, most, gain = None, None, SUPPOSED_GAIN
        if asked:
            here = score_estimate(self._production_answers(asked), self.task)
            score, most = here.value, max(0.0, (then.high if then else 1.0) - here.low)
            gain = max(SUPPOSED_GAIN, (then.value if then else 0.0) - here.value)
        seconds, price = self._seconds_of_study(), self.task.cost.machine_hour
        old = self._old_questions()
        names = [row.id for row in self.new_test]
        return RefreshPlan(
            old_questions=len(old),
            outdated=len(self.outdated) if count else 0,
            margin=self.task.target.margin,
            gain=gain,
            chance=chance_to_pass(
                len(old),
                count,
                gain,
                self.task.target.margin,
                (_effect(old), _effect(self.new_test)),
                (self._looks_at_old(""), max(self._look(names, ""), self._attempt())),
                independent_discordance(then),
                new_discordance(score, gain),
            ),
            production=self.production.number or 0,
            arm=self.production.arm,
            asked=len(asked),
            production_on_new=score,
            most_gain=most,
            new_questions=count,
            smallest_shown=smallest_difference(count, assumed_variation([row.group for row in self.new_test]), 1)
            if count
            else None,
            seconds=seconds,
            price=seconds / 3600 * price.price if seconds is not None and price else None,
            currency=self.task.cost.currency,
        )

    def _old_questions(self) -> list[Example]:
        """Return the test questions that production was measured on, and that still hold."""
        new = {row.id for row in self.new_test}
        left_out = {*new, *self.outdated}
        test = self.workspace.splits["test"]
        return [row for row in test if row.id not in left_out and self.known[row.id].split == "test"]

    def _asked_of_index(self) -> list[Example]:
        """Return the rows that an update of the index is measured on: test questions that hold, and rows of dev, for
        arms that learn from no row those of train, too, as both indexes are asked by the same weights."""
        splits: tuple[Split, ...] = ("dev", "train") if learns_no_row(self.bundled.arm) else ("dev",)
        more = [row for split in splits for row in self.workspace.splits[split] if row.id in self.known]
        more = list(sample_rows(more, MOST_ASKED, self.task.task.kind))
        left_out = {*self.outdated, *self._outdated(more)}
        return [row for row in (*self.workspace.splits["test"], *more) if row.id not in left_out]

    def _facts_gone(self) -> int:
        """Return how many sentences of production's documents are stated no more."""
        former = self.bundled.session.workspace.documents
        passages = (one for document in former for one in chunk_document(document))
        return len({(one.document, lost.text) for one in passages for lost in self.facts.lost(one)})

    def _look(self, items: Sequence[str], made: str) -> int:
        """Return which study of these questions `made` is, since the one that measured production."""
        return look_number(self.workspace.folder / OPENINGS, items, made, since=self.production.source)

    def _looks_at_old(self, made: str) -> int:
        """Return which look at the old questions a gate is: by studies since production's, or by refreshes of it."""
        return max(self._look([row.id for row in self._old_questions()], made), self._attempt())

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
        ours: Sequence[Answer],
        theirs: Sequence[Answer],
        *,
        old_look: int,
        new_look: int,
        forgetting: Forgetting | None,
        latency: GateLatency | None,
        of_index: bool = False,
    ) -> GateRecord:
        """Compare both arms' answers to the questions that hold, their latencies, and their losses on general text."""
        known = self.known.items()
        if not of_index:
            learnt = [name for name, row in known if row.split != "test"]
        else:
            learns_none = learns_no_row(self.bundled.arm)
            learnt = [name for name, row in known if row.split == "train" and not learns_none]
        rows = [row for part in self.workspace.splits.values() for row in part]
        return candidate_gate(
            ours,
            theirs,
            new={row.id for row in new_rows(rows, self.known)},
            outdated=self.outdated,
            learnt=learnt,
            task=self.task,
            old_look=old_look,
            new_look=new_look,
            first=self._first_answers(),
            forgetting=forgetting,
            latency=latency,
            of_index=of_index,
        )

    def _updated(self) -> RefreshResult:
        """Make production's index anew, ask both, apply the gate, and register what is not shown to be worse."""
        rows = self._asked_of_index()
        new = {row.id for row in self.workspace.splits["test"]}
        test, more = ([row for row in rows if (row.id in new) is held] for held in (True, False))
        session = updated_session(self.bundled, self.workspace, self.folder / "updated")
        before, runner = self._runner_of(self.bundled.session, test), self._runner_of(session, test)
        theirs, production = self._kept_answers(PRODUCTION, before, more)
        ours, candidate = self._kept_answers(CANDIDATE, runner, more)
        turns = [(self._time_alone(before), self._time_alone(runner)) for _ in range(TURNS)]
        their_seconds, our_seconds = zip(*turns, strict=True)
        found = self._gate(
            ours,
            theirs,
            old_look=self._looks_at_old(""),
            new_look=self._attempt(),
            forgetting=None,
            latency=latency_held(candidate, production, our_seconds, their_seconds, self.task),
            of_index=True,
        )
        if found.passed is False:
            return self._finish("not passed", _not_let_through(found), found, None, None)
        number = self._registered_update(session, candidate, ours)
        if found.passed:
            return self._finish(*self._let_through(number, found), found, number, None)
        scored = self.versions.show(number).scored
        decide = self.task.command(f'registry promote {number} --why "…"')
        said = (
            f"Version {number} answers from today's documents, {scored}, and production scores "
            f"{found.old_test.production if found.old_test else 0:.3f} on the old questions that hold. "
            f"{_not_let_through(found)} You decide: {decide}, or let users compare: "
            f"{self.task.command(f'canary start --version {number}')}."
        )
        return self._finish("not passed", said, found, number, None)

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
        with TemporaryDirectory() as scratch, suppress(InputError):  # its files were collected
            kept = Path(scratch) / ANSWERS
            if self.versions.artifacts.get_file(first.artifact_sha256 or "", ANSWERS, kept):
                return load_answers(kept)
        file = self._studies / first.source / "arms" / first.arm / ANSWERS
        return load_answers(file) if file.is_file() else None

    def _timed_in_turn(self, source: str, answers: Sequence[Answer]) -> tuple[list[list[float]], list[list[float]]]:
        """Return the seconds of single questions, a list for each turn, asked of the candidate and of production in
        turn, so that other load affects both alike."""
        arm, ours, theirs = self.bundled.arm, [], []
        asked = {one.item_id for one in answers}
        rows = [row for row in self.workspace.splits["test"] if row.id in asked]
        candidate, production = self._candidate_runner(rows), self._production_runner(rows)
        for _ in range(TURNS):
            theirs.append(self._time_alone(production))
            ours.append(candidate.time_alone(arm, candidate.reuse(arm, self._saved(source)), TIMED))
        return ours, theirs

    def _time_alone(self, runner: ArmRunner) -> list[float]:
        """Return the seconds of single questions asked of a runner with production's weights."""
        return runner.time_alone(self.bundled.arm, runner.reuse(self.bundled.arm, self.bundled.saved), TIMED)

    def _forgetting(self, source: str) -> Forgetting | None:
        """Compare both arms' losses on general text; None if the base model's weights are not changed."""
        arm = self.bundled.arm
        if not is_trained(arm) or not method_of(arm).uses_base:
            return None
        candidate, production = self._saved(source).folder, self.bundled.saved.folder
        return forgetting(self.bundled.session, candidate / "adapter", production / "adapter")

    def _let_through(self, number: int, found: GateRecord) -> tuple[RefreshOutcome, str]:
        """Promote a version that passed its gate; return the outcome and a sentence."""
        way = self.record.plan.way
        self._promote(number, CANDIDATE, f"refresh {self.folder.name}", found)
        passed = f"Version {number} passed its gate ({LET_THROUGH[way]})"
        settings = upkeep_of(self.task)
        if (settings.documents == "if-not-worse") if way == "index" else (settings.promote == "if-better"):
            self._promote(number, PRODUCTION, f"refresh: {LET_THROUGH[way]}", found)
            return "promoted", f"{passed} and is in production."
        promote = f'registry promote candidate --why "{LET_THROUGH[way]}"'
        return "candidate", (
            f"{passed}. The alias {CANDIDATE} names it; try it on a share of the users: "
            f"{self.task.command('canary start')}, or put it into production: {self.task.command(promote)}."
        )

    def _registered(self, source: str, measured: ArmResult, answers: Sequence[Answer]) -> int:
        """Register the candidate once, however often a refresh resumes, by its score on the questions that hold."""
        measurement = Measurement(result=measured, answers=self._that_hold(answers), outdated=self.outdated)
        arm = self.production.arm

        def register() -> int:
            made = self.versions.register(
                arm,
                run=source,
                parent=self.production.number,
                by=self.given.by,
                allow=self.given.allow,
                listeners=self.given.listeners,
                measured=measurement,
            )
            return made.number or 0

        return self._once(register, lambda one: (one.source, one.arm) == (source, arm))

    def _registered_update(self, session: Session, measured: ArmResult, answers: Sequence[Answer]) -> int:
        """Register production with today's documents, once."""
        with TemporaryDirectory(prefix="registering-", dir=self.task.folder / FOLDER) as scratch:
            folder = Path(scratch) / "bundle"
            asked = {row.id for row in session.workspace.splits["test"]}
            score = version_score([one for one in answers if one.item_id in asked], self.task)
            write_updated(self.bundled, session, measured, answers, self.release.folder, folder)
            by = self.given.by or user_name()
            draft = updated_version(self.production, self.workspace, folder, score, self.outdated, by)
            return self._once(
                lambda: self.versions.add(draft, folder).number or 0,
                lambda one: (one.parent, one.index_sha256) == (draft.parent, draft.index_sha256),
            )

    def _once(self, register: Callable[[], int], is_it: Callable[[Version], bool]) -> int:
        """Return the candidate's number; a refresh that was killed before it kept the number finds the version."""
        number = self.record.candidate
        if number is None:
            there = [one.number for one in self.versions.lineage().versions if is_it(one)]
            number = there[-1] if there else register()
            self._keep(candidate=number)
        return number or 0

    def _that_hold(self, answers: Sequence[Answer]) -> list[Answer]:
        return [one for one in answers if one.item_id not in self.outdated]

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
        """Return a runner of production with these rows: its own weights, index, documents, shots and instruction."""
        return self._runner_of(self.bundled.session, rows)

    def _runner_of(self, session: Session, rows: Sequence[Example]) -> ArmRunner:
        """Return a runner of production's arm in a session of its bundle, scored as the task says."""
        scored = _scored_as(session.workspace.task, self.task, self.bundled.arm.name)
        session.task = scored
        session.workspace = replace(
            session.workspace, task=scored, splits={**session.workspace.splits, "test": tuple(rows)}
        )
        return self._runner(session)

    def _kept_answers(
        self, name: str, runner: ArmRunner, more: Sequence[Example]
    ) -> tuple[Sequence[Answer], ArmResult]:
        """Return the answers of production's weights to the test questions of a runner and to `more` rows, and their
        result of the former; stored as files, and not asked again."""
        file, result = self.folder / f"{name}.parquet", self.folder / f"{name}.json"
        if not (file.is_file() and result.is_file()):
            arm, saved = self.bundled.arm, self.bundled.saved
            measured = runner.measure(arm, runner.reuse(arm, saved), "test")
            save_answers(file, [*measured.answers, *runner.answers_to(arm, runner.reuse(arm, saved), more)])
            write_record(result, measured.result)
        return load_answers(file), read_record(result, ArmResult)

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


def _effect(rows: Sequence[Example]) -> float:
    """Return the design effect of the groups of rows."""
    return assumed_variation([row.group for row in rows]).effect if rows else 1.0


def _not_let_through(found: GateRecord) -> str:
    shown = "" if found.passed is False else " (nothing is shown, which is no pass)"
    return f"The candidate is not let through{shown}: {'; '.join(found.reasons)}."


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
