from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from tests.similarity.hashes import lifelike
from tests.similarity.test_cosine import embeddings
from vlmdata.row import set_column
from vlmdata.similarity.cosine import pairs_above, quantise
from vlmdata.similarity.distributed import cosine_pairs, lsh_pairs, near_pairs
from vlmdata.similarity.hamming import edges_within, equal_groups, star_edges
from vlmdata.similarity.lsh import candidates
from vlmdata.splitmix import mixed
from vlmdata.step import DistributedSearch, Step
from vlmdata.steps.dedupe_minhash import DedupeMinhash
from vlmdata.steps.dedupe_phash import DedupePhash
from vlmdata.steps.dedupe_semantic import DedupeSemantic


def ordered(chunks: object) -> list[list[int]]:
    return sorted(np.concatenate(list(chunks)).tolist())  # type: ignore[call-overload]


@pytest.mark.parametrize("buckets", [1, 2, 7])
@pytest.mark.parametrize("distance", [2, 6])
def test_hamming_tasks_find_the_pairs_that_one_machine_finds(buckets: int, distance: int) -> None:
    hashes = lifelike(1500)
    _, groups, starts = equal_groups(hashes)
    expected = ordered(edges_within(hashes, distance))
    found = near_pairs(np.array_split(hashes, 3), distance, map, buckets=buckets)
    assert ordered([star_edges(groups, starts), *found]) == expected


def test_tasks_run_in_other_processes_on_files(tmp_path: Path) -> None:
    hashes = np.unique(lifelike(800))
    files = []
    for number, piece in enumerate(np.array_split(hashes, 2)):
        np.save(tmp_path / f"{number}.npy", piece)
        files.append(str(tmp_path / f"{number}.npy"))
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        found = ordered(near_pairs(files, 3, pool.map, buckets=2))
    assert found == ordered(edges_within(hashes, 3))


@pytest.mark.parametrize("buckets", [1, 3])
def test_lsh_tasks_find_the_pairs_that_one_machine_finds(buckets: int) -> None:
    keys = mixed(np.random.default_rng(0).integers(0, 200, (6, 900)).astype(np.uint64))
    expected = ordered(candidates(keys))
    assert len(expected) > 1000
    assert ordered(lsh_pairs([keys[:, :400], keys[:, 400:]], map, buckets=buckets)) == expected


def test_cosine_tasks_find_the_pairs_that_one_machine_finds() -> None:
    rows = quantise(embeddings(1200, 64))
    assert ordered(cosine_pairs(np.array_split(rows, 3), 0.9, map)) == ordered(pairs_above(rows, 0.9))


def decided(step: Step, rows: pa.Table, cuts: list[int]) -> pa.Table:
    """Let a step decide as the engine distributes it, with partitions, pieces and tasks, but one after the other in memory."""
    found = [step.piece(rows.slice(start, stop - start)) for start, stop in pairwise([0, *cuts, len(rows)])]
    spread = DistributedSearch([pieces for _, pieces in found], map, lambda array: array)
    return step.decide_distributed(pa.concat_tables([table for table, _ in found]).combine_chunks(), spread)


def rows_alike(count: int = 600) -> pa.Table:
    """Return rows of which many are similar by hash, by text and by embedding, and a tenth are dropped before."""
    random = np.random.default_rng(0)
    words = random.integers(0, 300, (count, 30))
    for row in np.flatnonzero(random.random(count) < 0.4).tolist():
        words[row] = words[random.integers(0, count)]
        words[row, random.integers(0, 30)] = random.integers(0, 300)
    texts = [" ".join(f"w{word}" for word in row) if n % 50 else "" for n, row in enumerate(words.tolist())]
    rows = captions(texts, phash=list(lifelike(count)), size=random.integers(1, 9, count).tolist())
    vectors = [None if n % 7 == 0 else row.tobytes() for n, row in enumerate(embeddings(count, 48).astype("<f2"))]
    rows = set_column(rows, "clip_score.embedding", pa.array([[v, None] for v in vectors], pa.list_(pa.binary())))
    gone = random.random(count) < 0.1
    return set_column(rows, "drop", pa.array(["before"] * count, mask=~gone))


@pytest.mark.parametrize("cuts", [[], [200, 200, 450], [1, 599]])
@pytest.mark.parametrize(
    "step",
    [
        DedupePhash(distance=4),
        DedupeMinhash(threshold=0.6, permutations=256),
        DedupeMinhash(threshold=0.6, permutations=256, keep=("earliest",)),
        DedupeSemantic(cosine=0.9),
        DedupeSemantic(cosine=0.9, rule="semdedup", cells=5),
        DedupeSemantic(cosine=0.9, rule="semdedup", cells=5, keep=("hard",)),
    ],
)
def test_a_distributed_decision_equals_the_decision_of_one_machine(
    step: Step, cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("distributed.PAIRS", 7), ("distributed.IN_A_TASK", 100), ("distributed_cells.ROWS", 150)):
        monkeypatch.setattr(f"vlmdata.similarity.{name}", value)
    monkeypatch.setattr("vlmdata.steps.dedupe_phash.IN_A_TASK", 100)
    rows = rows_alike()
    alone, spread = step.decide(rows), decided(step, rows, cuts)
    for column in ("key", "drop", "reason", "value", "threshold", "cluster", "images"):
        assert spread[column].to_pylist() == alone[column].to_pylist()
    assert alone["drop"].to_pylist().count(step.name) > 30


def test_a_table_without_kept_rows_is_decided_too() -> None:
    rows = set_column(rows_alike(5), "drop", pa.array(["before"] * 5))
    for step in (DedupePhash(), DedupeMinhash(), DedupeSemantic()):
        assert decided(step, rows, [2])["drop"].to_pylist() == ["before"] * 5
