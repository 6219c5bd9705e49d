"""Egress by name against a real DNS server and real traffic, from the manifest to the connection.

Where each requirement is tested; in brackets what it is of. `names` is this package, `dns` is tests/bpf/dns.

    F1   names/test_dialects [traffic]; tests/fqdn/test_patterns, test_classes; dns/test_trust, test_names
    F2   names/test_dialects [traffic]; tests/fqdn/test_patterns, test_trie; dns/test_names
    F3   names/test_dialects [traffic]; tests/fqdn/test_patterns, test_dfa; dns/test_names
    F4   names/test_dialects [as problems]; tests/fqdn/test_patterns, test_dfa, test_classes; tests/policy/test_names;
         truth tables clusternetworkpolicy/what-is-refused and cilium/*
    F5   names/test_answers; dns/test_answers; tests/fqdn/test_message
    F6   names/test_answers; dns/test_answers [other sections]; tests/fqdn/test_message
    F7   names/test_answers; dns/test_answers; tests/fqdn/test_history
    F8   names/test_dialects; tests/bpf/test_names; dns/test_learned
    F9   names/test_dialects; tests/bpf/test_names; dns/test_trust; tests/fqdn/test_history
    F10  names/test_dialects
    F11  names/test_trust; dns/test_trust; tests/services/test_resolvers
    F12  names/test_trust; dns/test_live
    F12b names/test_trust; dns/test_live
    F13  names/test_trust; dns/test_trust
    F14  dns/test_answers, test_names, test_fuzz, fuzz; names/test_answers [fragments]; tests/fqdn/test_message
    F15  names/test_time, with a learner in user space as the control; tests/bpf/test_names_enforced, test_learning
    F16  names/test_time; tests/bpf/test_names, test_names_enforced
    F17  names/test_time; tests/bpf/test_names, test_names_enforced; tests/fqdn/test_classes
    F18  names/test_time; tests/bpf/test_names, test_names_enforced [the idle minute]
    F19  names/test_time; dns/test_answers; tests/fqdn/test_history
    F20  names/test_time; dns/test_answers; tests/fqdn/test_history
    F21  names/test_answers [a hundred]; dns/test_learned, test_answers [4,096]; tests/fqdn/test_history
    F22  tests/fqdn/test_classes; dns/test_programs
    F23  names/test_failure
    F24  names/test_failure, test_streams
    F25  names/test_failure; tests/learning
    F26  names/test_failure; tests/learning; dns/test_learned; tests/fqdn/test_history
    F27  names/test_failure, test_time; tests/bpf/test_names_enforced
    F28  names/test_streams, test_answers; dns/test_streams, test_answers, test_fuzz, test_live, segmented
    F29  names/test_answers; dns/test_answers; tests/services/test_resolvers
    F30  names/test_fallback; tests/iptables/test_names_learner
    F31  dns/test_programs, and `python -m tests.bpf.dns load` on each kernel

Names that may be asked for (rules.dns): names/test_filter; dns/test_filter, test_filter_told, test_refused;
tests/bpf/test_filtering; truth tables cilium/names-*, seeds/05; tests/test_differential_queries.

Everything runs with `nfbpf`; with iptables, with and without sockets, some of it daily and all of it in the matrix.
"""
