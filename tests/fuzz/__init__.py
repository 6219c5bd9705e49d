"""A campaign of hostile input: requests that nobody honest sends, and names that nobody honest has.

Each round is made from its number alone, so a failure repeats with `python -m tests.fuzz --first N --rounds 1`.
"""
