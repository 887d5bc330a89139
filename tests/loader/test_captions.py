"""Captions are drawn by the weights of their origins, and the loader's lengths are those of the captions that are drawn."""

import json
import math
import pickle
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loader.tars import sample_files, write_tar
from vlmdata import stream
from vlmdata.errors import InputError
from vlmdata.loader.captions import captions_of, code_of, drawn_caption, origins_of, table_of
from vlmdata.loader.decoding import Decode
from vlmdata.loader.lengths import Lengths
from vlmdata.loader.packed import Packing
from vlmdata.loader.stream import Blend, ReadOptions

HALF = {"raw": 0.3, "synthetic": 0.7}
FACTS = {"alternatives": ["own", "short", "long", "other"], "origins": [None, "recaption", "recaption", "translate"]}
SEEDS = np.random.default_rng(0).integers(-(2**63), 2**63, 4000).tolist()


def drawn(caption: str, facts: dict[str, Any], weights: dict[str, float] | None) -> dict[str, int]:
    """Return how many of the 4,000 seeds draw each caption."""
    found = [drawn_caption(caption, facts, seed, weights) for seed in SEEDS]
    return {one: found.count(one) for one in set(found)}


def assert_shares(counts: dict[str, int], shares: dict[str, float]) -> None:
    """Each count lies within 4 standard deviations of its binomial distribution. With fixed seeds, the result never changes."""
    assert counts.keys() <= {caption for caption, share in shares.items() if share}
    for caption, share in shares.items():
        count = sum(counts.values())
        assert abs(counts.get(caption, 0) - share * count) <= 4 * math.sqrt(count * share * (1 - share)), (caption, counts)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (HALF, {"main": 0.15, "own": 0.15, "short": 0.7 / 3, "long": 0.7 / 3, "other": 0.7 / 3}),
        ({"raw": 3, "synthetic": 7}, {"main": 0.15, "own": 0.15, "short": 0.7 / 3, "long": 0.7 / 3, "other": 0.7 / 3}),
        (
            {"raw": 1, "recaption": 1, "synthetic": 2},
            {"main": 0.125, "own": 0.125, "short": 0.125, "long": 0.125, "other": 0.5},
        ),
        ({"recaption": 0.5}, {"short": 0.5, "long": 0.5}),
        ({"raw": 0, "translate": 1e-300, "recaption": 0}, {"other": 1}),
        ({"raw": 1e308, "synthetic": 1e308}, {"main": 0.25, "own": 0.25, "short": 1 / 6, "long": 1 / 6, "other": 1 / 6}),
        ({"synthetic": 1, "absent": 5}, {"short": 1 / 3, "long": 1 / 3, "other": 1 / 3}),
        ({"absent": 1}, dict.fromkeys(("main", "own", "short", "long", "other"), 0.2)),
        (
            {"raw": 0, "recaption": 0, "synthetic": 0, "absent": 1},
            dict.fromkeys(("main", "own", "short", "long", "other"), 0.2),
        ),
    ],
)
def test_captions_are_drawn_by_the_weights_of_their_groups(weights, shares):
    assert_shares(drawn("main", FACTS, weights), shares)


def test_a_missing_group_leaves_its_weight_to_the_others():
    assert_shares(drawn("a", {"alternatives": ["b"]}, HALF), {"a": 0.5, "b": 0.5})
    some = {"alternatives": ["b", "c"], "origins": ["x", "y"]}
    assert_shares(drawn("a", some, {"raw": 0.2, "x": 0.6, "y": 0.2, "z": 99}), {"a": 0.2, "b": 0.6, "c": 0.2})


@pytest.mark.parametrize("empty", ["", " \n", "\u200b"])
def test_a_blank_caption_is_drawn_only_if_there_is_no_other(empty):
    some = {"alternatives": ["b", "c"], "origins": [None, "x"]}
    assert_shares(drawn(empty, some, HALF), {"b": 0.3, "c": 0.7})
    assert_shares(drawn(empty, some, {"absent": 1}), {"b": 0.5, "c": 0.5})
    assert_shares(drawn(empty, {"alternatives": ["c"], "origins": ["x"]}, {"raw": 1}), {"c": 1})
    assert drawn(empty, {"alternatives": [empty]}, HALF) == {empty: 4000} == drawn(empty, {}, HALF)


def test_without_weights_the_draw_is_the_former_one():
    for number, seed in enumerate(SEEDS[:50]):
        assert drawn_caption("main", FACTS, seed) == captions_of("main", FACTS)[seed % 5]
        assert drawn_caption("main", FACTS, number, None) == captions_of("main", FACTS)[number % 5]


