import json
from dataclasses import replace

import pytest

from signmask.hw.spec.config import (
    LARGE,
    NANO,
    PRESETS,
    ConfigError,
    HardwareConfig,
    preset,
    resolve,
)
from signmask.hw.spec.isa import FORMATS, Queue


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name, tmp_path):
    config = preset(name)
    assert config.name == name
    assert HardwareConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config.to_json()))
    assert resolve(str(path)) == config
    assert resolve(name) is config


@pytest.mark.parametrize("name", PRESETS)
def test_instructions_reach_every_word(name):
    config = preset(name)
    pads = {"mask": "mask", "gain": "parameter", "record": "parameter", "rows": "row"}
    pads |= dict.fromkeys(("input", "weight", "accumulator", "parameter"), "")
    pads |= dict.fromkeys(("add", "codes", "previous", "output", "other"), "accumulator")
    for form in FORMATS.values():
        if form.queue in (Queue.ARRAY, Queue.VECTOR):
            for field, bits, _ in form.fields:
                if field in pads:
                    words = getattr(config, f"{pads[field] or field}_words")
                    assert words <= 1 << bits, field


def test_large_holds_maps_of_512():
    words = 512 * 512
    assert 3 * words <= min(LARGE.input_words, LARGE.accumulator_words, LARGE.mask_words)
    assert words <= LARGE.bitmap_words
    for form in FORMATS.values():
        if form.queue in (Queue.ARRAY, Queue.VECTOR):
            for field, bits, _ in form.fields:
                assert "stride" not in field or field == "constants_stride" or words < 1 << bits
                assert field != "words" or 3 * words < 1 << bits


def test_a_file_states_what_differs_from_nano(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"columns": 16}')
    assert resolve(str(path)) == replace(NANO, name="mine", columns=16)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"rows": True}, "rows is True"),
        ({"group": 2.0}, "group is 2.0"),
        ({"memory_latency": -1}, "memory_latency is -1"),
        ({"memory_latency": "1"}, "memory_latency is '1'"),
        ({"inlier_bits": 9}, "inlier_bits is 9"),
        ({"full_lanes": 17}, "17 full lanes"),
        ({"group": 12}, "group 12"),
        ({"columns": 12}, "columns 12"),
        ({"axi_bytes": 24}, "use 32"),
        ({"name": 7}, "name"),
    ],
)
def test_impossible_values(change, part):
    with pytest.raises(ConfigError) as refusal:
        HardwareConfig.from_json(NANO.to_json() | change)
    message = str(refusal.value)
    assert part in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("data", [{"lasers": 1}, {"name": "x", "lasers": 1}, {}])
def test_wrong_fields(data):
    with pytest.raises(ConfigError, match="wrong fields"):
        HardwareConfig.from_json(data)


@pytest.mark.parametrize(
    ("text", "part"),
    [("{", "no JSON"), ("[]", "no JSON object"), ('{"lasers": 1}', "unknown field 'lasers'")],
)
def test_wrong_files(tmp_path, text, part):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        resolve(str(path))


def test_unknown_names(tmp_path):
    with pytest.raises(ConfigError, match="huge"):
        preset("huge")
    with pytest.raises(ConfigError, match="unknown config 'huge'"):
        resolve("huge")
    with pytest.raises(ConfigError, match="cannot read config"):
        resolve(str(tmp_path / "absent.json"))
