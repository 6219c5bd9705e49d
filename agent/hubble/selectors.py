"""Label selectors as people write them: `app=web,tier in (a,b),!old`; the grammar is that of kubectl's --selector.

A key may have the source Cilium puts before it: `k8s:` and `any:` mean a pod's label and are dropped, `reserved:` is
kept, as those are labels of no pod. The numeric comparisons `<` and `>` are refused: labels here are strings.

A selector comes from a client: its length is bounded, and it is cut into requirements before any pattern with more
than one repetition looks at it, so that no text takes more than quadratic time.
"""

from __future__ import annotations

import re

from agent import errors
from agent.model import labels

LENGTH_MOST = 1024
REMEDY = f"write a label selector of at most {LENGTH_MOST} characters, such as app=web, tier in (a,b) or reserved:world"
SOURCES = ("k8s:", "any:")
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9-]+:)?(?:{_NAME}/)?{_NAME}"
COMMA = re.compile(r",(?![^()]*\))")
"""A comma that stands between requirements, not between values."""
VALUE = re.compile(rf"(?:{_NAME})?")
ABSENT = re.compile(rf"!\s*({_KEY})")
AMONG = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
COMPARED = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({VALUE.pattern})")
PRESENT = re.compile(_KEY)


def parse(text: str, *, field: str) -> labels.LabelSelector:
    """Read a selector; raises InvalidInput, naming `field`. An empty one selects everything."""
    if not text.strip():
        return labels.EVERYTHING
    if len(text) > LENGTH_MOST:
        raise errors.InvalidInput(field=field, value=text[:LENGTH_MOST], remedy=REMEDY)
    found = [_requirement(part.strip()) for part in COMMA.split(text)]
    requirements = tuple(one for one in found if one is not None)
    if len(requirements) < len(found):
        raise errors.InvalidInput(field=field, value=text, remedy=REMEDY)
    return labels.LabelSelector(requirements)


def _requirement(text: str) -> labels.Requirement | None:
    if found := ABSENT.fullmatch(text):
        return labels.Requirement(key=_key(found[1]), operator=labels.Operator.DOES_NOT_EXIST)
    if found := AMONG.fullmatch(text):
        values = frozenset(value.strip() for value in found[3].split(","))
        if not all(VALUE.fullmatch(value) for value in values):
            return None
        operator = labels.Operator.IN if found[2] == "in" else labels.Operator.NOT_IN
        return labels.Requirement(key=_key(found[1]), operator=operator, values=values)
    if found := COMPARED.fullmatch(text):
        operator = labels.Operator.NOT_IN if found[2] == "!=" else labels.Operator.IN
        return labels.Requirement(key=_key(found[1]), operator=operator, values=frozenset({found[3]}))
    if PRESENT.fullmatch(text):
        return labels.Requirement(key=_key(text), operator=labels.Operator.EXISTS)
    return None


def _key(text: str) -> str:
    source = next((source for source in SOURCES if text.startswith(source)), "")
    return text.removeprefix(source)
