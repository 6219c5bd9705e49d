"""Field masks: which fields of a flow a client asked for, at least.

The stock command line sends a mask that lacks what its own printer shows (direction, names, the policies that
decided), so a mask is a lower bound: the fields of ALWAYS are sent whatever it says, and a field is sent whole where
one of its parts is asked for. Paths that no field has are passed over: other servers have more fields than this one.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2

ALWAYS = frozenset(
    {
        *("time", "verdict", "node_name", "traffic_direction", "policy_match_type", "event_type", "is_reply"),
        *("source_names", "destination_names", "drop_reason_desc", "Summary"),
        *("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by"),
    }
)


def dropped(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the fields of a flow that nobody asked for; none where no path is given."""
    asked = {path.partition(".")[0] for path in paths}
    if not asked:
        return ()
    return tuple(field.name for field in pb.Flow.DESCRIPTOR.fields if field.name not in asked | ALWAYS)


def without(response: bytes, fields: Iterable[str]) -> bytes:
    """Return a serialised GetFlowsResponse without some fields of its flow."""
    message = observer_pb2.GetFlowsResponse.FromString(response)
    for field in fields:
        message.flow.ClearField(field)
    return message.SerializeToString()
