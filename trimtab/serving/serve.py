"""`serve`: puts the arms of a study behind an OpenAI-compatible API, with the settings they were measured with."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trimtab.arms.answerers import read_calibration
from trimtab.arms.bundle import BundledArm, named_bundle, open_bundle
from trimtab.arms.online import OnlineArm, open_online
from trimtab.arms.session import Session
from trimtab.arms.store import (
    Pick,
    SavedArm,
    StoredQuestion,
    find_saved,
    latest_winner,
    measured_arms,
    measured_precision,
    picked_arm,
    require_eight_bit,
    require_weights,
    usual_arm,
    with_measured_rows,
)
from trimtab.arms.workspace import Workspace, open_for_answering
from trimtab.base.errors import InputError
from trimtab.base.grammar import method_of
from trimtab.base.progress import Listener
from trimtab.base.records import Arm
from trimtab.base.results import ArmResult, EightBit, Volume
from trimtab.base.task import Task, require_answers
from trimtab.data.documents import FileStamps, document_stamps
from trimtab.decision.cost import volume_of
from trimtab.model.catalog import resolve
from trimtab.model.threads import single_thread
from trimtab.reports.labels import arm_family, context_shape
from trimtab.retrieval.embed import Embedder
from trimtab.serving.access import AllowedHosts, ApiKeys, is_loopback, read_keys, start_token
from trimtab.serving.app import AppParts, Embed, build
from trimtab.serving.config import TrafficTable
from trimtab.serving.dispatcher import Dispatcher
from trimtab.serving.documents import DocumentRefresher
from trimtab.serving.feedback import FeedbackStore, open_feedback_store
from trimtab.serving.follow import Follower, LoadedRelease
from trimtab.serving.metrics import Metrics, RequestLog
from trimtab.serving.middleware import RequestLimiter
from trimtab.serving.options import DEFAULT_OPTIONS, ServerOptions
from trimtab.serving.receipts import Receipts
from trimtab.serving.releases import CanarySource, FollowAlias, Release
from trimtab.serving.self_check import self_check_all, stored_answers
from trimtab.serving.served_model import SelfCheck, ServedModel
from trimtab.serving.server import bind_socket, refuse_while_loading, require_key_pair, run_server
from trimtab.serving.shared_limits import shared_limits
from trimtab.serving.traffic import Recorder
from trimtab.serving.traffic_store import traffic_of
from trimtab.serving.worker import ModelWorker
from trimtab.studies.equivalence import TIE
from trimtab.studies.run_context import RunContext, resolve_task, run_context

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A running server: its URL, start token (None with keys of a file), and models.

    `checks`: by arm, its self-check; `silent`: by arm, why it did not answer;
    `eight_bit`: by arm, the loss with 8-bit weights; `release`: the version that answers, if an alias is followed.
    """

    url: str
    token: str | None
    models: tuple[str, ...]
    checks: dict[str, SelfCheck | None]
    silent: dict[str, str]
    eight_bit: dict[str, EightBit]
    release: Release | None = None


