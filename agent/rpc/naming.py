"""Finds what a person names: a pod of this node by NAMESPACE/NAME, a name that only one has, or its id; policies too.

A name that means several things is refused with all of them, and one that means nothing with what there is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent import desired, errors, reconciler
from agent.model import net, resources

LISTED = 20
"""Names an error lists."""
PRINTABLE = "write it without control characters, line breaks and marks of writing direction"


def endpoint(now: reconciler.Enforcement, text: str) -> desired.Endpoint:
    """Return the endpoint that `text` names; raises InvalidInput, NotFound."""
    known = sorted(now.state.endpoints.values(), key=lambda one: (one.namespace, one.pod, one.id))
    namespace, slash, name = text.rpartition("/")
    _well_formed("pod", text, namespace, slash, name)
    found = [one for one in known if one.pod == name and (not slash or one.namespace == namespace)]
    if not found and text.isascii() and text.isdigit():
        found = [one for one in known if str(one.id) == text]
    names = [f"{one.namespace}/{one.pod}" for one in (found or known)]
    if len(found) > 1 and len(set(names)) == 1:
        ids = ", ".join(str(one.id) for one in found)
        raise errors.InvalidInput(
            field="pod", value=text, remedy=f"it has several sandboxes; name one by its id: {ids}"
        )
    _one("pod", text, len(found), names, "is enforced on here; `agentctl endpoint list` shows all")
    return found[0]


def policy(now: reconciler.Enforcement, text: str) -> resources.NetworkPolicy:
    """Return the policy that `text` names; raises InvalidInput, NotFound."""
    known = list(now.snapshot.policies.values())
    namespace, slash, name = text.rpartition("/")
    kind, _, inner = namespace.partition("/")
    if kind and inner:  # KIND/NAMESPACE/NAME, where two kinds have one name
        known, namespace = [one for one in known if one.kind == kind], inner
    _well_formed("policy", text, namespace, slash, name)
    found = [one for one in known if one.name == name and (not slash or namespace == _beside(one))]
    several = len({(one.namespace, one.name) for one in found}) == 1
    names = [
        one.ref.path if several or not one.namespace else f"{one.namespace}/{one.name}" for one in (found or known)
    ]
    _one("policy", text, len(found), names, "is in force; `agentctl policy list` shows all")
    return found[0]


def _beside(one: resources.NetworkPolicy) -> str:
    """Return what stands before the slash: the namespace, of a policy of no namespace its kind."""
    return one.namespace or one.kind


def address(text: str) -> net.Address:
    """Read an address; raises InvalidInput."""
    without_zone("address", text)
    try:
        return net.normalize(ipaddress.ip_address(text))
    except ValueError as error:
        remedy = "write an IPv4 or IPv6 address, such as 10.244.1.7 or fd00::7"
        raise errors.InvalidInput(field="address", value=text, remedy=remedy) from error


def without_zone(field: str, text: str) -> None:
    """Raise InvalidInput for an address of one link (RFC 4007): no policy, and no pod, is known by such."""
    if "%" in text:
        remedy = "write an address without a zone: what stands after % means nothing on another machine"
        raise errors.InvalidInput(field=field, value=text, remedy=remedy)


def _well_formed(field: str, text: str, namespace: str, slash: str, name: str) -> None:
    if not name or "/" in namespace or (slash and not namespace):
        raise errors.InvalidInput(field=field, value=text, remedy="write NAMESPACE/NAME, or a name that only one has")


def _one(field: str, text: str, found: int, names: Iterable[str], where: str) -> None:
    if found == 1:
        return
    listed = list(dict.fromkeys(names))
    shown = ", ".join(listed[:LISTED]) + (", ..." if len(listed) > LISTED else "")
    if found:
        raise errors.InvalidInput(field=field, value=text, remedy=f"several have that name; write one of {shown}")
    if not text.isprintable():
        raise errors.InvalidInput(field=field, value=text, remedy=PRINTABLE)
    remedy = f"no such {field} {where}" + (f"; there are {shown}" if shown and len(listed) <= LISTED else "")
    raise errors.NotFound(field=field, value=text, remedy=remedy)
