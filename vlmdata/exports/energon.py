"""Export as a dataset for Megatron Energon, which it reads without `energon prepare`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlmdata.errors import RecipeError
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.energon_index import IndexedTar, chosen, write_sqlite
from vlmdata.exporting.exporter import Exporter, Kind, Published, Sample, Shard, Unsuitable
from vlmdata.sizes import counted

META = ".nv-meta"
WRITTEN_FOR = "7.4.1"  # the version of megatron-energon whose files these are
COOKERS = "vlmdata_cookers.py"
LONGEST = 100  # bytes of a member's name in a tar
CAPTIONS = """from megatron.energon import WorkerConfig, get_loader, get_train_dataset

dataset = get_train_dataset(
    "PATH",
    batch_size=None,
    shuffle_buffer_size=None,
    max_samples_per_sequence=None,
    worker_config=WorkerConfig.default_worker_config(num_workers=0),
)
loader = get_loader(dataset)"""
DOCUMENTS = f"""import sys

from megatron.energon import DefaultTaskEncoder, WorkerConfig, get_loader, get_train_dataset

sys.path.append("PATH/{META}")
from {COOKERS.removesuffix(".py")} import COOKERS


class Encoder(DefaultTaskEncoder):
    cookers = COOKERS


dataset = get_train_dataset(
    "PATH",
    batch_size=None,
    shuffle_buffer_size=None,
    max_samples_per_sequence=None,
    worker_config=WorkerConfig.default_worker_config(num_workers=0),
    task_encoder=Encoder(),
)
loader = get_loader(dataset)"""
LOADER = {"sample_loader": f"{COOKERS}:load_caption", "part_filter": f"{COOKERS}:is_read"}


@dataclass(frozen=True, kw_only=True)
class Energon(Exporter):
    """Write a tar with an index for each shard, and the folder `.nv-meta` with Energon's description of the dataset.

    Caption pairs are samples of the type CaptioningSample. Documents and conversations are crude samples: the file
    `.nv-meta/vlmdata_cookers.py` has the cookers for them. `val` and `test` are the shares of these splits, from 0 to 1, in
    whole shards. All other shards are the split `train`.
    """

    val: float = 0.0
    test: float = 0.0

    def check(self, kind: Kind) -> None:
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share < 1:
                raise RecipeError(f"export --to energon: {name} must be a share from 0 to less than 1, not {share}")
        if self.val + self.test >= 1:
            raise RecipeError("export --to energon: val and test must together be less than 1, so that train gets a shard")

    def published(self, layout: str) -> Published:
        return Published("*.tar", loading=CAPTIONS if layout == "captions" else DOCUMENTS, is_webdataset=True)

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        self._counts(shard.count)
        name = f"{shard.number:05d}.tar"
        kinds: set[str] = set()
        endings: set[str] = set()

        def fitting(sample: Sample) -> Sample:
            _check_names(sample)
            kinds.add(sample.kind)
            if sample.layout == "captions":
                endings.update(sample.images)
            return sample

        with IndexedTar(draft.files / name, draft.part(shard.number)) as tar:
            for sample in shard.each(fitting):
                tar.add(sample)
        return {"tar": name, "kinds": sorted(kinds), "images": sorted(endings)}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        shards: dict[str, int] = {}
        kinds: set[str] = set()
        endings: set[str] = set()
        parts: list[Path] = []
        for record in records:
            if record.samples:
                shards[record.notes["tar"]] = record.samples
                kinds.update(record.notes["kinds"])
                endings.update(record.notes["images"])
                parts.append(draft.part(record.number))
        splits = chosen(list(shards), self._counts(len(shards)))
        draft.write(f"{META}/split.yaml", _yaml({"split_parts": splits, "exclude": []}))
        info = {"energon_version": WRITTEN_FOR, "shard_counts": shards}
        draft.write(f"{META}/.info.json", (json.dumps(info, indent=2) + "\n").encode())
        for name, content in _descriptions(kinds, endings).items():
            draft.write(f"{META}/{name}", content)
        own = write_sqlite(draft.files / META / "index.sqlite", draft.folder / "index.sqlite", parts)
        draft.write(f"{META}/index.uuid", own.encode())

    def _counts(self, shards: int) -> dict[str, int]:
        """Return the number of shards in val and test. Raises RecipeError if there are too few shards for the shares."""
        counts = {name: max(round(shards * share), share > 0) for name, share in (("val", self.val), ("test", self.test))}
        if sum(counts.values()) >= shards:
            needed = 1 + (self.val > 0) + (self.test > 0)
            raise RecipeError(
                f"export --to energon: splits have whole shards, and {counted(shards, 'shard')} cannot be divided into "
                f"val={self.val}, test={self.test} and the rest for train. Use smaller shares, or build the dataset with a "
                f"smaller shards.samples, so that it has at least {needed} shards"
            )
        return counts


def _check_names(sample: Sample) -> None:
    """Raise Unsuitable for a sample that Energon would read under another key."""
    if "." in sample.key:
        raise Unsuitable("Energon ends a key at the first dot, and this key has a dot")
    if any(len(f"{sample.key}.{name}".encode()) > LONGEST for name in sample.members):
        raise Unsuitable(f"a member's name is longer than {LONGEST} bytes")


def _descriptions(kinds: set[str], endings: set[str]) -> dict[str, bytes]:
    """Return the content of dataset.yaml and of the files that it needs, by file name."""
    cookers = Path(__file__).parent.parent.joinpath("exporting", f"{COOKERS}.txt").read_bytes()
    if kinds == {"captions"}:
        is_read_by_map = "avif" not in endings  # Energon does not decode AVIF
        how = {"field_map": {"image": ",".join(sorted(endings)), "caption": "txt"}} if is_read_by_map else LOADER
        described = {"sample_type": _class("CaptioningSample"), **how, "subflavors": {"vlmdata": "captions"}}
        return {"dataset.yaml": _yaml(described), **({} if is_read_by_map else {COOKERS: cookers})}
    subflavors = {"vlmdata": "conversations" if "conversations" in kinds else "documents"}
    loader = {"sample_loader": f"{COOKERS}:load_sequence", "part_filter": f"{COOKERS}:is_read"}
    plain = {"sample_type": _class("InterleavedSample"), **loader, "subflavors": subflavors}
    return {
        "dataset.yaml": _yaml({**_class("CrudeWebdataset"), "subflavors": subflavors}),
        "interleaved.yaml": _yaml(plain),
        COOKERS: cookers,
    }


def _class(name: str) -> dict[str, str]:
    return {"__module__": "megatron.energon", "__class__": name}


def _yaml(tree: dict[str, Any]) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, width=128).encode()
