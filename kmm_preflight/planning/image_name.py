"""Names of images that KMM derives from containerImage."""

from __future__ import annotations

from kmm_preflight.model import ModuleName


def append_to_tag(image: str, suffix: str) -> str:
    """Return the image name with the suffix appended to its tag. A name without a tag gets the suffix as its tag.

    The digest is removed. A port is not a tag.
    """
    name, _, _ = image.partition("@")
    has_tag = ":" in name.rpartition("/")[2]
    return f"{name}{'_' if has_tag else ':'}{suffix}"


def intermediate_image(image: str, module: ModuleName) -> str:
    """Return the temporary name of a built image that is signed next (KMM 1.0 to 2.6)."""
    return append_to_tag(image, f"{module.namespace}_{module.name}_kmm_unsigned")
