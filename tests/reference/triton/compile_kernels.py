"""Compiles every kernel for a GPU that need not be there, and prints what came out as JSON.

    python compile_kernels.py CAPABILITY     (80, 90)

The interpreter takes programs that the compiler refuses; this is the check that a machine without a
GPU can make.
"""

import json
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from signmask.reference.triton import attention, encode, linear, stream, tiles
from signmask.reference.triton.layout import RUN, TILE

SCALARS = frozenset(
    "pad outputs channels columns height width out_height out_width tiles inputs group_outputs "
    "most_runs shift_0 shift_1 shift_2 image_positions table_rows offset_rows stat_shift positions "
    "constants_stride z_shift code_shift low high first elements multiplier shift queries keys "
    "key_rows heads score_multiplier score_shift out_multiplier out_shift zero".split()
)
POINTERS = {
    "*i8": "narrow rest weight levels codes base segments segments_last q k v table out",
    "*i16": "y dy y_last sent residue addend_0 addend_1 addend_2",
    "*i32": "lists counts wide_lists wide_counts first last places saturated offset table_last "
    "product_0 product_1 product_2",
    "*i64": "a b gain breaks slopes intercepts sums multiplier_0 multiplier_1 multiplier_2",
    "*u8": "area",
}
TYPES = {name: kind for kind, names in POINTERS.items() for name in names.split()}


# Multiples of 16 in every launch on published shapes, as the launcher finds out.
MULTIPLES = frozenset(
    "outputs channels columns width out_width height out_height positions image_positions first "
    "constants_stride elements queries keys".split()
)


def facts(made):
    """What a compiled kernel uses: instructions of the tensor cores, and bytes that its registers
    did not hold."""
    ptx = made.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        tool = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    found = {name.lower(): int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {"wgmma": "wgmma" in ptx, "mma": "mma.sync" in ptx, **found}


def compiled(kernel, constants, types=None, absent=(), warps=4, stages=3):
    """Facts of a kernel with these constants; `types` overrides, `absent` are None."""
    known = {**TYPES, **dict.fromkeys(SCALARS, "i32"), **(types or {})}
    names = kernel.arg_names
    values = {**dict.fromkeys(absent), **constants}
    signature = {name: "constexpr" if name in values else known[name] for name in names}
    aligned = [
        i
        for i, name in enumerate(names)
        if signature[name].startswith("*") or (name in MULTIPLES and signature[name] == "i32")
    ]
    source = ASTSource(
        fn=kernel, signature=signature,
        constexprs={(names.index(name),): value for name, value in values.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )  # fmt: skip
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    options = {"num_warps": warps, "num_stages": stages}
    return facts(triton.compile(source, target=target, options=options))


def products():
    lists = ("rest", "lists", "counts", "wide_lists", "wide_counts")
    shapes = ((1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 1, 2))
    for (kernel, stride, padding, upsample), sparse in product(shapes, (False, True)):
        window = {"KERNEL": kernel, "STRIDE": stride, "PADDING": padding, "UPSAMPLE": upsample}
        name = f"matmul {kernel}x{kernel} stride {stride} upsample {upsample} sparse {sparse}"
        yield name, compiled(
            linear.matmul_kernel,
            {**window, "SPARSE": sparse, "ADD": sparse, "OUTER": linear.OUTER, "ROWS": 128,
             "CHANNELS": 128, "DEPTH": 64},
            {"out": "*i32"}, () if sparse else lists, warps=8,
        )  # fmt: skip
        yield f"grouped {name}", compiled(
            linear.grouped_kernel,
            {**window, "DELTA": sparse, "ADD": sparse, "ROWS": 32, "CHANNELS": 64, "RUN": RUN,
             "TILE": TILE},
            {"out": "*i32"}, () if sparse else ("rest", "levels"),
        )  # fmt: skip
    for taps, step in ((1, 4), (9, 2)):
        yield f"lists of {taps} taps", compiled(
            tiles.list_kernel, {"TAPS": taps, "BLOCKS": 5, "STEP": step, "ENTRIES": 64},
            {"first": "*i32"},
        )  # fmt: skip


def encoders():
    common = {
        "CARRY_BITS": 4, "INLIER_BITS": 3, "FULL_LANES": 2, "GROUP": 16, "ROWS": 32, "COLUMNS": 64,
        "RUN": RUN, "TILE": TILE,
    }  # fmt: skip
    raw = ("y", "dy", "a", "b", "gain", "breaks", "slopes", "intercepts")
    for kind, send, loop, spill in product(range(3), range(3), range(3), (False, True)):
        carried = loop == 2 and kind != encode.MASK
        if carried or (send != encode.RESTORED and (loop or spill)):  # those are never asked for
            continue
        constants = {
            "KIND": kind, "SEND": send, "CLOSED": loop == 0, "CARRY": loop == 2, "SPILL": spill,
            "SEGMENTS": 8 if kind else 1, "COMPARE": kind == 2, "PACK": send == 1,
        }  # fmt: skip
        absent = raw if kind == 0 else ("codes",)
        yield (
            f"encode {kind} {send} {loop} {spill}",
            compiled(
                encode.encode_kernel,
                common | constants,
                {"first": "i32", "wide_counts": "*u8"},
                absent,
            ),
        )


def others():
    for delta, bits in product((False, True), (16, 32)):
        kind = {16: "*i16", 32: "*i32"}[bits]
        yield f"stream {delta} {bits}", compiled(
            stream.stream_kernel,
            {"PRODUCTS": 3, "ADDENDS": 3, "REST": True, "OFFSET": not delta, "DELTA": delta,
             "SUMS": True, "BITS": bits, "ROWS": stream.ROWS, "COLUMNS": stream.COLUMNS},
            {"y": kind, "dy": kind, "y_last": kind, "rest": "*i64", "table": "*i32"},
            () if delta else ("table_last", "y_last", "dy"),
        )  # fmt: skip
    yield "codes", compiled(attention.codes_kernel, {"SIZE": 1024})
    for frames, width, depth in ((False, 40, 64), (True, 72, 128), (False, 160, 256)):
        yield f"attention {width} {frames}", compiled(
            attention.attention_kernel,
            {"WIDTH": width, "DEPTH": depth, "QUERIES": attention.QUERIES, "KEYS": attention.KEYS,
             "FRAMES": frames},
            warps=attention.warps_for(depth),
        )  # fmt: skip


if __name__ == "__main__":
    print(
        json.dumps(
            {name: made for part in (products(), encoders(), others()) for name, made in part}
        )
    )
