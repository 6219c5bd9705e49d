"""Verdicts on Hubble's wire, so that its command line and every collector of that API read this agent.

Pure: `records` (one verdict), `words` (what is said of it), `flows` and `writer` (its wire form), `filters`, `globs`,
`selectors`, `masks`, `requests`, `happenings`. With state: `ring` (what is stored, and who reads on), `agent_events`.
At the edge: `service`, `peers`, `tls`, `server`.
"""
