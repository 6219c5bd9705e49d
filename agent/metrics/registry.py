"""The registry: Prometheus's client with our families, a picture taken at each scrape, and two histograms.

The only module that imports prometheus_client, whose global registry stays unused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import prometheus_client
from prometheus_client import metrics_core

from agent.metrics import families, picture
from agent.metrics import family as family_

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One number of a scrape."""

    name: str
    kind: str
    """`counter`, `gauge`, `histogram`."""
    labels: Mapping[str, str]
    value: float
    help: str


class Registry:
    """One agent's metrics."""

    def __init__(self) -> None:
        """Start with empty histograms."""
        self._now: picture.Picture | None = None
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._programming = self._histogram(families.PROGRAMMING)
        self._apply = self._histogram(families.APPLY)
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    def applied(self, *, seconds: float, since_change_s: float | None) -> None:
        """Note a run that brought the kernel into line; `since_change_s` if that enforced a change of the cluster."""
        self._apply.observe(seconds)
        if since_change_s is not None:
            self._programming.observe(max(0.0, since_change_s))

    def page(self, now: picture.Picture) -> bytes:
        """Write everything in the text format."""
        self._now = now
        return prometheus_client.generate_latest(self._registry)

    def samples(self, now: picture.Picture) -> Iterator[Sample]:
        """Yield the numbers of a page."""
        self._now = now
        for metric in self._registry.collect():
            for one in metric.samples:
                yield Sample(
                    name=one.name,
                    kind=metric.type,
                    labels=dict(one.labels),
                    value=float(one.value),
                    help=metric.documentation,
                )

    def describe(self) -> Iterator[metrics_core.Metric]:
        """Yield the metrics without samples; prometheus_client asks when this is registered."""
        for family in families.FAMILIES:
            if family.samples is not None:
                yield _metric(family)

    def collect(self) -> Iterator[metrics_core.Metric]:
        """Yield the metrics as they are in the picture; prometheus_client asks at each scrape."""
        for family in families.FAMILIES:
            if family.samples is not None and self._now is not None:
                metric = _metric(family)
                for labels, value in family.samples(self._now):
                    metric.add_metric(labels, value)
                yield metric

    def _histogram(self, family: family_.Family) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(family.full_name, family.help, buckets=BUCKETS_S, registry=self._registry)


def _metric(family: family_.Family) -> metrics_core.CounterMetricFamily | metrics_core.GaugeMetricFamily:
    kind = metrics_core.CounterMetricFamily if family.kind is family_.Kind.COUNTER else metrics_core.GaugeMetricFamily
    return kind(family.full_name, family.help, labels=family.labels)
