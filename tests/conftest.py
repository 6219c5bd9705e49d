"""Which tests one worker runs behind each other: those that share what takes seconds to build.

The problem: tests run in several processes at once, and a lab that a module or a combination shares would be built by
each of them. The rule: a module's tests stay together, those of each combination by themselves; a test that names a
group keeps it.
"""

from __future__ import annotations

import pytest

from tests.system import engines


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test a group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec is not None else ()
    names = [value.name for value in values if isinstance(value, engines.Combination)]
    return " ".join([item.nodeid.partition("::")[0], *names])
