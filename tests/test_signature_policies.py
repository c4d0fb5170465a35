"""Policies that require signatures of images: their scopes, and verdicts next to those of the client of nodes."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kmm_preflight.cluster.credentials import image_credentials
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import VERIFIED_HTTPS, Flavour, ModuleName, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.reference import LayoutReference, Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.oci.signature_policy import parse_signature_policies
from kmm_preflight.oci.sigstore import parse_payload
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.kept_files import keep_rules
from kmm_preflight.stages.signature_check import judge_policies

from .real.layout import Image, image, index, layer, write_layout
from .real.policy_judge import node_pulls
from .real.push import push
from .real.registry import Registry
from .real.sigstore import (
    PrivateKey,
    Signature,
    attachment,
    claims,
    public_pem,
    sign,
    tag_of,
)
from .runs import module, run_preflight, write_manifests
from .shapes import VERIFIED, Parts, refuted

KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA, ED25519 = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
WIDE = ec.generate_private_key(ec.SECP384R1())


def policy(
    *scopes: str, key: PrivateKey = KEY, namespace: str | None = None, name: str = "p", **more: Any
) -> dict[str, Any]:
    """Return a ClusterImagePolicy, or an ImagePolicy of a namespace. more: root, identity, version."""
    root = {"policyType": "PublicKey", "publicKey": {"keyData": base64.b64encode(public_pem(key)).decode()}}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body: dict[str, Any] = {"rootOfTrust": more.get("root", root)}
    if "identity" in more:
        body["signedIdentity"] = more["identity"]
    return {
        "apiVersion": f"config.openshift.io/{more.get('version', 'v1')}",
        "kind": "ImagePolicy" if namespace else "ClusterImagePolicy",
        "metadata": metadata,
        "spec": {"scopes": list(scopes), "policy": body},
    }


DIGEST = f"sha256:{'a' * 64}"
SCOPES = [
    ("q.io/a/b:t", ["q.io/a/b:t"], True),
    ("q.io/a/b:t", ["q.io/a/b"], True),
    ("q.io/a/b:t", ["q.io/a"], True),
    ("q.io/a/b:t", ["q.io"], True),
    ("q.io/a/b:t", ["q.io/a/b:u"], False),
    ("q.io/a/bc:t", ["q.io/a/b"], False),
    (f"q.io/a/b@{DIGEST}", [f"q.io/a/b@{DIGEST}"], True),
    (f"q.io/a/b:t@{DIGEST}", ["q.io/a/b:t"], False),
    ("q.io:5000/a/b:t", ["q.io:5000"], True),
    ("q.io:5000/a/b:t", ["q.io"], False),
    ("x.q.io:5000/a/b:t", ["*.q.io"], True),
    ("x.y.q.io/a/b:t", ["*.q.io"], True),
    ("q.io/a/b:t", ["*.q.io"], False),
    ("b:t", ["docker.io/library/b"], True),
    ("b:t", ["docker.io/library"], True),
]


@pytest.mark.parametrize(("name", "scopes", "matches"), SCOPES)
def test_scope_of_a_policy(name: str, scopes: Sequence[str], matches: bool) -> None:
    policies = parse_signature_policies([policy(*scopes)])
    assert bool(policies.required(Reference.parse(name), "ns")) is matches


OF_NAMESPACE = policy("q.io/a", name="of", namespace="ns")
PRECISION: dict[str, tuple[list[dict[str, Any]], str | None, list[str]]] = {
    "the most precise wins": ([policy("q.io", name="wide"), policy("q.io/a", name="near")], "ns", ["near"]),
    "all of one scope": ([policy("q.io/a", name="one"), policy("q.io/a", name="two")], "ns", ["one", "two"]),
    "of the namespace": ([policy("q.io/a", name="of", namespace="ns")], "ns", ["of"]),
    "of another namespace": ([policy("q.io/a", name="of", namespace="other")], "ns", []),
    "no Pod": ([policy("q.io/a", name="of", namespace="ns")], None, []),
    "no Pod, cluster": ([policy("q.io/a", name="all")], None, ["all"]),
    "equal to the cluster's": (
        [policy("q.io/a", name="all"), policy("q.io/a", name="of", namespace="ns")],
        "ns",
        ["all"],
    ),
    "inside the cluster's": ([policy("q.io", name="all"), policy("q.io/a", name="of", namespace="ns")], "ns", ["all"]),
    "inside a wildcard": ([policy("*.io", name="all"), policy("q.io/a", name="of", namespace="ns")], "ns", ["all"]),
    "around the cluster's": ([policy("q.io/a", name="all"), policy("q.io", name="of", namespace="ns")], "ns", ["all"]),
    "beside the cluster's": ([policy("q.io/z", name="all"), policy("q.io", name="of", namespace="ns")], "ns", ["of"]),
    "older version": ([policy("q.io/a", name="old", version="v1alpha1")], "ns", ["old"]),
}


@pytest.mark.parametrize("case", PRECISION)
def test_policy_that_counts(case: str) -> None:
    manifests, namespace, want = PRECISION[case]
    found = parse_signature_policies(manifests).required(Reference.parse("q.io/a/b:t"), namespace)
    assert [one.name.rpartition(" ")[2].rpartition("/")[2] for one in found] == want


NO_BASE64 = {"policyType": "PublicKey", "publicKey": {"keyData": "!"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scopes": None}, "ClusterImagePolicy p: spec.scopes: missing"),
        ({"policy": {}}, "spec.policy.rootOfTrust.policyType: missing"),
        (
            {"policy": {"rootOfTrust": {"policyType": "PublicKey", "publicKey": {"keyData": "!"}}}},
            "keyData: not base64",
        ),
    ],
)
def test_invalid_policy(changes: Mapping[str, Any], words: str) -> None:
    manifest = policy("q.io")
    manifest["spec"] |= changes
    with pytest.raises(UsageProblem) as caught:
        parse_signature_policies([manifest])
    assert words in caught.value.message


PLAN = Plan(
    ModuleName("ns", "m"), TargetKernel("k", "amd64", None, Flavour.STANDARD, None, ""), Reference.parse("q.io/a/b:t")
)


@pytest.mark.parametrize(
    ("version", "kind", "count"), [(None, "Module", 1), ("2.1", "Module", 0), ("2.1", "BootModuleConfig", 1)]
)
def test_kmm_s_own_client_knows_no_policies(version: str | None, kind: str, count: int) -> None:
    plan = Plan(ModuleName("ns", "m", kind), PLAN.kernel, PLAN.image)
    inventory = Inventory(image_policies=(policy("q.io"),))
    assert len(image_credentials(plan, inventory, None, version).policies) == count


@pytest.mark.parametrize(
    "payload",
    [
        b"no JSON",
        b"[]",
        b'{"critical": {}}',
        json.dumps({**claims("q.io/a", DIGEST), "more": 1}).encode(),
        json.dumps(claims("q.io/a", DIGEST, more=1)).encode(),
        json.dumps(claims("q.io/a", DIGEST, type="atomic container signature")).encode(),
        json.dumps({**claims("q.io/a", DIGEST), "optional": 5}).encode(),
        json.dumps(claims("q.io/a", DIGEST, image={})).encode(),
        b"[" * 100_000,
    ],
)
def test_invalid_payload(payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse_payload(payload)


BASE = image([layer([("opt/a", b"a")])])
ARM = image([layer([("opt/a", b"a")])], architecture="arm64")
BOTH = index([ARM, BASE])


@dataclass(frozen=True)
class Signed:
    """An image in the registry, with signatures by digest of a manifest."""

    made: Image
    """The image."""
    signatures: Mapping[str, Sequence[Signature]]
    """Signatures by digest."""


def _signed(name: str, *, key: PrivateKey = KEY, digest: str = BASE.digest, **more: Any) -> Signed:
    return Signed(BASE, {BASE.digest: [sign(key, claims(name, digest, **more))]})


def _images(repository: str) -> dict[str, Signed]:
    """Return images by tag. Each name in a signature is the image's own, if nothing else is said."""
    good = sign(KEY, claims(f"{repository}:two", BASE.digest))
    bad = sign(OTHER, claims(f"{repository}:two", BASE.digest))
    changed = Signature(good.payload.replace(b":two", b":three"), good.annotation)
    return {
        "plain": Signed(BASE, {}),
        "exact": _signed(f"{repository}:exact"),
        "bare": _signed(repository),
        "othertag": _signed(f"{repository}:v0"),
        "otherrepo": _signed(f"{repository}2:otherrepo"),
        "remapped": _signed(f"vendor.example/{repository.partition('/')[2]}:remapped"),
        "otherkey": _signed(f"{repository}:otherkey", key=OTHER),
        "otherdigest": _signed(f"{repository}:otherdigest", digest=ARM.digest),
        "listdigest": Signed(BOTH, {BOTH.digest: [sign(KEY, claims(f"{repository}:listdigest", BOTH.digest))]}),
        "childdigest": Signed(BOTH, {BASE.digest: [sign(KEY, claims(f"{repository}:childdigest", BASE.digest))]}),
        "listclaim": Signed(BOTH, {BASE.digest: [sign(KEY, claims(f"{repository}:listclaim", BOTH.digest))]}),
        "two": Signed(BASE, {BASE.digest: [bad, good]}),
        "changed": Signed(BASE, {BASE.digest: [changed]}),
        "unannotated": Signed(BASE, {BASE.digest: [Signature(good.payload, None)]}),
        "nobase64": Signed(BASE, {BASE.digest: [Signature(good.payload, "!!")]}),
        "attested": Signed(BASE, {BASE.digest: [replace(good, media_type="application/vnd.dsse.envelope.v1+json")]}),
        "extra": _signed(f"{repository}:extra", more="x"),
        "othertype": _signed(f"{repository}:othertype", type="atomic container signature"),
        "empty": Signed(BASE, {BASE.digest: []}),
        "rsa": _signed(f"{repository}:rsa", key=RSA),
        "ed25519": _signed(f"{repository}:ed25519", key=ED25519),
        "wide": _signed(f"{repository}:wide", key=WIDE),
    }


