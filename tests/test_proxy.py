"""proxy.config.openshift.io/cluster: CAs trusted for every registry, and the proxy for requests to registries."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fixtures.options import parsers
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.cluster.manifests import read_manifests
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.oci.authorities import authorities
from kmm_preflight.oci.cluster_proxy import with_cluster_proxy
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.proxy import Proxy, is_reached_directly
from tests import clusters
from tests.clusters import namespaces, openshift, requests_of, serve
from tests.demo import GREEN, KERNEL, RELEASE, demo_images
from tests.real.authority import Authority
from tests.real.faults import FaultyRegistry
from tests.real.kubernetes.cluster import Cluster
from tests.real.layout import Image, Member, image, layer
from tests.real.proxy import ForwardProxy
from tests.runs import Run, module, run_preflight, write_manifests
from tests.shapes import VERIFIED
from tests.test_secrets import Watch, watching

USER, PASSWORD = "pr0xy-us3r-91ab", "p@ss/w0rd #é-5f1c77"
LOGIN = f"{quote(USER)}:{quote(PASSWORD, safe='')}"
HOSTS = ("quay.io", "registry.example")
UNTRUSTED = ("undecided", "registry-untrusted")
UNREACHABLE = ("undecided", "registry-unreachable")
GOOD = image([layer([Member(f"opt/lib/modules/{KERNEL}/probe.ko", b"\x7fELF" + bytes(96))])])
EXPECTED = "expected http://HOST:PORT or https://HOST:PORT"
BUNDLE = "ca-bundle.crt"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of a company. Its registry has public host names too."""
    return Authority(tmp_path_factory.mktemp("authority"), *HOSTS)


@pytest.fixture(scope="module")
def registry(authority: Authority) -> Iterator[FaultyRegistry]:
    """A registry with release, driver toolkit and images of the demo, and another image."""
    with FaultyRegistry({**dict(_named(demo_images())), "team/kmod:v1": GOOD}, authority=authority) as registry:
        yield registry


def _named(images: Mapping[str, Image]) -> Iterator[tuple[str, Image]]:
    for name, made in images.items():
        path = name.partition("/")[2]
        yield (f"{path.partition('@')[0]}:any" if "@" in path else path), made


@pytest.fixture
def forward(registry: FaultyRegistry) -> Iterator[ForwardProxy]:
    """A proxy with a login. Only this proxy knows the addresses of the public host names."""
    with ForwardProxy((USER, PASSWORD), places={f"{host}:443": registry.host for host in HOSTS}) as forward:
        yield forward


