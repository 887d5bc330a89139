from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.similar.hashes import lifelike
from tests.similar.test_cosine import embeddings
from vlmdata.similar.cosine import pairs_above, quantise
from vlmdata.similar.grams import mixed
from vlmdata.similar.hamming import edges_within
from vlmdata.similar.lsh import candidates
from vlmdata.similar.spread import cosine_pairs, hamming_edges, lsh_pairs


def ordered(chunks: object) -> list[list[int]]:
    return sorted(np.concatenate(list(chunks)).tolist())  # type: ignore[call-overload]


@pytest.mark.parametrize("buckets", [1, 2, 7])
@pytest.mark.parametrize("distance", [2, 6])
def test_hamming_tasks_find_what_one_machine_finds(buckets: int, distance: int) -> None:
    hashes = lifelike(1500)
    expected = ordered(edges_within(hashes, distance))
    found = hamming_edges(np.array_split(hashes, 3), distance, map, buckets=buckets)
    assert ordered(found) == expected


def test_tasks_run_in_other_processes_on_files(tmp_path: Path) -> None:
    hashes = lifelike(800)
    files = []
    for number, piece in enumerate(np.array_split(hashes, 2)):
        np.save(tmp_path / f"{number}.npy", piece)
        files.append(str(tmp_path / f"{number}.npy"))
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        found = ordered(hamming_edges(files, 3, pool.map, buckets=2))
    assert found == ordered(edges_within(hashes, 3))


@pytest.mark.parametrize("buckets", [1, 3])
def test_lsh_tasks_find_what_one_machine_finds(buckets: int) -> None:
    keys = mixed(np.random.default_rng(0).integers(0, 200, (6, 900)).astype(np.uint64))
    expected = ordered(candidates(keys))
    assert len(expected) > 1000
    assert ordered(lsh_pairs([keys[:, :400], keys[:, 400:]], map, buckets=buckets)) == expected


def test_cosine_tasks_find_what_one_machine_finds() -> None:
    rows = quantise(embeddings(1200, 64))
    assert ordered(cosine_pairs(np.array_split(rows, 3), 0.9, map)) == ordered(pairs_above(rows, 0.9))
