"""Any tar that tarfile writes is read as tarfile reads it, and a damaged tar is reported or its intact samples are kept."""

import io
import shutil
import tarfile
import tempfile
import warnings
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata import stream
from vlmdata.loader.index.grouping import samples
from vlmdata.loader.index.tar import Member, TarDamage, members
from vlmdata.loader.stream import ReadOptions

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/.", exclude_categories=["Cs"]), min_size=1, max_size=12)
KEYS = st.builds("/".join, st.lists(st.one_of(NAMES, st.just("long" * 40)), min_size=1, max_size=3))
EXTENSIONS = st.sampled_from(["jpg", "0.png", "txt", "JSON", "seg.npy"])
FILES = st.lists(st.tuples(KEYS, EXTENSIONS, st.binary(max_size=1500)), min_size=1, max_size=8)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def tar_of(files: list[tuple[str, str, bytes]], format: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as tar:
        for key, extension, data in files:
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


@settings(max_examples=150)
@given(FILES, FORMATS)
def test_members_equal_those_that_tarfile_reads(files: list[tuple[str, str, bytes]], format: int) -> None:
    data = tar_of(files, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(member.name, member.offset_data, member.size) for member in tar]
    found = list(members(lambda offset, size: data[offset : offset + size], len(data)))
    assert [(member.name, member.offset, member.size) for member in found] == theirs
    grouped = samples(found)
    assert sum(len(sample.members) for sample in grouped) == len(found)
    assert all(len({name for name, _ in sample.members}) == len(sample.members) for sample in grouped)


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=12)), max_size=4)


@settings(max_examples=150)
@given(FILES, FORMATS, DAMAGE, st.floats(0, 1))
def test_damage_is_reported_and_members_read_are_inside_the_tar(
    files: list[tuple[str, str, bytes]], format: int, damage: list[tuple[float, bytes]], kept: float
) -> None:
    data = bytearray(tar_of(files, format))
    for place, rubbish in damage:
        at = int(place * len(data))
        data[at : at + len(rubbish)] = rubbish
    broken = bytes(data[: int(kept * len(data)) + 1])
    found = list(members(lambda offset, size: broken[offset : offset + size], len(broken)))
    files = [one for one in found if isinstance(one, Member)]
    assert all(0 <= one.header < one.offset <= one.offset + one.size <= len(broken) for one in files)
    assert all(0 <= one.offset < one.end for one in found if isinstance(one, TarDamage))


@settings(max_examples=40)
@given(FILES, DAMAGE, st.floats(0, 1))
def test_a_stream_over_a_broken_tar_gives_whole_samples_or_one_clear_error(
    files: list[tuple[str, str, bytes]], damage: list[tuple[float, bytes]], kept: float
) -> None:
    data = bytearray(tar_of(files, tarfile.PAX_FORMAT))
    for place, rubbish in damage:
        at = int(place * len(data))
        data[at : at + len(rubbish)] = rubbish
    folder = Path(tempfile.mkdtemp())
    try:
        tar = folder / "0.tar"
        tar.write_bytes(data[: int(kept * len(data)) + 1])
        for on_error in ("raise", "skip"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    reading = ReadOptions(on_error=on_error, cache=folder / on_error)  # type: ignore[arg-type]
                    given = list(stream(tar, reading=reading, torch=False))
                assert given
            except ValueError as error:
                assert "0.tar" in str(error) or "no samples" in str(error)
    finally:
        shutil.rmtree(folder)
