"""Whether an ICMP error comes from whom the packet was for that it quotes.

The problem: an error about a connection comes from its other end or from a router on the way, and a pod is no router:
an error from a pod about a packet that was not for it tries to speak into somebody else's connection. No match compares
two addresses of a packet but a classic BPF program (xt_bpf, Linux 3.9), which sees the packet from its IP header on.

The rule is that of `error_resolve` in bpf/packet.bpf.c. With IPv6 the ICMP header must follow the IP header at once:
the program does not walk extension headers, and what it does not understand it does not match.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.model import net

ICMP_HEADER = 8
"""Bytes between the ICMP header's beginning and the quoted packet (RFC 792, RFC 4443)."""
SOURCE = {net.Family.IPV4: 12, net.Family.IPV6: 8}
DESTINATION = {net.Family.IPV4: 16, net.Family.IPV6: 24}
"""Where addresses are in the IP header."""
WORDS = {net.Family.IPV4: 1, net.Family.IPV6: 4}
"""Of 32 bits in an address."""
IPV6_HEADER = 40
NEXT_HEADER = 6
LDX_HEADER_LENGTH, LD_BYTE, LD_WORD, LD_WORD_AT_X = 0xB1, 0x30, 0x20, 0x40
TAX, JEQ, JEQ_X, RET = 0x07, 0x15, 0x1D, 0x06
"""Operations of classic BPF (include/uapi/linux/bpf_common.h)."""
MATCH, NO_MATCH = 0xFFFF, 0

Step = tuple[int, int, int, int]
"""Operation, steps to jump over if true and if false, operand."""


def words(family: net.Family) -> tuple[str, ...]:
    """Return the match, as iptables-save prints it; the packet must be an ICMP error."""
    steps = program(family)
    return "-m", "bpf", "--bytecode", ",".join([str(len(steps)), *(" ".join(map(str, step)) for step in steps)])


def program(family: net.Family) -> list[Step]:
    """Return the program; every comparison that fails jumps to the last step."""
    steps = list(_comparisons(family))
    last = len(steps) + 1
    jumps = (JEQ, JEQ_X)
    aimed = [(op, 0, last - at - 1 if op in jumps else 0, operand) for at, (op, operand) in enumerate(steps)]
    return [*aimed, (RET, 0, 0, MATCH), (RET, 0, 0, NO_MATCH)]


def _comparisons(family: net.Family) -> Iterator[tuple[int, int]]:
    load, begin = (LD_WORD_AT_X, ICMP_HEADER)
    if family is net.Family.IPV6:
        yield LD_BYTE, NEXT_HEADER
        yield JEQ, net.Protocol.ICMPV6.value
        load, begin = LD_WORD, IPV6_HEADER + ICMP_HEADER
    else:
        yield LDX_HEADER_LENGTH, 0
    for word in range(WORDS[family]):
        yield load, begin + DESTINATION[family] + 4 * word
        yield TAX, 0
        yield LD_WORD, SOURCE[family] + 4 * word
        yield JEQ_X, 0
