"""Benchmarks: every figure is a ratio against a baseline of the same run, medians of interleaved rounds.

They never fail because something was slow; they fail when two ways to one result disagree.
"""
