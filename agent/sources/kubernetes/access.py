"""Where the API server is and as whom we speak to it: the official client's configuration, credentials and transport.

The only module that imports `kubernetes`, and only when an `Access` is made: agents fed by manifests do without. That
package brings the machinery of 700 models along, pydantic and requests: 26 MiB and half a second in every agent
[measured, 37.0.2]. What a pod needs of it (configuration, credentials of a service account, transport) is 7 MiB, so
these modules are imported beneath parents that stay empty, and the parents are taken away again. A kubeconfig, which
only people and tests use, may ask for a plugin or OIDC, and gets the whole package.

Credentials are files that others replace. The token is read again after a minute, as the client does, and everything is
read anew when the server answers 401.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

from agent import errors

SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EMPTY = ("kubernetes", "kubernetes.client", "kubernetes.config", "kubernetes.utils")


class Unusable(Exception):  # noqa: N818 - states what the credentials are; it does not leave this package
    """The credentials cannot be read now."""


class Access:
    """Makes transports that are authorised; each has a configuration of its own."""

    def __init__(
        self,
        *,
        kubeconfig: pathlib.Path | None = None,
        server: str = "",
        tls_server_name: str = "",
        service_account: pathlib.Path = SERVICE_ACCOUNT,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Take where credentials are: a kubeconfig, or (None) the service account that a pod has.

        `server`, such as https://192.0.2.1:6443, goes before the address found there: in a pod that is a ClusterIP, and
        needs a kube-proxy and a route. `tls_server_name` is the name to verify, where the certificate does not have
        that address. Raises InvalidInput if the credentials cannot be used, NotSupported without the client.
        """
        self._kubeconfig = kubeconfig
        self._server = server
        self._tls_server_name = tls_server_name
        self._service_account = service_account
        self._environment = environment
        if server and not server.startswith("https://"):
            raise errors.InvalidInput(field="API server", value=server, remedy="write https://HOST:PORT")
        if importlib.util.find_spec("kubernetes") is None:
            raise errors.NotSupported(feature="the source kubernetes", needs="the Python package kubernetes")
        self._modules = _whole() if kubeconfig is not None else _lean()
        try:
            self.configuration()
        except Unusable as error:
            value = str(kubeconfig) if kubeconfig is not None else str(service_account)
            raise errors.InvalidInput(field="API credentials", value=value, remedy=str(error)) from error

    def configuration(self) -> Any:
        """Read the credentials anew into a Configuration of the client. Raises Unusable."""
        made = self._modules.configuration.Configuration()
        try:
            self._load(made)
        except Exception as error:  # the client raises whatever its parsers and plugins raise
            raise Unusable(f"{type(error).__name__}: {error}") from error
        made.host = (self._server or made.host).rstrip("/")
        made.tls_server_name = self._tls_server_name or made.tls_server_name
        # Ours to repeat: the transport's own three tries would treble every time-out.
        made.retries = False
        made.keep_alive = True
        made.connection_pool_maxsize = 1
        return made

    def transport(self, configuration: Any) -> Any:
        """Return a transport of the client, with a pool of its own."""
        return self._modules.rest.RESTClientObject(configuration)

    def _load(self, made: Any) -> None:
        if self._kubeconfig is not None:
            self._modules.credentials.load_kube_config(
                config_file=str(self._kubeconfig), client_configuration=made, persist_config=False
            )
            return
        loader = self._modules.credentials.InClusterConfigLoader(
            token_filename=str(self._service_account / "token"),
            cert_filename=str(self._service_account / "ca.crt"),
            environ=self._environment,
        )
        loader.load_and_set(made)


class _Modules:
    """What is used of the client."""

    def __init__(self, configuration: types.ModuleType, rest: types.ModuleType, credentials: types.ModuleType) -> None:
        self.configuration = configuration
        self.rest = rest
        self.credentials = credentials


def _whole() -> _Modules:
    """Import the client as it is meant."""
    return _Modules(
        importlib.import_module("kubernetes.client.configuration"),
        importlib.import_module("kubernetes.client.rest"),
        importlib.import_module("kubernetes.config"),
    )


def _lean() -> _Modules:
    """Import what a pod needs, leaving no trace for who imports `kubernetes` later."""
    spec = importlib.util.find_spec("kubernetes")
    assert spec is not None  # noqa: S101 - `Access` has looked
    assert spec.submodule_search_locations  # noqa: S101 - it is a package
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "kubernetes"}
    root = pathlib.Path(spec.submodule_search_locations[0])
    try:
        for name in _EMPTY:
            parent = types.ModuleType(name)
            parent.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = parent
        configuration = importlib.import_module("kubernetes.client.configuration")
        # incluster_config asks the package for it.
        sys.modules["kubernetes.client"].__dict__["Configuration"] = configuration.Configuration
        return _Modules(
            configuration,
            importlib.import_module("kubernetes.client.rest"),
            importlib.import_module("kubernetes.config.incluster_config"),
        )
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "kubernetes"]:
            del sys.modules[name]
        sys.modules.update(before)
