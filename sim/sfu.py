"""Special function unit: requantisation, encoders and live constants."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec import timing
from signmask.hw.spec.isa import LOOPS, NORM_RECORD, unpack_descriptor
from signmask.hw.spec.widths import TOKEN_SHIFTS, VARIANCE_LIMIT
from signmask.sim import arithmetic
from signmask.sim.activation import Activation
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.dma import fit_parameters
from signmask.sim.errors import Fault
from signmask.sim.normalisation import Normalisation, normalised_parts
from signmask.sim.outlier_selector import OutlierSelector

UNSCALED_SHIFT = 63  # REQUANTISE takes the accumulator as it is


class Sfu:
    """Executes the vector queue, attention apart (`softmax.py`)."""

    def __init__(self, core: Core, selector: OutlierSelector) -> None:
        self.core, self.selector = core, selector
        self.instructions: dict[str, Execute] = {
            "REQUANTISE": self.requantise,
            "CONSTANTS": self.constants,
            "ENCODE_RAW": self.encode_raw,
            "ENCODE_MASK": self.encode_mask,
            "ENCODE_SOURCE": self.encode_source,
            "QUANTISE": self.quantise,
            "COPY": self.copy,
            "NORMALISE_TOKENS": self.normalise_tokens,
            "MULTIPLY": self.multiply,
        }

    def _shape(self, f: Fields) -> tuple[int, int, int, int]:
        """(planes, images, positions, n) of an instruction's words."""
        planes, images, words = f["planes"], f["images"], f["words"]
        if not planes or not images or words % (planes * images):
            raise Fault(f"has {words} words for {planes} planes of {images} images")
        return planes, images, words // (planes * images), self.core.config.group

    def _cost(self, f: Fields, fill: int) -> Cost:
        cycles = timing.frames(f["words"], f["planes"] * f.get("images", 1), fill)
        return Cost(cycles, cycles)

    def requantise(self, f: Fields) -> Cost:
        """Accumulators to stream values, in place, with sums if asked for."""
        core = self.core
        shape = self._shape(f)
        planes, n, words = shape[0], shape[3], f["words"]
        value = core.accumulator.read(f["accumulator"], words)
        if f["shift"] == UNSCALED_SHIFT:
            value = value.astype(np.int64).reshape(planes, -1, n)
        else:
            multiplier = core.parameter.read(f["multiplier"], planes)[:, None]
            value = arithmetic.requantise(value.reshape(planes, -1, n), multiplier, f["shift"])
        if f["has_table"]:
            value += core.parameter.read(f["now"], planes)[:, None]
        if f["has_last"]:
            value -= core.parameter.read(f["last"], planes)[:, None]
        if f["has_add"]:
            value += core.accumulator.read(f["add"], words).reshape(planes, -1, n)
        if f["bits"]:
            exact, value = value, arithmetic.saturate(value, f["bits"])
            changed = exact != value
            changed[-1, :, f["lanes"] :] = False
            core.counters.saturations(f["stream"], int(np.count_nonzero(changed)))
        core.accumulator.write(f["accumulator"], value.reshape(-1, n))
        if f["has_sums"]:
            y = (value >> f["stat_shift"]).reshape(shape)
            sums = np.stack([y.sum(axis=2), np.einsum("pixn,pixn->pin", y, y)], axis=2)
            core.parameter.write(f["sums"], fit_parameters(sums.reshape(-1, n)))
        count = planes * f["images"]
        cycles = timing.requantise(words, count, bool(f["has_sums"]))
        return Cost(cycles, cycles)

    def quantise(self, f: Fields) -> Cost:
        """Raw values to int8 codes of attention operands, in place."""
        core = self.core
        y = core.accumulator.read(f["accumulator"], f["words"])
        codes = arithmetic.requantise(y, f["multiplier"], f["shift"])
        core.accumulator.write(f["accumulator"], arithmetic.saturate(codes, 8))
        cycles = timing.vector(f["words"], timing.QUANTISE_FILL)
        return Cost(cycles, cycles)

    def copy(self, f: Fields) -> Cost:
        """Accumulator words to another place."""
        accumulator, words = self.core.accumulator, f["words"]
        accumulator.write(f["output"], accumulator.read(f["accumulator"], words).copy())
        cycles = timing.vector(words, timing.COPY_FILL)
        return Cost(cycles, cycles)

    def multiply(self, f: Fields) -> Cost:
        """Codes of the products of two encodings' codes."""
        accumulator, words = self.core.accumulator, f["words"]
        a = accumulator.read(f["accumulator"], words).astype(np.int64) - f["zero_a"]
        b = accumulator.read(f["other"], words) - f["zero_b"]
        codes = arithmetic.product_code(a, b, f["multiplier"], f["shift"], f["zero"])
        accumulator.write(f["output"], codes)
        cycles = timing.vector(words, timing.MULTIPLY_FILL)
        return Cost(cycles, cycles)

    def normalise_tokens(self, f: Fields) -> Cost:
        """Values of each position less their mean, over their deviation."""
        core, tokens, planes = self.core, f["tokens"], f["planes"]
        if not tokens or not planes:
            raise Fault("has a size of 0")
        words = core.accumulator.read_planes(f["accumulator"], planes, tokens, f["stride"])
        values = words.transpose(1, 0, 2).reshape(tokens, -1).astype(np.int64)
        self._check_tokens(f, values)
        normal = arithmetic.normalise_token(
            values, f["count"], f["epsilon"], f["stat_shift"], f["shift"], not f["uncentred"]
        )
        result = normal.reshape(tokens, planes, -1).transpose(1, 0, 2)
        core.accumulator.write_planes(f["output"], result, f["output_stride"])
        cycles = timing.normalise_tokens(core.config, tokens, planes)
        return Cost(cycles, cycles)

    @staticmethod
    def _check_tokens(f: Fields, values: np.ndarray) -> None:
        """Raise Fault for what the unit's registers do not hold."""
        count, epsilon = f["count"], f["epsilon"]
        if not count or not epsilon:
            raise Fault(f"has a count of {count} and an epsilon of {epsilon}")
        if f["shift"] not in TOKEN_SHIFTS:
            raise Fault(f"has a shift of {f['shift']}, outside 24..54")
        if values[:, count:].any():
            raise Fault(f"has values beyond its {count} channels")
        shifted = values >> f["stat_shift"]
        largest = int(np.abs(shifted).max())
        # Together they keep the sum of squares itself within int64.
        if (
            count * largest * largest >= VARIANCE_LIMIT
            or int(np.einsum("tc,tc->t", shifted, shifted).max())
            > (VARIANCE_LIMIT - 1 - epsilon) // count
        ):
            raise Fault("has a token's sum of squares beyond 63 bits")

    def constants(self, f: Fields) -> Cost:
        """Live normalisation constants from the sums that REQUANTISE left."""
        parameter, config = self.core.parameter, self.core.config
        n = config.group
        record = parameter.read(f["record"], -(-len(NORM_RECORD) // n))
        d = unpack_descriptor(NORM_RECORD, record.reshape(-1)[: len(NORM_RECORD)])
        images, planes = d["images"], d["planes"]
        parts = normalised_parts(d, n)
        sums = np.concatenate(
            [
                parameter.read(f[f"sums_{i}"], 2 * part.planes * images)
                for i, part in enumerate(parts)
            ]
        ).reshape(planes, images, 2, n)
        normalisation = Normalisation(
            d, parts, n,
            parameter.read(f["gain"], planes).reshape(-1),
            parameter.read(f["offset"], planes).reshape(-1),
        )  # fmt: skip
        a, b = normalisation.constants(normalisation.moments(sums))
        parameter.write(f["constants"], fit_parameters(np.stack([a, b], 2).reshape(-1, n)))
        channels = [part.channels for part in parts]
        cycles = timing.constants(config, images, channels, d["groups"])
        return Cost(cycles, cycles)

    def _raw_constants(self, f: Fields, planes: int, images: int) -> tuple[np.ndarray, np.ndarray]:
        """(A, B) of ENCODE_RAW, (planes, images or 1, 1, n)."""
        core = self.core
        if f["shared_constants"]:
            pairs = core.parameter.read(f["constants"], 2 * planes).reshape(planes, 1, 2, -1)
        else:
            stride = f["constants_stride"]
            if stride < 2:
                raise Fault(f"has a constants_stride of {stride}, below the pair A, B")
            words = core.parameter.read_planes(f["constants"], planes * images, 2, stride)
            pairs = words.reshape(planes, images, 2, -1)
        return pairs[:, :, 0, None], pairs[:, :, 1, None]

    def encode_raw(self, f: Fields) -> Cost:
        """Raw values to codes, and codes or their differences to operands."""
        core = self.core
        planes, images, _, n = shape = self._shape(f)
        a, b = self._raw_constants(f, planes, images)
        y = core.accumulator.read(f["accumulator"], f["words"]).reshape(shape)
        activation = Activation(
            core.parameter.read(f["segments"], 3), f["z_shift"], f["code_shift"], f["low"],
            f["high"],
        )  # fmt: skip
        codes = activation.encode(y, a, b)[0].reshape(-1, n)
        if f["difference"]:
            previous = core.accumulator.read(f["previous"], f["words"])
            sent, clipped = self.selector.encode(codes - previous, bool(f["spill"]))
            codes = previous + sent
            self._count(f, sent, clipped, planes)
            core.input.write(f["input"], sent)
        else:
            core.input.write(f["input"], codes)
        core.accumulator.write(f["codes"], codes)
        return self._cost(f, timing.ENCODE_RAW_FILL)

    def _count(self, f: Fields, sent: np.ndarray, clipped: np.ndarray, planes: int) -> None:
        shape = (planes, -1, sent.shape[-1])
        lanes = f["lanes"]
        self.core.counters.deltas(f["source"], sent.reshape(shape), clipped.reshape(shape), lanes)

    def encode_mask(self, f: Fields) -> Cost:
        """Changes of raw values to differences of codes, through the segment's slope."""
        core = self.core
        planes, images, _, n = shape = self._shape(f)
        if f["loop"] >= len(LOOPS):
            raise Fault(f"has loop {f['loop']}, of {len(LOOPS)}")
        gains = core.parameter.read(f["gain"], planes if f["shared_constants"] else planes * images)
        activation = Activation(
            core.parameter.read(f["segments"], 3), f["z_shift"], f["code_shift"], 0, 0
        )
        loop = LOOPS[f["loop"]]
        correction: np.ndarray | None = None
        if loop != "open":
            correction = core.corrections.read(f["mask"], f["words"]).reshape(shape)
        deltas, _ = activation.delta(
            core.accumulator.read(f["accumulator"], f["words"]).reshape(shape),
            gains.reshape(planes, -1, 1, n),
            core.segments.read(f["mask"], f["words"]).reshape(shape),
            loop, correction, f["carry_bits"],
        )  # fmt: skip
        sent, clipped = self.selector.encode(deltas.reshape(-1, n), bool(f["spill"]))
        core.input.write(f["input"], sent)
        self._count(f, sent, clipped, planes)
        return self._cost(f, timing.ENCODE_MASK_FILL)

    def encode_source(self, f: Fields) -> Cost:
        """Codes of a source, or their differences, to operands."""
        core, words = self.core, f["words"]
        codes = core.accumulator.read(f["accumulator"], words)
        if f["difference"]:
            previous = core.accumulator.read(f["previous"], words)
            sent, clipped = self.selector.encode(codes - previous, bool(f["spill"]))
            if not f["planes"] or words % f["planes"]:
                raise Fault(f"has {words} words for {f['planes']} planes")
            self._count(f, sent, clipped, f["planes"])
            core.input.write(f["input"], sent)
            if f["track"]:
                core.accumulator.write(f["accumulator"], previous + sent)
        else:
            core.input.write(f["input"], codes)
        return self._cost(f, timing.ENCODE_SOURCE_FILL)
