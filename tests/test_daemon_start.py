"""How an agent begins, before anything of it runs."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Never

import pytest

from agent import config, daemon, logs, settings
from agent.datapath import engines, rtnetlink
from tests import test_config


class _ReachedError(Exception):
    """The kernel was asked."""


def test_an_engine_may_ask_by_rtnetlink_when_it_starts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without tcx (before Linux 6.6) are asked for clsact then, by a library that runs an event loop."""

    def start(*_given: object, **_more: object) -> Never:
        with rtnetlink.connection():
            raise _ReachedError

    monkeypatch.setattr(engines, "start", start)
    arguments = test_config.arguments(tmp_path)
    told = settings.Settings(
        config=config.parse(arguments), arguments=tuple(arguments), threshold=logs.Threshold("info")
    )
    with pytest.raises(_ReachedError):
        asyncio.run(daemon.run(told))
