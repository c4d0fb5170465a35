"""Files of --manifests: those that a run reads, and the reasons why it does not read the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import NotJudged

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES = 64 << 20


class Exclusions:
    """Patterns of --exclude, and the number of files and objects that each has excluded."""

    def __init__(self, globs: Sequence[str] = ()) -> None:
        self._counts = dict.fromkeys(globs, 0)

    def covers(self, *names: str) -> bool:
        """True if a pattern matches one of the names of a file or object. Count the match."""
        found = [glob for glob in self._counts if any(fnmatchcase(name, glob) for name in names)]
        for glob in found:
            self._counts[glob] += 1
        return bool(found)

    def words(self) -> tuple[str, ...]:
        """Return one sentence for each pattern."""
        return tuple(
            f"--exclude {glob} left out {count} file{'' if count == 1 else 's'} or object{'' if count == 1 else 's'}"
            if count
            else f"--exclude {glob} matches nothing"
            for glob, count in self._counts.items()
        )


@dataclass(frozen=True)
class ManifestFile:
    """A file of --manifests."""

    path: Path
    """Its path."""
    named: bool
    """True if the option names the file itself, not a folder with it."""
    problem: str | None = None
    """The reason why the file cannot be read, or None."""


class ManifestFolder:
    """The files of a path of --manifests."""

    def __init__(self, path: Path, exclusions: Exclusions) -> None:
        self._path, self._exclusions = path, exclusions
        self.others = 0
        """The number of files that are no manifests by their names."""

    def files(self) -> list[ManifestFile]:
        """Return the files in the order of their names. Raise UsageProblem if the path does not exist."""
        if not os.path.exists(self._path):
            raise UsageProblem(f"--manifests {self._path}: no such file or folder")
        if not self._path.is_dir():
            return [ManifestFile(self._path, named=True)]
        found = sorted(self._walk(), key=lambda file: file.path)
        if not found and not self._exclusions_used():
            raise UsageProblem(f"--manifests {self._path}: the folder has no {', '.join(SUFFIXES)} files")
        return found

    def _exclusions_used(self) -> bool:
        return any("left out" in words for words in self._exclusions.words())

    def _walk(self) -> Iterator[ManifestFile]:
        """Yield the manifests below the folder. Do not read pipes and devices, because they may block."""
        unread: list[ManifestFile] = []

        def unreadable(exc: OSError) -> None:
            unread.append(ManifestFile(Path(str(exc.filename)), False, f"cannot be read ({exc.strerror})"))

        for folder, folders, names in os.walk(self._path, onerror=unreadable):
            # The volume of a ConfigMap has its files in a hidden folder, and links to them in the folder above.
            folders[:] = [name for name in folders if not name.startswith(".")]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in (*names, *links):
                yield from self._file(Path(folder) / name)
        yield from unread

    def _file(self, file: Path) -> Iterator[ManifestFile]:
        linked_folder = file.is_dir()
        if not linked_folder and not file.name.lower().endswith(SUFFIXES):
            self.others += 1
            return
        if self._exclusions.covers(str(file), str(file.relative_to(self._path)), file.name):
            return
        yield ManifestFile(
            file, False, "a link to a folder, which is not followed" if linked_folder else _problem(file)
        )


def _problem(file: Path) -> str | None:
    if not file.name.endswith(SUFFIXES):
        return f"the name must end with {', '.join(SUFFIXES)} in lower case"
    if not os.path.exists(file):
        return "a link to a file that does not exist"
    return None if os.path.isfile(file) else "not a regular file"


def read_file(file: ManifestFile) -> str | NotJudged:
    """Return the text of a file, or why it cannot be read. Raise UsageProblem for a file that the option names."""
    text, problem = (None, file.problem) if file.problem else _text(file.path)
    if text is not None:
        return text
    if file.named:
        raise UsageProblem(f"--manifests {file.path}: {problem}")
    return NotJudged(str(file.path), str(problem))


def _text(path: Path) -> tuple[str | None, str | None]:
    """Return the text of a file, or the problem."""
    try:
        with path.open("rb") as stream:
            body = stream.read(FILE_BYTES + 1)
    except OSError as exc:
        return None, f"cannot be read ({exc.strerror})"
    if len(body) > FILE_BYTES:
        return None, f"the file has more than {FILE_BYTES >> 20} MiB"
    try:
        return body.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return None, "the file is not UTF-8 text"
