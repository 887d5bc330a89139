"""Every verb reports a damaged manifest or Parquet file in one line, and names in a dataset never lead outside its folder."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.site import site
from vlmdata import cli, run
from vlmdata.dataset import read_manifest
from vlmdata.step import RecipeError

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("built")
    with site(folder, 12) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    shutil.rmtree(folder / "out" / "work")
    yield folder / "out"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def run_verb(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Run a verb and return its status and its errors, or its result if it writes no error."""
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, (captured.err or captured.out).strip()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["manifest.json", "index.parquet", "ledger/00000.parquet"])
def test_every_verb_reports_a_damaged_file_by_name_or_succeeds(
    built: Path, out: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (out / name).read_bytes()
    for number in range(40):
        chance = random.Random(number)
        at = chance.randrange(len(whole))
        data = whole[:at] if number % 2 else whole[:at] + chance.randbytes(20) + whole[at + 20 :]
        (out / name).write_bytes(data)
        verb = chance.choice(
            [["check", out], ["show", out], ["diff", built, out], ["forget", out, "--domain", "x.org", "--dry-run"]]
        )
        status, text = run_verb(capsys, *verb)
        assert status in (0, 1, 2)
        assert status == 0 or (len(text.splitlines()) == 1 and (name in text or name == "manifest.json")), text


def test_check_finds_damage_in_a_parquet_of_the_right_size(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = out / "index.parquet"
    data = bytearray(index.read_bytes())
    data[40:60] = bytes(20)
    index.write_bytes(data)
    status, text = run_verb(capsys, "check", out)
    assert status == 1 and text.startswith(f"{index} is damaged: ") and len(text.splitlines()) == 1


FOOTERS = """
import io, sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from vlmdata.engine.output import lookup
from vlmdata.engine.store.parquet_files import bounds
lookup.GROUP = 50
data = lookup.encode_entries(np.arange(150), np.arange(150, dtype=np.int32))
begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
for at in range(begin, len(data) - 8):
    for changed in (0, 1, 15, 0x7F, 0xFF):
        damaged = bytearray(data)
        damaged[at] = changed
        try:
            metadata = pq.ParquetFile(io.BytesIO(bytes(damaged))).metadata
            [bounds(metadata, number) for number in range(min(metadata.num_row_groups, 9)) if metadata.num_columns]
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            pass
"""


@pytest.mark.fuzz
def test_a_damaged_footer_of_a_lookup_does_not_end_the_process() -> None:
    """Arrow's statistics would end the process where the footer and the schema give a column different types."""
    ended = subprocess.run([sys.executable, "-c", FOOTERS], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


OUTSIDE = ["../other.tar", "/etc/passwd", "a/../../b.tar", "file:///etc/passwd", "link.tar"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_that_names_a_file_outside_the_dataset_is_refused(
    out: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.tar").write_bytes(b"secret")
    os.symlink(tmp_path / "other.tar", out / "link.tar")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 6, "samples": 1, "sha256": ""}
    (out / "manifest.json").write_text(json.dumps(manifest))
    expected = f"vlmdata: {out}/manifest.json names a file outside of the dataset: {name!r}"
    for verb in (["check", out, "--bytes"], ["show", out], ["clean", out], ["export", out, tmp_path / "exported"]):
        assert run_verb(capsys, *verb) == (2, expected)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"files": {}}', '{"files": 1, "rows": 0}'])
def test_an_invalid_manifest_is_reported(out: Path, text: str) -> None:
    (out / "manifest.json").write_text(text)
    with pytest.raises(RecipeError, match=r"manifest\.json is damaged: .* build the dataset again$"):
        read_manifest(out)


def test_an_index_that_names_a_tar_outside_the_dataset_is_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (out / "index.parquet").read_bytes()
    assert b"00000.tar" in data
    (out / "index.parquet").write_bytes(data.replace(b"00000.tar", b"../x0.tar"))
    status, text = run_verb(capsys, "show", out)
    assert status == 2 and ("outside of the dataset" in text or "is damaged" in text)
