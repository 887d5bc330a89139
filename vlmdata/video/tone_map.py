"""Converts HDR pixels (PQ or HLG, BT.2020) to sRGB.

The steps: light in units of the reference white, 203 cd/m2 (ITU-R BT.2408); the matrix from BT.2020 to BT.709; a curve on the
largest of the three channels, which leaves light up to 0.7 as it is and maps the peak to 1 (H, W height and width).
"""

from __future__ import annotations

import numpy as np

PQ, HLG = 16, 18  # transfer characteristics in ITU-T H.273
WHITE = 203.0  # cd/m2
PEAK = 1000.0 / WHITE  # the peak of most HDR masters; brighter light becomes white
KNEE = 0.7
_TO_709 = np.array(  # ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def tone_mapped(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """Return (H, W, 3) uint16 R'G'B' in BT.2020 as (H, W, 3) uint8 sRGB. `transfer` is PQ or HLG."""
    signal = pixels.astype(np.float32) / 65535
    light = (_pq(signal) if transfer == PQ else _hlg(signal)) / WHITE
    light = np.maximum(light @ _TO_709.T, 0)
    largest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    light = np.clip(light * (_shoulder(largest) / largest), 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return np.asarray(np.round(coded * 255), np.uint8)


def _shoulder(light: np.ndarray) -> np.ndarray:
    """Return light with the range from KNEE to PEAK compressed to KNEE..1. The curve and its slope are continuous."""
    above = np.clip(light - KNEE, 0, PEAK - KNEE) / (1 - KNEE)
    most = (PEAK - KNEE) / (1 - KNEE)
    return np.minimum(light, KNEE) + (1 - KNEE) * above / (1 + above * (most - 1) / most)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Return the light in cd/m2 of a signal in PQ (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Return the light in cd/m2 of a signal in HLG on a display of 1000 cd/m2 (ITU-R BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = np.maximum(scene @ np.array([0.2627, 0.6780, 0.0593], np.float32), 1e-6)[..., None]
    return 1000 * luma**0.2 * scene