def serve(
    arms: Sequence[str] = (),
    *,
    task: str | Path | Task = "trimtab.toml",
    bundle: Path | None = None,
    signed_by: Path | None = None,
    follow: FollowAlias | None = None,
    canaries: CanarySource | None = None,
    run: str | None = None,
    server: ServerOptions = DEFAULT_OPTIONS,
    unequal: bool = False,
    eight_bit: bool = False,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
    on_ready: Callable[[RunningServer], None] | None = None,
) -> None:
    """Serve arms until a signal comes: by default the winner of the newest study, `all` for every arm that it finished.

    `bundle`: a folder of `export`, whose arm is served without a task file; `signed_by`: the public key that must have
    signed it. `follow`: an alias of a registry (`Registry.follow`); when it names another version, that one is loaded,
    checked, and takes over between two requests; on failure the old one goes on. `canaries`: of the same registry,
    whose candidates answer their share of the users.

    At the start stored test questions are asked again: if more answers of an arm differ than rounding explains
    (MOST_DIFFERENT), the server refuses to start, unless `unequal`. With `eight_bit` arms answer with 8-bit weights, as
    `eval` measured them; the server refuses to start without that measurement, and if it shows a loss beyond the
    margin.

    `server`: where it listens, who may ask, and where feedback is kept (by default `.trimtab/feedback.db`); a sample of
    the answers is stored there too if the task file has a table `[traffic]`. `on_ready` is called once the server
    answers.
    `run` is the run or study whose weights answer. Raises InputError for an address that others can reach without keys,
    MissingError for an arm without weights.
    """
    if server.key_pair is not None:
        require_key_pair(*server.key_pair)
    token, api_keys = _keys_for(server.host, server.keys)
    if follow is not None:
        _refuse_beside_alias(arms, run, bundle, signed_by, eight_bit=eight_bit)
    bundled = _open_bundle(bundle, signed_by, arms, run, eight_bit=eight_bit)
    served_task = bundled.session.task if bundled else resolve_task(task)
    picks = [] if bundled or follow else _select_arms(arms, served_task)
    chosen = [bundled.arm] if bundled else [picked_arm(pick, served_task) for pick in picks]
    for arm in chosen:
        require_answers(arm, served_task)
    with (
        run_context(served_task, chosen, listeners=listeners, allow=allow, scores=False) as context,
        ExitStack() as stack,
    ):
        threads = stack.enter_context(single_thread())
        listening_socket = stack.enter_context(bind_socket(server.host, server.port))
        server = replace(server, port=listening_socket.getsockname()[1])
        end_refusing = stack.enter_context(refuse_while_loading(listening_socket, server.key_pair))
        feedback_store = stack.enter_context(open_feedback_store(served_task, server.store))
        record = _traffic_recorder(served_task, server.store, stack, context)
        eight_bit_losses: dict[str, EightBit] = {}
        follower: Follower | None = None
        if follow is not None:
            context.note("Loading the version that the alias names")
            load = partial(_load_release, near=served_task.folder, threads=threads, unequal=unequal)
            follower = Follower(follow, load, canaries)
            stack.callback(follower.close)
            served_task, served = follower.first()
            self_check = follower.self_check
        else:
            for note in filter(None, (pick.note for pick in picks)):
                context.note(note)
            context.note(f"Loading {', '.join(arm.name for arm in chosen)}")
            source = (
                _source_of_bundle(bundled)
                if bundled
                else _source_of_task(served_task, chosen, picks, run, eight_bit=eight_bit)
            )
            eight_bit_losses = eight_bit_costs(source.measured, math.inf if unequal else served_task.target.margin)
            served = stack.enter_context(_serve_arms(source, chosen, threads))
            self_check = partial(self_check_all, served, source.stored, source.tie, unequal=unequal)
        parts = _app_parts(served_task, served, server, api_keys, feedback_store, record)
        if parts.traffic:
            stack.callback(parts.traffic.close)
        stack.enter_context(shared_limits(server.store, api_keys, parts.log))
        dispatcher, release = parts.dispatcher, served[0].release
        del served  # a replaced version must not stay in memory

        async def on_started() -> None:
            checks, silent = await self_check(dispatcher)
            dispatcher.record_self_check(checks)
            parts.limiter.is_ready = True
            if follower is not None:
                follower.start(dispatcher, parts.log)
            if on_ready:
                serving = RunningServer(
                    url=server.url,
                    token=token,
                    models=tuple(dispatcher.models),
                    checks=checks,
                    silent=silent,
                    eight_bit=eight_bit_losses,
                    release=release,
                )
                on_ready(serving)

        app = build(parts)
        end_refusing()
        run_server(app, listening_socket, server.key_pair, parts.limiter, on_started)


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """The measured figures of an arm as it is served, and the folder with its answers; None if it was not measured.

    `volume`: the volume of questions that its cost was computed for.
    """

    result: ArmResult | None
    answers: Path | None
    volume: Volume | None

    @property
    def eight_bit(self) -> EightBit | None:
        """The loss with 8-bit weights, if it answers with them."""
        return self.result.eight_bit if self.result else None


def _measurement(saved: SavedArm | None, arm: Arm, task: Task, *, eight_bit: bool) -> _Measurement:
    if eight_bit and method_of(arm).uses_base:
        folder, result = require_eight_bit(saved, arm, task)
        return _Measurement(
            result=result, answers=folder, volume=volume_of(task.cost)
        )  # `eval` uses the volume of the task file
    if saved is None:
        return _Measurement(result=None, answers=None, volume=None)
    return _Measurement(result=saved.result, answers=saved.folder.parent, volume=saved.volume)


@dataclass(frozen=True, kw_only=True)
class _ArmSource:
    """The session whose models the served arms share (one per base), and what is stored of each arm.

    `stamps`: of the documents, taken before they were read.
    """

    session: Session
    arms: Mapping[str, Arm]
    saved: Mapping[str, SavedArm | None]
    measured: Mapping[str, _Measurement]
    stored: Mapping[str, Sequence[StoredQuestion]]
    stamps: FileStamps

    def tie(self, arm: str) -> float:
        """Return the nats within which two answers of an arm tie.

        The temperature of a calibration divides the nats between labels, and so the bound. An arm that does not run the
        base model computes in float32.
        """
        saved = self.saved[arm]
        calibration = read_calibration(saved.folder) if saved else None
        bound = TIE[self.session.precision if method_of(self.arms[arm]).uses_base else "fp32"]
        return bound / calibration.temperature if calibration else bound


