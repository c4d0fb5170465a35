"""preflight.html in a real browser: verdicts are visible without scripts, our columns with scripts."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path

from tests.demo import DEMO, GREEN, KERNEL, RED
from tests.real.requirement import need_tool
from tests.runs import run_preflight

BLOCKED = """<head><meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip


def seen(page: Path, folder: Path) -> str:
    """Return the text of a page after the browser has loaded it."""
    chromium = need_tool("chromium", "apt-get install chromium")
    command = [chromium, *FLAGS, f"--user-data-dir={folder / 'browser'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    text = _Text()
    text.feed(done.stdout)
    return " ".join(" ".join(text.parts).split())


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style", "template")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def test_the_browser_shows_verdicts_with_and_without_scripts(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, *DEMO, GREEN, RED)
    assert run.returncode == 1, run.output
    page = tmp_path / "artifacts" / "preflight.html"
    blocked = tmp_path / "blocked.html"
    blocked.write_text(page.read_text().replace("<head>", BLOCKED, 1))
    expected = [run.document["sentence"], "demo/hello-pinned", "kmod-absent", f"Build the kmod for {KERNEL}", "refuted"]
    without = seen(blocked, tmp_path)
    assert [words for words in expected if words not in without] == []
    shown = seen(page, tmp_path)
    assert [words for words in expected if words not in shown] == []
    assert "Result Module Kernel Stage Finding Remedy Test" in shown
    assert f"test_image[demo/hello-pinned@{KERNEL}]" in shown
    assert f"test_image[demo/hello-pinned@{KERNEL}]" not in without


def test_the_page_of_a_run_that_cannot_begin_says_why(tmp_path: Path) -> None:
    run = run_preflight(tmp_path, "--release-image=127.0.0.1:1/ocp/release:4.18", GREEN)
    assert run.returncode == 10
    text = seen(tmp_path / "artifacts" / "preflight.html", tmp_path)
    assert run.document["sentence"] in text
    assert "demo/hello" in text
    assert "release-unread" in text
