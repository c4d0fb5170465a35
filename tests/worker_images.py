"""Images with the kmods of one kernel, laid out in good and odd ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .objects import ABSOLUTE, Object, Symbol
from .real.build import busybox
from .real.layout import Member, folder, hardlink, symlink

KERNEL = "5.14.0-1.el9.x86_64"
OTHER = "5.14.0-2.el9.x86_64"
AT = f"opt/lib/modules/{KERNEL}"
TREE = f"lib/modules/{KERNEL}"
TAGS = ("license=GPL", f"vermagic={KERNEL} SMP preempt mod_unload modversions ")


def kmod(name: str, *tags: str, gives: str | None = None, takes: str | None = None) -> bytes:
    """Return a kmod that exports the symbol gives and needs the symbol takes."""
    symbols = [Symbol(f"__crc_{gives}", ABSOLUTE, 0x77)] if gives else []
    symbols += [Symbol(takes)] if takes else []
    versions = [("module_layout", 0x1111), *([(takes, 0x77)] if takes else [])]
    return Object(name=name, modinfo=(*TAGS, *tags), symbols=symbols, versions=versions).packed()


KMODS = {
    "extra/gives.ko": kmod("gives", "alias=other-name", "alias=a:[0-9]*", gives="given"),
    "extra/takes.ko": kmod("takes", "alias=a:1*", takes="given"),
    "plain.ko": kmod("plain"),
    "updates/my-kmod.ko": kmod("my_kmod"),
    "deep.ko": kmod("deep", takes="lowly"),
    "softly.ko": kmod("softly", "softdep=pre: plain"),
}
IN_TREE = {"kernel/low.ko": kmod("low", gives="lowly"), "kernel/plain.ko": kmod("plain")}
SHELL = [
    Member("bin/busybox", busybox(), mode=0o755),
    *(symlink(f"bin/{name}", "busybox") for name in ("sh", "mkdir", "cp")),
]


@dataclass(frozen=True)
class FolderFiles:
    """The files of a kernel's folder, which images have in one or more layers."""

    files: Mapping[str, bytes]
    """Contents by path in the folder."""
    at: str = AT
    """Path of the folder in the image."""

    def __call__(self, *without: str, **replaced: bytes) -> list[Member]:
        """Return all files as members of a layer.

        without: starts of paths that are left out. replaced: other contents by path.
        """
        chosen = {name: data for name, data in self.files.items() if not name.startswith(without or ("\0",))}
        return [Member(f"{self.at}/{name}", data) for name, data in (chosen | replaced).items()]

    def changed(self, name: str, change: Callable[[bytes], bytes]) -> list[Member]:
        """Return all files, one of them with changed content."""
        return self(**{name: change(self.files[name])})


