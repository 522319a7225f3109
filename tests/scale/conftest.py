"""Little is spent on timing tiny models; a Ray cluster of as many nodes as a module's NODES says, two without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hashing_encoder import encoder, make_document
from patience import no_patience, timed_once
from ray_nodes import ray_nodes

from trimtab.scale.cluster import Cluster, open_cluster

__all__ = ["encoder", "make_document", "no_patience", "timed_once"]


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A cluster of nodes with a core each, which `auto` finds."""
    with ray_nodes(getattr(request.module, "NODES", 2)) as made:
        yield made


@pytest.fixture(scope="module")
def machines(nodes: Any) -> Iterator[Cluster]:
    """The same as the machines of a study."""
    with open_cluster("auto") as found:
        yield found
