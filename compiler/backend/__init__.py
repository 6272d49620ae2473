"""Lowering of a quantised network to instructions: layout, scratchpads, tokens, emission."""
