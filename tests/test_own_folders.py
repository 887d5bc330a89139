"""A test run has its own folders, and a test that writes elsewhere or connects to another machine fails."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import pytest

from tests.outside import Outside
from tests.own_folders import FOLDERS

RUN = Path(tempfile.gettempdir()).parent


def test_user_folders_are_replaced_in_this_and_in_child_processes():
    code = "import os, sys, tempfile\nfor name in ['~', tempfile.gettempdir(), *map(os.environ.get, sys.argv[1:])]:\n"
    code += "    print(os.path.expanduser(name))"
    printed = subprocess.run([sys.executable, "-c", code, *FOLDERS], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [str(RUN / "home"), str(RUN / "tmp"), *(str(RUN / folder) for folder in FOLDERS.values())]
    assert str(datasets.config.HF_DATASETS_CACHE).startswith(f"{RUN}/home/")


def test_bytecode_is_kept_even_if_the_environment_forbids_it():
    assert not sys.dont_write_bytecode and "PYTHONDONTWRITEBYTECODE" not in os.environ


@pytest.mark.parametrize("value", ["object()", "tempfile.mkdtemp()"])
def test_a_test_name_that_differs_between_runs_is_refused(tmp_path, value):
    given = f"import tempfile, pytest\n@pytest.mark.parametrize('given', [{value}], ids=str)\ndef test_it(given): pass\n"
    (tmp_path / "test_given.py").write_text(given)
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", tmp_path, tmp_path]
    done = subprocess.run([*command, "--collect-only"], capture_output=True, text=True)
    assert done.returncode == 4 and "another run would have other names for these tests" in done.stderr


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Return a watcher that allows a single folder, so that `tmp_path` counts as outside."""
    return Outside([tmp_path_factory.getbasetemp() / "inside"])


def test_every_way_to_write_outside_is_detected(outside, tmp_path):
    (tmp_path / "a").mkdir()
    with outside.watched() as seen:
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "new").write_bytes(b"x")
        os.link(tmp_path / "new", tmp_path / "link")
        os.rename(tmp_path / "link", tmp_path / "moved")
        os.remove(tmp_path / "moved")
        (tmp_path / "b").mkdir()
        os.symlink("/etc/hostname", tmp_path / "b" / "link")
        os.chmod(tmp_path / "new", 0o600)
        os.truncate(tmp_path / "new", 0)
        (tmp_path / "a").rmdir()
        (tmp_path / "new").read_bytes()
        Path(os.devnull).write_bytes(b"x")
    names = [("open", "new"), ("os.link", "link"), ("os.rename", "link"), ("os.rename", "moved"), ("os.remove", "moved")]
    names += [("os.mkdir", "b"), ("os.symlink", "b/link"), ("os.chmod", "new"), ("os.truncate", "new"), ("os.rmdir", "a")]
    assert seen == [f"{event} {tmp_path / name}" for event, name in names]
    (tmp_path / "new").write_bytes(b"nobody watches any more")
    assert len(seen) == len(names)


def test_a_connection_to_another_address_is_detected(tmp_path):
    outside = Outside([tmp_path], addresses=("127.0.0.2",), ours=lambda host, family: False)
    with outside.watched() as seen:
        for host in ("127.0.0.1", "127.0.0.2"):
            with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()):
                pass
    assert [line.split("'")[1] for line in seen] == ["127.0.0.1"]


def test_a_write_through_a_link_counts_as_a_write_to_its_target(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "elsewhere")
    with Outside([tmp_path / "inside"]).watched() as seen:
        (tmp_path / "inside" / "link").write_bytes(b"x")
        os.rename(tmp_path / "inside" / "link", tmp_path / "inside" / "other")
    assert seen == [f"open {tmp_path / 'elsewhere'}"]
