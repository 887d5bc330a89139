"""Sample positions: where each rank reads in the data, and how a run resumes with another number of ranks.

Ranks take the units of a stream (packs, or samples) in turn, but may be at different positions because a unit may have no
usable sample. When the number of ranks changes, the steps that a slower rank has not reached become pieces, read as the old
rank would have read them. The pieces are divided among the new ranks, and the stream resumes after the last of them. No
sample is lost, and none is read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SamplePosition:
    """What rank `rank` of `world` reads from `position` on, counted in units over all ranks.

    `hint` is the `window` of the stream's state: with it the stream need not plan all earlier packs.
    """

    position: int
    rank: int
    world: int
    hint: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FeedPosition:
    """Where a feed resumes: it reads one step of each piece first, then everything from `main` on."""

    main: SamplePosition
    pieces: tuple[SamplePosition, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> FeedPosition:
        """Read the result of `to_json`, also after JSON turned tuples into lists."""
        return FeedPosition(_sample_position(values["main"]), tuple(map(_sample_position, values["pieces"])))


def _sample_position(values: dict[str, Any]) -> SamplePosition:
    hint = values["hint"]
    return SamplePosition(**{**values, "hint": None if hint is None else tuple(hint)})


def redistribute(positions: Sequence[FeedPosition], world: int, *, units: int) -> list[FeedPosition]:
    """Return where each of `world` ranks resumes after ranks at `positions`. A step takes `units` units of each rank."""
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
