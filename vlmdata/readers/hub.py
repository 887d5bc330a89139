"""Open a dataset with the `datasets` library, and restrict the files that its rows, its card and its saved state may name."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.lists import ENDING, ListFormat, checked_files, column_names, open_parquet
from vlmdata.readers.nameable_files import Reach, folder_of
from vlmdata.readers.open_file import seekable
from vlmdata.readers.source_images import ENDINGS
from vlmdata.safe_path import Refused, real_path_inside
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as, one_line

READERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".jsonl": "json", ".json": "json", ".tar": "webdataset"}
READERS[".zip"] = "imagefolder"
CARDS = ("README.md", ".huggingface.yaml")  # files in which the library finds the patterns of a dataset's files


@dataclass(frozen=True)
class Opened:
    """An opened split. `data` holds its rows, without decoding.

    A local image folder with metadata tables has `tables` and no `data`. `tables` are the paths of the tables, which name the
    image files. An empty split has neither, because the library cannot open it.
    """

    data: Any
    reach: Reach
    tables: tuple[str, ...] = ()


@functools.lru_cache(maxsize=4)
def open_dataset(path: str, name: str, split: str, revision: str, streaming: bool, texts: tuple[str, ...] = ()) -> Opened:
    """Return a split in Arrow format, without decoding or opening its images.

    `texts` are columns of a CSV that are read as text, because a caption may be "NA", "007" or "true". Raises RecipeError if
    the library cannot open the dataset.
    """
    path = at_home(path)
    absent = "" if is_local(path) else ". There is also no file or folder of this name"

    def refused(error: Exception) -> RecipeError:
        return RecipeError(f"{path} cannot be opened as a dataset: {error_summary(error)}{absent}")

    with errors_as(refused, passes=(RecipeError,)):
        return _open(path, name, split, revision, streaming, texts)


def check_schemas(path: str, schema: pa.Schema) -> None:
    """Raise RecipeError if a local Parquet file of a stream does not fit the schema, which is that of the first file.

    The library would find this when it reads the file. Without streaming it reads all files when it opens the dataset.
    """
    from datasets.table import table_cast

    is_saved = os.path.isdir(path) and "state.json" in os.listdir(path)
    names = [] if is_saved or is_remote(path) or not is_local(path) else _readable(path) or []
    files = [File(name, 0) for name in names if name.lower().endswith(".parquet")]
    for name in checked_files(files, lambda name: "parquet"):

        def unfit(error: Exception, name: str = name) -> Exception:
            fix = "Correct this file, or leave it out of source.path"
            return RecipeError(f"{name} does not fit the first file: {error_summary(error)}. {fix}")

        with seekable(name) as stream, errors_as(unfit, passes=(RecipeError,)):
            if (parquet := open_parquet(stream, name)) is not None:
                table_cast(parquet.schema_arrow.empty_table(), schema)


def error_summary(error: BaseException) -> str:
    """Return the library's error and its cause in one line, because the error alone often does not name the problem."""
    return ": ".join(dict.fromkeys(one_line(one) for one in (error, error.__cause__) if one is not None))


def is_local(path: str) -> bool:
    """Say whether `path` is a local path, a glob or an address of files, and not the name of a dataset on the Hub.

    A name on the Hub is `name` or `user/name`, so another path, such as `./name` or `list.csv`, is local even if nothing exists
    there.
    """
    is_file = "/" not in path and path.lower().endswith(tuple(READERS))
    is_named = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path) and not is_file
    return not is_named or is_remote(path) or os.path.exists(path) or glob.has_magic(path)


