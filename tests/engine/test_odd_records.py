"""A dataset from others may hold any value in any field: a verb that reads it succeeds or ends with one line that names the
file."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import site
from vlmdata import cli, run, stream
from vlmdata.loader.index.index_file import INDEX
from vlmdata.loader.stream import ReadOptions
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole

ODD: list[Any] = [
    None, True, -1, 1 << 40, 1 << 70, float("nan"), float("inf"), 1.5, "", "x", "1", "\ud800", "../x", "a\nb", "\x1b[2J",
    [], [1], [None], [[]], {}, {"x": 1}, {"rows": 1}, {"x": None}, {"\ud800": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("built")
    with site(folder, 16) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    shutil.copytree(folder / "out", folder / "whole")
    shutil.rmtree(folder / "out" / "work")
    yield folder / "out"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def reads(built: Path, out: Path, number: int) -> list[list[Any]]:
    """Return the commands of the verbs that read a dataset, with an export format that depends on `number`."""
    key = pq.read_table(built / "index.parquet")["key"][0].as_py()
    verbs: list[list[Any]] = [
        ["show", out],
        ["why", out, key],
        ["why", out, "http_404"],
        ["diff", built, out],
        ["export", out, out.parent / f"exported-{number}", "--to", ("folder", "parquet")[number % 2]],
        ["check", out, "--bytes"],
        ["forget", out, "--domain", "127.0.0.1", "--dry-run"],
        ["forget", out, "--key", key, "--dry-run"],
    ]
    return verbs


def one_line(capsys: pytest.CaptureFixture[str], words: list[Any], names: tuple[str, ...]) -> None:
    """Run a verb and check that a failure prints one line with the name of the file. `check` may print several lines."""
    try:
        status = cli.main([str(word) for word in words])
    finally:
        captured = capsys.readouterr()
    assert status in (0, 1, 2), words
    assert "Traceback" not in captured.err, captured.err
    assert "\x1b" not in captured.out + captured.err
    if status and words[0] != "check":
        assert len(captured.err.strip().splitlines()) == 1, captured.err
        assert any(name in captured.err for name in names), captured.err


def places(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree, but only of the first value of a list."""
    yield before
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from places(value, (*before, name))
    if isinstance(tree, list) and tree:
        yield from places(tree[0], (*before, 0))


