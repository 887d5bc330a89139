"""Ray clusters for tests, with several nodes on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PLAIN = {"object_store_memory": 80_000_000, "include_dashboard": False}


@contextlib.contextmanager
def nodes(head: dict[str, Any], *others: dict[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Start a cluster and yield it with its nodes other than the head."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = _begun(lambda: Cluster(initialize_head=True, head_node_args={**PLAIN, **head}))
    try:
        yield cluster, [_begun(lambda other=other: cluster.add_node(**PLAIN, **other)) for other in others]
    finally:
        ray.shutdown()
        cluster.shutdown()


def _begun(begin: Callable[[], Any]) -> Any:
    """Start a node, and try a second time if Ray gives up: its limit of half a minute is short on a busy machine
    (ray#65983)."""
    try:
        return begin()
    except Exception:  # Ray raises no narrower exception
        return begin()
