"""The learner's programs, loaded over maps of their own and run on frames by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import os
import pathlib
import shutil
import struct
import time
from collections.abc import Iterator

from agent.datapath import base, plan
from agent.datapath.bpf import dns_loader, fqdn_answers, fqdn_layout, fqdn_maps, layout, maps, rows, syscalls
from agent.model import net
from tests.bpf.dns import wire

ENDPOINT, NEIGHBOUR = 0x701, 0x702
POD4, POD6 = ipaddress.ip_address("10.244.1.10"), ipaddress.ip_address("fd00:244:1::a")
RESOLVER4, RESOLVER6 = ipaddress.ip_address("10.96.0.10"), ipaddress.ip_address("fd00:96::a")
LOCAL_CACHE = ipaddress.ip_address("169.254.20.10")
STRANGER = ipaddress.ip_address("192.0.2.53")
CLIENT_PORT = 40000
TEST_IFINDEX = 1
"""Where a frame of BPF_PROG_TEST_RUN says it comes from: the loopback interface."""
PASSED = 0xFFFFFFFF
"""TC_ACT_UNSPEC."""
DROPPED = 2
"""TC_ACT_SHOT."""
API = 0x80000001
"""The class of api.example.com."""
NAME = "api.example.com"


@dataclasses.dataclass(frozen=True, slots=True)
class Learner:
    """Loaded programs and their maps."""

    directory: pathlib.Path
    node: maps.Maps
    fqdn: fqdn_maps.FqdnMaps
    programs: dict[str, int]
    reader: fqdn_answers.AnswerReader
    numbers: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    """To tell streams of TCP apart, which the programs remember from test to test."""

    def ask(
        self, message: bytes, *, resolver: net.Address = RESOLVER4, port: int = CLIENT_PORT, tcp: bool = False
    ) -> None:
        """Have the pod send a query; by TCP over a new connection."""
        headers = (pod_of(resolver), resolver, (port, wire.PORT))
        if not tcp:
            self.run(dns_loader.QUERY, wire.frame(*headers, message))
            return
        first = next(self.numbers) << 16
        self.run(dns_loader.QUERY, wire.segment(*headers, b"", sequence=first, flags=wire.SYN))
        self.run(dns_loader.QUERY, wire.segment(*headers, wire.prefixed(message), sequence=first + 1))

    def reply(
        self, message: bytes, *, resolver: net.Address = RESOLVER4, port: int = CLIENT_PORT, tcp: bool = False
    ) -> None:
        """Have an answer come to the pod; by TCP it is the first that comes over its connection."""
        headers = (resolver, pod_of(resolver), (wire.PORT, port))
        if not tcp:
            self.run(dns_loader.ANSWER, wire.frame(*headers, message))
            return
        first = next(self.numbers) << 16
        self.run(dns_loader.ANSWER, wire.segment(*headers, b"", sequence=first, flags=wire.SYN | wire.ACK))
        self.run(dns_loader.ANSWER, wire.segment(*headers, wire.prefixed(message), sequence=first + 1))

    def resolve(self, answer: bytes, *, resolver: net.Address = RESOLVER4, tcp: bool = False) -> dict[str, int]:
        """Have the pod ask what `answer` answers, and get it; return what is learned now."""
        self.exchange(answer, resolver=resolver, tcp=tcp)
        return self.seconds()

    def exchange(self, answer: bytes, *, resolver: net.Address = RESOLVER4, tcp: bool = False) -> None:
        """Do so, and look at nothing."""
        self.ask(wire.asked_by(answer), resolver=resolver, tcp=tcp)
        self.reply(answer, resolver=resolver, tcp=tcp)

    def run(self, program: str, frame: bytes) -> None:
        """Run a program on a frame, which passes as it came."""
        assert self.passes(program, frame)

    def passes(self, program: str, frame: bytes) -> bool:
        """Run a program on a frame, which it leaves as it came; False: the frame is dropped."""
        done = syscalls.program_test_run(self.programs[program], frame)
        assert done.verdict in {PASSED, DROPPED}
        assert done.data == frame
        return done.verdict == PASSED

    def learned(self) -> list[fqdn_layout.Learned]:
        """Return everything that is learned."""
        return list(self.fqdn.learned())

    def seconds(self) -> dict[str, int]:
        """Return the learned addresses and for how many seconds from now each counts, rounded."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return {str(one.address): round((one.expires_ns - now_ns) / 1e9) for one in self.learned()}

    def outcomes(self) -> list[base.Outcome]:
        """Return how the answers since the last call were taken."""
        return [answer.outcome for answer in self.reader.read()]

    def be(self, endpoint: int) -> None:
        """Have the frames from now on be another pod's."""
        key = struct.pack("=I", TEST_IFINDEX)
        rows.update(self.node.descriptor("ep_by_ifindex"), key, layout.encode_pair((endpoint, endpoint)))

    def select(self, endpoint: int, *, by_names: bool) -> None:
        """Have policies select a pod, with names in them or without."""
        one = plan.EndpointSlot(ingress_set=0, egress_set=0, held=False, egress_names=by_names)
        value = plan.EndpointValue(slots=(one, one), ingress_ifindex=0)
        self.node.upsert(plan.Table.ENDPOINTS, {endpoint: value})

    def forget(self, endpoint: int) -> None:
        """Have a pod be nobody's any more."""
        self.node.delete(plan.Table.ENDPOINTS, frozenset({endpoint}))

    def know(self, name: str, *, exact: int = 0, one: int = 0, more: int = 0) -> None:
        """Write a row of the trie, the same in both slots."""
        classes = fqdn_layout.Classes(exact=exact, one=one, more=more)
        key = fqdn_layout.encode_name_key(name)
        labels = len(name.split(".")) if name else 0
        self.fqdn.write_names({key: fqdn_layout.encode_name_value((classes, classes), labels=labels)})

    def clear(self) -> None:
        """Begin anew: one pod, three resolvers, one name, nothing asked or learned or told, and no grace."""
        learned = ("learned", "places", "hands", "counting")
        for name in (f"fqdn_{kind}" for kind in ("names", "resolvers", "pending", *learned)):
            descriptor = self.fqdn.descriptor(name)
            rows.delete_batch(descriptor, [key for key, _ in rows.dump(descriptor)])
        self.fqdn.store_ttl(min_ttl_s=0, grace_s=0)
        for slot in range(2):
            self.fqdn.store_automaton(slot, 0)
        self.fqdn.trust([RESOLVER4, RESOLVER6, LOCAL_CACHE])
        self.be(ENDPOINT)
        for endpoint in (ENDPOINT, NEIGHBOUR):
            self.select(endpoint, by_names=True)
        self.know(NAME, exact=API)
        while self.reader.read():
            pass


@contextlib.contextmanager
def loaded(bpffs: pathlib.Path, variant: dns_loader.Variant) -> Iterator[Learner]:
    """Load one variant; nothing of it is left afterwards."""
    directory = bpffs / f"nodewall-dns-{os.getpid()}-{variant.name.lower()}"
    (directory / "programs").mkdir(parents=True)
    node, fqdn = maps.Maps(directory), fqdn_maps.FqdnMaps(directory)
    try:
        node.open()
        fqdn.open()
        dns_loader.load_variant(variant, map_pins=directory, program_pins=directory / "programs")
        with contextlib.ExitStack() as opened:
            programs = {
                name: opened.enter_context(syscalls.owned(syscalls.open_pin(directory / "programs" / name)))
                for name in dns_loader.PROGRAMS
            }
            reader = fqdn_answers.AnswerReader(directory / "fqdn_answers")
            opened.callback(reader.close)
            yield Learner(directory, node, fqdn, programs, reader)
    finally:
        node.close()
        fqdn.close()
        shutil.rmtree(directory)


def pod_of(resolver: net.Address) -> net.Address:
    """Return the pod's address of the resolver's family."""
    return POD4 if resolver.version == net.Family.IPV4.value else POD6
