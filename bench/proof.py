"""Benchmark of the proof depths: the time for equal Modules at each --proof, with a warm cache.

    python -m bench.proof [--rounds 5] [--modules 200]

The benchmark needs only the checkout: kernel, kmods and shell are those of the demo. It alternates the depths. It
prints medians and their ratios to --proof=path.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.images import run, timed
from tests.demo import GOOD_IMAGE, RELEASE, demo_images, manifests, module
from tests.real.layout import Image, image, layer, write_layout

DEPTHS = ("path", "node", "kernel")


def main() -> None:
    """Run all depths and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modules", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {depth: command(folder, options.modules, depth) for depth in DEPTHS}
        for warm in commands.values():
            run(warm)
        seconds: dict[str, list[float]] = {depth: [] for depth in DEPTHS}
        for _ in range(options.rounds):
            for depth, arguments in commands.items():
                seconds[depth].append(timed(partial(run, arguments)))
        path = statistics.median(seconds["path"])
        print(f"{options.modules} Modules, warm{'':10} {'s':>8} {'to path':>8}")
        for depth, measured in seconds.items():
            median = statistics.median(measured)
            print(f"--proof={depth:20} {median:8.2f} {median / path:8.2f}")


def command(folder: Path, count: int, depth: str) -> list[str]:
    """Return the command of a run over `count` Modules, each with its own image."""
    layout = folder / "layout"
    names = [f"registry.example/bench/m{number}:1" for number in range(count)]
    if not layout.exists():
        images = {name: _with_own_layer(demo_images()[GOOD_IMAGE], number) for number, name in enumerate(names)}
        write_layout(layout, {**demo_images(), **images})
    documents = [module(f"m{number}", name) for number, name in enumerate(names)]
    return [sys.executable, "-m", "pytest", "-q", f"--release-image={RELEASE}", f"--image-layout={layout}",
            manifests(folder, *documents), f"--proof={depth}", f"--cache-dir={folder / 'cache'}",
            f"--artifact-dir={folder / 'artifacts'}", "-p", "no:cacheprovider"]  # fmt: skip


def _with_own_layer(shared: Image, number: int) -> Image:
    """Return the image with an extra layer that no other image has."""
    layers = [blob for blob in shared.blobs if "layer" in blob.media_type]
    return image([*layers, layer([(f"etc/own{number}", b"")])])


if __name__ == "__main__":
    main()
