from dataclasses import replace

import numpy as np
import pytest

from signmask.hw.spec.container import Program, ProgramError
from tests.runtime.programs import tiny_program


def same(one, two):
    assert one.config == two.config and one.network == two.network and one.batch == two.batch
    assert dict(one.scheduler) == dict(two.scheduler) and one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == two.tensors[name].dtype
        assert np.array_equal(tensor, two.tensors[name])


@pytest.mark.parametrize("kind", ["minimal", "residual", "unet"])
def test_round_trip(kind, tmp_path):
    program = tiny_program(kind)
    path = tmp_path / "program.smk"
    program.save(path)
    again = Program.load(path)
    same(program, again)
    assert again.to_bytes() == program.to_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["program.smk"]


def test_saving_where_nothing_can_be_written(tmp_path):
    with pytest.raises(ProgramError, match="cannot write"):
        tiny_program("minimal").save(tmp_path / "absent" / "program.smk")
    folder = tmp_path / "folder.smk"
    folder.mkdir()
    with pytest.raises(ProgramError, match="cannot write"):
        tiny_program("minimal").save(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.smk"], "a temporary file stayed"


def test_absent_files(tmp_path):
    with pytest.raises(ProgramError, match="cannot read"):
        Program.load(tmp_path / "absent.smk")


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, 1 << 20])
def test_impossible_batches(batch):
    with pytest.raises(ProgramError, match="batch"):
        Program.from_bytes(replace(tiny_program("minimal"), batch=batch).to_bytes())


def test_every_broken_name_is_found():
    """A network that points nowhere is refused, whichever of its names is broken."""
    program = tiny_program("unet")
    network = program.network
    for kind, fields in (
        ("linears", ("source", "out", "weight", "multiplier")),
        ("attentions", ("q", "k", "v", "out")),
        ("streams", ("table",)),
        ("encodings", ("breaks", "slopes", "intercepts", "affine_a")),
    ):
        for name, record in getattr(network, kind).items():
            for field in fields:
                if getattr(record, field) == "":
                    continue
                changed = {**getattr(network, kind), name: replace(record, **{field: "nowhere"})}
                broken = replace(program, network=replace(network, **{kind: changed}))
                with pytest.raises(ProgramError, match="nowhere"):
                    Program.from_bytes(broken.to_bytes())


def test_streams_that_add_themselves():
    program = tiny_program("unet")
    streams = program.network.streams
    cycle = {**streams, "stem": replace(streams["stem"], adds=("skip",))}
    broken = replace(program, network=replace(program.network, streams=cycle))
    with pytest.raises(ProgramError, match=r"adds itself|runs before"):
        Program.from_bytes(broken.to_bytes())


def test_wrong_order():
    program = tiny_program("minimal")
    order = tuple(reversed(program.network.order))
    with pytest.raises(ProgramError, match="runs before"):
        Program.from_bytes(
            replace(program, network=replace(program.network, order=order)).to_bytes()
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"unfold": "x"}, "'x' does not fold 4 channels"),
        ({"unfold": "3"}, "'3' does not fold 4 channels"),
        ({"unfold": "0"}, "'0' does not fold 4 channels"),
        ({"unfold": 2}, "2 is no string"),
        ({"kind": "pickle"}, "'pickle' is no kind of source"),
        ({"path": None}, "None is no string"),
        ({"path": "a\0b"}, "holds a zero byte"),
        ({"place": "x"}, "has an unknown entry 'place'"),
    ],
)
def test_sources_that_say_nothing_usable(source, message):
    program = tiny_program("unet")
    good = {"kind": "bundled", "path": "fashion-silu", "sha256": "", "unfold": "2"}
    Program.from_bytes(replace(program, source=good).to_bytes())
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(replace(program, source=good | source).to_bytes())
