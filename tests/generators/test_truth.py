"""The answerer knows each picture, tells the truth about it, and errs exactly where it says."""

import io
import math
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.generators.ask import ask, body_of, say
from tests.generators.facts import Fact, caption, facts_in, facts_of, falsified, judged
from tests.generators.openai_server import OpenAIServer
from tests.generators.scenes import FAR, PAINT, Album, Scene, Thing, draw_scenes, nlvr_scenes
from tests.generators.truth import NO_PICTURE, Truth, claims_of, precision_recall

PAIR = Scene(
    (Thing("red", "circle", 10, 10, 18), Thing("red", "circle", 80, 10, 18), Thing("blue", "square", 48, 80, 18)), 96, b""
)


@pytest.fixture(scope="module")
def album():
    return Album(draw_scenes(200))


@pytest.fixture(scope="module")
def nlvr():
    return Album(nlvr_scenes(200))


def encoded(image, kind, scale=1.0, **options):
    file = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def versions(image):
    """Return a picture as a client may send it."""
    small, large = encoded(image, "JPEG", 0.5, quality=85), encoded(image, "JPEG", 3.5, quality=90)
    return [encoded(image, "JPEG", quality=50), encoded(image, "WEBP", quality=50), encoded(image, "PNG", 2.33), small, large]


def test_the_same_seed_draws_the_same_scenes_and_another_seed_others():
    first, again, other = draw_scenes(20), draw_scenes(20), draw_scenes(20, seed=1)
    assert first == again
    assert {scene.key for scene in first}.isdisjoint(scene.key for scene in other)


def colours_at_centres(scenes):
    """Return the pairs of a thing's colour and the colour whose paint is nearest to the pixel at its centre."""
    for scene in scenes:
        with Image.open(io.BytesIO(scene.image)) as picture:
            for thing in scene.things:
                pixel = np.array(picture.getpixel((int(thing.x), int(thing.y))))
                yield thing.colour, min(PAINT, key=lambda name: np.abs(pixel - PAINT[name]).sum())


def test_each_thing_has_its_colour_at_its_place(album):
    assert all(said == painted for said, painted in colours_at_centres(album.scenes))


def test_each_thing_of_nlvr_has_its_colour_at_its_place(nlvr):
    assert all(said == painted for said, painted in colours_at_centres(nlvr.scenes))


def check_that_versions_are_found(album):
    assert album.margin >= FAR
    for scene in album.scenes[::10]:
        assert album.find([scene.image]) is scene
        for image in versions(scene.image):
            found, distance = album.nearest(image)
            assert (found, distance < album.margin / 2) == (scene, True)
            assert album.find([image]) is scene


def test_a_picture_that_was_encoded_or_resized_again_is_found(album):
    check_that_versions_are_found(album)


def test_a_picture_of_nlvr_that_was_encoded_or_resized_again_is_found(nlvr):
    check_that_versions_are_found(nlvr)


def test_the_last_picture_counts_and_an_unknown_one_is_not_found(album):
    one, two = album.scenes[:2]
    assert album.find([one.image, two.image], one.key) is two
    assert album.find([encoded(two.image, "PNG", 0.02)]) is None


def test_without_a_picture_the_last_key_in_the_text_counts(album):
    one, two = album.scenes[:2]
    assert album.find([], f"Unlike {one.key}, what is in {two.key}?") is two
    assert album.find([], "picture-000000000000") is None and album.find([], "") is None


def test_scenes_that_look_alike_are_refused(album):
    scene = album.scenes[0]
    twin = Scene((*scene.things, Thing("red", "circle", 1, 1, 1)), scene.side, encoded(scene.image, "JPEG"))
    with pytest.raises(AssertionError, match="look alike"):
        Album([scene, twin])


def test_a_caption_says_counts_and_places():
    assert caption(PAIR) == (
        "There are 3 objects. There is 1 blue square. There are 2 red circles. "
        "A red circle is at the top left. A red circle is at the top right. A blue square is at the bottom centre."
    )


def test_a_caption_is_read_back_as_its_facts_and_all_are_true(album):
    for scene in album.scenes:
        assert judged(caption(scene), scene) == [(fact, True) for fact in facts_of(scene)]


def test_a_changed_fact_is_false_and_is_read_back(album):
    rng, words = random.Random(0), set()
    for scene in album.scenes:
        for fact in facts_of(scene):
            wrong, word = falsified(fact, scene, rng)
            words.add(word)
            assert judged(wrong.text(), scene) == [(wrong, False)]
            assert facts_in(wrong.question()) == [wrong]
    assert words == {"count", "colour", "place"}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("There are two red circles", [Fact(2, "red", "circle")]),
        ("there is a Circle.", [Fact(None, None, "circle")]),
        ("Is there an object in the middle centre?", [Fact(None, None, None, "middle centre")]),
        ("Are there no blue squares at the top left?", [Fact(0, "blue", "square", "top left")]),
        ("Is the red circle at the top left?", [Fact(None, "red", "circle", "top left")]),
        ("I see a red circle at the top left; there are 12 objects!", [Fact(None, "red", "circle", "top left"), Fact(12)]),
        ("A nice picture of a dog.", []),
        ("", []),
    ],
)  # fmt: skip
def test_claims_are_found_in_a_text(text, facts):
    assert facts_in(text) == facts


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many objects are there?", "3"),
        ("How many red circles are there at the top left? Answer with a number.", "1"),
        ("How many yellow triangles are there?", "0"),
        ("Are there 2 red circles?", "yes"),
        ("Are there 3 red circles?", "no"),
        ("Is there a blue square at the bottom centre?", "yes"),
        ("Is it true that there are no triangles?", "yes"),
        ("Answer yes or no. There are 2 red circles. A red circle is at the bottom left.", "no"),
        ("Describe the picture.", caption(PAIR)),
        ("What is in the picture?", caption(PAIR)),
    ],
)
def test_a_question_is_answered_with_the_truth(question, answer):
    truth = Truth(draw_scenes(1))
    said = truth.say(PAIR, question)
    assert (said.text, said.planted) == (answer, None)
    wrong = Truth(truth.album, error_rate=1.0).say(PAIR, question)
    assert wrong.text != answer and wrong.planted


