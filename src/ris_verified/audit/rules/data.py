"""Section 10: stored or drawn scenes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ris_verified.audit.context import KEY, Context
from ris_verified.audit.damage import DAMAGE, damage_file, tiny_data
from ris_verified.audit.laws.drawn import own_keys
from ris_verified.audit.laws.proposals import stored_proposals
from ris_verified.audit.laws.stored_truth import followed, forms, off_grids
from ris_verified.audit.laws.unpacking import as_drawn, missing_kept, moves, proposals_kept, refusals, same_field
from ris_verified.audit.rule import Measurement, at_least, at_most, equal, rule


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


@rule(
    "RV1002",
    "Stored form and R_true",
    law="to_ri stacks (re, im) on the last axis; H_full [M, N, 2], C [L, N, 2]; R_true ∝ A P Aᴴ with trace N; stored "
    "proposals are those that inference makes",
    why="R_true of other positions or powers than stored ones is a target that cannot be reached; proposals of other "
    "scenes or of an older search are inputs that inference never sees.",
    how="Shapes of the drawn scenes, or of some 256 of every split, spread over all of its shards; R_true against "
    "A P Aᴴ of the stated positions and powers, bound 8 eps·N of trace N in float32 plus the rounding of positions, "
    "k r eps. Stored proposals of 16 scenes of every split, and at least one of each of up to 128 shards, against "
    "those made now: median of the largest gap over a figure's scale, bound 1e3 eps; the four shards whose scenes "
    "differ most are looked at again, 16 scenes each.",
    remedy="build R_true from the stored positions and powers; generate the data again where the search has changed",
)
def stored_form(context: Context) -> Sequence[Measurement]:
    """Positions in float32 turn phases by at most k·r·eps on each element."""
    import torch

    from ris_verified.shapes import to_ri

    z = torch.tensor([[1 + 2j, 3 - 4j]])
    stacked = equal(to_ri(z).tolist(), [[[1.0, 2.0], [3.0, -4.0]]], "to_ri of 1+2j, 3−4j", where="to_ri")
    return [stacked, *forms(context), *stored_proposals(context)]


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
    how="Drawn scenes, or some 256 of every split, spread over all of its shards. Each scene's residual y − Φ A s over "
    "its stated σ²: mean ratio 1 within five standard errors, and no scene farther out than the tail of the Gamma "
    "distribution lets it, e⁻²⁰ for all together; likewise |s|² of each source over its stated power. The measured "
    "SNR against the stated one, mean difference within 0.5 dB (checklist; five standard errors where scenes are few); "
    "the SNR of stated σ² and clean measurement against the stated one in each scene, bound 0.05 dB (channels are "
    "stored in half precision).",
    remedy="store what the measurement was made with",
)
def follows(context: Context) -> Sequence[Measurement]:
    """|n|²/σ² is exponential: its mean over n entries has standard error 1/√n and a Gamma distribution."""
    return list(followed(context))


@rule(
    "RV1005",
    "Scenes repeat by seed and avoid every grid",
    law="draw(cfg, key) twice gives equal bytes; other keys other scenes; positions lie off the search grids",
    why="Sources on the grid make the search look exact; unseeded scenes make a result unrepeatable.",
    how="One scene is drawn twice and with another key; 3,000 keys in a row and some 250 of all splits, far indices "
    "and two seeds must differ in every field; the drawn coordinates that are whole multiples of a degree or 10 cm, or "
    "that lie on an axis of the spectrum's, the search's or the model's grid, are counted, and so are stored ones of "
    "some 256 scenes of every split, spread over all of its shards. Bounds: equal bytes; none on a grid, to 64 "
    "roundings.",
    remedy="draw from default_rng([seed, *key]), uniformly and continuously",
)
def repeatable(context: Context) -> Sequence[Measurement]:
    """A continuous position is within 64 roundings of a grid with probability below 1e-6 for a thousand scenes."""
    import numpy as np

    draw, cfg = context.pipeline.draw_scene, context.config
    first, again, other = draw(cfg, KEY, 1), draw(cfg, KEY, 1), draw(cfg, KEY, 2)
    # An angle that the declaration fixes is the same in all scenes.
    free = [name for name in ("azimuth", "elevation") if vars(cfg.scene)[f"{name}_max"] > 0]
    angles = np.concatenate([np.empty(0), *(vars(scene)[name] for scene in context.many for name in free)])
    return [
        equal(first.y.tobytes() == again.y.tobytes(), True, "the same key gives the same bytes", where="draw_scene"),
        equal(first.y.tobytes() == other.y.tobytes(), False, "another key gives the same bytes", where="draw_scene"),
        *off_grids(context),
        at_least(float(np.unique(angles).size), float(angles.size), "distinct angles drawn", where="draw_scene"),
        *own_keys(context),
    ]
