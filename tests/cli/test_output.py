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


def test_the_option_reads_its_values_and_refuses_others_naming_all() -> None:
    runner = testing.CliRunner()
    assert runner.invoke(show).output == "TABLE\n"
    assert runner.invoke(show, ["-o", "json"]).output == "JSON\n"
    refused = runner.invoke(show, ["--output", "x\x1bml"])
    assert refused.exit_code == 2
    assert "jsonpath=EXPR, name" in refused.stderr
    assert "\x1b" not in refused.stderr


@click.command()
@output.output_option
def listed(form: output.Form) -> None:
    listing = output.Listing(
        rows=[{"name": "web\x1b", "id": 7}],
        columns=("name",),
        wide=("id",),
        names=("x/web\x1b",),
        document={"pods": [{"name": "web\x1b"}]},
    )
    click.echo(output.listed(listing, form))


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ((), "NAME\nweb\\x1b\n"),
        (("-o", "wide"), "NAME     ID\nweb\\x1b  7\n"),
        (("-o", "wide", "--no-headers"), "web\\x1b  7\n"),
        (("-o", "name"), "x/web\\x1b\n"),
        (("-o", "jsonpath={.pods[0].name}"), "web\\x1b\n"),
        (("-o", 'jsonpath={range .pods[*]}{.name}{"\\n"}{end}'), "web\\x1b\n"),
    ],
)
def test_a_listing_is_printed_as_it_was_asked_for(arguments: tuple[str, ...], printed: str) -> None:
    assert testing.CliRunner().invoke(listed, arguments).output == printed


def test_a_jsonpath_that_is_wrong_is_usage() -> None:
    refused = testing.CliRunner().invoke(listed, ["-o", "jsonpath=.pods"])
    assert refused.exit_code == 2
    assert "as kubectl does" in refused.stderr


def test_names_of_what_has_none_are_refused() -> None:
    @click.command()
    @output.output_option
    def nameless(form: output.Form) -> None:
        click.echo(output.render(ROWS, columns=COLUMNS, form=form, document={}))

    with pytest.raises(errors.InvalidInput, match="no names"):
        testing.CliRunner().invoke(nameless, ["-o", "name"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "coloured"),
    [
        ((), {}, False),
        (("--color", "always"), {}, True),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color", "never"), {}, False),
    ],
)
def test_colour_is_for_terminals_unless_told(
    arguments: tuple[str, ...], environment: dict[str, str], *, coloured: bool
) -> None:
    @click.command()
    @output.output_option
    def verb(form: output.Form) -> None:
        click.echo(output.render(ROWS, columns=COLUMNS, form=form, document={}))
        click.echo(click.style("x", fg="red"))

    printed = testing.CliRunner().invoke(verb, arguments, env=environment).output
    table, word = printed.rstrip().rsplit("\n", 1)
    assert ("\x1b[" in table) is coloured
    assert ("\x1b[" in word) is coloured


def test_no_color_holds_on_a_terminal_too() -> None:
    @click.command()
    @output.output_option
    def verb(form: output.Form) -> None:
        click.echo(f"{click.get_current_context().color} {form.name}")

    runner = testing.CliRunner()
    assert runner.invoke(verb, env={"NO_COLOR": "1"}, color=True).output == "False TABLE\n"
    assert runner.invoke(verb, env={"NO_COLOR": ""}, color=True).output == "None TABLE\n"


def test_lines_about_one_thing_are_aligned_escaped_and_continued() -> None:
    text = output.described([("pod", "x/a\x1b"), ("labels", {"k\x1b": "v"}), ("", "  more"), ("held", None)])
    assert click.unstyle(text) == "pod:    x/a\\x1b\nlabels: k\\x1b=v\n          more\nheld:   -"


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


@pytest.mark.parametrize("form", list(output.Form)[1:])
def test_no_document_has_a_character_that_a_terminal_would_act_on(form: output.Form) -> None:
    printed = output.dump({"na\x7fme": ["a\x7fb\x1b\x9b\u202e"]}, form)
    assert printed.replace("\n", "").isprintable()
