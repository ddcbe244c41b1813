"""Laws of the configuration over drawn valid trees: round trips, digests, overrides."""

from __future__ import annotations

import dataclasses
import json
import math
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ris_verified._config_load import names
from ris_verified.config import Config
from ris_verified.errors import ConfigError


def unit(low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[float]:
    real = st.floats(low, high, allow_nan=False)
    whole = math.ceil(low), math.floor(high)
    # A whole number may be written without a point.
    return real if whole[0] > whole[1] else st.one_of(real, st.integers(*whole))


# Fields whose range depends on no other field; every kind of value is among them.
FREE: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**53),
    "contracts": st.booleans(),
    "array.horizontal": st.integers(3, 40),
    "array.vertical": st.integers(3, 40),
    "array.wavelength": unit(1e-3, 10.0),
    "array.amplitude": st.sampled_from(["unit", "spherical"]),
    "scene.azimuth_max": unit(0.0, math.pi / 2),
    "scene.elevation_max": unit(0.0, math.pi / 2),
    "scene.codebook": st.sampled_from(["random", "dft2d", "hadamard"]),
    "scene.code_bits": st.integers(1, 8),
    "scene.power_spread_db": unit(0.0, 30.0),
    "data.train_scenes": st.integers(1, 10**7),
    "data.workers": st.integers(1, 64),
    "covariance.beta": unit(),
    "covariance.ridge": unit(1e-12, 1e6),
    "covariance.centre": st.booleans(),
    "covariance.factor_mode": st.sampled_from(["product", "sum", "real"]),
    "model.dropout": unit(0.0, 0.9),
    "model.layers": st.integers(1, 20),
    "loss.alignment": unit(1e-6, 10.0),
    "loss.covariance": unit(0.0, 10.0),
    "train.learning_rate": unit(1e-9, 1.0),
    "train.weight_decay": unit(),
    "train.precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "estimate.mle_snr_threshold_db": unit(-100.0, 100.0),
    "estimate.newton_step": unit(0.01, 1.0),
    "estimate.order_criterion": st.sampled_from(["marginal", "bic", "aicc", "model", "auto"]),
    "estimate.prior": st.sampled_from(["scene", "none"]),
    "hpo.data_share": unit(1e-3, 1.0),
}


@st.composite
def coupled(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(unit(1e-3, 50.0), unit(1e-3, 50.0))))
    quiet, loud = sorted(draw(st.tuples(unit(-40.0, 60.0), unit(-40.0, 60.0))))
    fewest, most = sorted(draw(st.tuples(st.integers(1, 7), st.integers(1, 7))))
    heads = draw(st.integers(1, 12))
    return {
        "scene.range_min": low,
        "scene.range_max": high,
        "scene.snr_db_min": quiet,
        "scene.snr_db_max": loud,
        "scene.sources_min": fewest,
        "scene.sources_max": most,
        "scene.antennas": draw(st.integers(most + 1, 64)),
        "model.heads": heads,
        "model.width": heads * draw(st.integers(1, 64)),
        "model.head_width": draw(st.integers(1, 700)),
        "model.dictionary_azimuth": 4 * draw(st.integers(1, 16)),
    }


def configurations() -> st.SearchStrategy[Config]:
    free = st.fixed_dictionaries({}, optional=FREE)
    return st.builds(lambda a, b: Config().replaced({**a, **b}), free, st.one_of(st.just({}), coupled()))


def value_of(cfg: Config, name: str) -> Any:
    value: Any = cfg
    for part in name.split("."):
        value = vars(value)[part]
    return value


def attempt(build: Callable[[], Config]) -> tuple[Config | None, str]:
    try:
        return build(), ""
    except ConfigError as error:
        return None, str(error)


@settings(max_examples=30)
@given(configurations())
def test_toml_round_trip_is_exact(cfg: Config) -> None:
    again = Config.loads(cfg.to_toml())
    assert again == cfg
    assert again.digest() == cfg.digest()
    assert again.to_toml() == cfg.to_toml()


@settings(max_examples=10)
@given(configurations())
def test_overrides_of_every_field_rebuild_the_tree(cfg: Config) -> None:
    overrides = [f"{name}={json.dumps(value_of(cfg, name))}" for name in names(Config)]
    assert Config.load(overrides=overrides) == cfg


@settings(max_examples=30)
@given(configurations(), st.data())
def test_the_digest_moves_with_every_field_and_only_then(cfg: Config, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FREE)))
    value = data.draw(FREE[name])
    changed = cfg.replaced({name: value})
    same = value == value_of(cfg, name)
    assert (changed == cfg) is same
    assert (changed.digest() == cfg.digest()) is same
    assert changed.replaced({name: value_of(cfg, name)}).digest() == cfg.digest()


@pytest.mark.parametrize("name", names(Config))
def test_no_field_is_left_out_of_the_digest(name: str) -> None:
    cfg = Config()
    value = value_of(cfg, name)
    others: tuple[Any, ...] = (
        ("spherical", "dft2d", "constant", "sum", "float32", "aicc", "bic", "narrow", "none")
        if isinstance(value, str)
        else (not value,)
        if isinstance(value, bool)
        else (value + 1, value + 0.5, value * 2, value * 8, value / 2, value - 1)
    )
    digests = set()
    for other in others:
        try:
            changed = cfg.replaced({name: other})
        except ConfigError:
            continue
        digests |= {changed.digest()} if changed != cfg else set()
    assert digests
    assert cfg.digest() not in digests


@given(st.text(string.ascii_letters + "_.", min_size=1, max_size=30))
@example(".A")
def test_an_unknown_key_is_always_one_error_that_names_it(key: str) -> None:
    assume(key not in names(Config) and key not in {f.name for f in dataclasses.fields(Config)})
    with pytest.raises(ConfigError) as caught:
        Config.load(overrides=[f"{key}=1"])
    parts = [part for part in key.split(".") if part]
    assert any(part in str(caught.value) for part in parts) or not parts


@given(
    st.sampled_from(names(Config)),
    st.one_of(
        st.none(), st.lists(st.integers(), max_size=3), st.floats(), st.integers(), st.booleans(), st.text(max_size=8)
    ),
)
def test_any_value_is_taken_as_it_is_or_refused_by_name(name: str, value: Any) -> None:
    made, refusal = attempt(lambda: Config().replaced({name: value}))
    if made is None:
        assert name.split(".")[-1].split("_")[0] in refusal
    else:
        assert value_of(made, name) == value
        assert Config.loads(made.to_toml()) == made


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_one_error(text: str) -> None:
    made, refusal = attempt(lambda: Config.loads(text, "this text"))
    if made is None:
        assert refusal
    else:
        assert Config.loads(made.to_toml()) == made