def test_the_draw_by_weights_never_changes():
    """A resumed run of a later version must draw the same captions."""
    found = [drawn_caption("main", FACTS, seed, HALF) for seed in range(12)]
    assert " ".join(found) == "other own other main main short long other main short short long"
    assert [drawn_caption("main", FACTS, 2**64 + 3, HALF), drawn_caption("main", FACTS, 3, HALF)] == [found[3]] * 2


@pytest.mark.parametrize(
    ("facts", "origins"),
    [
        (FACTS, [None, None, "recaption", "recaption", "translate"]),
        ({"alternatives": ["b", 5, "c"], "origins": ["x", "y", "z"]}, [None, "x", "z"]),
        *[
            ({"alternatives": ["b"], "origins": wrong}, [None, None])
            for wrong in ("x", 5, {}, ["x", "y"], [5], ["\ud800"], ["raw"])
        ],
        ({"alternatives": "bc", "origins": ["x", "y"]}, [None]),
        ({"origins": ["x"]}, [None]),
        ({"alternatives": [" "], "origins": ["x"]}, [None]),
    ],
)
def test_origins_that_do_not_fit_count_as_raw(facts, origins):
    assert origins_of("main", facts) == origins
    assert drawn_caption("main", facts, 7, HALF) in captions_of("main", facts)


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        (["raw"], "captions must be a mapping such as"),
        ({}, "captions must have at least one weight above 0"),
        ({"raw": 0.0, "x": 0}, "captions must have at least one weight above 0"),
        ({"": 1}, "captions must be a mapping such as"),
        ({1: 1}, "captions must be a mapping such as"),
        *[
            ({"raw": bad, "x": 1}, "the weight of .*raw.* must be a finite number of at least 0")
            for bad in (-1, math.nan, math.inf)
        ],
        *[({"raw": bad}, "the weight of .*raw.* must be a finite number of at least 0") for bad in ("1", None, True, 10**400)],
    ],
)
def test_wrong_weights_are_refused_in_one_line(captions, says):
    for make in (lambda: Decode(captions=captions), lambda: Packing(9, len, "m", captions=captions)):
        with pytest.raises(ValueError, match=says) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_weights_without_alternatives_are_refused():
    with pytest.raises(ValueError, match="alternatives=False"):
        Decode(alternatives=False, captions=HALF)


# -- lengths


def made_lengths(rows: list[list[tuple[int, str | None]]]) -> Lengths:
    flat = [one for row in rows for one in row]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Lengths(np.array([n for n, _ in flat], np.int32), starts, "", np.array([code_of(origin) for _, origin in flat]))


def random_rows(count: int) -> list[list[tuple[int, str | None]]]:
    random, names = np.random.default_rng(1), (None, "", "recaption", "x", "y")
    return [
        [(int(random.integers(1, 99)), names[random.integers(5)]) for _ in range(random.integers(1, 7))] for _ in range(count)
    ]


WEIGHTS: list[dict[str, float]] = [HALF, {"recaption": 0.1, "raw": 0.2}, {"raw": 0, "x": 1, "synthetic": 0.25}, {"absent": 1}]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_lengths_draw_the_caption_that_the_decoder_draws(weights):
    rows = random_rows(300)
    lengths = made_lengths(rows).weighted(weights)
    order = np.random.default_rng(2).permutation(300)
    found = lengths.at(order, np.array(SEEDS[:300]))
    for row, seed, tokens in zip(order.tolist(), SEEDS, found.tolist(), strict=False):
        captions = [f"{n} {place}" if origin != "" else " " * (place + 1) for place, (n, origin) in enumerate(rows[row])]
        facts = {"alternatives": captions[1:], "origins": [origin or None for _, origin in rows[row][1:]]}
        if (name := rows[row][0][1]) not in (None, ""):  # the main caption is raw, so this row begins with an alternative
            captions, facts = ["", *captions], {"alternatives": captions, "origins": [name, *facts["origins"]]}
        caption = drawn_caption(captions[0], facts, seed, weights)
        assert tokens == dict(zip(captions[-len(rows[row]) :], (n for n, _ in rows[row]), strict=True))[caption]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_mean_length_is_exact_under_the_weights(weights):
    rows = random_rows(200)
    lengths = made_lengths(rows).weighted(weights)
    table = table_of(weights)
    names = {None: 0, **{name: number for number, name in enumerate(sorted(set(weights) - {"raw", "synthetic"}), 2)}}
    means, can = [], []
    for row in rows:
        groups: dict[int, list[int]] = {}
        for n, origin in row:
            groups.setdefault(-1 if origin == "" else names.get(origin, 1), []).append(n)
        share = {group: Fraction(table.weights[group].item()) for group in groups if group >= 0}
        if not any(share.values()):
            share = {group: Fraction(len(groups[group])) for group in groups if group >= 0} or {-1: Fraction(1)}
        means.append(sum(p * Fraction(sum(groups[g]), len(groups[g])) for g, p in share.items()) / sum(share.values()))
        can += [bool(share.get(-1 if origin == "" else names.get(origin, 1))) for _, origin in row]
    assert lengths.mean() == sum(means) / len(rows)
    assert lengths.can_be_drawn().tolist() == can
    drawn = np.concatenate([lengths.at(np.arange(200), np.full(200, seed)) for seed in SEEDS[:500]])
    assert abs(drawn.mean() - float(lengths.mean())) < 0.5


