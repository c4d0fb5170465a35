"""KMM's rules as a table with one row for each case. $PREFLIGHT_CONFORMANCE names another table of this shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.credentials import Credentials, image_credentials
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Flavour, ModuleName, Outcome, RegistryTLS, Stage, StageResult, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.reference import LayoutReference, Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.container import parse_build, parse_container, parse_mapping, parse_sign
from kmm_preflight.planning.image_name import append_to_tag, intermediate_image
from kmm_preflight.planning.mapping import (
    NoMapping,
    choose_mapping,
    injected_args,
    merge,
    merge_build,
    merge_sign,
    override_args,
)
from kmm_preflight.planning.module import parse_module
from kmm_preflight.planning.plan import Build, Case, Plan, Sign, Unresolved
from kmm_preflight.planning.planner import make_plan, substituted_sign
from kmm_preflight.planning.template import image_variables, kernel_fields, kernel_variables, normalized, substitute
from kmm_preflight.release.driver_toolkit import kernel_of_flavour, parse_toolkit
from kmm_preflight.release.image_references import parse_image_references
from kmm_preflight.stages.image_check import judge_image
from kmm_preflight.stages.kept_files import keep_rules
from kmm_preflight.stages.rules import conclude, settle_build, settle_image, settle_sign
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.dialects import Dialect, StatusEntry, entry_of, initial_entries

from .real.layout import image, layer, write_layout

Row = Mapping[str, Any]
Answer = Callable[[Row, Path], object]

TABLE = Path(os.environ.get("PREFLIGHT_CONFORMANCE") or Path(__file__).with_name("conformance") / "kmm.yaml")
ROWS: list[Row] = yaml.safe_load(TABLE.read_text())
OURS = (Malformed, UsageProblem, NoMapping)
NAME = "registry.example/kmods/driver:v1"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\x3e\x00" + bytes(44)


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_row(row: Row, tmp_path: Path) -> None:
    if row["area"] not in AREAS:
        pytest.fail(f"area {row['area']}: got no adapter for it, expected one of {', '.join(AREAS)}")
    answer = AREAS[row["area"]]
    expect = row["ours"] if isinstance(row.get("ours"), dict) else row.get("expect")
    if isinstance(expect, dict) and "error" in expect:
        with pytest.raises(OURS):
            answer(row, tmp_path)
        return
    got = answer(row, tmp_path)
    if "expect_set" in row:
        assert isinstance(got, list)
        expect, got = row["expect_set"], dict(got)
    assert _tidy(_named(got, expect)) == _tidy(expect)


def _named(got: object, expect: object) -> object:
    """Return the parts of the answer that expect names. Sections of a merged result are compared by their fields."""
    if not isinstance(got, dict) or not isinstance(expect, dict):
        return got
    return {
        key: _named(got.get(key), value) if key in ("build", "sign", "entries") else got.get(key)
        for key, value in expect.items()
    }


def _tidy(value: object) -> object:
    """Return the value without empty parts below the top, and with arguments as pairs."""
    if isinstance(value, dict):
        tidied = {str(key): _tidy(part) for key, part in value.items()}
        return {key: part for key, part in tidied.items() if part not in (None, "", [], {}) and part is not False}
    if isinstance(value, (list, tuple)):
        return [_tidy(part) for part in _pairs(value)]
    return value if value is None or value is False else str(value)


def _pairs(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Return the list with its arguments as pairs."""
    return [[arg["name"], arg["value"]] if isinstance(arg, dict) and set(arg) == _ARG else arg for arg in value]


_ARG = {"name", "value"}


def _mapping(row: Row, _: Path) -> object:
    mappings = tuple(parse_mapping(Field(mapping)) for mapping in row["mappings"])
    return {"index": choose_mapping(mappings, str(row["kernel"]))}


