"""The diagnosis page in a real Chromium: from a dropped CT to its heatmap, by mouse, keyboard, and on a telephone."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import Page, chest, small_model, zipped
from PIL import Image
from places import REAL
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Playwright, expect, sync_playwright
from playwright.sync_api import Page as Tab

from ucadi.commands.phantom import phantom

CHROMIUM = os.environ.get("UCADI_CHROMIUM") or shutil.which("chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; UCADI_CHROMIUM names one")
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")

PATIENCE = 120_000
"""Milliseconds for a job on a busy machine."""

SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    with Page(small_model(folder), "--work", folder / "work") as running:
        yield running


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


def launch(playwright: Playwright, *flags: str) -> Browser:
    return playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking", *flags]
    )


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = launch(playwright, *SOFTWARE_WEBGL)
    yield running
    running.close()


class Complaints(list[str]):
    """What a browser finds wrong with a page: errors, refused code, requests to elsewhere."""

    def watch(self, tab: Tab, url: str) -> None:
        tab.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (event) => console.error('policy', event.violatedDirective, event.blockedURI))"
        )
        tab.on("console", self._console)
        tab.on("pageerror", lambda error: self.append(str(error)))
        tab.on("request", lambda r: r.url.startswith((url, "data:")) or self.append(r.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
            self.append(message.text)


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def tab(browser: Browser, server: Page, complaints: Complaints) -> Iterator[Tab]:
    """A tab at the page; nothing may be wrong with it at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield from _tab(context, server, complaints)


