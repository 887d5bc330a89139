"""Tiny models with a matching head score pairs as plain calls of transformers do."""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipModel,
    BlipProcessor,
)

from tests.generation.judged import pair, rows_of, talk
from tests.generators.scenes import draw_scenes
from tests.parts import open_part
from tests.train.bert import bert_tokenizer
from tests.train.tiny import randomise
from vlmdata.errors import RecipeError
from vlmdata.row import alive
from vlmdata.steps.itm_score import ItmScore
from vlmdata.steps.min_scores import MinScores

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**SIZES, "image_size": 16, "patch_size": 4}
LONG = "cat " * 200
SCENES = draw_scenes(4)


def blip(tokenizer):
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "encoder_hidden_size": 24, **ids}
    return BlipConfig(vision_config=VISION, text_config=text, image_text_hidden_size=16)


def write_blip(folder, cls=BlipForImageTextRetrieval):
    tokenizer = bert_tokenizer()
    model = cls(blip(tokenizer)).eval()
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return model


def write_blip2(folder):
    tokenizer = bert_tokenizer()
    processor = Blip2Processor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer, num_query_tokens=5)
    reader = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "encoder_hidden_size": 24}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**reader, "use_qformer_text_input": True},
        num_query_tokens=5,
        image_text_hidden_size=16,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor.save_pretrained(folder)
    return Blip2ForImageTextRetrieval(config).eval()


@pytest.fixture(scope="module", params=["blip", "blip2"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    net = (write_blip if request.param == "blip" else write_blip2)(folder)
    randomise(net, seed=1, scale=0.4)
    net.save_pretrained(folder)
    return str(folder)


def by_transformers(folder, scene, text):
    """Return the probability that transformers gives to one pair alone."""
    processor = AutoProcessor.from_pretrained(folder)
    picture = Image.open(io.BytesIO(scene.image)).convert("RGB")
    inputs = processor(images=picture, text=text, return_tensors="pt")
    with torch.inference_mode():
        if "blip2" in folder:
            net = Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
            logits = net(**inputs, use_image_text_matching_head=True).logits_per_image
        else:
            logits = BlipForImageTextRetrieval.from_pretrained(folder).eval()(**inputs).itm_score
    return logits.softmax(-1)[0, 1].item()


def measured(folder, rows, scenes, step):
    part = open_part(folder)
    bodies = {scene.key: scene.image for scene in scenes}
    places = {key: {"blob": part.blob.name, "offset": part.blob.add(body), "size": len(body)} for key, body in bodies.items()}
    for row in rows:
        for image in row["images"]:
            if image:
                image |= places.get(image["blob"], {})
    return step.run(rows_of(*rows), part)


def test_scores_are_those_of_transformers_for_the_text_and_its_alternatives(tmp_path, model):
    texts = [("what is red", "how many are there ? it is", "it"), ("are there many",), ("", "is it reddish")]
    rows = [pair(scene, *some) for scene, some in zip(SCENES, texts, strict=False)]
    done = measured(tmp_path, rows, SCENES, ItmScore(model=model, batch=4))
    expected = [
        [by_transformers(model, scene, text) for text in some if text] for scene, some in zip(SCENES, texts, strict=False)
    ]
    found = done["itm_score"].to_pylist()
    others = [(row or [None, []])[1] or [] for row in done["itm_score.alternatives"].to_pylist()]
    assert [[found[0][0], *others[0]], [found[1][0]], others[2]] == [pytest.approx(one, abs=1e-4) for one in expected]
    assert found[2][0] == max(others[2]) and [row[1] for row in found] == [None] * 3
    assert len({round(one, 4) for some in expected for one in some}) == 5, "the model does not distinguish the pairs"


def test_low_pairs_are_rejected_and_low_alternatives_removed_without_a_second_measurement(tmp_path, model):
    rows = [pair(scene, "what is it", "red", "how many are there", origins=["a", "b"]) for scene in SCENES]
    step = ItmScore(model=model)
    done = measured(tmp_path, rows, SCENES, step)
    scores = [row[0] for row in done["itm_score"].to_pylist()]
    limit = sorted(scores)[2]
    assert alive(replace(step, min_score=limit).decide(done)).tolist() == [score >= limit for score in scores]
    assert alive(MinScores(scores={"itm_score": limit}).run(done)).tolist() == [score >= limit for score in scores]
    others = [row[1] for row in done["itm_score.alternatives"].to_pylist()]
    limit = max(others[0])
    left = replace(step, min_alternative=limit).decide(done)
    names = [[name for name, score in zip("ab", some, strict=True) if score >= limit] for some in others]
    assert [(row[1]["origins"] or []) for row in left["texts"].to_pylist()] == names
    assert left["itm_score.alternatives"].to_pylist()[0] == [None, [limit]]


def test_what_cannot_be_scored_stays(tmp_path, model):
    broken = pair(SCENES[1], "a cat")
    part = open_part(tmp_path)
    place = {"blob": part.blob.name, "offset": part.blob.add(b"no image"), "size": 8}
    broken["images"][0] = place
    rows = [pair(SCENES[0], None), pair(SCENES[0], " "), talk(None, "q", "a"), broken]
    done = ItmScore(model=model, min_score=1, min_alternative=1).run(rows_of(*rows), part)
    assert alive(done).all() and not any(value for row in done["itm_score"].to_pylist() for value in row or ())


def test_a_long_text_is_cut_and_an_origin_chooses_the_texts(tmp_path, model):
    rows = [pair(SCENES[0], LONG, "a cat", "a dog", origins=["a", "b"])]
    step = ItmScore(model=model, origins=["raw", "b"])
    done = measured(tmp_path, rows, SCENES, step)
    assert 0 <= done["itm_score"].to_pylist()[0][0] <= 1
    assert [value is None for value in done["itm_score.alternatives"].to_pylist()[0][1]] == [True, False]


def test_weights_without_a_matching_head_are_refused(tmp_path):
    write_blip(tmp_path, BlipModel).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"lacks the weights .* which would be random"):
        measured(tmp_path / "out", [pair(SCENES[0], "a cat")], SCENES, ItmScore(model=str(tmp_path)))


def test_other_weights_change_the_identity(tmp_path):
    write_blip(tmp_path).save_pretrained(tmp_path)
    before = ItmScore(model=str(tmp_path)).identity()
    write_blip(tmp_path).save_pretrained(tmp_path)
    assert ItmScore(model=str(tmp_path)).identity() != before
    assert ItmScore(model="somebody/something").identity() == "somebody/something"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_score": 2}, r"itm_score.min_score must lie in \[0, 1\], not 2"),
        ({"min_alternative": -1}, r"itm_score.min_alternative must lie in \[0, 1\], not -1"),
        ({"batch": 0}, "itm_score.batch must be at least 1, not 0"),
        ({"origins": [""]}, "itm_score.origins has an empty name"),
        ({"model": "/nowhere"}, "itm_score.model: there is no folder '/nowhere"),
        ({"model": "some/where/else"}, "itm_score.model: there is no folder 'some/where/else"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        ItmScore(**{"model": "a/b", **parameters}).check()


def test_a_folder_of_another_model_is_refused_before_any_work(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(RecipeError, match=r"^itm_score.model: .* is a model of type clip, not blip or blip-2"):
        ItmScore(model=str(tmp_path)).check()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"^itm_score.model: .* is not a model folder of transformers"):
        ItmScore(model=str(tmp_path)).check()
