"""The table of all metrics for people: METRICS.md beside this file is what `python -m agent.metrics.table` prints."""

from __future__ import annotations

import sys

from agent.metrics import families

HEAD = """# Metrics

`/metrics` on `--metrics-address` (127.0.0.1:9880 unless told; `none` for nowhere), in Prometheus's text format, read
from the agent's state at each scrape. Beside these there are the client's own `process_*`. No label has a pod, an
address or the name of a policy for a value.

| metric | kind | labels | what it says |
|---|---|---|---|
"""


def text() -> str:
    """Write METRICS.md."""
    lines = (
        f"| `{family.full_name}` | {family.kind.value} | {', '.join(family.labels)} | {family.help} |\n"
        for family in sorted(families.FAMILIES, key=lambda family: family.name)
    )
    return HEAD + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(text())