def test_without_weights_the_mean_and_the_digest_are_the_former_ones():
    rows = random_rows(50)
    lengths = made_lengths(rows)
    assert lengths.mean() == sum(Fraction(sum(n for n, _ in row), len(row)) for row in rows) / 50
    assert lengths.can_be_drawn().all() and lengths.digest == ""
    digests = {lengths.weighted(weights).digest for weights in WEIGHTS}
    assert len(digests) == len(WEIGHTS) and "" not in digests
    single = Lengths(np.array([3, 4], np.int32), None, "d")
    assert single.weighted(HALF) is single


def test_a_blank_caption_is_drawn_only_if_all_are_blank():
    facts = {"alternatives": ["a cat", "\u200b"], "origins": ["recaption", None]}
    for weights in (None, {"raw": 1}):
        assert {drawn_caption(" ", facts, seed, weights) for seed in range(20)} == {"a cat"}
    assert captions_of("", {"alternatives": [" "]}) == ["", " "] and origins_of("", {"alternatives": [" "]}) == ["", ""]


# -- packing


def tars(folder: Path, count: int = 120, **more: Any) -> Path:
    """Write samples with captions of different lengths: raw ones and those of two steps; every third main caption is empty."""
    files = []
    for number in range(count):
        others = ["r" * (number % 5 + 2), "s" * (number % 7 + 8), "t" * (number % 11 + 16)][number % 2 :]
        facts = {"alternatives": others, "origins": [None, "recaption", "translate"][number % 2 :], **more}
        caption = "" if number % 3 == 0 else "m"
        files += sample_files(f"{number}", {"json": json.dumps(facts).encode(), "txt": caption.encode()})
    return write_tar(folder / "0.tar", files)


def measure(sample: dict[str, Any]) -> list[tuple[int, str | None]]:
    caption, facts = sample["txt"].decode(), json.loads(sample["json"])
    lengths = [len(text) + 1 for text in captions_of(caption, facts)]
    return list(zip(lengths, origins_of(caption, facts), strict=True))


def opened(path: Any, cache: Path, weights: dict[str, float] | None, measure: Any = measure, **options: Any) -> Any:
    packing = Packing(40, measure, "characters", window=64, workers=1, captions=weights)
    return stream(
        path, packing=packing, decode=Decode(captions=weights), reading=ReadOptions(cache=cache), torch=False, **options
    )


@pytest.mark.parametrize("weights", [HALF, {"translate": 1}, {"raw": 1, "recaption": 1}, None])
def test_packs_hold_exactly_the_lengths_of_the_drawn_captions(tmp_path, weights):
    path = tars(tmp_path / "tars")
    packs = opened(path, tmp_path / "cache", weights, epochs=3)
    found = list(packs)
    assert sum(len(pack) for pack in found) == 360
    assert max(sum(len(one["txt"]) + 1 for one in pack) for pack in found) <= 40
    for epoch in range(3):
        picks = packs.plan.plan.at(np.arange(epoch * 120, epoch * 120 + 120))
        texts = drawn_texts(path, tmp_path / "cache", weights, epoch)
        keys = [str(row) for row in picks.rows.tolist()]
        measured = packs.plan.lengths[0].at(picks.rows, picks.seeds)
        assert measured.tolist() == [len(texts[key]) + 1 for key in keys]


def drawn_texts(path: Path, cache: Path, weights: dict[str, float] | None, epoch: int) -> dict[str, str]:
    samples = stream(path, decode=Decode(captions=weights), reading=ReadOptions(cache=cache), torch=False)
    samples.set_epoch(epoch)
    return {sample["__key__"]: sample["txt"] for sample in samples}


def test_packing_and_decode_with_other_weights_are_refused(tmp_path):
    path = tars(tmp_path / "tars")
    packing = Packing(40, measure, "characters", captions={"raw": 1})
    for decode in (Decode(captions={"synthetic": 1}), Decode()):
        with pytest.raises(InputError, match="decode and packing have other weights in `captions`"):
            stream(path, packing=packing, decode=decode, reading=ReadOptions(cache=tmp_path / "cache"), torch=False)


