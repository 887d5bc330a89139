"""Draws a histogram as SVG: kept values, values that this score rejected, values that other steps rejected, and thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmdata.report.bins import Bins, edge, short
from vlmdata.report.safe_html import SafeHtml, escape
from vlmdata.report.threshold_lines import Line

WIDTH, HEIGHT = 340, 150  # SVG units; the page scales the drawing
LEFT, RIGHT, TOP, BOTTOM = 4, 4, 26, 22
LETTER = 6.2  # largest width of a character in SVG units


@dataclass(frozen=True)
class ChartLayer:
    """The number of values of one kind in every bar. The bars are stacked on the bars of earlier layers."""

    kind: str  # a CSS class: kept, here or elsewhere
    counts: np.ndarray


def histogram(bins: Bins, layers: list[ChartLayer], lines: list[Line], label: str) -> SafeHtml:
    """Return an SVG of stacked bars and threshold lines. `label` is the text for screen readers."""
    total = np.sum([layer.counts for layer in layers], axis=0)
    tallest = max(int(total.max()), 1)
    inner, floor = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM
    width = inner / len(total)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    below = np.zeros(len(total))
    for layer in layers:
        path = []
        for bar, (under, count) in enumerate(zip(below, layer.counts, strict=True)):
            if count:
                tall = max(count / tallest * (floor - TOP), 0.8)
                bottom = floor - under / tallest * (floor - TOP)
                path.append(f"M{LEFT + bar * width + 0.4:.1f} {bottom:.1f}v{-tall:.1f}h{max(width - 0.8, 0.5):.1f}v{tall:.1f}z")
        below = below + layer.counts
        if path:
            parts.append(f'<path class="{layer.kind}" d="{"".join(path)}"/>')
    parts.append(f'<path class="axis" d="M{LEFT} {floor + 0.5}h{inner}"/>')
    parts += [_tick(bins, value, inner, floor) for value in _apart(bins, inner)]
    parts += [_line(bins, line, inner, floor) for line in lines if bins.holds(line)]
    return SafeHtml("".join(parts) + "</svg>")  # safe as HTML, because it holds only numbers and escaped text


def _tick(bins: Bins, value: float, inner: float, floor: float) -> str:
    text = short(value)
    x = LEFT + bins.center(value) * inner
    half = len(text) * LETTER / 2
    return f'<text class="tick" x="{min(max(x, half), WIDTH - half):.1f}" y="{floor + 15}">{text}</text>'


def _apart(bins: Bins, inner: float) -> list[float]:
    """Return the ticks whose labels do not overlap."""
    chosen: list[float] = []
    end = -1.0
    for value in bins.ticks():
        x, half = bins.center(value) * inner, len(short(value)) * LETTER / 2
        if x - half > end:
            chosen.append(value)
            end = x + half + 6
    return chosen


def _line(bins: Bins, line: Line, inner: float, floor: float) -> str:
    x = LEFT + bins.position(edge(line, bins.is_whole)) * inner
    text = escape(f"{line.sign} {short(line.at)}")
    is_left = x > WIDTH / 2
    place = f'x="{x - 5:.1f}" text-anchor="end"' if is_left else f'x="{x + 5:.1f}" text-anchor="start"'
    return f'<path class="line" d="M{x:.1f} {TOP - 14}V{floor}"/><text class="mark" {place} y="{TOP - 8}">{text}</text>'
