"""The demo's cluster and its steps: manifests beside this file, read once and handed out as values."""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import Any

import yaml

Document = dict[str, Any]
PREFIX = "demo.nodewall/"
"""Of the annotations that say which step a policy belongs to, and what the step shows."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is added, and what it is called."""

    title: str
    text: str
    policies: tuple[Document, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster without policies, and the steps that close and open it."""

    cluster: tuple[Document, ...]
    steps: tuple[Step, ...]


def scenario() -> Scenario:
    """Read the manifests; the first step has no policies."""
    here = importlib.resources.files(__package__)
    cluster = yaml.safe_load_all((here / "cluster.yaml").read_text())
    steps = {0: Step(title="Open", text="No policy yet: everybody reaches everybody, as Kubernetes has it.")}
    for policy in yaml.safe_load_all((here / "policies.yaml").read_text()):
        notes = policy["metadata"].pop("annotations")
        number = int(notes[PREFIX + "step"])
        if number not in steps:
            steps[number] = Step(title=notes[PREFIX + "title"], text=notes[PREFIX + "text"])
        steps[number] = dataclasses.replace(steps[number], policies=(*steps[number].policies, policy))
    return Scenario(cluster=tuple(cluster), steps=tuple(steps.values()))
