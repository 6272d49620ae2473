"""Whatever is wrong with a program or a configuration, the command line says it in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from signmask.compiler.backend.lower import lower
from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import MAGIC, VERSION, Program, ProgramError
from signmask.hw.spec.network import Knobs
from signmask.runtime.cli.main import main
from signmask.runtime.host import HostScheduler
from tests.runtime.programs import SCHEDULE
from tests.tiny_networks import unet

CHECKSUM_BYTES = 32


def compiled(dataflow: str = "mask") -> Program:
    """The tiny U-Net for two steps, with code and a real schedule."""
    network, tensors = unet(knobs=Knobs(dataflow=dataflow), steps=2, channels=(24, 32))
    network = replace(network, timesteps=HostScheduler(SCHEDULE, 2).timesteps)
    return replace(lower(network, tensors, NANO, 1), scheduler=SCHEDULE)


@pytest.fixture(scope="module")
def data() -> bytes:
    return compiled().to_bytes()


def parts(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = struct.unpack_from("<Q", data, 12)
    return json.loads(data[20 : 20 + length]), load_tensors(data[28 + length : -CHECKSUM_BYTES])


def joined(header: Any, tensors: dict[str, np.ndarray] | bytes, version: int = VERSION) -> bytes:
    """A file with a correct checksum around whatever is in it."""
    text = json.dumps(header).encode()
    block = tensors if isinstance(tensors, bytes) else save_tensors(tensors)
    body = MAGIC + struct.pack("<IQ", version, len(text)) + text
    body += struct.pack("<Q", len(block)) + block
    return body + hashlib.sha256(body).digest()


def refusal(capsys: Any, *arguments: object) -> str:
    """The one sentence on stderr of a command that fails with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == "", captured.err
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("signmask: ") and lines[0].endswith("."), lines
    assert "Traceback" not in lines[0]
    return lines[0]


def refused(capsys: Any, folder: Path, content: bytes, verbs: tuple[str, ...]) -> list[str]:
    """The sentences with which verbs refuse a file; nothing else appears in its folder."""
    path, output = folder / "bad.smk", folder / "out"
    path.write_bytes(content)
    said = []
    for verb in verbs:
        if verb == "inspect":
            said.append(refusal(capsys, "inspect", path, "--disassemble"))
        else:
            said.append(refusal(capsys, "run", path, "--backend", verb, "--out", output))
    assert [p.name for p in folder.iterdir()] == ["bad.smk"]
    return said


ALL = ("inspect", "sim", "reference")


def test_the_sound_program_runs(capsys, tmp_path, data):
    """Else every refusal below would prove nothing."""
    path = tmp_path / "good.smk"
    path.write_bytes(joined(*parts(data)))
    hashes = set()
    for backend in ("sim", "reference"):
        with pytest.raises(SystemExit) as stop:
            main(["run", str(path), "--backend", backend, "--json"])
        assert stop.value.code == 0
        hashes.add(json.loads(capsys.readouterr().out)["output_sha256"])
    assert len(hashes) == 1


def test_truncated(capsys, tmp_path, data):
    (text,) = struct.unpack_from("<Q", data, 12)
    edges = [0, 1, 7, 8, 11, 12, 19, 20, 59, 60, 20 + text, 28 + text, len(data) - 33]
    spread = np.linspace(61, len(data) - 1, 25).astype(int).tolist()
    for length in [*edges, *spread, len(data) - 32, len(data) - 1]:
        (said,) = refused(capsys, tmp_path, data[:length], ("inspect",))
        assert "truncated" in said or "not a signmask program" in said
    assert "padded" in refused(capsys, tmp_path, data + b"\0", ("sim",))[0]


def test_flipped_bits(capsys, tmp_path, data):
    (text,) = struct.unpack_from("<Q", data, 12)
    rng = np.random.default_rng(0)
    regions = {
        "magic": (0, 8), "version": (8, 12), "text length": (12, 20), "text": (20, 20 + text),
        "block length": (20 + text, 28 + text), "block": (28 + text, len(data) - 32),
        "checksum": (len(data) - 32, len(data)),
    }  # fmt: skip
    for low, high in regions.values():
        for at in rng.integers(low, high, 6):
            changed = bytearray(data)
            changed[at] ^= 1 << rng.integers(8)
            refused(capsys, tmp_path, bytes(changed), ("inspect",))
    changed = bytearray(data)
    changed[-1] ^= 1
    assert "checksum" in refused(capsys, tmp_path, bytes(changed), ALL)[1]


