"""Keep the latest row of each group."""

import json

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_rows, set_column


def keep_latest(rows: pa.Table, groups: list[str | None], step: str, reason: str) -> pa.Table:
    """Mark as dropped all rows of each group except the latest row. Return all rows, including the dropped rows.

    `groups` holds the group of each row. Rows whose group is None are not dropped. The `cluster` of a dropped row becomes the
    key of the latest row. The latest row has the greatest WARC file name. Between equal names, the greatest date and then the
    greatest key decide.
    """
    keys, extras = rows["key"].to_pylist(), rows["extra"].to_pylist()
    best: dict[str, tuple[str, str, str]] = {}
    for group, key, extra in zip(groups, keys, extras, strict=True):
        if group is not None:
            rank = _rank(extra, key)
            if group not in best or rank > best[group]:
                best[group] = rank
    kept = [None if group is None else best[group][2] for group in groups]
    lost = np.array([latest is not None and latest != key for latest, key in zip(kept, keys, strict=True)], bool)
    old = rows["cluster"].to_pylist()
    clusters = [latest if is_lost else before for latest, is_lost, before in zip(kept, lost, old, strict=True)]
    return drop_rows(set_column(rows, "cluster", pa.array(clusters, pa.string())), lost, step, reason=reason)


def _rank(extra: str | None, key: str) -> tuple[str, str, str]:
    facts = json.loads(extra) if extra else {}
    return str(facts.get("warc_filename") or ""), str(facts.get("warc_date") or ""), key
