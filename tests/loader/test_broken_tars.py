"""Damaged tars are read as far as possible, and each unreadable stretch is reported with the offset of its first byte."""

import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.loader.tars import END, file, header, pax, record
from vlmdata.loader.index.grouping import contents
from vlmdata.loader.index.scan_tar import scan
from vlmdata.loader.index.tar import members

A, B = (file(b"%c.jpg" % name, b"picture") + file(b"%c.txt" % name, b"words") for name in b"ab")
TRASH = b"trash!!!" * 64
HUGE = b"\x80" + b"\xff" * 11


def read(data: bytes) -> tuple[list[str], list[tuple[int, str]], list[str]]:
    """Return the members of a tar as key.extension, each damage as (offset, reason), and the names of the links."""
    found = contents(list(members(lambda offset, size: data[offset : offset + size], len(data))))
    names = [f"{sample.key}.{extension}" for sample in found.samples for extension, _ in sample.members]
    return names, [(one.offset, one.why) for one in found.damages], [one.name for one in found.links]


BOTH = ["a.jpg", "a.txt", "b.jpg", "b.txt"]


@pytest.mark.parametrize("between", [b"", *(bytes(512 * blocks) for blocks in (1, 2, 3, 20, 5000))])
def test_concatenated_tars_are_read_whatever_zeros_separate_them(between: bytes) -> None:
    assert read(A + between + B + END) == (BOTH, [], [])
    assert read(A + between + B + bytes(700)) == (BOTH, [], [])


@pytest.mark.parametrize("odd", [1, 3, 511, 513, 5000, 4096 - 100, 70_001])
def test_a_tar_may_start_at_any_byte(odd: int) -> None:
    assert read(A + END + bytes(odd) + B + END) == (BOTH, [], [])
    assert read(bytes(odd) + A + B) == (BOTH, [], [])
    names, damages, _ = read(A + END + b"x" * odd + B + END)
    assert (names, [offset for offset, _ in damages]) == (BOTH, [len(A + END)])
    many = b"".join(A + END + b"x" * odd for _ in range(20))
    assert read(many)[0] == ["a.jpg", "a.txt"] * 20


@pytest.mark.parametrize(
    ("before", "trash", "after", "why"),
    [
        (A, TRASH, B, "no tar header here"),
        (A + END, TRASH * 3000, B, "no tar header here"),
        (b"", TRASH, A + B, "no tar header here"),
        (A + B + END, TRASH, b"", "no tar header here"),
        (A, header(b"x.jpg", 0, size_field=HUGE), B, "are missing"),
        (A, header(b"x.jpg", 0, size_field=b"77777777777\0"), B, "are missing"),
        (A, header(b"x.jpg", 0, size_field=b"\xff" * 12), B, "negative"),
        (A, header(b"x.jpg", 0, size_field=b"0o7junk00000"), B, "not a number"),
        (A, header(b"x.jpg", 0, size_field=b"0000000_010\0"), B, "not a number"),
        (A, file(b"x.jpg", b"x").replace(b"x.jpg", b"y.jpg"), B, "checksum"),
        (A, header(b"x", 0, b"L", size_field=HUGE), B, "extended header"),
        (A, header(b"x.jpg", 600, b"S") + TRASH * 2, B, "sparse"),
        (A, header(b"x.jpg", 600, b"M") + TRASH * 2, B, "another volume"),
        (A, pax(record(b"size", b"9" * 5000)) + file(b"x.jpg", b"x"), B, "pax header states a size that is not a number"),
        (A, pax(b"9" * 5000 + b" a=b\n") + file(b"x.jpg", b"x"), B, "record of a pax header"),
        (A, pax(b"5 a=\n" * 300_000) + file(b"x.jpg", b"x"), B, "more than the limit of 1048576"),
        (A, pax(b"5 a=\n" * 300_000, b"g"), B, "more than the limit of 1048576"),
        (A, pax(record(b"path", b"x" * 5000)) + file(b"x.jpg", b"x"), B, "name of a member has 5000 bytes"),
        (A, pax(record(b"path", b"x" * 5000)) + header(b"x.jpg", 0, size_field=HUGE), B, "name of a member has 5000 bytes"),
        (A + B, pax(record(b"path", b"x.jpg")), b"", "extended header"),
    ],
)
def test_an_unreadable_stretch_is_reported_once_and_the_rest_is_read(before, trash, after, why) -> None:
    names, damages, _ = read(before + trash + after + END)
    assert names == BOTH
    assert [offset for offset, _ in damages] == [len(before)] and why in damages[0][1]


