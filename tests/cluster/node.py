"""The inside of one node: `python -m tests.cluster.node STATE NUMBER`, run in the node's own namespaces by the bed.

Network, mount, UTS and cgroup namespaces are the node's; processes, users and time are the machine's. What a node has
of its own besides: /run, bpffs, /var/log, /var/lib/cni, and a view of the control groups whose root is its own group.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

from tests.cluster import cgroups, commands, networks, programs, settings

CAP_SYS_RESOURCE = 24
SOCKET = "/run/containerd/containerd.sock"
ROOM = 8 << 30
KUBELET_WANTS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Settings of the whole machine: the kubelet is shown files that hold what it wants, and the machine keeps its own."""


class Node:
    """What is started, and where it writes."""

    def __init__(self, shape: settings.Shape, member: settings.Member) -> None:
        """Take a node whose namespaces this process is in."""
        self.shape = shape
        self.member = member
        self.directory = shape.state / member.name

    def run(self) -> None:
        """Set the node up, start what runs on it, and stay until one of it ends."""
        self.furnish()
        self.connect()
        children = [self.spawn("containerd", ["containerd", "-c", str(self.containerd())])]
        commands.wait("containerd", lambda: "Server" in commands.run("ctr", "version", quiet=True), limit_s=60)
        for archive in sorted((self.shape.state / "images").glob("*.tar")):
            commands.run("ctr", "-n", "k8s.io", "images", "import", str(archive), limit_s=600)
        self.network()
        children.append(self.spawn("kubelet", self.kubelet()))
        children.append(self.spawn("kube-proxy", self.proxy()))
        os.waitpid(-1, 0)
        for child in children:
            child.send_signal(signal.SIGTERM)

    def furnish(self) -> None:
        """Mount what is the node's own."""
        for part in ("cni", "containerd", "kubelet", "log", "varlibcni"):
            (self.directory / part).mkdir(parents=True)
        socket.sethostname(self.member.name)
        commands.run("mount", "--make-rshared", "/")
        # `ip netns exec` has mounted a new /sys: nothing is mounted below it, and the machine's mounts are not seen.
        found = cgroups.read(self.shape.state / "hierarchies.json")
        if any(place != cgroups.ROOT for _, _, place in found):
            commands.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(cgroups.ROOT))
        for kind, options, place in found:
            place.mkdir(parents=True, exist_ok=True)
            commands.run("mount", "-t", kind, *(["-o", options] if options else []), kind, str(place))
            cgroups.join(place / cgroups.OWN)
        commands.run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        pathlib.Path("/var/lib/cni").mkdir(exist_ok=True)
        commands.every(
            ("mount", "--bind", str(self.directory / "log"), "/var/log"),
            ("mount", "--bind", str(self.directory / "varlibcni"), "/var/lib/cni"),
            ("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"),
        )
        # Images are thousands of files: in memory, if it has the room, they come and go in a moment.
        if memory_available() > ROOM:
            commands.run("mount", "-t", "tmpfs", "tmpfs", str(self.directory / "containerd"))
        for directory in ("/run/netns", "/run/lock", "/var/log/pods", "/var/log/containers"):
            pathlib.Path(directory).mkdir(parents=True)
        for name, value in KUBELET_WANTS.items():
            shown = self.directory / name.replace("/", "_")
            shown.write_text(f"{value}\n")
            commands.run("mount", "--bind", str(shown), f"/proc/sys/{name}")

    def connect(self) -> None:
        """Let the node forward, and leave the cluster under its own address, as most networks do."""
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            pathlib.Path("/proc/sys/net", name).write_text("1\n")
        for name in ("iptables", "ip6tables"):
            switch = pathlib.Path("/proc/sys/net/bridge", f"bridge-nf-call-{name}")
            if switch.exists():
                switch.write_text("1\n")
        for program, pods in zip(("iptables", "ip6tables"), settings.POD_RANGES, strict=True):
            leaving = ["-s", pods, "!", "-d", pods, "-m", "addrtype", "!", "--dst-type", "LOCAL"]
            commands.run(program, "-w", "-t", "nat", "-A", "POSTROUTING", *leaving, "-j", "MASQUERADE")

    def spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start something; its output goes to the cluster's logs."""
        with (self.shape.state / "log" / f"{self.member.name}-{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def network(self) -> None:
        """Tell the runtime how pods are connected."""
        networks.write(self.shape, self.member)

    def containerd(self) -> pathlib.Path:
        """Write containerd's configuration."""
        runtime = {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": str(runc())}}
        cri = {
            "sandbox_image": settings.SANDBOX_IMAGE,
            "restrict_oom_score_adj": True,
            "cni": {"bin_dir": str(programs.plugins()), "conf_dir": str(self.directory / "cni")},
            "containerd": {"runtimes": {"runc": runtime}},
        }
        content = {
            "version": 2,
            "root": str(self.directory / "containerd"),
            "state": "/run/containerd",
            "grpc": {"address": SOCKET},
            "plugins": {"io.containerd.grpc.v1.cri": cri},
        }
        path = self.directory / "containerd.toml"
        path.write_text(toml(content))
        return path

    def kubelet(self) -> list[str]:
        """Write the kubelet's configuration and return its command."""
        never = dict.fromkeys(("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%")
        (self.directory / "resolv.conf").touch()
        content = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.member.addresses[0],
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.shape.state / "pki" / "ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "clusterDomain": "cluster.local",
            "clusterDNS": [settings.DNS_SERVICE],
            "resolvConf": str(self.directory / "resolv.conf"),
            "nodeStatusUpdateFrequency": "1s",
            "nodeStatusReportFrequency": "5m",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": never,
        }
        path = self.directory / "kubelet.json"
        path.write_text(json.dumps(content, indent=1))
        flags = {
            "config": path,
            "kubeconfig": self.shape.state / f"{self.member.name}.kubeconfig",
            "root-dir": self.directory / "kubelet",
            "cert-dir": self.directory / "certificates",
            "hostname-override": self.member.name,
            "node-ip": ",".join(self.member.addresses),
        }
        return [str(programs.path("kubelet")), *(f"--{name}={value}" for name, value in flags.items())]

    def proxy(self) -> list[str]:
        """Return kube-proxy's command; it leaves the machine's conntrack settings alone."""
        flags = {
            "kubeconfig": self.shape.state / "proxy.kubeconfig",
            "hostname-override": self.member.name,
            "cluster-cidr": ",".join(settings.POD_RANGES),
            "proxy-mode": self.shape.proxy.value,
            "conntrack-max-per-core": 0,
            "conntrack-tcp-timeout-established": 0,
            "conntrack-tcp-timeout-close-wait": 0,
        }
        return [str(programs.path("kube-proxy")), *(f"--{name}={value}" for name, value in flags.items())]


def memory_available() -> int:
    """Return how much memory could be used without swapping, in bytes."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def runc() -> pathlib.Path:
    """Return runc, or what stands in for it where this machine's root lacks a capability that privileged pods get."""
    status = pathlib.Path("/proc/self/status").read_text()
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    if bounding & 1 << CAP_SYS_RESOURCE:
        return pathlib.Path(programs.system("runc"))
    return pathlib.Path(__file__).with_name("runc-without-sys-resource")


def toml(content: dict[str, object], table: tuple[str, ...] = ()) -> str:
    """Write nested tables of strings, numbers and booleans; JSON spells those as TOML does."""
    plain = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(map(json.dumps, table))}]"] if table and plain else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    text = "\n".join([*lines, ""])
    for key, value in content.items():
        if isinstance(value, dict):
            text += toml(value, (*table, key))
    return text


def main() -> None:
    """Be the node until the end."""
    state, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    member = settings.Member(number=number)
    (state / member.name).mkdir()
    (state / member.name / "pid").write_text(str(os.getpid()))
    os.environ["PATH"] = programs.SEARCHED
    Node(settings.read(state / "shape.json"), member).run()


if __name__ == "__main__":
    main()
