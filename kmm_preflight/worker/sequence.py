"""List the files that modprobe loads on the node for a Module, in order.

Sources: modprobe (docs/reference/loader.md 5), KMM (docs/reference/kmm.md 11).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from kmm_preflight.errors import BoundExceeded
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.index import in_folder
from kmm_preflight.kmod.lookup import LookupResult, look_up
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.folder import NodeFolder
from kmm_preflight.worker.indexes import SOFTDEPS, FolderIndexes
from kmm_preflight.worker.view import InTreeFile

_NAMES_IN_ORDER = 256


@dataclass(frozen=True)
class LoadSequence:
    """The kmods that modprobe loads. If a finding refutes, they are those that were reached before."""

    files: tuple[Located, ...] = ()
    """Files of the image in the order of loading, each once."""
    in_tree: tuple[str, ...] = ()
    """Names of the kernel's own kmods among them, with _ for -."""
    findings: tuple[Finding, ...] = ()
    """All findings, of every weight."""


def load_sequence(folder: NodeFolder, name: str, order: tuple[str, ...] = ()) -> LoadSequence:
    """Return the kmods that `modprobe name` loads.

    order: modulesLoadingOrder, which begins with the name and is loaded from its end. Raise BoundExceeded if it has
    more than 256 names, and the errors of reading the image.
    """
    if len(order) > _NAMES_IN_ORDER:
        raise BoundExceeded(f"modulesLoadingOrder: {len(order)} names, expected at most {_NAMES_IN_ORDER}")
    return _SequenceBuilder(folder, order).sequence(name)


class _SequenceBuilder:
    """modprobe's work on one name."""

    def __init__(self, folder: NodeFolder, order: tuple[str, ...]) -> None:
        self._folder, self._order = folder, order
        self._place, self._indexes = folder.place, FolderIndexes(folder)
        # KMM writes `softdep a pre: b`, `softdep b pre: c`. If a name has two lines, modprobe uses the first.
        self._after = {wanted_key(name): following for name, following in reversed([*pairwise(order)])}
        self._results: dict[str, LookupResult | None] = {}
        self._paths: dict[str, None] = {}
        self._findings: dict[Finding, None] = {}

    def sequence(self, name: str) -> LoadSequence:
        self._visit(name)
        self._check_order()
        reached = [(path, self._folder.reach(path).file) for path in self._paths]
        for path, file in reached:
            if isinstance(file, Located) and file.entry.kind is not EntryKind.FILE:
                self._add(findings.KMOD_NOT_A_FILE(path=file.path, got="a folder or device", expected="a regular file"))
            elif isinstance(file, InTreeFile) and not file.name:
                got = "a folder or another file of the node's own modules"
                self._add(findings.KMOD_NOT_A_FILE(path=path, got=got, expected="a kmod"))
        files = dict.fromkeys(file for _, file in reached if isinstance(file, Located))
        in_tree = dict.fromkeys(file.name for _, file in reached if isinstance(file, InTreeFile) and file.name)
        return LoadSequence(tuple(files), tuple(in_tree), tuple(self._findings))

    def _add(self, finding: Finding) -> None:
        self._findings[finding] = None

    def _visit(self, name: str) -> None:
        """Add the files of a name in modprobe's order: dependencies, the kmods of a softdep, the kmod itself."""
        if wanted_key(name) in self._results:
            return
        self._results[wanted_key(name)] = None
        for key in self._modules(name):
            result = self._look_up(key)
            self._results[key] = result
            if result is None:
                continue
            for path in result.paths[:-1]:
                self._visit_following(module_key(path.rpartition("/")[2]))
                self._paths[path] = None
            self._visit_following(key)
            self._paths[result.paths[-1]] = None

    def _visit_following(self, key: str) -> None:
        following = self._after.get(key)
        if following is not None and not self._indexes.overrule(key, following):
            self._visit(following)

    def _modules(self, name: str) -> tuple[str, ...]:
        """Return the kmods that modprobe loads for a name: one of that name, or those of an alias.

        If the name is built in, add the finding and return no kmod.
        """
        key = wanted_key(name)
        if self._indexes.has_built_in(key):
            self._add(findings.NODE_BUILT_IN(kmod=name, folder=self._place.folder))
            return ()
        return self._indexes.modules(key)

    def _look_up(self, name: str) -> LookupResult | None:
        names = self._folder.names if self._indexes.content is None else frozenset()
        result = look_up(self._place, name, self._indexes.content, names, self._folder.exists)
        if isinstance(result, LookupResult):
            for note in result.notes:
                self._add(note)
            return result
        if result.id == kmod_findings.INDEX_LACKS_KMOD.id and self._order and name != wanted_key(self._order[0]):
            result = findings.LOADING_ORDER_ABSENT(name=name, folder=self._place.folder)
        elif result.id == kmod_findings.INDEX_STALE.id:
            result = self._broken_link(name) or result
        self._add(result)
        return None

    def _broken_link(self, name: str) -> Finding | None:
        """Return the finding if the index leads to a link whose target the node does not have."""
        line, place = self._indexes.find(name), self._place
        if line is None or line.path is None:
            return None
        reached = self._folder.reach(in_folder(f"/{place.on_node}", line.path).lstrip("/"))
        link = reached.link
        if link is None or reached.file is not None:
            return None
        return findings.NODE_LINK(
            path=link.path,
            target=link.entry.link,
            kmod=name,
            folder=place.folder,
            directory=place.directory,
            kernel=place.kernel,
        )

    def _check_order(self) -> None:
        """Add a finding for names of the order that modprobe does not reach, if no other finding explains it."""
        loaded = {*self._results, *(module_key(path.rpartition("/")[2]) for path in self._paths)}
        missed = [name for name in self._order if wanted_key(name) not in loaded]
        other = [finding for finding in self._findings if finding.id != kmod_findings.INDEX_DEPENDENCY_MISSING.id]
        if missed and not other:
            before = self._order[self._order.index(missed[0]) - 1]
            key = wanted_key(before)
            got = f"it uses the line for {before} in /{self._place.folder}/{SOFTDEPS} instead of KMM's line"
            if not self._indexes.overrule(key, missed[0]):
                got = f"{before} is an alias, not the own name of a kmod"
            self._add(findings.LOADING_ORDER_OVERRULED(names=listed(missed), got=got))
