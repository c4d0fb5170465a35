"""Kinds of preflight objects: PreflightValidationOCP of OpenShift's KMM, PreflightValidation of kubernetes-sigs."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import ResourceKind
from kmm_preflight.model import Manifest
from kmm_preflight.status.dialects import GROUP, RESOURCE, Dialect


@dataclass(frozen=True)
class PreflightKind:
    """A kind whose objects request a preflight validation."""

    name: str
    """The kind."""
    plural: str
    """The name of the resource in URLs."""
    names_driver_toolkit: bool
    """True if the spec has dtkImage since KMM 2.4."""
    older_dialects: bool
    """True if the status of KMM 1.0 to 2.3 is answered too."""

    @property
    def crd(self) -> str:
        """The name of its CRD."""
        return f"{self.plural}.{GROUP}"

    def resource(self, dialect: Dialect) -> ResourceKind:
        """Return the resource, in the API version of the dialect."""
        return ResourceKind(GROUP, dialect.api_version, self.plural, namespaced=False)

    def dialect(self, crd: Manifest) -> Dialect | None:
        """Return the dialect of a CRD by its schema; None if this suite does not write that dialect.

        The versions do not differ between 2.3 and 2.4: both serve v1beta2. The spec of a PreflightValidation does not
        differ either: only the words of the status do (docs/reference/kmm.md 1.4).
        """
        versions = {version["name"].text(): version for version in Field(crd)["spec"]["versions"]}
        if "v1beta2" not in versions:
            return Dialect.MAP if self.older_dialects else None
        schema = versions["v1beta2"].walk("schema", "openAPIV3Schema", "properties")
        if self.older_dialects:
            one_kernel = "kernelVersion" in schema.walk("spec", "properties").mapping()
            return Dialect.ONE_KERNEL if one_kernel else Dialect.LIST
        entry = schema.walk("status", "properties", "modules", "items", "properties")
        words = [word.value for word in entry.walk("verificationStatus", "enum")]
        return Dialect.ONE_KERNEL if "Success" in words else None


OCP = PreflightKind("PreflightValidationOCP", RESOURCE, names_driver_toolkit=True, older_dialects=True)
"""The kind of OpenShift's KMM."""
SIG = PreflightKind("PreflightValidation", "preflightvalidations", names_driver_toolkit=False, older_dialects=False)
"""The kind of kubernetes-sigs."""
