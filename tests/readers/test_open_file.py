import zipfile

from vlmdata.readers.open_file import raw_file


def test_a_file_inside_an_archive_stays_open_while_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "url\n")
    with raw_file(f"zip://a.csv::{tmp_path}/a.zip") as file:
        assert file.read() == b"url\n"
