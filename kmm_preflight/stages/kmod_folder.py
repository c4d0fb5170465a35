"""The kmods in the image's folder for the target kernel, or why the folder has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from kmm_preflight.kmod.names import is_kmod_file, is_near, module_key, wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FOLDERS_THROUGH_LINKS, LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings
from kmm_preflight.text import listed
from kmm_preflight.worker import findings as worker_findings

_NODE_MODULES = "/lib/modules/"
_KIND_WORDS = {
    EntryKind.FOLDER: "a folder",
    EntryKind.DEVICE: "a device",
    EntryKind.HARDLINK: "a hard link",
    EntryKind.SYMLINK: "a link",
}


def kind_words(located: Located) -> str:
    """Return the kind of a file in words."""
    return _KIND_WORDS.get(located.entry.kind, "a regular file")


def broken_link(exc: LinkBroken) -> Finding:
    """Return the finding for a link that leads nowhere."""
    return findings.KMOD_LINK_BROKEN(path=exc.path, target=exc.target, problem=exc.problem)


class KmodFolder:
    """The folder <dirName>/lib/modules/<kernel> of an image, with the kmods that modprobe may take for the plan."""

    def __init__(self, plan: Plan, image: Image) -> None:
        """Read nothing yet. Every method raises what reading the image raises."""
        self._plan, self._files = plan, image.files
        self._key = wanted_key(plan.kmod) if plan.kmod else None

    def kmods(self) -> Iterator[Located]:
        """Yield the files with the name of the plan's kmod. With rawArgs yield every kmod.

        Yield files below the folder. If there are none, yield files below the folders that links in it lead to, as
        depmod does. Layers are read from the top: a caller that stops early leaves lower layers unread.
        """
        return self._below(self._is_wanted)

    def every_kmod(self) -> Iterator[Located]:
        """Yield all kmods directly below the folder, whatever their name."""
        return self._files.below(self._folder.path, is_kmod_file) if isinstance(self._folder, Located) else iter(())

    def why_none(self) -> Finding:
        """Return the finding for a folder without such a kmod."""
        if isinstance(self._folder, Finding):
            return self._folder
        return self._removed() or self._absent()

    @cached_property
    def _folder(self) -> Located | Finding | None:
        """The folder with links followed, None if there is none, or the finding for what is there instead."""
        try:
            folder = self._files.resolve(self._plan.folder)
        except LinkBroken as exc:
            return broken_link(exc)
        if folder is None or folder.entry.kind is EntryKind.FOLDER:
            return folder
        return worker_findings.KMOD_NOT_A_FILE(path=folder.path, got=kind_words(folder), expected="a folder")

    def _is_wanted(self, name: str) -> bool:
        return is_kmod_file(name) and (self._key is None or module_key(name) == self._key)

    def _below(self, wanted: Callable[[str], bool]) -> Iterator[Located]:
        if not isinstance(self._folder, Located):
            return
        found = False
        for located in self._files.below(self._folder.path, wanted):
            found = True
            yield located
        for linked in () if found else self._linked_folders(self._folder.path):
            yield from self._files.below(linked, wanted)

    def _linked_folders(self, folder: str) -> list[str]:
        targets: list[str] = []
        for link in self._files.below(folder, lambda name: not is_kmod_file(name)):
            if link.entry.kind is not EntryKind.SYMLINK or len(targets) >= FOLDERS_THROUGH_LINKS:
                continue
            if f"{link.entry.link.rstrip('/')}/".startswith(_NODE_MODULES):
                continue  # the documented link `host` leads to the node's own modules
            if target := self._linked_folder(link.path):
                targets.append(target)
        return targets

    def _linked_folder(self, link: str) -> str | None:
        try:
            target = self._files.resolve(link)
        except LinkBroken:
            return None
        return target.path if target and target.entry.kind is EntryKind.FOLDER else None

    def _removed(self) -> Finding | None:
        """Return the finding if a lower layer has the kmod and an upper layer hides it."""
        folder = self._folder.path if isinstance(self._folder, Located) else self._plan.folder
        hidden = next(iter(self._files.hidden(folder, self._is_wanted)), None)
        if hidden is None:
            return None
        layers = len(self._files)
        return findings.KMOD_REMOVED(
            path=hidden.path,
            layer=layers - hidden.layer,
            layers=layers,
            folder=self._plan.folder,
        )

    def _absent(self) -> Finding:
        kmod = self._plan.kmod
        if kmod and is_kmod_file(kmod):
            name = kmod[: kmod.rindex(".ko")]
            folder = self._plan.folder
            return findings.KMOD_NAME_SUFFIX(kmod=kmod, suffix=kmod[len(name) :], name=name, folder=folder)
        return findings.KMOD_ABSENT(
            folder=self._plan.folder,
            got=self._present(),
            expected=f"{kmod}.ko (or .ko.gz, .ko.xz, .ko.zst)" if kmod else "kmod",
            kernel=self._plan.kernel.version,
        )

    def _present(self) -> str:
        """Return what the image has: similar names in the folder, else other kernels, else kmods anywhere."""
        if isinstance(self._folder, Located):
            names = [located.path.rpartition("/")[2] for located in self.every_kmod()]
            near = [name for name in names if self._plan.kmod and is_near(name, self._plan.kmod)]
            if near:
                return f"the folder has similar names: {listed(near)}"
            return f"the folder has kmods {listed(sorted(names))}" if names else "the folder has no kmod"
        parent = self._plan.folder.rpartition("/")[0]
        try:
            kernels = self._files.resolve(parent)
        except LinkBroken:
            kernels = None
        if kernels:
            names = self._files.children(kernels.path)
            return f"there is no such folder; the image has kernels {listed(names)}" if names else f"/{parent} is empty"
        anywhere = [f"/{located.path}" for located in self._files.below("", self._is_wanted)]
        elsewhere = f"the image has {listed(anywhere)} instead" if anywhere else "the image has no such file"
        return f"there is no folder /{parent}; {elsewhere}"
