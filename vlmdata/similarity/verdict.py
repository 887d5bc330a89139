"""From clusters of images or rows to the verdicts and the `cluster` column of a table of rows."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlmdata.row import ROW, Flat, aligned, alive, drop_images, drop_rows, flatten, in_one, numbers, set_column
from vlmdata.similarity.clusters import best_first
from vlmdata.similarity.runs import Ids
from vlmdata.step import scatter

SIDES = ("width", "height")
OWN_ORDERS = {  # what an order compares that is no measured column, and the fields of images it looks at
    "largest": ("images.original_width", "images.original_height", "images.width", "images.height"),
    "bytes": ("images.size",),
    "earliest": (),
}


@dataclass(frozen=True)
class Candidates:
    """The living images of rows: their positions in `images` laid flat, and how good each is, 0 the best."""

    images: Flat
    places: Ids
    rank: Ids

    def rows(self) -> Ids:
        return self.images.parents[self.places]


def columns_of(keep: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that an order compares: measured ones by their names, for a word of its own fields of images."""
    return tuple(column for name in keep for column in OWN_ORDERS.get(name, (name,)))


def living_images(rows: pa.Table, keep: tuple[str, ...], has: NDArray[np.bool_] | None = None) -> Candidates:
    """Return the living images, ranked by `keep`, those only where `has` is true (one for each position)."""
    images = flatten(rows, "images")
    living = images.alive() & alive(rows)[images.parents]
    places = np.flatnonzero(living if has is None else living & has)
    columns = [order_column(rows, images, name, places) for name in keep]
    keys = in_one(rows["key"]).take(pa.array(images.parents[places]))
    return Candidates(images, places, best_first(*columns, keys=keys))


def order_column(rows: pa.Table, images: Flat, name: str, places: Ids) -> NDArray[np.float64]:
    """Return what an order compares, one number for each of these images, the greatest the best: `largest` is pixels as
    fetched, `bytes` the size, `earliest` the place in the plan; else a measured column of images or of rows, to 4 digits."""
    at = pa.array(places)
    if name == "largest":
        sides = [pc.coalesce(images.field(f"original_{side}").take(at), images.field(side).take(at)) for side in SIDES]
        return numbers(sides[0]) * numbers(sides[1])
    if name == "bytes":
        return numbers(images.field("size").take(at))
    if name == "earliest":
        return -images.parents[places].astype(np.float64)
    if pa.types.is_list(rows[name].type):
        return np.round(aligned(rows, name, "images")[places], 4)
    return np.round(numbers(in_one(rows[name]))[images.parents[places]], 4)


def drop_duplicate_images(
    rows: pa.Table,
    found: Candidates,
    stands: Ids,
    step: str,
    reason: str,
    *,
    value: NDArray[np.float64] | None = None,
    threshold: float | None = None,
) -> pa.Table:
    """Reject each image for which another one stands: `stands` (M,) and `value` (M,) are in the order of `found.places`.

    A row that loses its last image is rejected; its `cluster` is the key of the row that holds the image kept."""
    is_lost = stands != np.arange(len(stands))
    bad = np.zeros(len(found.images.parents), bool)
    bad[found.places[is_lost]] = True
    values = np.full(len(bad), np.nan)
    if value is not None:
        values[found.places] = value
    before = alive(rows)
    rows = drop_images(rows, bad, step, reason=reason, value=values, threshold=threshold)
    leader = np.full(len(bad) + 1, -1)  # the last is of rows that lost none
    leader[found.places] = found.rows()[stands]
    first = found.images.first(bad)
    is_emptied = before & ~alive(rows)
    return mark_cluster(rows, np.where(is_emptied, leader[first], -1))


def drop_duplicate_rows(
    rows: pa.Table,
    places: Ids,
    stands: Ids,
    step: str,
    reason: str,
    *,
    value: NDArray[np.float64] | None = None,
    threshold: float | None = None,
) -> pa.Table:
    """Reject each of the rows at `places` for which another stands, and write the other's key into its `cluster`."""
    leader = np.full(len(rows), -1)
    leader[places] = np.where(stands == np.arange(len(stands)), -1, places[stands])
    values = np.full(len(rows), np.nan)
    if value is not None:
        values[places] = value
    rows = drop_rows(rows, leader >= 0, step, reason=reason, value=values, threshold=threshold)
    return mark_cluster(rows, leader)


def mark_cluster(rows: pa.Table, leader: Ids) -> pa.Table:
    """Write the key of each row's leader into its `cluster`, where there is one (-1: none)."""
    is_lost = leader >= 0
    keys = in_one(rows["key"]).take(pa.array(leader[is_lost]))
    return set_column(rows, "cluster", scatter(keys.cast(ROW.field("cluster").type), is_lost, rows["cluster"]))


def numbered(values: list[str | None] | pa.Array) -> tuple[Ids, Ids]:
    """Return the places of values that are not null, and the number of the group of equal ones each belongs to."""
    encoded = (values if isinstance(values, pa.Array) else pa.array(values, pa.string())).dictionary_encode()
    codes = numbers(encoded.indices)
    places = np.flatnonzero(~np.isnan(codes))
    return places, codes[places].astype(np.int64)
