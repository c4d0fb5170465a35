"""Builds and signings of images with an unusual config, of many files, and of several at a time with podman."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.real.build import need_buildah
from tests.real.kmod import compile_kmod
from tests.real.layout import DOCKER_LAYER, Blob, Image, Member, image, layer
from tests.real.push import push
from tests.real.registry import Registry
from tests.real.requirement import need_tool
from tests.real.skopeo import access, skopeo
from tests.runs import Run, module, run_preflight
from tests.workbench import KMOD, SIGN, KeyPair, Workbench, build_module, key_pair, shell_layer, signing_secrets


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
    return run_preflight(tmp_path, *bench.options(tmp_path / "manifests", manifests), *options, **more)


def with_config(made: Image, config: Mapping[str, object], history: object = None) -> Image:
    """Return the image with more fields in its config, and with another history."""
    body = json.loads(made.blobs[0].data)
    body["config"] |= config
    body |= {"history": history} if history is not None else {}
    blob = Blob(json.dumps(body).encode(), made.blobs[0].media_type)
    manifest = json.loads(made.manifest.data) | {"config": blob.descriptor()}
    return Image(Blob(json.dumps(manifest).encode(), made.manifest.media_type), [blob, *made.blobs[1:]])


def kmod_layer(bench: Workbench, *names: str) -> Blob:
    """Return a layer with the kmod under these names, where modprobe looks."""
    data = compile_kmod(bench.new)
    return layer([Member(f"opt/lib/modules/{bench.new}/{name}", data) for name in names])


def config_of(bench: Workbench, repository: str, tmp_path: Path) -> Mapping[str, Any]:
    """Return the config of a pushed image."""
    options = access(bench.registry, tmp_path / "auth.json", "")
    name = f"docker://{bench.registry.host}/{repository}:{bench.new}"
    result = skopeo("inspect", "--config", "--raw", *options, name)
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("history", [[], [{"created_by": "the first layer"}]], ids=["none", "of one layer"])
def test_a_base_image_without_a_whole_history_is_built_and_signed(
    tmp_path: Path, bench: Workbench, pair: KeyPair, history: list[object]
) -> None:
    base = with_config(image([shell_layer(compile_kmod(bench.new)), layer([])], history=True), {}, history)
    push(bench.registry, "base/history", str(len(history)), base)
    name = f"{bench.registry.host}/base/history:{len(history)}"
    image_name = bench.new_image(f"history-{len(history)}")
    manifests = [*build_module("built", image_name, bench.copy_dockerfile(name), sign=SIGN), *signing_secrets(pair)]
    run = preflight(tmp_path, bench, manifests)
    assert run.verdicts()["built"][0] == "verified", run.output


def test_many_files_are_signed_in_a_few_steps_and_docker_s_fields_are_kept(
    tmp_path: Path, bench: Workbench, pair: KeyPair
) -> None:
    names = [f"{KMOD}.ko", *(f"extra/copy ({number}).ko" for number in range(300))]
    check = {"Test": ["CMD", "true"], "Interval": 5_000_000_000}
    fields = {"Healthcheck": check, "Shell": ["/bin/sh", "-ec"], "OnBuild": ["ENV A=b"]}
    layers = [Blob(made.data, DOCKER_LAYER) for made in (shell_layer(b"none"), kmod_layer(bench, *names))]
    unsigned = with_config(image(layers, history=True, docker=True), fields)
    push(bench.registry, "unsigned/many", "1", unsigned)
    files = ["/opt/lib/modules/$KERNEL_FULL_VERSION/extra/*.ko", *SIGN["filesToSign"]]
    sign = {**SIGN, "unsignedImage": f"{bench.registry.host}/unsigned/many:1", "filesToSign": files}
    manifests = [module("many", bench.new_image("many"), KMOD, sign=sign), *signing_secrets(pair)]
    run = preflight(tmp_path, bench, manifests, "--push-built-image")
    assert run.verdicts()["many"][0] == "verified", run.output
    (log,) = (tmp_path / "artifacts").rglob("*.log")
    assert log.read_text().count("STEP") < 20
    config = config_of(bench, "made/many", tmp_path)["config"]
    assert {name: config.get(name) for name in fields} == fields


def test_podman_builds_several_images_at_a_time(tmp_path: Path, bench: Workbench) -> None:
    need_tool("podman", "apt-get install podman")
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("podman", "runc", "sh", "env", "mkdir", "git"):
        if path := shutil.which(program):
            (programs / program).symlink_to(path)
    dockerfile = bench.copy_dockerfile(bench.push_kmods(compile_kmod(bench.new), "podman"))
    # A stage without a step has the id of its base image, which the other builds use too.
    dockerfile = f"FROM {bench.base} AS tools\n{dockerfile}COPY --from=tools /bin/busybox /opt/busybox\nRUN sleep 0.5\n"
    manifests = [
        manifest
        for number in range(6)
        for manifest in build_module(f"m{number}", bench.new_image(f"podman-{number}"), dockerfile)
    ]
    run = preflight(tmp_path, bench, manifests, "--max-builds=6", "-n2", env={"PATH": str(programs)})
    assert {verdict[0] for verdict in run.verdicts().values()} == {"verified"}, run.output
