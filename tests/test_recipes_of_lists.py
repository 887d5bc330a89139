"""The recipes for DataComp's pools and LAION's lists work as a newcomer uses them: each command that `new` prints, on a small
list with the columns of the published ones, then `show` and a loop that reads.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fixtures import fixture
from tests.servers import LoopbackServer, reply
from tests.sources.pictures import picture
from tests.text.wordnets import small_wordnet
from vlmdata import stream
from vlmdata.cli import main
from vlmdata.demo.recipe import HERE
from vlmdata.models.clip import Clip

pytestmark = pytest.mark.whole

PHOTOS = sorted(fixture("A_captioned/coco_free_licence").glob("*.jpg"))
MODEL = f"local-dir:{HERE / 'clip'}"
LISTED = list(map(json.loads, (PHOTOS[0].parent / "manifest.jsonl").read_text().splitlines()))
CAPTIONS = {line["image"]: line["captions"][0] for line in LISTED}

# Rows 0 to 11 are the photos with their captions. The others each fail some rule.
OTHERS = [
    ("/0.jpg?as=fr", "une photo de la maison de mes parents", 0),
    ("/gone.jpg", "a picture that is gone from its page", None),
    ("/1.jpg?short", "ok", 1),
    ("/2.jpg", CAPTIONS[PHOTOS[2].name], 2),  # again
    ("/3.gif", "a man and a woman at the table of a house", 3),
    ("/tiny.jpg", "a tiny picture of a small house", None),
]
ROWS = [*((f"/{number}.jpg", CAPTIONS[photo.name], number) for number, photo in enumerate(PHOTOS)), *OTHERS]
FRENCH, GONE, SHORT, AGAIN, GIF, TINY = range(12, 18)
FALLING = [round(0.40 - 0.02 * number, 2) for number in range(len(ROWS))]  # scores; rows 0 to 6 have 0.28 and more
ENGLISH = set(range(18)) - {FRENCH, GONE}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """Serve the pictures, and write the two lists and the files that the recipes name to the working directory."""
    monkeypatch.chdir(tmp_path)
    with LoopbackServer() as server:
        for path, _, number in ROWS:
            if number is not None:
                server.routes[path] = reply(PHOTOS[number].read_bytes(), headers={"Content-Type": "image/jpeg"})
        server.routes["/tiny.jpg"] = reply(picture())
        urls, texts = [server.url(path) for path, _, _ in ROWS], [text for _, text, _ in ROWS]
        width, height = [224] * len(ROWS), [168] * len(ROWS)
        datacomp = {
            "uid": [f"{number:032x}" for number in range(len(ROWS))], "url": urls, "text": texts,
            "original_width": width, "original_height": height,
            "clip_b32_similarity_score": pa.array(FALLING, pa.float32()),
            "clip_l14_similarity_score": pa.array(FALLING, pa.float32()),
            "face_bboxes": pa.array([[[0.1, 0.1, 0.3, 0.4]]] * len(ROWS), pa.list_(pa.list_(pa.float64()))),
            "sha256": ["0" * 64] * len(ROWS),
        }  # fmt: skip
        laion = {
            "SAMPLE_ID": list(range(len(ROWS))), "URL": urls, "TEXT": texts, "HEIGHT": height, "WIDTH": width,
            "LICENSE": ["?"] * len(ROWS), "LANGUAGE": ["en"] * len(ROWS), "NSFW": ["UNLIKELY"] * len(ROWS),
            "similarity": pa.array(FALLING, pa.float32()), "punsafe": [0.1] * len(ROWS), "pwatermark": [0.2] * len(ROWS),
        }  # fmt: skip
        for name, columns in (("pool/00000000.parquet", datacomp), ("links/part-00000.parquet", laion)):
            Path(name).parent.mkdir()
            pq.write_table(pa.table(columns), name)
        yield server


def built(recipe: str, server: LoopbackServer, capsys: pytest.CaptureFixture[str], *settings: str) -> set[int]:
    """Build OUT with the commands that `vlmdata new` prints, and return the numbers of the rows that were kept.

    The commands get `--set` for each setting, and for the server, which is on this machine.
    """
    settings = ("download.allowed_hosts=[127.0.0.1]", "download.retries=0", *settings)
    sets = [word for setting in settings for word in ("--set", setting)]
    assert main(["new", recipe]) == 0
    _, check, run = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert (check[:3], run[:3]) == (["vlmdata", "check", f"{recipe}.yaml"], ["vlmdata", "run", f"{recipe}.yaml"])
    assert main([*check[1:], *sets]) == 0, capsys.readouterr().err
    assert main([*check[1:], *sets, "--deep"]) == 0, capsys.readouterr().err
    assert f"sample: {len(ROWS)} rows" in capsys.readouterr().out
    assert main([*run[1:], *sets, "--local", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["show", "OUT"]) == 0
    assert capsys.readouterr().out.startswith("OUT: ")
    kept = [json.loads(sample["json"]) for sample in stream("OUT", seed=0)]
    numbers = {int(one["uid"], 16) if "uid" in one else one["SAMPLE_ID"] for one in kept}
    assert len(numbers) == len(kept)
    return numbers


def test_datacomp_basic_keeps_english_captions_of_large_images(web, capsys):
    settings = ["image_size.min_side=150", "source.boxes=face_bboxes"]  # the photos here are small
    low = {1, 5, 9}  # 149 pixels
    assert built("datacomp_basic", web, capsys, *settings) == ENGLISH - low - {SHORT, TINY}
    assert all(json.loads(sample["json"])["boxes"] for sample in stream("OUT", seed=0))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ([], set(range(6))),  # 18 rows: the sixth score is the threshold of 30%
        (["l14.of=clip_b32_similarity_score", "l14.min_value=0.25", "top_fraction.fraction=1"], set(range(8))),
    ],
    ids=["best 30%", "a threshold for B/32"],
)
def test_datacomp_clip_score_keeps_rows_by_the_scores_of_the_pool(settings, kept, web, capsys):
    assert built("datacomp_clip_score", web, capsys, *settings) == kept


def test_datacomp_laion2b_keeps_english_rows_with_a_score_of_028(web, capsys):
    assert built("datacomp_laion2b", web, capsys) == set(range(7))


@pytest.mark.parametrize("form", ["synsets", "words"])
def test_datacomp_text_based_keeps_texts_with_a_listed_word(form, web, capsys):
    words, kept = "text_concepts.words=words.txt", {GIF}
    if form == "synsets":
        Path("WordNet-3.0").mkdir()
        small_wordnet(Path("WordNet-3.0/dict"))
        Path("imagenet21k_wordnet_ids.txt").write_text("n10287213\n")  # man
        settings = []
    else:
        Path("words.txt").write_text("bear\nsheep\n")
        settings = [words, "text_concepts.synsets=''", "text_concepts.wordnet=''"]  # as the recipe's comment says
        kept = {0, 1}
    assert built("datacomp_text_based", web, capsys, *settings) == kept


@pytest.mark.parametrize(
    ("recipe", "kept"), [("datacomp_image_based", {0, 1, 2, 3, AGAIN, GIF}), ("datacomp_best", {0, 1, 2, 3})]
)
def test_an_image_based_recipe_keeps_images_near_the_references(recipe, kept, web, capsys):
    centroids = Clip(MODEL, "", "fp32").embed_images([photo.read_bytes() for photo in PHOTOS])
    np.save("centroids.npy", centroids)
    np.save("in1k.npy", centroids[:4].astype(np.float16))
    assert built(recipe, web, capsys, f"clip_score.model={MODEL}", "clip_score.precision=fp32") == kept


@pytest.mark.parametrize("settings", [["clip_score=off"], [f"clip_score.model={MODEL}", "clip_score.min_score=-1"]])
def test_laion_keeps_rows_by_the_rules_of_the_published_list(settings, web, capsys):
    assert built("laion", web, capsys, *settings) == set(range(12))


def test_laion5b_keeps_rows_of_other_languages_too(web, capsys):
    models = [f"{label}.{name}" for label in ("b32", "mclip") for name in (f"model={MODEL}", "precision=fp32")]
    settings = [*models, "min_scores.scores={mclip: -1}", "min_scores.by_language={en: {b32: -1}}"]
    assert built("laion5b", web, capsys, *settings) == set(range(13))
