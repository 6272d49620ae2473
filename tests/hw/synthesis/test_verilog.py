"""Netlists for OpenSTA: assignments of single bits."""

from __future__ import annotations

from signmask.hw.synthesis.verilog import bitwise_assignments


def test_concatenations_and_ranges_are_split() -> None:
    text = "\n".join(
        [
            "module m(a, y);",
            "  input [3:0] a;",
            "  output [3:0] y;",
            "  wire [1:0] \\odd$1 ;",
            "  assign { y[3], y[1:0] } = { a [0], 2'b10 };",
            "  assign \\odd$1  = a[2:1];",
            "  assign y[2] = \\odd$1 [0];",
            "  INVX1 g ( .A({a[0], a[1]}), .Y(y[2]) );",
            "endmodule",
        ]
    )
    lines = [" ".join(line.split()) for line in bitwise_assignments(text).splitlines()]
    assert lines[4:] == [
        "assign y[3] = a [0];",
        "assign y [1] = 1'b1;",
        "assign y [0] = 1'b0;",
        "assign \\odd$1 [1] = a [2];",
        "assign \\odd$1 [0] = a [1];",
        "assign y[2] = \\odd$1 [0];",
        "INVX1 g ( .A({a[0], a[1]}), .Y(y[2]) );",
        "endmodule",
    ]


def test_whole_vectors_are_split_in_their_own_module_only() -> None:
    text = "\n".join(
        [
            "module m(a, y);",
            "  input [1:0] a;",
            "  output [1:0] y;",
            "  assign y = a;",
            "endmodule",
            "module k(a, y);",
            "  input a;",
            "  output y;",
            "  assign y = a;",
            "endmodule",
        ]
    )
    lines = bitwise_assignments(text).splitlines()
    assert [line.strip() for line in lines if "assign" in line] == [
        "assign y [1] = a [1];",
        "assign y [0] = a [0];",
        "assign y = a;",
    ]
