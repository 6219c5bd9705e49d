"""`python -m tests.cluster VERB`: a Kubernetes cluster on this machine, to look at.

    up [--nodes 3] [--cni ptp|bridge] [--proxy iptables|nftables] [--no-dns]
    kubectl ARGUMENTS...      as administrator
    load ARCHIVE              an image to every node
    enter NODE COMMAND...     in a node's namespaces; `cp` is the control plane's network
    down                      everything of it, also after a crash

`--name NAME`, before the verb, is another cluster beside the usual one.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from tests.cluster import bed, commands, control, programs, settings


def main() -> None:
    """Do what the verb says; exits with 1 and a line if it cannot be done."""
    given = _arguments()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{programs.SEARCHED}"
    try:
        _do(given)
    except (programs.Missing, commands.Failed, OSError, ValueError) as error:
        sys.exit(f"tests.cluster: {error}")


def _do(given: argparse.Namespace) -> None:
    match given.verb:
        case "up":
            shape = settings.Shape(
                name=given.name,
                nodes=given.nodes,
                cni=settings.Cni(given.cni),
                proxy=settings.Proxy(given.proxy),
                dns=given.dns,
            )
            cluster = bed.Bed(shape)
            cluster.up(tell=lambda line: print(line, flush=True))
            print(cluster.kubectl("get", "nodes", "-o", "wide"), end="")
            print(f"the agent: python -m tests.cluster kubectl apply -k {cluster.overlay}/agent")
        case "down":
            bed.Bed(settings.Shape(name=given.name)).down()
        case "load":
            bed.Bed.running(given.name).load(given.archive)
        case "kubectl":
            _become(control.kubectl_command(bed.Bed.running(given.name).shape) + given.arguments)
        case "enter":
            _become(bed.Bed.running(given.name).entering(given.member) + given.arguments)


def _become(command: list[str]) -> None:
    os.execvp(command[0], command)  # noqa: S606 - the command's status and terminal are ours


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="a Kubernetes cluster on this machine")
    parser.add_argument("--name", default=settings.Shape().name)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring it up")
    up.add_argument("--nodes", type=int, default=settings.Shape().nodes)
    up.add_argument("--cni", choices=[one.value for one in settings.Cni], default=settings.Cni.PTP.value)
    up.add_argument("--proxy", choices=[one.value for one in settings.Proxy], default=settings.Proxy.IPTABLES.value)
    up.add_argument("--no-dns", dest="dns", action="store_false")
    verbs.add_parser("down", help="take it down, also after a crash")
    verbs.add_parser("load", help="give an image to every node").add_argument("archive", type=pathlib.Path)
    verbs.add_parser("kubectl", help="as administrator", add_help=False)
    enter = verbs.add_parser("enter", help="in a node's namespaces")
    enter.add_argument("member", metavar="NODE")
    # What comes after these is another program's, its flags too.
    words, rest = sys.argv[1:], []
    for verb, own in (("kubectl", 1), ("enter", 2)):
        if verb in words[:3]:
            end = words.index(verb) + own
            words, rest = words[:end], words[end:]
    given = parser.parse_args(words)
    given.arguments = rest
    return given


if __name__ == "__main__":
    main()