def _open(path: str, name: str, split: str, revision: str, streaming: bool, texts: tuple[str, ...]) -> Opened:
    if os.path.isdir(path) and {"state.json", "dataset_dict.json"} & set(os.listdir(path)):
        _check_saved(path)
        return _saved(path, split, streaming)
    files = [] if os.path.isdir(path) and name else _readable(path)
    if files is None:
        return Opened(None, Reach(folder_of(path, tuple(READERS))))
    if files:
        reader = _reader(files)
        # for zip archives, the library would add the folder's name as a label
        labels = {"drop_labels": True} if reader == "imagefolder" else {}
        builder = _builder(texts, reader, data_files={split: files}, **labels)
    else:
        _check_cards(path, revision)
        builder = _builder(texts, path, name or None, revision=revision or None)
    return _split_of(builder, path, split, streaming)


def _builder(texts: tuple[str, ...], *source: Any, **options: Any) -> Any:
    """Return the library's builder of a dataset. A builder of CSV reads the columns `texts` as text."""
    import datasets
    from datasets.packaged_modules.csv.csv import Csv

    builder = datasets.load_dataset_builder(*source, **options)
    if not isinstance(builder, Csv):
        return builder
    return datasets.load_dataset_builder(*source, **options, converters=dict.fromkeys(texts, str))