def _inherit(row: Row, _: Path) -> object:
    container = parse_container(Field(_block(row, "container") or {}))
    merged = merge(container, parse_mapping(Field(_block(row, "mapping") or {})))
    return {
        "literal": merged.literal or "",
        "regexp": merged.regexp or "",
        "containerImage": merged.container_image or "",
        "registryTLS": _tls(merged.registry_tls),
        "build": _build(merged.build),
        "sign": _sign(merged.sign),
        "inTreeModuleToRemove": merged.in_tree_module_to_remove or "",
        "inTreeModulesToRemove": merged.in_tree_modules_to_remove,
        "modprobe": {"moduleName": container.module_name or "", "dirName": container.directory},
    }


def _block(row: Row, key: str) -> dict[str, Any] | None:
    """Return a section of the row, with pairs as the CRD's arguments."""
    block = row.get(key)
    if isinstance(block, dict) and isinstance(block.get("buildArgs"), list):
        args = [arg if isinstance(arg, dict) else {"name": arg[0], "value": arg[1]} for arg in block["buildArgs"]]
        return {**block, "buildArgs": args}
    return block


def _tls(tls: RegistryTLS | None) -> dict[str, bool]:
    return {"insecure": tls.insecure, "insecureSkipTLSVerify": tls.insecure_skip_tls_verify} if tls else {}


def _named_object(name: str | None) -> dict[str, str] | None:
    return None if name is None else {"name": name}


def _build(build: Build | None) -> dict[str, Any] | None:
    """Return the section in the CRD's spelling."""
    if build is None:
        return None
    return {
        "dockerfileConfigMap": _named_object(build.dockerfile_config_map),
        "buildArgs": [{"name": name, "value": value} for name, value in build.build_args],
        "secrets": [{"name": name} for name in build.secrets],
        "selector": dict(build.selector),
        "baseImageRegistryTLS": _tls(build.base_image_registry_tls),
    }


def _sign(sign: Sign | None) -> dict[str, Any] | None:
    """Return the section in the CRD's spelling."""
    if sign is None:
        return None
    return {
        "unsignedImage": sign.unsigned_image,
        "keySecret": _named_object(sign.key_secret),
        "certSecret": _named_object(sign.cert_secret),
        "filesToSign": list(sign.files_to_sign),
        "unsignedImageRegistryTLS": _tls(sign.unsigned_image_registry_tls),
    }


def _template(row: Row, _: Path) -> object:
    kernel = str(row.get("kernel", ""))
    if "template" not in row:
        return image_variables(kernel, **_module(row)) if "module" in row else kernel_variables(kernel)
    template, field = row["template"], row.get("field", "containerImage")
    if "vars" in row:
        return {"value": substitute(template, {name: str(value) for name, value in row["vars"].items()})}
    if "containerImage" in field:
        return {"value": substitute(template, image_variables(kernel, **_module(row)))}
    sign = substituted_sign(Sign(unsigned_image=template, files_to_sign=(template,)), kernel)
    if sign and "unsignedImage" in field:
        return {"value": sign.unsigned_image or ""}
    if sign and "filesToSign" in field:
        return {"value": sign.files_to_sign[0]}
    return {"value": _through_a_plan(template, field, kernel, _module(row))}


def _module(row: Row) -> dict[str, str]:
    module = row.get("module") or {}
    return {"namespace": module.get("namespace", ""), "name": module.get("name", "")}


def _through_a_plan(template: str, field: str, kernel: str, module: Mapping[str, str]) -> object:
    """Return the value in the plan of a field that KMM does not change. Other fields have no place in a plan."""
    path = field.removeprefix("spec.").removeprefix("moduleLoader.").removeprefix("container.").split(".")
    content: object = template
    for part in reversed(path):
        name = part.removesuffix("[]")
        content = {name: [content] if part.endswith("[]") else content}
    assert isinstance(content, dict)
    mapping = {"literal": kernel, "containerImage": NAME}
    plan = _planned({**content, "kernelMappings": [mapping]}, kernel, ModuleName(**module))
    assert isinstance(plan, Plan)
    here: object = {
        "build": _build(plan.build),
        "sign": _sign(plan.sign),
        "modprobe": {"moduleName": plan.kmod, "dirName": plan.directory},
    }
    for part in path:
        if not isinstance(here, dict) or part.removesuffix("[]") not in here:
            return template
        here = here[part.removesuffix("[]")]
        here = here[0] if part.endswith("[]") and isinstance(here, list) else here
    return here


