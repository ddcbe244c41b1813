"""The axes of a sweep, its cells, and the scenes of a cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ris_verified.config import Config
from ris_verified.errors import InputError
from ris_verified.evaluate.mismatch import MISMATCHES, mismatched
from ris_verified.evaluate.place import Real, draw_directions, draw_ranges
from ris_verified.scene.scene import Scene, scene_at

# Splits of stored data begin their keys with 0, 1, 2.
STREAM = 5
MICRO = 1e6
Levels = Mapping[str, float]


def label(levels: Levels) -> str:
    """Return how a mismatch is written, `exact` for none."""
    return "+".join(f"{name}={level:g}" for name, level in levels.items()) or "exact"


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Args:
        K: number of sources.
        snr_db: decibels.
        range: centre of the band in metres, None for the whole view.
        separation: angle between sources in radians, 0 for free directions.
        levels: mismatch.
    """

    K: int
    snr_db: float
    range: float | None
    separation: float
    levels: Levels

    def described(self) -> dict[str, Any]:
        """Return the cell's place on the axes, for JSON and CSV."""
        return {
            "K": self.K,
            "snr_db": self.snr_db,
            "range": self.range,
            "separation": self.separation or None,
            "mismatch": label(self.levels),
        }

    def scene(self, cfg: Config, index: int) -> Scene:
        """Draw one of the cell's scenes; the index alone makes it, so that no axis disturbs another.

        Cells that differ in SNR or mismatch have the same sources, channel, codes, symbols and noise up to
        strength: what differs between them is what the axis does.

        Raises:
            InputError: the sources do not fit into the field of view.
        """
        azimuth, elevation, ranges, rng = self.place(cfg, index)
        scene = scene_at(cfg, azimuth, elevation, ranges, snr_db=self.snr_db, rng=rng)
        seed = int(rng.integers(1 << 32))
        return mismatched(scene, cfg, self.levels, seed) if self.levels else scene

    def place(self, cfg: Config, index: int) -> tuple[Real, Real, Real, np.random.Generator]:
        """Draw where the sources of a scene are; the generator goes on to draw the rest.

        Raises:
            InputError: the sources do not fit into the field of view.
        """
        where = (round((self.range or 0) * MICRO), round(self.separation * MICRO))
        rng = np.random.default_rng([cfg.seed, STREAM, self.K, *where, index])
        directions = draw_directions(cfg.scene, self.K, self.separation, rng)
        return *directions, draw_ranges(cfg.scene, self.K, self.range, rng), rng


@dataclass(frozen=True)
class Axes:
    """What a sweep runs over.

    Args:
        sources: numbers of sources.
        snr_db: decibels.
        range: centres of bands of ±10 % in metres; None is the whole view.
        separation: radians; two sources exactly that far apart, more at least; 0 is free.
        mismatch: levels by name, see `mismatch.MISMATCHES`; an empty one is the nominal model.
        cell_scenes: how many in each cell.
        cutoff: c of GOSPA in metres, beyond which an estimate is a false alarm.
        map_scenes: how many in each direction of the error map; 0 for none.
    """

    sources: tuple[int, ...] = (1, 2, 3)
    snr_db: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0, 20.0)
    range: tuple[float | None, ...] = (None,)
    separation: tuple[float, ...] = (0.0,)
    mismatch: tuple[Levels, ...] = field(default_factory=lambda: ({},))
    cell_scenes: int = 40
    cutoff: float = 1.0
    map_scenes: int = 10

    def __post_init__(self) -> None:
        positive = {"sources": self.sources, "range": [r for r in self.range if r is not None]}
        for name, values in positive.items():
            _require(all(0 < value < math.inf for value in values), name, values, "numbers above zero")
        _require(bool(self.sources and self.snr_db and self.range and self.separation), "axes", self, "a value on each")
        _require(all(-300 <= snr <= 300 for snr in self.snr_db), "snr-db", self.snr_db, "decibels from -300 to 300")
        _require(all(0 <= s <= math.pi for s in self.separation), "separation", self.separation, "0 to π radians")
        _require(self.cell_scenes >= 1, "scenes", self.cell_scenes, "at least 1")
        _require(self.map_scenes >= 0, "map-scenes", self.map_scenes, "at least 0")
        _require(0 < self.cutoff < math.inf, "cutoff", self.cutoff, "a positive number of metres")
        for levels in self.mismatch:
            unknown = [name for name in levels if name not in MISMATCHES]
            _require(not unknown, "mismatch", ", ".join(unknown), ", ".join(MISMATCHES))
            finite = all(0 <= level < math.inf for level in levels.values())
            _require(finite, "mismatch", label(levels), "levels of at least 0")

    def cells(self, cfg: Config) -> list[Cell]:
        """Return the cells; for a single source separations are one cell.

        Raises:
            InputError: more sources than the configuration knows, or a place outside its field of view.
        """
        most = cfg.scene.sources_max
        _require(max(self.sources) <= most, "sources", max(self.sources), f"at most scene.sources_max = {most}")
        cells = []
        for levels, range, separation, K, snr_db in itertools.product(
            self.mismatch, self.range, self.separation, self.sources, self.snr_db
        ):
            if K > 1 or separation == self.separation[0]:
                cells.append(Cell(K, snr_db, range, separation if K > 1 else 0.0, levels))
        _require_drawn(cells, cfg, self.cell_scenes)
        return cells


def _require_drawn(cells: list[Cell], cfg: Config, scenes: int) -> None:
    """Raise where a cell cannot be drawn, before the first one is computed."""
    for cell in cells:
        cell.scene(cfg, 0)
    # Of the other scenes only the places can fail, whatever SNR and mismatch.
    distinct = {(cell.K, cell.range, cell.separation): cell for cell in cells}
    for cell, index in itertools.product(distinct.values(), range(scenes)):
        cell.place(cfg, index)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{value}", where=name, expected=expected)
