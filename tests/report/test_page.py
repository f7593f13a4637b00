"""The report in a real browser: what is there, what the filters do, and that no text becomes markup or a script."""

import json
import re
import time
from pathlib import Path

import pytest

from igrpo_jax.report.write import write_report
from tests.report import made

HERE = Path(__file__).parent

HOSTILE = (
    "</script><script>window.hurt = 1</script>",
    '<img src=x onerror="window.hurt = 1">',
    "'\"><svg onload='window.hurt = 1'>",
    "<!-- <script>",
    "{{ 7 * 7 }}${window.hurt = 1}",
    "]]>&lt;b&gt;",
    "a\u202etxt.exe\u2066\x1b[2J\x00\x9b\u2028\u2029\ufeff end",
    "half a pair \ud800 \U0001f600",
)


def opened(browser, page: Path) -> None:
    """Opens a page and waits until its reader can search."""
    browser.get_log("browser")
    browser.get(page.as_uri())
    waiting(browser, "return document.querySelector('.reader')?.dataset.searchable === 'true'")


def waiting(browser, script: str, *arguments):
    """The first true value of a script, looked for during 30 seconds."""
    until = time.monotonic() + 30
    while not (value := browser.execute_script(script, *arguments)):
        assert time.monotonic() < until, script
        time.sleep(0.02)
    return value


def silent(browser) -> None:
    """Asserts that nothing was complained of: no error, no warning, nothing that the policy had to stop."""
    assert browser.get_log("browser") == []


def found(browser) -> int:
    """How many samples are listed, once the last change is carried out."""
    text = waiting(browser, "const t = document.getElementById('found').textContent; return /of/.test(t) && t")
    return int(text.split(" of ")[0].replace(",", ""))


def drawn(browser) -> list[str]:
    """Scrolls through the page until all charts are drawn; their names."""
    browser.execute_script("for (const p of document.querySelectorAll('[data-chart]')) p.scrollIntoView()")
    script = """
      const places = [...document.querySelectorAll('[data-chart]')];
      const missing = places.find((p) => !p.querySelector('svg path'));
      if (missing) { missing.scrollIntoView(); return null; }
      return places.map((p) => p.dataset.chart);
    """
    return waiting(browser, script)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A report of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [made.run(folder / "alpha", samples=4), made.run(folder / "beta", seed=1, num_drafts=8)]
    return write_report(runs, folder / "report", price=3.6)[0]


def test_all_sections_and_charts_are_there_and_nothing_is_fetched(page, browser):
    opened(browser, page)
    names = browser.execute_script("return [...document.querySelectorAll('main > section')].map((s) => s.id)")
    assert names == ["left-out", "summary", "learning", "refining", "evaluations", "cost", "configs", "samples"]
    charts = drawn(browser)
    assert charts[:4] == ["reward", "length", "clipped", "entropy"] and "refining" in charts and "zero_spread" in charts
    assert {"evaluation-1", "phases", "tokens", "memory"} <= set(charts)
    assert browser.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)") == []
    assert not re.search(r"(src|href)=.?https?:", page.read_text())
    silent(browser)