def _planned(container: dict[str, Any], kernel: str, name: ModuleName, secret: str | None = None) -> Case:
    manifest = {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "metadata": {"name": "m", "namespace": "ns"},
        "spec": {
            "selector": {},
            "imageRepoSecret": {"name": secret},
            "moduleLoader": {"container": {"modprobe": {"moduleName": "m"}, **_complete(container)}},
        },
    }
    module = parse_module(manifest, "")
    assert module.container
    case = make_plan(module, module.container, TargetKernel(kernel, "amd64", None, Flavour.STANDARD, None, "the row"))
    return replace(case, module=name)


def _complete(container: dict[str, Any]) -> dict[str, Any]:
    """Return the sections with the fields that the CRD requires."""
    required: dict[str, dict[str, Any]] = {
        "build": {"dockerfileConfigMap": {"name": "d"}},
        "sign": {"keySecret": {"name": "k"}, "certSecret": {"name": "c"}},
        "modprobe": {"moduleName": "m"},
    }
    filled = {key: {**least, **container[key]} for key, least in required.items() if key in container}
    for arg in filled.get("build", {}).get("buildArgs", []):
        arg.setdefault("name", "n")
        arg.setdefault("value", "v")
    return {**container, **filled}


def _normalize(row: Row, _: Path) -> object:
    return {"value": normalized(str(row["in"]))}


def _merge_build(row: Row, _: Path) -> object:
    container, mapping = (parse_build(Field(_block(row, key))) for key in ("container", "mapping"))
    return _build(merge_build(container, mapping))


def _merge_sign(row: Row, _: Path) -> object:
    container, mapping = (parse_sign(Field(row.get(key))) for key in ("container", "mapping"))
    merged = merge_sign(container, mapping)
    return _sign(substituted_sign(merged, str(row["kernel"])) if "kernel" in row else merged)


def _build_args(row: Row, _: Path) -> object:
    args, overrides = (tuple((str(n), str(v)) for n, v in _pairs(row.get(key) or [])) for key in ("args", "overrides"))
    merged = override_args(args, overrides)
    if "kernel" in row:
        merged = injected_args(merged, str(row["kernel"]), ModuleName(**_module(row)))
    return [[name, value] for name, value in merged]


def _image_name(row: Row, _: Path) -> object:
    match row["op"]:
        case "append_to_tag":
            return {"value": append_to_tag(row["name"], row["tag"])}
        case "intermediate":
            return {"value": intermediate_image(row["image"], ModuleName(**_module(row)))}
        case op:
            pytest.fail(f"op {op}: got no adapter for it")


def _ko_path(row: Row, _: Path) -> object:
    kernel = TargetKernel(str(row["kernel"]), "amd64", None, Flavour.STANDARD, None, "")
    modprobe = {key: row[key] for key in ("dirName", "moduleName") if key in row}
    container = parse_container(Field({"modprobe": modprobe}))
    plan = Plan(
        ModuleName("ns", "m"), kernel, Reference.parse(NAME), kmod=container.module_name, directory=container.directory
    )
    return {"path": f"{plan.folder}/{plan.kmod}.ko"}


# The finding for each fault, by a word in the fault's name.
_FAULTS = {
    "mapping": "no-mapping",
    "template": "name-unresolved",
    "layer": "image-unreadable",
    "auth": "credentials-invalid",
    "secret": "credentials-invalid",
    "manifest": "image-not-found",
    "digest": "image-not-found",
    "image": "image-not-found",
    "ko": "kmod-absent",
}


def _verify_image(row: Row, folder: Path) -> object:
    fault = next((word for word in _FAULTS if word in str(row.get("fault", ""))), "")
    if row.get("fault") and not fault:
        pytest.fail(f"fault {row['fault']}: got no adapter for it")
    judged = _judged(row, fault, folder)
    if fault:
        assert [finding.id for finding in judged.findings] == [_FAULTS[fault]]
    return {"ok": judged.outcome is Outcome.VERIFIED}


