"""Limits the total decoding cost of a row's images, independently of the order in which they arrive."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


class RowCosts:
    """Admits the images of each row in order of position, until their total cost exceeds `max_cost`.

    Images arrive in any order. An image is decoded at once if its cost, added to the cost of the images of its row that are
    already decoded, is within the limit. Otherwise its bytes wait in a file until all images have arrived. An image that was
    decoded early may be rejected in the end, so decoding a row can cost up to twice the limit. The outcome depends only on
    positions and headers.

    `twins` maps the first position of each image to all positions of the image. `parents` holds the row of each position. If
    several positions of one row have the same image, the image counts once.
    """

    def __init__(self, twins: Mapping[int, Sequence[int]], parents: np.ndarray, max_cost: float):
        self.max_cost = max_cost
        self._image = {position: image for image, positions in twins.items() for position in positions}
        self._rows = {image: {int(parents[position]) for position in positions} for image, positions in twins.items()}
        self._parents = parents
        self._costs: dict[int, float] = {}
        self._spent: dict[int, float] = defaultdict(float)
        self._parked: dict[int, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the object

    def admits(self, image: int, cost: float) -> bool:
        """Record the cost of an image, and return whether to decode it now. If not, the caller passes its bytes to `park`."""
        self._costs[image] = cost
        if any(self._spent[row] + cost > self.max_cost for row in self._rows[image]):
            return False
        for row in self._rows[image]:
            self._spent[row] += cost
        return True

    def park(self, image: int, body: bytes) -> None:
        """Store the bytes of an image that was not admitted."""
        self._parked[image] = self._file.seek(0, 2), len(body)
        self._file.write(body)

    def beyond(self) -> dict[int, float]:
        """Return {position: total} for each position of an image at which the total cost of the row exceeds the limit.

        `total` is the cost of the row's images up to and including this position.
        """
        found: dict[int, float] = {}
        sums: dict[int, float] = defaultdict(float)
        paid: set[tuple[int, int]] = set()
        for position in sorted(self._image):
            row, image = int(self._parents[position]), self._image[position]
            if (row, image) not in paid:
                sums[row] += self._costs.get(image, 0.0)
                paid.add((row, image))
            if sums[row] > self.max_cost and image in self._costs:
                found[position] = round(sums[row], 2)
        return found

    def parked(self, beyond: Mapping[int, float]) -> Iterator[tuple[int, bytes]]:
        """Yield (image, bytes) for each parked image that is accepted, in order of position.

        An image is accepted if at least one of its positions is not in `beyond`, the result of the method `beyond`.
        """
        wanted = {self._image[position] for position in self._image if position not in beyond}
        for image in sorted(wanted & self._parked.keys()):
            offset, size = self._parked[image]
            self._file.seek(offset)
            yield image, self._file.read(size)
        self._file.close()
