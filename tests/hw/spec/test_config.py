import json
from dataclasses import replace

import pytest

from signmask.hw.spec.config import NANO, PRESETS, ConfigError, HardwareConfig, preset, resolve


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name, tmp_path):
    config = preset(name)
    assert config.name == name and config.lanes == config.rows * config.columns * config.group
    assert HardwareConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config.to_json()))
    assert resolve(str(path)) == config
    assert resolve(name) is config


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
        ({"profile": "fp64"}, "'fp64'"),
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
