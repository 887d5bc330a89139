"""Groups of rows of which the latest stays."""

import json

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_rows, set_column


def keep_latest(rows: pa.Table, groups: list[str | None], step: str, reason: str) -> pa.Table:
    """Keep of each group the latest row, and write its key into `cluster` of the others; rows of a null group stay.

    The latest has the greatest WARC file name, then the greatest date, then the greatest key.
    """
    keys, extras = rows["key"].to_pylist(), rows["extra"].to_pylist()
    best: dict[str, tuple[str, str, str]] = {}
    for group, key, extra in zip(groups, keys, extras, strict=True):
        if group is not None:
            rank = _rank(extra, key)
            if group not in best or rank > best[group]:
                best[group] = rank
    kept = [None if group is None else best[group][2] for group in groups]
    lost = np.array([leader is not None and leader != key for leader, key in zip(kept, keys, strict=True)], bool)
    old = rows["cluster"].to_pylist()
    clusters = [leader if gone else before for leader, gone, before in zip(kept, lost, old, strict=True)]
    return drop_rows(set_column(rows, "cluster", pa.array(clusters, pa.string())), lost, step, reason=reason)


def _rank(extra: str | None, key: str) -> tuple[str, str, str]:
    facts = json.loads(extra) if extra else {}
    return str(facts.get("warc_filename") or ""), str(facts.get("warc_date") or ""), key