Layers = list[list[Member]]
HOST = symlink(f"{AT}/host", f"/{TREE}")
IMAGES: dict[str, Callable[[FolderFiles], Layers]] = {
    "whole": lambda f: [f()],
    "with the link host": lambda f: [[*f(), HOST]],
    "host through usr": lambda f: [[*f(), symlink(f"{AT}/host", f"/usr/{TREE}")]],
    "host upwards": lambda f: [[*f(), symlink(f"{AT}/host", f"../../../../../{TREE}")]],
    "host of another kernel": lambda f: [[*f(), symlink(f"{AT}/host", f"/lib/modules/{OTHER}")]],
    "host and a link to it": lambda f: [[*f(), symlink(f"{AT}/host", "tree"), symlink(f"{AT}/tree", f"/{TREE}")]],
    "no index": lambda f: [f("modules.")],
    "only modules.dep.bin": lambda f: [
        [*f("modules."), Member(f"{AT}/modules.dep.bin", f.files["modules.dep.bin"])]],
    "only the text": lambda f: [[*f("modules."), Member(f"{AT}/modules.dep", f.files["modules.dep"])]],
    "index in a lower layer": lambda f: [f(), [Member(f"{AT}/readme", b"x")]],
    "index taken away": lambda f: [f(), [Member(f"{AT}/.wh.modules.dep.bin")]],
    "an empty index above": lambda f: [f(), [Member(f"{AT}/modules.dep.bin")]],
    "an index cut above": lambda f: [f(), [Member(f"{AT}/modules.dep.bin", f.files["modules.dep.bin"][:11])]],
    "another magic": lambda f: [f.changed("modules.dep.bin", lambda data: b"\0" + data[1:])],
    "a stale path": lambda f: [f.changed("modules.dep.bin", lambda data: data.replace(b"extra/gives", b"extra/given"))],
    "a kmod taken away": lambda f: [f(), [Member(f"{AT}/.wh.plain.ko")]],
    "a dependency taken away": lambda f: [f(), [Member(f"{AT}/extra/.wh.gives.ko")]],
    "a folder taken away": lambda f: [f(), [Member(f"{AT}/.wh.extra")]],
    "a folder made opaque": lambda f: [f(), [Member(f"{AT}/extra/.wh..wh..opq"), f("extra/takes")[0]]],
    "a kmod moved": lambda f: [f("plain"), [Member(f"{AT}/extra/plain.ko", KMODS["plain.ko"])]],
    "a kmod packed": lambda f: [f("plain"), [Member(f"{AT}/plain.ko.xz", KMODS["plain.ko"])]],
    "a kmod behind a link inside": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "real/plain"), Member(f"{AT}/real/plain", KMODS["plain.ko"])]],
    "a link that begins at the root": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"/{AT}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a link that leaves the folder": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "../../../kmods/plain.ko"),
                     Member("opt/kmods/plain.ko", KMODS["plain.ko"])]],
    "a link out and in again": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"../{KERNEL}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a link to the node's own": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", f"/{TREE}/kernel/plain.ko")]],
    "a link to the node's own folder": lambda f: [
        f("updates"), [symlink(f"{AT}/updates/my-kmod.ko", f"/{TREE}")]],
    "a dependency behind a link to the node's own folder": lambda f: [
        f("extra/gives"), [symlink(f"{AT}/extra/gives.ko", f"/{TREE}/kernel")]],
    "a link to where the copy is": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"/tmp/{AT}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a dangling link": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", "nowhere")]],
    "a link to a kmod, taken for a folder": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "real/"), Member(f"{AT}/real", KMODS["plain.ko"])],
        [symlink(f"{AT}/updates/my-kmod.ko", "../real/"), symlink(f"{AT}/deep.ko", "updates/.")]],
    "a folder behind a link with a slash": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "mine/"), Member(f"{AT}/mine/gives.ko", KMODS["extra/gives.ko"]),
                     Member(f"{AT}/mine/takes.ko", KMODS["extra/takes.ko"])]],
    "a link to itself": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", "plain.ko")]],
    "a dependency behind a link out": lambda f: [
        f("extra/gives"), [symlink(f"{AT}/extra/gives.ko", "/srv/gives.ko"),
                           Member("srv/gives.ko", KMODS["extra/gives.ko"])]],
    "a folder behind a link inside": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "mine"), Member(f"{AT}/mine/gives.ko", KMODS["extra/gives.ko"]),
                     Member(f"{AT}/mine/takes.ko", KMODS["extra/takes.ko"])]],
    "a folder behind a link out": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "/srv"), Member("srv/gives.ko", KMODS["extra/gives.ko"])]],
    "the index behind a link": lambda f: [
        f("modules.dep.bin"), [symlink(f"{AT}/modules.dep.bin", "index"),
                               Member(f"{AT}/index", f.files["modules.dep.bin"])]],
    "the index behind a link out": lambda f: [
        f("modules.dep.bin"), [symlink(f"{AT}/modules.dep.bin", "/srv/index"),
                               Member("srv/index", f.files["modules.dep.bin"])]],
    "a hard link": lambda f: [
        f("plain"), [Member("srv/plain", KMODS["plain.ko"]), hardlink(f"{AT}/plain.ko", "srv/plain")]],
    "the kernel's folder is a link": lambda f: [[*FolderFiles(f.files, "srv/kmods")(), symlink(AT, "/srv/kmods")]],
    "the kernel's folder is a link beside it": lambda f: [
        [*FolderFiles(f.files, "opt/lib/modules/real")(), symlink(AT, "real")]],
    "usr merge": lambda f: [[*FolderFiles(f.files, f"usr/lib/modules/{KERNEL}")(), symlink("opt/lib", "../usr/lib")]],
    "usr merge from the root": lambda f: [
        [*FolderFiles(f.files, f"usr/{TREE}")(), symlink("opt/lib", "/usr/lib"),
         symlink(f"usr/{TREE}/host", f"/{TREE}")]],
    "a folder in the place of a kmod": lambda f: [f("plain"), [folder(f"{AT}/plain.ko")]],
    "an empty kmod": lambda f: [f(**{"plain.ko": b""})],
    "no aliases": lambda f: [f("modules.alias.bin")],
    "damaged aliases": lambda f: [f.changed("modules.alias.bin", lambda data: b"\0" + data[1:])],
    "no symbols": lambda f: [f("modules.symbols.bin")],
}  # fmt: skip
