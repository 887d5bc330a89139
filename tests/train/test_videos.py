"""Frames with times are read as videos: chosen by rate or number, encoded, and written with exact numbers of tokens."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.inputs.tars import jpeg
from tests.train.shards import drawing
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Video
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.read_document import read_document
from vlmdata_train.data.reading import Reading
from vlmdata_train.model.parts import make_part

COLOURS = ("red", "green", "blue", "red", "green", "blue")
FRAMES = [jpeg(drawing(colour, "circle", 32)) for colour in COLOURS]


def sample(times, *, roles=None):
    """Return a sample of a shard with a text, frames at these times, and an answer."""
    count = len(times)
    metadata = [None, *({"file": f"v.{n}.jpg", "time_s": time} for n, time in enumerate(times)), None]
    facts = {"texts": ["What happens?", *[None] * count, "It turns."], "metadata": metadata}
    facts |= {"roles": ["user"] * (count + 1) + ["assistant"]} if roles else {}
    return {"__key__": "v", "json": json.dumps(facts).encode(), **{f"{n}.jpg": FRAMES[n] for n in range(count)}}


def batch_of(model, samples, packed=None):
    """Return the batch of samples, as the loader builds it."""
    reading = Reading(prompter_of(model), model.plan, "instruct", 4096)
    ready = [Ready(reading.prompt(one), "source", "key") for one in samples]
    return build_batch(ready, model.plan, 0, packed_tokens=packed, broken=Counter())


def test_neighbouring_frames_with_increasing_times_are_a_video():
    document = read_document(sample([0.0, 0.5, 1.0]))
    assert document.positions == ["What happens?", Video(tuple(FRAMES[:3]), (0.0, 0.5, 1.0)), "It turns."]


@pytest.mark.parametrize("times", [[None, None], [0.0, None], [1.0, 0.5], [0.0, 0.0]])
def test_images_without_increasing_times_stay_images(times):
    assert read_document(sample(times)).positions == ["What happens?", *FRAMES[:2], "It turns."]


@pytest.mark.parametrize(
    ("entry", "chosen"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"fps": 1}, [0, 4, 8]),
        ({"fps": 2}, [0, 2, 4, 6, 8]),
        ({"fps": 30}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"count": 3}, [0, 4, 8]),
        ({"count": 20}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"fps": 2, "max_frames": 2}, [0, 8]),
    ],
)
def test_frames_are_chosen_by_rate_or_by_number(entry, chosen):
    assert make_part("video", {"frames": entry}).choose([0.25 * n for n in range(9)]) == chosen


def test_a_rate_and_a_number_together_raise_an_error():
    with pytest.raises(ValueError, match="set either fps or count, not both"):
        make_part("video", {"frames": {"fps": 1, "count": 8}})


def test_without_a_video_part_each_frame_is_an_image():
    model = tiny_model()
    with_times, without = (batch_of(model, [sample(times, roles=True)]) for times in ([0.0, 1.0, 2.0], [None] * 3))
    assert torch.equal(with_times.input_ids, without.input_ids)
    assert with_times.tile_counts.tolist() == [1, 1, 1] and not with_times.is_video.any()


def test_frames_are_encoded_like_images_and_written_as_one_video():
    model = tiny_model(replace(TINY, video={"frames": {"fps": 1}}))
    batch = batch_of(model, [sample([0.0, 0.5, 1.0, 1.5, 2.0], roles=True)])
    assert batch.is_video.tolist() == [True] and batch.tile_counts.tolist() == [3]
    assert batch.times.tolist() == [0.0, 1.0, 2.0]
    assert batch.grids.tolist() == [[3, 4, 4]] and batch.intervals.tolist() == [1.0]
    features, counts = model.encode_images(batch)
    single = [model.encode_images(batch_of(model, [{**sample([None], roles=True), "0.jpg": FRAMES[n]}]))[0] for n in (0, 2, 4)]
    assert counts == [48]
    torch.testing.assert_close(features, torch.cat(single))


def test_measured_length_equals_the_length_of_the_prompt():
    model = tiny_model(replace(TINY, video={"frames": {"fps": 1}}))
    reading = Reading(prompter_of(model), model.plan, "instruct", 4096)
    one = sample([0.0, 0.5, 1.0, 1.5, 2.0], roles=True)
    sizes = {"__images__": [(32, 32)] * 5, "__image_names__": [f"{n}.jpg" for n in range(5)]}
    assert reading({"__key__": "v", "json": one["json"], **sizes}) == len(reading.prompt(one).input_ids)


def test_videos_in_packed_samples_do_not_change_each_other():
    model = tiny_model(replace(TINY, video="frames"))
    samples = [sample([0.0, 1.0, 2.0], roles=True), sample([0.0, 1.0], roles=True)]
    alone = [batch_of(model, [one]) for one in samples]
    packed = model.logits(batch_of(model, samples, packed=sum(one.input_ids.shape[1] for one in alone)))[0]
    with torch.no_grad():
        separate = torch.cat([model.logits(one)[0] for one in alone])
    assert (packed - separate).abs().max() < 1e-5


def test_a_video_has_its_own_token_if_the_writing_names_one():
    model = tiny_model(replace(TINY, video="frames", writing={"plain": {"video_token": "<video>"}}))
    batch = batch_of(model, [sample([0.0, 1.0], roles=True)])
    video = model.tokenizer.convert_tokens_to_ids("<video>")
    assert int((batch.input_ids == video).sum()) == 32 and not (batch.input_ids == model.image_token_id).any()
    plain = tiny_model(replace(TINY, video="frames"))
    as_images = replace(batch, input_ids=batch.input_ids.masked_fill(batch.input_ids == video, model.image_token_id))
    with torch.no_grad():
        assert torch.equal(model(batch), model(as_images))
    assert plain.video_token_id is None


def test_a_frame_that_fails_makes_the_video_grey_and_takes_the_loss_from_its_sample():
    model = tiny_model(replace(TINY, video="frames"))
    broken = {**sample([0.0, 1.0], roles=True), "1.jpg": FRAMES[1][:-200]}
    reading = Reading(prompter_of(model), model.plan, "instruct", 4096)
    reasons = Counter()
    ready = [Ready(reading.prompt(broken), "source", "key")]
    batch = build_batch(ready, model.plan, 0, packed_tokens=None, broken=reasons)
    assert sum(reasons.values()) == 1 and (batch.labels == -100).all() and (batch.pixels == 128).all()


def test_frames_of_other_sizes_get_the_size_of_the_first():
    model = tiny_model(replace(TINY, video={"frames": {"preprocessing": None}}))
    tiles = model.plan.video.prepare([np.zeros((40, 60, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)], model.plan)
    assert tiles.shape == (2, 3, 32, 32)
