"""What the tests of pushes share: the files that must travel, and exports to push."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

from tests.engine.site import manifest
from tests.exporting.made import caption, make_dataset
from tests.hub_server import HubServer
from vlmdata import export
from vlmdata.takedown import forget

REPO = "jane/cats"


def travelling(out: Path) -> dict[str, bytes]:
    """Return the files of a dataset that must be in its repository."""
    names = [*manifest(out)["files"], "manifest.json"]
    names += [str(path.relative_to(out)) for path in out.glob("forgotten/*.json")]
    return {name: (out / name).read_bytes() for name in names}


def in_repository(hub: HubServer, revision: str = "main") -> dict[str, bytes]:
    return {name: data for name, data in hub.files(REPO, revision).items() if name != ".gitattributes"}


def export_of(folder: Path, to: str, **options: str) -> Path:
    """Export five samples in two tars to a folder with the name of the format, and return it."""
    if not (folder / "made").exists():
        make_dataset(folder / "made", map(caption, range(5)), layout="captions", per_shard=3)
    export(folder / "made", folder / to, to=to, options=options)
    return folder / to


def forget_tar(out: Path, name: str) -> None:
    """Forget all samples of a tar, which deletes it."""
    table = pq.read_table(out / "index.parquet").to_pylist()
    forget(out, key=[row["key"] for row in table if row["shard"] == name])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
