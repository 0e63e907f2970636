# SPDX-License-Identifier: Apache-2.0
"""The page of pairs in a real browser: what is clicked, pressed or tapped is what is stored."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from example_pairs import telling_pairs
from sfumato.studies.answers import open_answers, read_answers
from sfumato.studies.pairs_server import PairsServer
from sfumato.studies.preferences import preference
from sfumato.studies.sittings import Sittings

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs Chromium and its driver; on Debian: apt-get install chromium chromium-driver"
)
PAIRS = telling_pairs(count=4, side=32)
KINDS = {200: "real", 20: "first", 90: "second"}
WAIT = 30  # seconds; where other tests run beside, a browser is slow
# Of each picture of the page, how its first pixel looks: red says what it is, green which class.
PIXELS = """
return [...document.querySelectorAll("#pair img")].map(image => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(0, 0, 1, 1).data];
});
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    # Whoever runs tests as root or in a small container has no sandbox and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The browser with one empty window and an empty log."""
    chromium.get("about:blank")
    chromium.get_log("performance")
    chromium.get_log("browser")
    first = chromium.current_window_handle
    yield chromium
    for handle in chromium.window_handles:
        if handle != first:
            chromium.switch_to.window(handle)
            chromium.close()
    chromium.switch_to.window(first)
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[..., tuple[PairsServer, Callable[[], None]]]]:
    """Start a server; what comes with it stops it."""
    with ExitStack() as stack:

        def start(**options: Any) -> tuple[PairsServer, Callable[[], None]]:
            own = stack.enter_context(ExitStack())
            book = own.enter_context(open_answers(path, PAIRS.facts))
            sittings = Sittings(PAIRS, book, seconds=options.get("seconds", 60))
            server = own.enter_context(PairsServer(PAIRS, sittings, **options))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            own.callback(thread.join)
            own.callback(server.shutdown)
            return server, own.close

        yield start


def until(browser: webdriver.Chrome, told: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, WAIT, poll_frequency=0.03).until(lambda _: told())


def shown(browser: webdriver.Chrome, name: str) -> bool:
    return browser.find_element(By.ID, name).is_displayed()


def begin(browser: webdriver.Chrome, url: str, name: str = "") -> None:
    browser.get(url)
    browser.find_element(By.ID, "name").send_keys(name, Keys.ENTER)
    until(browser, lambda: shown(browser, "pair"))


def heading(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "who").text


def drawn(browser: webdriver.Chrome) -> Any:
    """What the pixels look like, or None while a picture is still to come."""
    seen = browser.execute_script(PIXELS)
    return seen if all(pixel[0] in KINDS for pixel in seen) else None


def look(browser: webdriver.Chrome) -> tuple[int, str, str]:
    """The class that the page shows, and the rows on the left and on the right, by what their pixels look like."""
    real, left, right = until(browser, lambda: drawn(browser))
    assert KINDS[real[0]] == "real"
    assert real[1] == left[1] == right[1]
    return real[1], KINDS[left[0]], KINDS[right[0]]


def go_on(browser: webdriver.Chrome, act: Callable[[], object]) -> None:
    """Do something and wait until the next pair, or whatever comes after the last, is there."""
    before = (heading(browser), browser.find_element(By.ID, "real").get_attribute("src"))
    act()

    def next_is_there() -> bool:
        now = (heading(browser), browser.find_element(By.ID, "real").get_attribute("src"))
        return not shown(browser, "pair") or (now != before and not browser.find_elements(By.CSS_SELECTOR, ".taken"))

    until(browser, next_is_there)


def press(browser: webdriver.Chrome, key: str) -> None:
    webdriver.ActionChains(browser).send_keys(key).perform()


def tap(browser: webdriver.Chrome, name: str) -> None:
    finger = ActionBuilder(browser, mouse=PointerInput(interaction.POINTER_TOUCH, "finger"))
    finger.pointer_action.move_to(browser.find_element(By.ID, name)).pointer_down().pointer_up()
    finger.perform()


def stored(path: Path) -> list[tuple[str, int, str, str]]:
    return [(one.participant, one.pair, one.outcome, one.left) for one in read_answers(path)[1]]


