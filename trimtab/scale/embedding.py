"""Embeds texts on the machines of a Ray cluster, in batches, for the index of a study's documents.

Each batch is saved as soon as it is embedded, so a lost process or machine costs one batch. Ray Data is not used: its
datasets do not run over a `ray://` address.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, TrimtabError
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import SaveVectors

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class EmbeddedBatch:
    """The vectors [N, D] of N texts and the seconds that embedding took; or, as `problem`, one line that says why the
    process could not embed.
    """

    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    seconds: float = 0.0
    problem: str | None = None


class EmbeddingWorker:
    """A Ray actor that loads the embedding model once and embeds batches with it."""

    def __init__(self, load: Callable[[], Encoder], digest: str, cores: int) -> None:
        """`load`: returns the model. `digest`: the digest that the model must have."""
        import torch

        torch.set_num_threads(cores)
        self._load, self._digest = load, digest
        self._encoder: Encoder | None = None

    def embed(self, texts: Sequence[str]) -> EmbeddedBatch:
        """Return the vectors of a batch of texts."""
        try:
            if self._encoder is None:
                self._encoder = _load_verified(self._load, self._digest)
            began = time.perf_counter()
            vectors = self._encoder.encode(texts)
        except TrimtabError as error:
            return EmbeddedBatch(problem=f"machine {socket.gethostname()}: {error}")
        return EmbeddedBatch(vectors=vectors, seconds=time.perf_counter() - began)


def _load_verified(load: Callable[[], Encoder], digest: str) -> Encoder:
    """Return the embedding model. Raises InputError if it has another digest."""
    encoder = load()
    if encoder.digest != digest:
        problem = "the embedding model is not the one of the machine where the study was started"
        raise InputError(problem, "fetch the same one on all machines", field="base.embedding")
    encoder.encode([])  # loads the weights now, so that loading does not count as embedding
    return encoder


class EmbeddingPool:
    """A pool of embedding actors on a cluster, as many as fit; each embeds one batch at a time.

    `slots`: returns how many actors fit at present. `attempts`: how often a batch is retried if its process is lost.
    `machine_timeout`: seconds to wait for a machine while there is none. `node_labels`: of the nodes to use.
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
        machine_timeout: float,
        node_labels: Mapping[str, str],
    ) -> None:
        self._ray, self._load, self._digest, self._cores = ray, load, digest, cores
        self._slots, self._attempts, self._machine_timeout = slots, attempts, machine_timeout
        self._node_labels = dict(node_labels)
        self._seconds_without_machine = 0.0
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, list[str]]] = {}  # actor and batch, by Ray's reference to the result
        self._lost: Counter[str] = Counter()  # by the first text of a batch

    def embed(self, batches: Iterator[list[str]], save: SaveVectors, on_progress: Callable[[int], None]) -> float:
        """Embed all batches, and pass each with its vectors to `save`; return the seconds of all processes together.

        `on_progress` gets the number of texts that are done. Raises TrimtabError if a machine lacks the model, if the
        model gives no vectors, and if a batch is lost more than `attempts` times.
        """
        waiting, done, seconds = _BatchQueue(batches), 0, 0.0
        try:
            while waiting or self._running:
                self._submit(waiting)
                for texts, found in self._collect(waiting):
                    save(texts, found.vectors, found.seconds)
                    done, seconds = done + len(texts), seconds + found.seconds
                    on_progress(done)
        finally:
            self.close()
        return seconds

    def close(self) -> None:
        """Kill the actors."""
        with suppress(Exception):  # if the cluster is lost, so are they
            for worker in [*self._idle, *(worker for worker, _ in self._running.values())]:
                self._ray.kill(worker)
        self._idle, self._running = [], {}

    def _submit(self, waiting: _BatchQueue) -> None:
        """Give batches to idle actors, and to new actors while there are free slots."""
        free = max(1, self._slots()) - len(self._running) - len(self._idle)
        while waiting and (self._idle or free > 0):
            if not self._idle:
                self._idle.append(self._new_worker())
                free -= 1
            worker, texts = self._idle.pop(), waiting.take()
            self._running[worker.embed.remote(texts)] = worker, texts

    def _new_worker(self) -> Any:
        options = {
            "num_cpus": self._cores,
            "scheduling_strategy": "SPREAD",
            "label_selector": self._node_labels,
            "max_restarts": 0,
        }
        return self._ray.remote(**options)(EmbeddingWorker).remote(self._load, self._digest, self._cores)

    def _collect(self, waiting: _BatchQueue) -> Iterator[tuple[list[str], EmbeddedBatch]]:
        """Wait a moment, and yield the batches that are embedded; put those of lost processes back into the queue."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        without = self._seconds_without_machine + POLL_SECONDS
        self._seconds_without_machine = 0.0 if ended or self._slots() else without
        if self._seconds_without_machine > self._machine_timeout:
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
        """Count a lost batch; raise TrimtabError if it was lost more than `attempts` times."""
        self._lost[texts[0]] += 1
        if self._lost[texts[0]] > self._attempts:
            problem = f"embedding was lost {self._lost[texts[0]]} times ({type(error).__name__})"
            raise TrimtabError(f"{problem}; what was embedded is kept, go on with --resume")


class _BatchQueue:
    """A queue over an iterator of batches, which it reads one ahead at most; true while a batch is left."""

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
        """Put a batch back, to be taken next."""
        self._next.append(batch)
