"""Datasets that were prepared for Megatron Energon: tars, and the folder `.nv-meta` that describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.errors import InputError
from vlmdata.loader.index.energon import DEFAULT, DESCRIPTION, FOLDER, read_description
from vlmdata.loader.index.find_tars import TarSet, find_shards
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Read
from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find, listing_errors
from vlmdata.readers.plain_rows import tables
from vlmdata.readers.tar_samples import ENDINGS, names_within, tar_rows
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source

FIELD = re.compile(
    r"([^\[\]]+)((?:\[[^\[\]]+\])*)"
)  # of a field map: a member, or a field of its JSON, as in json[caption][en]
CRUDE = "CrudeWebdataset"
WITH_CAPTION = ("CaptioningSample", "CaptioningWebdataset")
WITH_IMAGE = ("ImageSample", "ImageWebdataset")


@dataclass(frozen=True, kw_only=True)
class Energon(Source):
    """Yield one row for each sample of the splits. Tars and samples that split.yaml excludes are left out.

    The field map of dataset.yaml says which members are the image and the caption, for the sample types CaptioningSample and
    ImageSample. Crude samples, and all samples that vlmdata exported, are read as the source `webdataset` reads them. Other
    sample types, and samples that code of the dataset makes (`sample_loader`), are refused, because no code is run.
    """

    id: ClassVar = "vlmdata.sources.energon"
    example: ClassVar = "source: {type: energon, path: PREPARED, split: [train, val]}"
    shuffled: ClassVar[bool] = False

    path: Annotated[str, Doc("Folder with the tars and `.nv-meta`, local or on any store that fsspec knows.")]
    split: Annotated[str | list[str], Doc("Splits to read, as split.yaml names them.")] = DEFAULT

    def check(self) -> None:
        if not self.split:
            raise RecipeError("split must name at least one split, such as train")
        super().check()
        self._reader()

    def files(self) -> list[File]:
        tars = self._tars()
        return find([tars.address(name) for name in tars.names], ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        files, tars = self.files(), self._tars()
        excluded = {tars.address(name): sorted(keys) for name, keys in tars.excluded.items()}
        names = zip(files, names_within(files), strict=True)
        return [{"path": file.path, "name": name, "exclude": excluded.get(file.path, [])} for file, name in names]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        excluded = frozenset(piece["exclude"])
        reader = self._reader()

        def row_of(sample: SampleMembers, blob: str | None, read: Read) -> dict[str, Any] | None:
            return None if sample.key in excluded else reader.row(_with_first(sample, reader.image), blob, read)

        return tables(tar_rows(piece["path"], piece["name"], row_of, longer_names=False))

    def _tars(self) -> TarSet:
        splits = [self.split] if isinstance(self.split, str) else self.split
        try:
            with listing_errors(self.path):
                return find_shards([f"{self.path}#{split}" for split in splits])
        except InputError as error:
            raise RecipeError(error) from None

    def _reader(self) -> Webdataset:
        """Return the source that reads the tars, with the members that dataset.yaml names."""
        try:
            with listing_errors(self.path):
                described = read_description(self.path) or {}
        except InputError as error:
            raise RecipeError(error) from None
        return Webdataset(path=self.path, **members_named(described, f"{self.path.rstrip('/')}/{FOLDER}/{DESCRIPTION}"))


def members_named(described: dict[str, Any], file: str) -> dict[str, Any]:
    """Return the parameters `image` and `caption` of the source `webdataset` for the content of a dataset.yaml.

    Raises RecipeError, with the name of the file, for a dataset that this source does not read.
    """
    advice = "Read its tars with the source webdataset, and set `image` and `caption`"
    kind, flavors = described.get("sample_type", described), described.get("subflavors")
    name = kind.get("__class__") if isinstance(kind, dict) else None
    if not described or name == CRUDE or (isinstance(flavors, dict) and isinstance(flavors.get("vlmdata"), str)):
        return {}
    if name not in (*WITH_CAPTION, *WITH_IMAGE):
        shown = f"samples of the type {name[:80]!r}" if isinstance(name, str) else "no sample type"
        raise RecipeError(f"{file} has {shown}, and this source reads CaptioningSample, ImageSample and {CRUDE}. {advice}")
    if "sample_loader" in described:
        raise RecipeError(f"{file}: code makes the samples (`sample_loader`), and this source runs no code. {advice}")
    fields = described.get("field_map")
    wanted = ("image", "caption") if name in WITH_CAPTION else ("image",)
    if not isinstance(fields, dict) or not all(isinstance(fields.get(one), str) for one in wanted):
        raise RecipeError(f"{file}: `field_map` must name {' and '.join(wanted)}, as in {{image: jpg, caption: txt}}. {advice}")
    found = {one: [_member_or_path(option, one, file) for option in fields[one].split(",")] for one in wanted}
    return {"caption": [], **found}


def _member_or_path(option: str, field: str, file: str) -> str:
    """Return an entry of a field map as the source `webdataset` names it: a member, or a dotted path in the sample's JSON."""
    match = FIELD.fullmatch(option)
    if match is None or (match[2] and (field == "image" or match[1].rpartition(".")[2] != "json")):
        raise RecipeError(f"{file}: {field} in `field_map` is {option[:80]!r}. Use a member such as jpg, or json[caption]")
    return match[2][1:-1].replace("][", ".") if match[2] else match[1]


def _with_first(sample: SampleMembers, images: str | list[str] | None) -> SampleMembers:
    """Return the sample without the images that Energon does not read: it takes the first that the sample has."""
    names = dict.fromkeys(name.lower() for name in images or ())
    found = [name for name in names if name in dict(sample.members)]
    return SampleMembers(sample.key, [one for one in sample.members if one[0] not in found[1:]])