IDENTITIES: dict[str, dict[str, Any]] = {
    "default": {},
    "repository": {"identity": {"matchPolicy": "MatchRepository"}},
    "exact": {"identity": {"matchPolicy": "ExactRepository", "exactRepository": {"repository": "{repository}2"}}},
    "remap": {
        "identity": {
            "matchPolicy": "RemapIdentity",
            "remapIdentity": {"prefix": "{host}", "signedPrefix": "vendor.example"},
        }
    },
}
_JUDGED_BY = {
    "MatchRepoDigestOrExact": "matchRepoDigestOrExact",
    "MatchRepository": "matchRepository",
    "ExactRepository": "exactRepository",
    "RemapIdentity": "remapIdentity",
}
KEYS: dict[str, PrivateKey] = {"rsa": RSA, "ed25519": ED25519, "wide": WIDE}


def _policy_json(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return policy.json as the machine config operator writes it for these ClusterImagePolicies."""
    docker: dict[str, list[Any]] = {}
    for manifest in manifests:
        body = manifest["spec"]["policy"]
        identity = body.get("signedIdentity", {"matchPolicy": "MatchRepoDigestOrExact"})
        rule: dict[str, Any] = {"type": _JUDGED_BY[identity["matchPolicy"]]}
        if exact := identity.get("exactRepository"):
            rule["dockerRepository"] = exact["repository"]
        rule |= identity.get("remapIdentity", {})
        key = body["rootOfTrust"]["publicKey"]["keyData"]
        for scope in manifest["spec"]["scopes"]:
            docker.setdefault(scope, []).append({"type": "sigstoreSigned", "keyData": key, "signedIdentity": rule})
    return {"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": docker}}


@dataclass(frozen=True)
class Place:
    """A registry with signed images."""

    registry: Registry
    """The registry."""
    repository: str
    """host/path of all images."""
    images: Mapping[str, Signed]
    """The images by tag."""


@pytest.fixture(scope="module")
def place(plain_registry: Registry) -> Place:
    """Push each image into a repository of its own, because signatures are found by digest."""
    repository = f"{plain_registry.host}/signed"
    made: dict[str, Signed] = {}
    for tag in _images(repository):
        own = f"signed/{tag}"
        signed = _images(f"{plain_registry.host}/{own}")[tag]
        push(plain_registry, own, tag, signed.made)
        for digest, signatures in signed.signatures.items():
            push(plain_registry, own, tag_of(digest), attachment(signatures))
        made[tag] = signed
    return Place(plain_registry, repository, made)


def _pairs() -> Iterator[tuple[str, str, str]]:
    """Yield tag, identity rule, and `tag` or `digest` for the name of the image."""
    tags = _images("h/r")
    yield from itertools.product(tags, ["default"], ["tag"])
    yield from itertools.product(
        ["plain", "exact", "bare", "othertag", "otherkey", "childdigest"], ["default"], ["digest"]
    )
    for rule, many in {
        "repository": ["exact", "bare", "othertag", "otherrepo", "otherdigest"],
        "exact": ["exact", "otherrepo", "bare"],
        "remap": ["exact", "remapped", "bare"],
    }.items():
        yield from itertools.product(many, [rule], ["tag"])


def _filled(value: Any, **names: str) -> Any:
    return json.loads(json.dumps(value).replace("{repository}", names["repository"]).replace("{host}", names["host"]))


def _ours(name: str, manifests: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the id of the finding, or an empty text if nodes pull the image."""
    reference = Reference.parse(name)
    images = ImageResolver(Network(), Cache(folder / "cache"), None, keep_rules())
    opened = images.image(reference, "amd64", PullCredentials(), VERIFIED_HTTPS)
    required = parse_signature_policies(manifests).required(reference, "ns")
    found = judge_policies(required, opened, reference)
    return found.id if found else ""


@pytest.mark.parametrize(("tag", "rule", "by"), list(_pairs()))
def test_verdict_equals_the_node_s(place: Place, tmp_path: Path, tag: str, rule: str, by: str) -> None:
    repository = f"{place.registry.host}/signed/{tag}"
    name = f"{repository}:{tag}" if by == "tag" else f"{repository}@{place.images[tag].made.digest}"
    more = _filled(IDENTITIES[rule], repository=repository, host=place.registry.host)
    manifests = [policy(repository, key=KEYS.get(tag, KEY), **more)]
    found = _ours(name, manifests, tmp_path)
    assert found in ("", "image-signature-refused")
    assert (found == "") is node_pulls(tmp_path, name, _policy_json(manifests))


@pytest.mark.parametrize(
    ("scopes", "pulls"),
    [
        (["{host}"], False),
        (["{host}/signed"], False),
        (["{host}/signed/plain"], False),
        (["{host}/signed/plain:plain"], False),
        (["{host}/signed/plain:other"], True),
        (["{host}/sign"], True),
        (["127.0.0.1"], True),
        (["*.0.0.1"], False),
    ],
)
def test_scope_equals_the_node_s(place: Place, tmp_path: Path, scopes: list[str], pulls: bool) -> None:
    name = f"{place.registry.host}/signed/plain:plain"
    manifests = [policy(*(scope.format(host=place.registry.host) for scope in scopes))]
    assert (_ours(name, manifests, tmp_path) == "") is pulls
    assert node_pulls(tmp_path, name, _policy_json(manifests)) is pulls


@pytest.mark.parametrize("second", ["exact", "plain"])
def test_every_policy_of_a_scope_must_be_satisfied(place: Place, tmp_path: Path, second: str) -> None:
    name = f"{place.registry.host}/signed/exact:exact"
    scope = f"{place.registry.host}/signed/exact"
    manifests = [policy(scope), policy(scope, key=OTHER if second == "plain" else KEY, name="second")]
    pulls = second == "exact"
    assert (_ours(name, manifests, tmp_path) == "") is pulls
    assert node_pulls(tmp_path, name, _policy_json(manifests)) is pulls


PKI = {"policyType": "PKI", "pki": {"caRootsData": "", "pkiCertificateSubject": {"email": "a@b.c"}}}
FULCIO = {"policyType": "FulcioCAWithRekor", "fulcioCAWithRekor": {}}


def _rekor(key: PrivateKey) -> dict[str, Any]:
    encoded = base64.b64encode(public_pem(key)).decode()
    return {"policyType": "PublicKey", "publicKey": {"keyData": encoded, "rekorKeyData": encoded}}


OPEN = {
    "a rule of a later version": ("bare", None, "image-signature-open"),
    "Fulcio": ("exact", FULCIO, "image-signature-open"),
    "PKI": ("exact", PKI, "image-signature-open"),
    "PKI without a signature": ("plain", PKI, "image-signature-refused"),
    "Rekor": ("exact", _rekor(KEY), "image-signature-open"),
    "Rekor with another key": ("exact", _rekor(OTHER), "image-signature-refused"),
    "a key that cannot be read": (
        "exact",
        {"policyType": "PublicKey", "publicKey": {"keyData": base64.b64encode(b"no key").decode()}},
        "image-signature-open",
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_what_is_not_verified_is_undecided(place: Place, tmp_path: Path, case: str) -> None:
    tag, root, want = OPEN[case]
    name = f"{place.registry.host}/signed/{tag}:{tag}"
    more = {"root": root} if root else {"identity": {"matchPolicy": "MatchAsLater"}}
    assert _ours(name, [policy(place.registry.host, **more)], tmp_path) == want


def test_a_layout_has_no_signatures(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"q.io/a/b:t": BASE})
    images = ImageResolver(
        Network(), Cache(tmp_path / "cache"), LayoutReference(layout, None, archive=False), keep_rules()
    )
    reference = Reference.parse("q.io/a/b:t")
    opened = images.image(reference, "amd64", PullCredentials(), VERIFIED_HTTPS)
    required = parse_signature_policies([policy("q.io")]).policies
    found = judge_policies(required, opened, reference, images.replaces_registries)
    assert found
    assert found.id == "image-signature-open"
    assert judge_policies((), opened, reference, images.replaces_registries) is None


def test_a_run_refutes_what_nodes_refuse(
    place: Place, kernels: tuple[str, str], kmods: Mapping[str, bytes], tmp_path: Path
) -> None:
    old, new = kernels
    parts = Parts(new, old, kmods[new], kmods[old])
    made, host = parts.image(parts.good), place.registry.host
    for repository in ("run/signed", "run/unsigned", "run/free"):
        push(place.registry, repository, "v1", made)
    signed = sign(KEY, claims(f"{host}/run/signed:v1", made.digest))
    push(place.registry, "run/signed", tag_of(made.digest), attachment([signed]))
    modules = [module(name, f"{host}/run/{name}:v1") for name in ("signed", "unsigned", "free")]
    elsewhere = module("elsewhere", f"{host}/run/free:v1", namespace="other")
    manifests = [
        *modules,
        elsewhere,
        policy(f"{host}/run/signed", f"{host}/run/unsigned", name="all"),
        policy(f"{host}/run/free", namespace="other", name="of-other"),
    ]
    folder = write_manifests(tmp_path / "manifests", manifests)
    run = run_preflight(tmp_path, f"--kernel={new}", f"--manifests={folder}")
    refused = refuted("image-signature-refused")
    assert run.verdicts() == {"signed": VERIFIED, "unsigned": refused, "free": VERIFIED, "elsewhere": refused}, (
        run.output
    )
    assert run.returncode == 1
    sentence = run.sentences()["unsigned"]
    assert sentence.startswith(f"ClusterImagePolicy all requires a signature of image {host}/run/unsigned:v1")
    assert "ImagePolicy other/of-other requires" in run.sentences()["elsewhere"]


def test_an_image_policy_without_a_namespace_is_in_that_of_the_option(tmp_path: Path) -> None:
    manifest = policy("q.io", namespace="x")
    del manifest["metadata"]["namespace"]
    (tmp_path / "policy.json").write_text(json.dumps(manifest))
    inventory = read_manifests([str(tmp_path / "policy.json")], "ns", io.StringIO())
    policies = parse_signature_policies(inventory.image_policies)
    assert [len(policies.required(PLAN.image, namespace)) for namespace in ("ns", "other")] == [1, 0]
