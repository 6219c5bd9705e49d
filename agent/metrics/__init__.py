"""Prometheus metrics: what there is (`families`), from which values (`picture`), and the page (`registry`).

Nothing is counted here while the agent works, but for two histograms that are told of each apply: everything is read
at a scrape from what the agent knows anyway. No label has more values than an operator could list: no pod, no address,
no name of a policy.
"""