def test_other_version(capsys, tmp_path, data):
    for version in (0, VERSION + 1, 2**32 - 1):
        (said,) = refused(capsys, tmp_path, joined(*parts(data), version), ("sim",))
        assert f"format version {version}" in said


def test_headers_that_are_no_headers(capsys, tmp_path, data):
    header, tensors = parts(data)
    for bad in ([], None, 3, "text", {}, {"config": {}}):
        refused(capsys, tmp_path, joined(bad, tensors), ("inspect",))
    refused(capsys, tmp_path, joined(header, b"no safetensors"), ("inspect",))
    deep = b"[" * 100_000
    body = MAGIC + struct.pack("<IQ", VERSION, len(deep)) + deep + struct.pack("<Q", 0)
    refused(capsys, tmp_path, body + hashlib.sha256(body).digest(), ("inspect",))


def test_not_finite(capsys, tmp_path, data):
    header, tensors = parts(data)
    for name in ("output_scale", "output_table"):
        for value in (np.nan, np.inf):
            changed = copy.deepcopy(tensors)
            changed[f"network/{name}"].flat[-1] = value
            for said in refused(capsys, tmp_path, joined(header, changed), ALL):
                assert name in said and "NaN" in said
    header["network"]["streams"]["stem"]["scale"] = float("nan")
    assert "scale" in refused(capsys, tmp_path, joined(header, tensors), ALL)[0]


def test_missing_or_misshaped_tensors(capsys, tmp_path, data):
    header, tensors = parts(data)
    for name in sorted(tensors):
        less = {k: v for k, v in tensors.items() if k != name}
        (said,) = refused(capsys, tmp_path, joined(header, less), ("inspect",))
        assert name.split("/", 1)[-1] in said
        if name != "image" and tensors[name].size:
            changed = tensors | {name: tensors[name].reshape(-1)[:-1]}
            (said,) = refused(capsys, tmp_path, joined(header, changed), ("inspect",))
            assert "malformed" in said


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0}, {"columns": 0}, {"group": 0}, {"full_lanes": 0}, {"full_lanes": 17},
        {"inlier_bits": 9}, {"inlier_bits": 4}, {"group": 12}, {"group": 32}, {"axi_bytes": 24},
        {"rows": "many"}, {"rows": 2.5}, {"rows": True}, {"rows": None}, {"memory_latency": -1},
        {"memory_latency": "long"}, {"profile": "int"}, {"name": 3}, {"lasers": 4},
        {"input_words": 4}, {"weight_words": 4}, {"accumulator_words": 4}, {"parameter_words": 2},
        {"mask_words": 3}, {"row_words": 1}, {"input_words": 1 << 60},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_configurations(capsys, tmp_path, data, change):
    header, tensors = parts(data)
    header["config"] |= change
    refused(capsys, tmp_path, joined(header, tensors), ("sim",))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path, *(found for key, item in items for found in leaves(item, (*path, key)))]


SOUND = compiled()
HEADER, TENSORS = parts(SOUND.to_bytes())
PLACES = [p for key in ("config", "network", "batch", "scheduler", "memory_map")
          for p in leaves(HEADER[key], (key,))]  # fmt: skip
VALUES = [None, "", "odd", -1, 0, 1, 2, 63, 1 << 20, 1 << 62, 1.5, float("nan"), True, [], {}]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), st.sampled_from([*VALUES, "delete"]))
def test_any_field_changed(capsys, tmp_path, place, value):
    """A changed field is refused in one sentence, or the program still runs."""
    header = copy.deepcopy(HEADER)
    target = header
    for key in place[:-1]:
        target = target[key]
    if value == "delete":
        del target[place[-1]]
    else:
        target[place[-1]] = value
    path = tmp_path / "changed.smk"
    path.write_bytes(joined(header, TENSORS))
    for backend in ("sim", "reference"):
        with pytest.raises(SystemExit) as stop:
            main(["run", str(path), "--backend", backend])
        captured = capsys.readouterr()
        assert stop.value.code in (0, 2)
        if stop.value.code == 2:
            assert captured.out == "" and captured.err.count("\n") == 1, captured.err
            assert captured.err.startswith("signmask: ")


def test_a_changed_program_is_refused_as_such():
    with pytest.raises(ProgramError, match="phases"):
        code = {"dense": SOUND.code["dense"]}
        Program.from_bytes(replace(SOUND, code=code).to_bytes())
