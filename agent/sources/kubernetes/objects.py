"""From the JSON of one object to what `agent.decode` makes of it, a great deal faster where the object is plain.

`decode` reads parsed documents of unknown shape and is right about each; for ten thousand pods that takes seconds and
hundreds of megabytes. Here msgspec reads only the fields that are used, into structs (`plain`), and whatever those do
not take as it stands (a wrong type, an odd address, an unknown phase) goes to `decode` whole. So there is one meaning,
that of `decode`, and this module may only be faster. Policies of every kind always go to `decode` whole: a field nobody
reads could be the one that asks for less access.
"""

from __future__ import annotations

import json

import msgspec

from agent import decode
from agent.model import resources
from agent.sources.kubernetes import api, deltas, plain, wire


class Reader:
    """Reads objects of one resource; keeps one copy of labels and ports that many objects share."""

    def __init__(self, resource: api.Resource) -> None:
        """Start with nothing shared."""
        self._resource = resource
        self._shared = plain.Shared()
        self.whole = 0
        """How many objects were not plain and went to `decode`."""

    def read(self, content: msgspec.Raw) -> tuple[deltas.Key, deltas.Entry]:
        """Return key and entry of an object. Raises wire.NotTheAPI if it is no object of the API at all."""
        head = wire.read(content, wire.Head).metadata
        if not head.name or not head.resource_version:
            raise wire.NotTheAPI(f"an object of {self._resource.value} has no name or no resourceVersion")
        return (head.namespace, head.name), deltas.Entry(head.resource_version, self._decoded(content))

    def _decoded(self, content: msgspec.Raw) -> decode.Decoded:
        if self._resource not in api.POLICIES:
            found = self._plain(content)
            if found is not None:
                return decode.Decoded(found)
            self.whole += 1
        return self._whole(content)

    def _plain(self, content: msgspec.Raw) -> resources.Resource | None:
        """Read an object all of whose fields are as the API writes them; None if one is not."""
        try:
            return plain.READERS[self._resource](content, self._shared)
        except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
            return None

    def _whole(self, content: msgspec.Raw) -> decode.Decoded:
        """Read an object as a document. What was asked for says what it is: items of a list do not."""
        try:
            document = json.loads(bytes(content))
        except (ValueError, RecursionError) as error:
            raise wire.NotTheAPI(f"an object of {self._resource.value} is no JSON: {error}") from error
        typed = {"apiVersion": self._resource.api_version, "kind": self._resource.kind}
        return decode.decode(document | typed)
