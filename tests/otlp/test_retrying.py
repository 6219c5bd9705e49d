"""What is sent again: the OTLP specification's table."""

from __future__ import annotations

import grpc
import pytest

from agent.otlp import retrying

AGAIN = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
FAILURES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", FAILURES)
def test_a_failure_is_repeated_where_the_specification_says_so(code: str) -> None:
    assert retrying.again(code, None) is (code in AGAIN)
    assert retrying.again(code, 0.0) is (code in AGAIN or code == "RESOURCE_EXHAUSTED")
