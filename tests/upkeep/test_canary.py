"""Canaries in the registry: one at a time, ended once, in one transaction with the move; decided by users, errors
and latency."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judged import BEGIN, judgement, served_answer
from registered import Add
from typer.testing import CliRunner

import trimtab
from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import Task, load_task
from trimtab.cli.main import app
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.releases import Canary
from trimtab.serving.traffic_store import Label, traffic_of, user_key
from trimtab.upkeep import canary as module
from trimtab.upkeep.canary import Canaries, days_known
from trimtab.upkeep.canary_functions import user_outcomes
from trimtab.upkeep.canary_records import CanaryRecord
from trimtab.upkeep.registry import Registry, registry
from trimtab.upkeep.tables import CANARY_TALLIES
from trimtab.upkeep.user_comparison import UserOutcome
from trimtab.upkeep.versions import GateRecord, Move, Version, VersionScore

USERS = [user_key(f"user-{number}") for number in range(120)]
Open = Callable[..., Canaries]


@pytest.fixture
def watched(task: Task) -> Task:
    """The task with a store of traffic, where no person is asked."""
    task.file.write_text(task.file.read_text() + '[traffic]\nshare = 1.0\n[upkeep]\npromote = "if-better"\n')
    return load_task(task.file)


@pytest.fixture
def said() -> list[UserOutcome]:
    """Return the outcomes of users so far, which tests append to: of an older version, by all of them."""
    return [outcome(user, "0", 1.0, -20.0) for user in USERS]


def outcome(user: str, version: object, right: float, days: float = 1e-4) -> UserOutcome:
    """An outcome, `days` from now on."""
    return UserOutcome(user=user, version=str(version), right=right, when=datetime.now(UTC) + timedelta(days=days))


@pytest.fixture
def opening(
    opened: Registry, add: Add, watched: Task, place: str, said: list[UserOutcome], tmp_path: Path
) -> Iterator[Open]:
    """Opens the canaries of a registry with version 1 in production and candidate 2, as another process would."""
    for text in "abc":
        add(opened, text)
    opened.promote(1, why="the first")
    opened.promote(2, "candidate", why="to try")
    made: list[Canaries] = []

    def again(task: Task = watched) -> Canaries:
        artifacts = tmp_path / ".trimtab" / "artifacts"
        own = registry(task, place, artifacts=artifacts, make=False)
        made.append(Canaries(own, store=None, judged=lambda since: said))
        return made[-1]

    yield again
    for one in made:
        one.close()


def judges(canary: Canary, said: list[UserOutcome], candidate: float, production: float) -> None:
    """Have every user judge one answer of the version that answers them."""
    for user in USERS:
        takes = canary.takes(user)
        version = canary.candidate if takes else canary.production
        said.append(outcome(user, version, candidate if takes else production))


def test_a_better_candidate_is_promoted_with_the_record_as_evidence(
    opening: Open, opened: Registry, said: list[UserOutcome], tmp_path: Path
) -> None:
    one = opening()
    begun = one.start(share=0.5, why="fresher documents").canary
    assert (begun.number, begun.candidate, begun.production) == (1, 2, 1)
    assert opened.canary() == begun
    assert one.status().record is None
    judges(begun, said, 1.0, 0.0)
    record = one.status().record
    assert record is not None
    assert (record.outcome, record.passed) == ("promoted", True)
    assert opened.current().number == 2
    move = opened.history("production")[0]
    assert move.evidence == record
    assert from_plain(Move, to_plain(move)) == move
    gate = GateRecord(old_test=None, new_test=None, forgetting=None, latency=None, passed=True)
    assert from_plain(Move, to_plain(replace(move, evidence=gate))).evidence == gate
    assert opened.canary() is None
    opened.lineage(tmp_path / "lineage.html")
    assert "promoted, after a canary" in (tmp_path / "lineage.html").read_text()
    assert one.status().record == record
    assert opening().status().record == record


def test_with_promote_ask_a_better_candidate_waits_for_a_person(
    opening: Open, opened: Registry, watched: Task, place: str, said: list[UserOutcome]
) -> None:
    watched.file.write_text(watched.file.read_text().replace("if-better", "ask"))
    begun = opening(load_task(watched.file)).start(share=0.5).canary
    watched.file.write_text(watched.file.read_text().replace('"ask"', '"if-better"'))  # too late for this one
    judges(begun, said, 1.0, 0.0)
    record = opening(load_task(watched.file)).status().record
    assert record is not None
    assert (record.outcome, record.passed) == ("held", False)
    assert 'held: promote it with trimtab registry promote 2 --why "…", or leave version 1' in record.headline
    assert [move.version for move in opened.history("production")] == [1]
    assert opened.current("candidate").number == 2
    assert opened.canary() is None
    done = CliRunner().invoke(app, ["canary", "status", "--task", str(watched.file), "--registry", place])
    assert (done.exit_code, "held" in done.stdout) == (0, True), done.output
    assert opened.promote(2, why="I have read it").version == 2


def test_a_worse_candidate_is_rolled_back_and_production_never_moved(
    opening: Open, opened: Registry, said: list[UserOutcome]
) -> None:
    begun = opening().start(share=0.5).canary
    judges(begun, said, 0.0, 1.0)
    record = opening().look(begun, {}, {})
    assert record is not None
    assert record.outcome == "rolled_back"
    assert "worse" in record.why
    assert [move.version for move in opened.history("production")] == [1]
    assert opened.canary() is None
    assert [(move.version, move.previous) for move in opened.history("candidate")] == [(1, 2), (2, None)]
    assert opened.history("candidate")[0].why.startswith("version 2 was taken back: canary 1: ")
    with pytest.raises(InputError, match="version 1 is in production already, and candidate names no other"):
        opening().start()
    assert opening().start(2, share=0.5).canary.number == 2  # by its number it may be tried again


def test_what_a_user_was_not_drawn_for_counts_for_nobody(opening: Open, said: list[UserOutcome]) -> None:
    one = opening()
    begun = one.start(share=0.5).canary
    for user in USERS:  # each about the version of the others
        version = begun.production if begun.takes(user) else begun.candidate
        said.append(outcome(user, version, float(version == 2)))
    said += [outcome(user, 3, 1.0) for user in USERS]
    assert one.status().evidence.quality is None


def test_a_crowd_of_new_names_is_told_and_decides_nothing(opening: Open, said: list[UserOutcome]) -> None:
    one = opening()
    begun = one.start(share=0.5).canary
    said += [outcome(user, begun.version_of(user), float(number % 5 > 0)) for number, user in enumerate(USERS)]
    invented = [name for number in range(200) if begun.takes(name := user_key(f"invented-{number}"))][:60]
    before = one.status().evidence
    said += [outcome(name, begun.candidate, 0.0) for name in invented]
    after = one.status().evidence
    assert after.quality == before.quality
    assert after.by_question == before.by_question
    assert after.newcomers is not None
    assert (after.newcomers.candidate, after.newcomers.production, after.newcomers.decide) == (60, 0, False)
    assert "a crowd, which decides nothing" in after.newcomers.sentence


def test_new_names_in_their_usual_number_count(
    opening: Open, said: list[UserOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four new users a day before the canary and in it."""
    one = opening()
    begun = one.start(share=0.5).canary
    said += [outcome(user_key(f"past-{number}"), 1, 1.0, number / 4 - 20) for number in range(80)]
    monkeypatch.setattr(module, "_now", lambda: begun.begun + timedelta(days=10))
    fresh = [user_key(f"fresh-{number}") for number in range(40)]
    said += [outcome(user, begun.version_of(user), 1.0, number / 4) for number, user in enumerate(fresh, 1)]
    newcomers = one.status().evidence.newcomers
    assert newcomers is not None
    assert newcomers.decide
    assert newcomers.candidate + newcomers.production == 40
    assert newcomers.usual == pytest.approx(40, rel=0.1)
    quality = one.status().evidence.quality
    assert quality is None or quality.candidate_users + quality.production_users == 40


