import copy
import json
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.quant import PRESETS, QuantConfig, resolve_quant

configs = st.builds(
    QuantConfig,
    weight_bits=st.sampled_from([1.58, 2, 3, 4, 5, 6, 7, 8, None]),
    weight_measure=st.sampled_from(["absmean", "absmedian", "absmax"]),
    granularity=st.sampled_from(["tensor", "channel"]),
    activation_bits=st.sampled_from([2, 3, 4, 5, 6, 7, 8, None]),
    layer_norm=st.booleans(),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    full_range=st.booleans(),
    rescale_bias=st.booleans(),
    eps=st.floats(1e-30, 0.99),
)


def test_quant_config_is_b158_by_default():
    config = QuantConfig()
    assert config.to_dict() == {
        "weight_bits": 1.58,
        "weight_measure": "absmean",
        "granularity": "tensor",
        "activation_bits": 8,
        "layer_norm": False,
        "rounding": "nearest",
        "full_range": False,
        "rescale_bias": False,
        "eps": 1e-8,
    }
    assert config == QuantConfig.preset("b158") == PRESETS["b158"]
    assert config.ternary


@given(configs)
def test_quant_config_goes_through_json_and_back(config):
    text = config.to_json()
    assert QuantConfig.from_json(text) == config
    assert QuantConfig.from_json(text).to_json() == text
    assert QuantConfig.from_dict(json.loads(text)) == config
    assert list(config.to_dict()) == [field.name for field in fields(QuantConfig)]


@given(configs, configs)
def test_quant_config_equality_is_that_of_its_fields(first, second):
    assert (first == second) == (first.to_dict() == second.to_dict())
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first)), first.replace()]
    assert {first, *copies} == {first}


def test_bits_are_those_of_the_table():
    config = QuantConfig(weight_bits=4.0, activation_bits=8.0)
    assert config.to_json() == QuantConfig(weight_bits=4).to_json()
    assert type(config.activation_range[0]) is int


def test_quant_config_is_immutable():
    config = QuantConfig()
    with pytest.raises(FrozenInstanceError):
        config.weight_bits = 2
    other = config.replace(weight_bits=2)
    assert (config.weight_bits, other.weight_bits) == (1.58, 2)


@pytest.mark.parametrize(
    "bits,low,high", [(1.58, -1, 1), (2, -2, 1), (3, -4, 3), (4, -8, 7), (8, -128, 127)]
)
def test_weight_range(bits, low, high):
    assert QuantConfig(weight_bits=bits).weight_range == (low, high)
    assert QuantConfig(weight_bits=bits).ternary == (bits == 1.58)


@pytest.mark.parametrize("bits,high", [(2, 1), (3, 3), (4, 7), (5, 15), (6, 31), (7, 63), (8, 127)])
def test_activation_range(bits, high):
    assert QuantConfig(activation_bits=bits).activation_range == (-high, high)
    assert QuantConfig(activation_bits=bits, full_range=True).activation_range == (-high - 1, high)


def test_ranges_of_32_bit_values():
    config = QuantConfig(weight_bits=None, activation_bits=None)
    assert not config.ternary
    with pytest.raises(ValueError, match=r"32-bit weights \('weight_bits=None'\)"):
        _ = config.weight_range
    with pytest.raises(ValueError, match=r"32-bit activations \('activation_bits=None'\)"):
        _ = config.activation_range


