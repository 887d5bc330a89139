"""Mark as dropped all images or rows of each cluster except its representative, and fill the `cluster` column."""

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
OWN_ORDERS = {  # order that is not a measured column: the fields of images that it reads
    "largest": ("images.original_width", "images.original_height", "images.width", "images.height"),
    "bytes": ("images.size",),
    "earliest": (),
}


@dataclass(frozen=True)
class Candidates:
    """The images of a table that are not dropped.

    `places` holds the positions of these images in the flattened `images`, and `rank` holds their ranks, 0 for the best.
    """

    images: Flat
    places: Ids
    rank: Ids

    def rows(self) -> Ids:
        """Return the row number of each image: (M,)."""
        return self.images.parents[self.places]


def columns_of(keep: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that the orders in `keep` read. An order is a name in `OWN_ORDERS` or a measured column."""
    return tuple(column for name in keep for column in OWN_ORDERS.get(name, (name,)))


def living_images(rows: pa.Table, keep: tuple[str, ...], has: NDArray[np.bool_] | None = None) -> Candidates:
    """Return the images that are not dropped, ranked by the orders `keep`.

    `has` (P,) holds one value for each position of `images`. If it is given, only images at true positions are returned.
    """
    images = flatten(rows, "images")
    is_alive = images.alive() & alive(rows)[images.parents]
    places = np.flatnonzero(is_alive if has is None else is_alive & has)
    columns = [order_column(rows, images, name, places) for name in keep]
    keys = in_one(rows["key"]).take(pa.array(images.parents[places]))
    return Candidates(images, places, best_first(*columns, keys=keys))


def order_column(rows: pa.Table, images: Flat, name: str, places: Ids) -> NDArray[np.float64]:
    """Return the number by which the order `name` ranks each image at `places`: (M,). The greatest number is the best.

    The order `largest` uses the number of fetched pixels, `bytes` the size in bytes, and `earliest` the negative row number.
    Any other name is a measured column of images or rows. Its values are rounded to 4 decimals.
    """
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
    representatives: Ids,
    step: str,
    reason: str,
    *,
    value: NDArray[np.float64] | None = None,
    threshold: float | None = None,
) -> pa.Table:
    """Mark as dropped each image that has another image as its representative. Return all rows, including the dropped rows.

    `representatives` (M,) and `value` (M,) have an entry for each entry of `found.places`. A representative is an index of
    `found.places`. A row that loses its last image is marked as dropped, and its `cluster` becomes the key of the row with the
    kept image.
    """
    is_lost = representatives != np.arange(len(representatives))
    bad = np.zeros(len(found.images.parents), bool)
    bad[found.places[is_lost]] = True
    values = np.full(len(bad), np.nan)
    if value is not None:
        values[found.places] = value
    before = alive(rows)
    rows = drop_images(rows, bad, step, reason=reason, value=values, threshold=threshold)
    kept_row = np.full(len(bad) + 1, -1)  # the last entry is for rows that lost no image
    kept_row[found.places] = found.rows()[representatives]
    first = found.images.first(bad)
    is_emptied = before & ~alive(rows)
    return mark_cluster(rows, np.where(is_emptied, kept_row[first], -1))


def drop_duplicate_rows(
    rows: pa.Table,
    places: Ids,
    representatives: Ids,
    step: str,
    reason: str,
    *,
    value: NDArray[np.float64] | None = None,
    threshold: float | None = None,
) -> pa.Table:
    """Mark as dropped each row at `places` that has another row as its representative. Return all rows of the table.

    The `cluster` of a dropped row becomes the representative's key. `representatives` (M,) are indices of `places`.
    """
    kept_row = np.full(len(rows), -1)
    kept_row[places] = np.where(representatives == np.arange(len(representatives)), -1, places[representatives])
    values = np.full(len(rows), np.nan)
    if value is not None:
        values[places] = value
    rows = drop_rows(rows, kept_row >= 0, step, reason=reason, value=values, threshold=threshold)
    return mark_cluster(rows, kept_row)


def mark_cluster(rows: pa.Table, kept_row: Ids) -> pa.Table:
    """Return the rows with the key of each row's representative in the column `cluster`.

    `kept_row` (N,) holds the row number of the representative, or -1 to leave the row unchanged.
    """
    is_lost = kept_row >= 0
    keys = in_one(rows["key"]).take(pa.array(kept_row[is_lost]))
    return set_column(rows, "cluster", scatter(keys.cast(ROW.field("cluster").type), is_lost, rows["cluster"]))


def numbered(values: list[str | None] | pa.Array) -> tuple[Ids, Ids]:
    """Return the places of the values that are not null, and the group number of each of these values.

    Equal values have the same group number.
    """
    encoded = (values if isinstance(values, pa.Array) else pa.array(values, pa.string())).dictionary_encode()
    codes = numbers(encoded.indices)
    places = np.flatnonzero(~np.isnan(codes))
    return places, codes[places].astype(np.int64)
