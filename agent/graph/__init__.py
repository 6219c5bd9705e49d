"""Who may talk to whom, and who did: a graph of workloads, and its pictures. No I/O, no clock.

`build` makes a `model.Graph` of policies and of recorded verdicts; `layout` gives it places; `terminal`, `svg`, `page`,
`dot` and `document` are ways to show it. Whatever they show came from strangers and passes `words.plain` first.
"""
