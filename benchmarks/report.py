"""A report of very many samples: seconds to write it, to open it in headless Chromium, and to answer a filter there.

    PYTHONPATH=. python benchmarks/report.py --samples 100000 --words 12

A sample is a problem of a step: four drafts and four refinements of about so many words. What is promised: a page opens
in less than 3 s and answers a filter in less than 0.3 s. Needs chromium and chromedriver (Debian: apt install chromium
chromium-driver). One JSON line at the end.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from igrpo_jax.report.write import write_report
from tests.report import made

FILTERS = ("fixed", "broken", "copied", "no spread", "timeout", "cut off")
WORDS = ("twice and get", "total 4", "nowhere to be found")


def browser() -> Any:
    """A headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{argument}")
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or ""))
    opened.set_script_timeout(300)
    return opened


CLICK = """
const done = arguments[arguments.length - 1], began = performance.now(), found = document.getElementById('found');
document.querySelector(`[data-filter='${arguments[0]}']`).click();
requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
"""
"""Seconds from a click to the frame that shows its answer."""

SEARCH = """
const done = arguments[arguments.length - 1], found = document.getElementById('found'), turn = found.dataset.turn;
const box = document.getElementById('search');
box.value = arguments[0];
box.dispatchEvent(new Event('input'));
const began = performance.now();
const look = () => found.dataset.turn !== turn ? done((performance.now() - began) / 1000) : setTimeout(look, 1);
look();
"""


def ready(opened: Any, mark: str) -> float:
    """Milliseconds from navigation until the reader carries a mark."""
    script = f"return document.querySelector('.reader')?.dataset.{mark} ? performance.now() : 0"
    while not (value := opened.execute_script(script)):
        time.sleep(0.005)
    return value


def measure(page: Path) -> dict[str, Any]:
    """Seconds to open, filter and search a page."""
    opened = browser()
    try:
        opening = []
        for _ in range(3):
            opened.get("about:blank")
            opened.get(page.as_uri())
            opening.append(ready(opened, "ready") / 1000)
        early = [opened.execute_async_script(CLICK, name) for name in FILTERS for _ in range(2)]
        searchable = ready(opened, "searchable") / 1000
        clicks = [opened.execute_async_script(CLICK, name) for name in FILTERS for _ in range(2)]
        searches = {words: round(opened.execute_async_script(SEARCH, words), 3) for words in WORDS}
    finally:
        opened.quit()
    return {
        "opens_s": round(statistics.median(opening), 3), "filter_while_loading_s": round(max(early), 3),
        "searchable_s": round(searchable, 3), "filter_s": round(max(clicks), 3), "search_s": searches,
    }  # fmt: skip


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = max(options.samples // 100, 1)
        run = made.run(Path(folder) / "run", steps=steps, samples=options.samples // steps, words=options.words)
        began = time.perf_counter()
        page, notes = write_report([run], Path(folder) / "report")
        seconds = time.perf_counter() - began
        sizes = {
            "samples_mb": round((run / "samples.jsonl").stat().st_size / 1e6),
            "page_mb": round(page.stat().st_size / 1e6),
        }
        print(
            json.dumps(
                {"samples": options.samples, "notes": notes, "writes_s": round(seconds, 1)} | sizes | measure(page)
            )
        )


if __name__ == "__main__":
    main()