@pytest.mark.parametrize("kind", [bytes([kind]) for kind in b"3456VDNAZ"])
def test_members_that_are_not_files_hide_no_sample_whatever_size_they_state(kind: bytes) -> None:
    for odd in (header(b"x.jpg", 0, kind), header(b"x.jpg", 0, kind, size_field=HUGE), file(b"x.jpg", TRASH * 2, kind)):
        assert read(A + odd + B + END) == (BOTH, [], [])


@pytest.mark.parametrize("kind", [bytes([kind]) for kind in b"3456V"])
def test_kinds_without_data_may_state_a_size(kind: bytes) -> None:
    assert read(A + header(b"x.jpg", 600, kind) + B + END) == (BOTH, [], [])


def test_links_are_listed_separately_from_members() -> None:
    links = header(b"d/c.jpg", 0, b"2", b"../b.jpg") + header(b"e.jpg", 0, b"1", b"a.jpg")
    assert read(A + links + B + header(b"notes", 0, b"2", b"/etc") + END) == (BOTH, [], ["d/c.jpg", "e.jpg"])


def test_pax_numbers_with_many_digits_are_read() -> None:
    data = pax(record(b"size", b"0" * 5000 + b"5") + record(b"mtime", b"9" * 5000)) + file(b"a.txt", b"words")
    assert read(data + B + END) == (["a.txt", "b.jpg", "b.txt"], [], [])


def test_many_pax_headers_do_not_slow_the_reader_or_fill_its_memory() -> None:
    many = pax(b"".join(record(b"k%d" % number, b"v") for number in range(20_000)), b"g")
    data = many + b"".join(header(b"%d.txt" % number, 0) for number in range(5000)) + pax(b"5 a=\n" * 200_000) + A
    tracemalloc.start()
    start = time.process_time()
    names, damages, _ = read(data)
    assert (len(names), damages) == (5002, [])
    assert time.process_time() - start < 10  # Takes a second on an idle machine; it once took 100 s.
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


SPARSE = bytearray(header(b"x.jpg", 0, b"S", size_field=HUGE))
# The sparse map continues in the next block, and a reader could take this block for that next one.
SPARSE[482] = SPARSE[504] = 1
SPARSE[148:156] = b" " * 8
SPARSE[148:156] = b"%06o\0 " % sum(SPARSE)


@pytest.mark.parametrize(
    "unit", [TRASH + B, bytes(512) + B, header(b"x.jpg", 0, size_field=HUGE), bytes(SPARSE), b"ustar" * 512, b"ustar\0" * 512]
)
def test_bytes_read_grow_linearly_with_the_file_for_any_content(unit: bytes) -> None:
    data = unit * (1_000_000 // len(unit))
    bytes_read = 0

    def counting(offset: int, size: int) -> bytes:
        nonlocal bytes_read
        bytes_read += len(data[offset : offset + size])
        return data[offset : offset + size]

    list(members(counting, len(data)))
    assert bytes_read < 20 * len(data)


@pytest.mark.parametrize("form", [["gnu"], ["posix", "--sparse-version=0.0"], ["posix", "--sparse-version=0.1"], ["posix"]])
def test_sparse_members_are_reported_and_the_other_members_are_read(tmp_path: Path, form: list[str]) -> None:
    for name in ("a.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    with open(tmp_path / "b.bin", "wb") as sparse:
        for stretch in range(60):  # more stretches than one GNU header holds
            sparse.seek(stretch * 100_000)
            sparse.write(b"x")
        sparse.truncate(8 << 20)
    options = ["--sparse", f"--format={form[0]}", *form[1:]]
    done = subprocess.run(["tar", *options, "-cf", "s.tar", "a.txt", "b.bin", "c.txt"], cwd=tmp_path, check=False)
    if done.returncode:
        pytest.skip("no GNU tar")
    names, damages, _ = read((tmp_path / "s.tar").read_bytes())
    assert names == ["a.txt", "c.txt"]
    assert ["sparse member 'b.bin'" in why for _, why in damages] == [True]


def test_the_index_reports_the_first_damage_and_the_number_of_others(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(A + TRASH + B + TRASH + END)
    table, damage = scan(str(tmp_path / "a.tar"), "a.tar", image_sizes=False)
    assert table["key"].to_pylist() == ["a", "b"]
    assert damage == f"{tmp_path}/a.tar, byte {len(A)}: there is no tar header here (wrong checksum) (and at 1 more places)"


def test_an_old_folder_entry_hides_no_sample_and_a_global_header_ends_with_its_tar() -> None:
    assert read(header(b"dd/", 2560, b"0") + A + END) == (["a.jpg", "a.txt"], [], [])
    everywhere = pax(record(b"path", b"evil.txt"), b"g")
    assert read(everywhere + file(b"x.jpg", b"picture") + END + B + END) == (["evil.txt", "b.jpg", "b.txt"], [], [])
