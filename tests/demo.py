"""The embedded demo as the stuff of whole runs: options, its kernel, manifests written for a test."""

from __future__ import annotations

import json
from pathlib import Path

from .real.layout import Blob, Image

ROOT = Path(__file__).parent.parent
RELEASE = "quay.io/openshift-release-dev/ocp-release:4.99.0-x86_64"
KERNEL = "6.1.0-56-amd64"
LAYOUT = f"--image-layout={ROOT / 'demo/images'}"
DEMO = (f"--release-image={RELEASE}", LAYOUT)
GREEN = f"--manifests={ROOT / 'demo/modules'}"
RED = f"--manifests={ROOT / 'demo/red'}"
GOOD_IMAGE = f"registry.example/kmods/hello:{KERNEL}"


def module(name: str, image: str = GOOD_IMAGE, kmod: str = "hello", namespace: str = "demo", sections: str = "") -> str:
    """A Module with one mapping for every kernel; sections is YAML below the mapping."""
    return f"""---
apiVersion: kmm.sigs.x-k8s.io/v1beta1
kind: Module
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{}}
  moduleLoader:
    container:
      modprobe: {{moduleName: {kmod}}}
      kernelMappings:
        - regexp: .
          containerImage: "{image}"
{sections}
"""


def demo_images() -> dict[str, Image]:
    """The images of the demo by their names."""
    blobs = ROOT / "demo/images/blobs/sha256"

    def read(entry: dict[str, str]) -> Blob:
        return Blob((blobs / entry["digest"].removeprefix("sha256:")).read_bytes(), entry["mediaType"])

    made = {}
    for entry in json.loads((ROOT / "demo/images/index.json").read_text())["manifests"]:
        manifest = read(entry)
        parts = json.loads(manifest.data)
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        made[name] = Image(manifest, [read(part) for part in (parts["config"], *parts["layers"])])
    return made


def manifests(folder: Path, *documents: str) -> str:
    """The option that names a file with the documents."""
    path = folder / "modules.yaml"
    path.write_text("\n".join(documents))
    return f"--manifests={path}"


BUILD = "          build: {dockerfileConfigMap: {name: dockerfile}}"
SIGN = "          sign: {keySecret: {name: k}, certSecret: {name: c}, filesToSign: [/opt/x.ko]}"
