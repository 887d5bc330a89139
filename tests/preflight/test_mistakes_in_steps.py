"""`vlmdata check` finds steps before the step that makes what they need, and weights that cannot be had."""

import ast
import base64
import inspect
import json
import os
import zipfile

import numpy as np
import pytest

from tests.preflight.checking import FETCH, check
from vlmdata.catalog import find, names
from vlmdata.demo.recipe import HERE
from vlmdata.extras import EXTRAS
from vlmdata.shipped import build_recipes
from vlmdata.steps.download import Download

WEB = {"download": {"contact": "a@b.org"}}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.csv").write_text("url,caption,w,h\nhttps://e.example/1.jpg,a cat on a mat,640,480\n")
    return {"type": "url_list", "path": "a.csv"}


EARLY = [  # steps, the step that is too early, what it needs, the step behind which to move it
    ([{"dedupe_phash": {}}, WEB, {"resize": {}}], "step 1: dedupe_phash", "images.phash", "behind step 3, resize"),
    ([{"image_size": {}}, WEB], "step 1: image_size", "images.original_width", "behind step 2, download"),
    ([{"image_size": {"of": "stored"}}, WEB], "step 1: image_size", "images.width", "behind step 2"),
    ([{"image_bytes": {}}, WEB], "step 1: image_bytes", "images.size", "behind step 2"),
    ([{"image_format": {}}, WEB], "step 1: image_format", "images.format", "behind step 2"),
    ([{"dedupe_exact": {}}, {"text_length": {}}, WEB], "step 1: dedupe_exact", "images.sha256", "behind step 3, download"),
    ([{"image_detail": {}}, WEB], "step 1: image_detail", "the image itself", "behind step 2"),
    ([{"pdq_hash": {}}, {"dedupe_pdq": {}}, WEB], "step 1: pdq_hash", "the image itself", "behind step 3"),
    ([{"split": {}}, WEB], "step 1: split", "images.phash", "behind step 2"),
    ([{"resize": {}}, WEB], "step 1: resize", "the image itself", "behind step 2, download"),
]


@pytest.mark.parametrize(("steps", "early", "needs", "behind"), EARLY)
def test_a_step_before_the_images_are_fetched_is_named_with_its_place(tmp_path, capsys, source, steps, early, needs, behind):
    assert check(tmp_path, source, steps) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert early in line and needs in line and behind in line


def test_a_column_that_a_later_step_measures_is_named_with_the_place(tmp_path, capsys, source):
    steps = [WEB, {"top_fraction": {"score": "b32", "fraction": 0.5}}, {"source_score": {"label": "b32", "of": "w"}}]
    assert check(tmp_path, source, steps) == 2
    assert "top_fraction reads the column 'b32', which no step before it measures. Move step 2 behind step 3, b32" in (
        capsys.readouterr().err
    )


def test_a_step_that_another_one_needs_is_named_once(tmp_path, capsys, source):
    asked = {"generator": {"openai": {"model": "m", "url": "http://127.0.0.1:9/v1"}}}
    assert check(tmp_path, source, [*FETCH, {"check_claims": asked}]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "vlmdata: r.yaml, step 3: check_claims reads the column 'claims', which no step before it measures. "
        "Put claims before it"
    ]
    assert check(tmp_path, source, [*FETCH, {"claims": {**asked, "label": "listed"}}, {"check_claims": asked}]) == 2
    assert "Write 'listed', the label of claims, in place of 'claims'" in capsys.readouterr().err


def test_a_step_that_reads_embeddings_which_clip_score_does_not_store_is_refused(tmp_path, capsys, source):
    clip = f"local-dir:{HERE / 'clip'}"
    steps = [*FETCH, {"clip_score": {"model": clip, "min_score": -1}}, {"text_embedding": {"model": clip}}]
    assert check(tmp_path, source, steps) == 2
    assert capsys.readouterr().err.splitlines() == [
        "vlmdata: text_embedding.embedding: clip_score stores no embeddings. Set clip_score.embeddings to true"
    ]


VALID = [
    [
        "image_url_rules",
        {"dedupe_exact": {"by": "url"}},
        "image_url_frequency",
        {"dedupe_exact": {"by": "row", "label": "rows"}},
        WEB,
    ],
    [WEB, "resize", "image_size", "dedupe_exact", "dedupe_phash", "split"],
    [WEB, "image_bytes", "image_format", "image_detail", "pdq_hash", "dedupe_pdq"],
]


@pytest.mark.parametrize("steps", VALID)
def test_rules_for_addresses_may_come_before_download(tmp_path, capsys, source, steps):
    assert check(tmp_path, source, steps) == 0, capsys.readouterr().err


