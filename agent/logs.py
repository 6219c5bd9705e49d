"""How the agent's log looks: `key=value` on a terminal, one JSON object a line elsewhere.

Values come from strangers (pod names, process names): both forms write control characters and changes of writing
direction in escaped form. Events have stable names; there is one line for each change of state and none for a packet.

The only module that imports structlog, which takes rich along, for tracebacks the agent never draws, unless rich cannot
be found: 4 MiB in every agent.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any, TextIO

from agent import errors

LEVELS = ("debug", "info", "warning", "error")
PLAIN = re.compile(r"[\w./:@+,\[\]-]+", re.ASCII)
"""Values that need no quotes."""


def _structlog() -> ModuleType:
    """Import structlog; rich is hidden from it, and stays as it was to everybody else."""
    hidden = {name: sys.modules.pop(name) for name in [*sys.modules] if name == "rich" or name.startswith("rich.")}
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails
    try:
        return importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
        sys.modules.update(hidden)


structlog = _structlog()


def logger(name: str) -> Any:
    """Return the logger of a part of the agent."""
    return structlog.get_logger(name)


class Threshold:
    """The level below which nothing is logged; it may change while the agent runs, for every logger at once.

    structlog's own filter is built into a logger at its first use and stays.
    """

    def __init__(self, level: str) -> None:
        """Begin with `level`: one of LEVELS."""
        self._level = level

    @property
    def level(self) -> str:
        """What it is now."""
        return self._level

    def change(self, level: str) -> str:
        """Change it; return what it was. Raises InvalidInput."""
        if level not in LEVELS:
            raise errors.InvalidInput(field="log-level", value=level, remedy=f"write one of {', '.join(LEVELS)}")
        before, self._level = self._level, level
        return before

    def __call__(self, _logger: object, method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Let a line through, or end it; a processor of structlog."""
        levels = logging.getLevelNamesMapping()
        if levels[fields.get("level", method).upper()] < levels[self._level.upper()]:
            raise structlog.DropEvent
        return fields


def configure(level: str, file: TextIO) -> Threshold:
    """Send the log of this process to `file`; `level` is one of LEVELS, and what is returned changes it."""
    terminal, threshold = file.isatty(), Threshold(level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            threshold,
            structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
            structlog.processors.format_exc_info,
            key_value if terminal else structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    return threshold


def key_value(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    """Render one line: time, level, event, then the other fields in the order they were given."""
    head = [fields.pop("timestamp", ""), f"{fields.pop('level', ''):7}", str(fields.pop("event", ""))]
    return " ".join([*head, *(f"{key}={_quoted(value)}" for key, value in fields.items())])


def _quoted(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else ascii(text)
