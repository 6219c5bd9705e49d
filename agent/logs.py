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


def configure(level: str, file: TextIO) -> None:
    """Send the log of this process to `file`; `level` is `debug`, `info`, `warning` or `error`."""
    terminal = file.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
            structlog.processors.format_exc_info,
            key_value if terminal else structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )


def key_value(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    """Render one line: time, level, event, then the other fields in the order they were given."""
    head = [fields.pop("timestamp", ""), f"{fields.pop('level', ''):7}", str(fields.pop("event", ""))]
    return " ".join([*head, *(f"{key}={_quoted(value)}" for key, value in fields.items())])


def _quoted(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else ascii(text)
