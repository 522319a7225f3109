"""The same store in a real PostgreSQL server, which the test starts where one is installed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from judged import judgement, served_answer
from postgres_server import execute, server

from trimtab.base.errors import InputError, MissingError, RemoteError, VersionError
from trimtab.base.task import load_task
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.traffic_store import traffic_of, user_key
from trimtab.upkeep.labels import label

__all__ = ["server"]


@pytest.fixture
def place(server: str) -> Iterator[str]:
    """A database of its own."""
    execute(f"{server}/postgres", "CREATE DATABASE judged", autocommit=True)
    yield f"{server}/judged"
    execute(f"{server}/postgres", "DROP DATABASE judged WITH (FORCE)", autocommit=True)


def test_judgements_come_back_whole_and_by_time(place: str) -> None:
    later, first = judgement(at=9, session="ünï\n🙂"), judgement("like", "'; DROP TABLE x; --", at=1)
    with FeedbackStore(place) as store:
        store.add(later)
        store.add(first)
        with pytest.raises(InputError, match="is kept already"):
            store.add(first)
        assert store.all() == (first, later)
    with FeedbackStore(place, make=False) as again:
        assert again.count() == 2


def test_several_servers_make_and_fill_one_store(place: str) -> None:
    def server(name: str) -> None:
        with FeedbackStore(place) as store:
            for number in range(25):
                store.add(judgement(id=f"{name}-{number}"))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(server, "abcdef"))
    with FeedbackStore(place) as store:
        assert {one.id for one in store} == {f"{name}-{number}" for name in "abcdef" for number in range(25)}


def test_a_database_may_hold_other_things_and_only_a_store_is_read(place: str) -> None:
    execute(place, "CREATE TABLE bookmarks (place TEXT)")
    with pytest.raises(MissingError, match="no judgements are kept there"):
        FeedbackStore(place, make=False)
    with FeedbackStore(place) as store:
        store.add(judgement())
    execute(place, "UPDATE trimtab_form SET number = 7")
    with pytest.raises(VersionError, match="form 7"):
        FeedbackStore(place)
    execute(place, "DROP TABLE trimtab_form")
    with pytest.raises(InputError, match="is no store of judgements"):
        FeedbackStore(place)


def test_a_server_that_is_away_is_told_without_the_password(server: str) -> None:
    nowhere = server.rpartition(":")[0] + ":9/judged"
    with pytest.raises(RemoteError, match="is the server running") as told:
        FeedbackStore(nowhere)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(RemoteError, match='database "absent" does not exist'):
        FeedbackStore(f"{server}/absent")


def test_a_server_that_went_away_and_came_back_is_found_again(place: str, server: str) -> None:
    with FeedbackStore(place) as store:
        store.add(judgement(id="before"))
        execute(
            f"{server}/postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'judged' AND pid <> "
            "pg_backend_pid()",
        )
        store.add(judgement(id="after"))
        assert store.count() == 2


def test_traffic_and_judgements_share_a_database_and_a_user_is_forgotten_in_both(place: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "none"\n'
    )
    task = load_task(tmp_path / "trimtab.toml")
    with FeedbackStore(place) as judgements, traffic_of(task, place) as store:
        judgements.add(judgement(user=user_key("anna")))
        judgements.add(judgement(user=user_key("bert")))
        store.add([served_answer(number, user="anna" if number % 2 else "bert") for number in range(40)])
        with label(task=task, by="maria", questions=20, store=place) as session:
            for asked in session.pending:
                session.judge(asked, True)
                session.judge(asked, False)  # takes the place of the first
            assert session.finish().by == {"maria": 20}
        assert store.forget("anna") == 20
        assert judgements.forget("anna") == 1
        assert {one.user for one in store.answers()} == {user_key("bert")}
        assert {one.item for one in store.labels()} <= {one.id for one in store.answers()}
        assert judgements.count() == 1
        assert store.expire(1, datetime.now(UTC) + timedelta(days=2)) == 20
    assert not (tmp_path / ".trimtab").exists()
