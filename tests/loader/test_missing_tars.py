"""A path without tars is answered with what it is, and with what to name instead."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import vlmdata
from tests.loader.tars import write_tar
from vlmdata.errors import InputError
from vlmdata.loader.index.find_tars import find_shards
from vlmdata.loader.index.index_file import index_table

FIX = "Name a dataset that `vlmdata run` wrote, or a folder of WebDataset tars"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("unfinished/work", "empty", "exported/data", "pictures", "nothing/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "OUT").mkdir()
    write_tar(tmp_path / "OUT/00000.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    for name in ("exported/data/0.parquet", "pictures/a.JPG", "nothing/manifest.json", "list.csv", "recipe.yaml"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("NOPE", f"NOPE does not exist. {FIX}"),
        ("OUTT", "OUTT does not exist. Did you mean 'OUT'?"),
        ("OUT/0000.tar", "OUT/0000.tar does not exist. Did you mean 'OUT/00000.tar'?"),
        ("NOPE/deep", f"NOPE/deep does not exist. {FIX}"),
        ("captions", "captions is a recipe. Build it with `vlmdata run captions --out OUT`, and name OUT"),
        ("unfinished", "because its run has not finished. Run its build command again; it resumes"),
        ("nothing", "because the run kept no row. `vlmdata show nothing` says why"),
        ("exported", "but Parquet or Arrow files. If they are an export, name the dataset that was exported"),
        ("pictures", "but images. Build a dataset of them: vlmdata run captions_folder --set source.path=pictures --out OUT"),
        ("empty", f"there are no tars in empty. {FIX}"),
        ("x*", f"there are no tars in x*. {FIX}"),
        (["x*", "y*"], f"there are no tars in x*, y*. {FIX}"),
        ("list.csv", f"list.csv is not a tar. {FIX}"),
        ("recipe.yaml", "recipe.yaml is not a tar. Build it with `vlmdata run`, and name the dataset (--out)"),
    ],
)
def test_a_path_without_tars_is_answered_with_a_fix(folder: Path, path: str | list[str], line: str) -> None:
    for opens in (vlmdata.stream, find_shards):
        with pytest.raises(InputError) as caught:
            opens(path)  # type: ignore[operator]
        assert line in str(caught.value)


def test_a_dataset_without_samples_names_the_command_that_says_why(folder: Path) -> None:
    pq.write_table(index_table([]), folder / "nothing" / "index.parquet")
    for path in ("nothing", "nothing/index.parquet", {"nothing": 1.0}):
        with pytest.raises(vlmdata.Error) as caught:
            vlmdata.stream(path)  # type: ignore[arg-type]
        assert str(caught.value) == "nothing has no samples. `vlmdata show nothing` says why its run kept no row"


def test_an_index_of_tars_without_samples_is_answered_with_a_fix(folder: Path) -> None:
    pq.write_table(index_table([]), folder / "index.parquet")
    with pytest.raises(vlmdata.Error, match=f"has no samples: its tars are empty. {FIX}"):
        vlmdata.stream(folder)
