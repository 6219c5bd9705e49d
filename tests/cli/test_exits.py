"""One table of exit codes: in the help, and for every error."""

from __future__ import annotations

import pytest
from click import testing

from agent import errors
from agent.cli import exits, main


def test_the_help_has_every_exit_code_with_its_meaning() -> None:
    shown = testing.CliRunner().invoke(main.root, ["--help"]).output
    assert [*exits.MEANINGS] == [*exits.ExitCode]
    for code, meaning in exits.MEANINGS.items():
        assert f"  {code.value}  {meaning}\n" in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput(field="f", value="v", remedy="r"), 2),
        (errors.InvalidResource("x.yaml:3: not YAML"), 2),
        (errors.NotFound(field="f", value="v", remedy="r"), 1),
        (errors.Unreachable(socket="s", reason="r", remedy="m"), 4),
        (errors.DatapathError("x"), 1),
        (errors.LabError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: errors.NodewallError, code: int) -> None:
    assert exits.failure(error).exit_code == code
