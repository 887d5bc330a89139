"""CLIPScore equals plain open_clip, on the tiny model that ships."""

import io
import json
import shutil

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.parts import open_part
from tests.rows import captions, document, table
from vlmdata.demo.recipe import HERE, figures
from vlmdata.models.clip import Clip
from vlmdata.models.clip_names import check_model, downloads
from vlmdata.models.image_batches import preparation
from vlmdata.row import flatten, set_column
from vlmdata.step import RecipeError
from vlmdata.steps.clip_score import ClipScore

pytestmark = pytest.mark.whole

MODEL = f"local-dir:{HERE / 'clip'}"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other make this slow on a busy machine
    yield
    torch.set_num_threads(before)


def place(figure: dict) -> dict:
    path = HERE / "figures" / figure["file"]
    return {"blob": str(path), "offset": 0, "size": path.stat().st_size, "sha256": figure["file"]}


def plain_cosines(pictures: list[dict], texts: list[str]) -> np.ndarray:
    """Return open_clip's cosines in fp32, computed one pair at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    model.eval()
    tokenizer = open_clip.get_tokenizer(MODEL)
    cosines = []
    with torch.no_grad():
        for picture, text in zip(pictures, texts, strict=True):
            image = Image.open(io.BytesIO((HERE / "figures" / picture["file"]).read_bytes())).convert("RGB")
            i = torch.nn.functional.normalize(model.encode_image(preprocess(image)[None]), dim=-1)
            t = torch.nn.functional.normalize(model.encode_text(tokenizer([text])), dim=-1)
            cosines.append(float((i * t).sum()))
    return np.array(cosines)


# bf16 is exact to 5e-3 on published models (see the next test); the tiny model averages over only 128 dimensions
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_cosines_of_the_embeddings_equal_those_of_open_clip(precision, tolerance):
    chosen = figures()[::20]
    texts = [figure["caption"] for figure in chosen]
    clip = Clip(MODEL, "", precision)
    bodies = [(HERE / "figures" / figure["file"]).read_bytes() for figure in chosen]
    ours = (clip.embed_images(bodies, 4) * clip.embed_texts(texts, 4)).sum(1)
    assert np.abs(ours - plain_cosines(chosen, texts)).max() < tolerance


@pytest.mark.slow
def test_bf16_changes_no_cosine_of_vit_b_32_by_more_than_5e_3(tmp_path):
    weights = tmp_path / "random.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
    chosen = figures()[::28]
    bodies = [(HERE / "figures" / figure["file"]).read_bytes() for figure in chosen]
    cosines = []
    for precision in ("fp32", "bf16"):
        clip = Clip("ViT-B-32", str(weights), precision)
        texts = clip.embed_texts([figure["caption"] for figure in chosen], 8)
        cosines.append((clip.embed_images(bodies, 8) * texts).sum(1))
    assert np.abs(cosines[0] - cosines[1]).max() < 5e-3


def test_a_score_does_not_depend_on_other_rows(tmp_path):
    chosen = figures()[:9]
    texts = [figure["caption"] for figure in chosen]
    fields = {name: [place(figure)[name] for figure in chosen] for name in place(chosen[0])}
    step = ClipScore(model=MODEL, precision="fp32", batch=4)
    all_at_once = flatten(step.run(captions(texts, **fields), open_part(tmp_path)), "clip_score").items.to_pylist()
    alone = []
    for i in range(9):
        row = captions([texts[i]], **{name: [values[i]] for name, values in fields.items()})
        alone += flatten(step.run(row, open_part(tmp_path)), "clip_score").items.to_pylist()
    assert all_at_once == alone


def test_an_image_of_a_document_is_scored_with_its_neighbours_and_the_best_is_named(tmp_path):
    first, second = figures()[0], figures()[100]
    rows = table([document(second["caption"], place(first), first["caption"], second["caption"])])
    scored = ClipScore(model=MODEL, min_score=-1, precision="fp32").run(rows, open_part(tmp_path))
    own, other = plain_cosines([first, first], [first["caption"], second["caption"]])
    assert own > other
    assert scored["clip_score"].to_pylist() == [[None, pytest.approx(own, abs=1e-4), None, None]]
    assert scored["clip_score.text"].to_pylist() == [[None, "after", None, None]]


def test_an_image_is_also_scored_with_its_alt_text_and_caption(tmp_path):
    chosen = figures()[:3]
    own, other = chosen[0]["caption"], chosen[2]["caption"]
    cosines = dict(zip("ab", plain_cosines([chosen[0]] * 2, [own, other]), strict=True))
    assert cosines["a"] > cosines["b"]
    for name in ("alt", "caption"):
        image = {**place(chosen[0]), "alt": other, "caption": other, name: own}
        rows = ClipScore(model=MODEL, min_score=-1, precision="fp32").run(table([document(image, other)]), open_part(tmp_path))
        assert rows["clip_score.text"].to_pylist() == [[name, None]]
        assert rows["clip_score"].to_pylist() == [[pytest.approx(cosines["a"], abs=1e-4), None]]


def test_a_score_equal_to_the_threshold_is_kept(tmp_path):
    figure = figures()[0]
    row = captions([figure["caption"]], **{name: [value] for name, value in place(figure).items()})
    score = ClipScore(model=MODEL, min_score=-1, precision="fp32").run(row, open_part(tmp_path))["clip_score"].to_pylist()[0][0]
    for threshold, reason in ((score, None), (score + 1e-4, "min_score")):
        assert ClipScore(model=MODEL, min_score=threshold, precision="fp32").run(row, open_part(tmp_path))[
            "reason"
        ].to_pylist() == [reason]


def test_true_pairs_score_higher_than_shuffled_ones():
    """The tiny model reaches an AUC of 0.75 on figures that it never saw. The test requires a value well above chance."""
    chosen = figures()
    clip = Clip(MODEL, "", "auto")
    images = clip.embed_images([(HERE / "figures" / f["file"]).read_bytes() for f in chosen], 64)
    scores = images @ clip.embed_texts([f["caption"] for f in chosen], 64).T
    true, false = np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]
    assert (true[:, None] > false[None, ::7]).mean() > 0.68


def test_an_unknown_model_is_reported_without_importing_open_clip():
    known = {(model, tag) for model in open_clip.list_models() for tag in downloads(model)}
    assert known == {pair for pair in open_clip.list_pretrained() if pair[0] in open_clip.list_models()}
    check_model("ViT-B-32", "laion2b_s34b_b79k", "clip_score")
    with pytest.raises(RecipeError, match="Did you mean 'ViT-B-32'"):
        check_model("ViT-B32", "openai", "clip_score")
    with pytest.raises(RecipeError, match="Did you mean 'laion2b_s34b_b79k'"):
        check_model("ViT-B-32", "laion2b_s34b_b79", "clip_score")
    with pytest.raises(RecipeError, match="is not a model folder of open_clip"):
        check_model("local-dir:/nowhere", "", "clip_score")


def test_two_models_with_equal_preprocessing_read_and_decode_pictures_once(tmp_path):
    chosen = figures()[:20]
    part = open_part(tmp_path)
    read = part.image_bytes
    asked = []
    part.image_bytes = lambda *place: asked.append(place) or read(*place)
    rows = captions([f["caption"] for f in chosen], **{name: [place(f)[name] for f in chosen] for name in place(chosen[0])})
    for label, precision in (("one", "fp32"), ("two", "bf16")):
        rows = ClipScore(label=label, model=MODEL, min_score=-1, precision=precision).run(rows, part)
    assert len(asked) == 20
    one, two = (np.array(flatten(rows, label).items.drop_null().to_pylist()) for label in ("one", "two"))
    assert len(one) == 20 and 0 < np.abs(one - two).max() < 1e-2


def test_a_broken_picture_has_no_score_and_others_have_theirs(tmp_path):
    chosen = figures()[:3]
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    fields = {name: [place(figure)[name] for figure in chosen] for name in place(chosen[0])}
    step = ClipScore(model=MODEL, precision="fp32", min_score=-1, embeddings=True)
    whole = step.run(captions(list("abc"), **fields), open_part(tmp_path / "whole"))
    fields["blob"][1], fields["size"][1] = str(tmp_path / "broken.jpg"), 13
    found = step.run(captions(list("abc"), **fields), open_part(tmp_path / "out"))
    expected = whole["clip_score"].to_pylist()
    assert found["clip_score"].to_pylist() == [expected[0], [None, None], expected[2]]
    assert found["clip_score.embedding"].to_pylist()[1] == [None, None]
    assert found["drop"].null_count == 3


def test_a_threshold_rounded_down_by_single_precision_is_kept_too():
    rows = captions(list("ab"))
    rows = set_column(rows, "clip_score", pa.array([[0.26, None], [0.2599, None]], pa.list_(pa.float32())))
    assert ClipScore(min_score=0.26).decide(rows)["reason"].to_pylist() == [None, "min_score"]


def test_pictures_are_preprocessed_as_open_clip_does():
    _, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    prepare = preparation(preprocess)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (prepare.mean, prepare.std))
    colour, grey, clear = (Image.new(mode, (30, 20)) for mode in ("RGB", "L", "RGBA"))
    made = []
    for image, kind in ((colour, "JPEG"), (grey, "JPEG"), (clear, "PNG")):
        out = io.BytesIO()
        image.save(out, kind)
        made.append(out.getvalue())
    for body in [*made, *((HERE / "figures" / figure["file"]).read_bytes() for figure in figures()[:10])]:
        theirs = preprocess(Image.open(io.BytesIO(body)).convert("RGB")).numpy()
        assert np.abs((prepare.pixels(body).astype(np.float32) / 255 - mean) / std - theirs).max() < 1e-6


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_cosines():
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    from torch._dynamo.utils import counters

    bodies = [(HERE / "figures" / figure["file"]).read_bytes() for figure in figures()[:5]]
    torch.compiler.reset()  # forget what an earlier test compiled
    plain, compiled = (Clip(MODEL, "", "fp32", compiled=how) for how in ("no", "yes"))
    counters.clear()
    assert np.abs(plain.embed_images(bodies, 4) - compiled.embed_images(bodies, 4)).max() < 1e-5
    compiled.embed_images(bodies[:1], 4)
    assert len(bodies) % 4 and counters["stats"]["unique_graphs"] == 1, "a last batch that is not full compiles nothing anew"


def test_damaged_weights_are_reported_in_one_line(tmp_path):
    shutil.copytree(HERE / "clip", tmp_path / "clip")
    [weights] = [file for file in (tmp_path / "clip").iterdir() if file.suffix == ".safetensors"]
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(RecipeError, match="is cut off"):
        check_model(f"local-dir:{tmp_path / 'clip'}", "", "clip_score")
    with pytest.raises(RecipeError, match="cannot be loaded") as caught:
        Clip(f"local-dir:{tmp_path / 'clip'}", "", "fp32")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_missing_or_damaged_is_reported_in_one_line(tmp_path):
    folder = shutil.copytree(HERE / "clip", tmp_path / "clip")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(RecipeError, match=r"the tokenizer of local-dir:.* cannot be loaded") as caught:
        Clip(f"local-dir:{folder}", "", "fp32")
    assert "\n" not in str(caught.value)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(RecipeError, match=r"clip has no tokenizer, such as tokenizer\.json"):
        check_model(f"local-dir:{folder}", "", "clip_score")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = ""  # open_clip then uses the tokenizer that it ships
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    check_model(f"local-dir:{folder}", "", "clip_score")
