"""`python -m tests.bench [NAME...]`: run the benchmarks, print a table, write build/bench.json."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import sys
import time

from tests.bench import figures

BENCHMARKS = ("compile", "connect", "change")


def main(names: list[str]) -> None:
    """Run the named benchmarks, all of them by default."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"bench: no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}")
    found: list[figures.Figure] = []
    for name in names or BENCHMARKS:
        begin = time.perf_counter()
        found += importlib.import_module(f"tests.bench.{name}").run()
        print(f"bench: {name} took {time.perf_counter() - begin:.1f} s", file=sys.stderr)
    print(figures.table(found))
    target = pathlib.Path("build/bench.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([dataclasses.asdict(figure) | {"ratio": figure.ratio} for figure in found], indent=1))


main(sys.argv[1:])