def test_a_weight_for_a_step_that_wrote_no_caption_is_refused_by_name(tmp_path):
    """The caption of another dataset of a blend is enough."""
    whole = tars(tmp_path / "whole")
    plain = write_tar(tmp_path / "plain.tar", sample_files("0", {"json": b"{}", "txt": b"a"}))
    said = "captions names 'recaptoin', but no step of this name wrote a caption"
    for path in (whole, plain, {whole: 1, plain: 1}):
        with pytest.raises(InputError, match=said):
            opened(path, tmp_path / "cache", {"raw": 1, "recaptoin": 1})
    opened({plain: 1, whole: 1}, tmp_path / "cache", {"raw": 1, "recaption": 1})


def test_other_weights_need_no_new_measurement(tmp_path):
    calls = []

    def counted(sample: dict[str, Any]) -> list[tuple[int, str | None]]:
        calls.append(sample["__key__"])
        return measure(sample)

    path = tars(tmp_path / "tars")
    others = [HALF, {"recaption": 0.1, "raw": 0.2}, {"raw": 0, "translate": 1, "synthetic": 0.25}, None]
    orders = {opened(path, tmp_path / "cache", weights, counted).plan.order_digest for weights in others}
    assert len(calls) == 120 and len(orders) == 4


def test_a_state_of_other_weights_is_refused(tmp_path):
    path = tars(tmp_path / "tars")
    state = opened(path, tmp_path / "cache", HALF).state_dict()
    opened(path, tmp_path / "cache", dict(HALF)).load_state_dict(state)
    with pytest.raises(ValueError, match="another seed, weights or packing"):
        opened(path, tmp_path / "cache", {"raw": 0.4, "synthetic": 0.6}).load_state_dict(state)


def test_weights_need_a_measure_that_returns_origins(tmp_path):
    path = tars(tmp_path / "tars")

    def plain(sample: dict[str, Any]) -> list[int]:
        return [tokens for tokens, _ in measure(sample)]

    with pytest.raises(ValueError, match="`measure` returned lengths without origins"):
        opened(path, tmp_path / "cache", HALF, plain)
    assert sum(len(pack) for pack in opened(path, tmp_path / "cache", None, plain)) == 120


@pytest.mark.parametrize("wrong", [[(3, 5)], [(3,)], [(0, None)], [((1, None), None)], [("3", None)], (3, None)])
def test_a_wrong_pair_of_a_measure_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="must return an integer of at least 1"):
        opened(tars(tmp_path / "tars", 2), tmp_path / "cache", None, lambda sample: wrong)


def test_a_damaged_cache_of_origins_is_measured_again(tmp_path):
    path = tars(tmp_path / "tars")
    made = opened(path, tmp_path / "cache", HALF).plan.lengths[0]
    expected = made.codes.copy()  # `made` is mapped from the file that is damaged next
    (file,) = (tmp_path / "cache/lengths").iterdir()
    data, codes = file.read_bytes(), expected.tobytes()
    assert data.count(codes) == 1
    file.write_bytes(data.replace(codes, codes[8:] + codes[:8]))
    again = opened(path, tmp_path / "cache", HALF).plan.lengths[0]
    assert again.codes.tolist() == expected.tolist() and again.digest == made.digest


def test_a_blend_by_tokens_uses_the_mean_under_the_weights(tmp_path):
    paths = {tars(tmp_path / "a"): 1.0, tars(tmp_path / "b", origins=None): 1.0}
    both = opened(Blend(paths, by="tokens"), tmp_path / "cache", {"translate": 1, "raw": 1})
    lengths = both.plan.lengths
    assert float(lengths[0].mean()) > float(lengths[1].mean())
    picks = both.plan.plan.at(np.arange(40 * both.plan.plan.epoch_size))
    parts = [picks.datasets == number for number in (0, 1)]
    tokens = [int(one.at(picks.rows[part], picks.seeds[part]).sum()) for one, part in zip(lengths, parts, strict=True)]
    assert abs(tokens[0] - tokens[1]) < 0.02 * sum(tokens)


def test_a_decoder_with_weights_can_be_pickled():
    decode = Decode(captions=HALF)
    sample = {"__key__": "a", "__url__": "u", "__seed__": 5, "txt": b"main", "json": json.dumps(FACTS).encode()}
    assert pickle.loads(pickle.dumps(decode))(sample)["txt"] == decode(sample)["txt"]


def test_the_code_in_the_documentation_packs_the_drawn_captions(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/loader.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if block.startswith("# weights.py"))
    monkeypatch.chdir(tmp_path)
    tars(tmp_path / "OUT", 30)
    code = code.replace("size=336", 'filter="area"').replace('name="words"', 'name="words", workers=1')
    names: dict[str, Any] = {"ReadOptions": ReadOptions}
    exec(code.replace("decode=", f"torch=False, reading=ReadOptions(cache={str(tmp_path)!r}), decode="), names)
    assert sum(len(pack) for pack in names["data"]) == 30
