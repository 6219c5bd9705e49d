"""The cluster as its API server tells it: lists, then watches, then whole snapshots.

One thread a resource talks HTTP (`reflector`, over `connection`) and hands on nothing but immutable values (`deltas`),
through one bounded queue (`inbox`). The event loop merges them (`store`) and yields a snapshot after each change
(`source`). The API server may go away at any time and for long: the last state then stays, as it does when the agent's
own process is gone, and `source` can say since when.

Whatever is read, listed or watched must be in daemonset/base/rbac.yaml, and nothing else.
"""
