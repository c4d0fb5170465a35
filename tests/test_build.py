"""Build and sign sections of manifests, built on this machine, with checked results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.real.build import need_buildah
from tests.real.faults import MANIFESTS, Fault, FaultyRegistry
from tests.real.kmod import SOURCE, compile_kmod
from tests.real.layout import Member, image, layer
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.skopeo import access, skopeo
from tests.runs import Run, module, run_preflight, write_manifests
from tests.workbench import (
    KMOD,
    SIGN,
    KeyPair,
    Workbench,
    build_module,
    config_map,
    key_pair,
    opaque_secret,
    signing_secrets,
)

MAGIC = b"~Module signature appended~\n"
NOTE = (
    "the sign section signs the image that the build section makes, and this image is not available without "
    "PushBuiltImage"
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Return a registry without a login, images for builds, and a storage that keeps pulled images."""
    need_buildah()
    with Registry.plain(tmp_path_factory.mktemp("registry")) as registry:
        yield Workbench(registry, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    """Return the key pair of signings."""
    return key_pair()


def preflight(tmp_path: Path, bench: Workbench, manifests: list[dict[str, Any]], *options: str, **more: Any) -> Run:
    """Run the suite for the newest kernel."""
    shutil.rmtree(tmp_path / "manifests", ignore_errors=True)
    return run_preflight(tmp_path, *bench.options(tmp_path / "manifests", manifests), *options, **more)


def module_of(run: Run, name: str) -> Mapping[str, Any]:
    """Return the Module in preflight.json."""
    (entry,) = [module for module in run.document["modules"] if module["name"] == name]
    return dict(entry)


def outcomes(run: Run, name: str) -> tuple[str, ...]:
    """Return the outcome of each stage of a Module, in order."""
    return tuple(stage["outcome"] for stage in module_of(run, name)["stages"])


def finding(run: Run, name: str, id: str) -> Mapping[str, Any]:
    """Return a finding of a Module."""
    (entry,) = [finding for finding in module_of(run, name)["findings"] if finding["id"] == id]
    return dict(entry)


def copied_out(bench: Workbench, repository: str, tmp_path: Path) -> dict[str, bytes]:
    """Return the kmods of a pushed image by path; nothing if there is no such image."""
    with_login = access(bench.registry, tmp_path / "auth.json", "src-")
    name = f"docker://{bench.registry.host}/{repository}:{bench.new}"
    if skopeo("copy", "--quiet", *with_login, name, f"dir:{tmp_path / 'out'}").returncode:
        return {}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    files: dict[str, bytes] = {}
    for entry in manifest["layers"]:
        blob = tmp_path / "out" / entry["digest"].partition(":")[2]
        unpacked = tmp_path / "files" / blob.name
        unpacked.mkdir(parents=True)
        subprocess.run(["tar", "-xf", blob, "-C", unpacked], check=True)
        files |= {str(path.relative_to(unpacked)): path.read_bytes() for path in unpacked.rglob("opt/**/*.ko")}
    return files


def openssl_verifies(data: bytes, cert: bytes, tmp_path: Path) -> bool:
    """True if openssl verifies the appended signature with this certificate."""
    assert data.endswith(MAGIC)
    body, length = data[: -len(MAGIC)], int.from_bytes(data[-len(MAGIC) - 4 : -len(MAGIC)], "big")
    content, signature = body[: -12 - length], body[-12 - length : -12]
    (tmp_path / "content").write_bytes(content)
    (tmp_path / "signature").write_bytes(signature)
    (tmp_path / "cert.der").write_bytes(cert)
    pem = ["openssl", "x509", "-inform", "DER", "-in", str(tmp_path / "cert.der"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(pem, check=True)
    verify = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(tmp_path / "signature"), "-content",
              str(tmp_path / "content"), "-certfile", str(tmp_path / "cert.pem"), "-noverify", "-nointern", "-out",
              "/dev/null"]  # fmt: skip
    return subprocess.run(verify, capture_output=True).returncode == 0


def test_a_missing_image_is_built_signed_pushed_and_then_verified(
    tmp_path: Path, bench: Workbench, pair: KeyPair
) -> None:
    manifests = [
        *build_module("compiled", bench.new_image("compiled"), bench.compile_dockerfile()),
        *build_module("signed", bench.new_image("signed"), bench.compile_dockerfile(), sign=SIGN),
        *signing_secrets(pair),
    ]
    run = preflight(tmp_path, bench, manifests, "--push-built-image", "--proof=kernel", "-n", "2")
    assert run.returncode == 0, run.output
    assert outcomes(run, "compiled") == ("falls through", "verified", "not needed")
    assert outcomes(run, "signed") == ("falls through", "verified", "verified")
    kmods = copied_out(bench, "made/signed", tmp_path)
    (kmod,) = kmods.values()
    assert openssl_verifies(kmod, pair.cert, tmp_path)
    assert not any(data.endswith(MAGIC) for data in copied_out(bench, "made/compiled", tmp_path / "compiled").values())
    again = preflight(tmp_path, bench, manifests, "--proof=kernel")
    assert {name: verdict[0] for name, verdict in again.verdicts().items()} == {
        "compiled": "verified",
        "signed": "verified",
    }
    assert outcomes(again, "signed") == ("verified", "not needed", "not needed")
    assert module_of(again, "signed")["image"]["digest"] == module_of(run, "signed")["image"]["digest"]


def test_a_result_without_a_push_is_verified_and_not_pushed(tmp_path: Path, bench: Workbench, pair: KeyPair) -> None:
    base = bench.push_kmods(compile_kmod(bench.new), "good")
    manifests = [
        *build_module("kept", bench.new_image("kept"), bench.copy_dockerfile(base), sign=SIGN),
        *signing_secrets(pair),
    ]
    run = preflight(tmp_path, bench, manifests)
    assert run.returncode == 0, run.output
    assert outcomes(run, "kept") == ("falls through", "verified", "verified")
    assert module_of(run, "kept")["image"]["stored"] is False
    assert "(made in this run, not pushed)" in run.stdout
    assert copied_out(bench, "made/kept", tmp_path) == {}
    assert "local (auto" in run.document["builder"]


def test_a_compile_error_is_refuted_with_the_compiler_s_line(tmp_path: Path, bench: Workbench) -> None:
    sublevel = int(re.search(r"6\.1\.0-(\d+)", bench.old)[1])  # type: ignore[index]  # Debian's names are so
    newer = "#include <generated/utsrelease.h>\n#include <linux/string.h>\n"
    source = SOURCE.read_text().replace(
        "static int __init probe_init(void)\n{",
        "static int __init probe_init(void)\n{\n"
        f'\tif (__builtin_strcmp(UTS_RELEASE, "6.1.0-{sublevel}-amd64"))\n\t\treturn OLD_KERNEL_ONLY(delay_ms);',
    )
    source = newer + source
    manifests = build_module("broken", bench.new_image("broken"), bench.compile_dockerfile(source))
    run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert run.returncode == 1, run.output
    assert outcomes(run, "broken") == ("falls through", "failed", "not needed")
    line = "implicit declaration of function"
    assert any(line in text for text in finding(run, "broken", "build-failed")["lines"])
    for name in ("preflight.html", "junit_preflight.xml"):
        assert line in (tmp_path / "artifacts" / name).read_text()
    log = module_of(run, "broken")["stages"][1]["log"]
    assert line in (tmp_path / "artifacts" / log).read_text()
    assert f'href="{log}"' in (tmp_path / "artifacts/preflight.html").read_text()


def test_a_build_for_the_running_kernel_is_refuted_and_not_pushed(tmp_path: Path, bench: Workbench) -> None:
    base = bench.push_kmods(compile_kmod(bench.new), "good")
    manifests = build_module("today", bench.new_image("today"), bench.copy_dockerfile(base, installed="$(uname -r)"))
    run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert run.returncode == 1, run.output
    assert outcomes(run, "today") == ("falls through", "failed", "not needed")
    assert run.verdicts()["today"] == ("refuted", "image-not-found", "kmod-absent", "dockerfile-running-kernel")
    assert "KERNEL_FULL_VERSION" in finding(run, "today", "dockerfile-running-kernel")["remedy"]
    assert copied_out(bench, "made/today", tmp_path) == {}


def test_sections_that_cannot_be_built_are_refuted_before_a_build(tmp_path: Path, bench: Workbench) -> None:
    host = bench.registry.host

    def one(name: str, dockerfile: str, **more: Any) -> list[dict[str, Any]]:
        return build_module(name, bench.new_image(name), dockerfile, **more)

    manifests = [
        module("no-config-map", bench.new_image("x"), build={"dockerfileConfigMap": {"name": "nothing"}}),
        module("capital", bench.new_image("x"), build={"dockerfileConfigMap": {"name": "capital"}}),
        config_map("capital", "FROM scratch", key="Dockerfile"),
        *one("no-secret", bench.copy_dockerfile(), build={"secrets": [{"name": "nothing"}]}),
        *one("no-base", f"FROM {host}/base/nothing:1"),
        *one("no-name", "ARG BASE\nFROM ${BASE}"),
        *one("own-disk", "FROM oci:/var/lib/images:1"),
        *one("copied-from", f"FROM {bench.base}\nCOPY --from={host}/base/nothing:2 /a /b"),
        *build_module("digest", f"{host}/made/digest@sha256:{'0' * 64}", bench.copy_dockerfile()),
    ]
    run = preflight(tmp_path, bench, manifests)
    assert {name: verdict[:3] for name, verdict in run.verdicts().items()} == {
        "no-config-map": ("refuted", "image-not-found", "dockerfile-absent"),
        "capital": ("refuted", "image-not-found", "dockerfile-key"),
        "no-secret": ("refuted", "image-not-found", "build-secret-absent"),
        "no-base": ("refuted", "image-not-found", "base-image-absent"),
        "no-name": ("refuted", "image-not-found", "base-image-unresolved"),
        "own-disk": ("refuted", "image-not-found", "base-image-unresolved"),
        "copied-from": ("refuted", "image-not-found", "base-image-absent"),
        "digest": ("refuted", "image-not-found", "push-digest"),
    }
    assert not (tmp_path / "artifacts/logs").exists()


def test_a_missing_driver_toolkit_is_reported(tmp_path: Path, bench: Workbench) -> None:
    folder = write_manifests(
        tmp_path / "m", build_module("compiled", bench.new_image("unknown"), bench.compile_dockerfile())
    )
    run = run_preflight(tmp_path, f"--kernel={bench.new}", f"--manifests={folder}")
    assert run.verdicts()["compiled"][:3] == ("refuted", "image-not-found", "driver-toolkit-unknown")


def unsigned(bench: Workbench, name: str, *members: Member) -> str:
    """Push an image with the kmod where modprobe looks, or with these files. Return its name."""
    folder = f"opt/lib/modules/{bench.new}"
    inside = members or (Member(f"{folder}/{KMOD}.ko", compile_kmod(bench.new)),)
    made = image([layer(list(inside))], history=True)
    push(bench.registry, f"unsigned/{name}", "1", made)
    return f"{bench.registry.host}/unsigned/{name}:1"


def test_bad_keys_and_bad_files_to_sign_are_refuted(tmp_path: Path, bench: Workbench, pair: KeyPair) -> None:
    other, past = key_pair("other"), key_pair("past", days=-1)
    folder = f"opt/lib/modules/{bench.new}"
    source = unsigned(bench, "good")
    packed = unsigned(
        bench, "packed", Member(f"{folder}/{KMOD}.ko.xz", subprocess.check_output(["xz", "-c"], input=b"x"))
    )

    def one(name: str, sign: Mapping[str, Any], unsigned_image: str = source) -> dict[str, Any]:
        return module(name, bench.new_image(name), KMOD, sign={**SIGN, "unsignedImage": unsigned_image, **sign})

    manifests = [
        *signing_secrets(pair),
        opaque_secret("other-key", {"key": other.key}),
        opaque_secret("no-cert", {"certificate": pair.cert}),
        opaque_secret("text", {"key": b"no key", "cert": b"no certificate"}),
        opaque_secret("past-key", {"key": past.key}),
        opaque_secret("past-cert", {"cert": past.cert}),
        one("mismatch", {"keySecret": {"name": "other-key"}}),
        one("key-missing", {"certSecret": {"name": "no-cert"}}),
        one("secret-missing", {"keySecret": {"name": "nothing"}}),
        one("no-key", {"keySecret": {"name": "text"}}),
        one("no-certificate", {"certSecret": {"name": "text"}}),
        one("expired", {"keySecret": {"name": "past-key"}, "certSecret": {"name": "past-cert"}}),
        one("packed", {"filesToSign": [f"/{folder}/{KMOD}.ko.xz"]}, packed),
        one("absent", {"filesToSign": [f"/{folder}/nothing.ko"]}),
        one("no-files", {"filesToSign": []}),
        one("no-image", {}, f"{bench.registry.host}/unsigned/nothing:1"),
        one("none-given", {}, ""),
        one("glob", {"filesToSign": ["/opt/lib/modules/${KERNEL_FULL_VERSION}/*_pro?e.ko"]}),
    ]
    run = preflight(tmp_path, bench, manifests, "-n", "2")
    assert {name: verdict[:3] for name, verdict in run.verdicts().items()} == {
        "mismatch": ("refuted", "image-not-found", "sign-key-mismatch"),
        "key-missing": ("refuted", "image-not-found", "sign-secret-absent"),
        "secret-missing": ("refuted", "image-not-found", "sign-secret-absent"),
        "no-key": ("refuted", "image-not-found", "sign-key-invalid"),
        "no-certificate": ("refuted", "image-not-found", "sign-cert-invalid"),
        "expired": ("verified", "image-not-found", "sign-cert-expired"),
        "packed": ("refuted", "image-not-found", "files-to-sign-compressed"),
        "absent": ("refuted", "image-not-found", "files-to-sign-absent"),
        "no-files": ("refuted", "image-not-found", "files-to-sign-none"),
        "no-image": ("refuted", "image-not-found", "base-image-absent"),
        "none-given": ("refuted", "image-not-found", "sign-image-none"),
        "glob": ("verified", "image-not-found"),
    }
    for text in (path.read_text() for path in (tmp_path / "artifacts").rglob("*") if path.is_file()):
        assert "PRIVATE KEY" not in text


def test_a_signed_file_is_signed_again_with_a_warning(tmp_path: Path, bench: Workbench, pair: KeyPair) -> None:
    name = f"{bench.registry.host}/made/first:{bench.new}"
    sign = {**SIGN, "unsignedImage": unsigned(bench, "good")}
    first = [module("first", name, KMOD, sign=sign), *signing_secrets(key_pair("first"))]
    assert preflight(tmp_path / "1", bench, first, "--push-built-image").returncode == 0
    taken = f"{bench.registry.host}/made/first:{bench.new}"
    second = [
        module("second", bench.new_image("second"), KMOD, sign={**SIGN, "unsignedImage": taken}),
        *signing_secrets(pair),
    ]
    run = preflight(tmp_path / "2", bench, second, "--push-built-image")
    assert run.returncode == 0, run.output
    assert "CN=first" in finding(run, "second", "files-to-sign-signed")["sentence"]
    (kmod,) = copied_out(bench, "made/second", tmp_path).values()
    assert openssl_verifies(kmod, pair.cert, tmp_path)


def test_an_image_that_other_nodes_load_is_not_overwritten(tmp_path: Path, bench: Workbench) -> None:
    base = bench.push_kmods(compile_kmod(bench.new), "good")
    host = bench.registry.host

    def there(repository: str, tag: str, kernel: str) -> None:
        member = Member(f"opt/lib/modules/{kernel}/{KMOD}.ko", compile_kmod(bench.old))
        push(bench.registry, repository, tag, image([layer([member])]))

    there("taken/latest", "latest", "4.18.0-1.el8.x86_64")
    there("taken/shared", "6.1.0", bench.old)
    there("taken/own", bench.new, "nothing-here")
    manifests = [
        *build_module("latest", f"{host}/taken/latest:latest", bench.copy_dockerfile(base)),
        *build_module("shared", f"{host}/taken/shared:${{KERNEL_XYZ}}", bench.copy_dockerfile(base)),
        *build_module("new-latest", f"{host}/taken/new:latest", bench.copy_dockerfile(base)),
        *build_module("digest", f"{host}/taken/own@sha256:{'0' * 64}", bench.copy_dockerfile(base)),
    ]
    run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert {name: (verdict[0], verdict[-1]) for name, verdict in run.verdicts().items()} == {
        "latest": ("refuted", "push-refused"),
        "shared": ("refuted", "push-refused"),
        "new-latest": ("verified", "image-not-found"),
        "digest": ("refuted", "push-digest"),
    }
    assert bench.old in finding(run, "shared", "push-refused")["sentence"]
    two = manifests[:4]  # two Modules with their ConfigMaps
    allowed = preflight(tmp_path, bench, two, "--push-built-image", "--overwrite")
    assert allowed.returncode == 0, allowed.output
    assert outcomes(preflight(tmp_path, bench, two), "shared")[0] == "verified"


def test_two_modules_with_one_image_name_must_both_find_their_kmod(tmp_path: Path, bench: Workbench) -> None:
    base = bench.push_kmods(compile_kmod(bench.new), "good")
    there = Member(f"opt/lib/modules/{bench.new}/other.ko", compile_kmod(bench.new))
    push(bench.registry, "shared/name", bench.new, image([layer([there])]))
    name = f"{bench.registry.host}/shared/name:${{KERNEL_FULL_VERSION}}"
    manifests = [*build_module("maker", name, bench.copy_dockerfile(base)), module("other", name, "other")]
    run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert run.verdicts() == {"maker": ("refuted", "kmod-absent", "image-shared"), "other": ("verified",)}
    assert "shapes/other@" in finding(run, "maker", "image-shared")["sentence"]
    assert preflight(tmp_path, bench, manifests[2:]).returncode == 0  # the image was not changed


def test_a_kmod_that_files_to_sign_does_not_name_is_refuted(tmp_path: Path, bench: Workbench, pair: KeyPair) -> None:
    folder = f"opt/lib/modules/{bench.new}"
    kmod = compile_kmod(bench.new)
    source = unsigned(bench, "two", Member(f"{folder}/{KMOD}.ko", kmod), Member(f"kmods/{KMOD}.ko", kmod))
    sign = {**SIGN, "unsignedImage": source, "filesToSign": [f"/kmods/{KMOD}.ko"]}
    run = preflight(
        tmp_path, bench, [module("elsewhere", bench.new_image("elsewhere"), KMOD, sign=sign), *signing_secrets(pair)]
    )
    assert run.verdicts() == {"elsewhere": ("refuted", "image-not-found", "signature-missing")}
    assert f"/{folder}/{KMOD}.ko" in finding(run, "elsewhere", "signature-missing")["sentence"]


def test_invalid_names_and_texts_are_refused_and_write_no_file(tmp_path: Path, bench: Workbench) -> None:
    escaped = tmp_path / "escaped"
    up = "../" * 30 + str(escaped)[1:]
    manifests = [
        *build_module("key", bench.new_image("x"), bench.copy_dockerfile(), build={"secrets": [{"name": "key"}]}),
        opaque_secret("key", {up: b"a secret"}),
        *build_module(
            "name", bench.new_image("x"), bench.copy_dockerfile(), build={"secrets": [{"name": "../../trav"}]}
        ),
        *build_module("text", bench.new_image("x"), "FROM a\n# \ud800"),
        *build_module("empty", bench.new_image("x"), ""),
    ]
    run = preflight(tmp_path, bench, manifests)
    assert {name: (verdict[0], verdict[-1]) for name, verdict in run.verdicts().items()} == {
        "key": ("refuted", "source-invalid"),
        "name": ("refuted", "source-invalid"),
        "text": ("refuted", "source-invalid"),
        "empty": ("refuted", "dockerfile-absent"),
    }
    assert not escaped.exists()


def test_a_missing_command_is_a_failure_of_the_dockerfile(tmp_path: Path, bench: Workbench) -> None:
    manifests = build_module("missing", bench.new_image("missing"), bench.copy_dockerfile(step="no-such-command"))
    run = preflight(tmp_path, bench, manifests)
    assert run.verdicts()["missing"][:3] == ("refuted", "image-not-found", "build-failed")


def test_a_registry_that_answers_503_starts_no_build(tmp_path: Path, bench: Workbench) -> None:
    good = image([layer([Member(f"opt/lib/modules/{bench.new}/{KMOD}.ko", compile_kmod(bench.new))])])
    with FaultyRegistry({"team/kmod:v1": good}) as registry:
        registry.set_faults(Fault(MANIFESTS, status=503))
        manifests = build_module("busy", f"{registry.host}/team/kmod:v1", bench.copy_dockerfile())
        run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert run.returncode == 10, run.output
    assert outcomes(run, "busy") == ("undecided", "not needed", "not needed")
    assert not (tmp_path / "artifacts/logs").exists()