def _judged(row: Row, fault: str, folder: Path) -> StageResult:
    """Return the result of the image stage for a real layout with the row's content."""
    kmod, kernel = row.get("moduleName", "simple-kmod"), str(row.get("kernel", ""))
    kernel = kernel if "." in kernel else "5.14.0-570.el9.x86_64"  # KMM's tests have words, of which it makes no image
    container = {
        "kernelMappings": [
            {
                "literal": "another" if fault == "mapping" else kernel,
                "containerImage": "${KERNEL" if fault == "template" else NAME,
            }
        ],
        "modprobe": {"moduleName": kmod, "dirName": row.get("dirName", "/opt")},
    }
    plan = _planned(container, kernel, ModuleName("ns", "m"), secret="s")
    if isinstance(plan, Unresolved):
        return settle_image(plan, lambda _: pytest.fail("there is no image to judge"))
    names = row["layers"] if isinstance(row.get("layers"), list) else list(range(row.get("layers", 2)))
    hit = None if fault == "ko" else row.get("hit_layer", 0 if fault else None)
    # Layers have names or numbers from 0, base first. A number that is too large counts from 1.
    if isinstance(hit, bool) or not isinstance(hit, int):
        hit = names.index(hit) if hit in names and hit is not False else -1
    hit = min(hit, len(names) - 1)
    blobs = [
        layer([(f"{plan.folder}/{kmod}.ko", ELF) if number == hit else (f"etc/{number}", b"")])
        for number in range(len(names))
    ]
    layout = write_layout(
        folder / "layout", {"another:v1" if _FAULTS.get(fault) == "image-not-found" else NAME: image(blobs)}
    )
    if fault == "layer":
        for blob in blobs:
            (layout / "blobs/sha256" / blob.digest.partition(":")[2]).unlink()
    images = ImageResolver(
        Network(),
        Cache(folder / "cache"),
        LayoutReference(layout, None, archive=False),
        keep_rules(kmods=frozenset([kmod.replace("-", "_")])),
    )
    secret = (
        {"data": {".dockerconfigjson": "no base64"}}
        if fault in ("auth", "secret")
        else {"stringData": {".dockerconfigjson": '{"auths": {}}'}}
    )
    credentials: Credentials = image_credentials(plan, Inventory(secrets={("ns", "s"): secret}), None)
    return judge_image(plan, images, credentials)


def _flow(row: Row, _: Path) -> object:
    kernel = TargetKernel("K", "amd64", None, Flavour.STANDARD, None, "")
    plan = Plan(
        ModuleName("ns", "m"), kernel, Reference.parse(NAME), build=Build() if row.get("build") else None,
        sign=Sign() if row.get("sign") else None,
    )  # fmt: skip
    image_result = settle_image(plan, lambda _: _result(Stage.IMAGE, row["image_ok"]))
    build = settle_build(plan, image_result, lambda _: _result(Stage.BUILD, row.get("build_ok")))
    sign = settle_sign(plan, image_result, build, lambda _: _result(Stage.SIGN, row.get("sign_ok")))
    results = {result.stage: result for result in (image_result, build, sign)}
    verdict = conclude(plan, results)
    return {
        "ok": verdict.conclusion is Conclusion.VERIFIED,
        "message_from": verdict.stage.value.lower(),
        "stages": [stage.value for stage, result in results.items() if result.outcome is not Outcome.NOT_NEEDED],
    }


def _result(stage: Stage, good: object) -> StageResult:
    return StageResult(stage, Outcome.VERIFIED if good else Outcome.FAILED, f"of {stage.value}")


