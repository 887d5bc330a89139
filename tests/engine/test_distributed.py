"""A decision that is distributed over workers gives the bytes that the driver alone gives, on Ray and when a worker dies."""

import io
import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.engine.site import download, hashes, manifest, picture
from tests.servers import LoopbackServer, reply
from vlmdata import run, stream
from vlmdata.demo.recipe import HERE
from vlmdata.engine.drive.processes import LocalWorkers
from vlmdata.steps.clip_loss import ClipLoss
from vlmdata.steps.dedupe_minhash import DedupeMinhash
from vlmdata.steps.dedupe_phash import DedupePhash
from vlmdata.steps.dedupe_semantic import DedupeSemantic

pytestmark = pytest.mark.whole

MODEL = f"local-dir:{HERE / 'clip'}"
COUNT = 90


def reencoded(body: bytes, quality: int) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(body)).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """Serve pictures a third of which are re-encoded copies of others, with captions a third of which differ by a word.
    Yield a folder with the recipes and the dataset that the driver alone decides."""
    folder = tmp_path_factory.mktemp("copies")
    bodies, texts = {}, []
    for number in range(COUNT):
        body = picture(number % 60)
        bodies[f"/{number}.jpg"] = reencoded(body, 70) if number >= 60 else body
        words = [f"w{number % 45}x{place}" for place in range(40)]
        texts.append(" ".join([*words, f"and{number}"]))
    routes = {path: reply(body, headers={"Content-Type": "image/jpeg"}) for path, body in bodies.items()}
    with LoopbackServer(routes) as server:
        listing = folder / "urls.parquet"
        pq.write_table(pa.table({"url": [server.url(path) for path in bodies], "caption": texts}), listing)
        get = [download(), {"resize": {"size": 48}}]
        score = {"clip_score": {"model": MODEL, "min_score": -1, "embeddings": True}}
        for name, steps in (("texts", ["dedupe_phash", "dedupe_minhash"]), ("all", ["dedupe_phash", score, "dedupe_semantic"])):
            tree = {"source": {"type": "url_list", "path": str(listing)}, "steps": get + steps, "part_rows": 16}
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        run(folder / "texts.yaml", folder / "texts", local=True, workers=2)
        yield folder


@pytest.fixture
def distributed(monkeypatch):
    for step in (DedupeMinhash, DedupePhash, DedupeSemantic):
        monkeypatch.setattr(step, "distribute_above", 10)


def test_a_distributed_decision_on_ray_gives_the_bytes_of_one_machine(copies: Path, tmp_path: Path, distributed):
    run(copies / "texts.yaml", tmp_path / "out", workers=2)
    dropped = {line["step"]: line["rows"] for line in manifest(tmp_path / "out")["dropped"]}
    assert dropped["dedupe_phash"] > 20 and dropped["dedupe_minhash"] > 10
    assert hashes(tmp_path / "out") == hashes(copies / "texts")
    assert not list((tmp_path / "out/work/pieces").iterdir()), "what was searched in is taken away"


def test_a_worker_that_dies_while_it_searches_changes_no_byte(copies: Path, tmp_path: Path, distributed, monkeypatch):
    send, victims = LocalWorkers.send, []

    def send_and_kill(workers: LocalWorkers, worker: int, ticket: int, method: str, args: tuple) -> None:
        victim = workers.processes[worker]
        if method == "search" and not victims:
            os.kill(victim.pid, signal.SIGSTOP)  # stop the worker, so that it dies with the task received but not done
            victims.append(victim)
        send(workers, worker, ticket, method, args)
        if victims == [victim]:
            victim.kill()

    monkeypatch.setattr(LocalWorkers, "send", send_and_kill)
    run(copies / "texts.yaml", tmp_path / "out", local=True, workers=2)
    assert [victim.exitcode for victim in victims] == [-signal.SIGKILL]
    assert hashes(tmp_path / "out") == hashes(copies / "texts")


def test_workers_search_the_embeddings_that_they_stored(copies: Path, tmp_path: Path, monkeypatch):
    run(copies / "all.yaml", tmp_path / "alone", local=True, workers=1)
    for step in (DedupePhash, DedupeSemantic):
        monkeypatch.setattr(step, "distribute_above", 10)
    run(copies / "all.yaml", tmp_path / "distributed", local=True, workers=2)
    assert hashes(tmp_path / "distributed") == hashes(tmp_path / "alone")
    assert {line["step"] for line in manifest(tmp_path / "alone")["dropped"]} >= {"dedupe_phash", "dedupe_semantic"}


def test_batches_of_pairs_are_tasks_and_the_score_reaches_the_sample(copies: Path, tmp_path: Path, monkeypatch):
    tree = yaml.safe_load((copies / "all.yaml").read_text())
    embed = [{"text_embedding": {"model": MODEL}}, {"clip_loss": {"batch": 20, "repeats": 2, "store_as": "loss"}}]
    tree["steps"] = [*tree["steps"][:-1], *embed, {"source_score": {"label": "loss", "of": "loss", "single": False}}]
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    run(tmp_path / "pairs.yaml", tmp_path / "alone", local=True, workers=1)
    monkeypatch.setattr(ClipLoss, "distribute_above", 10)
    run(tmp_path / "pairs.yaml", tmp_path / "distributed", local=True, workers=2)
    assert hashes(tmp_path / "distributed") == hashes(tmp_path / "alone")
    made = manifest(tmp_path / "alone")
    assert {line["reason"] for line in made["dropped"] if line["step"] == "clip_loss"} == {"below_fraction"}
    losses = [json.loads(sample["json"])["scores"]["loss"] for sample in stream(tmp_path / "alone", torch=False)]
    assert len(losses) == made["kept"] > 10 and max(losses) <= 0
