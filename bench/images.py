"""Benchmark of reading images: this suite against the image check of KMM up to 2.3, with a local registry.

    python -m bench.images [--rounds 5] [--megabytes 40] [--images 20]

The benchmark needs docker-registry and Go. It alternates the two programs, and prints medians and ratios (peer / ours).
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.demo import KERNEL, ROOT, manifests, module
from tests.real.layout import Blob, image, layer
from tests.real.push import push
from tests.real.registry import Registry

KMOD = b"\x7fELF" + bytes(4092)


def main() -> None:
    """Run all cases and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=110, help="size of the shared base layer, unpacked")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = build_peer(folder)
        with Registry.plain(folder / "registry") as registry:
            base = base_layer(options.megabytes)
            absent = push_images(registry, base, options.images, "absent", "opt/lib/modules/other/m.ko")
            top = push_images(registry, base, options.images, "top", f"opt/lib/modules/{KERNEL}/m.ko")
            print(f"{'case':45} {'peer s':>8} {'ours s':>8} {'ratio':>6}")
            for case, names in (("kmod absent, one shared base", absent), ("kmod in the top layer", top)):
                compare(folder, peer, f"{options.images} images, {case}", names, options.rounds, warm=False)
                compare(folder, peer, f"{options.images} images, {case}, again", names, options.rounds, warm=True)


def build_peer(folder: Path) -> Path:
    """Build the peer. Return the path of its program."""
    program = folder / "peer"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=ROOT / "bench/peer", check=True)
    return program


def base_layer(megabytes: int) -> Blob:
    """Return a layer of files that compress to about two thirds, so that reading must really decompress them."""
    source = random.Random(1)
    skewed = bytes(min(byte & 0x3F, byte >> 2 & 0x3F) for byte in range(256))
    files = [(f"usr/lib/file{number}", source.randbytes(1 << 20).translate(skewed)) for number in range(megabytes)]
    return layer(files)


def push_images(registry: Registry, base: Blob, count: int, name: str, path: str) -> list[str]:
    """Push images that share the base layer, each with its own top layer. Return their names."""
    for number in range(count):
        top = layer([(path, KMOD), (f"etc/{name}{number}", b"")])
        push(registry, f"{name}/m{number}", "1", image([base, top]))
    return [f"{registry.host}/{name}/m{number}:1" for number in range(count)]


def compare(folder: Path, peer: Path, case: str, names: list[str], rounds: int, warm: bool) -> None:
    """Alternate the two programs and print medians. If warm, keep the cache of the suite between rounds."""
    cache = folder / "cache"
    documents = [module(f"m{number}", name, "m") for number, name in enumerate(names)]
    command = [sys.executable, "-m", "pytest", "-q", f"--kernel={KERNEL}", manifests(folder, *documents),
               f"--cache-dir={cache}", f"--artifact-dir={folder / 'artifacts'}", "-p", "no:cacheprovider",
               "--proof=path"]  # fmt: skip
    theirs: list[float] = []
    ours: list[float] = []
    shutil.rmtree(cache, ignore_errors=True)
    if warm:
        run(command)
    for _ in range(rounds):
        theirs.append(timed(lambda: run([str(peer), f"opt/lib/modules/{KERNEL}/m.ko", *names])))
        if not warm:
            shutil.rmtree(cache, ignore_errors=True)
        ours.append(timed(lambda: run(command)))
    peer_s, ours_s = statistics.median(theirs), statistics.median(ours)
    print(f"{case:45} {peer_s:8.2f} {ours_s:8.2f} {peer_s / ours_s:6.1f}")


def run(command: list[str]) -> None:
    """Run a command to its end. End the benchmark unless the exit code is 0 or 1."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def timed(work: Callable[[], None]) -> float:
    """Return the seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
