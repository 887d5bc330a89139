"""One sum of cost for all images of a row, held in order of their places, in whatever order the images arrive."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


class RowCosts:
    """Says which images of each row its sum of cost admits: from the first place on, until the sum passes `max_cost`.

    An image arrives when its host answers. What certainly fits is decoded at once; an image whose row would pass the limit with
    what was decoded before is parked in a file until all have arrived. So a row takes at most twice its limit, and the
    outcome hangs on places and headers alone. `twins` are the places of each image, `parents` the row of each place; an
    image that a row has twice is paid once.
    """

    def __init__(self, twins: Mapping[int, Sequence[int]], parents: np.ndarray, max_cost: float):
        self.max_cost = max_cost
        self._leader = {twin: leader for leader, places in twins.items() for twin in places}
        self._rows = {leader: {int(parents[place]) for place in places} for leader, places in twins.items()}
        self._parents = parents
        self._costs: dict[int, float] = {}
        self._spent: dict[int, float] = defaultdict(float)
        self._parked: dict[int, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the object

    def admits(self, leader: int, cost: float) -> bool:
        """Note what an image costs and say whether it can be decoded now."""
        self._costs[leader] = cost
        if any(self._spent[row] + cost > self.max_cost for row in self._rows[leader]):
            return False
        for row in self._rows[leader]:
            self._spent[row] += cost
        return True

    def park(self, leader: int, body: bytes) -> None:
        """Keep the bytes of an image that was not admitted."""
        self._parked[leader] = self._file.seek(0, 2), len(body)
        self._file.write(body)

    def beyond(self) -> dict[int, float]:
        """Return the places whose image the sum does not admit, each with the sum that it would make."""
        found: dict[int, float] = {}
        sums: dict[int, float] = defaultdict(float)
        paid: set[tuple[int, int]] = set()
        for place in sorted(self._leader):
            row, leader = int(self._parents[place]), self._leader[place]
            if (row, leader) not in paid:
                sums[row] += self._costs.get(leader, 0.0)
                paid.add((row, leader))
            if sums[row] > self.max_cost and leader in self._costs:
                found[place] = round(sums[row], 2)
        return found

    def parked(self, beyond: Mapping[int, float]) -> Iterator[tuple[int, bytes]]:
        """Yield the parked images that one of their places admits after all, in order."""
        wanted = {self._leader[place] for place in self._leader if place not in beyond}
        for leader in sorted(wanted & self._parked.keys()):
            offset, size = self._parked[leader]
            self._file.seek(offset)
            yield leader, self._file.read(size)
        self._file.close()
