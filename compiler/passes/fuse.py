"""Fuse. Needs: a CallGraph without its time path, and the arrays of that path. Guarantees: a
TensorGraph with the same function in real numbers; concatenations, views and upsampling are folded
away; every unsupported operator has been reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from signmask.compiler.errors import Rejection, UnsupportedOperators, source_line
from signmask.compiler.graph import (
    Activation,
    AttentionOp,
    Call,
    CallGraph,
    EncodingOp,
    InputOp,
    LinearOp,
    NormOp,
    Ref,
    StreamOp,
    TensorGraph,
    refs,
)
from signmask.compiler.layout import Layout, LayoutError


@dataclass(frozen=True)
class Value:
    """What a call computes: `streams` (concatenated) or a code `source`, normalised, activated and
    enlarged in that order. `exclusive`: nobody else uses the stream, so it may be merged."""

    layout: Layout
    streams: tuple[str, ...] = ()
    source: str = ""
    norm: NormOp | None = None
    activation: Activation = "identity"
    upsample: int = 1
    exclusive: bool = False

    @property
    def is_stream(self) -> bool:
        """One raw tensor, as residual additions need."""
        return (
            len(self.streams) == 1
            and self.norm is None
            and self.activation == "identity"
            and self.upsample == 1
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) before enlargement."""
        return (
            self.layout.sizes["h"] // self.upsample,
            self.layout.sizes["w"] // self.upsample,
        )


