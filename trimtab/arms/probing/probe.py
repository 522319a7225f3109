"""Runs the probes of an arm, and tests what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from trimtab.arms.probing.forgetting import probe_forgetting
from trimtab.arms.probing.other_words import probe_other_words
from trimtab.arms.probing.rewording import probe_other_language
from trimtab.arms.probing.subject import Subject
from trimtab.arms.probing.typing_errors import probe_typing
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.results import Probe
from trimtab.measurement.statistics import LEVEL, holm

ProbeFunction = Callable[[Subject], Iterator[Probe]]
"""Yields what it found; nothing where it does not apply to the arm or the data."""

FUNCTIONS: Mapping[str, ProbeFunction] = {
    "typing": probe_typing,
    "other-words": probe_other_words,
    "other-language": probe_other_language,
    "forgetting": probe_forgetting,
}
PASSES: Mapping[str, int] = {"typing": 2, "other-words": 1, "other-language": 1, "forgetting": 1}
"""How many times a probe answers the questions: what it costs."""


def run_probes(subject: Subject, names: Collection[str]) -> tuple[Probe, ...]:
    """Return what the probes of these names found, in the order of `FUNCTIONS`; `adjusted` says what is shown. A probe
    whose endpoint fails is told and left out.
    """
    found: list[Probe] = []
    for name, function in FUNCTIONS.items():
        if name in names:
            try:
                found += function(subject)
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
    return sum(PASSES[name] for name in names)