def test_sizes_that_the_source_states_may_be_judged_before_download(tmp_path, capsys, source):
    assert check(tmp_path, {**source, "width": "w", "height": "h"}, ["image_size", WEB]) == 0


def test_images_that_the_source_holds_need_no_download(tmp_path, capsys):
    picture = base64.b64encode(b"\xff\xd8\xff" + bytes(100)).decode()
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": picture, "caption": "a cat"}))
    source = {"type": "url_list", "path": "a.jsonl", "image": "image"}
    assert check(tmp_path, source, ["image_bytes", "resize", "dedupe_phash"]) == 0, capsys.readouterr().err
    assert check(tmp_path, source, ["dedupe_phash", "resize"]) == 2
    assert "Move step 1 behind step 2, resize" in capsys.readouterr().err
    assert check(tmp_path, source, ["dedupe_phash"]) == 2
    assert "Put the step `resize` before step 1" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [path.stem for path in build_recipes()])
def test_no_step_of_a_shipped_recipe_is_too_early(recipe, capsys):
    from vlmdata.preflight.step_order import too_early
    from vlmdata.recipe import load

    loaded = load(recipe)
    assert list(too_early(loaded.source, loaded.steps, None, recipe)) == []


@pytest.mark.parametrize("name", names("steps"))
def test_each_step_that_opens_images_declares_it(name):
    cls = find("steps", name)
    words = {node.attr for node in ast.walk(ast.parse(inspect.getsource(cls))) if isinstance(node, ast.Attribute)}
    if "image_bytes" in words:
        assert cls.fetched == ("blob",)


