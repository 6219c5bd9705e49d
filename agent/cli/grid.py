"""Draws who reaches whom as a picture: sources down, destinations across, one grid a port.

The names of the columns stand above them like steps, each with a line down to its column:

    80/TCP        ┌ x/a
                  │ ┌ x/b
    x/a           · ✓
    x/b           ✗ ·

A cell is ✓ (reaches), ✗ (does not), 4 or 6 (reaches by that family only), ~ (reaches, and policies in audit would deny
it in some family, rule A51), · (nothing to judge). Where the terminal is
too narrow for a grid there is none, and the caller prints a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import text as rich_text

from agent.cli import output
from agent.model import net
from agent.policy import reachability

REACHES = ("✓", "green")
BLOCKED = ("✗", "bold red")
AUDITED = ("~", "magenta")
NOTHING = ("·", "dim")
GAP = 2
"""Columns of the screen that one column of the grid takes."""


def draw(reached: Sequence[reachability.Reach], *, width: int) -> rich_text.Text | None:
    """Return the grid of one port, or None where it needs more than `width` columns of the screen."""
    cells: dict[tuple[str, str], dict[net.Family, bool]] = {}
    audited: set[tuple[str, str]] = set()
    for one in reached:
        cells.setdefault((one.source, one.destination), {})[one.family] = one.decision.allowed
        if one.would_deny is not None:
            audited.add((one.source, one.destination))
    sources = list(dict.fromkeys(one.source for one in reached))
    targets = sorted({one.destination for one in reached}, key=lambda name: (name.startswith("host/"), name))
    number, protocol = reached[0].port
    heading = f"{number}/{protocol.name}"
    left = GAP + max(len(heading), *(len(output.escape(source)) for source in sources))
    widest = max(left + GAP * column + 2 + len(output.escape(name)) for column, name in enumerate(targets))
    if widest > width:
        return None
    drawn = rich_text.Text()
    for column, name in enumerate(targets):
        drawn.append((heading if column == 0 else "").ljust(left), style="bold")
        drawn.append("│ " * column + "┌ ", style="dim")
        drawn.append(f"{output.escape(name)}\n")
    for source in sources:
        drawn.append(output.escape(source).ljust(left))
        for target in targets:
            symbol, style = _symbol(cells.get((source, target), {}), audited=(source, target) in audited)
            drawn.append(symbol, style=style)
            drawn.append(" ")
        drawn.append("\n")
    drawn.rstrip()
    return drawn


def _symbol(by_family: dict[net.Family, bool], *, audited: bool) -> tuple[str, str]:
    if not by_family:
        return NOTHING
    if audited and all(by_family.values()):
        return AUDITED
    if all(by_family.values()):
        return REACHES
    reaching = [family for family, allowed in by_family.items() if allowed]
    return (str(reaching[0].value), "yellow") if reaching else BLOCKED
