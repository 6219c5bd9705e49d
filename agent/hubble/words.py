"""What is said of a verdict in words, by every form that a flow has outside the agent; pure.

Texts that strangers chose, of which names of processes are the worst, have their control characters escaped.
"""

from __future__ import annotations

from agent.model import net, verdict

SUMMARY_MOST = 2048
"""Characters. A pod may be selected by hundreds of policies: the flow's own field names all of them, and whoever reads
flows has a bound for each text."""

NAME_MOST = 1024
"""Characters of a name. Kubernetes has 253 at most; manifests from a directory may say anything."""


def summary(event: verdict.VerdictEvent) -> str:
    """Say in one line of at most SUMMARY_MOST characters what decided, and where."""
    said = [event.reason.name.lower().replace("_", " ")]
    if event.rule is not None:
        said.append(f"by {event.rule}")
    if event.isolating:
        said.append(f"isolated by {', '.join(map(str, event.isolating))}")
    where = f"at the {event.layer.name.lower()} layer"
    return f"{_bounded(plain('; '.join(said)), SUMMARY_MOST - len(where) - 2)}; {where}"


def with_call(said: str, event: verdict.VerdictEvent) -> str:
    """Add to a summary who asked, for what, and how many others are not told of, where that is known."""
    if event.process is None and event.dialled is None and not event.repeats and event.query is None:
        return said
    more = [said]
    if event.query is not None:
        admitted = f", which {event.query.admitted_by} does not name" if event.query.admitted_by else ""
        more.append(f"asked DNS for {event.query.name} {event.query.type}{admitted}")
    if event.process is not None:
        more.append(f"for {event.process.command}[{event.process.pid}]")
    if event.dialled is not None:
        more.append(f"dialled {socket_address(event.dialled)}")
    if event.repeats:
        more.append(f"{event.repeats} like it kept back")
    return plain("; ".join(more))


def socket_address(end: verdict.FlowEnd) -> str:
    """Return ADDRESS:PORT, or [ADDRESS]:PORT; without a port where there is none."""
    host = f"[{end.address}]" if end.address.version == net.Family.IPV6.value else str(end.address)
    return f"{host}:{end.port}" if end.port else host


def name(text: str) -> str:
    """Cut a name that Kubernetes would not have taken: whoever reads flows has a bound for each text."""
    return _bounded(text, NAME_MOST)


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plain(text: str) -> str:
    """Escape what a terminal could act on, and what UTF-8 cannot say."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