def with_value(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = copy.deepcopy(tree)
    into = changed
    for name in place[:-1]:
        into = into[name]
    into[place[-1]] = value
    return changed


def mutations(tree: Any) -> Iterator[Any]:
    """Yield the tree once for each value and each odd replacement, and once without each field."""
    for place in places(tree):
        for value in ODD:
            yield with_value(tree, place, value)
        if place and isinstance(place[-1], str):
            changed = with_value(tree, place, None)
            into = changed
            for name in place[:-1]:
                into = into[name]
            del into[place[-1]]
            yield changed


@pytest.mark.fuzz
def test_any_value_in_any_field_of_a_manifest_is_reported_in_one_line(
    built: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((built / "manifest.json").read_text())
    for number, changed in enumerate(itertools.islice(mutations(whole), 0, None, 3)):
        (out / "manifest.json").write_text(json.dumps(changed))
        verbs = reads(built, out, number)
        one_line(capsys, verbs[number % len(verbs)], ("manifest.json", str(out)))


@pytest.mark.fuzz
@pytest.mark.parametrize("is_pending", [False, True])
def test_any_value_in_any_field_of_a_takedown_is_reported_in_one_line(
    built: Path, out: Path, is_pending: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = pq.read_table(out / "index.parquet")["key"][3].as_py()
    with monkeypatch.context() as patch:
        if is_pending:
            patch.setattr("vlmdata.takedown.finish_pending", lambda store: None)
        forget(out, key=[key])
    record = out / "forgotten" / "00000.json"
    whole = json.loads(record.read_text())
    assert is_pending == ("swap" in whole)
    shutil.copytree(out, out.parent / "before")
    for number, changed in enumerate(itertools.islice(mutations(whole), 0, None, 29 if is_pending else 1)):
        record.write_text(json.dumps(changed))
        verbs = reads(built, out, number)
        one_line(capsys, verbs[number % len(verbs)], ("00000.json", "takedown was interrupted"))
        assert {path.name for path in out.iterdir()} == {path.name for path in (out.parent / "before").iterdir()}
        one_line(capsys, ["forget", out], ("00000.json", "no sample to forget", "manifest.json"))
        if record.read_text() != json.dumps(changed):  # the pending takedown was carried out
            shutil.rmtree(out)
            shutil.copytree(out.parent / "before", out)


@pytest.mark.parametrize("name", ["plan.json", "parts.json", "log/000000/0000.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"parts": [[1]]}'])
def test_damaged_records_under_work_are_reported_in_one_line(
    tmp_path: Path, built: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(built.parent / "whole", tmp_path / "out"))
    (out / "work" / name).write_text(text)
    one_line(capsys, ["forget", out, "--key", pq.read_table(out / "index.parquet")["key"][3].as_py()], (name,))
    one_line(capsys, ["run", built.parent / "recipe.yaml", "--out", out, "--local", "--workers", "1", "--limit", "9"], (name,))


def index_mutations(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the index with odd values in each column of the second row, and with columns missing or of other types."""
    rows = table.to_pylist()
    numbers = [None, -1, 0, 513, 1 << 40, (1 << 63) - 1]
    names = [None, "", "../x", "/etc/passwd", "a\nb", "\x1b[2J", "x" * 300, "json", "99999.tar"]
    odd: dict[str, list[Any]] = {"key": names, "shard": names, "offset": numbers, "size": numbers}
    odd["text_chars"] = [None, -1, (1 << 31) - 1]
    members = rows[1]["members"]
    odd["members"] = [None, [], [None], members[:1], members[1:], members * 2]
    odd["members"] += [[{**one, "offset": number} for one in members] for number in numbers]
    odd["members"] += [[*members[1:], {**members[0], "size": number}] for number in numbers]
    odd["members"] += [[*members[1:], {**members[0], "name": name}] for name in names]
    odd["images"] = [None, [], [None], [{"width": None, "height": -1}]]
    for name, values in odd.items():
        for value in values:
            yield pa.Table.from_pylist([rows[0], {**rows[1], name: value}, *rows[2:]], schema=table.schema)
        column = table.column_names.index(name)
        yield table.remove_column(column)
        yield table.set_column(column, name, pa.array([1.5] * len(table)))
        yield table.set_column(column, name, pa.nulls(len(table), INDEX.field(name).type))


@pytest.mark.fuzz
def test_any_value_in_any_field_of_an_index_is_reported_in_one_line(
    built: Path, out: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number, changed in enumerate(index_mutations(pq.read_table(built / "index.parquet"))):
        pq.write_table(changed, out / "index.parquet")
        for verb in reads(built, out, number):
            one_line(capsys, verb, ("index.parquet", ".tar"))
        try:
            samples = list(stream(out, torch=False, reading=ReadOptions(cache=tmp_path / "cache")))
        except ValueError as error:
            assert "index.parquet" in str(error) and "\n" not in str(error)
        else:
            assert len(samples) == len(changed)


@pytest.mark.parametrize("value", [None, -5, (1 << 31) - 1])
def test_lookup_rows_that_the_ledger_lacks_are_reported_in_one_line(
    built: Path, out: Path, value: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(out / "lookup/00000.parquet")
    pq.write_table(table.set_column(1, "row", pa.array([value] * len(table), pa.int32())), out / "lookup/00000.parquet")
    key = pq.read_table(out / "index.parquet")["key"][0].as_py()
    for verb in (["why", out, key], ["forget", out, "--key", key]):
        one_line(capsys, verb, ("00000.parquet",))


def test_a_ledger_column_of_nulls_is_reported_in_one_line(built: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(built / "ledger/00000.parquet")
    for number, field in enumerate(table.schema):
        changed = table.set_column(number, field, pa.nulls(len(table), field.type))
        pq.write_table(changed, out / "ledger/00000.parquet")
        for verb in [*reads(built, out, number), ["forget", out, "--domain", "127.0.0.1", "--dry-run"]]:
            one_line(capsys, verb, ("ledger/00000.parquet", "no row found for"))
