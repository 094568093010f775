#!/usr/bin/env python3
"""Looks at reports in a real browser, as a reader would.

    cargo test --release -p roofline-lab --test report      # writes pages under target/tmp/report
    python3 tools/report_browser_test.py [--shots DIR] [PAGE.html ...]

Needs `chromium` and `chromedriver` (Debian: apt-get install -y chromium chromium-driver) and nothing else: it speaks the
WebDriver protocol with the standard library. Every page is opened from disk, in light and in dark; an axis is switched, a
value is read with the pointer and with the keyboard, an entry of the legend is switched off, a point is followed to its
row. No console message and no request other than for the page itself is allowed. With --shots every page leaves pictures.
"""

import argparse
import base64
import html.parser
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ROOT / "target" / "tmp" / "report"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--force-device-scale-factor=1",
]


class Browser:
    """A chromium behind a chromedriver."""

    def __init__(self, scheme, width=1280, height=900):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(
            [shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                if self.call("GET", "/status")["ready"]:
                    break
            except OSError:
                time.sleep(0.1)
        options = {"args": [*FLAGS, f"--user-data-dir={self.folder.name}", f"--window-size={width},{height}"],
                   "binary": shutil.which("chromium")}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options,
                        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += "/session/" + session["sessionId"]
        self.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None

    def devtools(self, command, parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", selector)
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def keys(self, selector, *keys):
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": "".join(keys)})

    def move(self, x, y, click=False):
        actions = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}]
        if click:
            actions += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.call("POST", "/actions", {"actions": [pointer]})

    def log(self, kind):
        return self.call("POST", "/se/log", {"type": kind})

    def shot(self, path, full=False):
        """What is seen; with `full` the whole page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if full:
            size = self.run("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
            clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
            data = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})["data"]
        else:
            data = self.call("GET", "/screenshot")
        path.write_bytes(base64.b64decode(data))

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.folder.cleanup()


class Balanced(html.parser.HTMLParser):
    """Complains about a tag that closes another one."""

    VOID = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def overlaps(browser):
    """Texts of shown plots that cover one another, as pairs."""
    return browser.run("""
        const found = [];
        for (const svg of document.querySelectorAll('svg.chart')) {
          if (!svg.getClientRects().length) continue;
          const texts = [...svg.querySelectorAll('text')].filter(t => t.getClientRects().length && !t.closest('.series'));
          const boxes = texts.map(t => t.getBoundingClientRect());
          const page = svg.getBoundingClientRect();
          boxes.forEach((a, i) => {
            if (a.left < page.left - 1 || a.right > page.right + 1 || a.top < page.top - 1 || a.bottom > page.bottom + 1)
              found.push([svg.id, 'outside', texts[i].textContent]);
            for (let j = 0; j < i; j++) {
              const b = boxes[j];
              const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
              const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
              if (w > 1 && h > 2) found.push([svg.id, texts[i].textContent, texts[j].textContent]);
            }
          });
        }
        return found;""")


def contrast(browser):
    """The least contrast of ink, muted and links against the paper."""
    return browser.run("""
        const style = getComputedStyle(document.documentElement);
        const light = name => {
          const text = style.getPropertyValue(name).trim();
          const hex = text.length === 4 ? [...text.slice(1)].map(c => c + c).join('') : text.slice(1);
          const [r, g, b] = [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const paper = light('--paper');
        const names = ['--ink', '--muted', '--link', '--c0', '--c1', '--c2', '--c3', '--c4', '--c5'];
        return Math.min(...names.map(light).map(l => (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05)));""")


def dot_on_screen(browser, figure):
    """The middle of a dot near the middle of the plot, scrolled into view."""
    return browser.run("""
        const canvas = document.querySelector(`#${arguments[0]} .canvas`);
        canvas.scrollIntoView({block: 'center', behavior: 'instant'});
        const dots = [...canvas.querySelectorAll('svg.chart:first-of-type g.series[data-mark=dots] path')];
        const box = dots[Math.floor(dots.length / 2)].getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2];""", figure)


def read(browser, figure):
    shown = "#" + figure + " .readout.on"
    return browser.run("const r = document.querySelector(arguments[0]); return r && r.textContent;", shown)


def follow_a_point(browser, page):
    """The pointer reads a value that the CSV holds, a click leads to the row, and the row says the same."""
    figures = browser.run("""return [...document.querySelectorAll('figure.plot')]
        .filter(f => f.querySelector('g.series[data-mark=dots]')).map(f => f.id);""")
    check(figures, f"{page}: no plot with points")
    figure = figures[0]
    x, y = dot_on_screen(browser, figure)
    browser.move(x, y)
    text = read(browser, figure)
    check(text, f"{figure}: nothing is read at a point")
    row = re.search(r"row (\S+)", text)
    check(row, f"{figure}: the point names no row: {text}")
    lines = browser.run("return decodeURIComponent(document.querySelector(`#${arguments[0]} a.csv`).href)", figure)
    check(row[1] in lines, f"{figure}: row {row[1]} is not in the CSV")
    browser.move(x, y, click=True)
    time.sleep(0.2)
    there = browser.run("""const row = document.getElementById(arguments[0]);
        const box = row.getBoundingClientRect();
        return [location.hash, row.className, box.height > 0 && box.top >= 0 && box.bottom <= innerHeight];""", row[1])
    check(there[0] == "#" + row[1] and "reached" in there[1], f"{row[1]} was not reached: {there}")
    return figure


def walk_with_keys(browser, figure):
    canvas = f"#{figure} .canvas"
    browser.keys(canvas, "\ue014")
    first = read(browser, figure)
    browser.keys(canvas, "\ue014", "\ue014")
    second = read(browser, figure)
    check(first and second and first != second, f"{figure}: arrow keys read {first!r} and {second!r}")
    browser.keys(canvas, "\ue00c")
    check(read(browser, figure) is None, f"{figure}: Escape does not close")


def switch_axes(browser, page):
    figures = browser.run("""return [...document.querySelectorAll('figure.plot')].map(f =>
        [f.id, [...f.querySelectorAll('[data-toggle]')].map(b => b.dataset.toggle)]);""")
    switched = 0
    for figure, toggles in figures:
        for toggle in toggles:
            selector = f"#{figure} [data-toggle={toggle}]"
            before = browser.run("return document.querySelector(`#${arguments[0]} svg.chart g.series`).innerHTML", figure)
            browser.click(selector)
            after = browser.run("return document.querySelector(`#${arguments[0]} svg.chart g.series`).innerHTML", figure)
            check(before != after, f"{figure}: {toggle} moves nothing")
            check("NaN" not in after and "Infinity" not in after, f"{figure}: {toggle} leads nowhere")
            ticks = browser.run("""return [...document.querySelectorAll(
                `#${arguments[0]} svg.chart:first-of-type g.ticks:not(.off)`)].map(g => g.dataset.view)""", figure)
            check(len(ticks) == 2, f"{figure}: {ticks} are shown at once")
            check(not overlaps(browser), f"{figure} after {toggle}: {overlaps(browser)}")
            browser.click(selector)
            again = browser.run("return document.querySelector(`#${arguments[0]} svg.chart g.series`).innerHTML", figure)
            check(before == again, f"{figure}: {toggle} twice is not where it was")
            switched += 1
    check(switched, f"{page}: no axis can be switched")


def switch_legend(browser, figure):
    entry = f"#{figure} .legend button[data-series='0']"
    browser.click(entry)
    state = browser.run("""const f = document.getElementById(arguments[0]);
        return [f.querySelector('.legend button').getAttribute('aria-pressed'),
                getComputedStyle(f.querySelector('g.series')).display];""", figure)
    check(state == ["false", "none"], f"{figure}: the legend switches nothing off: {state}")
    browser.keys(entry, " ")
    state = browser.run("return getComputedStyle(document.querySelector(`#${arguments[0]} g.series`)).display", figure)
    check(state != "none", f"{figure}: the space bar does not switch it on again")


def switch_stack(browser):
    figures = browser.run("return [...document.querySelectorAll('figure.stack')].map(f => f.id)")
    for figure in figures:
        browser.click(f"#{figure} [data-toggle=share]")
        shown = browser.run("""return [...document.querySelectorAll(`#${arguments[0]} [data-mode]`)]
            .filter(m => m.getClientRects().length).map(m => m.dataset.mode)""", figure)
        check(shown == ["share"], f"{figure}: {shown}")
        browser.keys(f"#{figure} .canvas", "\ue014")
        check("%" in (read(browser, figure) or ""), f"{figure}: no share is read")
        browser.keys(f"#{figure} .canvas", "\ue00c")
        browser.click(f"#{figure} [data-toggle=share]")


def check_quiet(browser, page):
    said = [entry["message"] for entry in browser.log("browser")]
    check(not said, f"{page}: the console says {said}")
    sent = []
    for entry in browser.log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            sent.append(message["params"]["request"]["url"].split("#")[0])
    # chrome:// is the browser's own first page.
    inside = (page.resolve().as_uri(), "data:", "chrome://")
    outside = [url for url in sent if not url.startswith(inside)]
    check(not outside, f"{page}: requests {outside}")


def switch_theme(browser):
    background = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):
        browser.click("#theme")
        seen.add(browser.run(background))
    check(len(seen) == 2, f"the theme button shows {seen}")


def test(page, scheme, shots):
    parser = Balanced()
    parser.feed(page.read_text())
    check(not parser.open, f"{page}: {parser.open} stay open")
    browser = Browser(scheme)
    try:
        browser.call("POST", "/url", {"url": page.resolve().as_uri()})
        name = f"{page.stem}-{scheme}"
        if shots:
            browser.shot(shots / f"{name}-top.png")
            browser.shot(shots / f"{name}.png", full=True)
        check(contrast(browser) >= 4.5, f"{name}: contrast {contrast(browser):.2f}")
        check(not overlaps(browser), f"{name}: texts cover one another: {overlaps(browser)}")
        wide = browser.run("return document.documentElement.scrollWidth - innerWidth")
        check(wide <= 0, f"{name}: the page is {wide} pixels too wide")
        if browser.run("return document.querySelectorAll('figure.plot').length"):
            switch_axes(browser, name)
            figure = follow_a_point(browser, name)
            walk_with_keys(browser, figure)
            switch_legend(browser, figure)
            if shots:
                x, y = dot_on_screen(browser, figure)
                browser.move(x, y)
                browser.shot(shots / f"{name}-reading.png")
        switch_stack(browser)
        switch_theme(browser)
        check(browser.run("return document.querySelectorAll('script').length") == 1, f"{name}: a foreign script")
        check_quiet(browser, page)
    finally:
        browser.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--shots", type=pathlib.Path, help="folder for pictures")
    arguments.add_argument("pages", nargs="*", type=pathlib.Path, help="reports; default: those the tests wrote")
    asked = arguments.parse_args()
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            sys.exit(f"{program} is not there: apt-get install -y chromium chromium-driver")
    pages = asked.pages or sorted(PAGES.glob("*.html"))
    if not pages:
        sys.exit(f"no pages in {PAGES}: run cargo test --release -p roofline-lab --test report first")
    failed = 0
    for page in pages:
        for scheme in ("light", "dark"):
            started = time.monotonic()
            try:
                test(page, scheme, asked.shots)
                print(f"ok      {page.name} {scheme} ({time.monotonic() - started:.1f} s)")
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {page.name} {scheme}: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
