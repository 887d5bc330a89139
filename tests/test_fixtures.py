"""The files of the tests stay few and small, and each has a source and a licence."""

import re

from tests.fixtures import fixture


def test_every_file_has_a_source_and_together_they_stay_small():
    table = fixture("README.md").read_text()
    named = re.compile("|".join(re.escape(name).replace(r"\*", "[^/]*") for name in re.findall(r"`([A-J]\w*/[^`]*)`", table)))
    files = [path for path in fixture("").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")]
    assert [str(path) for path in files if not named.match(path.relative_to(fixture("")).as_posix())] == []
    assert 250 < len(files) < 400 and sum(path.stat().st_size for path in files) < 7_000_000