def weights(folder) -> None:
    (folder / "page.pt").write_bytes(b"<html>not found</html>")
    (folder / "empty.pt").write_bytes(b"")
    with zipfile.ZipFile(folder / "whole.pt", "w") as file:
        file.writestr("archive/data.pkl", bytes(1000))
    (folder / "cut.pt").write_bytes((folder / "whole.pt").read_bytes()[:500])
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (folder / "whole.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    wrong = header.replace(b"[4]", b"[5]")
    (folder / "wrong.safetensors").write_bytes(len(wrong).to_bytes(8, "little") + wrong + bytes(16))
    for name in ("broken", "bare", "unread"):
        (folder / name).mkdir()
        (folder / name / "open_clip_config.json").write_text("{" if name == "unread" else "{}")
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "broken" / "open_clip_model.safetensors").write_bytes(whole[:-4])
    (folder / "cut.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(15))


@pytest.mark.parametrize(
    ("model", "pretrained", "status", "words"),
    [
        ("ViT-B32", "openai", 2, "open_clip has no model 'ViT-B32'. Did you mean 'ViT-B-32'?"),
        ("ViT-B-32", "laion2b_s34b_b79", 2, "Did you mean 'laion2b_s34b_b79k'?"),
        ("ViT-B-32", "laion5b_s13b_b90k", 2, "a weights tag that open_clip has for ViT-B-32"),
        ("ViT-H-14-378", "openai", 2, "a weights tag that open_clip has for ViT-H-14-378"),
        ("ViT-B-32", "absent.pt", 2, "clip_score.pretrained: there is no file absent.pt"),
        ("ViT-B-32", "page.pt", 2, "page.pt is not a file of weights"),
        ("ViT-B-32", "empty.pt", 2, "empty.pt is empty"),
        ("ViT-B-32", "cut.pt", 2, "cut.pt is cut off"),
        ("ViT-B-32", "cut.safetensors", 2, "cut.safetensors is cut off"),
        ("ViT-B-32", "wrong.safetensors", 2, "wrong.safetensors is damaged, because its header states a wrong size for a"),
        ("ViT-B-32", "whole.pt", 0, ""),
        ("ViT-B-32", "whole.safetensors", 0, ""),
        ("local-dir:broken", "", 2, "open_clip_model.safetensors is cut off"),
        ("local-dir:bare", "", 2, "bare holds no file of weights"),
        ("local-dir:unread", "", 2, "unread/open_clip_config.json is damaged: "),
        ("local-dir:nowhere", "", 2, "nowhere is not a model folder of open_clip"),
        ("ViT-B-32", "openai", 2, "HF_HUB_OFFLINE forbids to download"),
        ("hf-hub:a/b", "", 2, "HF_HUB_OFFLINE forbids to download"),
        ("hf-hub:a/b", "", 2, "or set clip_score.model to local-dir:FOLDER"),
    ],
)
def test_weights_that_cannot_be_had_are_named(tmp_path, capsys, monkeypatch, source, model, pretrained, status, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    weights(tmp_path)
    assert check(tmp_path, source, [WEB, {"clip_score": {"model": model, "pretrained": pretrained}}]) == status
    written = capsys.readouterr().err
    assert words in written and written.count("\n") == (1 if words else 0)


@pytest.mark.parametrize(
    ("later", "ends"), [([], ", or leave the step out: --set clip_score=off"), (["top"], "to a file of weights")]
)
def test_missing_weights_name_the_step_to_leave_out_if_nothing_reads_it(tmp_path, capsys, monkeypatch, source, later, ends):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    steps = [*FETCH, {"clip_score": {"pretrained": "openai"}}]
    steps += [{"top_fraction": {"score": "clip_score", "fraction": 0.5}} for _ in later]
    assert check(tmp_path, source, steps) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(ends)


@pytest.mark.parametrize(
    ("step", "option"),
    [
        ("nearest_centroid", {"centroids": "a.npy", "references": ["a.npy"]}),
        ("decontaminate_images", {"embeddings": ["a.npy"]}),
    ],
)
@pytest.mark.parametrize(
    ("model", "width"), [("ViT-B-32", 512), ("ViT-L-14-quickgelu", 768), (f"local-dir:{HERE / 'clip'}", 128), ("hf-hub:a/b", 0)]
)
def test_embeddings_of_another_width_than_the_model_are_refused(
    tmp_path, capsys, monkeypatch, source, step, option, model, width
):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    clip = {"clip_score": {"model": model, "pretrained": "openai", "embeddings": True}}
    for own in (width, 24):
        np.save(tmp_path / "a.npy", np.ones((3, own), np.float32))
        right = own == width or not width  # the width of a model on the hub is not known before the run
        assert check(tmp_path, source, [*FETCH, clip, {step: option}]) == (0 if right else 2)
        written = capsys.readouterr().err
        line = f"{step}: a.npy has embeddings of width 24, but those of clip_score ({model}) have width {width}."
        assert right or line in written


def test_weights_that_were_downloaded_before_are_found_offline(tmp_path, capsys, monkeypatch, source):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--timm--vit_base_patch32_clip_224.openai" / "snapshots" / "0123"
    os.makedirs(snapshot)
    (snapshot / "open_clip_model.safetensors").touch()
    assert check(tmp_path, source, [WEB, {"clip_score": {"pretrained": "openai"}}]) == 0, capsys.readouterr().err


def test_weights_that_the_run_would_download_are_noted(tmp_path, capsys, monkeypatch, source):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert check(tmp_path, source, [WEB, {"clip_score": {"pretrained": "openai"}}]) == 0
    assert "are not on this machine; the run downloads them from timm/" in capsys.readouterr().err


def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path, capsys, monkeypatch, source):
    monkeypatch.setattr(Download, "packages", ("no_such_package",), raising=False)
    monkeypatch.setitem(EXTRAS, "no_such_package", "web")
    assert check(tmp_path, source, [WEB]) == 2
    assert "step download needs the package 'no_such_package'" in capsys.readouterr().err


def test_a_score_that_an_earlier_step_stores_need_not_be_in_the_first_rows(tmp_path, capsys, source):
    clip = f"local-dir:{HERE / 'clip'}"
    embed = [{"clip_score": {"model": clip, "min_score": -1, "embeddings": True}}, {"text_embedding": {"model": clip}}]
    read = {"source_score": {"of": "loss"}}
    steps = [*FETCH, *embed, {"clip_loss": {"store_as": "loss"}}, read]
    assert check(tmp_path, source, steps) == 0, capsys.readouterr().err
    assert check(tmp_path, source, [*FETCH, *embed, "clip_loss", read]) == 2
    assert "source_score.of: none of the first 1 rows has a number in 'loss'" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["text_embedding", "nearest_concepts"])
def test_embeddings_of_another_model_are_refused(tmp_path, capsys, source, step):
    (tmp_path / "weights.pt").write_bytes(b"\x80")
    (tmp_path / "names.txt").write_text("\n".join("abcdef"))
    own = {"model": f"local-dir:{HERE / 'clip'}"}
    scored = {"clip_score": {"model": "ViT-B-32", "pretrained": "weights.pt", "min_score": -1, "embeddings": True}}
    names = {"names": "names.txt"} if step == "nearest_concepts" else {}
    assert check(tmp_path, source, [*FETCH, scored, {step: {**own, **names}}]) == 2
    assert (
        f"{step}.model: {own['model']} is not the model of clip_score, which is ViT-B-32 weights.pt" in capsys.readouterr().err
    )
