"""Runs the probes of an arm, and tests what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from trimtab.arms.probing.forgetting import probe_forgetting
from trimtab.arms.probing.other_words import probe_other_words
from trimtab.arms.probing.retrieval_stress import probe_retrieval
from trimtab.arms.probing.rewording import probe_other_language
from trimtab.arms.probing.subject import LEAST_CHANGED, Subject
from trimtab.arms.probing.typing_errors import probe_typing
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.results import Probe
from trimtab.measurement.statistics import LEVEL, holm


class ProbeRun(NamedTuple):
    """How a probe runs, and what it costs: how many times it answers the questions.

    `find` yields what it found; nothing where it does not apply to the arm or the data.
    """

    find: Callable[[Subject], Iterator[Probe]]
    passes: int


RUNS: Mapping[str, ProbeRun] = {
    "typing": ProbeRun(probe_typing, 2),
    "other-words": ProbeRun(probe_other_words, 1),
    "other-language": ProbeRun(probe_other_language, 1),
    "retrieval": ProbeRun(probe_retrieval, 6),
    "forgetting": ProbeRun(probe_forgetting, 1),
}


def run_probes(subject: Subject, names: Collection[str]) -> tuple[Probe, ...]:
    """Return what the probes of these names found, in the order of `RUNS`; `adjusted` says what is shown. A probe whose
    endpoint fails, or that changes too few questions, is told and left out.
    """
    found: list[Probe] = []
    for name, run in RUNS.items():
        if name in names:
            try:
                probed = list(run.find(subject))
                found += probed
                if not probed:
                    reason = f"it does not apply to this arm, or to at least {LEAST_CHANGED} of its questions"
                    subject.tell(f"the probe {name} was left out: {reason}", stays=True)
            except (InputError, RemoteError) as error:
                subject.tell(f"the probe {name} was left out: {error}", stays=True)
    return tuple(found)


def adjusted(found: Sequence[Probe], margin: float) -> tuple[Probe, ...]:
    """Return all findings of an arm with p-values after Holm: one is `found` if its loss is shown and above the
    margin."""
    p_holm = holm([one.p for one in found])
    return tuple(
        replace(one, p_holm=p, found=p < LEVEL and -one.difference > margin)
        for one, p in zip(found, p_holm, strict=True)
    )


def passes(names: Collection[str]) -> int:
    """Return how many times these probes answer the questions."""
    return sum(RUNS[name].passes for name in names)
