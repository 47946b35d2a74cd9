"""The whole flow, and rows W10, W13, W22, W23, in a real browser; screenshots go to the test's folder."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from studio_server import Api, Served

import vltrack

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium with its driver: apt install chromium-driver"
)
HOSTILE = "<img src=x onerror=window.hit=1><script>window.hit=1</script>\"'><svg/onload=window.hit=1>"
IDLE = "document.getElementById('cancel').disabled && document.getElementById('job-text').textContent === ''"


class Page:
    """A browser window on a studio."""

    def __init__(self, served: Served, folder: Path, *, dark: bool = False, width: int = 1280) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--window-size={width},900",
        ):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.served, self.folder, self.dark = served, folder, dark
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path: str = "/") -> None:
        self.driver.get(self.served.address + path)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, seconds: float = 60) -> Any:
        """Wait until a script is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)
        return found

    def by(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def click(self, name: str) -> None:
        self.until(f"!document.getElementById('{name}').disabled")
        self.by(name).click()

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.folder / f"{'dark' if self.dark else 'light'}-{name}.png"))

    def drag(self, box: tuple[float, float, float, float]) -> None:
        """Drag a box, in pixels of the frame."""
        place = self.run("return document.getElementById('overlay').getBoundingClientRect().toJSON()")
        facts = self.run("return import('/page/state.js').then((module) => module.state.video.facts)")
        scale, (x, y, w, h) = place["width"] / facts["width"], box
        middle = (place["width"] / 2, place["height"] / 2)
        overlay = self.by("overlay")
        start = (round(x * scale - middle[0]), round(y * scale - middle[1]))
        ActionChains(self.driver).move_to_element_with_offset(overlay, *start).click_and_hold().move_by_offset(
            round(w * scale / 2), round(h * scale / 2)
        ).move_by_offset(round(w * scale / 2), round(h * scale / 2)).release().perform()

    def to_frame(self, frame: int) -> None:
        self.run(
            "const field = document.getElementById('frame-number'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('change'))",
            frame,
        )
        self.until(f"document.getElementById('stage').dataset.shown === '{frame}'")

    def box(self) -> list[float]:
        return [float(self.by(f"box-{side}").get_property("value")) for side in "xywh"]

    def keys(self, *keys: str) -> None:
        self.run("document.activeElement.blur()")
        ActionChains(self.driver).send_keys(*keys).perform()

    def errors(self) -> list[str]:
        """What the browser has complained about."""
        return [each["message"] for each in self.driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]

    def serious(self) -> list[str]:
        """Serious findings of axe-core."""
        axe = pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed").Axe(self.driver)
        self.run(Path(axe.script_url).read_text("utf-8"))
        found = axe.run()["violations"]
        return [
            f"{each['id']}: {node['html'][:120]}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]


@pytest.fixture
def open_page(serve: Callable[..., Served], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def make(served: Served | None = None, **options: Any) -> Page:
        pages.append(Page(served or serve(), tmp_path, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.driver.quit()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.fault("W13")
def test_from_a_sentence_to_a_corrected_file(
    dark: bool, open_page: Callable[..., Page], clip: Path, tmp_path: Path
) -> None:
    page = open_page(dark=dark, width=1024 if dark else 1280)
    page.open()
    page.until("document.querySelector('#clips button')")
    page.shot("1-start")
    assert page.serious() == []
    page.by("file").send_keys(str(clip))
    page.until("document.getElementById('stage').dataset.shown === '0'")
    page.by("sentence").send_keys("the small silver car")
    page.click("find")
    page.until("document.querySelector('#candidates button')")
    page.shot("2-found")
    assert page.serious() == []
    assert "decides" in page.by("words-say").text
    page.click("add")
    page.click("track")
    page.until("document.getElementById('job-bar').value > 0")
    page.shot("3-tracking")
    page.until(IDLE)
    page.until("document.querySelector('#targets .state').textContent === '40 frames'")
    track = vltrack.track(clip, box=_start(page), text="the small silver car", end=5)
    assert _row(page, 4) == pytest.approx(track.boxes[4].tolist(), abs=0.01)
    page.to_frame(20)
    page.shot("4-tracked")
    wrong = page.box()
    drawn = (300.0, 120.0, 160.0, 110.0)
    page.drag((2.0, 2.0, 0.0, 0.0))  # a click beside everything changes nothing
    assert page.box() == wrong
    page.drag((20.0, 420.0, 60.0, 40.0))  # a new box; exact numbers are typed
    page.until("!document.getElementById('apply').disabled")
    for side, value in zip("xywh", drawn, strict=True):
        field = page.by(f"box-{side}")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value))
    assert page.box() == list(drawn)
    page.shot("5-box")
    page.click("apply")
    page.until("document.querySelector('#targets .state').textContent === '1 correction'")
    page.until(IDLE)
    assert page.box() == list(drawn)
    page.shot("6-corrected")
    assert page.serious() == []
    page.click("undo")
    page.until("!document.getElementById('redo').disabled")
    page.until(f"Math.abs(document.getElementById('box-x').value - {wrong[0]}) < 0.01")
    page.click("redo")
    page.until("document.getElementById('redo').disabled")
    page.to_frame(30)
    page.keys("n")
    page.until("document.querySelector('#targets .state').textContent === '2 corrections'")
    page.until(IDLE)
    page.shot("7-not-here")
    page.driver.find_element(By.CSS_SELECTOR, "aside summary").click()
    page.click("download")
    deadline = time.monotonic() + 30
    while not (found := list(tmp_path.glob("*.xml"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    root = ElementTree.parse(found[0]).getroot()  # noqa: S314 - ours
    boxes = {int(each.get("frame", "")): each for each in root.findall("track/box")}
    corners = [float(boxes[20].get(side, "")) for side in ("xtl", "ytl", "xbr", "ybr")]
    assert corners == pytest.approx([300, 120, 460, 230], abs=0.01)
    assert boxes[30].get("outside") == "1"
    assert page.errors() == []


def _start(page: Page) -> tuple[float, ...]:
    return tuple(page.run("return import('/page/state.js').then((m) => m.state.video.targets[0].start.box)"))


def _row(page: Page, frame: int) -> list[float]:
    script = "return import('/page/state.js').then((m) => [...m.state.rows.values()][0].get(arguments[0]).slice(0, 4))"
    return list(page.run(script, frame))


@pytest.mark.fault("W13")
def test_the_overlay_is_exact(open_page: Callable[..., Page]) -> None:
    """A box of the frame lies on the pixels that it names, and a drag gives the pixels that it passed."""
    page = open_page()
    page.open(f"/#{page.served.api.clip()}")
    page.until("document.getElementById('stage').dataset.shown === '0'")
    for box in ((100.0, 60.0, 200.0, 120.0), (0.0, 0.0, 854.0, 480.0)):
        corner = page.run(
            "return import('/page/stage.js').then((m) => [m.toPage([arguments[0], arguments[1]]),"
            "m.toPage([arguments[0] + arguments[2], arguments[1] + arguments[3]])])",
            *box,
        )
        place = page.run("return document.getElementById('picture').getBoundingClientRect().toJSON()")
        scale = place["width"] / 854
        expected = [[place["x"] + box[0] * scale, place["y"] + box[1] * place["height"] / 480]]
        expected += [[place["x"] + (box[0] + box[2]) * scale, place["y"] + (box[1] + box[3]) * place["height"] / 480]]
        assert corner == [pytest.approx(each, abs=0.01) for each in expected]
    page.drag((100.0, 60.0, 200.0, 120.0))
    assert page.box() == pytest.approx([100, 60, 200, 120], abs=2 / scale)


def test_a_frame_stands_at_one_place_and_nothing_moves(open_page: Callable[..., Page]) -> None:
    """Slider, film strip and lanes are aligned, and neither an answer nor targets move what is next to them."""
    page = open_page()
    api: Api = page.served.api
    video = api.clip()
    page.open(f"/#{video}")
    page.until("document.getElementById('stage').dataset.shown === '0'")
    rect = "document.querySelector('{}').getBoundingClientRect().toJSON()"
    parts = ("#picture", "#targets-title", "#correct-title", "#seek")
    still = f"return [{', '.join(map(rect.format, parts))}]"
    before = page.run(still)
    page.by("sentence").send_keys("the small silver car")
    page.click("find")
    page.until("document.querySelector('#candidates button')")
    assert page.run(still) == before
    labels = page.run("return JSON.parse(document.getElementById('overlay').dataset.labels)")
    wide, high = page.run("const it = document.getElementById('overlay'); return [it.width, it.height]")
    assert len(labels) == len(page.driver.find_elements(By.CSS_SELECTOR, "#candidates button"))
    for n, (x, y, w, h) in enumerate(labels):
        assert 0 <= x <= wide - w and 0 <= y <= high - h
        assert not any(x < a + c and a < x + w and y < b + d and b < y + h for a, b, c, d in labels[:n])
    page.click("add")
    for n in range(2, 6):
        page.until(f"document.querySelectorAll('.lane').length === {n - 1}")
        page.drag((100.0 * n, 100.0, 60.0, 60.0))
        page.click("add")
    page.until("document.querySelectorAll('.lane').length === 5")
    assert page.run(still) == before
    for part in ("#seek", "#film", ".lane canvas"):
        for frame in (0, 7, 39):
            page.to_frame(20)
            place, film = page.run(f"return [{rect.format(part)}, {rect.format('#film')}]")
            x = film["x"] + (frame + 0.5) / 40 * film["width"]
            actions = ActionChains(page.driver)
            offset = (round(x - place["x"] - place["width"] / 2), 0)
            actions.move_to_element_with_offset(page.driver.find_element(By.CSS_SELECTOR, part), *offset)
            actions.click().perform()
            page.until(f"document.getElementById('stage').dataset.shown === '{frame}'")
    for width in (1023, 800):
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.errors() == []


@pytest.mark.fault("W10")
def test_a_page_of_another_site_cannot_reach_the_studio(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    video = page.served.api.clip()
    target = page.served.api.target(video)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text("<!doctype html><title>evil</title>")
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path / "evil")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.driver.get(f"http://127.0.0.1:{server.server_address[1]}/")
        tried = page.driver.execute_async_script(
            """
            const [base, video, target, done] = arguments;
            const body = JSON.stringify({ start: { frame: 0, box: [1, 1, 9, 9] } });
            const tries = [
              () => fetch(`${base}/api/videos/${video}`, { method: "DELETE" }),
              () => fetch(`${base}/api/targets/${target}`, { method: "DELETE", mode: "no-cors" }),
              () => fetch(`${base}/api/videos/${video}/targets`, { method: "POST", body, mode: "no-cors" }),
              () => fetch(`${base}/api/videos/${video}/targets`, { method: "POST", body, mode: "no-cors",
                headers: { "content-type": "text/plain" } }),
              () => fetch(`${base}/api/state`).then((answer) => answer.json()),
              () => new Promise((good, bad) => { const image = new Image(); image.onload = good; image.onerror = bad;
                image.src = `${base}/api/videos/${video}/frames/0`; }),
              () => new Promise((good, bad) => { const socket = new WebSocket(
                `${base.replace("http", "ws")}/api/state`); socket.onopen = good; socket.onerror = bad; }),
            ];
            const outcome = (each) => each().then((answer) => answer?.type ?? "read", () => "refused");
            Promise.all(tries.map(outcome)).then(done);
            """,
            page.served.address, video, target,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert set(tried) <= {"refused", "opaque"}
    view = page.served.api("GET", f"/api/videos/{video}")
    assert [each["id"] for each in view["targets"]] == [target]


@pytest.mark.fault("W22")
def test_hostile_text_is_shown_and_not_run(open_page: Callable[..., Page], clip: Path) -> None:
    page = open_page()
    api: Api = page.served.api
    video = api.upload(clip, name=HOSTILE.replace("/", "\u2215") + ".mp4")
    target = api.target(video)
    api("PATCH", f"/api/targets/{target}", json={"name": HOSTILE[:60]})
    page.open()
    page.until("document.querySelector('#known a')")
    page.open(f"/#{video}")
    page.until("document.getElementById('stage').dataset.shown === '0'")
    page.until("document.querySelector('#targets .pick')")
    page.by("sentence").send_keys(f"{HOSTILE} car")
    page.click("find")
    page.until("!document.getElementById('find').disabled && (document.querySelector('#candidates button') || "
               "document.getElementById('status').textContent)")  # fmt: skip
    refused = page.run(
        "const script = document.createElement('script'); script.textContent = 'window.hit = 1';"
        "document.body.append(script);"
        "const holder = document.createElement('div'); holder.innerHTML = arguments[0]; document.body.append(holder);"
        "return typeof window.hit",
        HOSTILE,
    )
    time.sleep(0.3)
    assert refused == "undefined"
    assert page.run("return typeof window.hit") == "undefined"
    assert "<img" in page.by("video-name").text
    assert any("Content Security Policy" in each for each in page.errors())  # of what this test has put in


@pytest.mark.fault("W23")
def test_the_page_is_the_same_after_a_refresh_in_a_second_tab_and_after_the_server_was_away(
    open_page: Callable[..., Page], long_video: Path
) -> None:
    page = open_page()
    api: Api = page.served.api
    video = api.upload(long_video)
    target = api.target(video, box=[20, 40, 30, 30])
    page.open(f"/#{video}")
    page.click("track")
    page.until("document.getElementById('job-bar').value > 0")
    page.driver.refresh()
    page.until("document.getElementById('job-bar').value > 0 && !document.getElementById('cancel').disabled")
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open(f"/#{video}")
    page.until("document.getElementById('job-bar').value > 0 && !document.getElementById('cancel').disabled")
    page.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    time.sleep(1)
    online = {**offline, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    seen = page.run("return document.getElementById('job-bar').value")
    page.until(f"document.getElementById('job-bar').value > {seen}")
    page.click("cancel")
    page.until("document.getElementById('job-text').textContent.includes('canceled')")
    rows = len(api("GET", f"/api/targets/{target}/rows")["rows"])
    page.until(f"document.querySelector('#targets .state').textContent === '{rows} frames'")
    page.driver.close()
    page.driver.switch_to.window(first)
    page.until(f"document.querySelector('#targets .state').textContent === '{rows} frames'")
    page.click("home")
    page.until("document.querySelector('#known a') && !document.getElementById('start').hidden")
    page.run("history.back()")
    page.until("!document.getElementById('work').hidden && document.querySelector('#targets .state')")


def test_keys_play_step_and_seek(open_page: Callable[..., Page]) -> None:
    page = open_page()
    api: Api = page.served.api
    video = api.clip()
    target = api.target(video)
    api.finished(api.track(video, target), "done")
    page.open(f"/#{video}")
    page.until("document.getElementById('stage').dataset.shown === '0'")
    page.until("!document.getElementById('doubt-next').disabled")
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.until("document.getElementById('stage').dataset.shown === '2'")
    page.keys("l")
    page.until("document.getElementById('stage').dataset.shown === '39'")
    page.keys("j")
    page.until("document.getElementById('stage').dataset.shown === '0'")
    look = api("GET", f"/api/targets/{target}/rows")["review"]
    page.keys("]")
    page.until(f"document.getElementById('stage').dataset.shown === '{look[0]}'")
    assert page.run("return document.getElementById('doubt-back').disabled")
    page.keys("[")
    assert page.by("status").text == "No doubtful frame before this one."
    page.keys("]", "[")
    page.until(f"document.getElementById('stage').dataset.shown === '{look[0]}'")
    page.keys(" ")
    page.until("document.getElementById('play').getAttribute('aria-label') === 'Pause'")
    page.keys("k")
    page.until("document.getElementById('play').getAttribute('aria-label') === 'Play'")
    assert page.errors() == []
