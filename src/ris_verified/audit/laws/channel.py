"""What RV1601 measures on drawn channels and codes: Rician moments, the line of sight, the codebook."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.moments import bounded_mean_bound, complex_normal
from ris_verified.audit.oracle import wave
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.scene.scene import Scene

WHERE = "draw_scene"
DIRECT = 1e9  # κ at which scattering is below half precision
HALF = 2.0**-10


def channel_laws(context: Context) -> list[Measurement]:
    """Return moments at the drawn κ, scattering at κ = 0 and the line of sight at κ → ∞ against their declaration."""
    return [*_fourth_moment(context), *_scattered(context), *_direct(context)]


def with_kappa(config: Config, kappa: float) -> Config:
    """Return the configuration with κ fixed."""
    scene = dataclasses.replace(config.scene, rician_factor_min=kappa, rician_factor_max=kappa)
    return dataclasses.replace(config, scene=scene)


def _fourth_moment(context: Context) -> list[Measurement]:
    import numpy as np

    N, found = context.config.array.elements, []
    scenes = sorted(context.scenes + context.many, key=lambda scene: scene.rician_factor)
    half = len(scenes) // 2
    # Each half for itself: κ stated from the wrong end leaves the mean of all as it was.
    for part, label in ((scenes[:half], "lower"), (scenes[half:], "upper")):
        rows = []
        for scene in part:
            kappa = scene.rician_factor
            wanted = (kappa**2 + 4 * kappa + 2) / (1 + kappa) ** 2
            rows.append((N * np.abs(scene.H_full) ** 2).ravel() ** 2 - wanted)
        apart = np.concatenate(rows)
        bound = 6 * float(apart.std()) / apart.size**0.5
        text = f"E|h|⁴N² minus (κ² + 4κ + 2)/(1 + κ)², scenes of the {label} half of the stated κ"
        found.append(at_most(abs(float(apart.mean())), bound, text, where=WHERE))
    return found


def _scattered(context: Context) -> list[Measurement]:
    import numpy as np

    scenes = context.draw(8, with_kappa(context.config, 0.0), key=12)
    z = np.stack([x.H_full for x in scenes]) * context.config.array.elements**0.5
    return complex_normal(z, ("scenes", "antennas", "elements"), "channel √N h at κ = 0", WHERE)


def _direct(context: Context) -> list[Measurement]:
    import numpy as np

    cfg = context.config
    try:
        scenes = context.draw(2, with_kappa(cfg, DIRECT), key=13)
    except ArithmeticError as error:
        return [equal(type(error).__name__, "a channel", f"drawing at κ = {DIRECT:g}", where=WHERE)]
    size = max(float(np.abs(np.abs(x.H_full) * cfg.array.elements**0.5 - 1).max()) for x in scenes)
    found = [at_most(size, 4 * HALF, "modulus of √N h at κ = 1e9, minus one", where=WHERE)]
    if cfg.scene.antennas > 1:
        apart = min(float(np.linalg.norm(x.H_full[0] - x.H_full[-1])) for x in scenes)
        text = "distance of the first antenna's line of sight from the last one's"
        found.append(at_least(apart, 1e-2, text, where=WHERE))
    if min(cfg.array.horizontal, cfg.array.vertical) < 3:
        return found
    worst = min(_point_source(x.H_full[row], cfg) for x in scenes for row in {0, len(x.H_full) // 2})
    text = "likeness of an antenna's line of sight and a spherical wave from base_station_distance"
    return [*found, at_least(worst, 1 - 4 * HALF**2, text, where=WHERE)]


def _point_source(row: Any, cfg: Config) -> float:
    """Return the largest |hᴴa(q)|/(‖h‖‖a‖) over points q at the base station's distance, give or take its size."""
    import numpy as np
    from scipy.optimize import least_squares

    distance = cfg.scene.base_station_distance
    reach = min(0.5, (cfg.scene.antennas + 1) * cfg.array.wavelength / 2 / distance)
    # Four points a main lobe of the panel.
    count = 1 + int(np.ceil(4 * max(cfg.array.horizontal, cfg.array.vertical) * cfg.array.spacing_wavelengths))
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(-1.0, 1.0, count), np.linspace(-1.0, 1.0, count)))
    inside = u**2 + v**2 < 1
    elevation = np.arcsin(v[inside])
    azimuth = np.arcsin(np.clip(u[inside] / np.cos(elevation), -1, 1))
    unit = dataclasses.replace(cfg.array, amplitude="unit")
    h = row / np.linalg.norm(row)
    seen = np.abs(wave(unit, azimuth, elevation, np.full(azimuth.shape, distance)).conj() @ h)

    def apart(x: Any) -> Any:
        a = wave(unit, x[:1], x[1:2], distance * np.exp(x[2:]))[0] / len(row) ** 0.5
        rest = h - a * (a.conj() @ h)
        return np.concatenate([rest.real, rest.imag])

    limits = ([-np.pi, -np.pi / 2, -reach], [np.pi, np.pi / 2, reach])
    best = 0.0
    # Elements further apart than λ/2 have lobes alike in other directions: the four likeliest points are tried.
    for near in np.argsort(-seen)[:4]:
        fit = least_squares(apart, [azimuth[near], elevation[near], 0.0], bounds=limits, xtol=1e-14, ftol=1e-14)
        best = max(best, float((1 - 2 * fit.cost) ** 0.5))
        if best >= 1 - 4 * HALF**2:
            break
    return best


