"""Sample positions: where each rank reads in the data, and how a run resumes with a different number of ranks.

The ranks take the units of a stream (packs, or samples) in turn. A unit may have no usable sample, so some ranks are further
than others when a run stops. If the run resumes with a different number of ranks, the new ranks first do the steps that the
slower old ranks had not done, up to the position of the fastest old rank. Each of these steps is called a piece. It reads the
units that the old rank would have read. The new ranks share the pieces. Then they read the stream from the position of the
fastest old rank. No sample is lost, and none is read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SamplePosition:
    """The position of rank `rank` in a stream that `world` ranks share.

    `position` is the number of earlier packs or samples in the whole stream, not only in this rank's share.
    `hint` is the value `window` in the stream's state. It saves the stream from planning all earlier packs again.
    """

    position: int
    rank: int
    world: int
    hint: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FeedPosition:
    """The position at which a feed resumes.

    `pieces` are the positions of single steps that old ranks had not done when the run stopped. The feed does these steps
    first, and then reads the stream from `main`.
    """

    main: SamplePosition
    pieces: tuple[SamplePosition, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the position as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> FeedPosition:
        """Return the position from the result of `to_json`. JSON may have turned its tuples into lists."""
        return FeedPosition(_sample_position(values["main"]), tuple(map(_sample_position, values["pieces"])))


def _sample_position(values: dict[str, Any]) -> SamplePosition:
    hint = values["hint"]
    return SamplePosition(**{**values, "hint": None if hint is None else tuple(hint)})


def redistribute(positions: Sequence[FeedPosition], world: int, *, units: int) -> list[FeedPosition]:
    """Return the positions at which `world` ranks resume, if the old ranks stopped at `positions`.

    In each step, every rank reads `units` packs, or `units` samples if samples are not packed.
    """
    if len(positions) == world:
        return list(positions)
    stride = units * positions[0].main.world
    last = max((p.main for p in positions), key=lambda place: place.position)
    pieces = [piece for p in positions for piece in p.pieces]
    for p in positions:
        starts = range(p.main.position, last.position, stride)
        pieces += [SamplePosition(start, p.main.rank, p.main.world, p.main.hint) for start in starts]
    return [
        FeedPosition(SamplePosition(last.position, rank, world, last.hint), tuple(pieces[rank::world])) for rank in range(world)
    ]