@pytest.mark.parametrize(
    "field,value,message",
    [
        ("weight_bits", 1, r"'weight_bits' must be one of 1.58, 2, .*, 8, None \(got 1\)"),
        ("weight_bits", 9, r"\(got 9\)"),
        ("weight_bits", 1.6, r"\(got 1.6\)"),
        ("weight_bits", "1.58", r"\(got '1.58'\)"),
        ("weight_measure", "mean", r"must be one of 'absmean', 'absmedian', 'absmax' \(got 'mean'"),
        ("weight_measure", None, r"\(got None\)"),
        ("granularity", "row", r"must be one of 'tensor', 'channel' \(got 'row'\)"),
        ("activation_bits", 1, r"'activation_bits' must be one of 2, 3, .*, 8, None \(got 1\)"),
        ("activation_bits", 16, r"\(got 16\)"),
        ("activation_bits", True, r"\(got True\)"),
        ("layer_norm", 1, r"'layer_norm' must be one of True, False \(got 1\)"),
        ("full_range", None, r"'full_range' must be one of True, False \(got None\)"),
        ("rescale_bias", "yes", r"'rescale_bias' must be one of True, False \(got 'yes'\)"),
        ("rounding", "floor", r"must be one of 'nearest', 'stochastic' \(got 'floor'\)"),
        ("eps", 0.0, r"'eps' must lie between .* \(got 0.0\)"),
        ("eps", -1e-8, r"\(got -1e-08\)"),
        ("eps", 1.0, r"\(got 1.0\)"),
        ("eps", float("nan"), r"\(got nan\)"),
        ("eps", "1e-8", r"\(got '1e-8'\)"),
    ],
)
def test_quant_config_validates_its_fields(field, value, message):
    with pytest.raises(ValueError, match=message):
        QuantConfig(**{field: value})
    with pytest.raises(ValueError, match=message):
        QuantConfig().replace(**{field: value})
    with pytest.raises(ValueError, match=message):
        QuantConfig.from_dict({field: value})


def test_eps_is_large_enough_for_an_exact_scale():
    with pytest.raises(ValueError, match=r"'eps' must lie between 1e-30 and 1 \(got 1e-45\)"):
        QuantConfig(eps=1e-45)


def test_quant_config_from_unknown_fields():
    with pytest.raises(ValueError, match=r"has no field 'bits'; it has \['weight_bits',"):
        QuantConfig.from_dict({"bits": 2})
    with pytest.raises(TypeError, match="bits"):
        QuantConfig(bits=2)


@pytest.mark.parametrize("text", ["[]", "null", "8", '"b158"'])
def test_quant_config_from_json_of_something_else(text):
    with pytest.raises(ValueError, match="Expected a JSON object with the fields of 'QuantConfig'"):
        QuantConfig.from_json(text)


def test_quant_config_from_broken_json():
    with pytest.raises(ValueError, match="Expecting"):
        QuantConfig.from_json('{"weight_bits": ')


def test_quant_config_from_part_of_its_fields():
    assert QuantConfig.from_json('{"granularity": "channel"}') == QuantConfig(granularity="channel")


def test_presets():
    assert set(PRESETS) == {"b158", "reloaded"}
    reloaded = QuantConfig.preset("reloaded")
    assert reloaded.activation_range == (-128, 127)
    assert (reloaded.layer_norm, reloaded.rescale_bias, reloaded.eps) == (True, True, 1e-5)
    changed = QuantConfig.preset("reloaded", weight_measure="absmedian")
    assert changed == reloaded.replace(weight_measure="absmedian")
    assert PRESETS["reloaded"].weight_measure == "absmean"


def test_preset_that_does_not_exist():
    with pytest.raises(ValueError, match=r"No preset is called 'b1'; there are \['b158', 'reload"):
        QuantConfig.preset("b1")
    with pytest.raises(ValueError, match="'granularity' must be one of"):
        QuantConfig.preset("b158", granularity="row")


def test_resolve_quant():
    config = QuantConfig(weight_bits=4)
    assert resolve_quant(config) is config
    assert resolve_quant(None) is None
    assert resolve_quant("b158") == QuantConfig()
    assert resolve_quant("reloaded") == QuantConfig.preset("reloaded")


@pytest.mark.parametrize("quant", [8, True, {"weight_bits": 2}, QuantConfig])
def test_resolve_quant_of_another_type(quant):
    with pytest.raises(TypeError, match=r"'quant' must be a QuantConfig, the name of a preset"):
        resolve_quant(quant)


def test_resolve_quant_of_an_unknown_name():
    with pytest.raises(ValueError, match="No preset is called 'absmean'"):
        resolve_quant("absmean")
