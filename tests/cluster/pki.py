"""Who is who: a certificate authority, a token for each component, and the files that name them."""

from __future__ import annotations

import json
import pathlib
import secrets

from tests.cluster import commands, settings

REQUEST = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-config", "/dev/null")
USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
}
"""File: (user, group). Nodes come on top: `system:node:NAME` of `system:nodes`, which may read their own Node alone."""


def write(shape: settings.Shape) -> None:
    """Write everything below the cluster's directory."""
    directory = shape.state / "pki"
    directory.mkdir(parents=True)
    _authority(directory)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    addresses = ["127.0.0.1", settings.API_SERVICE, settings.API_ADDRESS]
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    _certificate(directory, "apiserver", "/CN=kube-apiserver", alternatives)
    _certificate(directory, "kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client", "DNS:apiserver")
    commands.run("openssl", "genrsa", "-out", str(directory / "accounts.key"), "2048")
    public = commands.run("openssl", "rsa", "-in", str(directory / "accounts.key"), "-pubout")
    (directory / "accounts.pub").write_text(public)
    users = USERS | {member.name: (f"system:node:{member.name}", "system:nodes") for member in shape.members()}
    lines = []
    for file, (user, group) in users.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{file},"{group}"\n')
        _kubeconfig(shape, shape.state / f"{file}.kubeconfig", token)
    (directory / "tokens.csv").write_text("".join(lines))
    (directory / "tokens.csv").chmod(0o600)


def _authority(directory: pathlib.Path) -> None:
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    commands.run(
        *REQUEST,
        "-subj",
        "/CN=nodewall-cluster",
        *usage,
        "-keyout",
        str(directory / "ca.key"),
        "-out",
        str(directory / "ca.crt"),
    )


def _certificate(directory: pathlib.Path, name: str, subject: str, alternatives: str) -> None:
    usage = ["-addext", f"subjectAltName={alternatives}", "-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    usage += ["-addext", "basicConstraints=critical,CA:FALSE"]
    issuer = ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
    commands.run(
        *REQUEST,
        "-subj",
        subject,
        *usage,
        *issuer,
        "-keyout",
        str(directory / f"{name}.key"),
        "-out",
        str(directory / f"{name}.crt"),
    )


def _kubeconfig(shape: settings.Shape, path: pathlib.Path, token: str) -> None:
    server = f"https://{settings.API_ADDRESS}:{settings.API_PORT}"
    cluster = {"server": server, "certificate-authority": str(shape.state / "pki" / "ca.crt")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": shape.name, "cluster": cluster}],
        "users": [{"name": shape.name, "user": {"token": token}}],
        "contexts": [{"name": shape.name, "context": {"cluster": shape.name, "user": shape.name}}],
        "current-context": shape.name,
    }
    path.write_text(json.dumps(content, indent=1))
    path.chmod(0o600)
