"""python-iptables at the same work, in a process of its own: `python -m tests.bench.iptables_python RULES`.

The library caches tables for as long as a process lives, and writes to the namespace it was first used in. One commit
for all rules: a commit a rule, its default, copies the whole table each time.
"""

from __future__ import annotations

import json
import sys
import time

import iptc

from tests.bench import iptables_linear


def fill(count: int) -> dict[str, float]:
    """Write `count` of `iptables_linear.rules`; return milliseconds of building and of the commit."""
    begin = time.perf_counter()
    table = iptc.Table(iptc.Table.FILTER)
    table.autocommit = False
    chain = table.create_chain(iptables_linear.CHAIN)
    for number in range(count):
        source, destination, port = iptables_linear.rule_words(number)
        rule = iptc.Rule()
        rule.src, rule.dst, rule.protocol = source, destination, "tcp"
        rule.create_match("tcp").dport = str(port)
        rule.target = iptc.Target(rule, "ACCEPT")
        chain.append_rule(rule)
    built = time.perf_counter()
    table.commit()
    return {"build_ms": (built - begin) * 1000, "commit_ms": (time.perf_counter() - built) * 1000}


if __name__ == "__main__":
    print(json.dumps(fill(int(sys.argv[1]))))
