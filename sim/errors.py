"""Errors of the simulator."""

from __future__ import annotations


class SimulationError(RuntimeError):
    """A program that the machine cannot execute; one sentence with cause, place and remedy."""


class Fault(Exception):
    """What an instruction did wrong; the machine adds which instruction and raises
    SimulationError."""