def test_tables_say_what_the_records_do(page, browser):
    opened(browser, page)
    rows = browser.execute_script(
        "return [...document.querySelectorAll('table tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    table = {row[0]: row[1:] for row in rows}
    assert table["hours in steps"] == ["0.033", "0.033"]  # 12 steps of 10 s
    assert table["seconds drafting"] == ["24", "24"] and table["seconds grading, beside decoding"] == ["3", "3"]
    assert table["money, at 3.6 a device hour"] == ["0.12", "0.12"]
    assert table["alpha, held out: avg@4 bare"] == ["12", "0.700", "0.641 to 0.759"]
    assert table["algorithm.num_drafts"] == ["4", "8"]
    records = [json.loads(line) for line in (page.parents[1] / "alpha" / "metrics.jsonl").read_text().splitlines()]
    first = [record["reward"] for record in records if 1 <= record["step"] <= 5 and "reward" in record]
    assert table["reward of what is trained on"][0] == f"{sum(first) / 5:.3f}"
    shown = "return [...document.querySelectorAll('#configs tbody tr')].filter((r) => r.offsetHeight).length"
    assert browser.execute_script(shown) == 2  # seed, num_drafts
    browser.execute_script("document.getElementById('only-differences').click()")
    assert browser.execute_script(shown) > 60


def lines_of(workdir: Path) -> list[str]:
    return (workdir / "samples.jsonl").read_text().splitlines()


def expected(samples: list[dict], name: str) -> int:
    """How many samples a filter leaves, counted from the records anew."""

    def holds(record: dict) -> bool:
        drafts, last = (stage["completions"] for stage in record["stages"])
        draft = drafts[record["stages"][1]["draft"][1]]
        return {
            "fixed": not draft["right"] and any(c["right"] for c in last),
            "broken": draft["right"] and not all(c["right"] for c in last),
            "copied": draft["text"] in [c["text"] for c in last],
            "no spread": len({c["reward"] for c in last}) == 1,
            "timeout": "timeout" in [c["reason"] for c in drafts + last],
            "cut off": not all(c["ended"] for c in drafts + last),
        }[name]

    return sum(map(holds, samples))


def test_filters_and_search_leave_what_the_records_say(page, browser):
    folder = page.parents[1]
    samples = [json.loads(line) for run in ("alpha", "beta") for line in lines_of(folder / run)]
    opened(browser, page)
    assert found(browser) == len(samples) == 12 * 4 + 12 * 3
    click = "document.querySelector(`[data-filter='${arguments[0]}']`).click()"
    for name in ("fixed", "broken", "copied", "no spread", "timeout", "cut off"):
        if expected(samples, name):
            browser.execute_script(click, name)
            assert found(browser) == expected(samples, name)
            browser.execute_script(click, name)
    browser.execute_script(click, "copied")
    browser.execute_script(click, "broken")
    both = [s for s in samples if expected([s], "copied") and expected([s], "broken")]
    assert found(browser) == len(both) > 0
    browser.execute_script(click, "copied")
    browser.execute_script(click, "broken")
    searched(browser, "Twice AND")
    texts = [json.dumps(sample) for sample in samples]
    assert found(browser) == sum("twice and" in text for text in texts) > 0
    marked = browser.execute_script("return [...document.querySelectorAll('#detail mark')].map((m) => m.textContent)")
    assert set(marked) == {"twice and"}
    searched(browser, "no such words")
    assert found(browser) == 0
    assert "No sample" in browser.execute_script("return document.getElementById('detail').textContent")
    silent(browser)


def searched(browser, words: str) -> None:
    """Types words into the search and waits until they are looked for."""
    turn = browser.execute_script("return document.getElementById('found').dataset.turn")
    browser.execute_script(
        "const b = document.getElementById('search'); b.value = arguments[0]; b.dispatchEvent(new Event('input'))",
        words,
    )
    waiting(browser, "return document.getElementById('found').dataset.turn !== arguments[0]", turn)


def test_keys_move_through_the_list_and_filter(page, browser):
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    body = browser.find_element("tag name", "body")
    place = lambda: browser.execute_script("return document.querySelector('.item[aria-selected=true]')?.id")
    first = waiting(browser, "return document.getElementById('detail').dataset.sample")
    body.send_keys("jjk")
    assert place() == "item-1"
    assert waiting(
        browser, "const s = document.getElementById('detail').dataset.sample; return s !== arguments[0] && s", first
    )
    body.send_keys("/")
    assert browser.execute_script("return document.activeElement.id") == "search"
    turn = browser.execute_script("return document.getElementById('found').dataset.turn")
    browser.switch_to.active_element.send_keys("j" + Keys.ESCAPE)
    assert browser.execute_script("return document.activeElement === document.body")
    assert browser.execute_script("return document.getElementById('search').value") == "j"
    waiting(browser, "return document.getElementById('found').dataset.turn !== arguments[0]", turn)
    searched(browser, "")
    everything = found(browser)
    body.send_keys("3")
    assert 0 < found(browser) < everything
    body.send_keys("3")
    gone = "return document.querySelectorAll('#detail del, #detail ins').length"
    assert waiting(browser, gone) > 0
    body.send_keys("d")
    waiting(browser, "return !document.querySelector('#detail del, #detail ins')")


def test_differences_are_by_word(page, browser):
    opened(browser, page)
    difference = lambda a, b: browser.execute_script("return difference(arguments[0], arguments[1])", a, b)
    assert difference("3 + 4 is 8 now", "3 + 4 is 7 now") == [
        ["same", "3 + 4 is"],
        ["gone", " 8"],
        ["new", " 7"],
        ["same", " now"],
    ]
    assert difference("", "new words") == [["new", "new words"]] and difference("gone", "") == [["gone", "gone"]]
    assert difference("all the same", "all the same") == [["same", "all the same"]]
    a, b = [" ".join(f"{k % 97}" for k in range(6000)) + tail for tail in (" old", " new")]
    assert difference(a, b)[1:] == [["gone", " old"], ["new", " new"]]
    a, b = [f"{mark}\n" + "".join(f"line {k} of many words\n" for k in range(2000)) + mark for mark in ("x", "y")]
    found = difference(a, b)
    assert found[:2] == [["gone", "x"], ["new", "y"]] and [kind for kind, _ in found[2:]] == ["same", "gone", "new"]


def test_stages_are_called_drafts_where_something_refines_them(page, browser):
    opened(browser, page)
    called = lambda mode, drafts: browser.execute_script(
        "return headings({ mode: arguments[0] ?? undefined, stages: arguments[1].map((draft) => ({ draft })) })",
        mode,
        drafts,
    )
    assert called("bare", [None]) == called(None, [None]) == ["Completions"]
    assert called("bare", [None, None]) == ["Completions, portion 1", "Completions, portion 2"]
    for mode in (None, "refined"):
        assert called(mode, [None, [0, 1]]) == ["Drafts", "Refinements"]
        assert called(mode, [None, [0, 1], [1, 0]]) == ["Drafts", "Refinements, round 1", "Refinements, round 2"]
    assert called("bare", [None, [0, 1]]) == ["Drafts", "Refinements"]
    assert called(None, [None, None]) == ["Drafts", "Completions"]


def test_a_phone_shows_the_list_then_the_sample_and_nothing_is_wider(page, browser):
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        )
        opened(browser, page)
        drawn(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        shown = lambda name: browser.execute_script(
            "return document.getElementById(arguments[0]).offsetHeight > 0", name
        )
        assert shown("list") and not shown("detail")
        browser.execute_script("document.querySelector('.item').click()")
        assert shown("detail") and not shown("list")
        browser.execute_script("document.querySelector('.back').click()")
        assert shown("list") and not shown("detail")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_is_dark_and_charts_follow(page, browser):
    ink = lambda: browser.execute_script("return getComputedStyle(document.querySelector('[data-chart] text')).fill")
    try:
        opened(browser, page)
        drawn(browser)
        before = ink()
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"
        waiting(
            browser,
            "const t = document.querySelector('figure text'); return t && getComputedStyle(t).fill !== arguments[0]",
            before,
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_no_text_becomes_markup_or_a_script(browser, tmp_path):
    workdir = made.run(tmp_path / "<img src=x onerror=hurt=1>", steps=len(HOSTILE), samples=0)
    texts = dict(enumerate(HOSTILE, 1))
    with (workdir / "samples.jsonl").open("w") as file:
        for step, text in texts.items():
            drafts = [
                made.completion(text, 0.0, parsed=text, reason=text),
                made.completion(text + " x", 1.0, parsed=None),
            ]
            record = made.sample(step, step, drafts, [*drafts], question=text) | {"gold": text, "problem": text}
            file.write(json.dumps(record) + "\n")
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["prompt"] |= {"system": HOSTILE[0], "refine": HOSTILE[1], HOSTILE[1]: HOSTILE[2]}
    (workdir / "config.json").write_text(json.dumps(config))
    with (workdir / "metrics.jsonl").open("a") as file:
        for text in HOSTILE:
            file.write(json.dumps({"step": 3, f"eval/{text}/avg@4": 0.5}) + "\n")
    (workdir / "eval.jsonl").write_text(
        json.dumps({"step": 3, "set": HOSTILE[1], "mode": HOSTILE[0], "select": HOSTILE[2], "scores": {"avg@4": 0.5}})
        + "\n"
    )
    other = made.run(tmp_path / "b\u202ec", steps=2)
    page, _ = write_report([workdir, other], tmp_path / "report")
    opened(browser, page)
    drawn(browser)
    assert found(browser) == len(HOSTILE) + 2 * 3
    for place in range(len(HOSTILE) + 3):
        browser.execute_script(
            "document.querySelector('body').dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))"
        )
        waiting(
            browser,
            "return document.querySelector('.item[aria-selected=true]')?.id === `item-${arguments[0]}`",
            place + 1,
        )
    assert browser.execute_script(
        "return [...document.querySelectorAll('[data-chart]')].every((p) => p.querySelector('svg'))"
    )
    assert browser.execute_script("return window.hurt === undefined && typeof hurt") == "undefined"
    assert (
        browser.execute_script(
            "return document.querySelectorAll('img, iframe, object, main script, [onerror], [onload]').length"
        )
        == 0
    )
    shown = browser.execute_script("return document.body.innerText + document.title")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]", shown)
    searched(browser, "txt.exe")
    waiting(browser, "return /U?202e/i.test(document.getElementById('detail').innerText)")
    silent(browser)
