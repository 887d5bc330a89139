"""The feed yields every sample once, in batches at which it can resume, on any number of ranks."""

import functools
import json
from collections import Counter

import numpy as np
import pytest
import torch

from bench.inputs.tars import document_sample, jpeg, write_tar
from tests.train.runs import made_model, tiny_recipe, write_data
from tests.train.shards import caption_samples, conversation_samples, drawing
from vlmdata.step import RecipeError
from vlmdata_train.data import open_feed
from vlmdata_train.data.left_out import count_left_out
from vlmdata_train.data.reading import Reading, is_held_out
from vlmdata_train.data.sample_positions import FeedPosition, SamplePosition, redistribute
from vlmdata_train.distributed import Ranks

pytestmark = pytest.mark.whole

CPU = torch.device("cpu")


@functools.cache
def model():
    recipe = tiny_recipe("unused", "unused")
    return made_model(recipe, recipe.model, Ranks(0, 1, CPU))


def feed(data, rank=0, world=1, *, epochs=1, split=None, **changes):
    recipe = tiny_recipe(data, "unused", **changes)
    return open_feed.feed_of(recipe, model(), data, Ranks(rank, world, CPU), seed=3, epochs=epochs, **(split or {}))


def keys(batches):
    return [key for batch, _ in batches for key in batch.keys]


def test_one_epoch_yields_every_sample_once(tmp_path):
    data = write_data(tmp_path, captions=50, conversations=20)
    given = keys(feed(data))
    assert len(given) == 70 == len(set(given))
    assert {key.split()[0].rpartition("/")[2] for key in given} == {"00000.tar", "00001.tar"}


def test_several_images_with_one_caption_are_read_as_a_caption(tmp_path):
    photo = jpeg(drawing("red", "square", 32))
    sample = {"__key__": "a", "0.jpg": photo, "1.jpg": photo, "txt": b"two squares"}
    write_tar(tmp_path / "0.tar", [sample])
    ((batch, _),) = list(feed(str(tmp_path), stage="align"))
    tokenizer = model().tokenizer
    assert tokenizer.decode(batch.input_ids[0][batch.segment_ids[0] > 0]).endswith("<image>two squares<|end|>")


def test_resuming_after_any_batch_yields_exactly_the_rest(tmp_path):
    data = write_data(tmp_path, captions=40, conversations=10)
    whole = list(feed(data, epochs=2))
    assert len(whole) > 8
    for stop in range(0, len(whole), 3):
        again = feed(data, epochs=2)
        again.position = FeedPosition.from_json(whole[stop][1].to_json())
        rest = list(again)
        assert len(rest) == len(whole) - stop - 1
        for (got, at), (want, wanted_at) in zip(rest, whole[stop + 1 :], strict=True):
            assert at == wanted_at and got.keys == want.keys
            assert torch.equal(got.input_ids, want.input_ids) and torch.equal(got.pixels, want.pixels)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (3, 2)])
def test_another_number_of_ranks_yields_the_rest_of_the_epoch_once(tmp_path, before, after):
    """The run is stopped twice where ranks are at different positions, and continued with another number of ranks each time."""
    data = write_data(tmp_path, captions=90, conversations=33)
    given: list[str] = []
    positions = [feed(data, rank, before).position for rank in range(before)]
    for world, batches in ((before, 3), (after, 2), (before, 10**6)):
        positions = redistribute(positions, world, units=1)
        for rank in range(world):
            mine = feed(data, rank, world)
            mine.position = positions[rank]
            for number, (batch, at) in enumerate(mine):
                given += batch.keys
                positions[rank] = at
                if number + 1 == batches + rank:  # ranks stop at different positions
                    break
    assert Counter(given) == Counter(keys(feed(data)))