def _release(row: Row, _: Path) -> object:
    if "tags" in row:
        tags = [{"name": name, "from": spec if spec is None else {"name": spec}} for name, spec in row["tags"] or []]
        document = {"kind": "ImageStream", "metadata": {"name": "4.99.0"}, "spec": {"tags": tags}}
        return {"dtk": parse_image_references(Field(document), NAME)[1]["driver-toolkit"]}
    named = parse_toolkit(Field(row["dtk_json"]))
    kernel = kernel_of_flavour(named, Flavour.RT if row.get("useRTKernel") else Flavour.STANDARD)
    # Next to rt, kernel is the JSON's standard kernel. Otherwise it is the requested kernel.
    return {"kernel": named.standard if "rt" in row["expect"] else kernel, "rt": named.rt, "rhel": named.rhel_version}


def _status(row: Row, _: Path) -> object:
    if "verified" in row:
        conclusion = Conclusion.VERIFIED if row["verified"] else Conclusion.REFUTED
        plan = Plan(
            ModuleName("ns", "m"), TargetKernel("K", "amd64", None, Flavour.STANDARD, None, ""), Reference.parse(NAME)
        )
        entry = entry_of(Verdict(plan, conclusion, Stage.IMAGE, "reason"), Dialect.MAP)
        return _entry(entry) if entry else None
    new = row.get("new") or []
    before = {
        name: stage["verificationStage"] if isinstance(stage, dict) else stage
        for name, stage in (row.get("before") or {}).items()
        if name not in new
    }
    entries, removed = initial_entries(before, [*(row.get("existing") or []), *new])
    return _as_asked(row["expect"], entries, removed)


def _entry(entry: StatusEntry) -> dict[str, str | None]:
    return {
        "verificationStatus": entry.verification_status,
        "verificationStage": entry.verification_stage,
        "statusReason": entry.reason or "",
    }


def _as_asked(expect: Mapping[str, Any], entries: Mapping[str, StatusEntry], removed: set[str]) -> dict[str, Any]:
    """Return the entries in the form of the row: by Module or under `entries`, with or without the status."""

    def shown(name: str, wanted: object) -> object:
        if name not in entries:
            return None
        entry = _entry(entries[name])
        match wanted:
            case str():
                return entry["verificationStage"]
            case list():
                return [entry["verificationStatus"], entry["verificationStage"]]
            case dict():
                return {key: entry.get(key) or entry.get(f"verification{key.capitalize()}") for key in wanted}
            case _:
                return entry

    asked = expect.get("entries", {key: value for key, value in expect.items() if key != "removed"})
    shown_entries: dict[str, Any] = {name: shown(name, wanted) for name, wanted in asked.items()}
    gone = sorted(removed) if isinstance(expect.get("removed", []), list) else next(iter(removed), None)
    rest = {"removed": gone}
    return {"entries": shown_entries, **rest} if "entries" in expect else {**shown_entries, **rest}


def _module_valid(row: Row, _: Path) -> object:
    container = {
        "kernelMappings": row.get("mappings") or [row.get("mapping", {"regexp": "^.+$", "containerImage": NAME})],
        "modprobe": row.get("modprobe", {"moduleName": "m"}),
        **(row.get("container") or {}),
    }
    metadata = {"name": "m", "namespace": "ns"}
    spec = {"selector": {}, "moduleLoader": {"container": container}}
    return _valid(
        lambda: parse_module({"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "metadata": metadata, "spec": spec}, "")
    )


def _kernel_valid(row: Row, _: Path) -> object:
    return _valid(lambda: kernel_fields(str(row["kernelVersion"] or "")))


def _valid(check: Callable[[], object]) -> object:
    try:
        check()
    except Malformed:
        return {"valid": False}
    return {"valid": True}


AREAS: dict[str, Answer] = {
    "mapping": _mapping,
    "inherit": _inherit,
    "template": _template,
    "normalize": _normalize,
    "merge-build": _merge_build,
    "merge-sign": _merge_sign,
    "build-args": _build_args,
    "image-name": _image_name,
    "ko-path": _ko_path,
    "verify-image": _verify_image,
    "flow": _flow,
    "release": _release,
    "status": _status,
    "module": _module_valid,
    "kernel": _kernel_valid,
}
