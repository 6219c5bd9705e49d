"""Where the BPF objects, sources and headers are.

The rule: one directory laid out as the repository (`bpf/` sources, `build/bpf/*.bpf.o` objects,
`build/bcc-headers/` header tree for BCC), looked for in this order: `$NODEWALL_LIB`, the package's own
`_lib` (a wheel), the repository. Nothing else may know these paths.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib

from agent import errors
from agent.datapath.bpf import layout

ENVIRONMENT = "NODEWALL_LIB"
PACKET_OBJECT = "packet.bpf.o"
TC_OBJECT = "tc_source.bpf.o"
DNS_OBJECT = "dns_learn.bpf.o"
DNS_PLAIN_OBJECT = "dns_learn_plain.bpf.o"
NAMES_OBJECT = "names_filter.bpf.o"


@dataclasses.dataclass(frozen=True, slots=True)
class Artifacts:
    """The directory that was found."""

    root: pathlib.Path

    @property
    def sources(self) -> pathlib.Path:
        """`socket.bpf.c` and, below `include`, the headers."""
        return self.root / "bpf"

    @property
    def headers(self) -> pathlib.Path:
        """What BCC takes for a kernel source tree; user API headers only."""
        return self.root / "build" / "bcc-headers"

    @property
    def packet_object(self) -> pathlib.Path:
        """The netfilter programs."""
        return self.root / "build" / "bpf" / PACKET_OBJECT

    @property
    def tc_object(self) -> pathlib.Path:
        """The source check for pods on a bridge."""
        return self.root / "build" / "bpf" / TC_OBJECT

    @property
    def dns_object(self) -> pathlib.Path:
        """The DNS learner."""
        return self.root / "build" / "bpf" / DNS_OBJECT

    @property
    def dns_plain_object(self) -> pathlib.Path:
        """The DNS learner for kernels without bpf_loop."""
        return self.root / "build" / "bpf" / DNS_PLAIN_OBJECT

    @property
    def names_object(self) -> pathlib.Path:
        """What iptables asks whether a name allows a packet."""
        return self.root / "build" / "bpf" / NAMES_OBJECT

    def fingerprint(self) -> str:
        """Return what tells one build of the programs from another: sources, objects and ABI.

        Compilers that differ and give the same object are no difference; BCC's is fixed by the image.
        """
        digest = hashlib.sha256(f"abi {layout.ABI}\n".encode())
        objects = (self.packet_object, self.tc_object, self.dns_object, self.dns_plain_object, self.names_object)
        files = [*sorted(self.sources.rglob("*.[ch]")), *objects]
        for path in files:
            digest.update(f"{path.name}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def find() -> Artifacts:
    """Return the artifacts. Raises DatapathError naming what was looked for."""
    package = pathlib.Path(__file__).resolve().parents[2]
    roots = [package / "_lib", package.parent]
    if os.environ.get(ENVIRONMENT):
        roots.insert(0, pathlib.Path(os.environ[ENVIRONMENT]))
    for root in roots:
        found = Artifacts(root)
        if found.packet_object.exists() and found.headers.is_dir():
            return found
    places = ", ".join(str(root) for root in roots)
    raise errors.DatapathError(f"no BPF objects in {places}: run `make setup`, or set {ENVIRONMENT}")
