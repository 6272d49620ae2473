"""Archives: damaged ones are refused in one sentence, and nothing in them is ever executed."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signmask.compiler.errors import CompileError
from signmask.compiler.frontend import trace
from tests.compiler.models import example, tiny

TIMESTEPS = (999, 1)


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "tiny.pt2"
    torch.export.save(torch.export.export(tiny(), example(), strict=False), path)
    trace(path, TIMESTEPS)
    return path.read_bytes()


def refusal(path: Path, content: bytes) -> str:
    """The message of an archive that must be refused."""
    path.write_bytes(content)
    with pytest.raises(CompileError) as caught:
        trace(path, TIMESTEPS)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ". " not in message
    assert str(path) in message or "weight" in message
    return message


def rewritten(content: bytes, change: Callable[[str, bytes], bytes], **added: bytes) -> bytes:
    """The archive with changed and added members, intact as a ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
        for name, data in added.items():
            target.writestr(name, data)
    return buffer.getvalue()


def keep(name: str, data: bytes) -> bytes:
    del name
    return data


@pytest.mark.parametrize("size", [0, 10, 1000, 30000, -100, -1])
def test_truncated(tmp_path, intact, size):
    assert "not an intact" in refusal(tmp_path / "a.pt2", intact[:size])


def test_flipped_bits(tmp_path, intact, caplog):
    """Where a flipped bit is in no member and no directory entry the archive means the same."""
    generator, refused = np.random.default_rng(1), 0
    path, caplog_level = tmp_path / "a.pt2", logging.WARNING
    for place in generator.integers(0, len(intact), 60):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            trace(path, TIMESTEPS)
        except CompileError:
            refusal(path, bytes(damaged))
            refused += 1
    assert refused >= 50
    assert not [r for r in caplog.records if r.levelno >= caplog_level]


def test_nan_weights(tmp_path, intact):
    nan = np.full(8 * 8 * 9, np.nan, np.float32).tobytes()
    changed = rewritten(intact, lambda n, d: nan if n.endswith("/weight_4") else d)
    assert "'inner.weight' holds NaN" in refusal(tmp_path / "a.pt2", changed)


class Bomb:
    """Unpickling it creates the file `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


def bomb(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": Bomb(mark)}, buffer)
    return buffer.getvalue()


def test_the_bomb_works(tmp_path):
    torch.load(io.BytesIO(bomb(tmp_path / "mark")), weights_only=False)
    assert (tmp_path / "mark").exists()


CONFIG = b'{"config": {"stem.weight": {"path_name": "%s", "is_param": true, "use_pickle": %s, "tensor_meta": null}}}'  # noqa: E501


@pytest.mark.parametrize(
    ("members", "config", "expected"),
    [
        (["sample_inputs/model.pt"], None, "not plain tensors"),
        (["weights/weight_0"], (b"weight_0", b"true"), "as a pickle"),
        (["weights/weight_0"], (b"custom_obj_0", b"false"), "as a pickle"),
        (["weights/weight_0"], (b"opaque_obj_0", b"true"), "as a pickle"),
        (["weights/weight_0"], (b"../weight_0", b"false"), "as a pickle"),
    ],
)
def test_no_pickle_is_executed(tmp_path, intact, members, config, expected):
    mark, hits = tmp_path / "mark", []

    def change(name: str, data: bytes) -> bytes:
        if any(name.endswith(m) for m in members):
            hits.append(name)
            return bomb(mark)
        if config is not None and name.endswith("_config.json"):
            return CONFIG % config
        return data

    message = refusal(tmp_path / "a.pt2", rewritten(intact, change))
    assert hits
    assert expected in message
    assert not mark.exists()


def test_legacy_members_are_not_reached(tmp_path, intact):
    """torch falls back to the old format, which unpickles, where reading the new one fails."""
    mark = tmp_path / "mark"
    old = {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": bomb(mark),
           "serialized_constants.pt": bomb(mark), "serialized_example_inputs.pt": bomb(mark),
           "version": b"8.14"}  # fmt: skip
    assert "old .pt2 format" in refusal(tmp_path / "a.pt2", rewritten(intact, keep, **old))
    assert not mark.exists()


@pytest.mark.parametrize(
    "member", ["tiny/data/aotinductor/model/a.so", "tiny/models/other.json", "tiny/data/weights/x"]
)
def test_unknown_members_are_refused(tmp_path, intact, member):
    message = refusal(tmp_path / "a.pt2", rewritten(intact, keep, **{member: b"x"}))
    assert f"'{member[5:]}'" in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("root", ["tiny", "other"])
def test_two_members_of_one_name_are_refused(tmp_path, intact, root):
    twice = {f"{root}/data/sample_inputs/model.pt": b"x"}
    assert "not an intact" in refusal(tmp_path / "a.pt2", rewritten(intact, keep, **twice))


@pytest.mark.parametrize("key", [b"expr_str", b"\\u0065xpr_str"])
def test_symbolic_shapes_are_refused(tmp_path, intact, key):
    text = b'{"graph": [{"%s": "__import__(1)"}]}' % key
    changed = rewritten(intact, lambda n, d: text if n.endswith("models/model.json") else d)
    assert "symbolic shapes" in refusal(tmp_path / "a.pt2", changed)


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(CompileError, match=r"absent\.pt2"):
        trace(tmp_path / "absent.pt2", TIMESTEPS)


def graph_of(model: dict[str, Any]) -> dict[str, Any]:
    return model["graph_module"]["graph"]


def altered(intact: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The archive with a change to the JSON of its program."""

    def member(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        model = json.loads(data)
        change(model)
        return json.dumps(model).encode()

    return rewritten(intact, member)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.cos.__class__",
        "torch.ops.aten.warn.default",
        "torch.ops.other.cos.default",
        "torch.ops.higher_order.run_const_graph",
        "torch.save",
        "_operator.add",
        "os.system",
        "#Custom:7",
        7,
    ],
)
def test_only_operators_on_tensors_are_admitted(tmp_path, intact, target):
    def change(model: dict[str, Any]) -> None:
        graph_of(model)["nodes"][3]["target"] = target

    message = refusal(tmp_path / "a.pt2", altered(intact, change))
    assert f"calls {str(target)!r}, which is no operator on tensors" in message


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of numbers, strings and truth values inside nested JSON."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
    else:
        yield path


VALUES = (-1, 0, 2, 7, "x", None, True, False, 1e9, [], "torch.ops.aten.cos.default")


def test_altered_programs_compile_or_end_in_one_sentence(tmp_path, intact):
    generator, refused = np.random.default_rng(5), 0
    path = tmp_path / "a.pt2"

    def change(model: dict[str, Any]) -> None:
        value: Any = graph_of(model)
        places = [p for p in leaves(value) if "metadata" not in p]
        *inner, last = places[generator.integers(len(places))]
        for key in inner:
            value = value[key]
        value[last] = VALUES[generator.integers(len(VALUES))]

    for _ in range(30):
        path.write_bytes(altered(intact, change))
        try:
            trace(path, TIMESTEPS)
        except CompileError as error:
            refused += 1
            assert "\n" not in str(error)
            assert "internal error" not in str(error)
    assert refused > 10
