"""Unpacking of a layer on a node: entries that containers/storage cannot unpack (docs/reference/openshift.md 5.7)."""

from __future__ import annotations

import posixpath

from kmm_preflight.oci.tar import EntryKind, Member

_WHITEOUT, _OVERLAY = ".wh.", ".wh..wh."
_LINKS_MOST = 40


class UnpackedLayer:
    """The folder of a layer on a node, filled entry by entry. The node has an own folder for each layer."""

    def __init__(self) -> None:
        self._kinds: dict[str, EntryKind | None] = {"": EntryKind.FOLDER}
        self._links: dict[str, str] = {}
        self._names: set[tuple[bool, str]] = set()

    def add(self, member: Member) -> str | None:
        """Add an entry. Return the reason if a node cannot unpack it, else None."""
        name = (member.absolute, member.path)
        if name in self._names:
            return f"it has two entries of the name {member.path}"
        self._names.add(name)
        if not member.path:
            return None
        parent, _, base = member.path.rpartition("/")
        folder = self._folder(parent)
        if folder is None:
            return f"entry {member.path} is below {parent}, which is not a folder of this layer"
        path = f"{folder}/{base}".lstrip("/")
        if base.startswith(_WHITEOUT):
            return self._hide(member, folder, base)
        if member.kind is EntryKind.HARDLINK and not self._can_link(member.link):
            return f"hard link {member.path} names {member.link}, and no such file comes before it in this layer"
        self._kinds[path] = member.kind
        self._links.pop(path, None)
        if member.kind is EntryKind.SYMLINK:
            self._links[path] = member.link
        return None

    def _hide(self, member: Member, folder: str, base: str) -> str | None:
        """Add a whiteout: a node makes a device of the hidden name, and fails if the name exists in this layer."""
        if base.startswith(_OVERLAY):
            return None
        hidden = f"{folder}/{base.removeprefix(_WHITEOUT)}".strip("/")
        if hidden in self._kinds:
            return f"it has {hidden} and then hides it with {member.path}"
        self._kinds[hidden] = None
        return None

    def _can_link(self, target: str) -> bool:
        parent, _, base = target.rpartition("/")
        folder = self._existing(parent)
        path = f"{folder}/{base}".lstrip("/")
        return folder is not None and path in self._kinds and self._kinds[path] is not EntryKind.FOLDER

    def _folder(self, path: str) -> str | None:
        """Return the folder without links, or None if the path leads to no folder. Make a folder that is missing."""
        if self._kinds.get(path) is EntryKind.FOLDER:
            return path
        done = ""
        for part in path.split("/"):
            step = f"{done}/{part}".lstrip("/")
            if step not in self._kinds:
                self._kinds[step] = EntryKind.FOLDER
            found = self._existing(step)
            if found is None:
                return None
            done = found
        return done

    def _existing(self, path: str) -> str | None:
        """Return the folder that the path leads to in this layer, or None."""
        todo, done, links = path.split("/")[::-1], "", 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            step = f"{done}/{part}".lstrip("/")
            kind = self._kinds.get(step)
            if kind is EntryKind.FOLDER:
                done = step
            elif kind is EntryKind.SYMLINK and links < _LINKS_MOST:
                links += 1
                target = self._links[step]
                done = "" if target.startswith("/") else done
                todo += target.split("/")[::-1]
            else:
                return None
        return done