def _tab(context: BrowserContext, server: Page, complaints: Complaints) -> Iterator[Tab]:
    opened = context.new_page()
    complaints.watch(opened, server.url)
    opened.goto(server.url)
    expect(opened.locator("#send, #result, #failure").locator("visible=true")).not_to_have_count(0)
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def seen(server: Page, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A phantom whose result is there."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom(folder / "made", patients=1, prevalence="0,1,0,0", slices=44, matrix=128, workers=1)
    (case,) = (path for path in (folder / "made").iterdir() if path.is_dir())
    job = server.send(zipped(case, folder / "case.zip"))
    assert server.wait(job)["state"] == "done"
    return job


def open_result(tab: Tab, server: Page, job: str) -> Locator:
    """Opens a result; its canvas, once it shows the CT."""
    tab.goto(f"{server.url}/#{job}")
    tab.reload()
    return shown(tab)


def shown(tab: Tab) -> Locator:
    tab.wait_for_selector("#canvas[data-ready], #failure:not([hidden])", timeout=PATIENCE)
    expect(tab.locator("#result")).to_be_visible()
    tab.wait_for_timeout(300)  # a frame or two of a software renderer
    return tab.locator("#canvas")


def pixels(element: Locator) -> np.ndarray[Any, Any]:
    """What is seen of an element, int (rows, columns, RGB)."""
    element.scroll_into_view_if_needed()
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def coloured(picture: np.ndarray[Any, Any]) -> float:
    """The share of pixels that are orange or yellow: of a heatmap, as the CT is grey and the cross is blue."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    return float(((red - blue > 30) & (red >= green)).mean())


def test_a_dropped_phantom_shows_its_heatmap(tab: Tab, server: Page, tmp_path: Path) -> None:
    phantom(tmp_path / "made", patients=1, prevalence="0,1,0,0", slices=44, matrix=128, workers=1, seed=2)
    (case,) = (path for path in (tmp_path / "made").iterdir() if path.is_dir())
    scan = zipped(case, tmp_path / "Mustermann.zip")
    dropped = tab.evaluate_handle(
        """async (bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "Mustermann.zip"));
          return transfer;
        }""",
        list(scan.read_bytes()),
    )
    tab.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    expect(tab.locator("#wait")).to_be_visible()
    expect(tab.get_by_role("progressbar")).to_be_visible()
    expect(tab.get_by_role("status")).to_contain_text("Step", timeout=PATIENCE)
    canvas = shown(tab)
    with_heatmap = pixels(canvas)
    assert coloured(with_heatmap) > 0.01
    assert with_heatmap.std() > 20  # and the CT is under it
    tab.get_by_label("Heatmap shown from").fill("20")
    assert coloured(pixels(canvas)) > coloured(with_heatmap)
    tab.get_by_label("Heatmap opacity").fill("0")
    assert coloured(pixels(canvas)) < 0.001
    rows = tab.locator("#probabilities tbody tr")
    expect(rows).to_have_count(4)
    numbers = [float(row.locator(".number").first.inner_text().split()[0]) for row in rows.all()]
    assert numbers == sorted(numbers, reverse=True)
    assert sum(numbers) == pytest.approx(1, abs=0.003)
    expect(tab.locator("#trust")).to_contain_text("Not calibrated")
    assert "Mustermann" not in "".join(server.told)
    tab.get_by_role("button", name="Remove this CT now").click()
    expect(tab.locator("#send")).to_be_visible()


@pytest.mark.slow
@needs_real_data
def test_a_real_series_as_a_folder(tab: Tab) -> None:
    tab.set_input_files("#folder", REAL / "chest-noncontrast-siemens")
    canvas = shown(tab)
    assert coloured(pixels(canvas)) > 0.01
    expect(tab.locator("#place")).to_contain_text("of 98 from the feet")
    expect(tab.locator("#quality")).to_contain_text("B31f")
    with tab.expect_popup() as popup:
        tab.get_by_role("link", name="Quality report").click()
    expect(popup.value.locator("h1")).to_have_text("Quality of preprocessed CTs")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Report (HTML)").click()
    assert "Report on a chest CT" in download.value.path().read_text()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Heatmap (NIfTI)").click()
    assert download.value.path().read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.slow
def test_the_heatmap_of_another_diagnosis(tab: Tab, tmp_path: Path) -> None:
    scan = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")
    for name in ("Bacterial pneumonia", "Healthy lungs"):
        tab.get_by_label("Heatmap of").select_option(name)
        tab.set_input_files("#files", scan)
        shown(tab)
        expect(tab.locator("#explained")).to_contain_text(f"Grad-CAM for: {name}, probability 0.")
        tab.get_by_role("button", name="Send another CT").click()


def test_slices_windows_and_planes(tab: Tab, server: Page, seen: str) -> None:
    canvas = open_result(tab, server, seen)
    tab.get_by_label("Heatmap opacity").fill("0")
    slider = tab.get_by_label("Slice", exact=True)
    assert slider.get_attribute("max") == "44"
    pictures = []
    for number in ("10", "30"):
        slider.fill(number)
        expect(tab.locator("#place")).to_contain_text(f"Slice {number} of 44")
        expect(slider).to_have_attribute("aria-valuetext", f"{number} of 44, from the feet")
        pictures.append(pixels(canvas))
    assert np.abs(pictures[0] - pictures[1]).mean() > 3
    for window in ("Mediastinum", "All there is", "Lung"):
        before = pixels(canvas)
        tab.get_by_label(window).check()
        assert np.abs(pixels(canvas) - before).mean() > 3, window
    before = pixels(canvas)
    tab.get_by_label("Three planes").check()
    assert np.abs(pixels(canvas) - before).mean() > 3
    tab.get_by_label("Axial").check()
    canvas.hover()
    tab.mouse.wheel(0, 300)
    expect(tab.locator("#place")).not_to_contain_text("Slice 30 of 44")
    assert slider.input_value() != "30"


def test_a_region_is_shown_where_it_is(tab: Tab, server: Page, seen: str) -> None:
    open_result(tab, server, seen)
    regions = tab.locator("#regions tbody tr")
    if not regions.count():
        expect(tab.locator("#no-regions")).to_be_visible()
        return
    region = json.loads(server.result(seen, "result.json"))["regions"][0]
    tab.get_by_label("Slice", exact=True).fill("1")
    regions.first.get_by_role("button").click()
    # the heaviest point of the region lies in the region's slices, and is where the heatmap is strong
    expect(tab.locator("#place")).not_to_contain_text("Slice 1 of 44")
    assert region["peak"] > 0.25
    heat = float(tab.locator("#place").inner_text().rpartition("heatmap ")[2])
    assert heat > 0.1


def test_everything_can_be_done_by_keyboard(tab: Tab, tmp_path: Path) -> None:
    scan = zipped(chest(tmp_path / "chest"), tmp_path / "chest.zip")
    tab.on("filechooser", lambda _: None)  # from now on the browser hands its dialogs over
    press, focus = tab.keyboard.press, "document.activeElement.id || document.activeElement.textContent.trim()"
    press("Tab")
    assert tab.evaluate(focus) == "Skip to the content"
    press("Tab")
    assert tab.evaluate(focus) == "diagnosis"
    press("Tab")
    assert tab.evaluate(focus) == "files"
    with tab.expect_file_chooser() as chooser:
        press("Space")
    chooser.value.set_files(scan)
    shown(tab)
    assert tab.evaluate(focus) == "result-title"  # what a screen reader goes on with
    order = []
    for _ in range(40):
        press("Tab")
        order.append(tab.evaluate(focus))
        if order[-1] == "slice":
            before = tab.get_by_label("Slice", exact=True).input_value()
            press("ArrowRight" if before != "48" else "ArrowLeft")
            assert tab.get_by_label("Slice", exact=True).input_value() != before
        if order[-1] == "remove":
            break
    wanted = [
        "slice",
        "least",
        "opacity",
        "quality-report",
        "Report (HTML)",
        "Heatmap (NIfTI)",
        "Send another CT",
        "remove",
    ]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places)
    press("Enter")
    expect(tab.locator("#send")).to_be_visible()
    assert tab.evaluate(focus) == "files"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_that_a_screen_reader_would_stumble_over(
    browser: Browser, server: Page, complaints: Complaints, seen: str, tmp_path: Path, scheme: Any
) -> None:
    failed = server.send(chest(tmp_path / "short", slices=12))
    server.wait(failed)
    context = browser.new_context(color_scheme=scheme)
    for tab in _tab(context, server, complaints):
        _accessible(tab)
        tab.goto(f"{server.url}/#{failed}")
        tab.reload()
        expect(tab.locator("#failure")).to_contain_text("too few slices (12 of 40)")
        _accessible(tab)
        open_result(tab, server, seen)
        _accessible(tab)
        for path in ("/sign-in", "/sign-in?refused", "/api"):
            tab.goto(server.url + path)
            _accessible(tab)


def _accessible(tab: Tab) -> None:
    found = Axe().run(tab).response["violations"]
    assert [(f["id"], [node["html"] for node in f["nodes"]]) for f in found] == []


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_telephone(browser: Browser, server: Page, complaints: Complaints, seen: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True)
    for tab in _tab(context, server, complaints):
        fits = "document.scrollingElement.scrollWidth <= window.innerWidth"
        assert tab.evaluate(fits)
        canvas = open_result(tab, server, seen)
        assert tab.evaluate(fits)
        box = canvas.bounding_box()
        assert box is not None
        assert box["width"] > 0.7 * width
        assert box["height"] < 0.7 * 780  # there is room beside it to scroll the page
        assert coloured(pixels(canvas)) > 0.01
        for button in tab.get_by_role("button").all():
            held = button.bounding_box()
            assert held is None or held["x"] + held["width"] <= width


def test_a_browser_without_webgl_shows_pictures(playwright: Playwright, server: Page, seen: str) -> None:
    browser = launch(playwright, "--disable-3d-apis")
    try:
        tab = browser.new_page()
        tab.goto(f"{server.url}/#{seen}")
        image = tab.get_by_role("img", name="Slices of the CT under the heatmap")
        expect(image).to_be_visible(timeout=PATIENCE)
        assert tab.evaluate("document.querySelector('#montage img').naturalWidth") > 100
        expect(tab.locator("#canvas")).to_be_hidden()
    finally:
        browser.close()


def test_the_address_leads_back_until_it_is_removed(
    tab: Tab, server: Page, complaints: Complaints, tmp_path: Path
) -> None:
    tab.set_input_files("#files", zipped(chest(tmp_path / "chest", slices=12), tmp_path / "short.zip"))
    expect(tab.locator("#failure")).to_contain_text("too few slices (12 of 40)", timeout=PATIENCE)
    job = tab.url.rpartition("#")[2]
    tab.reload()
    expect(tab.locator("#failure")).to_contain_text("too few slices (12 of 40)")
    assert complaints == []
    server.ask("DELETE", f"/api/jobs/{job}")
    tab.goto("about:blank")
    tab.goto(f"{server.url}/#{job}")
    expect(tab.locator("#failure")).to_contain_text("not here any more")
    assert len(complaints) == 1
    assert "404" in complaints.pop()
    tab.get_by_role("button", name="Send another CT").click()
    expect(tab.locator("#send")).to_be_visible()


def test_a_token_is_typed_once(browser: Browser, tmp_path: Path) -> None:
    token = tmp_path / "page.token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    with Page(small_model(tmp_path), "--work", tmp_path / "work", "--token-file", token) as server:
        tab = browser.new_context().new_page()
        tab.goto(server.url)
        tab.get_by_label("Token").fill("not this one, surely")
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("alert")).to_have_text("That is not the token.")
        tab.get_by_label("Token").fill("0123456789abcdef0123456789abcdef")
        tab.keyboard.press("Enter")
        expect(tab.locator("#send")).to_be_visible()
        assert tab.evaluate("document.cookie") == ""
        tab.reload()
        expect(tab.locator("#send")).to_be_visible()
        tab.get_by_role("button", name="Sign out").click()
        expect(tab.get_by_label("Token")).to_be_visible()
        tab.context.close()


EVIL = b"""<!doctype html><title>elsewhere</title><iframe src="URL/"></iframe>
<form id="form" method="post" enctype="text/plain" action="URL/api/jobs"><input name="a" value="b"></form>"""


def test_another_site_in_the_same_browser_gets_nothing(browser: Browser, server: Page, seen: str) -> None:
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL.replace(b"URL", server.url.encode()))

        def log_message(self, *_: object) -> None:
            pass

    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=evil.serve_forever, daemon=True)
    thread.start()
    tab = browser.new_context().new_page()
    try:
        jobs = len([event for event in server.events if event["event"] == "new"])
        # localhost and 127.0.0.1 are two sites, and two ports of one are two origins
        for address in ("localhost", "127.0.0.1"):
            tab.goto(f"http://{address}:{evil.server_address[1]}/")
            attempt = """async ([url, method, path, mode]) => {
              try {
                const body = method === "GET" ? null : "x";
                const answer = await fetch(url + path, { method, mode, credentials: "include", body });
                return answer.type === "opaque" ? "opaque" : await answer.text();
              } catch { return "refused"; }
            }"""
            for method, path in (
                ("GET", f"/api/jobs/{seen}"),
                ("POST", "/api/jobs"),
                ("PUT", f"/api/jobs/{seen}/files/0"),
                ("DELETE", f"/api/jobs/{seen}"),
            ):
                assert tab.evaluate(attempt, [server.url, method, path, "cors"]) == "refused"
            assert tab.evaluate(attempt, [server.url, "POST", "/api/jobs", "no-cors"]) in ("opaque", "refused")
            assert not any(
                frame.url.startswith(server.url) and frame.content().count("Send a CT") for frame in tab.frames
            )
            with tab.expect_navigation():
                tab.evaluate("document.getElementById('form').submit()")
            assert "asked by another site" in tab.content()
        assert len([event for event in server.events if event["event"] == "new"]) == jobs
        assert server.show(seen)["state"] == "done"
    finally:
        tab.context.close()
        evil.shutdown()
        evil.server_close()
        thread.join()
