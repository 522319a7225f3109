"""A study on nodes that do not see the task's folder is the study of one machine: its files go through a store."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import kill_all, node_without, ray_nodes
from s3_server import NO_SERVER, S3, STORES, WRONG, below, forget_clients, go_wrong, s3_server, set_s3_variables
from same_study import SCORED, SLOW, in_folders, require_same
from study_tasks import CITIES, CLASSIFY, LABELLED, QUICK, events, folder_of
from waiting import until

from trimtab.base.errors import InputError, TrimtabError
from trimtab.scale.cluster import Cluster, open_cluster
from trimtab.scale.study_store import StudyStore
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An address in an S3 server that has the bucket `studies`; an address below a named store."""
    if request.param != S3:
        yield below(request.param)
        return
    with s3_server("studies", "s3fs") as server, pytest.MonkeyPatch.context() as patch:
        set_s3_variables(patch, server, tmp_path_factory.mktemp("settings"))
        yield "s3://studies/all"


@pytest.fixture(scope="module")
def base(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the nodes do not see."""
    return tmp_path_factory.mktemp("leader")


@pytest.fixture(scope="module")
def caches(store: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of the two nodes."""
    return [tmp_path_factory.mktemp(f"node{number}") for number in range(2)]


@pytest.fixture(scope="module")
def nodes(store: str) -> Iterator[Any]:
    """A head without a core."""
    with ray_nodes(1, head_cores=0) as made:
        yield made


@pytest.fixture(scope="module")
def machines(nodes: Any, store: str, base: Path, caches: list[Path]) -> Iterator[Cluster]:
    """Two nodes with a core each, which share nothing but the store."""
    with (
        open_cluster("auto", store) as found,
        node_without(base, nodes.address, TRIMTAB_CACHE=str(caches[0])),
        node_without(base, nodes.address, TRIMTAB_CACHE=str(caches[1])),
    ):
        yield found


def left_by_jobs(caches: list[Path]) -> list[Path]:
    return [path for cache in caches for path in cache.glob("studies/*/*") if path.name != "files"]


def test_the_verdict_is_that_of_one_machine(
    base: Path, caches: list[Path], tiny_model_folder: Path, tiny_embedding_folder: Path, store: str, machines: Cluster
) -> None:
    plain, own = in_folders(
        *(base / "same", tiny_model_folder, ["quick", "rag"]),
        task=CLASSIFY,
        data=f'{LABELLED}\ndocuments = ["documents/"]',
        base=f'embedding = "{tiny_embedding_folder}"',
        more=QUICK,
        study="seeds = 2",
    )
    for folder in (plain.parent, own.parent):
        (folder / "documents").mkdir()
        for number, city in enumerate(CITIES):
            (folder / "documents" / f"{city}.md").write_text(f"# {city}\nThe bridge of {city} is number {number}.\n")
    expected = study(plain, listeners=[])
    require_same(own, result := study(own, machines=machines, listeners=[]), plain, expected, apart=True)
    by_workers = {str(event["worker"]).rpartition("-")[0] for event in events(folder_of(own)) if "worker" in event}
    assert {f"make-{arm}-0" for arm in ("quick", "rag")} < by_workers
    assert StudyStore(store).names(result.study) == ["inputs"]  # what jobs kept is here
    assert all(list(cache.glob(f"studies/{result.study}/files/*")) for cache in caches)  # both did some
    assert left_by_jobs(caches) == []


def test_a_killed_process_goes_on_from_its_checkpoint_in_the_store(
    base: Path, caches: list[Path], tiny_model_folder: Path, machines: Cluster
) -> None:
    plain, own = in_folders(base / "killed", tiny_model_folder, ["slow", "prompt"], more=SLOW, task=SCORED)
    expected = study(plain, allow_commands=True, listeners=[])
    looked: set[str] = set()
    killed: list[str] = []

    def watch(event: dict[str, Any]) -> None:
        worker = str(event.get("worker"))
        if event["stage"] == "dev" and worker.startswith("make-slow"):
            looked.add(worker)  # then a checkpoint is in the store, as this event was
        if worker in looked and not killed:
            killed.append(worker)
            holders = [file for cache in caches for file in cache.glob(f"studies/*/{worker}/**/make-slow-0/.holder")]
            os.kill(int(holders[0].read_text().split()[1]), signal.SIGKILL)

    result = study(own, allow_commands=True, machines=machines, listeners=[watch])
    assert killed
    require_same(own, result, plain, expected, apart=True)
    found = events(folder_of(own))
    assert [event["note"].split(":")[0] for event in found if "begun again" in event.get("note", "")] == ["arm slow"]
    trained = [event for event in found if event["stage"] == "train" and event["worker"].startswith("make-slow-0")]
    first = {event["worker"]: event["step"] for event in reversed(trained)}
    assert len(first) == 2
    assert first.pop(killed[0]) == 1
    assert min(first.values()) > 1  # it went on


def test_a_study_goes_on_on_another_machine(
    base: Path, caches: list[Path], tiny_model_folder: Path, store: str, machines: Cluster
) -> None:
    """The folder of the first one is lost; what was finished is not made again."""
    plain, own = in_folders(base / "moved", tiny_model_folder, ["slow", "prompt"], more=SLOW, task=SCORED)
    expected = study(plain, allow_commands=True, listeners=[])

    def stop(event: dict[str, Any]) -> None:
        if str(event.get("note")).startswith("answering"):
            raise KeyboardInterrupt

    with pytest.raises(TrimtabError, match=f"--on auto --store {store}") as caught:
        study(own, allow_commands=True, machines=machines, listeners=[stop])
    assert "\n" not in str(caught.value)
    name = folder_of(own).name
    shutil.rmtree(own.parent / ".trimtab")
    result = study(own, resume=name, allow_commands=True, machines=machines, listeners=[])
    require_same(own, result, plain, expected, apart=True)
    begun = [event for event in events(folder_of(own)) if event["stage"] == "begin" and "worker" in event]
    assert sorted(event["worker"].rpartition("-")[0] for event in begun) == [
        *("answer-prompt-0", "answer-slow-0", "make-prompt-0", "make-slow-0"),
    ]


# ---- bad input: one line each, before anything is spent


def refused(task: Path, machines: Cluster) -> str:
    with pytest.raises((TrimtabError, OSError)) as caught:
        study(task, machines=machines, listeners=[])
    assert not list((task.parent / ".trimtab" / "studies").glob("2*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("store", "wrong"), WRONG, indirect=["store"])
def test_a_store_that_cannot_be_used_is_told(
    base: Path, tiny_model_folder: Path, store: str, machines: Cluster, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    address, words = go_wrong(wrong, store, monkeypatch)
    _, task = in_folders(base / wrong.replace(" ", "-"), tiny_model_folder, ["prompt"])
    monkeypatch.setattr(machines, "store", address)
    told = refused(task, machines)
    forget_clients(address)
    assert words in told.lower()
    assert address in told


def test_a_node_that_cannot_use_the_store_is_named(
    base: Path, tmp_path: Path, tiny_model_folder: Path, store: str, nodes: Any, machines: Cluster
) -> None:
    _, task = in_folders(base / "named", tiny_model_folder, ["prompt"])
    wrong = {"TRIMTAB_CACHE": str(tmp_path), **dict([NO_SERVER[store.partition("://")[0]]])}
    with node_without(base, nodes.address, **wrong) as other:
        told = refused(task, machines)
        kill_all(other)
        until(lambda: len(machines._nodes()) == 2)
    assert told.startswith("--store: machine ")
    assert "cannot use the store (" in told
    assert store in told


def test_data_outside_the_folder_are_told(base: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    _, task = in_folders(base / "outside", tiny_model_folder, ["prompt"])
    shutil.move(task.parent / "rows.jsonl", base / "outside" / "rows.jsonl")
    task.write_text(task.read_text().replace('"rows.jsonl"', '"../rows.jsonl"'))
    with pytest.raises(InputError, match=r"rows\.jsonl:--store: lies outside the task's folder; move it there"):
        study(task, machines=machines, allow=[str(base / "outside" / "rows.jsonl")], listeners=[])
    assert not list((task.parent / ".trimtab" / "studies").glob("2*"))


@pytest.mark.parametrize("address", ["studies", "file:///tmp", "http://host/bucket", "s3:bucket"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(InputError, match=r"--store: .* is no address of an object store; name one as s3://BUCKET"):
        open_cluster("auto", address).__enter__()
