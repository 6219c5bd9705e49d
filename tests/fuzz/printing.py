"""Rounds that print: every way this project has of showing what strangers called themselves."""

from __future__ import annotations

import dataclasses
import importlib.resources
import random
from collections.abc import Mapping

from agent import errors
from agent import graph as graph_
from agent.cli import observe, output
from agent.flows import records
from agent.graph import document, dot, page, svg, terminal
from agent.hubble import client, globs, masks, selectors, words
from agent.model import labels, resources, verdict
from agent.otlp import flowlog
from tests.fuzz import noise
from tests.graph import graphs
from tests.hubble import variety


class Printed:
    """Everything that has to be made once."""

    def __init__(self) -> None:
        """Make it."""
        self.records = variety.flows(40)
        here = importlib.resources.files(graph_)
        self.parts: Mapping[str, str] = {
            name: (here / name).read_text() for name in ("page.html", "page.css", "page.js")
        }

    def line(self, choose: random.Random) -> None:
        """Print a verdict as a line, as JSON, as Hubble's message, and as OpenTelemetry's."""
        record = choose.choice(self.records)
        event = dataclasses.replace(
            record.event,
            node=noise.text(choose),
            source=_end(choose, record.event.source),
            destination=_end(choose, record.event.destination),
            isolating=(_ref(choose),) if choose.random() < 0.5 else (),
            process=verdict.Process(pid=7, command=noise.text(choose)[:15]) if choose.random() < 0.5 else None,
        )
        line = client.line_of(event)
        assert line is not None
        compact = observe.printed(line, "compact", policies=choose.random() < 0.5).replace("\n", "\x00")
        printed(compact.replace("\x1b[0m", "").replace("\x1b[2m", ""), styled=True)
        for row in observe.printed(line, "dict").split("\n"):
            printed(row)
        printed(observe.printed(line, "json"))
        printed(words.with_call(words.summary(event), event))
        log = flowlog.of_flow(dataclasses.replace(record, event=event))
        for value in (log.body, *log.attributes.values()):
            printed("".join(value) if isinstance(value, tuple) else str(value))

    def table(self, choose: random.Random) -> None:
        """Print cells and documents of every verb that lists something."""
        rows = [{name: noise.text(choose) for name in ("a", "b")} for _ in range(2)]
        rows[0]["b"] = {noise.text(choose): noise.text(choose)}  # type: ignore[assignment]  # a cell may be a mapping
        form = choose.choice((output.Form.TABLE, output.Form.JSON, output.Form.JSON, output.Form.YAML))
        printed(output.render(rows, columns=("a", "b"), form=form, document={"rows": rows}))

    def cell(self, choose: random.Random) -> None:
        """Print cells alone: rich is slow, and what it prints is what it is given."""
        printed(output.cell_text([noise.text(choose), {noise.text(choose): _ref(choose)}]).replace("\n", "\x00"))
        error = errors.InvalidInput(field=noise.text(choose), value=noise.text(choose), remedy="x")
        printed("\n".join(map(output.escape, str(error).splitlines())))

    def problem(self, choose: random.Random) -> None:
        """Print what is said of a policy that cannot be honoured."""
        problem = resources.Problem(_ref(choose), noise.text(choose), noise.text(choose))
        printed(f"{output.escape(str(problem.ref))}: {output.escape(problem.reason)}".replace("\n", "\x00"))

    def picture(self, choose: random.Random) -> None:
        """Draw a small graph in the forms that are made of lines."""
        drawn = graphs.made(choose.randrange(2**31), 5, 6, names=_names(choose))
        for one in terminal.lines(drawn, width=choose.choice((60, 80, 120, 200))):
            printed("".join(piece.text for piece in one).replace("\n", "\x00"))
        for row in dot.lines(drawn, title=noise.text(choose)):
            printed(row.replace("\n", "\x00"))
        printed(repr(document.document(drawn)))

    def drawing(self, choose: random.Random) -> None:
        """Draw a small graph as SVG and as a page; no name becomes markup."""
        names = _names(choose)
        drawn = graphs.made(choose.randrange(2**31), 4, 5, names=names)
        title = noise.text(choose)
        for written in (svg.document(drawn, title=title), page.page(drawn, title=title, parts=self.parts)):
            printed(written)
            written.encode()
            assert "<img" not in written
            assert "<svg onload" not in written
            assert written.count("</script") in (0, 2)

    def text(self, choose: random.Random) -> None:
        """Read selectors, globs and masks: the small languages a client may write."""
        written = noise.text(choose)
        try:
            selectors.parse(written, field="source_label").selects({"app": "web"})
        except errors.InvalidInput as error:
            printed(output.escape(str(error)).replace("\n", "\x00"))
        globs.matches(written[:2048], noise.text(choose)[:2048])
        masks.dropped([written, noise.text(choose)])

    def recording(self, choose: random.Random) -> None:
        """Read a line of a recording that was tampered with."""
        line = b'{"flow":{"time":"2026-11-21T14:16:42Z","verdict":"DROPPED","IP":{"source":"10.0.0.2","destination":"10.0.0.3"},"l4":{"TCP":{"destination_port":80}},"source":{"pod_name":"a","namespace":"x","labels":["k8s:app=a"]},"traffic_direction":"INGRESS"}}'  # noqa: E501 - a line of a file
        try:
            for record in records.read([noise.tampered(choose, line)]):
                printed(output.escape(record.source.pod))
        except errors.InvalidInput as error:
            printed(output.escape(str(error)).replace("\n", "\x00"))


def printed(text: str, *, styled: bool = False) -> None:
    """Fail where a text holds a character that a terminal could act on; `styled`: click's own colours are not meant."""
    if styled:
        for colour in ("\x1b[31m", "\x1b[32m", "\x1b[33m"):
            text = text.replace(colour, "", 1)
    found = noise.unprintable(text)
    assert not found, f"{found!r} would be printed: {text[:200]!a}"


def _names(choose: random.Random) -> tuple[str, ...]:
    return tuple(noise.text(choose)[:200] for _ in range(3))


def _ref(choose: random.Random) -> resources.ObjectRef:
    return resources.ObjectRef("NetworkPolicy", noise.text(choose), noise.text(choose))


def _end(choose: random.Random, end: verdict.FlowEnd) -> verdict.FlowEnd:
    named = end.pod != "" and choose.random() < 0.7
    return dataclasses.replace(
        end,
        namespace=noise.text(choose) if named else end.namespace,
        pod=noise.text(choose) if named else end.pod,
        labels=labels.Labels({noise.text(choose): noise.text(choose)}),
        owner=_ref(choose) if not named and choose.random() < 0.5 else end.owner,
    )