def proxy_object(**sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of proxy/cluster."""
    return {**openshift("Proxy", "cluster", {}), **sections}


def config_map(name: str, text: str, key: str = BUNDLE, part: str = "data") -> dict[str, Any]:
    """Return a ConfigMap of openshift-config."""
    metadata = {"namespace": "openshift-config", "name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, part: {key: text}}


def trusting(authority: Authority, **status: str) -> list[dict[str, Any]]:
    """Return the proxy object of a cluster that trusts the CA, and its ConfigMap."""
    proxy = proxy_object(spec={"trustedCA": {"name": "company"}}, status=status)
    return [proxy, config_map("company", authority.ca.read_text())]


def sentence(host: str) -> str:
    """Return the note about the cluster's proxy."""
    return (
        f"requests to registries use the proxy {host} of proxy.config.openshift.io cluster, since the environment "
        "sets no proxy (NO_PROXY=* switches it off)"
    )


def run(tmp_path: Path, image_name: str, manifests: list[dict[str, Any]], env: Mapping[str, str] | None = None) -> Run:
    """Run the suite on one Module."""
    folder = write_manifests(tmp_path / "manifests", [module("kmod", image_name), *manifests])
    return run_preflight(tmp_path, f"--kernel={KERNEL}", f"--manifests={folder}", "-n0", env=env)


def encoded(text: str) -> str:
    """Return the text in base64."""
    return base64.b64encode(text.encode()).decode()


# Servers, NO_PROXY, and whether the server is reached without a proxy.
REACHED_DIRECTLY = """
r.io                     |                                | no
r.io                     | r.io                           | yes
R.io                     | r.IO                           | yes
r.io:5000                | r.io                           | yes
r.io                     | .r.io                          | yes
a.r.io                   | r.io                           | yes
a.b.r.io:5000            | .r.io                          | yes
a.r.io                   | *.r.io                         | yes
bar.io                   | r.io                           | no
r.io                     | a.r.io                         | no
r.io                     | s.io, r.io                     | yes
r.io                     | s.io,,r.io,                    | yes
r.io                     | *                              | yes
r.io                     | s.io,*                         | yes
r.io                     | ., ,*.                         | no
r.io:5000                | r.io:5000                      | yes
r.io:5000                | r.io:5001                      | no
r.io                     | r.io:5000                      | no
r.io                     | r.io:443                       | yes
a.r.io:5000              | .r.io:5000                     | yes
registry.openshift-image-registry.svc:5000         | .cluster.local,.svc  | yes
registry.openshift-image-registry.svc.cluster.local | .cluster.local,.svc | yes
svc.io                   | .cluster.local,.svc            | no
10.0.3.4                 | 10.0.0.0/16                    | yes
10.0.3.4:5000            | 127.0.0.1,10.0.0.0/16,.svc     | yes
10.1.3.4                 | 10.0.0.0/16                    | no
10.0.3.4                 | 10.0.3.4                       | yes
10.0.3.4                 | 10.0.3.9/16                    | yes
10.0.3.4:5000            | 10.0.3.4:5000                  | yes
10.0.3.4                 | 10.0.3.4:5000                  | no
10.0.3.40                | 10.0.3.4                       | no
[fd00::1]:5000           | fd00::/8                       | yes
[fd00::1]:5000           | fd00::1                        | yes
[fd00::1]:5000           | [fd00::1]:5000                 | yes
[fd00::1]:5000           | [fd00::1]:5001                 | no
[fd00::1]                | 10.0.0.0/8                     | no
r.io                     | 10.0.0.0/8                     | no
"""


@pytest.mark.parametrize("row", REACHED_DIRECTLY.strip().splitlines())
def test_servers_that_are_reached_without_the_proxy(row: str) -> None:
    server, entries, want = (cell.strip() for cell in row.split("|"))
    assert is_reached_directly(server, entries) is (want == "yes")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("http://host:3128", Proxy("host:3128")),
        ("HTTPS://host/", Proxy("host", secure=True)),
        ("http://[fd00::1]:3128", Proxy("[fd00::1]:3128")),
        (f"http://{LOGIN}@host:3128", Proxy("host:3128", login=f"{USER}:{PASSWORD}".encode())),
        ("http://u@host", Proxy("host", login=b"u:")),
        ("http://:p@host", Proxy("host", login=b":p")),
        ("http://u:p@w@host", Proxy("host", login=b"u:p@w")),
        ("http://:@host", Proxy("host")),
    ],
)
def test_proxy_url(text: str, want: Proxy) -> None:
    proxy = Proxy.parse(text)
    assert proxy == want
    assert proxy.url == f"http{'s' * want.secure}://{want.host}"
    assert PASSWORD not in repr(proxy)


@pytest.mark.parametrize("separator", ["/", "?", "#"])
def test_a_password_with_a_separator_is_not_parsed_as_a_port(separator: str) -> None:
    with pytest.raises(Malformed) as caught:
        Proxy.parse(f"http://u:455{separator}p@host:3128")
    assert caught.value.message.startswith("the address has an @ after its host ")
    assert "455" not in caught.value.message


