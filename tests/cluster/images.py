"""The images every node has: made of programs that are here anyway, because there is no registry to ask."""

from __future__ import annotations

import pathlib

from tests.cluster import archives, commands, programs, settings


def make(directory: pathlib.Path) -> None:
    """Write an archive of each image into the directory."""
    directory.mkdir(parents=True)
    busybox = pathlib.Path(programs.system("busybox"))
    applets = commands.run(str(busybox), "--list").split()
    shell = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    box = {"bin/busybox": busybox}
    # A sandbox has only to be there; the runtime kills it when the pod goes.
    pause = ["/bin/sleep", "infinity"]
    archives.write(
        directory / "sandbox.tar",
        name=settings.SANDBOX_IMAGE,
        files=box,
        links={"bin/sleep": "busybox"},
        entrypoint=pause,
    )
    archives.write(
        directory / "busybox.tar", name=settings.BUSYBOX_IMAGE, files=box, links=shell, entrypoint=(), command=["sh"]
    )
    archives.write(
        directory / "agnhost.tar",
        name=settings.AGNHOST_IMAGE,
        files=box | {"agnhost": programs.path("agnhost")},
        links=shell,
        entrypoint=["/agnhost"],
        command=["pause"],
    )
    archives.write(
        directory / "coredns.tar",
        name=settings.COREDNS_IMAGE,
        files={"coredns": programs.path("coredns")},
        links={},
        entrypoint=["/coredns"],
    )