def asked_of(truth, question="Describe it."):
    return [truth.say(scene, question) for scene in truth.album.scenes]


def test_the_planted_rate_is_met_and_each_planted_caption_has_one_false_claim(album):
    truth = Truth(album, error_rate=0.3)
    for number in range(5):
        asked_of(truth, f"Describe it in way {number}.")
    assert abs(len(truth.wrong()) / 1000 - 0.3) < 0.04
    for said in truth.said():
        false = [fact for fact, is_true in judged(said.text, album.by_key[said.key]) if not is_true]
        assert len(false) == (said.planted is not None)
    assert {one.planted for one in truth.wrong()} == {"count", "colour", "place"}


@pytest.mark.parametrize(("rate", "wrong"), [(0.0, 0), (1.0, 200)])
def test_a_rate_of_0_or_1_plants_none_or_all(album, rate, wrong):
    truth = Truth(album, error_rate=rate)
    asked_of(truth)
    assert len(truth.wrong()) == wrong


def test_errors_depend_on_the_picture_the_question_and_the_seed_only(album):
    one, again, other = Truth(album, error_rate=0.3), Truth(album, error_rate=0.3), Truth(album, error_rate=0.3, seed=1)
    assert asked_of(one) == asked_of(again) != asked_of(other)
    assert asked_of(one) == asked_of(again) and len(one.said()) == 200
    planted = [[said.planted is not None for said in asked_of(one, text)] for text in ("Describe it.", "Describe this.")]
    assert planted[0] != planted[1]


def test_a_function_may_choose_where_to_err(album):
    truth = Truth(album, is_wrong=lambda scene, question: len(scene.things) == 1)
    asked_of(truth)
    assert {one.key for one in truth.wrong()} == {scene.key for scene in album.scenes if len(scene.things) == 1} != set()


def test_claims_for_a_filter_are_half_true_and_are_judged_without_error(album):
    truth, claims = Truth(album), claims_of(album.scenes)
    verdicts = [truth.say(scene, f"Is it true? {text}").text for scene, text, _ in claims]
    assert verdicts == [{True: "yes", False: "no"}[is_true] for _, _, is_true in claims] == ["yes", "no"] * 200


def test_precision_and_recall_are_shares_of_what_was_found_and_of_what_is_wrong():
    assert precision_recall({1, 2, 3, 4}, {1, 2, 5}) == (0.5, 2 / 3)
    assert precision_recall([], [1]) == (1.0, 0.0) and precision_recall([1], []) == (0.0, 1.0)


def test_over_the_server_pictures_and_keys_are_answered_and_recorded(album):
    truth = Truth(album, error_rate=0.3)
    with ThreadPoolExecutor(4) as pool, OpenAIServer(truth.answer) as server:
        asked = [pool.submit(say, server.url, "Describe it.", encoded(scene.image, "JPEG")) for scene in album.scenes]
        said = [one.result() for one in asked]
        counted = say(server.url, f"How many objects are there in {album.scenes[0].key}?")
        nothing = say(server.url, "Describe it.")
    assert said == [one.text for one in asked_of(Truth(album, error_rate=0.3))]
    assert {one.text for one in truth.said()} == {*said, counted}
    assert nothing == NO_PICTURE and [one.text for one in truth.unknown] == ["Describe it."]


def test_answers_to_several_seeds_differ_only_if_the_test_asks_for_it(album):
    def answers(varies):
        truth = Truth(album, error_rate=0.5, varies=varies)
        with OpenAIServer(truth.answer) as server:
            return {say(server.url, "Describe it.", album.scenes[0].image, seed=seed) for seed in range(20)}

    assert len(answers(False)) == 1 < len(answers(True))


def test_yes_and_no_have_probabilities(album):
    scene = album.scenes[0]
    with OpenAIServer(Truth(album).answer) as server:
        body = body_of(facts_of(scene)[0].question(), scene.image, logprobs=True, top_logprobs=2)
        (first,) = ask(server.url, body)[1]["choices"][0]["logprobs"]["content"]
    assert {one["token"]: round(math.exp(one["logprob"]), 6) for one in first["top_logprobs"]} == {"yes": 0.9, "no": 0.1}


def test_the_truth_about_nlvr_has_no_false_claim(nlvr):
    truth = Truth(nlvr)
    assert all(is_true for said in asked_of(truth) for _, is_true in judged(said.text, nlvr.by_key[said.key]))