def test_redistribution_stores_only_the_samples_that_a_slower_rank_missed():
    stand = [FeedPosition(SamplePosition(24, 0, 2, (0, 0, 0))), FeedPosition(SamplePosition(24, 1, 2, (0, 0, 0)))]
    assert redistribute(stand, 1, units=4) == [FeedPosition(SamplePosition(24, 0, 1, (0, 0, 0)))]
    stand = [FeedPosition(SamplePosition(48, 0, 2)), FeedPosition(SamplePosition(32, 1, 2))]
    assert redistribute(stand, 1, units=4) == [
        FeedPosition(SamplePosition(48, 0, 1), (SamplePosition(32, 1, 2), SamplePosition(40, 1, 2)))
    ]
    assert redistribute(stand, 2, units=4) == stand


def test_a_packed_row_numbers_its_samples_and_restarts_their_positions(tmp_path):
    batch, _ = next(iter(feed(write_data(tmp_path, captions=8, conversations=8))))
    segments, positions = batch.segment_ids[0], batch.position_ids[0]
    assert batch.input_ids.shape == (1, 192)
    assert segments.unique().tolist()[-1] == len(batch.keys) == len(batch.sources)
    for number in range(1, len(batch.keys) + 1):
        own = positions[segments == number]
        assert own.tolist() == list(range(len(own)))
        assert batch.labels[0][segments == number][0] == -100
    assert not batch.input_ids.eq(model().fusion.image_token_id)[0][segments == 0].any()
    assert int(batch.image_token_counts.sum()) == int(batch.input_ids.eq(model().fusion.image_token_id).sum())
    assert batch.pixels.shape == (int(batch.tile_counts.sum()), 3, 32, 32)


