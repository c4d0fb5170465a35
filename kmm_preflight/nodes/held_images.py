"""Images that nodes hold, from the list in their status (docs/reference/kmm.md 12.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kmm_preflight.errors import Malformed
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.node import Node
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Case, Plan
from kmm_preflight.planning.pull_policy import ALWAYS, HeldImages, NodeStore, effective_policy

# nodeStatusMaxImages of the kubelet: a list of this length may be cut off.
_LISTED = 50


def with_node_stores(cases: Iterable[Case], fleet: Fleet | None) -> tuple[Case, ...]:
    """Return the cases with what their nodes hold under the names of their images. A digest names the same bytes."""
    return tuple(_with_store(case, fleet) for case in cases)


def _with_store(case: Case, fleet: Fleet | None) -> Case:
    if fleet is None or not isinstance(case, Plan) or case.image.digest or case.module.kind != "Module":
        return case  # only a kubelet of this cluster keeps images by a policy
    if effective_policy(case.pull_policy, case.image) == ALWAYS:
        return case
    names = set(case.node_names)
    selector = dict(case.selector)
    nodes = [
        node for node in fleet.nodes if (node.name in names if names else selector.items() <= dict(node.labels).items())
    ]
    return replace(case, store=store_of(case.image, nodes))


def store_of(image: Reference, nodes: Iterable[Node]) -> NodeStore:
    """Return what the nodes hold under the name."""
    held: dict[tuple[str, ...], list[str]] = {}
    without, unlisted = list[str](), list[str]()
    for node in sorted(nodes, key=lambda node: node.name):
        if node.images is None:
            unlisted.append(node.name)
            continue
        digests = next((found for names in node.images if (found := _digests(image, names)) is not None), None)
        if digests:
            held.setdefault(digests, []).append(node.name)
        elif digests is None and len(node.images) < _LISTED:
            without.append(node.name)
        else:
            unlisted.append(node.name)
    images = tuple(HeldImages(digests, tuple(names)) for digests, names in held.items())
    return NodeStore(images, tuple(without), tuple(unlisted))


def _digests(image: Reference, names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the digests of an image in a node's list, or None if the image does not have the name."""
    parsed = [reference for name in names if (reference := _parsed(name))]
    if image not in parsed:
        return None
    return tuple(dict.fromkeys(reference.digest for reference in parsed if reference.digest))


def _parsed(name: str) -> Reference | None:
    try:
        return Reference.parse(name)
    except Malformed:
        return None  # such as <none>@<none>