def test_what_is_clicked_pressed_and_tapped_is_stored(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve()
    begin(browser, server.url, "anna")
    expected = []
    for act, place in (
        (lambda: browser.find_element(By.ID, "left").click(), 1),
        (lambda: press(browser, Keys.ARROW_RIGHT), 2),
        (lambda: tap(browser, "right"), 2),
        (lambda: press(browser, Keys.ARROW_DOWN), 0),
    ):
        seen = look(browser)
        go_on(browser, act)
        expected.append(("anna", seen[0], str(seen[place]) if place else "skip", seen[1]))
    assert stored(path) == expected
    assert shown(browser, "end")
    assert sorted(pair for _, pair, _, _ in expected) == [0, 1, 2, 3]
    found = preference(*read_answers(path))
    assert found.first == sum(outcome == "first" for _, _, outcome, _ in expected)
    assert found.first + found.second == 3
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_nothing_is_fetched_from_elsewhere(browser: webdriver.Chrome, serve: Any) -> None:
    server, _ = serve()
    begin(browser, server.url)
    go_on(browser, lambda: press(browser, Keys.ARROW_LEFT))
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert len([url for url in asked if "/picture/" in url]) == 6
    assert not [url for url in asked if not url.startswith((server.url, "data:"))]


def test_a_page_that_is_loaded_again_goes_on_where_it_was(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve()
    begin(browser, server.url, "anna")
    go_on(browser, lambda: press(browser, Keys.ARROW_LEFT))
    assert heading(browser) == "anna · 2 of 4"
    seen = look(browser)
    browser.refresh()
    until(browser, lambda: shown(browser, "pair"))
    assert heading(browser) == "anna · 2 of 4"
    assert look(browser) == seen
    go_on(browser, lambda: press(browser, Keys.ARROW_RIGHT))
    assert stored(path)[1] == ("anna", seen[0], seen[2], seen[1])


def test_a_server_that_was_stopped_goes_on_with_the_same_name(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, stop = serve()
    begin(browser, server.url, "anna")
    go_on(browser, lambda: press(browser, Keys.ARROW_LEFT))
    seen = look(browser)
    stop()
    press(browser, Keys.ARROW_RIGHT)
    until(browser, lambda: shown(browser, "trouble"))
    assert "All answers before this one are stored" in browser.find_element(By.ID, "why").text
    assert len(stored(path)) == 1
    again, _ = serve()
    begin(browser, again.url, "anna")
    assert heading(browser) == "anna · 2 of 4"
    assert look(browser) == seen


def test_an_answer_that_could_not_be_stored_is_tried_again(
    browser: webdriver.Chrome, serve: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = serve()
    begin(browser, server.url, "anna")
    seen = look(browser)
    with monkeypatch.context() as patch:
        patch.setattr("sfumato.studies.answers.os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space")))
        press(browser, Keys.ARROW_LEFT)
        until(browser, lambda: shown(browser, "trouble"))
        assert "no space left on the disk" in browser.find_element(By.ID, "why").text
    assert shown(browser, "left")
    browser.execute_script("until = performance.now(); clock();")
    assert not shown(browser, "left")  # its time is over, whatever the server does
    browser.find_element(By.ID, "again").click()
    until(browser, lambda: shown(browser, "left"))
    assert heading(browser) == "anna · 2 of 4"
    assert stored(path) == [("anna", seen[0], seen[1], seen[1])]
    assert not shown(browser, "trouble")


def test_time_that_is_over_is_no_answer_and_twice_in_a_row_a_rest(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve(seconds=4)  # on a busy machine two are over before the page has been looked at
    begin(browser, server.url, "anna")
    assert browser.find_element(By.ID, "clock").text in ("4 s", "3 s", "2 s", "1 s")
    first = look(browser)
    go_on(browser, lambda: None)
    second = look(browser)
    until(browser, lambda: shown(browser, "rest"))
    assert stored(path) == [("anna", seen[0], "time", seen[1]) for seen in (first, second)]
    assert not shown(browser, "pair")
    assert browser.find_element(By.ID, "clock").text == ""
    browser.find_element(By.ID, "on").click()
    until(browser, lambda: shown(browser, "pair"))
    seen = look(browser)
    go_on(browser, lambda: press(browser, Keys.ARROW_LEFT))
    assert stored(path)[2:] == [("anna", seen[0], seen[1], seen[1])]


def test_two_people_in_two_windows(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve()
    begin(browser, server.url)
    anna = browser.current_window_handle
    browser.switch_to.new_window("tab")
    begin(browser, server.url)
    ben, expected = browser.current_window_handle, []
    for handle, name, key, place in ((ben, 2, Keys.ARROW_RIGHT, 2), (anna, 1, Keys.ARROW_LEFT, 1), (ben, 2, Keys.ARROW_LEFT, 1)):
        browser.switch_to.window(handle)
        seen = look(browser)
        go_on(browser, lambda key=key: press(browser, key))
        expected.append((f"participant {name}", seen[0], str(seen[place]), seen[1]))
    assert stored(path) == expected


def test_the_next_person_begins_at_the_same_window(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve()
    begin(browser, server.url, "anna")
    while not shown(browser, "end"):
        go_on(browser, lambda: press(browser, Keys.ARROW_DOWN))
    browser.find_element(By.ID, "other").click()
    browser.find_element(By.ID, "name").send_keys("ben", Keys.ENTER)
    until(browser, lambda: shown(browser, "pair"))
    assert heading(browser) == "ben · 1 of 4"
    assert len(stored(path)) == 4


def test_who_is_named_by_the_command_is_not_asked(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve(participant="anna")
    browser.get(server.url)
    assert not browser.find_elements(By.ID, "name")
    browser.find_element(By.CSS_SELECTOR, "#enter button").click()
    until(browser, lambda: shown(browser, "pair"))
    assert heading(browser) == "anna · 1 of 4"


@pytest.mark.parametrize(("width", "height"), [(360, 640), (320, 568), (1200, 800), (640, 400)])
def test_a_pair_fits_the_window_and_is_large_enough_to_touch(
    browser: webdriver.Chrome, serve: Any, width: int, height: int
) -> None:
    server, _ = serve()
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    begin(browser, server.url)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    left, right, skip = (browser.find_element(By.ID, name).rect for name in ("left", "right", "skip"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    for rect in (left, right, skip):
        assert min(rect["width"], rect["height"]) >= 44
    if height >= 560:
        assert browser.execute_script("return document.documentElement.scrollHeight") <= height


def test_the_keyboard_alone_will_do_and_shows_where_it_is(browser: webdriver.Chrome, serve: Any, path: Path) -> None:
    server, _ = serve()
    begin(browser, server.url, "anna")
    seen = look(browser)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "left"
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(browser, Keys.TAB)
    go_on(browser, lambda: press(browser, Keys.SPACE))
    assert stored(path) == [("anna", seen[0], seen[2], seen[1])]
