"""The checks of `make peers` are well-formed, and each format that a library is said to read has a check."""

import ast
import re
from pathlib import Path

import pytest

from tests.peers import made
from tests.peers.check_files import CHECKS, names, read
from tests.peers.rare_pictures import rare_pictures
from vlmdata import exports
from vlmdata.catalog import build
from vlmdata.images.budget import COSTS
from vlmdata.images.header import read_header

FORMATS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
UNCHECKED = {  # formats of the table "read by", and why no library reads them here
    "folder": "plain files, which need no library",
}


@pytest.mark.parametrize("name", names())
def test_the_constants_of_a_check_name_data_formats_and_options_that_exist(name):
    check = read(name)
    assert check.requirements and check.exports
    for wanted in check.exports:
        assert wanted.data in made.DATA
        if wanted.to is None:
            assert wanted.options == {}
        else:
            exporter = build(exports.find(wanted.to), wanted.options, name)
            assert made.DATA[wanted.data][0] in exporter.kinds()


@pytest.mark.parametrize("name", names())
def test_a_check_does_not_import_vlmdata_or_tests(name):
    found = set()
    for node in ast.walk(ast.parse((CHECKS / f"{name}.py").read_text())):
        found |= {alias.name.partition(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
        found |= {str(node.module).partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
    assert found.isdisjoint({"vlmdata", "vlmdata_train", "tests", "bench"})


def test_every_format_that_the_docs_call_readable_has_a_check_or_a_reason():
    table = FORMATS[FORMATS.index("| format | holds | written | read by |") :].split("\n\n")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert documented == set(exports.names())
    checked = {wanted.to for name in names() for wanted in read(name).exports}
    assert documented - checked == UNCHECKED.keys()


def test_a_check_without_a_constant_or_with_a_computed_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.peers.check_files.CHECKS", tmp_path)
    (tmp_path / "one.py").write_text("REQUIREMENTS = ['a']\n")
    (tmp_path / "two.py").write_text("REQUIREMENTS = [version()]\nEXPORTS = []\n")
    with pytest.raises(ValueError, match="EXPORTS is missing"):
        read("one")
    with pytest.raises(ValueError, match="REQUIREMENTS must be a literal"):
        read("two")
    with pytest.raises(ValueError, match=r"no check 'three'\. The checks are one, two"):
        read("three")


def test_the_rare_pictures_are_of_all_formats_that_a_dataset_can_hold():
    found = [read_header(data) for data, _ in rare_pictures()]
    assert {header.format for header in found} == COSTS.keys()
    assert {header.format for header in found if header.is_animated} >= {"png", "webp", "gif", "avif"}
    assert {header.mode for header in found} >= {"cmyk", "palette", "grey", "grey_alpha"}
    assert {header.bit_depth for header in found} == {1, 8, 16} and {header.orientation for header in found} == {1, 6}
    for data in ("rare_captions", "rare_documents", "rare_chats"):
        assert len(made.samples_of(data)) == len(found)


@pytest.mark.parametrize("data", ["captions", "documents", "chats"])
def test_the_datasets_have_several_kinds_of_pictures_and_distinct_keys(data):
    samples = made.samples_of(data)
    assert len({key for key, _ in samples}) == len(samples) > 3 * made.PER_SHARD
    kinds = {name.rpartition(".")[2] for _, members in samples for name in members}
    assert kinds >= {"jpg", "png", "webp"}
    assert all(line["texts"] or line["images"] for line in map(made.expected, samples))
