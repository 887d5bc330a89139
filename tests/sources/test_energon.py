"""The source energon reads the splits of datasets that were prepared for Megatron Energon, by their field map."""

import json
from pathlib import Path

import pytest
import yaml

from tests.exporting.made import IMAGE, caption, chat, document, make_dataset
from tests.exporting.read_back import both, read
from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.export_dataset import export
from vlmdata.sources.energon import Energon
from vlmdata.step import RecipeError

CAPTIONING = {"sample_type": {"__module__": "megatron.energon", "__class__": "CaptioningSample"}}
BOTH = {**CAPTIONING, "field_map": {"image": "jpg,png", "caption": "json[words][en],txt"}}
SPLIT = {"split_parts": {"train": ["{00000..00001}.tar"], "val": ["00002.tar"], "test": []}, "exclude": ["00001.tar/3"]}


def pair(number: int, **members: bytes) -> tuple[str, dict[str, bytes]]:
    """Return a pair that another program wrote: its JSON has a caption in two languages."""
    words = json.dumps({"words": {"en": f"english {number}", "de": f"deutsch {number}"}, "id": number}).encode()
    return str(number), {"json": words, "png": IMAGE, **members}


def prepared(tmp_path: Path, samples=None, described=BOTH, split=SPLIT) -> str:
    """Write three tars of two samples, with the files of Energon that the source reads."""
    make_dataset(tmp_path / "set", samples or map(pair, range(6)), layout="captions", per_shard=2)
    for name in ("manifest.json", "index.parquet"):
        (tmp_path / "set" / name).unlink()
    meta = tmp_path / "set/.nv-meta"
    meta.mkdir()
    (meta / ".info.json").write_text(json.dumps({"shard_counts": {f"{n:05d}.tar": 2 for n in range(3)}}))
    (meta / "split.yaml").write_text(split if isinstance(split, str) else yaml.safe_dump(split))
    if described is not None:
        (meta / "dataset.yaml").write_text(described if isinstance(described, str) else yaml.safe_dump(described))
    return str(tmp_path / "set")


def texts(folder: str, **options) -> list[str]:
    return [text for _, text, _ in pairs_of(read_all(Energon(path=folder, **options)))]


def test_a_split_is_read_without_what_it_excludes(tmp_path):
    folder = prepared(tmp_path)
    assert texts(folder) == ["english 0", "english 1", "english 2"]
    assert texts(folder, split="val") == ["english 4", "english 5"]
    assert texts(folder, split=["train", "val"]) == [f"english {n}" for n in (0, 1, 2, 4, 5)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": "png", "caption": "txt"}, "plain"),
        ({"image": "png", "caption": "json[words][de]"}, "deutsch 0"),
        ({"image": "png", "caption": "cap,txt"}, "plain"),
        ({"image": "webp,png", "caption": "json[no],json[words][de]"}, "deutsch 0"),
    ],
)
def test_the_field_map_names_the_caption(tmp_path, fields, expected):
    samples = [pair(n, txt=b"plain") for n in range(6)]
    assert texts(prepared(tmp_path, samples, {**CAPTIONING, "field_map": fields}))[0] == expected


def test_the_first_image_of_the_field_map_that_a_sample_has_is_read(tmp_path):
    other = picture(9, 7)
    folder = prepared(tmp_path, [pair(0, jpg=other), *(pair(n) for n in range(1, 6))])
    assert [image for row in read(Energon(path=folder)) for _, image, _ in row if isinstance(image, bytes)] == [
        other,
        IMAGE,
        IMAGE,
    ]


@pytest.mark.parametrize("name", ["CaptioningSample", "CaptioningWebdataset"])
def test_the_old_and_the_new_form_of_the_sample_type_are_read(tmp_path, name):
    kind = {"__module__": "megatron.energon", "__class__": name}
    kind = kind if name == "CaptioningWebdataset" else {"sample_type": kind}
    assert texts(prepared(tmp_path, None, {**kind, "field_map": BOTH["field_map"]}))[0] == "english 0"


def test_images_without_captions_are_read(tmp_path):
    kind = {"sample_type": {"__module__": "megatron.energon", "__class__": "ImageSample"}, "field_map": {"image": "png"}}
    rows = read_all(Energon(path=prepared(tmp_path, None, kind))).to_pylist()
    assert [row["drop"] for row in rows] == [None] * 3 and not any(
        text["text"] for row in rows for text in row["texts"] if text
    )


@pytest.mark.parametrize("described", [None, {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}])
def test_crude_samples_are_read_as_webdataset_reads_them(tmp_path, described):
    samples = [pair(n, txt=f"plain {n}".encode()) for n in range(6)]
    assert texts(prepared(tmp_path, samples, described))[:2] == ["plain 0", "plain 1"]