def _traffic_recorder(
    task: Task, store: str | None, stack: ExitStack, context: RunContext
) -> Callable[[Metrics], Recorder] | None:
    """Return what makes the recorder of answers, whose store `stack` closes; None if the task file wants no sample."""
    traffic = task.table(TrafficTable)
    if not traffic:
        return None
    context.note(traffic.sentence)
    return partial(Recorder, stack.enter_context(traffic_of(task, store)), traffic)


def _refuse_beside_alias(
    arms: Sequence[str], run: str | None, bundle: Path | None, signed_by: Path | None, *, eight_bit: bool
) -> None:
    """Refuse options that choose what is served beside an alias, which does that itself."""
    if arms or run or bundle or signed_by or eight_bit:
        remedy = "leave out the arm, the run, the bundle and --eight-bit"
        raise InputError("an alias names one version as it was registered", remedy, field="--alias")


def _keys_for(host: str, keys: Path | None) -> tuple[str | None, ApiKeys]:
    """Return the keys of a file, or on this machine only a new start token and its keys."""
    if keys is not None:
        return None, read_keys(keys)
    if not is_loopback(host):
        raise InputError(
            f"{host} is reached by others, and no keys are given",
            "make one with: trimtab serve --new-key NAME --keys FILE, then add --keys FILE",
            field="--host",
        )
    return start_token()


def _source_of_task(
    task: Task, arms: Sequence[Arm], picks: Sequence[Pick], run: str | None, *, eight_bit: bool
) -> _ArmSource:
    """Open arms of a task in the precision in which they were measured: of `run`, or of the study that picked them."""
    pairs = zip(arms, picks, strict=True)
    saved = {arm.name: require_weights(find_saved(task, arm, run or pick.study), arm, task) for arm, pick in pairs}
    measured = {arm.name: _measurement(saved[arm.name], arm, task, eight_bit=eight_bit) for arm in arms}
    precision = next(filter(None, (measured_precision(arm, task) for arm in saved.values())), None)
    stamps = document_stamps(task)
    first = next(filter(None, saved.values()), None)  # a server has one set of rows: that of its first measured arm
    session = Session(open_for_answering(with_measured_rows(task, first), rows=bool(task.data.examples)), precision)
    session.eight_bit = eight_bit
    stored = {name: stored_answers(session.workspace, arm.answers) for name, arm in measured.items()}
    named = {arm.name: arm for arm in arms}
    return _ArmSource(session=session, arms=named, saved=saved, measured=measured, stored=stored, stamps=stamps)


def _open_bundle(
    folder: Path | None, signed_by: Path | None, arms: Sequence[str], run: str | None, *, eight_bit: bool
) -> BundledArm | None:
    """Open the bundle that is served in place of a task, if one is named."""
    if folder is not None and eight_bit:
        problem, remedy = "what 8 bits cost is measured where the study is", "serve the bundle without --eight-bit"
        raise InputError(problem, remedy, field="--eight-bit")
    return named_bundle(folder, signed_by, arms, run)


def _source_of_bundle(bundled: BundledArm) -> _ArmSource:
    name, saved = bundled.arm.name, bundled.saved
    return _ArmSource(
        session=bundled.session,
        arms={name: bundled.arm},
        saved={name: saved},
        measured={name: _Measurement(result=saved.result, answers=None, volume=saved.volume)},
        stored={name: bundled.stored},
        stamps=(),
    )


@contextmanager
def _load_release(release: Release, *, near: Path, threads: int, unequal: bool) -> Iterator[LoadedRelease]:
    """Context manager: a registry version in a worker of its own; relative model names start at `base_folder`."""
    bundled = open_bundle(release.folder, near=near)
    require_answers(bundled.arm, bundled.session.task)
    source = _source_of_bundle(bundled)
    with _serve_arms(source, [bundled.arm], threads) as (model,):
        served = replace(model, release=release)
        self_check = partial(self_check_all, [served], source.stored, source.tie, unequal=unequal)
        yield LoadedRelease(served=served, task=bundled.session.task, self_check=self_check)


def _app_parts(
    task: Task,
    served: Sequence[ServedModel],
    server: ServerOptions,
    keys: ApiKeys,
    store: FeedbackStore,
    record: Callable[[Metrics], Recorder] | None,
) -> AppParts:
    """Build the components of the application."""
    limiter, log = RequestLimiter(server.most), RequestLog(with_texts=server.log_texts)
    metrics = Metrics(limiter)
    recorder = record(metrics) if record else None
    receipts = Receipts(store.receipt_secret())
    return AppParts(
        dispatcher=Dispatcher(task.task.name, served, metrics, log, server.most, receipts, recorder),
        limiter=limiter,
        hosts=AllowedHosts(server.host, server.port, server.names or ()),
        keys=keys,
        metrics=metrics,
        log=log,
        embedding=task.base.embedding,
        embed=_embed_function(task),
        store=store,
        receipts=receipts,
        traffic=recorder,
    )