class Reject(Exception):
    """A call that cannot be fused: reason and remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def fuse(
    calls: CallGraph, constants: Mapping[str, np.ndarray], timesteps: Sequence[int]
) -> TensorGraph:
    """The TensorGraph of `calls`; raises UnsupportedOperators with every offending call."""
    return Fuser(calls, constants, timesteps).run()


class Fuser:
    """One fusion: `values` maps call names to Values, None after a rejection."""

    def __init__(
        self, calls: CallGraph, constants: Mapping[str, np.ndarray], timesteps: Sequence[int]
    ) -> None:
        self.calls, self.constants, self.timesteps = calls, constants, tuple(timesteps)
        self.graph = nx.DiGraph()
        self.values: dict[str, Value | None] = {}
        self.rejections: list[Rejection] = []
        self.encodings: dict[tuple[Any, ...], str] = {}
        self.at = ""

    def run(self) -> TensorGraph:
        """Fuse everything; see `fuse`."""
        self._input()
        for name in nx.topological_sort(self.calls.graph):
            call = self.calls.call(name)
            if name == self.calls.sample or call.target is None or name in self.constants:
                continue
            self.at = name
            used = [n for n in refs((call.args, call.kwargs)) if n in self.values]
            if any(self.values[n] is None for n in used):
                self.values[name] = None
                continue
            try:
                self.values[name] = self._convert(call)
            except (Reject, LayoutError) as error:
                reason, remedy = (
                    (error.reason, error.remedy)
                    if isinstance(error, Reject)
                    else (str(error), "keep channels and positions apart")
                )
                self._reject(name, call, reason, remedy)
        if self.rejections:
            raise UnsupportedOperators(self.rejections)
        self.at = "output"
        output = self._output()
        self._connect()
        return TensorGraph(self.graph, self.calls.sample, output, self.timesteps)

    def _reject(self, name: str, call: Call, reason: str, remedy: str) -> None:
        self.values[name] = None
        line = source_line(call.trace)
        self.rejections.append(Rejection(call.operator, name, line, reason, remedy))

    def _input(self) -> None:
        shape = self.calls.call(self.calls.sample).shape
        try:
            layout = Layout.of_shape(shape)
        except LayoutError as error:
            call = self.calls.call(self.calls.sample)
            raise UnsupportedOperators(
                [Rejection("input", self.calls.sample, source_line(call.trace), str(error),
                           "make the sample (N, C, H, W) or (N, tokens, C)")]
            ) from None  # fmt: skip
        sizes = layout.sizes
        self._add(self.calls.sample, InputOp(sizes["c"], sizes["h"], sizes["w"]))
        self.values[self.calls.sample] = Value(layout, source=self.calls.sample)

    # --- graph construction ---

    def _add(self, name: str, op: Any) -> str:
        unique, number = name, 1
        while unique in self.graph:
            unique, number = f"{name}_{number}", number + 1
        self.graph.add_node(unique, op=op)
        return unique

    def _op(self, name: str) -> Any:
        return self.graph.nodes[name]["op"]

    def _connect(self) -> None:
        for name in list(self.graph):
            op = self._op(name)
            if isinstance(op, StreamOp):
                sources = [*op.linears, *op.adds]
            elif isinstance(op, EncodingOp):
                sources = list(op.streams)
            elif isinstance(op, LinearOp):
                sources = [op.source]
            elif isinstance(op, AttentionOp):
                sources = [op.q, op.k, op.v]
            else:
                sources = []
            for source in sources:
                self.graph.add_edge(source, name)

    def _encoded(self, value: Value) -> str:
        """The encoding (or source) that holds the codes of `value` before enlargement."""
        if value.source:
            return value.source
        key = (value.streams, id(value.norm) if value.norm else None, value.activation)
        if key not in self.encodings:
            height, width = value.size
            op = EncodingOp(
                value.streams, value.layout.sizes["c"], height, width, value.norm, value.activation
            )
            self.encodings[key] = self._add(f"{self.at}.codes", op)
        return self.encodings[key]

    def _linear(
        self, value: Value, weight: np.ndarray, bias: np.ndarray | None, layout: Layout,
        stride: int = 1, padding: int = 0,
    ) -> Value:  # fmt: skip
        """A Linear on the codes of `value` and the stream it writes."""
        channels = weight.shape[0]
        offset = np.zeros(channels) if bias is None else bias.astype(np.float64)
        table = np.repeat(offset[None], len(self.timesteps), axis=0)
        source = self._encoded(value)
        linear = self._add(
            f"{self.at}.linear", LinearOp(source, "", weight, stride, padding, value.upsample)
        )
        sizes = layout.sizes
        stream = self._add(
            self.at, StreamOp(channels, sizes["h"], sizes["w"], table, linears=[linear])
        )
        self._op(linear).out = stream
        return Value(layout, streams=(stream,), exclusive=self._used_once())

    def _used_once(self) -> bool:
        return self.at in self.calls.graph and self.calls.graph.out_degree(self.at) == 1

    def _as_stream(self, value: Value, gain: float = 1.0) -> Value:
        """`gain * value` as one raw tensor, through an identity operator where needed."""
        if value.is_stream and gain == 1.0:
            return value
        if value.is_stream and value.exclusive and not self._op(value.streams[0]).adds:
            stream = self._op(value.streams[0])
            stream.table = stream.table * gain
            for name in stream.linears:
                self._op(name).weight = self._op(name).weight * np.float32(gain)
            return value
        channels = value.layout.sizes["c"]
        weight = (np.eye(channels, dtype=np.float32) * np.float32(gain))[:, :, None, None]
        return replace(self._linear(value, weight, None, value.layout), exclusive=True)

    # --- operands ---

    def _operand(self, argument: Any) -> Value:
        value = self.values.get(argument.name) if isinstance(argument, Ref) else None
        if value is None:
            raise Reject(
                "its first operand does not depend on the sample", "move it out of the sample path"
            )
        return value

    def _constant(self, argument: Any) -> np.ndarray:
        """A tensor that is the same at all timesteps."""
        if isinstance(argument, Ref) and argument.name in self.calls.parameters:
            return self.calls.parameters[argument.name].double().numpy()
        if isinstance(argument, Ref) and argument.name in self.constants:
            rows = self.constants[argument.name]
            if (rows == rows[0]).all():
                return rows[0]
        raise Reject("a weight changes with the timestep or the sample", "use constant weights")

    def _table(self, argument: Any, layout: Layout) -> np.ndarray:
        """(steps, channels) of a constant or time-dependent addend."""
        steps, channels = len(self.timesteps), layout.sizes["c"]
        if isinstance(argument, (int, float)):
            return np.full((steps, channels), float(argument))
        if isinstance(argument, Ref) and argument.name in self.constants:
            rows = self.constants[argument.name]
        else:
            rows = np.repeat(self._constant(argument)[None], steps, axis=0)
        shape = (1,) * (len(layout.dims) - rows.ndim + 1) + rows.shape[1:]
        axis = layout.dims.index(("c",)) if ("c",) in layout.dims else -1
        if any(
            size != 1
            and i != axis
            and not (layout.dims[i] == ("n",) and self._same(rows, i, shape))
            for i, size in enumerate(shape)
        ):
            raise Reject(
                "it adds a constant that varies over positions",
                "add per-channel constants only",
            )
        rows = rows.reshape(steps, *shape)
        if layout.dims[0] == ("n",):
            rows = rows[:, :1]
        return np.broadcast_to(rows.reshape(steps, -1), (steps, channels)).copy()

    @staticmethod
    def _same(rows: np.ndarray, axis: int, shape: tuple[int, ...]) -> bool:
        """Whether all images of a constant's batch axis agree."""
        full = rows.reshape(rows.shape[0], *shape)
        return bool((full == np.take(full, [0], axis=axis + 1)).all())

    # --- operators ---

    def _convert(self, call: Call) -> Value:
        handler = HANDLERS.get(call.operator)
        if handler is None:
            raise Reject(
                "the accelerator has no such operation",
                f"build the model from {', '.join(sorted(h[5:] for h in HANDLERS))}",
            )
        return handler(self, call)

    def conv2d(self, call: Call) -> Value:
        """aten.conv2d: square kernel, stride and padding, one group, no dilation."""
        arguments = dict(
            zip(("x", "weight", "bias", "stride", "padding", "dilation", "groups"), call.args,
                strict=False)
        )  # fmt: skip
        value = self._operand(call.args[0])
        weight = self._constant(arguments["weight"]).astype(np.float32)
        bias = arguments.get("bias")
        kernel = weight.shape[2:]
        stride, padding = arguments.get("stride", [1, 1]), arguments.get("padding", [0, 0])
        if padding == "valid":
            padding = [0, 0]
        elif padding == "same":
            padding = [k // 2 for k in kernel]
        if kernel[0] != kernel[1] or len({*stride}) > 1 or len({*padding}) > 1:
            shapes = f"kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)}"
            raise Reject(
                f"one of {shapes} is not square",
                "use equal values in both directions",
            )
        if arguments.get("groups", 1) != 1 or {*arguments.get("dilation", [1])} != {1}:
            raise Reject("the convolution is grouped or dilated", "use groups=1 and dilation=1")
        if not value.layout.is_channels_first or len(value.layout.dims) != 4:
            raise Reject("its input is not (N, C, H, W)", "convolve images only")
        layout = Layout.of_shape(call.shape)
        return self._linear(
            value, weight, None if bias is None else self._constant(bias), layout, stride[0],
            padding[0],
        )  # fmt: skip

    def linear(self, call: Call) -> Value:
        """aten.linear on (images, positions, channels)."""
        value = self._operand(call.args[0])
        if not value.layout.is_sequence:
            raise Reject("its input is not (N, tokens, C)", "move channels to the last dimension")
        weight = self._constant(call.args[1]).astype(np.float32)[:, :, None, None]
        bias = self._constant(call.args[2]) if len(call.args) > 2 and call.args[2] else None
        return self._linear(value, weight, bias, value.layout.resized(c=weight.shape[0]))

    def add(self, call: Call) -> Value:
        """aten.add of two tensors, or of a tensor and a per-channel constant."""
        sign = -1.0 if call.operator == "aten.sub" else 1.0
        sign *= float(call.kwargs.get("alpha", 1))
        left, right = call.args[0], call.args[1]
        a, b = (self.values.get(x.name) if isinstance(x, Ref) else None for x in (left, right))
        if a is not None and b is not None:
            return self._add_streams(a, b, sign)
        if a is not None:
            value, gain, other, factor = a, 1.0, right, sign
        else:
            value, gain, other, factor = self._operand(right), sign, left, 1.0
        table = factor * self._table(other, value.layout)
        value = self._as_stream(value, gain)
        stream = self._op(value.streams[0])
        if value.exclusive:
            stream.table = stream.table + table
            return replace(value, exclusive=self._used_once())
        added = StreamOp(stream.channels, stream.height, stream.width, table, [value.streams[0]])
        name = self._add(self.at, added)
        return replace(value, streams=(name,), exclusive=self._used_once())

    def _add_streams(self, a: Value, b: Value, sign: float) -> Value:
        if a.layout.dims != b.layout.dims or a.layout.shape != b.layout.shape:
            raise Reject("its operands differ in shape", "add tensors of equal shape")
        if a == b:
            return replace(self._as_stream(a, 1.0 + sign), exclusive=self._used_once())
        a, b = self._as_stream(a), self._as_stream(b, sign)
        base = self._op(a.streams[0])
        joined = StreamOp(base.channels, base.height, base.width, np.zeros_like(base.table))
        name = self._add(self.at, joined)
        for value in (a, b):
            old = value.streams[0]
            stream = self._op(old)
            if not value.exclusive:
                joined.adds.append(old)
                continue
            joined.table = joined.table + stream.table
            joined.adds += [x for x in stream.adds if x not in joined.adds]
            joined.linears += stream.linears
            for linear in stream.linears:
                self._op(linear).out = name
            self.graph.remove_node(old)
        return Value(a.layout, streams=(name,), exclusive=self._used_once())

    def scale(self, call: Call) -> Value:
        """aten.mul or aten.div by a number."""
        value, factor = self._operand(call.args[0]), call.args[1]
        if not isinstance(factor, (int, float)):
            try:
                array = self._constant(factor)
            except Reject:
                raise Reject(
                    "it multiplies or divides by a tensor of the sample or of the timestep",
                    "scale by a single constant number",
                ) from None
            if array.size != 1:
                raise Reject("it scales by a tensor", "scale by a single constant number")
            factor = float(array.reshape(()))
        gain = 1.0 / factor if call.operator == "aten.div" else float(factor)
        return replace(self._as_stream(value, gain), exclusive=self._used_once())

    def cat(self, call: Call) -> Value:
        """aten.cat along channels."""
        values = [self._operand(item) for item in call.args[0]]
        layout = values[0].layout
        dim = layout.index(call.args[1] if len(call.args) > 1 else 0)
        if layout.dims[dim] != ("c",) or any(v.layout.dims != layout.dims for v in values):
            raise Reject("it does not join channels", "concatenate along the channel dimension")
        parts = [
            v if v.streams and v.norm is None and v.activation == "identity" and v.upsample == 1
            else self._as_stream(v)
            for v in values
        ]  # fmt: skip
        channels = sum(v.layout.sizes["c"] for v in values)
        streams = tuple(s for v in parts for s in v.streams)
        return Value(layout.resized(c=channels), streams=streams)

    def group_norm(self, call: Call) -> Value:
        """aten.group_norm over (images, channels, positions)."""
        value = self._operand(call.args[0])
        if not value.layout.is_channels_first:
            raise Reject("its input is not (N, C, positions)", "normalise channels-first tensors")
        if value.source or value.norm is not None or value.activation != "identity":
            value = self._as_stream(value)
        channels, groups = value.layout.sizes["c"], call.args[1]
        arguments = dict(zip(("weight", "bias", "eps"), call.args[2:], strict=False))
        weight, bias = arguments.get("weight"), arguments.get("bias")
        norm = NormOp(
            groups,
            float(arguments.get("eps", 1e-5)),
            np.ones(channels) if weight is None else self._constant(weight),
            np.zeros(channels) if bias is None else self._constant(bias),
        )
        return replace(value, norm=norm, exclusive=False)

    def activation(self, call: Call) -> Value:
        """aten.silu or aten.relu."""
        value = self._operand(call.args[0])
        if value.source or value.activation != "identity":
            value = self._as_stream(value)
        kind: Activation = "silu" if call.operator == "aten.silu" else "relu"
        return replace(value, activation=kind, exclusive=False)

    def upsample(self, call: Call) -> Value:
        """aten.upsample_nearest2d by a whole factor."""
        value = self._operand(call.args[0])
        height, width = value.layout.sizes["h"], value.layout.sizes["w"]
        factor = call.shape[2] // height
        if call.shape[2:] != (height * factor, width * factor):
            raise Reject(
                f"it resizes {height}x{width} to {call.shape[2]}x{call.shape[3]}",
                "enlarge both directions by the same whole factor",
            )
        layout = value.layout.resized(h=height * factor, w=width * factor)
        return replace(value, layout=layout, upsample=value.upsample * factor, exclusive=False)

    def attention(self, call: Call) -> Value:
        """aten.scaled_dot_product_attention without mask."""
        named = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal")
        arguments = {**dict(zip(named, call.args, strict=False)), **call.kwargs}
        values = [self._operand(arguments[n]) for n in named[:3]]
        if arguments.get("attn_mask") is not None or arguments.get("is_causal"):
            raise Reject("attention is masked or causal", "use full self-attention")
        if arguments.get("dropout_p") or arguments.get("enable_gqa"):
            raise Reject("attention drops or shares heads", "use plain self-attention")
        heads = values[0].layout.heads
        if not heads or any(x.layout.dims != values[0].layout.dims for x in values):
            raise Reject(
                "q, k, v are not (N, heads, tokens, channels) of one image",
                "split heads with view and transpose",
            )
        q, k, v = (self._as_stream(value).streams[0] for value in values)
        layout = values[0].layout
        if any(value.layout.sizes["c"] != layout.sizes["c"] for value in values):
            raise Reject("q, k and v differ in width", "give them equal channels")
        scale = arguments.get("scale") or (layout.sizes["c"] // heads) ** -0.5
        height, width = layout.sizes["h"], layout.sizes["w"]
        op = AttentionOp(q, k, v, heads, float(scale), layout.sizes["c"], height, width)
        return Value(layout, source=self._add(self.at, op))

    def view(self, call: Call) -> Value:
        """aten.view and relatives that only regroup dimensions."""
        value = self._operand(call.args[0])
        return self._rearranged(value, value.layout.view(call.shape))

    def transpose(self, call: Call) -> Value:
        """aten.transpose."""
        value = self._operand(call.args[0])
        return self._rearranged(value, value.layout.transpose(*call.args[1:3]))

    def permute(self, call: Call) -> Value:
        """aten.permute."""
        value = self._operand(call.args[0])
        return self._rearranged(value, value.layout.permute(call.args[1]))

    def copy(self, call: Call) -> Value:
        """aten._to_copy: a change of floating-point format."""
        value = self._operand(call.args[0])
        return self._rearranged(value, value.layout)

    def _rearranged(self, value: Value, layout: Layout) -> Value:
        return replace(value, layout=layout, exclusive=value.exclusive and self._used_once())

    def _output(self) -> str:
        value = self.values[self.calls.output]
        shape = self.calls.call(self.calls.sample).shape
        if value is None or value.layout.dims != Layout.of_shape(shape).dims:
            call = self.calls.call(self.calls.output)
            rejection = Rejection(
                call.operator, self.calls.output, source_line(call.trace),
                "the output's layout differs from the sample's", "return the sample's layout",
            )  # fmt: skip
            raise UnsupportedOperators([rejection])
        stream = self._op(value.streams[0]) if value.is_stream else None
        used = any(
            value.streams[0] in (*getattr(op, "streams", ()), *getattr(op, "adds", ()))
            or value.streams[0] in (getattr(op, n, "") for n in "qkv")
            for op in map(self._op, self.graph)
        ) if stream is not None else True  # fmt: skip
        if stream is None or used or stream.adds or len(stream.linears) != 1:
            channels = value.layout.sizes["c"]
            weight = np.eye(channels, dtype=np.float32)[:, :, None, None]
            value = self._linear(value, weight, None, value.layout)
            stream = self._op(value.streams[0])
        linear = stream.linears[0]
        self._op(linear).out, self._op(linear).table = "", stream.table
        self.graph.remove_node(value.streams[0])
        return linear


HANDLERS = {
    "aten.conv2d": Fuser.conv2d,
    "aten.linear": Fuser.linear,
    "aten.add": Fuser.add,
    "aten.sub": Fuser.add,
    "aten.mul": Fuser.scale,
    "aten.div": Fuser.scale,
    "aten.cat": Fuser.cat,
    "aten.group_norm": Fuser.group_norm,
    "aten.silu": Fuser.activation,
    "aten.relu": Fuser.activation,
    "aten.upsample_nearest2d": Fuser.upsample,
    "aten.scaled_dot_product_attention": Fuser.attention,
    "aten.view": Fuser.view,
    "aten.reshape": Fuser.view,
    "aten._unsafe_view": Fuser.view,
    "aten.flatten": Fuser.view,
    "aten.unflatten": Fuser.view,
    "aten.transpose": Fuser.transpose,
    "aten.permute": Fuser.permute,
    "aten._to_copy": Fuser.copy,
}