def test_at_its_deadline_a_canary_ends_undecided_and_a_next_one_may_begin(
    opening: Open, opened: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opening()
    begun = one.start(days=2).canary
    monkeypatch.setattr(module, "_now", lambda: begun.begun + timedelta(days=1.9))
    assert opening().status().record is None
    monkeypatch.setattr(module, "_now", lambda: begun.begun + timedelta(days=2))
    record = opening().status().record
    assert record is not None
    assert record.outcome == "undecided"
    assert opened.current().number == 1
    assert opening().start(3).canary.number == 2
    assert len(opened.canary_records()) == 1


def test_a_clock_that_jumps_neither_ends_nor_extends_a_canary(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    server = opening()
    begun = server.start(days=2).canary
    wall, steady = begun.begun, 0.0
    monkeypatch.setattr(module, "_now", lambda: wall)
    monkeypatch.setattr(module, "_steady", lambda: steady)

    def days() -> float:
        assert server.look(begun, {}, {}) is None
        return float(opening().status().evidence.days)

    assert days() == 0
    wall, steady = wall + timedelta(days=1), steady + 86_400
    assert days() == pytest.approx(1)
    wall += timedelta(days=400)  # forwards while the server runs
    assert days() == pytest.approx(1)
    wall -= timedelta(days=800)  # and back
    assert days() == pytest.approx(1)
    steady += 43_200
    assert days() == pytest.approx(1.5)
    wall -= timedelta(days=5)  # back while no server runs: no day is taken away
    assert opening().status().evidence.days == pytest.approx(1.5)
    other = opening()
    steady = 0.0
    assert other.look(begun, {}, {}) is None
    steady = 43_200
    record = other.look(begun, {}, {})
    assert record is not None
    assert record.outcome == "undecided"


def test_of_several_starts_at_once_one_begins(opening: Open, opened: Registry) -> None:
    all_of_them = [opening() for _ in range(4)]

    def begin(one: Canaries) -> str:
        try:
            return str(one.start().canary.number)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(begin, all_of_them))
    begun = opened.canary()
    assert begun is not None
    assert told.count(str(begun.number)) == 1
    assert sum("is open already" in one for one in told) == 3


def test_of_several_ends_at_once_one_counts_and_production_moves_once(
    opening: Open, opened: Registry, said: list[UserOutcome]
) -> None:
    begun = opening().start(share=0.5).canary
    judges(begun, said, 1.0, 0.0)
    all_of_them = [opening() for _ in range(4)]
    ends: list[Callable[[Canaries], CanaryRecord | None]] = [
        lambda one: one.status().record,
        lambda one: one.look(begun, {}, {}),
        lambda one: one.reject(begun, "it does not answer"),
        lambda one: one.look(begun, {}, {}),
    ]
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda pair: pair[0](pair[1]), zip(ends, all_of_them, strict=True)))
    assert len({json.dumps(to_plain(one)) for one in records}) == 1
    assert len(opened.canary_records()) == 1
    assert len(opened.history("production")) == (2 if opened.canary_records()[0].passed else 1)


