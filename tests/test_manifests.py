"""Manifests from files, folders and standard input: the objects, and errors with their place."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from typing import TextIO

import pytest
import yaml

from kmm_preflight.cluster.documents import NESTING, DocumentPlace, NoObject, read_documents
from kmm_preflight.cluster.manifest_files import FILE_BYTES
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Flavour, Severity, TargetKernel
from kmm_preflight.planning.plan import Unresolved

NO_INPUT = io.StringIO()


def _module(name: str = "m", namespace: str = "ns", api: str = "kmm.sigs.x-k8s.io/v1beta1") -> str:
    return f"""apiVersion: {api}
kind: Module
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{}}
  moduleLoader:
    container:
      kernelMappings: [{{regexp: '^.+$', containerImage: 'r/i:t'}}]
      modprobe: {{moduleName: kmod}}
"""


CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: ns}\ndata: {dockerfile: FROM x}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"


def _names(*paths: str, stdin: TextIO = NO_INPUT) -> list[str]:
    return [str(module.name) for module in read_manifests(paths, "default", stdin).modules]


def _listed(kind: str, *items: str, api: str = "v1") -> str:
    return json.dumps({"apiVersion": api, "kind": kind, "items": [yaml.safe_load(item) for item in items]})


def _items(*items: str) -> str:
    return json.dumps([yaml.safe_load(item) for item in items])


def _one(name: str) -> str:
    return json.dumps(yaml.safe_load(_module(name)))


def _bare(name: str) -> str:
    return "\n".join(line for line in _module(name).splitlines() if not line.startswith(("apiVersion", "kind")))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param(_module(), ["ns/m"], id="one"),
        pytest.param(f"{_module('b')}---\n{_module('a')}", ["ns/a", "ns/b"], id="two, in order of names"),
        pytest.param(f"---\n---\n# nothing\n---\n{_module()}...\n", ["ns/m"], id="empty documents"),
        pytest.param(f"\ufeff{_module()}", ["ns/m"], id="byte order mark"),
        pytest.param(_module().replace("\n", "\r\n"), ["ns/m"], id="line ends of Windows"),
        pytest.param(json.dumps(yaml.safe_load(_module())), ["ns/m"], id="JSON"),
        pytest.param(json.dumps(yaml.safe_load(_module()), indent="\t"), ["ns/m"], id="JSON with tabs"),
        pytest.param(
            json.dumps({**yaml.safe_load(_module()), "x": "\U0001f600"}), ["ns/m"], id="JSON with a surrogate pair"
        ),
        pytest.param(_listed("List", _module("a"), _module("b")), ["ns/a", "ns/b"], id="List"),
        pytest.param(
            _listed("ModuleList", _bare("a"), _bare("b"), api="kmm.sigs.x-k8s.io/v1beta1"),
            ["ns/a", "ns/b"],
            id="ModuleList with items without a kind",
        ),
        pytest.param(_listed("List", _listed("List", _module())), ["ns/m"], id="List in a List"),
        pytest.param(_items(_module("a"), CONFIG_MAP, _module("b")), ["ns/a", "ns/b"], id="list of objects"),
        pytest.param(_items(_listed("List", _module())), ["ns/m"], id="List in a list"),
        pytest.param("[]", [], id="empty list"),
        pytest.param(f"{_one('a')}\n{_one('b')}\n", ["ns/a", "ns/b"], id="JSON lines"),
        pytest.param(f"{_one('a')}\n---\n{_one('b')}\n", ["ns/a", "ns/b"], id="JSON in YAML documents"),
        pytest.param("apiVersion: example.com/v1\nkind: module\n", [], id="another project's module"),
        pytest.param("kind: ModuleList\nitems:\n", [], id="empty List"),
        pytest.param("apiVersion: example.com/v1\nkind: Module\nspec: 5\n", [], id="another project's Module"),
        pytest.param(f"{CONFIG_MAP}---\n{SECRET}---\n{_module()}", ["ns/m"], id="other kinds too"),
        pytest.param(_module().replace("selector: {}", "selector: {since: 2026-01-01}"), ["ns/m"], id="date is text"),
    ],
)
def test_modules_of_a_file(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(text, newline="")
    assert _names(str(tmp_path / "a.yaml")) == names
    assert _names("-", stdin=io.StringIO(text)) == names


@pytest.mark.parametrize(
    ("text", "names", "others"),
    [
        pytest.param("{a: b, kind: x}\n---\n" + _module(), ["ns/m"], 1, id="flow style, then a Module"),
        pytest.param(
            json.dumps(["\U0001f600", yaml.safe_load(_module())]), ["ns/m"], 1, id="list with a surrogate pair"
        ),
        pytest.param("- a\n- {kind: x}\n---\n" + _module(), ["ns/m"], 2, id="list of something else"),
        pytest.param("[a, {kind: x}]\n---\n" + _module(), ["ns/m"], 2, id="list in flow style"),
        pytest.param(
            f"{_one('a')}{_one('b')} 5 [{_one('c')}]", ["ns/a", "ns/b", "ns/c"], 1, id="JSON values on one line"
        ),
        pytest.param("just text\n---\n- a\n- b\n---\n5\n---\nkind: 7\n", [], 5, id="no objects"),
        pytest.param("a: 2026-01-01\nb: =\n---\n" + _module(), ["ns/m"], 1, id="plain date and ="),
        pytest.param("a: &x {b: c}\nd: {<<: *x, b: e}\n---\n" + _module(), ["ns/m"], 1, id="anchor and merge key"),
        pytest.param("{{ if x }}\nkind: Module\n{{ end }}\n", [], 1, id="Helm template"),
        pytest.param(f"{_module()}---\nkind: [\n", [], 1, id="invalid YAML behind a Module"),
        pytest.param(f"{_module()}---\nkind: Thing\n", ["ns/m"], 1, id="no apiVersion"),
        pytest.param(f"{_module()}---\napiVersion: v1\n", ["ns/m"], 1, id="no kind"),
        pytest.param("kind: ModuleList\nitems: {}\n", [], 1, id="items that are no list"),
    ],
)
def test_what_is_no_object_is_listed_in_a_folder_and_refused_in_a_named_file(
    tmp_path: Path, text: str, names: list[str], others: int
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    inventory = read_manifests([str(tmp_path)], "default", NO_INPUT)
    assert [str(module.name) for module in inventory.modules] == names
    assert len(inventory.not_judged) == others
    assert all(item.subject.startswith(str(tmp_path / "a.yaml")) for item in inventory.not_judged)
    first = inventory.not_judged[0]
    for paths, stdin in (([str(tmp_path / "a.yaml")], NO_INPUT), (["-"], io.StringIO(text))):
        with pytest.raises(UsageProblem) as raised:
            read_manifests(paths, "default", stdin)
        assert raised.value.message.endswith(first.reason)


MISREAD = {
    "large.yaml": "the file has more than 64 MiB",
    "latin.yml": "the file is not UTF-8 text",
    "broken.json": "a link to a file that does not exist",
    "loop.yaml": "a link to a file that does not exist",
    "pipe.yaml": "not a regular file",
    "to-pipe.yaml": "not a regular file",
    "device.json": "not a regular file",
    "UPPER.YAML": "the name must end with .yaml, .yml, .json in lower case",
    "linked": "a link to a folder, which is not followed",
}


def _misread(folder: Path) -> None:
    with (folder / "large.yaml").open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    (folder / "latin.yml").write_bytes(b"a: \xe9")
    (folder / "broken.json").symlink_to("nowhere")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "to-pipe.yaml").symlink_to("pipe.yaml")
    (folder / "device.json").symlink_to("/dev/zero")
    (folder / "UPPER.YAML").write_text(_module("upper"))
    (folder / "linked").symlink_to("/etc", target_is_directory=True)
    (folder / "README").write_text("kind: Module")


def test_files_of_a_folder_that_are_not_read_are_listed(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(_module())
    _misread(tmp_path)
    inventory = read_manifests([str(tmp_path)], "", NO_INPUT)
    assert [str(module.name) for module in inventory.modules] == ["ns/m"]
    assert {Path(item.subject).name: item.reason for item in inventory.not_judged} == MISREAD
    assert inventory.assumed == (f"1 other file in {tmp_path} not read: the names do not end with .yaml, .yml, .json",)


def test_excluded_files_and_objects_are_counted(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(
        f"{_module()}---\napiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: Novelty\nmetadata: {{name: n, namespace: ns}}\n"
    )
    _misread(tmp_path)
    exclude = ["Novelty/ns/*", *MISREAD, "nothing*"]
    inventory = read_manifests([str(tmp_path)], "", NO_INPUT, exclude)
    assert [str(module.name) for module in inventory.modules] == ["ns/m"]
    assert inventory.not_judged == ()
    assert "--exclude Novelty/ns/* left out 1 file or object" in inventory.assumed
    assert "--exclude nothing* matches nothing" in inventory.assumed


def test_a_known_kind_of_an_unknown_version_is_listed(tmp_path: Path) -> None:
    kinds = ("v2 Secret", "machineconfiguration.openshift.io/v9 MachineConfigPool", "example.com/v1 Image")
    documents = [f"apiVersion: {kind.split()[0]}\nkind: {kind.split()[1]}\nmetadata: {{name: n}}\n" for kind in kinds]
    (tmp_path / "a.yaml").write_text("---\n".join(documents))
    listed = read_manifests([str(tmp_path)], "", NO_INPUT).not_judged
    assert [item.subject for item in listed] == ["Secret n", "MachineConfigPool n"]


def test_inventory(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{CONFIG_MAP}---\n{SECRET}---\n{_module()}---\n{CONFIG_MAP}")
    inventory = read_manifests([str(tmp_path / "a.yaml")], "default", NO_INPUT)
    assert inventory.config_maps == {("ns", "d"): yaml.safe_load(CONFIG_MAP)}
    assert inventory.secrets == {("default", "s"): yaml.safe_load(SECRET)}
    assert "stringData" not in repr(inventory)


def test_a_must_gather_is_walked(tmp_path: Path) -> None:
    modules = tmp_path / "quay-io-x-sha256-1" / "namespaces" / "ns" / "kmm.sigs.x-k8s.io" / "modules"
    core = tmp_path / "quay-io-x-sha256-1" / "namespaces" / "ns" / "core"
    for folder in (modules, core, tmp_path / "empty"):
        folder.mkdir(parents=True)
    (modules / "a.yaml").write_text(f"---\n{_module('a')}")
    (modules / "b.yml").write_text(_module("b"))
    (modules / "c.json").write_text(json.dumps(yaml.safe_load(_module("c"))))
    (core / "configmaps.yaml").write_text(_listed("ConfigMapList", CONFIG_MAP))
    (core / "pod.log").write_text("{{{ no YAML")
    (tmp_path / "event-filter.html").write_text("<html>")
    assert _names(str(tmp_path)) == ["ns/a", "ns/b", "ns/c"]
    assert list(read_manifests([str(tmp_path)], "", NO_INPUT).config_maps) == [("ns", "d")]


def test_the_volume_of_a_config_map(tmp_path: Path) -> None:
    """Each file is a link into a hidden folder, which is a link to another hidden folder."""
    real = tmp_path / "..2026_01_01"
    real.mkdir()
    (real / "a.yaml").write_text(_module())
    (tmp_path / "..data").symlink_to(real.name)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert _names(str(tmp_path)) == ["ns/m"]
    assert _names(str(tmp_path / "..data")) == ["ns/m"]


def test_hidden_folders_are_ignored(tmp_path: Path) -> None:
    for folder in (".git", "x/.terraform/y", "x/y"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.yaml").write_text(_module())
    assert _names(str(tmp_path)) == ["ns/m"]
    assert _names(str(tmp_path / "x" / ".terraform")) == ["ns/m"]


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(_module(),), daemon=True)
    writer.start()
    assert _names(str(pipe)) == ["ns/m"]
    writer.join(timeout=10)


def test_several_paths_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(_module("a"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.yaml").write_text(_module("b"))
    stdin = io.StringIO(_module("c"))
    assert _names(str(tmp_path / "a.txt"), str(tmp_path / "more"), "-", stdin=stdin) == ["ns/a", "ns/b", "ns/c"]


JSON = json.dumps(yaml.safe_load(_module()))
NO_API = "kind: Module\nmetadata: {name: m}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: b\nc: [1\n", "{file}, line 3, column 1: invalid YAML: did not find", id="syntax error"),
        pytest.param("a: b\n\tc: d\n", "{file}, line 2, column 1: invalid YAML: found a tab", id="tab"),
        pytest.param(
            "a: b\nc: {a: 1, b: 2, a: 3}\n",
            "{file}, line 2, column 17: invalid YAML: duplicate key a",
            id="duplicate key",
        ),
        pytest.param(
            '{"a": 1, "b": {"c": 1, "c": 2}}', "{file}: invalid YAML: duplicate key c", id="duplicate key in JSON"
        ),
        pytest.param("kind: Module\nname: {{ .Values.name }}\n", "{file}, line 2, column 8: invalid YAML", id="Helm"),
        pytest.param(
            "{{- if .Values.x }}\nkind: x\n", "{file}, line 1, column 3: invalid YAML", id="Helm at the start"
        ),
        pytest.param("a: !Ref b\n", "{file}, line 1, column 4: invalid YAML: could not determine", id="tag"),
        pytest.param("a: *b\n", "{file}, line 1, column 4: invalid YAML: found undefined alias", id="alias"),
        pytest.param("a: \x07\n", "{file}: invalid YAML", id="control character"),
        # PyYAML since 6.0.4 has a bound of its own, and reaches it first: its words and its column differ from ours.
        pytest.param("[" * 100_000, "{file}, line 1, column ", id="deep"),
        pytest.param(
            "- " * 100_000, f"{{file}}, line 1, column {2 * NESTING + 1}: invalid YAML: nested", id="deep list"
        ),
        pytest.param(
            '{"a":' * 100_000, f"{{file}}, line 1, column {5 * NESTING + 1}: invalid YAML: nested more", id="deep JSON"
        ),
        pytest.param(
            f"{JSON}\n{JSON}\n{JSON[:-1]}", "{file}, line 3, column ", id="JSON lines with an incomplete last line"
        ),
        pytest.param(
            f"{JSON}\n{JSON}", "Module ns/m exists twice: in {file}, document 1 and in {file}, document 2", id="lines"
        ),
        pytest.param(
            f"{SECRET}---\n- {_one('good')}\n- {JSON.replace('kmod', 'a/b')}",
            "{file}, document 2, item [1]: Module m: spec.moduleLoader.container.modprobe.moduleName: got text 'a/b'",
            id="in a list",
        ),
        pytest.param(
            f"[{_listed('List', _module('m', 'A'))}]",
            "{file}, document 1, item [0].items[0]: Module m: metadata.namespace: got text 'A'",
            id="in a List in a list",
        ),
        *(
            pytest.param(
                _module(api=api).replace("kind: Module", f"kind: {kind}"),
                f"{{file}}, document 1: kind: got {kind}, expected Module",
                id=f"{kind} of {api}",
            )
            for kind, api in (
                ("module", "kmm.sigs.x-k8s.io/v1beta1"),
                ("modules", "kmm.sigs.x-k8s.io/v1beta1"),
                ("Modules", "kmm.sigs.x-k8s.io/v1"),
                ("MODULE", "kmm.sigs.k8s.io/v1beta1"),
            )
        ),
        pytest.param(
            "apiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: modulelist\nitems: []\n",
            "{file}, document 1: kind: got modulelist, expected ModuleList",
            id="modulelist",
        ),
        pytest.param(
            "apiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: moduleList\nitems: [{metadata: {name: m}}]\n",
            "{file}, document 1, items[0]: kind: got module, expected Module",
            id="moduleList",
        ),
        pytest.param(
            NO_API, "{file}, document 1: apiVersion missing: this is not a Kubernetes object", id="no apiVersion"
        ),
        pytest.param(
            f"{SECRET}---\n{_module(api='kmm.sigs.k8s.io/v1beta1')}",
            "{file}, document 2: apiVersion: got kmm.sigs.k8s.io/v1beta1, expected kmm.sigs.x-k8s.io/v1beta1",
            id="group of old",
        ),
        pytest.param(
            f"{_module()}---\n---\n{_module(api='kmm.sigs.x-k8s.io/v1alpha1')}",
            "{file}, document 3: Module m: apiVersion: got text 'kmm.sigs.x-k8s.io/v1alpha1', expected",
            id="version that never was",
        ),
        pytest.param(
            _listed("List", CONFIG_MAP, _module().replace("kmod", "5")),
            "{file}, document 1, items[1]: Module m: spec.moduleLoader.container.modprobe.moduleName: got number 5",
            id="in a List",
        ),
        pytest.param(
            _listed("List", _listed("List", _module("m", "A"))),
            "{file}, document 1, items[0].items[0]: Module m: metadata.namespace: got text 'A'",
            id="in a List in a List",
        ),
        pytest.param("kind: List\nitems: {a: b}\n", "{file}, document 1: items is not a list", id="items a mapping"),
        pytest.param(
            "apiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: Module\nspec: {}\nmetadata: x\n",
            "{file}, document 1: Module without a name: spec.selector: missing",
            id="Module without metadata",
        ),
        pytest.param(
            f"{_module()}---\n{_module()}",
            "Module ns/m exists twice: in {file}, document 1 and in {file}, document 2; keep one of them",
            id="Module twice",
        ),
        pytest.param(
            f"{CONFIG_MAP}---\n{CONFIG_MAP.replace('FROM x', 'FROM y')}",
            "{file}, document 2: ConfigMap ns/d exists twice with different contents",
            id="ConfigMap twice",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: 5}\n",
            "{file}, document 1: Secret: metadata.name",
            id="Secret's name a number",
        ),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    for path, name, stdin in ((str(file), str(file), NO_INPUT), ("-", "standard input", io.StringIO(text))):
        with pytest.raises(UsageProblem) as caught:
            _names(path, stdin=stdin)
        assert caught.value.message.startswith(message.format(file=name))


def test_a_module_twice_names_both_files(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(_module())
    with pytest.raises(UsageProblem) as caught:
        _names(str(tmp_path))
    first, second = f"{tmp_path}/a.yaml, document 1", f"{tmp_path}/b.yaml, document 1"
    assert caught.value.message == f"Module ns/m exists twice: in {first} and in {second}; keep one of them"


def test_the_namespace_of_the_run_makes_two_modules_the_same() -> None:
    text = f"{_module(namespace='default')}---\n{_module(namespace='')}"
    with pytest.raises(UsageProblem, match="Module default/m exists twice"):
        _names("-", stdin=io.StringIO(text))


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: \xff\n")
    with pytest.raises(UsageProblem) as caught:
        _names(str(file))
    assert caught.value.message == f"--manifests {file}: the file is not UTF-8 text"
    with pytest.raises(UsageProblem) as caught:
        _names("-", stdin=io.TextIOWrapper(io.BytesIO(b"a: \xff\n"), encoding="utf-8"))
    assert caught.value.message == "--manifests -: standard input is not UTF-8 text"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no such file or folder"),
        ("empty", "the folder has no .yaml, .yml, .json files"),
        ("a.yaml/b", "no such file or folder"),
        ("x" * 300, "no such file or folder"),
    ],
)
def test_a_path_without_manifests(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "a.yaml").touch()
    with pytest.raises(UsageProblem) as caught:
        _names(str(tmp_path / name))
    assert caught.value.message == f"--manifests {tmp_path / name}: {words}"


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    with pytest.raises(UsageProblem, match=r"a\.yaml: no such file or folder"):
        _names(str(tmp_path / "a.yaml"))


def test_too_large_manifests(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    with pytest.raises(UsageProblem, match=r"a\.yaml: the file has more than 64 MiB"):
        _names(str(tmp_path / "a.yaml"))
    with pytest.raises(UsageProblem, match="--manifests -: standard input has more than 64 MiB"):
        _names("-", stdin=io.StringIO("#" * (FILE_BYTES + 1)))


def test_an_alias_bomb_is_harmless() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    bomb = "\n".join(lines)
    module = _module().replace("spec:", "spec: &spec").replace("metadata:", "x: *a39\nmetadata:")
    began = time.monotonic()
    assert _names("-", stdin=io.StringIO(f"{bomb}\n{module}")) == ["ns/m"]
    with pytest.raises(UsageProblem, match=r"selector: got a list of 10, expected a mapping"):
        _names("-", stdin=io.StringIO(f"{bomb}\n{module.replace('selector: {}', 'selector: *a39')}"))
    assert time.monotonic() - began < 1


def test_an_object_that_holds_itself() -> None:
    text = "apiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: Module\nmetadata: {name: m}\nspec: &a {selector: *a}\n"
    with pytest.raises(UsageProblem, match=r"Module m: spec\.selector\.selector: got a mapping, expected text"):
        _names("-", stdin=io.StringIO(text))


def test_documents_are_numbered_in_their_order() -> None:
    text = (
        "{apiVersion: v1, kind: A}\n---\nplain\n---\n---\nkind: BList\napiVersion: v2\nitems: [{x: 1}, 5, {kind: C}]\n"
    )
    assert list(read_documents(text, "f")) == [
        (DocumentPlace("f", 1), {"kind": "A", "apiVersion": "v1"}),
        NoObject("f, document 2", "this is not a Kubernetes object"),
        (DocumentPlace("f", 4, "items[0]"), {"kind": "B", "apiVersion": "v2", "x": 1}),
        NoObject("f, document 4, items[1]", "this is not a Kubernetes object"),
        (DocumentPlace("f", 4, "items[2]"), {"kind": "C", "apiVersion": "v2"}),
    ]


def test_a_regexp_beyond_our_limit_is_undecided_and_not_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(_module().replace("^.+$", "a" * 20_000))
    (refused,) = read_manifests([str(tmp_path / "a.yaml")], "default", NO_INPUT).refused
    kernel = TargetKernel("5.14.0-1.el9.x86_64", "amd64", None, Flavour.STANDARD, None, "")
    case = refused.case_on(kernel, ())
    assert isinstance(case, Unresolved)
    assert (case.finding.id, case.finding.severity) == ("module-over-limit", Severity.UNDECIDED)
