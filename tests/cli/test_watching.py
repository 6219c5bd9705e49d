"""--watch: the list first, then what is new, another, or gone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from click import testing

from agent.cli import output, watching


def listing(**states: str) -> output.Listing:
    rows = [{"name": name, "state": state} for name, state in states.items()]
    document = {"rows": rows}
    return output.Listing(rows=rows, columns=("name", "state"), names=tuple(states), document=document)


FRAMES = (
    listing(a="open", b="open"),
    listing(a="open", b="open"),
    listing(a="open", b="isolated"),
    listing(a="open", c="open"),
)


def test_a_table_is_followed_by_the_rows_that_are_new_another_or_gone() -> None:
    first, changed, replaced = watching.changes(iter(FRAMES), output.Form.TABLE)
    assert [line.split() for line in first.splitlines()] == [["NAME", "STATE"], ["a", "open"], ["b", "open"]]
    assert changed.split() == ["b", "isolated"]
    assert [line.split() for line in replaced.splitlines()] == [["-", "b", "isolated"], ["c", "open"]]


def test_columns_keep_their_places_while_rows_come_one_by_one() -> None:
    first, later = watching.changes(iter([listing(long_name="x"), listing(long_name="x", s="y")]), output.Form.TABLE)
    assert first.splitlines()[0].index("STATE") == later.index("y")


def test_documents_are_printed_whole_whenever_they_are_others() -> None:
    printed = [*watching.changes(iter(FRAMES), output.Form.JSON)]
    assert [len(json.loads(text)["rows"]) for text in printed] == [2, 2, 2]
    assert all(text.startswith("---\n") for text in watching.changes(iter(FRAMES), output.Form.YAML))


def test_nothing_at_first_is_a_header_and_then_what_comes() -> None:
    first, later = watching.changes(iter([listing(), listing(a="open")]), output.Form.TABLE)
    assert first.split() == ["NAME", "STATE"]
    assert later.split() == ["a", "open"]


def test_ctrl_c_ends_it_without_an_error_and_names_are_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def frames(_fetch: object) -> Iterator[output.Listing]:
        yield from FRAMES
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "answers", frames)

    @click.command()
    @watching.watch_option
    @output.output_option
    def verb(*, form: output.Form, watch: bool) -> None:
        watching.show(lambda: FRAMES[0], form=form, watch=watch)

    followed = testing.CliRunner().invoke(verb, ["--watch", "-o", "name"])
    assert (followed.exit_code, followed.output) == (0, "a\nb\nb\n- b\nc\n")
    assert testing.CliRunner().invoke(verb, ["-o", "name"]).output == "a\nb\n"
