"""Attention that a model writes out by hand: softmax of one matrix product inside another, each a
matmul, bmm or einsum, replaced by aten.scaled_dot_product_attention."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch

from signmask.compiler.fusion.composites import Rewriter, is_cast
from signmask.compiler.graph import Call, Ref

PRODUCTS = ("aten.matmul", "aten.bmm", "aten.einsum")


@dataclass
class Contraction:
    """A product of two tensors whose dimensions carry letters."""

    operands: tuple[Ref, Ref]
    letters: tuple[str, str]
    out: str


@dataclass
class Scores:
    """What a softmax weighs `along` a letter: a product, scaled, and a constant that is added."""

    product: Contraction
    scale: float
    mask: Any
    along: str


def rewrite_attention(rewriter: Rewriter) -> None:
    """Replace every attention that is recognised."""
    for name in list(rewriter.calls.graph):
        if rewriter.calls.call(name).operator in ("aten.softmax", "aten._softmax"):
            scores = _scores(rewriter, name)
            if scores is not None:
                _replace(rewriter, name, scores)


def _scores(rewriter: Rewriter, softmax: str) -> Scores | None:
    """What a softmax weighs, read upwards from it."""
    call = rewriter.calls.call(softmax)
    along = call.args[1] % len(call.shape)
    argument, scale, mask = rewriter.skip_casts(call.args[0]), 1.0, None
    while True:
        step = rewriter.call(argument, "aten.mul", "aten.div", "aten.add", *PRODUCTS)
        if step is None:
            return None
        if step.operator in PRODUCTS:
            break
        sides = step.args[:2]
        if step.operator != "aten.div" and rewriter.is_constant(sides[0]):
            sides = (sides[1], sides[0])
        if step.operator == "aten.add":
            if mask is not None or scale != 1.0 or not rewriter.is_constant(sides[1]):
                return None
            mask = sides[1]
            # Added, truth values are zeros and ones; the mask of an attention has keys last.
            if rewriter.dtype(mask) == torch.bool or along != len(call.shape) - 1:
                return None
        else:
            number = rewriter.number(sides[1])
            if not number:
                return None
            scale *= number if step.operator == "aten.mul" else 1 / number
        argument = rewriter.skip_casts(sides[0])
    product = _contraction(rewriter, step)
    if product is None:
        return None
    return Scores(product, scale, mask, product.out[along])


def _contraction(rewriter: Rewriter, call: Call) -> Contraction | None:
    """A product with letters for its dimensions; None where it broadcasts or sums otherwise."""
    if call.operator == "aten.einsum":
        equation, operands = call.args
        left, _, out = equation.replace(" ", "").partition("->")
        letters = tuple(left.split(","))
        if len(operands) != 2 or not out or "." in equation:
            return None
    else:
        operands = call.args[:2]
        rank = len(call.shape)
        if any(len(_shape(rewriter, x)) != rank for x in operands):
            return None
        batch = ascii_lowercase[: rank - 2]
        letters, out = (f"{batch}xy", f"{batch}yz"), f"{batch}xz"
    if not all(isinstance(x, Ref) for x in operands):
        return None
    return Contraction((operands[0], operands[1]), (letters[0], letters[1]), out)


def _shape(rewriter: Rewriter, argument: Any) -> tuple[int, ...]:
    return rewriter.calls.shape(argument.name) if isinstance(argument, Ref) else ()


def _replace(rewriter: Rewriter, softmax: str, scores: Scores) -> None:
    """Let the second product be an attention, if there is one."""
    first, along = scores.product, scores.along
    key_side = next((i for i in (0, 1) if along in first.letters[i]), None)
    if key_side is None or along in first.letters[1 - key_side]:
        return
    name, order = _reader(rewriter, softmax, first.out)
    call = rewriter.calls.call(name)
    second = _contraction(rewriter, call) if call.operator in PRODUCTS else None
    if second is None:
        return
    weights = next((i for i in (0, 1) if _leads_to(rewriter, second.operands[i], softmax)), None)
    if weights is None or len(order) != len(second.letters[weights]):
        return
    # The second product's letters in terms of the first's; the one left over counts v's channels.
    known = dict(zip(second.letters[weights], order, strict=True))
    v_letters = "".join(known.get(x, "%") for x in second.letters[1 - weights])
    out = "".join(known.get(x, "%") for x in second.out)
    contracted = [x for x in first.letters[key_side] if x not in first.out]
    query = [x for x in first.out if x not in first.letters[key_side]]
    batch = [x for x in first.out if x != along and x not in query]
    if len(query) != 1 or len(contracted) != 1 or v_letters.count("%") != 1:
        return
    if sorted(v_letters) != sorted([*batch, along, "%"]):
        return
    if sorted(out) != sorted([*batch, *query, "%"]):
        return
    lead, q = "".join(batch), query[0]
    operands = (
        (first.operands[1 - key_side], first.letters[1 - key_side], lead + q + contracted[0]),
        (first.operands[key_side], first.letters[key_side], lead + along + contracted[0]),
        (second.operands[1 - weights], v_letters, f"{lead}{along}%"),
    )
    args = tuple(_permuted(rewriter, name, *operand) for operand in operands)
    target = "aten.scaled_dot_product_attention.default"
    given = {"scale": scores.scale, "attn_mask": scores.mask}
    done = f"{lead}{q}%"
    if out == done:
        rewriter.replace(name, target, args, **given)
        return
    shape = tuple(call.shape[out.index(x)] for x in done)
    mixed = rewriter.add(name, target, args, shape)
    rewriter.calls.call(mixed.name).kwargs = given
    rewriter.replace(name, "aten.permute.default", (mixed, [done.index(x) for x in out]))


def _reader(rewriter: Rewriter, name: str, letters: str) -> tuple[str, str]:
    """The first reader of `name` that does more than permute or convert it, and the letters of what
    it reads."""
    graph = rewriter.calls.graph
    while graph.out_degree(name) == 1:
        name = next(graph.successors(name))
        call = rewriter.calls.call(name)
        if call.operator == "aten.transpose":
            order = list(range(len(letters)))
            a, b = (d % len(letters) for d in call.args[1:3])
            order[a], order[b] = b, a
        elif call.operator == "aten.permute":
            order = [d % len(letters) for d in call.args[1]]
        elif is_cast(call):
            continue
        else:
            break
        letters = "".join(letters[d] for d in order)
    return name, letters


def _leads_to(rewriter: Rewriter, argument: Ref, softmax: str) -> bool:
    """Whether an operand is the softmax, permuted or converted."""
    name = argument.name
    while name != softmax:
        call = rewriter.call(Ref(name), "aten.transpose", "aten.permute")
        if call is None or not isinstance(call.args[0], Ref):
            skipped = rewriter.skip_casts(Ref(name))
            return isinstance(skipped, Ref) and skipped.name == softmax
        name = call.args[0].name
    return True


def _permuted(rewriter: Rewriter, like: str, operand: Ref, letters: str, wanted: str) -> Ref:
    """An operand with its dimensions in the wanted order."""
    if letters == wanted:
        return operand
    order = [letters.index(x) for x in wanted]
    if operand.name in rewriter.constants:
        rows = rewriter.constants[operand.name]
        return rewriter.add_constant(like, np.transpose(rows, (0, *(d + 1 for d in order))))
    if operand.name in rewriter.calls.parameters:
        array = rewriter.calls.parameters[operand.name].double().permute(order).numpy()
        return rewriter.add_constant(like, array[None])
    shape = _shape(rewriter, operand)
    permuted = tuple(shape[d] for d in order)
    return rewriter.add(like, "aten.permute.default", (operand, order), permuted)
