"""Descriptors of the near-data engine: where a boundary's and a stream's state lies."""

from __future__ import annotations

from signmask.compiler.backend.layout import Layout
from signmask.hw.spec import isa
from signmask.hw.spec.network import Encoding, Network, Stream


def boundary_descriptor(layout: Layout, encoding: Encoding, chunk_words: dict[str, int]) -> None:
    """Fill the BOUNDARY descriptor of an encoding."""
    network, name = layout.network, encoding.name
    knobs = network.knobs
    masked = encoding.mode == "mask"
    values: dict[str, int] = {
        "source": layout.source_number[name], "images": layout.batch,
        "positions": layout.positions(encoding), "planes": sum(layout.encoding_planes(encoding)),
        "parts": len(encoding.streams),
        "loop": isa.LOOPS.index(knobs.loop), "spill": int(knobs.overflow == "spill"),
        "table": layout.address(f"segment_table/{name}"), "z_shift": encoding.z_shift,
        "code_shift": encoding.code_shift, "low": encoding.low, "high": encoding.high,
        "segment_bits": layout.segment_bits(encoding), "correction_bits": knobs.inlier_bits,
        "carry_bits": knobs.carry_bits, "cal_a": layout.address(f"cal_a/{name}"),
        "cal_b": layout.address(f"cal_b/{name}"),
    }  # fmt: skip
    if encoding.norm:
        norm = encoding.norm
        values["norm"] = isa.NORMS.index(knobs.norm) if knobs.norm in isa.NORMS else 0
        for key in ("groups", "count", "epsilon", "gain_shift", "mean_shift", "stat_shift"):
            values[key] = getattr(norm, key)
        values["norm_gain"] = layout.address(f"gain_table/{name}")
        values["norm_offset"] = layout.address(f"offset/{name}")
        values["norm_stride"] = layout.row_stride(f"gain_table/{name}")
        values["cal_stride"] = values["planes"] * layout.group * 8
        for key in ("cal_mean", "cal_inverse", "cal_sigma"):
            values[key] = layout.address(f"{key}/{name}")
    if masked:
        for key, region in (
            ("x_hat", "x"), ("segments", "segments"), ("corrections", "corrections"),
            ("correction_list", "correction_list"), ("residue", "residue"), ("gain", "gain"),
        ):  # fmt: skip
            values[key] = layout.address(f"{region}/{name}")
    for part, stream_name in enumerate(encoding.streams):
        stream = network.streams[stream_name]
        item = {
            "y": layout.address(f"y/{stream_name}"), "y_bytes": layout.y_bytes(stream),
            "planes": layout.planes(stream.channels), "channels": stream.channels,
        }  # fmt: skip
        if masked:
            item |= {
                "sums": layout.address(f"sums/{stream_name}"),
                "dy": layout.address(f"dy/{stream_name}"),
                "dy_list": layout.address(f"dy_list/{stream_name}"),
                "dy_bits": stream.delta_bits, "dy_chunk": chunk_words[stream_name],
            }  # fmt: skip
        values |= {f"{key}_{part}": value for key, value in item.items()}
    layout.set_descriptor(f"descriptor/{name}", isa.BOUNDARY_FIELDS, values)
    if encoding.norm:
        layout.set_norm_record(f"norm_record/{name}", values)


def stream_descriptor(
    layout: Layout, stream: Stream, chunk_words: dict[str, int], stat_shift: int
) -> None:
    """Fill the STREAM descriptor of a stream."""
    name = stream.name
    values = {
        "stream": layout.stream_number[name], "images": layout.batch,
        "positions": layout.positions(stream), "planes": layout.planes(stream.channels),
        "channels": stream.channels, "y": layout.address(f"y/{name}"),
        "y_bytes": layout.y_bytes(stream), "stat_shift": stat_shift,
    }  # fmt: skip
    if layout.network.knobs.dataflow == "mask":
        values |= {
            "sums": layout.address(f"sums/{name}"), "dy": layout.address(f"dy/{name}"),
            "dy_list": layout.address(f"dy_list/{name}"), "dy_bits": stream.delta_bits,
            "dy_chunk": chunk_words[name],
        }  # fmt: skip
    for role, multiplier, shift in _readers(layout.network, name):
        values |= {"codes": layout.address(f"codes/{role}"), "multiplier": multiplier,
                   "shift": shift}  # fmt: skip
    layout.set_descriptor(f"descriptor/{name}", isa.STREAM_FIELDS, values)


def _readers(network: Network, name: str) -> list[tuple[str, int, int]]:
    """How attention turns the stream into codes."""
    for a in network.attentions.values():
        for stream, multiplier, shift in (
            (a.q, a.q_multiplier, a.q_shift),
            (a.k, a.k_multiplier, a.k_shift),
            (a.v, a.v_multiplier, a.v_shift),
        ):
            if stream == name:
                return [(stream, multiplier, shift)]
    return []
