"""Section 10: stored or drawn scenes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import KEY, Context
from ris_verified.audit.damage import DAMAGE, damage_file, tiny_data
from ris_verified.audit.laws.drawn import own_keys
from ris_verified.audit.laws.proposals import stored_proposals
from ris_verified.audit.laws.unpacking import as_drawn, missing_kept, moves, proposals_kept, refusals, same_field
from ris_verified.audit.rule import Measurement, NotApplicable, at_least, at_most, close, equal, rule

if TYPE_CHECKING:
    from ris_verified.data.batch import Batch
    from ris_verified.data.dataset import SceneDataset

CHECKED = 256


@rule(
    "RV1001",
    "Shards are whole, and damage is named",
    law="every shard of the manifest is there with its checksum; flipped bit, truncation, absence and strangers are"
    " named",
    why="A loader that skips what it cannot read trains on less than it says.",
    how="With --data the folder is verified. Always: six scenes are generated, found sound, damaged in four ways, and "
    "each time the damaged shard must be the one that is named.",
    remedy="run `ris-verified generate` again; whole shards are kept",
)
def shards_whole(context: Context) -> Sequence[Measurement]:
    """Checksums are compared: no tolerance."""
    from ris_verified.data.manifest import verify

    found = []
    if context.data is not None:
        problems = verify(context.data, context.config)
        where = problems[0] if problems else context.data.name
        found.append(at_most(float(len(problems)), 0.0, "problems of the data folder", "shards", where))
    for kind in DAMAGE:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tiny_data(context, folder)
            found.append(equal(verify(folder), [], "problems of a folder just written", where="verify"))
            shard = damage_file(kind)(folder)
            named = [problem for problem in verify(folder) if shard in problem]
            found.append(equal(len(named), 1, f"sentences that name the shard: {kind}", where="verify"))
    return found


def _datasets(context: Context) -> list[SceneDataset]:
    from ris_verified.data.dataset import SceneDataset

    if context.data is None:
        raise NotApplicable("no --data folder")
    return [SceneDataset(context.data, split) for split in ("train", "validation", "test")]


def checked_batch(context: Context) -> Batch:
    """Return up to 256 stored training scenes, or the drawn ones."""
    import torch

    if context.data is None:
        return context.batch
    dataset = _datasets(context)[0]
    return context.pipeline.unpack(dataset.batch(torch.arange(min(CHECKED, len(dataset)))), "cpu")


@rule(
    "RV1002",
    "Stored form and R_true",
    law="to_ri stacks (re, im) on the last axis; H_full [M, N, 2], C [L, N, 2]; R_true ∝ A P Aᴴ with trace N; stored "
    "proposals are those that inference makes",
    why="R_true of other positions or powers than stored ones is a target that cannot be reached; proposals of other "
    "scenes or of an older search are inputs that inference never sees.",
    how="Shapes of stored or drawn scenes; R_true against A P Aᴴ of the stated positions (equal powers where powers"
    " are not stored), bound 8 eps·N of trace N in float32 plus the rounding of positions, k r eps. Stored proposals "
    "of 32 scenes against those made now: median of the largest gap over a figure's scale, bound 1e3 eps.",
    remedy="build R_true from the stored positions and powers; generate the data again where the search has changed",
)
def stored_form(context: Context) -> Sequence[Measurement]:
    """Positions in float32 turn phases by at most k·r·eps on each element."""
    import torch

    from ris_verified.shapes import to_ri

    z = torch.tensor([[1 + 2j, 3 - 4j]])
    batch, cfg = checked_batch(context), context.config
    N, M, L = cfg.array.elements, cfg.scene.antennas, cfg.scene.snapshots
    found = [
        equal(to_ri(z).tolist(), [[[1.0, 2.0], [3.0, -4.0]]], "to_ri of 1+2j, 3−4j", where="to_ri"),
        equal(list(batch.H_full.shape[1:]), [M, N, 2], "shape of a scene", where="H_full"),
        equal(list(batch.C.shape[1:]), [L, N, 2], "shape of a scene", where="C"),
        *stored_proposals(context, batch),
    ]
    if cfg.scene.power_spread_db or not all(m.passed for m in found):
        return found
    present = torch.isfinite(batch.ptr).all(-1)
    place = torch.where(present[..., None], batch.ptr, 1.0).double()
    A = context.pipeline.steering(cfg.array, *place.unbind(-1)).mT * present[:, None]
    R = A @ A.mH
    R = R * (N / torch.diagonal(R, dim1=1, dim2=2).real.sum(-1))[:, None, None]
    eps = torch.finfo(torch.float32).eps
    bound = 8 * eps * (N + cfg.array.wavenumber * cfg.scene.range_max)
    error = float(((batch.R_in - R).flatten(1).norm(dim=1) / N).max())
    return [*found, at_most(error, bound, "R_true against A P Aᴴ of the positions, relative", where="R_in")]


@rule(
    "RV1003",
    "Tuple and dict unpack to the same eight",
    law="unpack((y, H, C, ptr, K, R_in, snr, H_full)) = unpack({…}) = unpack(Batch) = the eight as given, "
    "on the device that is asked for",
    why="A loader that changes its order swaps tensors of equal shape without an error.",
    how="The drawn scenes, assembled before the stage, are unpacked from a tuple, a dict, a dict in reverse order "
    "with a further entry, and a Batch; fields are compared with what was given bit for bit and by dtype, and with "
    "the drawn scenes; so are proposals that come with a Batch. NaN and infinity in y stay or are refused. A dict "
    "that lacks a field must raise. The device is tried with torch's `meta` device.",
    remedy="unpack by name; let tuples follow FIELDS; neither convert nor fill in",
)
def unpacks(context: Context) -> Sequence[Measurement]:
    """Bits are compared: no tolerance; stated values pass through float32, half a unit in the last place."""
    from ris_verified.data.batch import FIELDS
    from ris_verified.data.dataset import scenes_to_batch

    given = scenes_to_batch(context.scenes, context.config)
    fields = {name: vars(given)[name] for name in FIELDS}
    turned = {"spare": fields["y"][:1]} | dict(reversed(fields.items()))
    kinds = {"a tuple": tuple(fields.values()), "a list": list(fields.values()), "a dict": fields,
             "a dict in another order": turned, "a Batch": given}  # fmt: skip
    found = []
    for kind, value in kinds.items():
        made = context.pipeline.unpack(value, "cpu")
        found += [same_field(vars(made)[name], fields[name], name, kind) for name in FIELDS]
    found += proposals_kept(context, given)
    found += [*as_drawn(context, given), *missing_kept(context, given)]
    return [*found, *refusals(context, fields), *moves(context, given)]


@rule(
    "RV1004",
    "Measurements follow from the stored scene",
    law="y_l = H diag(c_l) A s_l + n_l, E|n|² = σ², SNR = mean|Φ_l x_l|²/σ²",
    why="Labels of another scene than the measurement's cannot be learnt, only memorised.",
    how="Each scene's residual y − Φ A s over its stated σ²: mean ratio 1 within five standard errors; the measured"
    " SNR against the stated one, mean difference within 0.5 dB (checklist); the SNR of stated σ² and clean "
    "measurement against the stated one in each scene, bound 0.05 dB (channels are stored in half precision).",
    remedy="store what the measurement was made with",
)
def follows(context: Context) -> Sequence[Measurement]:
    """|n|²/σ² is exponential: its mean over n entries has standard error 1/√n."""
    import numpy as np

    ratios, gaps, stated = [], [], []
    for y, clean, variance, snr_db in _measurements(context):
        stated.append(abs(10 * np.log10(np.mean(np.abs(clean) ** 2) / variance) - snr_db))
        ratios.append(np.mean(np.abs(y - clean) ** 2) / variance)
        gaps.append(10 * np.log10(np.mean(np.abs(clean) ** 2) / np.mean(np.abs(y - clean) ** 2)) - snr_db)
    cfg = context.config.scene
    error = 5 / np.sqrt(len(ratios) * cfg.antennas * cfg.snapshots)
    return [
        close(float(np.mean(ratios)), 1.0, float(error), f"residual over stated σ², {len(ratios)} scenes", where="y"),
        at_most(abs(float(np.mean(gaps))), 0.5, "measured minus stated SNR, mean", "dB", "snr"),
        at_most(float(max(stated)), 0.05, "SNR of the stated σ² minus the stated SNR, a scene", "dB", "snr"),
    ]


def _measurements(context: Context) -> list[tuple[Any, Any, float, float]]:
    import numpy as np
    import torch

    from ris_verified.audit.oracle import closed_form
    from ris_verified.shapes import from_ri

    rows = []
    if context.data is None:
        for s in context.scenes + context.many:
            A = closed_form(context, s.azimuth, s.elevation, s.range).T
            rows.append((s.y, (s.codes * (s.symbols @ A.T)) @ s.H_full.T, s.noise_variance, s.snr_db))
        return rows
    dataset = _datasets(context)[0]
    index = torch.arange(min(CHECKED, len(dataset)))
    batch, truth = dataset.batch(index), dataset.truth(index)
    y, H, C, symbols = (from_ri(v.double()).numpy() for v in (batch.y, batch.H_full, batch.C, truth.symbols))
    for i, K in enumerate(batch.K.tolist()):
        place = truth.ptr[i, :K].numpy()
        A = closed_form(context, *place.T).T
        clean = (C[i] * (symbols[i, :, :K] @ A.T)) @ H[i].T
        rows.append((y[i], np.asarray(clean), float(truth.noise_variance[i]), float(batch.snr[i])))
    return rows


@rule(
    "RV1005",
    "Scenes repeat by seed and avoid every grid",
    law="draw(cfg, key) twice gives equal bytes; other keys other scenes; positions lie off the search grids",
    why="Sources on the grid make the search look exact; unseeded scenes make a result unrepeatable.",
    how="One scene is drawn twice and with another key; some 250 keys of all splits, far indices and two seeds must "
    "differ in every field; the drawn coordinates that are whole multiples of a degree or "
    "10 cm, or that lie on an axis of the spectrum's, the search's or the model's grid, are counted. Bounds: equal "
    "bytes; none on a grid.",
    remedy="draw from default_rng([seed, *key]), uniformly and continuously",
)
def repeatable(context: Context) -> Sequence[Measurement]:
    """A continuous position is within 1e-9 of a grid with probability below 1e-6 for 64 scenes."""
    import numpy as np

    draw, cfg = context.pipeline.draw_scene, context.config
    first, again, other = draw(cfg, KEY, 1), draw(cfg, KEY, 1), draw(cfg, KEY, 2)
    angles = np.degrees(np.concatenate([np.r_[s.azimuth, s.elevation] for s in context.many]))
    ranges = np.concatenate([s.range for s in context.many]) * 10
    on_grid = sum(int((np.abs(v - np.round(v)) < 1e-9).sum()) for v in (angles, ranges))
    return [
        equal(first.y.tobytes() == again.y.tobytes(), True, "the same key gives the same bytes", where="draw_scene"),
        equal(first.y.tobytes() == other.y.tobytes(), False, "another key gives the same bytes", where="draw_scene"),
        at_most(float(on_grid), 0.0, "coordinates on a grid of degrees or decimetres", where="draw_scene"),
        at_most(float(_on_axes(context)), 0.0, "coordinates on a grid of search or model", where="draw_scene"),
        at_least(float(np.unique(angles).size), float(angles.size), "distinct angles drawn", where="draw_scene"),
        *own_keys(context),
    ]


def _on_axes(context: Context) -> int:
    import numpy as np

    from ris_verified.array.grid import view_grid

    e, m, hits = context.config.estimate, context.config.model, 0
    for shape in (
        (e.grid_range, e.grid_elevation, e.grid_azimuth),
        (e.search_range, e.search_elevation, e.search_azimuth),
        (m.dictionary_range, m.dictionary_elevation, m.dictionary_azimuth),
    ):
        axes = [np.unique(axis) for axis in view_grid(context.config.scene, shape).numpy().T]
        for scene in context.many:
            for drawn, axis in zip((scene.azimuth, scene.elevation, 1 / scene.range), axes, strict=True):
                hits += int((np.abs(drawn[:, None] - axis) < 1e-9).any(-1).sum())
    return hits