@pytest.mark.parametrize("options", [{}, {"val": 0.4}])
@pytest.mark.parametrize("made", [caption, chat, lambda n: document(n, [f"first {n}", IMAGE, "second"])])
def test_what_vlmdata_exported_for_energon_is_read_back_unchanged(tmp_path, made, options):
    samples = list(map(made, range(5)))
    layout = "captions" if made is caption else "documents"
    make_dataset(tmp_path / "out", samples, layout=layout, per_shard=2)
    export(tmp_path / "out", tmp_path / "to", to="energon", options=options)
    source = Energon(path=str(tmp_path / "to"), split=["train", "val"] if options else "train")
    if layout == "documents":
        expected, found = both(samples, source)
        assert found == expected
    else:
        assert sorted(pairs_of(read_all(source))) == [(f"https://example.org/{n}.png", f"picture {n}", None) for n in range(5)]


LOADER = {**CAPTIONING, "sample_loader": "sample_loader.py:sample_loader", "part_filter": "sample_loader.py:part_filter"}
VQA = {"sample_type": {"__module__": "megatron.energon", "__class__": "VQASample"}, "field_map": {"image": "jpg"}}
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        (LOADER, "code makes the samples"),
        (VQA, "has samples of the type 'VQASample', and this source reads CaptioningSample"),
        ({"field_map": {"image": "jpg"}}, "has no sample type"),
        ({"sample_type": 5}, "has no sample type"),
        ({"sample_type": {"__class__": ["CaptioningSample"]}}, "has no sample type"),
        (CAPTIONING, "`field_map` must name image and caption"),
        ({**CAPTIONING, "field_map": {"image": "jpg"}}, "`field_map` must name image and caption"),
        ({**CAPTIONING, "field_map": {"image": ["jpg"], "caption": 5}}, "`field_map` must name image and caption"),
        ({**CAPTIONING, "field_map": {"image": "json[image]", "caption": "txt"}}, r"image in `field_map` is 'json\[image\]'"),
        ({**CAPTIONING, "field_map": {"image": "jpg", "caption": "txt[0]"}}, r"caption in `field_map` is 'txt\[0\]'"),
        ({**CAPTIONING, "field_map": {"image": "jpg", "caption": "json["}}, r"caption in `field_map` is 'json\['"),
        ({**CAPTIONING, "field_map": {"image": "jpg,", "caption": "txt"}}, "image in `field_map` is ''"),
        ("[1, 2]", "must be a mapping"),
        ("{{{", "cannot be read as YAML"),
        ("[" * 100_000, "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        (BOMB, "has no sample type"),
        (f"sample_type: {{__class__: {'x' * 1000}}}", "has samples of the type 'xxx"),
    ],
)  # fmt: skip
def test_an_unusable_description_is_refused_in_one_line(tmp_path, described, says):
    with pytest.raises(RecipeError, match=says) as caught:
        Energon(path=prepared(tmp_path, None, described)).check()
    assert "set/.nv-meta/dataset.yaml" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("split", "options", "says"),
    [
        (SPLIT, {"split": "vall"}, "has no split 'vall'. Use one of: .*set#train"),
        (SPLIT, {"split": "test"}, "lists no tars for the split 'test'"),
        (SPLIT, {"split": []}, "split must name at least one split"),
        (SPLIT, {"split": ["train", "train"]}, "tars are named twice"),
        ("split_parts: {train: [../out.tar]}", {}, "names a tar outside of"),
        ("split_parts: {train: ['http://127.0.0.1/a.tar']}", {}, "names a tar outside of"),
        ("split_parts: {train: ['{0..999999999}.tar']}", {}, "expands to too many names"),
        ("split_parts: {train: [7.tar]}", {}, "is missing"),
        ("split_parts: 5", {}, "`split_parts` must list"),
    ],
)
def test_an_unusable_split_is_refused_in_one_line(tmp_path, split, options, says):
    with pytest.raises(RecipeError, match=says) as caught:
        Energon(path=prepared(tmp_path, split=split), **options).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "set/00000.tar"])
def test_a_path_that_was_not_prepared_is_refused_in_one_line(tmp_path, name):
    prepared(tmp_path)
    with pytest.raises(RecipeError, match=r"has no \.nv-meta/split\.yaml|does not exist") as caught:
        Energon(path=str(tmp_path / name)).check()
    assert "\n" not in str(caught.value)


def test_a_remote_dataset_is_read(tmp_path):
    import fsspec

    fsspec.filesystem("memory").put(prepared(tmp_path), "/prepared", recursive=True)
    assert texts("memory://prepared") == ["english 0", "english 1", "english 2"]
