"""Codebooks of the panel: every code is unit modulus on a grid of 2^bits phases."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ris_verified.config import ArrayConfig, SceneConfig

BEAMS = 8


def _strided(count: int, beams: int, rng: np.random.Generator) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    # A stride coprime to the number of beam pairs visits all of both axes before it repeats.
    stride = (beams * beams) // max(count, 1) + 1
    while np.gcd(stride, beams) != 1:
        stride += 1
    index = (rng.integers(beams * beams) + stride * np.arange(count)) % (beams * beams)
    return index % beams, index // beams


def _dft2d(array: ArrayConfig, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _strided(count, BEAMS, rng)
    h = np.outer(u, np.arange(array.horizontal)) / BEAMS
    w = np.outer(v, np.arange(array.vertical)) / BEAMS
    return (h[:, None, :] + w[:, :, None]).reshape(count, -1)


def _hadamard(array: ArrayConfig, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    order = 1 << (max(array.horizontal, array.vertical, 2) - 1).bit_length()
    negative = (1 - scipy.linalg.hadamard(order)) // 2
    u, v = _strided(count, order, rng)
    half = negative[u][:, None, : array.horizontal] + negative[v][:, : array.vertical, None]
    return (half % 2).reshape(count, -1) / 2


def draw_codes(array: ArrayConfig, scene: SceneConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the panel's phase codes, one a snapshot.

    Books: `random`, independent phases; `dft2d`, 8 × 8 beams, strided so that both axes vary;
    `hadamard`, Kronecker products of ±1 rows.

    Args:
        array: the panel.
        scene: book, bits and number of snapshots.
        rng: source of randomness.

    Returns:
        `L x N` uint8, indices q of the phases 2πq/2^bits.
    """
    levels = 1 << scene.code_bits
    if scene.codebook == "random":
        draw = rng.integers(levels, size=(scene.snapshots, array.elements))
        return draw.astype(np.uint8)
    book = _dft2d if scene.codebook == "dft2d" else _hadamard
    turns = book(array, scene.snapshots, rng)
    return (np.rint(turns * levels).astype(np.int64) % levels).astype(np.uint8)


def code_values(index: NDArray[np.uint8], bits: int) -> NDArray[np.complex128]:
    """Return exp(2πj q/2^bits) for phase indices q of any shape."""
    table = np.exp(2j * np.pi * np.arange(1 << bits) / (1 << bits))
    values: NDArray[np.complex128] = table[index]
    return values
