"""kmm-preflight collect: export the objects of a cluster that a run without this cluster needs."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from commands.arguments import Arguments
from fixtures.options.settings import cluster_access
from kmm_preflight.cluster.api import ReadApi, ResourceKind
from kmm_preflight.cluster.export import KINDS, Export, export_cluster
from kmm_preflight.entry.places import EXIT_USAGE
from kmm_preflight.errors import PreflightError, Undecidable, UsageProblem
from kmm_preflight.stages.report import EXIT_UNDECIDED
from kmm_preflight.status.operator import find_operator

NOTE = "COLLECTED.txt"
"""Name of the file that says what the folder is. A folder with this file may be written again."""

_API_SECONDS = 60.0


def run(arguments: Sequence[str]) -> int:
    """Export the objects and print what was written, what could not be read, and how to run on the folder."""
    parser = Arguments("collect", "Export the objects of a cluster that a run needs, for a gate without the cluster.")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the manifests")
    parser.add_argument(
        "--kubeconfig", metavar="FILE", help="kubeconfig of the cluster (default: $KUBECONFIG, else ~/.kube/config)"
    )
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current context)")
    parser.add_argument(
        "--with-pull-secret",
        action="store_true",
        help="also export the Secrets that nodes pull with (default: only Secrets that Modules name)",
    )
    options = parser.parse_args(arguments)
    try:
        lines = _collect(Path(options.output), options.kubeconfig, options.context, options.with_pull_secret)
    except PreflightError as exc:
        print(f"ERROR: {exc.message}", file=sys.stderr)
        return EXIT_UNDECIDED if isinstance(exc, Undecidable) else EXIT_USAGE
    print("\n".join(lines))
    return 0


def _collect(folder: Path, kubeconfig: str | None, context: str | None, node_logins: bool) -> list[str]:
    # The library behind it takes half a second, which `collect --help` must not pay.
    from kmm_preflight.cluster.login import connect

    _check(folder)
    api = connect(cluster_access(kubeconfig, context, _API_SECONDS))
    export = export_cluster(api, node_logins)
    lines = [*_words(export, folder), "", f"Run on these files:\n    {_command(api, folder, export)}"]
    _write(folder, export, lines)
    return lines


def _check(folder: Path) -> None:
    """Raise UsageProblem if the folder has files that are not of an earlier export."""
    try:
        foreign = folder.exists() and any(folder.iterdir()) and not (folder / NOTE).is_file()
    except OSError as exc:
        raise UsageProblem(f"--output {folder}: cannot be read ({exc.strerror})") from exc
    if foreign:
        raise UsageProblem(f"--output {folder}: the folder has other files. Name a new folder or an empty folder.")


def _words(export: Export, folder: Path) -> list[str]:
    counts = [f"{len(manifests)} {KINDS[kind]}" for kind, manifests in export.manifests.items()]
    lines = [f"{folder}: {', '.join(counts) or 'no objects'}"]
    lines += [f"not read: {words}" for words in export.unread]
    if export.logins_left_out:
        lines.append(
            f"left out: {export.logins_left_out} Secrets that nodes pull with. "
            "Pass --authfile to the run, or --with-pull-secret to collect."
        )
    return lines


def _command(api: ReadApi, folder: Path, export: Export) -> str:
    """Return the command line of a run on the folder. Files do not have the version of KMM, so the command names it."""
    command = ["kmm-preflight", "--release-image=RELEASE", f"--manifests={folder}"]
    command += ["--authfile=PULL_SECRET"] if export.logins_left_out else []
    try:
        operator = find_operator(api)
    except PreflightError:
        operator = None  # the run then says which version it assumes
    command += [f"--kmm-version={operator.version}"] if operator and operator.version else []
    return shlex.join(command)


def _write(folder: Path, export: Export, lines: Sequence[str]) -> None:
    """Write a file for each resource, and remove those of an earlier export. Only this user can read the files."""
    contents = {f"{kind.resource}.yaml": _list(kind, export) for kind in export.manifests}
    contents[NOTE] = "Written by kmm-preflight collect.\n\n" + "\n".join(lines) + "\n"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
            for name, text in contents.items():
                (Path(new) / name).touch(mode=0o600)
                (Path(new) / name).write_text(text, encoding="utf-8")
            for name in contents:  # all of them can be written: so the folder never has a part of an export
                (Path(new) / name).replace(folder / name)
        # Two versions of a resource share a file.
        for name in {f"{kind.resource}.yaml" for kind in KINDS} - set(contents):
            (folder / name).unlink(missing_ok=True)
    except OSError as exc:
        raise UsageProblem(f"--output {folder}: cannot be written ({exc.strerror})") from exc


def _list(kind: ResourceKind, export: Export) -> str:
    document = {"apiVersion": "v1", "kind": "List", "items": list(export.manifests[kind])}
    return yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
