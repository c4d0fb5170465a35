"""Options and environment become settings, or are refused in words that name the option or the variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
import trustme

from fixtures.options.definitions import OPTIONS
from fixtures.options.settings import Settings, named_dialect, read_settings
from fixtures.options.trial import TrialOptions
from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.connections import Connections
from kmm_preflight.status.dialects import Dialect

RELEASE = {"--release-image": "quay.io/a/b:1"}
AMD64, ARM64, BARE = "5.14.0-570.19.1.el9_6.x86_64", "5.14.0-570.19.1.el9_6.aarch64", "6.6.0"


class _Config:
    """What pytest.Config knows of the command line."""

    def __init__(self, options: dict[str, str | list[str]]) -> None:
        self._values = {option.key: options.get(option.name) for option in OPTIONS}

    def getoption(self, key: str) -> str | list[str] | None:
        return self._values[key]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("PREFLIGHT_") or name == "REGISTRY_AUTH_FILE":
            monkeypatch.delenv(name)


def _settings(options: dict[str, str | list[str]]) -> Settings:
    return read_settings(_config(options))


def _config(options: dict[str, str | list[str]]) -> pytest.Config:
    return cast("pytest.Config", _Config({**RELEASE, **options}))


def _refused(options: dict[str, str | list[str]]) -> str:
    with pytest.raises(UsageProblem) as caught:
        _settings(options)
    return caught.value.message


@pytest.mark.parametrize(
    ("kernels", "arches", "message"),
    [
        ([AMD64], ["arm64"], f"--kernel {AMD64}: the name says amd64, got --arch arm64"),
        ([ARM64, AMD64], ["aarch64"], f"--kernel {AMD64}: the name says amd64, got --arch arm64"),
        ([AMD64], ["amd64", "arm64"], f"--arch arm64: no --kernel has this architecture, got {AMD64}"),
        ([BARE], ["amd64", "arm64"], f"--arch arm64: no --kernel has this architecture, got {BARE}"),
    ],
)
def test_kernel_and_architecture_contradict(kernels: list[str], arches: list[str], message: str) -> None:
    assert _refused({"--kernel": kernels, "--arch": arches}).startswith(message)


@pytest.mark.parametrize(
    ("kernels", "arches"),
    [
        ([AMD64], []), ([AMD64], ["x86_64"]), ([AMD64, ARM64], ["arm64", "amd64"]), ([AMD64, ARM64], ["multi"]),
        ([AMD64], ["multi", "arm64"]), ([BARE], ["s390x"]), ([BARE, ARM64], ["arm64"]),
    ],
)  # fmt: skip
def test_kernel_and_architecture_agree(kernels: list[str], arches: list[str]) -> None:
    assert _settings({"--kernel": kernels, "--arch": arches}).kernels == tuple(kernels)


def test_two_spellings_of_an_architecture_are_one() -> None:
    settings = _settings({"--release-image": "4.18.3", "--arch": ["amd64", "x86_64"]})
    assert settings.choice.arches == ("amd64",)
    assert str(settings.release_image).endswith(":4.18.3-x86_64")


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "Https_Proxy"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nonsense", "the scheme is not http or https"),
        ("u:p455@host:3128", "the scheme is not http or https"),
        ("socks5://u:p455@host:3128", "the scheme is not http or https"),
        ("http://u:p455@host:99999999", "the address has an invalid host or port"),
        ("http://u:p455@host:port", "the address has an invalid host or port"),
        ("http://u:p455/x@host:3128", "the address has an invalid host or port"),
        ("http://u:p455@[::1", "the address has an invalid host or port"),
        ("http://u:p455@host:0", "the port is 0"),
        ("http://u:p455@:3128", "the address has no valid host"),
        ("http://", "the address has no valid host"),
        ("http://u:p455@ho%st:1", "the address has no valid host"),
        ("http://u:p455@ho st:1", "the address contains white space"),
    ],
)
def test_invalid_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str) -> None:
    monkeypatch.setenv(variable, value)
    message = _refused({})
    assert message == f"{variable}: {problem}, expected http://HOST:PORT or https://HOST:PORT"
    assert "p455" not in message


def test_of_two_variables_the_one_that_counts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://host:1")
    monkeypatch.setenv("https_proxy", "nonsense")
    assert _refused({}).startswith("https_proxy: ")
    monkeypatch.setenv("https_proxy", "")
    assert "https" not in _settings({}).network.proxies


@pytest.mark.parametrize(
    "proxy",
    [
        "http://host:3128", "https://u:p%40w@proxy.example:8443/", "HTTP://host", "http://10.0.0.1:3128",
        "http://[fd00::1]:3128", "http://under_score:80", "http://u:p@w@host:80", "http://host:",
    ],
)  # fmt: skip
def test_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    network = _settings({}).network
    assert network.proxies["https"] == proxy
    assert Connections(network).pool("registry.example", RegistryTLS())


def test_authorities(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    for empty in ("/dev/null", str(file)):
        expected = f"--registry-ca {empty}: no PEM certificates in the file"
        assert _refused({"--registry-ca": empty}) == expected
    authority = trustme.CA().cert_pem
    authority.write_to_path(file)
    assert _settings({"--registry-ca": str(file)}).network.ca == file


@pytest.mark.parametrize("text", ["[]", "[{}]", "5", "null", '"x"', '{"auths": []}', '{"credHelpers": []}', "{}", ""])
def test_an_authfile_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(text)
    message = _refused({"--authfile": str(file)})
    assert message.startswith(f"--authfile {file}: ")
    assert ", expected " in message


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("0G", 0), ("5", 5), ("2k", 2048), ("1GiB", 1 << 30)])
def test_cache_size(text: str, size: int) -> None:
    assert _settings({"--cache-size": text}).cache_size == size


@pytest.mark.parametrize("version", ["0.5", "0.0.1", "v0.9", "00.1"])
def test_kmm_began_with_1(version: str) -> None:
    assert _refused({"--kmm-version": version}) == f"--kmm-version {version}: expected a version of KMM such as 2.3"


def test_a_later_kmm_has_the_newest_dialect() -> None:
    assert _settings({"--kmm-version": "9.9.9"}).kmm_version == "9.9.9"
    assert named_dialect(_config({"--kmm-version": "9.9.9"})) is Dialect.ONE_KERNEL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--trial-timeout": "60"}, "--trial-timeout requires --trial-load"),
        ({"--vmlinuz": ["/dev/null"]}, "--vmlinuz requires --trial-load"),
        ({"--trial-sig-enforce": "yes"}, "--trial-sig-enforce requires --trial-load"),
        ({"--trial-load": "yes", "--trial-timeout": "0"}, "--trial-timeout 0: expected seconds, more than 0 and at"),
        ({"--trial-load": "yes", "--vmlinuz": ["/nowhere"]}, "--vmlinuz /nowhere: cannot be read (No such file"),
        ({"--trial-load": "yes", "--vmlinuz": ["/"]}, "--vmlinuz /: cannot be read (Is a directory)"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(options: dict[str, str | list[str]], message: str) -> None:
    assert message in _refused(options)


def test_a_trial_as_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "vmlinuz").write_bytes(b"x")
    file = str(tmp_path / "vmlinuz")
    assert _settings({}).trial_options == TrialOptions(path="/usr/bin:/bin")
    asked: dict[str, str | list[str]] = {"--trial-load": "yes", "--trial-sig-enforce": "yes", "--vmlinuz": [file]}
    trying = TrialOptions(True, True, (Path(file),), 90, "/usr/bin:/bin")
    assert _settings({**asked, "--trial-timeout": "90"}).trial_options == trying
