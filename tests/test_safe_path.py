"""A file name found in data opens a file inside the dataset's folder, or nothing."""

import os

import pytest

from vlmdata.safe_path import Refused, safe_path


@pytest.fixture
def folder(tmp_path):
    """Make a folder with a picture, a picture in a subfolder, links to files inside and outside, and a pipe."""
    inside = tmp_path / "data"
    (inside / "deep").mkdir(parents=True)
    for path in (inside / "a.jpg", inside / "deep" / "b.jpg", inside / "a:b%2e.jpg", tmp_path / "secret"):
        path.write_bytes(b"x")
    (inside / "in.jpg").symlink_to("deep/b.jpg")
    (inside / "out.jpg").symlink_to(tmp_path / "secret")
    (inside / "up").symlink_to(tmp_path)
    (inside / "null.jpg").symlink_to("/dev/null")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "deep/../a.jpg", "deep/b.jpg", "a:b%2e.jpg"])
def test_a_file_inside_is_opened(folder, name):
    assert safe_path(name, str(folder)) == os.path.normpath(f"{folder}/{name}")
    assert safe_path(f"{folder}/{name}", str(folder)) == os.path.normpath(f"{folder}/{name}")
    assert safe_path(name, f"file://{folder}") == os.path.normpath(f"{folder}/{name}")


def test_a_link_that_stays_inside_is_followed(folder, tmp_path):
    assert safe_path("in.jpg", str(folder)) == f"{folder}/deep/b.jpg"
    (tmp_path / "named").symlink_to(folder)  # the user may name a link to anything
    assert safe_path("a.jpg", str(tmp_path / "named")) == f"{folder}/a.jpg"


@pytest.mark.parametrize(
    "name, reason",
    [
        ("../secret", "outside_folder"),
        ("deep/../../secret", "outside_folder"),
        ("/etc/passwd", "outside_folder"),
        ("/dev/zero", "outside_folder"),
        ("../data-beside/x", "outside_folder"),
        ("out.jpg", "outside_folder"),
        ("up/secret", "outside_folder"),
        ("null.jpg", "outside_folder"),
        ("pipe", "no_file"),
        ("deep", "no_file"),
        ("", "no_file"),
        ("a.jpg\0.png", "no_file"),
        ("%2e%2e/secret", "no_file"),
        ("x" * 5000, "no_file"),
        ("x/" * 5000, "no_file"),
        ("\ud800.jpg", "no_file"),
        ("file:///etc/passwd", "not_a_path"),
        ("S3://bucket/key", "not_a_path"),
        ("simplecache::http://127.0.0.1/", "not_a_path"),
        ("zip://a::b.zip", "not_a_path"),
        ("a.jpg::http://127.0.0.1/", "not_a_path"),
        ("C:\\x.jpg", "not_a_path"),
        ("\\\\host\\share\\x.jpg", "not_a_path"),
        ("//host/x.jpg", "not_a_path"),
    ],
)
def test_any_other_name_is_refused(folder, name, reason):
    with pytest.raises(Refused, match=f"^{reason}$"):
        safe_path(name, str(folder))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "%2e%2e/x", "%252e%252e/x", "..\\x", "/x"])
def test_no_name_leaves_a_remote_folder(name):
    with pytest.raises(Refused, match="outside_folder"):
        safe_path(name, "s3://bucket/data")


def test_a_name_is_inserted_into_the_first_part_of_a_chained_address():
    assert safe_path("a/b.jpg", "s3://bucket/data/") == "s3://bucket/data/a/b.jpg"
    assert safe_path("a/b.jpg", "zip://images::s3://bucket/all.zip") == "zip://images/a/b.jpg::s3://bucket/all.zip"


def test_a_snapshot_of_the_hub_may_link_only_to_its_blobs(tmp_path):
    for name in ("blobs/1", "secret"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    snapshot = tmp_path / "snapshots" / "4f1c"
    snapshot.mkdir(parents=True)
    (snapshot / "a.jpg").symlink_to("../../blobs/1")
    (snapshot / "b.jpg").symlink_to("../../secret")
    assert safe_path("a.jpg", str(snapshot)) == f"{tmp_path}/blobs/1"
    with pytest.raises(Refused, match="outside_folder"):
        safe_path("b.jpg", str(snapshot))