def code_laws(context: Context) -> list[Measurement]:
    """Return that codes are what their indices say, fill the book that is declared and vary."""
    s = context.config.scene
    found = [_values(context.scenes + context.many, s.code_bits)]
    bits = 2 if s.code_bits != 2 else 4
    found.append(_values(context.draw(2, context.config.replaced({"scene.code_bits": bits}), key=14), bits))
    if s.codebook == "random":
        found += _random_book(context)
    else:
        found.append(_in_book(context.scenes + context.many, context.config))
    return found


def _values(scenes: list[Scene], bits: int) -> Measurement:
    import numpy as np

    error = max(float(np.abs(x.codes - np.exp(2j * np.pi * x.code_index / 2**bits)).max()) for x in scenes)
    return at_most(error, 1e-13, f"codes against exp(2πj q/2^{bits}) of their indices", where=WHERE)


def _random_book(context: Context) -> list[Measurement]:
    import numpy as np

    s, array = context.config.scene, context.config.array
    scenes = context.scenes + context.many
    q = np.stack([x.code_index for x in scenes]).reshape(len(scenes), s.snapshots, array.vertical, array.horizontal)
    share = np.bincount(q.ravel(), minlength=2**s.code_bits) / q.size
    apart = float(np.abs(share - 1 / 2**s.code_bits).max())
    found = [
        at_most(apart, bounded_mean_bound(q.size), "share of a phase among the codes, minus an even one", "", WHERE)
    ]
    c = np.exp(2j * np.pi * q / 2**s.code_bits)
    for axis, label in enumerate(("scenes", "snapshots", "rows", "columns")):
        if c.shape[axis] > 1:
            moved = np.moveaxis(c, axis, 0)
            found.append(_uncorrelated(moved[1:] * moved[:-1].conj(), f"neighbouring {label}"))
    if c.shape[1] > 2:
        found.append(_uncorrelated(c[:, 2:] * c[:, :-2].conj(), "every other snapshot"))
    if min(array.vertical, array.horizontal) > 1:
        quad = c[:, :, 1:, 1:] * c[:, :, :-1, :-1] * (c[:, :, 1:, :-1] * c[:, :, :-1, 1:]).conj()
        found.append(_uncorrelated(quad, "the corners of squares (1 for codes of rank one)"))
    return found


def _uncorrelated(product: Any, label: str) -> Measurement:
    # Products share factors: a quarter of them is independent. Real and imaginary part each obey Hoeffding.
    bound = 2**0.5 * bounded_mean_bound(max(1, product.size // 4))
    return at_most(float(abs(product.mean())), bound, f"correlation of random codes, {label}", "", WHERE)


def _in_book(scenes: list[Scene], config: Config) -> Measurement:
    import numpy as np

    array, book, levels = config.array, config.scene.codebook, 2**config.scene.code_bits
    if book == "dft2d":
        u, v = np.divmod(np.arange(64), 8)
        turns = (
            np.outer(u, np.arange(array.horizontal))[:, None] / 8
            + np.outer(v, np.arange(array.vertical))[:, :, None] / 8
        )
    else:
        turns = _walsh(array.horizontal, array.vertical)
    table = (np.rint(turns * levels) % levels).astype(np.int64).reshape(len(turns), -1)
    known = {row.tobytes() for row in table}
    strange = sum(row.astype(np.int64).tobytes() not in known for x in scenes for row in x.code_index)
    return close(float(strange), 0.0, 0.0, f"codes outside the declared book {book}", "codes", WHERE)


def _walsh(horizontal: int, vertical: int) -> Any:
    import numpy as np

    order = 1 << (max(horizontal, vertical, 2) - 1).bit_length()
    index = np.arange(order)
    # Sylvester: the sign of entry (i, j) is the parity of the bits that i and j share.
    shared = index[:, None] & index
    negative = np.array([[bin(int(bits)).count("1") % 2 for bits in row] for row in shared])
    half = negative[:, None, None, :horizontal] + negative[None, :, :vertical, None]
    return (half % 2).reshape(order * order, vertical, horizontal) / 2
