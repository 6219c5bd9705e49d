"""Tables, JSON and YAML of agentctl; hostile strings never reach the terminal."""

from __future__ import annotations

import ipaddress
import json

import click
import pytest
import yaml
from click import testing

from agent import errors
from agent.cli import output

COLUMNS = ("name", "ready", "named_ports", "verdict")
ROWS = (
    {"name": "web", "ready": True, "named_ports": (80, 443), "verdict": output.Styled("DROPPED", "red")},
    {"name": "", "ready": None, "named_ports": (), "verdict": "FORWARDED"},
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain, ünïcode ✓", "plain, ünïcode ✓"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\x7f\x85\x9f", "\\x7f\\x85\\x9f"),
        ("a\u202eb\u2066c\u2069", "a\\u202eb\\u2066c\\u2069"),
        ("\u2028\u2029", "\\u2028\\u2029"),
    ],
)
def test_control_characters_and_bidi_overrides_are_shown_and_not_obeyed(hostile: str, shown: str) -> None:
    assert output.escape(hostile) == shown


def test_a_table_outside_a_terminal_has_no_colour_and_no_folded_lines() -> None:
    long = "x" * 500
    text = output.render([*ROWS, {"name": long}], columns=COLUMNS, form=output.Form.TABLE, document=None)
    lines = text.splitlines()
    assert lines[0].split() == ["NAME", "READY", "NAMED", "PORTS", "VERDICT"]
    assert lines[1].split() == ["web", "yes", "80,", "443", "DROPPED"]
    assert lines[2].split() == ["-", "-", "-", "FORWARDED"]
    assert lines[3].startswith(long)
    assert "\x1b" not in text


def test_a_table_of_nothing_still_shows_its_columns() -> None:
    assert output.render((), columns=COLUMNS, form=output.Form.TABLE, document=()).split()[0] == "NAME"


def test_a_cell_with_markup_of_rich_is_printed_as_it_is() -> None:
    text = output.render([{"name": "[red]x[/red] :smile:"}], columns=["name"], form=output.Form.TABLE, document=None)
    assert "[red]x[/red] :smile:" in text


def test_json_and_yaml_carry_the_whole_document() -> None:
    document = {"pods": [{"name": "a\x1b\u202e", "address": ipaddress.ip_address("10.0.0.1")}]}
    expected = {"pods": [{"name": "a\x1b\u202e", "address": "10.0.0.1"}]}
    for form, load in ((output.Form.JSON, json.loads), (output.Form.YAML, yaml.safe_load)):
        text = output.render((), columns=(), form=form, document=document)
        assert load(text) == expected
        assert "\x1b" not in text
        assert "\u202e" not in text


@click.command()
@output.output_option
def show(form: output.Form) -> None:
    click.echo(form.name)


def test_the_option_reads_its_three_values_and_refuses_others() -> None:
    runner = testing.CliRunner()
    assert runner.invoke(show).output == "TABLE\n"
    assert runner.invoke(show, ["-o", "json"]).output == "JSON\n"
    assert runner.invoke(show, ["--output", "xml"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput(field="--pod", value="a/b/c", remedy="write NAMESPACE/NAME"), output.ExitCode.USAGE),
        (errors.InvalidResource("x.yaml, line 3: not YAML"), output.ExitCode.USAGE),
        (errors.DatapathError("no agent"), output.ExitCode.FAILURE),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(error: errors.NodewallError, code: int) -> None:
    @click.command()
    def fails() -> None:
        raise output.failure(error)

    result = testing.CliRunner().invoke(fails)
    assert result.exit_code == code
    assert result.stderr == f"agentctl: {error}\n"


def test_a_network_is_one_cell_and_not_all_its_addresses() -> None:
    everything = ipaddress.ip_network("::/0")
    assert output.cell_text((everything,)) == "::/0"
    assert output.plain({"blocks": (everything,)}) == {"blocks": ["::/0"]}


def test_an_error_text_is_escaped_line_by_line() -> None:
    @click.command()
    def fails() -> None:
        raise output.failure(errors.LabError("one\x1b[1m\ntwo"))

    assert testing.CliRunner().invoke(fails).stderr == "agentctl: one\\x1b[1m\ntwo\n"