BAD: dict[str, tuple[object, str]] = {
    "no scheme": ({"httpsProxy": f"{LOGIN}@host:1"}, "status.httpsProxy: the scheme is not http or https"),
    "another scheme": (
        {"httpsProxy": f"socks5://{LOGIN}@host:1"},
        "status.httpsProxy: the scheme is not http or https",
    ),
    "no port": (
        {"httpsProxy": f"http://{LOGIN}@host:x"},
        "status.httpsProxy: the address has an invalid host or port",
    ),
    "half a character": ({"httpsProxy": "http://u:\ud800@host"}, "status.httpsProxy: the address is not valid text"),
    "a mapping": ({"httpsProxy": {"u": PASSWORD}}, "status.httpsProxy: the value is not text"),
    "a list": ({"httpsProxy": "http://host", "noProxy": [PASSWORD]}, "status.noProxy: the value is not text"),
    "no status": (f"http://{LOGIN}@host", "status: the value is not a mapping"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_proxy_is_reported_without_its_value(name: str) -> None:
    status, want = BAD[name]
    proxy = {"spec": {}, "status": status}
    with pytest.raises(UsageProblem) as caught:
        with_cluster_proxy(Network(), proxy, {})
    assert caught.value.message.startswith(f"proxy.config.openshift.io cluster, {want}")
    assert not any(text in caught.value.message for text in (PASSWORD, LOGIN, USER))
    # If the environment sets a proxy, the cluster's object is not read, so its errors do not count.
    network = Network(proxies={"no": "*"})
    assert with_cluster_proxy(network, proxy, {}) == (network, ())


def test_a_proxy_in_manifests(tmp_path: Path) -> None:
    proxy = proxy_object(status={"httpsProxy": f"http://{USER}:****@host:3128"})
    listed = {"apiVersion": "config.openshift.io/v1", "kind": "ProxyList", "items": [proxy]}
    another = [{**proxy, "metadata": {"name": "other"}}, {**proxy, "apiVersion": "example.io/v1"}]
    (tmp_path / "proxies.json").write_text(json.dumps([listed, *another]))
    inventory = read_manifests([str(tmp_path)], "default", io.StringIO())
    assert inventory.proxy == proxy
    assert USER not in repr(inventory)
    network, notes = with_cluster_proxy(Network(), inventory.proxy, {})
    elided = "; its password is elided there, so set HTTPS_PROXY"
    assert (network.proxies["https"], notes) == (proxy["status"]["httpsProxy"], (sentence("host:3128") + elided,))
    unlike = {**proxy, "status": {"httpsProxy": f"http://{LOGIN}@host:3128"}}
    (tmp_path / "again.json").write_text(json.dumps(unlike))
    with pytest.raises(UsageProblem, match=r"Proxy cluster exists twice with different contents; keep one of them$"):
        read_manifests([str(tmp_path)], "default", io.StringIO())
    assert Inventory().proxy is None


def test_authorities_of_a_config_map(authority: Authority) -> None:
    pem = authority.ca.read_text().strip() + "\n"
    broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    latin = base64.b64encode(f"# Autorité\n{pem}".encode("latin-1")).decode()
    data: dict[str, object] = {
        "plain": pem,
        "windows": pem.replace("\n", "\r\n"),
        "comment": f"# Főtanúsítvány, 公司\n{pem}\nthe end",
        "two": f"{pem}{broken}{pem}",
        "once more": encoded(pem),
        "broken": broken,
        "not ASCII": broken.replace("MIIB", "MÏIB"),
        "none": "no PEM",
        "empty": "",
        "number": 5,
        "key": pem.replace("CERTIFICATE", "PRIVATE KEY"),
    }
    pem_by_key = authorities({"data": data, "binaryData": {"binary": encoded(pem), "latin": latin, "no base64": "é"}})
    assert pem_by_key.pop("windows").replace("\r\n", "\n") == pem
    assert pem_by_key == {"plain": pem, "comment": pem, "two": pem * 2, "once more": pem, "binary": pem, "latin": pem}
    assert authorities({"data": "text"}) == {}


def test_registry_ca_with_comments_in_any_language(tmp_path: Path, authority: Authority) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Főtanúsítvány\n{authority.ca.read_text()}")
    assert parsers.authorities(str(bundle)) == bundle
    with FaultyRegistry({"team/kmod:v1": GOOD}, authority=authority) as registry:
        folder = write_manifests(tmp_path / "manifests", [module("kmod", f"{registry.host}/team/kmod:v1")])
        options = [f"--kernel={KERNEL}", f"--manifests={folder}", f"--registry-ca={bundle}", "-n0"]
        assert run_preflight(tmp_path, *options).verdicts() == {"kmod": VERIFIED}


# The manifests besides the Module, whether its registry is trusted, and the assumptions; @ means the PEM of the CA.
COMPANY = {"spec": {"trustedCA": {"name": "company"}}}
NO_CA = "no CA is trusted from ConfigMap openshift-config/company"
TRUST: dict[str, tuple[list[dict[str, Any]], bool, list[str]]] = {
    "nothing": ([], False, []),
    "no trustedCA": ([proxy_object(), config_map("company", "@")], False, []),
    "trustedCA": ([proxy_object(**COMPANY), config_map("company", "@")], True, []),
    "the bundle of the installation, which is named": (
        [proxy_object(spec={"trustedCA": {"name": "user-ca-bundle"}}), config_map("user-ca-bundle", "@")],
        True,
        [],
    ),
    "the bundle of the installation, which is not named": (
        [proxy_object(spec={"trustedCA": {"name": ""}}), config_map("user-ca-bundle", "@")],
        True,
        [],
    ),
    "not given": (
        [proxy_object(**COMPANY)],
        False,
        [f"{NO_CA}, the trustedCA of proxy.config.openshift.io cluster: it was not given"],
    ),
    "no PEM": (
        [proxy_object(**COMPANY), config_map("company", "no PEM")],
        False,
        [f"{NO_CA}: its ca-bundle.crt has no PEM certificate"],
    ),
    "another key": (
        [proxy_object(**COMPANY), config_map("company", "@", key="ca.crt")],
        False,
        [f"{NO_CA}: its ca-bundle.crt has no PEM certificate"],
    ),
}


@pytest.mark.parametrize("name", TRUST)
def test_trusted_authorities(tmp_path: Path, registry: FaultyRegistry, authority: Authority, name: str) -> None:
    manifests, trusted, assumed = TRUST[name]
    whole = json.loads(json.dumps(manifests).replace('"@"', json.dumps(authority.ca.read_text())))
    done = run(tmp_path, f"{registry.host}/team/kmod:v1", whole)
    assert done.verdicts() == {"kmod": VERIFIED if trusted else UNTRUSTED}, done.output
    assert [note for note in done.document["assumed"] if "trusted" in note] == assumed


# Sections of the object, the environment, and the proxy that is used: that of the cluster, of the environment, or none.
# {here} is the cluster's proxy with its login, {env} the proxy of the environment, {registry} the registry's host:port.
HERE = {
    "httpProxy": "http://127.0.0.1:1",
    "httpsProxy": "{here}",
    "noProxy": ".cluster.local,.svc,10.0.0.0/16,localhost",
}
CHOICES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "the status counts": ({"status": HERE, "spec": {"httpsProxy": "http://127.0.0.1:1"}}, {}, "here"),
    "the spec, without a status": ({"spec": HERE}, {}, "here"),
    "the status, even if it is empty": ({"spec": HERE, "status": {}}, {}, "none"),
    "a proxy for http only": ({"status": {"httpProxy": "{here}"}}, {}, "none"),
    "noProxy names the network": ({"status": {**HERE, "noProxy": ".svc,127.0.0.0/8"}}, {}, "none"),
    "noProxy names the host with its port": ({"status": {**HERE, "noProxy": "{registry}"}}, {}, "none"),
    "noProxy names another port": ({"status": {**HERE, "noProxy": "127.0.0.1:1"}}, {}, "here"),
    "noProxy of the spec is not what nodes have": ({"status": HERE, "spec": {"noProxy": "*"}}, {}, "here"),
    "HTTPS_PROXY": ({"status": HERE}, {"HTTPS_PROXY": "{env}"}, "env"),
    "https_proxy": ({"status": HERE}, {"https_proxy": "{env}"}, "env"),
    "HTTP_PROXY": ({"status": HERE}, {"HTTP_PROXY": "{env}"}, "none"),
    "http_proxy": ({"status": HERE}, {"http_proxy": "{env}"}, "none"),
    "ALL_PROXY": ({"status": HERE}, {"ALL_PROXY": "{env}"}, "none"),
    "NO_PROXY=*": ({"status": HERE}, {"NO_PROXY": "*"}, "none"),
    "no_proxy": ({"status": HERE}, {"no_proxy": "r.io"}, "none"),
    "variables without a value": ({"status": HERE}, {"HTTPS_PROXY": "", "NO_PROXY": ""}, "here"),
    "NO_PROXY with a network": ({}, {"HTTPS_PROXY": "{env}", "NO_PROXY": "127.0.0.0/8"}, "none"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choice_of_proxy(
    tmp_path: Path, registry: FaultyRegistry, authority: Authority, forward: ForwardProxy, name: str
) -> None:
    sections, env, want = CHOICES[name]
    with ForwardProxy() as other:
        here = f"http://{LOGIN}@{forward.host}"
        text = json.dumps([sections, env]).replace("{here}", here).replace("{env}", other.url)
        sections, env = json.loads(text.replace("{registry}", registry.host))
        bundle = config_map("user-ca-bundle", authority.ca.read_text())
        done = run(tmp_path, f"{registry.host}/team/kmod:v1", [proxy_object(**sections), bundle], env)
        assert done.verdicts() == {"kmod": VERIFIED}, done.output
        assert (set(forward.asked), set(other.asked)) == {
            "here": ({registry.host}, set()),
            "env": (set(), {registry.host}),
            "none": (set(), set()),
        }[want]
    notes = [note for note in done.document["assumed"] if "proxy" in note]
    passed = name.startswith("noProxy names the")
    assert notes == ([sentence(forward.host)] if want == "here" or passed else [])
    assert all(note in done.stdout for note in notes)


def test_release_and_images_through_the_proxy(tmp_path: Path, authority: Authority, forward: ForwardProxy) -> None:
    manifests = trusting(authority, httpsProxy=f"http://{LOGIN}@{forward.host}", noProxy=".cluster.local,.svc")
    folder = write_manifests(tmp_path / "manifests", manifests)
    done = run_preflight(tmp_path, f"--release-image={RELEASE}", GREEN, f"--manifests={folder}", "-n2")
    assert done.returncode == 0, done.output
    assert done.verdicts() == {"hello": VERIFIED, "ring-buffer": VERIFIED}
    assert set(forward.asked) == {f"{host}:443" for host in HOSTS}
    assert sentence(forward.host) in done.document["assumed"]


def test_layout_needs_no_proxy(tmp_path: Path, forward: ForwardProxy) -> None:
    folder = write_manifests(tmp_path / "manifests", [proxy_object(status={"httpsProxy": "no proxy at all"})])
    layout = "--image-layout=demo/images"
    done = run_preflight(tmp_path, f"--release-image={RELEASE}", GREEN, layout, f"--manifests={folder}", "-n0")
    assert done.returncode == 0, done.output
    assert [note for note in done.document["assumed"] if "proxy" in note] == []


@pytest.mark.parametrize("trusted", [True, False])
def test_certificate_of_a_proxy_is_checked(
    tmp_path: Path, registry: FaultyRegistry, authority: Authority, trusted: bool
) -> None:
    with ForwardProxy((USER, PASSWORD), authority) as forward:
        proxy, bundle = trusting(authority, httpsProxy=f"https://{LOGIN}@{forward.host}")
        # The weaker TLS settings of a Module are not for the proxy: the proxy receives a password.
        kmod = module("kmod", f"{registry.host}/team/kmod:v1", registryTLS={"insecureSkipTLSVerify": True})
        folder = write_manifests(tmp_path / "manifests", [kmod, proxy, *([bundle] if trusted else [])])
        done = run_preflight(tmp_path, f"--kernel={KERNEL}", f"--manifests={folder}", "-n0")
        assert done.verdicts() == {"kmod": VERIFIED if trusted else UNREACHABLE}, done.output
        assert set(forward.asked) == ({registry.host} if trusted else set())


@pytest.mark.parametrize(("workers", "password"), [(0, "right"), (2, "right"), (0, "wrong")])
def test_login_of_the_proxy_reaches_only_the_proxy(
    tmp_path: Path, authority: Authority, forward: ForwardProxy, workers: int, password: str
) -> None:
    used = PASSWORD if password == "right" else f"{PASSWORD}-wr0ng"
    login = f"{USER}:{quote(used, safe='')}"
    given, left, temporary = tmp_path / "given", tmp_path / "left", tmp_path / "left" / "tmp"
    temporary.mkdir(parents=True)
    folder = write_manifests(given, trusting(authority, httpsProxy=f"http://{login}@{forward.host}"))
    texts = [USER, PASSWORD, quote(PASSWORD, safe=""), encoded(f"{USER}:{used}"), encoded(used)]
    needles = [text.encode() for text in texts]
    watch = Watch(needles, temporary)
    with watching(watch):
        noisy = ["-vv", "--showlocals", "--log-level=DEBUG", "-olog_cli=true"]
        kernel = f"--kernel={KERNEL}"
        env = {"TMPDIR": str(temporary)}
        done = run_preflight(left, kernel, GREEN, f"--manifests={folder}", f"-n{workers}", *noisy, env=env)
    want = VERIFIED if password == "right" else UNREACHABLE
    assert done.verdicts() == {"hello": want, "ring-buffer": want}, done.output
    assert set(forward.asked) == {"registry.example:443"}
    if password == "wrong":
        through = f"no answer from registry.example through the proxy {forward.host} (ProxyError: 407 "
        assert through in done.sentences()["hello"]
    assert len(watch.processes) > workers, "the run was not watched"
    assert watch.found == set()
    assert not any(needle in done.output.encode() for needle in needles)
    assert [path for path in temporary.rglob("*") if "kmm-preflight" in path.name] == []
    files = [path for path in left.rglob("*") if path.is_file()]
    assert left / "artifacts/preflight.html" in files
    assert [path for path in files if any(needle in path.read_bytes() for needle in needles)] == []


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        (
            f"http://{LOGIN}@127.0.0.1:1",
            10,
            "no answer from quay.io through the proxy 127.0.0.1:1 (ProxyError: ",
        ),
        (
            f"socks5://{LOGIN}@127.0.0.1:1",
            4,
            f"proxy.config.openshift.io cluster, status.httpsProxy: the scheme is not http or https, {EXPECTED}",
        ),
    ],
)
def test_useless_proxy(tmp_path: Path, address: str, code: int, words: str) -> None:
    folder = write_manifests(tmp_path / "given", [proxy_object(status={"httpsProxy": address})])
    done = run_preflight(tmp_path / "left", f"--release-image={RELEASE}", GREEN, f"--manifests={folder}", "-n0")
    assert done.returncode == code, done.output
    assert words in done.stderr
    assert set(done.verdicts()) == {"hello", "ring-buffer"}
    assert [note for note in done.document["assumed"] if "proxy" in note] == [sentence("127.0.0.1:1")] * (code == 10)
    shown = [done.output.encode(), *(path.read_bytes() for path in (tmp_path / "left").rglob("*") if path.is_file())]
    assert not any(text.encode() in output for text in (USER, PASSWORD, LOGIN) for output in shown)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that serves the kinds of OpenShift."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as cluster:
        serve(cluster, folder)
        cluster.apply(*namespaces("demo", "openshift-config"), clusters.module("demo", "hello"))
        yield cluster


def test_proxy_of_a_cluster(tmp_path: Path, cluster: Cluster, authority: Authority, forward: ForwardProxy) -> None:
    cluster.apply(*trusting(authority, httpsProxy=f"http://{LOGIN}@{forward.host}"))
    options = [f"--release-image={RELEASE}", f"--kubeconfig={cluster.kubeconfig()}", "-n0"]
    cluster.forget()
    done = run_preflight(tmp_path, *options)
    assert done.returncode == 0, done.output
    assert done.verdicts() == {"hello": VERIFIED}
    assert set(forward.asked) == {f"{host}:443" for host in HOSTS}
    assert sentence(forward.host) in done.document["assumed"]
    assert [request for request in requests_of(cluster) if request[1] in ("proxies", "configmaps")] == [
        ("get", "proxies", "", "cluster"),
        ("get", "configmaps", "openshift-config", "user-ca-bundle"),
        ("get", "configmaps", "openshift-config", "company"),
    ]
    shown = [done.output.encode(), *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
    assert not any(text.encode() in output for text in (USER, PASSWORD, LOGIN) for output in shown)
    forward.forget()
    done = run_preflight(tmp_path, *options, env={"NO_PROXY": "*"})
    assert done.returncode in (4, 10), "the names lead nowhere else"
    assert forward.asked == []


def test_bundle_of_a_cluster_is_trusted_without_a_name_in_the_proxy(
    tmp_path: Path, cluster: Cluster, authority: Authority, registry: FaultyRegistry
) -> None:
    image_name = f"{registry.host}/kmods/hello:{KERNEL}"
    cluster.apply(proxy_object(), clusters.module("demo", "hello", containerImage=image_name))
    options = [f"--kernel={KERNEL}", f"--kubeconfig={cluster.kubeconfig()}", "-n0"]
    try:
        assert run_preflight(tmp_path, *options).verdicts() == {"hello": UNTRUSTED}
        cluster.apply(config_map("user-ca-bundle", authority.ca.read_text()))
        assert run_preflight(tmp_path, *options).verdicts() == {"hello": VERIFIED}
    finally:
        cluster.kubectl("delete", "configmap", "user-ca-bundle", "-n", "openshift-config", "--ignore-not-found")
        cluster.apply(clusters.module("demo", "hello"))
