"""The quantised network: what a program computes, independent of tiling and of hardware.

The golden model executes it directly; the compiler lowers it to instructions. Tensors are kept
beside it in a dictionary by name. Activations are channels-last, (images, height, width, channels);
token sequences are (images, 1, tokens, channels).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Mode = Literal["dense", "restore", "mask"]


@dataclass(frozen=True)
class Knobs:
    """Numerical choices of a program (`docs/numerics.md`)."""

    dataflow: Mode = "mask"
    inlier_bits: int = 3
    group: int = 16
    full_lanes: int = 2
    overflow: Literal["clip", "spill"] = "spill"
    mask_bits: int = 3
    loop: Literal["open", "carry", "closed"] = "closed"
    carry_bits: int = 0
    norm: Literal["calibrated", "trend", "live"] = "trend"
    grid_bits: int = 4
    refresh_every: int = 0  # 0: never
    refresh_drift: float = 0.0  # fraction of changed segments that triggers a refresh; 0: never


@dataclass(frozen=True)
class Stream:
    """A raw tensor y on one integer grid.

    y = saturate(sum of requantised accumulators of the Linear operators that name it as `out`
    + table[step] + sum of the streams in `adds`, bits). `scale` is the real value of a grid step,
    `table` the name of an int32 tensor (steps, channels) of rounded absolute values, or (steps,
    images, channels) where they differ between images, `delta_bits` the inlier width of the
    compressed format of dy. `offset` names an int32 tensor (rows, positions, channels), a constant
    part of y such as a position embedding, with one row for all images or one for each of
    Network.images, or is empty.
    """

    name: str
    channels: int
    height: int
    width: int
    scale: float
    table: str
    adds: tuple[str, ...] = ()
    bits: int = 16
    delta_bits: int = 6
    offset: str = ""


@dataclass(frozen=True)
class Norm:
    """Group normalisation in integers (`numerics.group_moments`, `channel_constants`).

    Tensor names: `gain`, `offset` int64 (channels,), or (steps, channels) where they depend on the
    timestep (scale-shift normalisation); `cal_mean`, `cal_inverse`, `cal_sigma` int64
    (steps, groups); `cal_a`, `cal_b` int64 (steps, channels), the constants that the calibrated
    statistics give. Group g covers channels g*channels/groups onwards of the concatenated streams.
    `count` is elements per group; sums are taken over y >> stat_shift (arithmetic shift).
    """

    groups: int
    count: int
    epsilon: int
    gain_shift: int
    mean_shift: int
    stat_shift: int
    gain: str
    offset: str
    cal_mean: str
    cal_inverse: str
    cal_sigma: str
    cal_a: str
    cal_b: str


@dataclass(frozen=True)
class TokenNorm:
    """Layer or RMS normalisation in integers: `numerics.normalise_token` of each position over its
    `count` channels, those of one stream; not `centred`, the mean counts as zero. Its results take
    the place of y in the encoding, whose `affine_a`, `affine_b` hold the learnt scale and bias."""

    count: int
    epsilon: int
    stat_shift: int
    shift: int
    centred: bool = True


@dataclass(frozen=True)
class Encoding:
    """A layer boundary: raw streams (concatenated along channels) to int8 codes.

    z = saturate(shift_round(A*y + B, z_shift), 24); segment = breaks <= z;
    code = clamp(shift_round(slopes[segment]*z + intercepts[segment], code_shift), low, high).
    A and B come from `norm`, or are the int64 tensors `affine_a`, `affine_b`, (channels,), or in an
    encoding that is not placed in a mask (steps, channels) or (steps, images, channels). `breaks`,
    `slopes`, `intercepts` name int64 tensors of 2**b - 1, 2**b and 2**b entries (or 0, 1, 1). The
    code of real zero is `zero`; real value = scale * (code - zero).
    """

    name: str
    streams: tuple[str, ...]
    channels: int
    height: int
    width: int
    scale: float
    zero: int
    z_shift: int
    code_shift: int
    breaks: str
    slopes: str
    intercepts: str
    norm: Norm | None = None
    affine_a: str = ""
    affine_b: str = ""
    low: int = -128
    high: int = 127
    mode: Mode = "dense"
    reason: str = ""
    token_norm: TokenNorm | None = None


@dataclass(frozen=True)
class CodeSource:
    """An encoding whose codes are not a function of a stream: the network's input, given by the
    host as codes, or an attention product. Differenced by restoring: codes minus x^.

    A network input narrower than a group is spread over the idle lanes: each real channel becomes
    `spread` codes that sum to its value in steps of `scale` (`numerics.spread_code`), which is as
    many times finer than one int8 code. `channels` counts codes, copy by copy.
    """

    name: str
    channels: int
    height: int
    width: int
    scale: float
    zero: int
    mode: Mode = "dense"
    reason: str = ""
    spread: int = 1

    @property
    def real_channels(self) -> int:
        """Channels of the tensor that the codes stand for."""
        return self.channels // self.spread


@dataclass(frozen=True)
class Linear:
    """Convolution or matrix product of codes with int8 weights.

    `weight` names int8 (out_channels, kernel, kernel, in_channels); `multiplier` int64 (out,) and
    `shift` scale the int32 accumulator onto the stream `out`. In a grouped operator the weight is
    (out_channels, kernel, kernel, in_channels / groups), each group of outputs reads its own inputs
    (1 group: all). With `out == ""` the accumulators are
    the network's output: eps = accumulator * output_scale[c] + output_table[step][c] on the host.
    The input is enlarged by `upsample` (nearest) first; padding is with the code `zero`.
    """

    name: str
    source: str  # Encoding or CodeSource
    out: str
    weight: str
    multiplier: str = ""
    shift: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    upsample: int = 1
    out_channels: int = 0
    out_height: int = 0
    out_width: int = 0
    macs: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Product:
    """Elementwise product of the codes of the encodings a and b, as in gated linear units.

    Result: CodeSource `out`, code = `numerics.product_code` of both codes less their zeros. The
    encodings are read by nothing else and are not differenced.
    """

    name: str
    a: str
    b: str
    out: str
    multiplier: int
    shift: int


@dataclass(frozen=True)
class Attention:
    """softmax(Q K^T) V on raw int8 codes read from the streams q, k, v; result: CodeSource `out`.

    Attention is over the positions of an image, or with `frames` (the number of consecutive images
    that make a video) over these images at each position, queries, keys and values alike.

    In cross-attention k and v are empty and `keys`, `values` name constant int8 codes (rows,
    tokens, channels), a row for each image of the batch or one for all.

    Codes of a stream: saturate(requantise(y, *_multiplier, *_shift), 8). Heads are equal slices of
    channels. Scores: `numerics.softmax_row`; products: `numerics.attention_code`.
    """

    name: str
    q: str
    k: str
    v: str
    out: str
    heads: int
    q_multiplier: int
    q_shift: int
    k_multiplier: int
    k_shift: int
    v_multiplier: int
    v_shift: int
    score_multiplier: int
    score_shift: int
    out_multiplier: int
    out_shift: int
    keys: str = ""
    values: str = ""
    frames: int = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """The raw streams that it reads."""
        return (self.q,) if self.keys else (self.q, self.k, self.v)


@dataclass(frozen=True)
class Network:
    """A compiled network for `steps` timesteps. `order` lists the names of encodings, linears,
    attentions and products in execution order; a stream is complete once its last Linear (or
    addend) is. With `patch` p, the output's channels are p x p pixels of each position, row by row,
    which the host puts in their places; it leaves out channels beyond those of the input. A batch
    is a multiple of `images`, those that belong together: frames that attention joins, or images
    with conditions of their own (1: none). Image i has the constants of row i modulo `images`."""

    name: str
    steps: int
    timesteps: tuple[int, ...]
    input: str  # CodeSource filled by the host
    output_scale: str  # float64 (channels,)
    output_table: str  # float64 (steps, channels)
    order: tuple[str, ...]
    knobs: Knobs = field(default_factory=Knobs)
    streams: dict[str, Stream] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    sources: dict[str, CodeSource] = field(default_factory=dict)
    linears: dict[str, Linear] = field(default_factory=dict)
    attentions: dict[str, Attention] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)
    patch: int = 1
    images: int = 1
    info: dict[str, Any] = field(default_factory=dict)

    def shape_of(self, source: str) -> Encoding | CodeSource:
        """The encoding or code source of that name."""
        return self.encodings[source] if source in self.encodings else self.sources[source]

    def multiplied(self) -> frozenset[str]:
        """Encodings whose codes go into a product, not into a linear operator."""
        return frozenset(n for p in self.products.values() for n in (p.a, p.b))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Network:
        """Inverse of `to_json`; raises TypeError or KeyError for a missing or unknown field."""
        d = dict(data)
        d["timesteps"], d["order"] = tuple(d["timesteps"]), tuple(d["order"])
        d["knobs"] = Knobs(**d["knobs"])
        d["streams"] = {
            k: Stream(**{**v, "adds": tuple(v["adds"])}) for k, v in d["streams"].items()
        }
        d["encodings"] = {
            k: Encoding(
                **{
                    **v,
                    "streams": tuple(v["streams"]),
                    "norm": Norm(**v["norm"]) if v["norm"] else None,
                    "token_norm": TokenNorm(**v["token_norm"]) if v["token_norm"] else None,
                }
            )
            for k, v in d["encodings"].items()
        }
        d["sources"] = {k: CodeSource(**v) for k, v in d["sources"].items()}
        d["linears"] = {k: Linear(**v) for k, v in d["linears"].items()}
        d["attentions"] = {k: Attention(**v) for k, v in d["attentions"].items()}
        d["products"] = {k: Product(**v) for k, v in d["products"].items()}
        return cls(**d)
