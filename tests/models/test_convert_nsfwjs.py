"""The converter reads an npm package as text: whatever a package holds, the outcome is a folder or one line."""

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.fixtures import fixture
from vlmdata.models.convert_nsfwjs import LICENCE, MODEL, PACKAGE, SHARD, convert, main

CONVERTED = fixture("I_nsfwjs/model")


def package_files() -> dict[str, bytes]:
    """Return the files of the package nsfwjs 4.3.0 that matter, in the form of its scripts, made from the converted ones."""
    config = json.loads((CONVERTED / "config.json").read_text())
    weights = load_file(CONVERTED / "model.safetensors")
    entries, data = [], b""
    for name, (least, scale) in config["quantization"].items():
        shape = ",".join(map(str, weights[name].shape))
        numbers = [repr(number).replace("0.", ".", 1) if abs(number) < 1 else repr(number) for number in (least, scale)]
        quantization = f'quantization:{{min:{numbers[0]},scale:{numbers[1]},dtype:"uint8"}}'
        entries.append(f'{{name:"{name}",shape:[{shape}],dtype:"float32",{quantization}}}')
        data += weights[name].tobytes()
    model = f'!function(e){{a.exports={{x:!0,weightsManifest:[{{paths:["group1-shard1of1"],weights:[{",".join(entries)}]}}]}}}}'
    shard = f'!function(e){{a.exports="{base64.b64encode(data).decode()}"}}'
    own = {MODEL: model, SHARD: shard, LICENCE: (CONVERTED / "LICENSE").read_text(), PACKAGE: '{"version": "4.3.0"}'}
    return {name: text.encode() for name, text in own.items()}


def packed(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    """Write a package with these files, and with other members before them."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member in others:
            tar.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_package_becomes_the_folder_that_the_real_package_became(tmp_path: Path) -> None:
    outside = tarfile.TarInfo("../../outside")
    package = packed(tmp_path / "a.tgz", package_files(), outside)
    assert main([str(package), str(tmp_path / "out" / "model")]) == 0
    for name in ("config.json", "model.safetensors", "LICENSE"):
        assert (tmp_path / "out" / "model" / name).read_bytes() == (CONVERTED / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "out"]
    convert(package, tmp_path / "corners", "bilinear_corners")
    assert json.loads((tmp_path / "corners" / "config.json").read_text())["resize"] == "bilinear_corners"


def changed(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Return a function that replaces bytes in one of the files."""

    def change(files: dict[str, bytes]) -> dict[str, bytes]:
        assert old in files[name]
        return {**files, name: files[name].replace(old, new, 1)}

    return change


HUGE = b"shape:[99999999999999999999,3,3,32]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda files: {k: v for k, v in files.items() if k != SHARD},
            "has no package/dist/models/mobilenet_v2/group1-shard1of1",
        ),
        (changed(MODEL, b"shape:[3,3,3,32]", HUGE), "does not list the tensors of MobileNetV2, such as Conv1/kernel"),
        (
            changed(MODEL, b'name:"Conv1/kernel"', b'name:"Conv1/other"'),
            "does not list the tensors of MobileNetV2, such as Conv1/",
        ),
        (changed(MODEL, b'"uint8"}}', b'"uint8"}},require("fs"),'), "does not list the tensors of MobileNetV2"),
        (changed(MODEL, b"weightsManifest", b"manifest"), "does not list the tensors of MobileNetV2"),
        (changed(MODEL, b"min:-.8733", b"min:-.8733e999999"), "does not list|is not finite"),
        (changed(SHARD, b'a.exports="', b'a.exports="AAAA'), "has 2,619,464 weights, not 2,619,461"),
        (changed(SHARD, b'a.exports="', b'a.exports="A'), "must hold one text in base64"),
        (lambda files: {**files, SHARD: files[SHARD] + files[SHARD]}, "must hold one text in base64"),
        (lambda files: {**files, MODEL: b"\xff" * 100}, "does not list the tensors of MobileNetV2"),
        (lambda files: {**files, LICENCE: bytes((16 << 20) + 1)}, "LICENSE must be one file of at most 16 MiB"),
    ],
)
def test_a_package_with_another_network_is_one_line(
    change: Callable[[dict[str, bytes]], dict[str, bytes]], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = packed(tmp_path / "a.tgz", change(package_files()))
    assert main([str(package), str(tmp_path / "model")]) == 1
    said = capsys.readouterr().err
    assert any(part in said for part in message.split("|")) and said.count("\n") == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_link_or_a_device_in_place_of_a_file_is_refused(
    kind: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = tarfile.TarInfo(MODEL)
    member.type, member.linkname = kind, "/etc/passwd"
    files = {name: data for name, data in package_files().items() if name != MODEL}
    assert main([str(packed(tmp_path / "a.tgz", files, member)), str(tmp_path / "model")]) == 1
    assert "model.min.js must be one file" in capsys.readouterr().err


def test_a_file_that_is_no_package_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = packed(tmp_path / "good.tgz", package_files()).read_bytes()
    bomb = gzip.compress(bytes(257 << 20), 1)
    for data, message in (
        (b"", "is not a package of npm"),
        (b"no gzip", "is not a package of npm"),
        (good[: len(good) // 2], "is not a package of npm"),
        (gzip.compress(b"no tar" * 1000), "is not a package of npm"),
        (bomb, "unpacks to more than 256 MiB"),
    ):
        (tmp_path / "a.tgz").write_bytes(data)
        assert main([str(tmp_path / "a.tgz"), str(tmp_path / "model")]) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert main([str(tmp_path / "nowhere.tgz"), str(tmp_path / "model")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_folder_with_files_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert main([str(packed(tmp_path / "a.tgz", package_files())), str(tmp_path / "mine")]) == 1
    assert "is not an empty folder" in capsys.readouterr().err and (tmp_path / "mine" / "config.json").read_text() == "{}"


def test_the_weights_have_the_range_of_the_published_ones() -> None:
    weights = load_file(CONVERTED / "model.safetensors")
    assert sum(values.size for values in weights.values()) == 2_619_461 and len(weights) == 266
    assert {values.dtype for values in weights.values()} == {np.dtype(np.uint8)}