def _select_arms(arms: Sequence[str], task: Task) -> list[Pick]:
    """Return the arms to serve, each once."""
    if list(arms) == [ALL]:
        picks = measured_arms(task)
        if not picks:
            raise InputError(
                "no study has finished, so there are no arms to serve",
                f"run {task.command('study')} first, or name an arm",
            )
        winner = latest_winner(task)
        return sorted(picks, key=lambda pick: winner is None or pick.arm != winner.arm)
    return [Pick(name) for name in dict.fromkeys(arms)] or [usual_arm(task)]


@contextmanager
def _serve_arms(source: _ArmSource, chosen: Sequence[Arm], threads: int) -> Iterator[list[ServedModel]]:
    """Context manager: the arms, ready; local arms share one worker, each endpoint has its own."""
    first, saved = source.session, source.saved
    workspace, task = first.workspace, first.task
    with ExitStack() as stack:
        local: dict[str, OnlineArm] = {}
        endpoints: dict[str, tuple[Session, OnlineArm]] = {}
        for arm in chosen:
            session = _session_for(arm, first)
            online_arm = stack.enter_context(open_online(session, arm, saved[arm.name]))
            if arm.endpoint:
                endpoints[arm.name] = session, online_arm
            else:
                local[arm.name] = online_arm
        refresher = DocumentRefresher(
            task, [*([first] if local else []), *(session for session, _ in endpoints.values())], source.stamps
        )
        stack.callback(refresher.close)
        workers = {
            name: ModelWorker({name: online_arm}, partial(refresher.apply, session), is_remote=True)
            for name, (session, online_arm) in endpoints.items()
        }
        if local:
            shared = ModelWorker(local, partial(refresher.apply, first), threads=threads)
            workers |= dict.fromkeys(local, shared)
        for worker in dict.fromkeys(workers.values()):
            stack.callback(worker.close)
        yield [
            _served_model(workspace, arm, saved[arm.name], source.measured[arm.name], workers[arm.name])
            for arm in chosen
        ]


def _session_for(arm: Arm, first: Session) -> Session:
    """Return the session of an arm: an endpoint's own, one with its own base for adapters, else the first."""
    if arm.endpoint:
        return Session(first.workspace)
    return first.sharing_models() if method_of(arm).uses_base else first


def _served_model(
    workspace: Workspace, arm: Arm, saved: SavedArm | None, measured: _Measurement, worker: ModelWorker
) -> ServedModel:
    task = workspace.task
    return ServedModel(
        id=f"{task.task.name}:{arm.name}",
        arm=arm.name,
        version=saved.id if saved else "unmeasured",
        kind=task.task.kind,
        labels=workspace.labels if task.task.kind == "classify" else (),
        worker=worker,
        created=int(time.time()),
        family=arm_family(arm),
        shape=context_shape(arm.context),
        questions=measured.volume.questions if measured.volume else 0.0,
        result=measured.result,
    )


def _embed_function(task: Task) -> Embed:
    """Return an async function that embeds texts with the task's model, loaded at its first use; one request at a
    time."""
    # A lock around a thread would be released by a client that disconnects while the thread still runs.
    one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="embedding")
    loaded: list[Embedder] = []

    def vectors(texts: Sequence[str]) -> tuple[list[list[float]], int]:
        with single_thread():
            if not loaded:
                loaded.append(Embedder(resolve(task.base.embedding, near=task.folder)))
            return loaded[0].encode(texts).tolist(), loaded[0].tokens(texts)

    async def embed(texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return await asyncio.get_running_loop().run_in_executor(one_at_a_time, vectors, texts)

    return embed


def eight_bit_costs(measured: Mapping[str, _Measurement], margin: float) -> dict[str, EightBit]:
    """Return, by arm, the loss with 8-bit weights; raises InputError if it is shown to exceed the margin."""
    costs = {name: arm.eight_bit for name, arm in measured.items() if arm.eight_bit}
    high = {arm: cost for arm, cost in costs.items() if cost.low > margin}
    if high:
        words = "; ".join(f"{arm} {cost.sentence}" for arm, cost in high.items())
        raise InputError(
            f"8 bits cost more than the margin of {margin:g}: {words}",
            "serve without --eight-bit, or all the same with --unequal",
            field="--eight-bit",
        )
    return costs
