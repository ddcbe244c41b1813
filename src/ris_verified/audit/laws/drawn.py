"""What RV1601 measures on drawn scenes: positions, counts, powers, symbols, noise and the stated figures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import KEY, Context
from ris_verified.audit.moments import (
    NATS,
    bounded_mean_bound,
    complex_normal,
    exponential_bound,
    uniform,
    weighted_bound,
)
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.scene.scene import Scene

WHERE = "draw_scene"
PLAIN, CROWDED = 250, 150
# Keys drawn in a row: of so many, two are the same with 99 % where there are only a million.
MANY = 3000
UNEVEN = 8.0  # decibels


def tiny_config(config: Config, **scene: Any) -> Config:
    """Return the configuration with a panel of 3 × 2 and two snapshots: its scenes cost next to nothing.

    Args:
        config: whose view, limits and codebook stay.
        scene: further fields of the scene.
    """
    most = min(config.scene.sources_max, 6)
    sizes = {"antennas": most + 1, "snapshots": 2, "sources_max": most} | scene
    sizes["sources_min"] = min(sizes.get("sources_min", config.scene.sources_min), sizes["sources_max"])
    array = dataclasses.replace(config.array, horizontal=3, vertical=2)
    return dataclasses.replace(config, array=array, scene=dataclasses.replace(config.scene, **sizes))


def drawn_laws(context: Context) -> list[Measurement]:
    """Return positions, counts, stated figures, powers, symbols and noise of drawn scenes against their declaration."""
    config = tiny_config(context.config)
    full = tiny_config(context.config, sources_min=config.scene.sources_max)
    draw, seed = context.pipeline.draw_scene, context.seed
    many = [draw(config, KEY + 6, seed, i) for i in range(PLAIN)]
    crowded = [draw(full, KEY + 8, seed, i) for i in range(CROWDED)]
    uneven = dataclasses.replace(full, scene=dataclasses.replace(full.scene, power_spread_db=UNEVEN))
    spread = [draw(uneven, KEY + 11, seed, i) for i in range(CROWDED)]
    found = [*_positions(many + crowded, config), *_counts(context, many, config), *_codes(context.scenes, config)]
    # What holds of all scenes together may be false of those with one number of sources.
    for K in {1, config.scene.sources_max}:
        found += _positions([x for x in many + crowded if len(x.azimuth) == K], config, f", of {K} sources")
    for scenes, drawn_by in ((many + crowded, config), (crowded, full), (spread, uneven)):
        found += _powers(scenes, drawn_by)
    return [*found, *_symbols(context), *_streams(crowded), *_noise(context.scenes + context.many)]


def _positions(scenes: list[Scene], config: Config, which: str = "") -> list[Measurement]:
    import numpy as np

    s = config.scene
    if not scenes:
        return []
    limits = {"azimuth": (-s.azimuth_max, s.azimuth_max), "elevation": (-s.elevation_max, s.elevation_max),
              "range": (s.range_min, s.range_max)}  # fmt: skip
    found = []
    for name, (low, high) in limits.items():
        found += uniform(np.concatenate([vars(scene)[name] for scene in scenes]), low, high, f"{name}{which}", WHERE)
        pairs = np.array([vars(scene)[name][:2] for scene in scenes if len(scene.azimuth) > 1])
        if len(pairs) and high > low:
            product = np.prod((2 * pairs - low - high) / (high - low), axis=1)
            text = f"correlation of the {name} of two sources of a scene{which}"
            found.append(at_most(abs(float(product.mean())), bounded_mean_bound(len(pairs)), text, "", WHERE))
    found += uniform(np.array([x.snr_db for x in scenes]), s.snr_db_min, s.snr_db_max, "stated SNR in dB", WHERE)
    stated = np.array([x.rician_factor for x in scenes])
    return found + uniform(stated, s.rician_factor_min, s.rician_factor_max, "stated κ", WHERE)


def _counts(context: Context, scenes: list[Scene], config: Config) -> list[Measurement]:
    s = config.scene
    K = [len(x.azimuth) for x in scenes]
    wanted = range(s.sources_min, s.sources_max + 1)
    rare = min(wanted, key=K.count)
    share = K.count(rare) / len(K) * len(wanted)
    found = [
        equal(sorted(set(K)), list(wanted), "numbers of sources drawn", "sources", WHERE),
        at_least(share, 0.25, f"share of scenes with {rare} sources over an even share", "", WHERE),
    ]
    for most in {s.sources_min, s.sources_max, (s.sources_min + s.sources_max) // 2}:
        fixed = tiny_config(context.config, sources_min=most, sources_max=most)
        drawn = {len(context.pipeline.draw_scene(fixed, KEY + 7, context.seed, i).azimuth) for i in range(8)}
        found.append(equal(drawn, {most}, "sources drawn where both limits are the same", "sources", WHERE))
    return found


def _powers(scenes: list[Scene], config: Config) -> list[Measurement]:
    import numpy as np

    spread = config.scene.power_spread_db
    gap = max(float(10 * np.log10(x.powers.max() / x.powers.min())) for x in scenes)
    found = [at_most(gap, spread + 1e-9, f"spread of powers, declared {spread:g} dB", "dB", WHERE)]
    if config.scene.sources_min > 1 and spread > 0:
        found.append(at_least(gap, 0.6 * spread, f"widest spread drawn, declared {spread:g} dB", "dB", WHERE))
    P = np.concatenate([x.powers for x in scenes])
    seen = np.concatenate([np.mean(np.abs(x.symbols) ** 2, 0) for x in scenes])
    own = config.scene.snapshots if config.scene.symbols == "varying" else 1
    bound = weighted_bound(np.repeat(P, own))
    text = f"Σ|s|²/ΣP, declared spread {spread:g} dB"
    found.append(close(float(seen.sum() / P.sum()), 1.0, bound, text, where=WHERE))
    for part, label in ((P > 1 + 1e-9, "strong"), (P < 1 - 1e-9, "weak")):
        if part.any():
            ratio, count = float(np.mean(seen[part] / P[part])), own * int(part.sum())
            found.append(close(ratio, 1.0, exponential_bound(count), f"|s|²/P of {label} sources", where=WHERE))
    return found


def _codes(scenes: list[Scene], config: Config) -> list[Measurement]:
    """Snapshots of one code say the same twice; few elements may meet one code twice by chance."""
    import numpy as np

    L, N = scenes[0].codes.shape
    if L > N or 1e-9 * 2.0 ** (N * config.scene.code_bits) < L**2:
        return []
    fewest = min(len(np.unique(np.round(scene.codes, 6), axis=0)) for scene in scenes)
    return [equal(fewest, L, "different codes of a scene, the fewest of all scenes", "codes", WHERE)]


def _symbols(context: Context) -> list[Measurement]:
    import numpy as np

    scenes = [x for x in context.scenes + context.many if len(x.azimuth) > 1]
    two = len(scenes) >= 24
    if not two:
        scenes = context.scenes + context.many
    z = np.stack([(x.symbols / np.sqrt(x.powers))[:, : 2 if two else 1] for x in scenes])
    if context.config.scene.symbols == "constant":
        found = [
            at_most(float(np.abs(z - z[:, :1]).max()), 0.0, "change of constant symbols over snapshots", "", WHERE)
        ]
        return found + complex_normal(z[:, 0], ("scenes", "sources"), "symbols", WHERE)
    return complex_normal(z, ("scenes", "snapshots", "sources"), "symbols", WHERE)


def _streams(scenes: list[Scene]) -> list[Measurement]:
    """No two sources of a scene share their symbols: R_true has uncorrelated ones."""
    import numpy as np

    z = np.stack([x.symbols / np.sqrt(x.powers) for x in scenes])
    # Constant symbols repeat.
    z = z[:, :1] if (z == z[:, :1]).all() else z
    products = np.abs(np.einsum("slj,slk->jk", z, z.conj())) / (z.shape[0] * z.shape[1])
    if len(products) < 2:
        return []
    largest = float(products[~np.eye(len(products), dtype=bool)].max())
    bound = 2**0.5 * exponential_bound(z.shape[0] * z.shape[1])
    text = f"largest correlation of the symbols of two of {len(products)} sources"
    return [at_most(largest, bound, text, "", WHERE)]


def _noise(scenes: list[Scene]) -> list[Measurement]:
    import numpy as np

    z = np.stack([(x.y - x.y_clean) / np.sqrt(x.noise_variance) for x in scenes])
    found = complex_normal(z, ("scenes", "snapshots", "antennas"), "noise over its stated σ", WHERE)
    clean = np.stack([x.y_clean / np.sqrt(np.mean(np.abs(x.y_clean) ** 2)) for x in scenes])
    product = float(abs(np.mean(z * clean.conj())))
    # z is CN(0, 1) beside fixed weights: the mean is CN(0, Σ|w|²/n²), its modulus squared exponential.
    bound = float(NATS * np.sum(np.abs(clean) ** 2)) ** 0.5 / z.size
    found.append(at_most(product, bound, "correlation of noise and signal", "", WHERE))
    loud = float(np.sum(np.abs(clean * z) ** 2) / np.sum(np.abs(clean) ** 2))
    text = "noise power weighted with the signal's"
    found.append(close(loud, 1.0, weighted_bound(np.abs(clean) ** 2), text, where=WHERE))
    strong = np.stack([np.linalg.eigh(x.H_full @ x.H_full.conj().T)[1][:, -1] for x in scenes])
    along = np.einsum("slm,sm->sl", z, strong.conj())
    text = "noise power along the channel's strongest direction"
    return [*found, close(float(np.mean(np.abs(along) ** 2)), 1.0, exponential_bound(along.size), text, where=WHERE)]


def own_keys(context: Context) -> list[Measurement]:
    """Return that keys of every split, far indices and other seeds give scenes of their own, field by field."""
    config = tiny_config(context.config)
    other = dataclasses.replace(config, seed=config.seed + 1)
    sizes = context.config.data
    last = max(sizes.train_scenes, sizes.validation_scenes, sizes.test_scenes)
    near = {0, 1, 2, 3, last - 2, last - 1, *(10**p + i for p in range(1, 7) for i in (0, 1))}
    near |= {2**p + i for p in range(2, 20) for i in (0, 1)}
    keys = [(c, split, i) for c in (config, other) for split in (0, 1, 2) for i in sorted(near) if i < max(last, 4)]
    keys += [(config, 0, i) for i in range(min(last, MANY)) if i not in near]
    scenes = [context.pipeline.draw_scene(c, split, i) for c, split, i in keys]
    found = []
    for name in ("azimuth", "symbols", "H_full", "y"):
        # The key is what separates scenes: two that agree in one field share what that field was drawn from.
        repeated = len(scenes) - len({vars(scene)[name].tobytes() for scene in scenes})
        text = f"repeated {name} among {len(keys)} keys of two seeds"
        found.append(at_most(float(repeated), 0.0, text, "scenes", "draw_scene"))
    return found
