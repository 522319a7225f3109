"""Embeds texts on the machines of a Ray cluster, in batches, for the index of a study's documents.

Each batch is handed back as soon as it is done, so what a lost process or machine costs is the batch that it was at.
Ray Data is not used: its datasets cannot be run over a `ray://` address.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, TrimtabError
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import KeepVectors

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class EmbeddedBatch:
    """Vectors [N, D] of a batch of texts, and the seconds that they took; or why there are none, in one line."""

    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    seconds: float = 0.0
    problem: str | None = None


class EmbeddingWorker:
    """An embedding model in a process of its own, on any machine; loaded once."""

    def __init__(self, load: Callable[[], Encoder], digest: str, cores: int) -> None:
        """`load`: returns the model. `digest`: of the model that is meant."""
        import torch

        torch.set_num_threads(cores)
        self._load, self._digest = load, digest
        self._encoder: Encoder | None = None

    def embed(self, texts: Sequence[str]) -> EmbeddedBatch:
        """Return the vectors of a batch."""
        try:
            if self._encoder is None:
                self._encoder = _loaded(self._load, self._digest)
            began = time.perf_counter()
            vectors = self._encoder.encode(texts)
        except TrimtabError as error:
            return EmbeddedBatch(problem=f"machine {socket.gethostname()}: {error}")
        return EmbeddedBatch(vectors=vectors, seconds=time.perf_counter() - began)


def _loaded(load: Callable[[], Encoder], digest: str) -> Encoder:
    encoder = load()
    if encoder.digest != digest:
        problem = "the embedding model is not the one of the machine where the study was started"
        raise InputError(problem, "fetch the same one on all machines", field="base.embedding")
    encoder.encode([])  # the time of loading it does not count as embedding
    return encoder


class EmbeddingPool:
    """Workers on a cluster, as many as have room at once, each with one batch at a time.

    `slots`: returns how many have room now. `attempts`: how often a batch whose process is lost is begun again.
    `patience`: seconds to wait for a machine if there is none.
    """

    def __init__(
        self,
        ray: Any,
        load: Callable[[], Encoder],
        digest: str,
        *,
        cores: int,
        slots: Callable[[], int],
        attempts: int,
        patience: float,
    ) -> None:
        self._ray, self._load, self._digest, self._cores = ray, load, digest, cores
        self._slots, self._attempts, self._patience, self._stranded = slots, attempts, patience, 0.0
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, list[str]]] = {}  # by Ray's reference to the outcome
        self._lost: Counter[str] = Counter()  # by the first text of a batch

    def embed(self, batches: Iterator[list[str]], keep: KeepVectors, tell: Callable[[int], None]) -> float:
        """Embed all batches, and hand each with its vectors to `keep`; return the seconds of all processes.

        `tell`: is told the number of texts that are done. Raises TrimtabError for a model that a machine lacks or that
        gives no vectors, and for a batch that is lost again and again.
        """
        waiting, done, seconds = _Queue(batches), 0, 0.0
        try:
            while waiting or self._running:
                self._submit(waiting)
                for texts, found in self._ended(waiting):
                    keep(texts, found.vectors, found.seconds)
                    done, seconds = done + len(texts), seconds + found.seconds
                    tell(done)
        finally:
            self.close()
        return seconds

    def close(self) -> None:
        """End the processes."""
        with suppress(Exception):  # a cluster that is lost has none
            for worker in [*self._idle, *(worker for worker, _ in self._running.values())]:
                self._ray.kill(worker)
        self._idle, self._running = [], {}

    def _submit(self, waiting: _Queue) -> None:
        """Give batches to the workers that have none, and to new ones while there is room."""
        room = max(1, self._slots()) - len(self._running) - len(self._idle)
        while waiting and (self._idle or room > 0):
            if not self._idle:
                self._idle.append(self._new_worker())
                room -= 1
            worker, texts = self._idle.pop(), waiting.take()
            self._running[worker.embed.remote(texts)] = worker, texts

    def _new_worker(self) -> Any:
        options = {"num_cpus": self._cores, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        return self._ray.remote(**options)(EmbeddingWorker).remote(self._load, self._digest, self._cores)

    def _ended(self, waiting: _Queue) -> Iterator[tuple[list[str], EmbeddedBatch]]:
        """Wait a moment, and yield the batches that were embedded; those of lost processes wait again."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        self._stranded = 0.0 if ended or self._slots() else self._stranded + POLL_SECONDS
        if self._stranded > self._patience:
            raise TrimtabError("no machine of the cluster is left; what was embedded is kept, go on with --resume")
        for reference in ended:
            worker, texts = self._running.pop(reference)
            try:
                found: EmbeddedBatch = self._ray.get(reference)
            except (self._ray.exceptions.RayTaskError, self._ray.exceptions.RaySystemError):
                raise
            except self._ray.exceptions.RayError as error:
                self._count_loss(texts, error)
                waiting.put_back(texts)
                continue
            if found.problem is not None:
                raise TrimtabError(found.problem)
            self._idle.append(worker)
            yield texts, found

    def _count_loss(self, texts: list[str], error: Exception) -> None:
        self._lost[texts[0]] += 1
        if self._lost[texts[0]] > self._attempts:
            problem = f"embedding was lost {self._lost[texts[0]]} times ({type(error).__name__})"
            raise TrimtabError(f"{problem}; what was embedded is kept, go on with --resume")


class _Queue:
    """Batches that wait, drawn from an iterator only when they are taken; true while there is one."""

    def __init__(self, batches: Iterator[list[str]]) -> None:
        self._batches, self._next = batches, list[list[str]]()

    def __bool__(self) -> bool:
        if not self._next:
            self._next += [batch for batch in [next(self._batches, None)] if batch is not None]
        return bool(self._next)

    def take(self) -> list[str]:
        """Return the next batch."""
        return self._next.pop() if self else []

    def put_back(self, batch: list[str]) -> None:
        """Have a batch wait again."""
        self._next.append(batch)
