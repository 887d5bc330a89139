"""Chooses frames of a video by their times: at regular times, a number of them, or from each scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

from vlmdata.video.frame_stream import FrameStream, Timed
from vlmdata.video.settings import FrameSettings

NextGoal = Callable[[Fraction], Fraction | None]


def exact(seconds: float) -> Fraction:
    """Return seconds from a recipe as a fraction: 0.1 becomes 1/10 and not the nearest float."""
    return Fraction(seconds).limit_denominator(1_000_000)


def needs_duration(settings: FrameSettings, stated: Fraction | None) -> bool:
    """Return whether the true duration must be found before frames can be chosen. `stated` is the header's, in seconds."""
    if settings.scenes != "none" or settings.clip_s is not None:
        return False
    if settings.count is not None:
        return True
    return stated is None or stated / exact(settings.every_s) >= settings.max_frames


def goals(settings: FrameSettings, duration: Fraction | None) -> NextGoal:
    """Return a function from a time to the first goal that is not before it, or None if there is none. Times are in seconds.

    A goal is a time at which the shown frame is taken. If `every_s` would give more than `max_frames` frames, the goals are
    farther apart, so that the frames still cover the whole video.
    """
    span = duration if settings.clip_s is None else exact(settings.clip_s)
    if settings.count is not None:
        step = (span or Fraction(0)) / min(settings.count, settings.max_frames)
        return lambda time: _middle(time, step, None if settings.clip_s is not None else duration)
    step = exact(settings.every_s)
    if span is not None:
        step = max(step, span / settings.max_frames)
    return lambda time: math.ceil(time / step) * step


def _middle(time: Fraction, step: Fraction, end: Fraction | None) -> Fraction | None:
    """Return the first middle of a step that is not before `time`, or None if it is not before `end`."""
    if step <= 0:
        return time if time == 0 else None
    goal = (math.ceil(time / step - Fraction(1, 2)) + Fraction(1, 2)) * step
    return None if end is not None and goal >= end else goal


def shown_at(stream: FrameStream, next_goal: NextGoal) -> Iterator[Timed]:
    """Yield each frame that is shown at some goal, once. A frame is shown from its time to that of the next frame."""
    shown: Timed | None = None
    goal: Fraction | None = None
    while (one := stream.next()) is not None:
        if shown is not None and goal is not None and goal < one.time:
            yield shown
        shown, goal = one, next_goal(one.time)
        if goal is None:
            return
        if stream.should_jump(goal):
            stream.jump(goal)
    if shown is not None and goal is not None and goal < shown.time + max(stream.gap, Fraction(1, 1000)):
        yield shown