def test_an_end_that_is_cut_off_leaves_nothing_behind(
    opening: Open, opened: Registry, said: list[UserOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = opening().start(share=0.5).canary
    judges(begun, said, 1.0, 0.0)

    def killed(self: Registry, *given: Any, **named: Any) -> Move:
        move(self, *given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        move = Registry._move
        patch.setattr(Registry, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            opening().status()
    assert opened.current().number == 1
    assert opened.canary() == begun
    record = opening().status().record
    assert record is not None
    assert record.passed
    assert opened.current().number == 2


def test_where_production_is_moved_by_hand_the_canary_ends_and_the_hand_wins(
    opening: Open, opened: Registry, said: list[UserOutcome]
) -> None:
    one = opening()
    begun = one.start(share=0.5).canary
    judges(begun, said, 1.0, 0.0)
    opened.promote(3, why="a fire")
    record = one.status().record
    assert record is not None
    assert (record.outcome, record.why) == ("undecided", "production was moved to version 3 meanwhile")
    assert opened.current().number == 3


def test_a_candidate_that_is_damaged_is_not_promoted(
    opening: Open, opened: Registry, said: list[UserOutcome], tmp_path: Path
) -> None:
    one = opening()
    begun = one.start(share=0.5).canary
    judges(begun, said, 1.0, 0.0)
    files = opened.artifacts.files(opened.show(2).artifact_sha256 or "")
    (tmp_path / ".trimtab" / "artifacts" / files["run/adapter"]).write_text("other bytes")
    with pytest.raises(InputError, match="is damaged"):
        one.status()
    assert opened.current().number == 1
    assert opened.canary() == begun


def test_what_a_server_counted_is_refused_by_name_where_it_is_damaged(opening: Open, opened: Registry) -> None:
    one = opening()
    begun = one.start(share=0.5).canary
    assert one.look(begun, {1: 2}, {}) is None
    with opened._database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {CANARY_TALLIES} SET record = '{{}}'")
    with pytest.raises(InputError, match=r"what a server counted of canary 1 is damaged .*; restore it from a copy"):
        opening().status()


def test_gc_leaves_what_an_open_canary_needs(opening: Open, opened: Registry, add: Add) -> None:
    opening().start(3)
    for text in "defghi":
        add(opened, text)
    assert not {1, 3} & set(opened.gc(1).versions)
    opened.artifacts.check(opened.show(3).artifact_sha256 or "")


def test_errors_of_every_server_count_by_buckets_and_outlive_it(opening: Open) -> None:
    begun = opening().start(share=0.1).canary
    first, second = opening(), opening()
    assert first.look(begun, dict.fromkeys(range(0, 30), 4), {}) is None
    assert first.look(begun, dict.fromkeys(range(0, 60), 4), dict.fromkeys(range(0, 50), 4)) is None  # in its place
    assert opening().status().evidence.errors is None  # of production nothing is known
    record = second.look(begun, dict.fromkeys(range(100, 400), 5), {100: 1})
    assert record is not None
    assert record.outcome == "rolled_back"
    assert "more of its answers fail: 83.33% against 0.07%" in record.why


def test_latency_is_held_to_the_limit_and_without_one_to_production(opening: Open, watched: Task) -> None:
    one = opening()
    begun = one.start(share=0.5, days=9).canary

    def served(candidate: float) -> None:
        with traffic_of(watched) as store:
            store.expire(1, datetime.now(UTC) + timedelta(days=3))
            store.add(
                [
                    served_answer(
                        number,
                        user=user,
                        version="2" if begun.takes(user) else "1",
                        milliseconds=candidate if begun.takes(user) else 100.0,
                    )
                    for number, user in enumerate(USERS)
                ]
            )

    served(149.0)
    latency = one.status().evidence.latency
    assert latency is not None
    assert (latency.candidate_p95_ms, latency.production_p95_ms, latency.limit_ms) == (149.0, 100.0, 150.0)
    assert latency.slow == 0
    served(151.0)
    record = one.status().record
    assert record is not None
    assert "too slow: 95th percentile 151 ms, limit 150 ms, production 100 ms" in record.why
    watched.file.write_text(watched.file.read_text() + "[target]\nlatency_p95_ms = 120\n")
    again = opening(load_task(watched.file))
    begun = again.start(2, share=0.5).canary
    served(121.0)
    assert again.status().record is not None


def test_labels_of_random_draws_count_and_those_of_unsure_answers_do_not(opening: Open, watched: Task) -> None:
    one = opening()
    begun = one.start(share=0.5).canary

    def labelled(first: int, drawing: Any, right: bool) -> None:
        with traffic_of(watched) as store:
            after = store.draws("traffic")[-1].last_row if store.draws("traffic") else 0
            store.add(
                [
                    served_answer(first + number, user=user, version="2" if begun.takes(user) else "1")
                    for number, user in enumerate(USERS)
                ]
            )
            store.draw("traffic", drawing, after=after)
            for number, user in enumerate(USERS):
                told = right if begun.takes(user) else True
                store.label(
                    Label(item=f"q-{first + number}", by="jo", right=told, correction=None, when=datetime.now(UTC))
                )

    labelled(0, "uncertain", False)
    assert one.status().evidence.quality is None
    labelled(1_000, "random", True)
    quality = one.status().evidence.quality
    assert quality is not None
    assert (quality.candidate, quality.production) == (1.0, 1.0)
    assert quality.candidate_users + quality.production_users == len(USERS)


def test_a_judgement_is_an_outcome_and_the_last_one_of_an_answer_counts(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        for number, (kind, more) in enumerate(
            [
                ("like", {"user": "a", "given": ["q-1"]}),
                ("dislike", {"user": "a", "given": ["q-1"], "session": "another"}),
                ("like", {"user": "b"}),
                ("correct", {"user": "c", "correction": "Paris"}),
                ("like", {}),
                ("like", {"user": "d", "at": -5.0}),
            ]
        ):
            store.add(judgement(kind, **{"at": float(number), **more}))
        store.add(judgement("prefer", "one", "two", user="a", chosen=0))
        found = {one.user: (one.version, one.right) for one in user_outcomes(store, judgement().when)}
    assert found == {"a": ("1", 0.0), "b": ("1", 1.0), "c": ("1", 0.0)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"version": 1}, "--version: version 1 is in production already"),
        ({"share": 0.0}, "--share: a share of 0 of the users"),
        ({"share": 0.6}, "--share: a share of 0.6 of the users"),
        ({"share": float("nan")}, "--share: a share of nan"),
        ({"days": 0}, "--days: 0 days"),
        ({"days": float("inf")}, "--days: inf days"),
    ],
)
def test_what_makes_no_canary_is_refused(opening: Open, opened: Registry, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opening().start(**given)
    assert opened.canary() is None


def test_what_is_missing_is_said(own: Registry, add: Add, task: Task, watched: Task) -> None:
    with Canaries(registry(watched, make=False), store=None, judged=lambda since: ()) as one:
        with pytest.raises(MissingError, match=r"no alias production of small \(there are: none yet\)"):
            one.start()
        add(own)
        own.promote(1, why="first")
        with pytest.raises(MissingError, match=r"no alias candidate of small \(there are: production\)"):
            one.start()
        with pytest.raises(MissingError, match="no canary of this task yet; begin one with: trimtab canary start"):
            one.status()
        with pytest.raises(MissingError, match="no canary is open"):
            one.stop("why not")
    with (
        Canaries(registry(task, make=False), store=None, judged=lambda since: ()) as one,
        pytest.raises(InputError, match=r"traffic: a canary needs traffic, and none is kept; add a table \[traffic\]"),
    ):
        one.start()


def test_a_candidate_that_was_measured_to_be_worse_needs_a_word(
    opening: Open, opened: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {1: VersionScore(value=0.95, low=0.9, high=0.98, n=200, metric="exact_match")}
    show, current = Registry.show, Registry.current

    def scored(version: Version) -> Version:
        return replace(version, score=scores.get(version.number or 0))

    monkeypatch.setattr(Registry, "show", lambda self, name: scored(show(self, name)))
    monkeypatch.setattr(Registry, "current", lambda self, *alias: scored(current(self, *alias)))
    assert opening().start(dry_run=True).canary.candidate == 2  # never measured
    scores[2] = VersionScore(value=0.35, low=0.28, high=0.42, n=200, metric="exact_match")
    with pytest.raises(InputError, match=r"measured at 0.350 \[0.280, 0.420\], production at 0.950.*--anyway"):
        opening().start()
    assert opened.canary() is None
    assert opening().start(anyway=True, dry_run=True).canary.candidate == 2
    scores[2] = replace(scores[2], high=0.91)  # the intervals overlap
    assert opening().start(dry_run=True).canary.candidate == 2


def test_the_forecast_goes_by_how_users_differ_where_that_is_known(opening: Open, said: list[UserOutcome]) -> None:
    one = opening()
    unknown = one.start(dry_run=True).forecast
    said += [outcome(user, 1, float(number % 10 > 0)) for number, user in enumerate(USERS)]
    known = one.start(dry_run=True).forecast
    assert unknown is not None
    assert known is not None
    assert (unknown.is_measured, unknown.users_a_day) == (False, None)
    assert (known.is_measured, known.users_a_day) == (True, pytest.approx(len(USERS) / 30))
    assert known.clear_harm < unknown.clear_harm
    assert (known.margin or 0) < (unknown.margin or 0)
    assert known.margin == known.margin_by_user
    said += [outcome(USERS[0], 1, 1.0) for _ in range(60)]  # who asks most
    unequal = one.start(dry_run=True).forecast
    assert unequal is not None
    assert (unequal.margin or 0) > 2 * (unequal.margin_by_user or 0)
    with pytest.raises(MissingError):
        one.status()  # a dry run begins nothing


def test_the_functions_of_the_package_begin_tell_and_end(own: Registry, add: Add, watched: Task) -> None:
    for text in "ab":
        add(own, text)
    own.promote(1, why="first")
    with pytest.raises(MissingError, match="no canary of this task yet"):
        trimtab.canary_status(watched)
    assert trimtab.canary_start(watched.file, version=2, dry_run=True).canary.number is None
    begun = trimtab.canary_start(watched, version=2, share=0.5).canary
    with FeedbackStore(watched.folder / ".trimtab" / "feedback.db") as store:  # what users say on the server's page
        for user in USERS:
            version = begun.version_of(user)
            given = judgement("like" if version == 2 else "dislike", user=user)
            store.add(judgement(user=user, asked="Before?", at=(datetime.now(UTC) - BEGIN).total_seconds() - 800_000))
            answers = tuple(replace(one, version=str(version)) for one in given.answers)
            store.add(replace(given, answers=answers, when=datetime.now(UTC)))
    record = trimtab.canary_status(str(watched.folder)).record
    assert record is not None
    assert record.outcome == "promoted"
    assert own.current().number == 2
    with pytest.raises(MissingError, match="no canary is open"):
        trimtab.canary_stop(watched, why="enough")
    assert trimtab.canary_start(watched, version=1).record is None
    with pytest.raises(InputError, match="no reason is given"):
        trimtab.canary_stop(watched, why=" ")
    assert trimtab.canary_stop(watched, why="enough", by="jo").outcome == "rolled_back"
    assert trimtab.canary_status(watched).record is not None


def test_the_commands_begin_tell_and_end(own: Registry, add: Add, watched: Task) -> None:
    for text in "ab":
        add(own, text)
    own.promote(1, why="first")
    runner, where = CliRunner(), ["--task", str(watched.file)]

    def told(code: int, *words: str) -> dict[str, Any]:
        done = runner.invoke(app, ["canary", *words, *where, "--json"])
        assert done.exit_code == code, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert "no canary of this task yet" in told(2, "status")["error"]
    assert told(0, "start", "--version", "2", "--dry-run")["canary"]["number"] is None
    assert told(0, "start", "--version", "2", "--share", "0.2", "--days", "7")["canary"]["share"] == 0.2
    assert "canary 1 of version 2 is open already" in told(2, "start", "--version", "2")["error"]
    assert told(0, "status")["record"] is None
    words = runner.invoke(app, ["canary", "status", *where]).stdout
    assert "version 2 answers 20.0% of the users, 1 the others" in words
    assert "a difference of 0.1 is shown with 80% chance by" in words
    assert told(0, "stop", "--why", "enough", "--by", "jo")["outcome"] == "rolled_back"
    assert told(1, "status")["record"]["why"] == "stopped by hand: enough"
    assert runner.invoke(app, ["canary", "status", *where]).stdout.startswith(
        "canary 1: version 2 rolled back: stopped"
    )


def test_days_are_those_of_the_server_that_looked_longest() -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    canary = from_plain(
        Canary,
        {
            **dict.fromkeys(("candidate", "production"), 1),
            **{"number": 1, "share": 0.1, "days": 9.0, "salt": "", "margin": 0.0, "latency_p95_ms": None},
            **{"begun": begun.isoformat(), "who": "", "why": ""},
        },
    )
    dead = module.CanaryTally(days=2.0, when=begun + timedelta(days=2), answers={}, failed={})
    alive = replace(dead, days=5.0, when=begun + timedelta(days=5))
    assert days_known(canary, (), begun + timedelta(days=3)) == 3
    assert days_known(canary, (), begun - timedelta(days=3)) == 0
    assert days_known(canary, (dead, alive), begun + timedelta(days=5.5)) == 5.5
