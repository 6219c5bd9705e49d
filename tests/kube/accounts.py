"""Service accounts as pods have them: a directory whose files kubelet swaps by one link."""

from __future__ import annotations

import pathlib
import shutil

from agent.sources.kubernetes import access
from tests.kube import control

NAMESPACE = "kube-system"


class Mounted:
    """The directory of one account."""

    def __init__(self, *, directory: pathlib.Path, plane: control.ControlPlane, name: str) -> None:
        """Make the directory and put a token in."""
        self._directory = directory
        self.plane = plane
        self.name = name
        self._written = 0
        directory.mkdir()
        self.token = ""
        self.rotate()
        for file in ("token", "ca.crt"):
            (directory / file).symlink_to(pathlib.Path("..data", file))

    def rotate(self) -> None:
        """Ask for another token and swap it in, as kubelet does."""
        client = self.plane.admin()
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{self.name}/token"
        self.token = str(client.post(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])
        client.close()
        self._written += 1
        version = self._directory / f"..{self._written}"
        version.mkdir()
        (version / "token").write_text(self.token)
        shutil.copy(self.plane.ca, version / "ca.crt")
        link = self._directory / "..new"
        link.symlink_to(version.name)
        link.replace(self._directory / "..data")

    def access(self, *, port: int | None = None) -> access.Access:
        """Return the access of a pod with this account."""
        environment = {
            "KUBERNETES_SERVICE_HOST": control.LISTENS_ON,
            "KUBERNETES_SERVICE_PORT": str(port or self.plane.port),
        }
        return access.Access(service_account=self._directory, environment=environment)
