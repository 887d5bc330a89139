"""sizes.json counts the samples of each tar, so that open_clip's trainer needs no number of samples."""

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.buckets import bucket, objects
from tests.engine.site import manifest, site
from vlmdata import check, export, run
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.takedown import finish, forget

pytestmark = pytest.mark.whole
PATTERN = "{00000..00001}.tar"


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counts")
    with site(folder, 48, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        web.out = folder / "out"
        yield web


@pytest.fixture
def out(web, tmp_path):
    return shutil.copytree(web.out, tmp_path / "out")


def counts(folder: Path) -> dict[str, int]:
    return json.loads((folder / "sizes.json").read_text())


def keys_in(path: Path) -> list[str]:
    """Return the keys of the samples of a tar, sorted."""
    with tarfile.open(path) as tar:
        return sorted({member.name.partition(".")[0] for member in tar})


def counted_in_tars(folder: Path) -> dict[str, int]:
    """Return the number of samples of each tar, counted in the tars themselves."""
    return {path.name: len(keys_in(path)) for path in sorted(folder.glob("*.tar"))}


def size_for_open_clip(pattern: str) -> tuple[int, int]:
    """Return the samples and the tars that open_clip's trainer finds for a pattern of tars."""
    from open_clip_train.data import get_dataset_size

    return get_dataset_size(pattern)


def test_open_clip_reads_the_number_of_samples_beside_the_tars(web):
    assert counts(web.out) == counted_in_tars(web.out) == {"00000.tar": 20, "00001.tar": 16}
    assert size_for_open_clip(f"{web.out}/{PATTERN}") == (36, 2)


def test_open_clip_makes_its_batches_without_a_number_of_samples(web):
    from open_clip_train.data import get_wds_dataset

    chosen = {"train_num_samples": None, "train_data_upsampling_factors": None, "seed": 0, "workers": 1, "world_size": 1}
    args = SimpleNamespace(train_data=f"{web.out}/{PATTERN}", batch_size=4, **chosen)
    assert get_wds_dataset(args, None, True, tokenizer=None).dataloader.num_samples == 36


def test_a_takedown_counts_the_tars_again(out):
    key = keys_in(out / "00001.tar")[0]
    forget(out, key=[key])
    assert counts(out) == counted_in_tars(out) == {"00000.tar": 20, "00001.tar": 15}
    assert check(out, read_bytes=True) == []


def test_a_tar_that_a_takedown_removes_is_not_counted(out):
    forget(out, key=keys_in(out / "00001.tar"))
    assert counts(out) == counted_in_tars(out) == {"00000.tar": 20}


def test_a_killed_takedown_leaves_no_wrong_counts(out, monkeypatch):
    class Killed(BaseException):
        pass

    publish = LocalStore.publish

    def dies(store, name, target):
        publish(store, name, target)
        raise Killed

    key = keys_in(out / "00001.tar")[0]
    with monkeypatch.context() as killing, pytest.raises(Killed):
        killing.setattr(LocalStore, "publish", dies)
        forget(out, key=[key])
    assert not (out / "sizes.json").exists() and not (out / "manifest.json").exists()
    assert finish(out) and counts(out) == counted_in_tars(out)


def test_another_size_of_the_tars_counts_them_again(web, out):
    run(web.recipe, out, overrides={"shards.samples": 30}, local=True, workers=1)
    assert counts(out) == counted_in_tars(out) == {"00000.tar": 30, "00001.tar": 6}
    assert "sizes.json" in manifest(out)["files"] and check(out, read_bytes=True) == []


def test_a_dataset_without_samples_has_no_counts(web, tmp_path):
    run(web.recipe, tmp_path / "out", overrides={"text_length.min_words": 50}, local=True, workers=1)
    assert counts(tmp_path / "out") == {}


def test_a_dataset_in_a_bucket_has_the_same_counts(web):
    with bucket() as address:
        run(web.recipe, f"{address}/out", local=True, workers=1)
        assert objects(f"{address}/out")["sizes.json"] == (web.out / "sizes.json").read_bytes()


def test_exported_tars_have_counts(web, tmp_path):
    export(web.out, tmp_path / "to", to="tars")
    assert counts(tmp_path / "to") == counted_in_tars(tmp_path / "to") == {"00000.tar": 20, "00001.tar": 16}
    assert size_for_open_clip(f"{tmp_path}/to/{PATTERN}") == (36, 2)
