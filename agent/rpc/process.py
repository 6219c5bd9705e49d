"""The running process, as the API asks about it: settings, numbers, and how much it logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from agent import settings as settings_
from agent.metrics import registry
from agent.rpc import details, getters


def of(settings: settings_.Settings, samples: Callable[[], Iterable[registry.Sample]]) -> getters.Process:
    """Return what answers for a process that was told `settings`."""

    def told() -> Iterator[details.Setting]:
        for one in settings.told():
            yield details.Setting(name=one.name, value=one.value, origin=one.origin.value, changeable=one.changeable)

    def taken() -> Iterator[details.MetricSample]:
        for one in samples():
            yield details.MetricSample(name=one.name, kind=one.kind, labels=one.labels, value=one.value, help=one.help)

    return getters.Process(settings=told, metrics=taken, set_log_level=settings.threshold.change)
