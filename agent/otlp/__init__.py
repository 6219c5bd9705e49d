"""Flow logs for OpenTelemetry collectors: one more reader of the ring, which sends what it reads over OTLP/gRPC.

Pure: `flowlog` (a verdict as a log record), `losses`, `retrying` (what to do after an answer), `wire` (protobuf). With
state: `outbox` (what waits). At the edge: `credentials`, `transport`, `exporter`. Nothing here is imported unless a
collector is named: what is needed of OpenTelemetry are its messages, and the channel is the agent's own gRPC.
"""