def _saved(path: str, split: str, streaming: bool) -> Opened:
    """Open a dataset that `save_to_disk` wrote. If the dataset has splits, open only `split`.

    The library itself would open all splits together, which fails if one split is empty.
    """
    import datasets

    folder = path
    if "dataset_dict.json" in os.listdir(path):
        splits = _json(os.path.join(path, "dataset_dict.json"))["splits"]
        if split not in splits:
            raise ValueError(f"there is no split '{split}'. The splits are {', '.join(splits)}")
        folder = os.path.join(path, split)
    if not _json(os.path.join(folder, "state.json"))["_data_files"]:
        return Opened(None, Reach(path))
    saved = datasets.Dataset.load_from_disk(folder)
    saved = saved.to_iterable_dataset(num_shards=max(1, len(saved) // 1000)) if streaming else saved
    return Opened(saved.with_format("arrow"), Reach(path))


def _split_of(builder: Any, path: str, split: str, streaming: bool) -> Opened:
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    folder = folder_of(path, tuple(READERS)) if is_local(path) else f"hf://datasets/{path}"
    made_in: tuple[str, ...] = ()
    if isinstance(builder, ImageFolder):
        made_in = (folder,) if is_local(path) else _on_the_hub(path)
        named = [str(file) for file in (builder.config.data_files or {}).get(split, ())]
        tables = tuple(file for file in named if os.path.basename(file) in ImageFolder.METADATA_FILENAMES)
        if tables and is_local(path):
            return Opened(None, Reach(folder), tables)
    if streaming:
        data = builder.as_streaming_dataset(split=split)
    else:
        builder.download_and_prepare()
        counts = {name: info.num_examples for name, info in (builder.info.splits or {}).items()}
        if counts.get(split.partition("[")[0]) == 0:
            return Opened(None, Reach(folder, made_in))
        data = builder.as_dataset(split=split)
        if (
            isinstance(builder, Csv) and "__index_level_0__" in data.column_names
        ):  # pandas used the first field as an index and shifted all others
            raise ValueError(
                "some lines have more fields than the header. Use `url_list`, which reports such lines and reads the others"
            )
    return Opened(data.with_format("arrow"), Reach(folder, made_in))


def _on_the_hub(name: str) -> tuple[str, ...]:
    """Return the addresses and folders where the images of an image folder on the Hub may be.

    The order is: streamed images, downloaded images, unpacked images.
    """
    from datasets.config import EXTRACTED_DATASETS_PATH
    from huggingface_hub.constants import HF_HUB_CACHE

    downloaded = os.path.join(HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}")
    return f"hf://datasets/{name}@", downloaded, str(EXTRACTED_DATASETS_PATH)


def _readable(path: str) -> list[str] | None:
    """Return the files at a path that the library `datasets` can read as tables, or None if all these files are empty.

    Return [] if the path holds image files or is the name of a dataset on the Hub.
    """
    if not is_local(path):
        return []
    every = [file.path for file in find(path, ("",))]
    if any(file.lower().endswith(ENDINGS) for file in every):
        return []
    found = find(path, tuple(READERS))
    files = [file.path for file in found if not _is_empty(file)]  # the library's readers stop at an empty file
    if not files:
        return None
    tables = [file for file in files if not file.lower().endswith(".json")]  # a .json beside tables is dataset_infos.json
    return tables or files


def _is_empty(file: File) -> bool:
    """Say whether a local file has no bytes, or is a small list (such as a CSV of at most 64 KiB) without a row."""
    if is_remote(file.path) or not file.size:
        return not is_remote(file.path)
    if file.size > 1 << 16 or not file.path.lower().endswith(tuple(ENDING)):
        return False
    try:
        return column_names(file.path, ListFormat()) is None
    except (RecipeError, OSError):  # damaged, or not in the format of its name: the library reports it
        return False


def _reader(files: Sequence[str]) -> str:
    """Return the name of the library's reader for files. Raises ValueError if their formats differ or are not supported."""
    kinds = {os.path.splitext(file)[1].lower() for file in files}
    if other := sorted(kinds - READERS.keys()):
        raise ValueError(f"files that end in '{other[0]}' are not supported. The supported endings are {', '.join(READERS)}")
    readers = sorted({READERS[kind] for kind in kinds})
    if len(readers) > 1:
        several = ", ".join(sorted(kinds))
        raise ValueError(f"the files have several formats ({several}). Name the files of one format, as in 'data/*.parquet'")
    return readers[0]


def _check_saved(folder: str) -> None:
    """Raise ValueError if the state of a saved dataset names a file outside its folder."""
    about = os.path.join(folder, "dataset_dict.json")
    for split in _json(about).get("splits", ()) if os.path.isfile(about) else ():
        _check_inside(str(split), folder, folder)
    for state in glob.iglob(os.path.join(glob.escape(folder), "**", "state.json"), recursive=True):
        for name in _filenames(_json(state)):
            _check_inside(name, os.path.dirname(state), folder)


def _filenames(state: object) -> Iterable[str]:
    if isinstance(state, dict):
        for name, value in state.items():
            yield from [str(value)] if name == "filename" else _filenames(value)
    elif isinstance(state, list):
        for one in state:
            yield from _filenames(one)


def _json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.load(file)


def _check_cards(path: str, revision: str) -> None:
    """Raise ValueError if a dataset's card names files outside the dataset, because the library would list and read them."""
    for name in CARDS:
        for pattern in _patterns(_card(path, name, revision)):
            if os.path.isabs(pattern) or "://" in pattern or "::" in pattern or ".." in pattern.replace("\\", "/").split("/"):
                raise ValueError(f"{name} names data outside the dataset: '{pattern}'")


def _card(path: str, name: str, revision: str) -> Any:
    """Return the metadata of a card in a folder or on the Hub, or {} if there is no such card."""
    import yaml
    from huggingface_hub import DatasetCard, hf_hub_download

    if os.path.isdir(path):
        file = os.path.join(path, name)
    else:
        try:
            file = hf_hub_download(path, name, repo_type="dataset", revision=revision or None)
        except (OSError, ValueError):  # no such card, repository or name: the library reports which
            return {}
    if not os.path.isfile(file):
        return {}
    if name.endswith(".md"):
        return DatasetCard.load(file).data.to_dict()  # the library reads a card in the same way
    with open(file, encoding="utf-8") as text:
        return yaml.safe_load(text)


def _patterns(card: Any) -> Iterable[str]:
    """Yield the file patterns of all configurations in a card."""
    for one in (card.get("configs") or ()) if isinstance(card, dict) else ():
        yield from _texts([one.get("data_files"), one.get("data_dir")] if isinstance(one, dict) else one)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _check_inside(name: str, base: str, folder: str) -> None:
    try:
        real_path_inside(os.path.join(base, name), folder)
    except Refused as error:
        raise ValueError(f"the saved state of the dataset names the path '{name}', which is not allowed ({error})") from None
