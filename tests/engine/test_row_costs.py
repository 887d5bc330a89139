"""The cost limit of a row admits the same images whatever order they arrive in."""

import itertools

import numpy as np
import pyarrow as pa

from tests.images.pictures import photo, saved
from tests.parts import open_part
from vlmdata.engine.work.ingest import Ingest
from vlmdata.engine.work.row_costs import RowCosts
from vlmdata.row import conform
from vlmdata.steps.resize import Resize

# Positions 0 to 3 belong to the first row and 4 and 5 to the second. The first row holds image 1 twice, the second row once.
TWINS = {0: [0], 1: [1, 2, 4], 3: [3], 5: [5]}
PARENTS = np.array([0, 0, 0, 0, 1, 1])
COSTS = {0: 6.0, 1: 3.0, 3: 2.0, 5: 8.0}


def decoded(order: tuple[int, ...]) -> tuple[dict[int, float], set[int], float]:
    """Return the positions over the limit with their totals, the images kept, and the largest row cost that was decoded at
    once."""
    costs = RowCosts(TWINS, PARENTS, 10.0)
    at_once = []
    for image in order:
        if costs.admits(image, COSTS[image]):
            at_once.append(image)
        else:
            costs.park(image, bytes([image]))
    beyond = costs.beyond()
    later = list(costs.parked(beyond))
    assert all(body == bytes([image]) for image, body in later)
    kept = {image for image, places in TWINS.items() if any(place not in beyond for place in places)}
    assert kept <= {*at_once, *(image for image, _ in later)}
    rows = [{0, 1, 3} & set(at_once), {1, 5} & set(at_once)]
    return beyond, kept, max(sum(COSTS[image] for image in row) for row in rows)


def test_the_first_images_of_a_row_are_admitted_in_any_order_of_arrival() -> None:
    for order in itertools.permutations(COSTS):
        beyond, kept, most = decoded(order)
        assert (beyond, kept) == ({3: 11.0, 5: 11.0}, {0, 1}) and most <= 10


def test_an_image_that_occurs_twice_in_a_row_counts_once() -> None:
    costs = RowCosts({0: [0, 1, 2]}, np.array([0, 0, 0]), 10.0)
    assert costs.admits(0, 7.0) and costs.beyond() == {}


def test_the_cost_limit_applies_to_the_sum_of_the_images_of_a_row(tmp_path) -> None:
    bodies = [saved(photo(500, 400, seed), "png") for seed in range(4)]
    images = [[{"data": body} for body in bodies], [{"data": bodies[3]}]]
    rows = conform(pa.table({"key": ["many", "one"], "images": images}))
    made = Ingest(resize=Resize(size=64, max_cost=1)).run(rows, open_part(tmp_path))
    many, (one,) = made["images"].to_pylist()
    assert [image["reason"] for image in many] == [None, None, "too_costly", "too_costly"] and one["reason"] is None
    assert [(image["drop"], image["value"], image["threshold"]) for image in many[2:]] == [
        ("resize", 1.35, 1),
        ("resize", 1.8, 1),
    ]
    assert made["drop"].to_pylist() == [None, None] and all(image["data"] is None for image in many)


def test_a_limit_is_stored_with_the_reason_of_the_drop(tmp_path) -> None:
    rows = conform(pa.table({"key": ["a"], "images": [[{"data": saved(photo(2000, 1500), "png")}]]}))
    made = Ingest(resize=Resize(max_memory_mb=30)).run(rows, open_part(tmp_path)).to_pylist()[0]
    assert (made["drop"], made["reason"], made["threshold"]) == ("resize", "too_large", 30) and made["value"] > 30