def test_rows_are_as_full_as_the_packs_of_the_loader(tmp_path):
    """Lengths are measured exactly, so packs are full and padding is only what these lengths make unavoidable."""
    data = write_data(tmp_path, captions=300, conversations=100)
    made = feed(data, batches={"tokens": 512, "sample_tokens": 96})
    batches = [batch for batch, _ in made]
    tokens = sum(int((batch.segment_ids > 0).sum()) for batch in batches)
    assert len(batches) == -(-tokens // 512)  # no plan has fewer rows


def test_a_sample_longer_than_measured_is_truncated_but_not_inside_an_image(tmp_path, monkeypatch):
    data = write_data(tmp_path, captions=12, conversations=12)
    monkeypatch.setattr(Reading, "__call__", lambda self, sample: 40)  # the true length is 40 to 80
    for batch, _ in feed(data):
        images = batch.input_ids[0] == model().fusion.image_token_id
        assert int(images.sum()) == int(batch.image_token_counts.sum()) == 4 * len(batch.tile_counts)


@pytest.mark.parametrize("batches", [{"tokens": 192, "sample_tokens": 96}, {"pack": False, "samples": 3}])
def test_the_held_out_share_is_seen_by_one_feed_and_the_rest_by_the_other(tmp_path, batches):
    data = write_data(tmp_path, captions=200)
    seen = keys(feed(data, split={"held_out": 0.2}, batches=batches))
    held = feed(data, split={"held_out": 0.2, "wants_held_out": True}, batches=batches)
    kept = keys(held)
    assert len(seen) + len(kept) == 200 and not set(seen) & set(kept)
    assert 20 <= len(kept) <= 60 and all(is_held_out(key.split()[1], 0.2) for key in kept)
    some = [sample["__key__"] for sample in open_feed.some_samples(held.reading, data, 5)]
    assert len(some) == 5 and set(some) <= {key.split()[1] for key in kept}


def test_broken_samples_are_counted_and_the_others_are_yielded(tmp_path):
    good = caption_samples(4)
    photo = jpeg(drawing("red", "square", 64))
    large = jpeg(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    cut = {"__key__": "cut", "jpg": large[: len(large) // 2], "txt": b"half a picture"}
    nonsense = {"__key__": "nonsense", "jpg": b"<html>", "txt": b"a page"}
    no_json = {"__key__": "nojson", "0.jpg": photo, "json": b"{texts"}
    silent = document_sample("silent", [photo, "Only a question?"], ["user", "user"])
    write_tar(tmp_path / "0.tar", [*good, cut, nonsense, no_json, silent])
    made = feed(str(tmp_path), batches={"pack": False, "samples": 8})
    batches = list(made)
    assert sorted(k.split()[1] for k in keys(batches)) == ["000000", "000001", "000002", "000003", "cut"]
    assert made.skipped == {"truncated": 1}  # its size is readable, so it breaks only when it is decoded
    assert count_left_out(made.plan).reasons == {"not_an_image": 1, "unreadable": 1, "no_answer": 1}
    for batch, _ in batches:  # an image that breaks while decoding becomes grey and gets no loss
        for row, key in enumerate(batch.keys):
            assert bool((batch.labels[row] != -100).any()) == ("cut" not in key)
    packed = feed(str(tmp_path))
    assert count_left_out(packed.plan) == count_left_out(made.plan)
    assert sorted(k.split()[1] for k in keys(packed)) == ["000000", "000001", "000002", "000003", "cut"]


def test_data_without_a_usable_sample_raise_an_error(tmp_path):
    write_tar(tmp_path / "0.tar", [{"__key__": f"{n}", "jpg": b"<html>", "txt": b"a page"} for n in range(20)])
    for batches in ({}, {"pack": False, "samples": 8}):
        with pytest.raises(RecipeError, match=r"none of the 20 samples of .* can be used \(not_an_image 20\)"):
            feed(str(tmp_path), epochs=None, batches=batches)


def test_data_whose_samples_all_break_on_decoding_raise_an_error(tmp_path, monkeypatch):
    write_tar(tmp_path / "0.tar", [{"__key__": f"{n}", "jpg": b"<html>", "txt": b"a page"} for n in range(20)])
    monkeypatch.setattr(Reading, "__call__", lambda self, sample: 40)  # as if an index knew the image sizes
    endless = feed(str(tmp_path), epochs=None, batches={"pack": False, "samples": 8})
    with pytest.raises(
        RecipeError, match=r"none of the last [\d,]+ samples can be used. Skipped, by reason: \{'not_an_image': "
    ):
        next(iter(endless))


def test_text_only_and_multi_image_samples_share_a_batch(tmp_path):
    photo = jpeg(drawing("blue", "circle"))
    write_tar(tmp_path / "0.tar", [
        document_sample("two", [photo, "Which is blue?", photo, "Both."], ["user", "user", "user", "assistant"]),
        document_sample("none", ["Say hi.", "hi"], ["user", "assistant"]),
    ])  # fmt: skip
    batch, _ = next(iter(feed(str(tmp_path))))
    images = batch.input_ids[0] == model().fusion.image_token_id
    in_sample = {k.split()[1]: int(images[batch.segment_ids[0] == n].sum()) for n, k in enumerate(batch.keys, 1)}
    assert in_sample == {"two": 8, "none": 0} and batch.image_token_counts.tolist() == [4, 4]


PADDED = {"pack": False, "samples": 3, "sample_tokens": 96}
PACKED_OR_NOT = pytest.mark.parametrize("batches", [{"tokens": 192}, {"pack": False, "samples": 3}], ids=["packed", "padded"])


@PACKED_OR_NOT
def test_tars_of_others_are_read_whatever_other_members_they_hold(tmp_path, batches):
    photo = jpeg(drawing("blue", "circle"))
    write_tar(tmp_path / "0.tar", [
        {"__key__": "text", "txt": b"no picture at all"},
        {"__key__": "two", "0.jpg": photo, "1.jpg": photo, "txt": b"two blue circles"},
        {"__key__": "mask", "jpg": photo, "mask.png": photo, "txt": b"a circle and its mask"},
        {"__key__": "bmp", "bmp": photo, "caption": b"another ending"},
        {"__key__": "columns", "jpg": photo, "txt": b"other columns", "json": b'{"texts": "t", "metadata": {"a": 1}}'},
        {"__key__": "list", "jpg": photo, "txt": b"no object", "json": b"[1, 2]"},
        {"__key__": "odd", "jpg": photo, "txt": b"other choices", "json": b'{"alternatives": 5}'},
        {"__key__": "silent", "jpg": photo},
    ])  # fmt: skip
    made = feed(str(tmp_path), batches={**batches, "sample_tokens": 96})
    images = {}
    for batch, _ in made:
        assert bool((batch.labels != -100).any())
        for n, key in enumerate(batch.keys):
            own = batch.input_ids[batch.segment_ids == n + 1] if "tokens" in batches else batch.input_ids[n]
            images[key.split()[1]] = int((own == model().fusion.image_token_id).sum()) // 4
    assert images == {"text": 0, "two": 2, "mask": 1, "bmp": 1, "columns": 1, "list": 1, "odd": 1}
    assert count_left_out(made.plan).reasons == {"no_text": 1} and not made.skipped


TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
MESSAGES = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}]


@pytest.mark.parametrize(
    ("stage", "facts", "expected"),
    [
        ("instruct", {"conversations": TURNS}, "A cat."),
        ("instruct", {"messages": MESSAGES}, "A cat."),
        ("align", {"caption": "a cat"}, "a cat"),
    ],
    ids=["conversations", "messages", "caption"],
)
def test_tars_with_captions_or_turns_in_their_json_are_trained_on(tmp_path, stage, facts, expected):
    photo = jpeg(drawing("blue", "circle"))
    write_tar(tmp_path / "0.tar", [{"__key__": f"{n}", "jpg": photo, "json": json.dumps(facts).encode()} for n in range(3)])
    labels = [row for batch, _ in feed(str(tmp_path), stage=stage, batches=PADDED) for row in batch.labels]
    assert [model().tokenizer.decode(row[row != -100]).strip() for row in labels] == [f"{expected}<|end|>"] * 3


@PACKED_OR_NOT
def test_one_of_several_captions_is_drawn_each_epoch(tmp_path, batches):
    captions = ["one", "two two", "three " * 30]
    facts = json.dumps({"alternatives": captions[1:]}).encode()
    photo = jpeg(drawing("blue", "circle"))
    samples = [{"__key__": f"{n}", "jpg": photo, "txt": captions[0].encode(), "json": facts} for n in range(8)]
    write_tar(tmp_path / "0.tar", samples)
    texts = model().tokenizer
    of_key: dict[str, list[str]] = {}
    for batch, _ in feed(str(tmp_path), epochs=6, batches={**batches, "sample_tokens": 192}):
        for n, key in enumerate(batch.keys):
            own = batch.labels[batch.segment_ids == n + 1] if "tokens" in batches else batch.labels[n]
            drawn = texts.decode(own[own != -100], skip_special_tokens=True).strip()
            of_key.setdefault(key.split()[1], []).append(drawn)
    assert all(len(drawn) == 6 for drawn in of_key.values()) and len(of_key) == 8
    assert {caption for drawn in of_key.values() for caption in drawn} == {caption.strip() for caption in captions}
    assert any(len(set(drawn)) > 1 for drawn in of_key.values())


def test_leaving_a_feed_ends_its_threads(tmp_path):
    import threading

    data = write_data(tmp_path, captions=40)
    before = set(threading.enumerate())
    for _ in feed(data, epochs=None):
        break
    assert set(threading.enumerate()) <= before  # other threads may have ended meanwhile


def test_an_error_in_the_feed_reaches_the_loop(tmp_path):
    made = feed(write_data(tmp_path))
    made.reading = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        next(iter(made))


def test_stage_one_reads_conversations_as_captions(tmp_path):
    write_tar(tmp_path / "0.tar", [conversation_samples(2)[1]])
    batch, _ = next(iter(feed(str(tmp_path), stage="align")))
    text = model().tokenizer.decode([t for t in batch.labels[0].tolist() if t != -100])
    assert text == "red a circle<|end|>"
