"""Choice of the builder of a run, and the credentials of its builds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.build.storage import find_program, why_unfit
from kmm_preflight.cluster.api import BUILDS, Api
from kmm_preflight.cluster.api_reader import with_builders
from kmm_preflight.cluster.credentials import Credentials, build_credentials
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import UsageProblem
from kmm_preflight.oci.auth import Keychain
from kmm_preflight.planning.plan import Plan

_NO_PROGRAM = "neither buildah nor podman is on the PATH"


@dataclass(frozen=True)
class BuilderChoice:
    """Builder of a run."""

    name: str
    """Name of the builder as --builder spells it: local, job, openshift or none."""
    reason: str
    """Reason for this builder, as a part of a sentence."""
    program: str | None = None
    """Path of buildah or podman; None unless the builder is local."""

    @property
    def in_cluster(self) -> bool:
        """True if the builds are objects of a cluster."""
        return self.name in ("job", "openshift")


@dataclass(frozen=True)
class LocalProgram:
    """Program that builds images on this machine."""

    path: str | None
    """Path of buildah or podman; None if neither is installed."""
    problem: str | None
    """Reason why this machine cannot build; None if it can."""


@dataclass(frozen=True)
class BuilderOptions:
    """Options that decide which builder runs."""

    builder: str
    """Value of --builder; "auto" chooses the first builder that can run."""
    builder_image: bool = False
    """True if --builder-image names an image for Jobs."""
    image_layout: bool = False
    """True if --image-layout replaces all registries."""


def find_local_program(path: str, folder: Path) -> LocalProgram:
    """Find buildah or podman on a PATH, for builds in a run's folder."""
    program = find_program(path)
    return LocalProgram(program, why_unfit(program, folder) if program else _NO_PROGRAM)


def choose_builder(options: BuilderOptions, program: LocalProgram, api: Api | None) -> BuilderChoice:
    """Return the builder of a run; api is None without a cluster. Raise UsageProblem if the named one cannot run."""
    if options.builder == "auto":
        return _first_that_can_run(options, program, api)
    if options.builder == "local" and program.problem:
        raise UsageProblem(f"--builder local: {program.problem}")
    if options.builder == "openshift" and not (api and api.serves(BUILDS)):
        raise UsageProblem(f"--builder openshift: the cluster serves no {BUILDS.resource}, expected OpenShift")
    return BuilderChoice(options.builder, "as --builder says", program.path if options.builder == "local" else None)


def _first_that_can_run(options: BuilderOptions, program: LocalProgram, api: Api | None) -> BuilderChoice:
    if options.image_layout:
        return BuilderChoice("none", "auto: --image-layout replaces all registries, so there is no base image")
    if api and api.serves(BUILDS):
        return BuilderChoice("openshift", f"auto: the cluster serves {BUILDS.resource}")
    if api and options.builder_image:
        return BuilderChoice("job", f"auto: --builder-image is set, and the cluster serves no {BUILDS.resource}")
    if program.path and not program.problem:
        source = "no Builds in the cluster" if api else "manifests"
        reason = f"auto: {source}, and {Path(program.path).name} is on this machine"
        return BuilderChoice("local", reason, program.path)
    return BuilderChoice("none", f"auto: {program.problem}")


def credentials_by_plan(
    plans: Iterable[Plan], choice: BuilderChoice, api: Api | None, inventory: Inventory, authfile: Keychain | None
) -> dict[str, Credentials]:
    """Map the id of each plan to the credentials of its builds. Raise the errors of Api.

    A Module without a pull secret uses those of the account "builder", except in a Job: it runs as another account.
    """
    plans = tuple(plans)
    in_job = choice.name == "job"
    if api and choice.name != "none" and not in_job:
        without_secret = {plan.module.namespace for plan in plans if plan.secret is None}
        inventory = with_builders(api, inventory, without_secret)
    return {plan.id: build_credentials(plan, inventory, authfile, in_job) for plan in plans}
