"""`--watch`: a list first whole, then each row as it becomes another; as `kubectl get --watch` does.

The agent is asked once a second: there is no event a list could miss that the next answer would not show. Rows go by
their names; one that went away is printed once more with a `-` before it. JSON and YAML are printed whole at every
change, one document after the other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import click

from agent.cli import output, tables

INTERVAL_S = 1.0


def watch_option(command: output.Command) -> output.Command:
    """Give a command --watch, as its parameter `watch: bool`."""
    return click.option("-w", "--watch", is_flag=True, help="Go on with what changes, until Ctrl-C.")(command)


def show(fetch: Callable[[], output.Listing], *, form: output.Form, watch: bool) -> None:
    """Print a listing, and with `watch` what becomes of it."""
    if not watch:
        text = output.listed(fetch(), form)
        if text:
            click.echo(text)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for text in changes(answers(fetch), form):
            click.echo(text)


def answers(fetch: Callable[[], output.Listing]) -> Iterator[output.Listing]:
    """Yield the answer now, and every second."""
    while True:
        yield fetch()
        time.sleep(INTERVAL_S)


def changes(listings: Iterator[output.Listing], form: output.Form) -> Iterator[str]:
    """Yield what to print: the first listing, then what is new or another."""
    if form is not output.Form.TABLE:
        yield from _documents(listings, form)
        return
    before: Mapping[str, Mapping[str, object]] | None = None
    least: tuple[int, ...] = ()
    for listing in listings:
        now = dict(zip(_keys(listing), listing.rows, strict=True))
        columns = (*listing.columns, *(listing.wide if output.presentation().wide else ()))
        found = tables.widths(listing.rows, columns)
        least = tuple(map(max, least, found)) if least else found
        text = _changed(listing, now, before, least)
        if text:
            yield text
        before = now


def _changed(
    listing: output.Listing,
    now: Mapping[str, Mapping[str, object]],
    before: Mapping[str, Mapping[str, object]] | None,
    least: Sequence[int],
) -> str:
    if before is None:
        return output.listed(listing, output.Form.TABLE, least=least)
    parts: list[str] = []
    news = {key: row for key, row in now.items() if before.get(key) != row}
    gone = {key: row for key, row in before.items() if key not in now}
    for rows, mark in ((gone, "- "), (news, "")):
        if rows:
            names = tuple(rows) if listing.names else ()
            part = output.Listing(
                rows=tuple(rows.values()), columns=listing.columns, wide=listing.wide, names=names, document=None
            )
            text = output.listed(part, output.Form.TABLE, header=False, least=least)
            parts.extend(f"{mark}{line}" for line in text.splitlines())
    return "\n".join(parts)


def _documents(listings: Iterator[output.Listing], form: output.Form) -> Iterator[str]:
    before = None
    for listing in listings:
        text = output.listed(listing, form)
        if text != before:
            yield f"---\n{text}" if form is output.Form.YAML else text
        before = text


def _keys(listing: output.Listing) -> Sequence[str]:
    return listing.names or [str(place) for place in range(len(listing.rows))]
