"""Sequences of states: the tables must not remember the way."""
