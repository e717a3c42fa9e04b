"""The web page in a real browser, at the real service: what a visitor does, and that all can do it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect
from scipy import signal
from support.browser import DESK, PHONE, Visit, chromium, visit
from support.recordings import encoded, note, wav_note
from support.serving import Serving

from timbrel.audio import SAMPLE_RATE, read, resample

HITS = 40
MIDI_KEYBOARD = """
window.midiInput = {};
navigator.requestMIDIAccess = async () => ({ inputs: new Map([["keyboard", window.midiInput]]) });
"""
# The first bytes of each recording that is sent: Playwright shows no files.
SENT = """
const ask = window.fetch;
window.sent = [];
window.fetch = async (path, init) => {
  const audio = init?.body instanceof FormData ? init.body.get("audio") : null;
  if (audio) window.sent.push(await audio.slice(0, 4).text());
  return ask(path, init);
};
"""
# Decoding waits, once, until `held` is called.
HELD_DECODER = """
const decode = OfflineAudioContext.prototype.decodeAudioData;
window.decoded = 0;
OfflineAudioContext.prototype.decodeAudioData = async function (data) {
  if (window.hold) {
    window.hold = false;
    await new Promise((release) => (window.held = release));
  }
  const buffer = await decode.call(this, data);
  window.decoded++;
  return buffer;
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    heard.write_bytes(wav_note(sample_rate=48_000, seconds=4.0))
    with chromium(heard) as started:
        yield started


@pytest.fixture
def visitor(browser: Browser, serving: Serving) -> Iterator[Visit]:
    with visit(browser, serving.url) as arrived:
        yield arrived


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_note())
    return path


def _library(http: httpx.Client) -> list[dict[str, Any]]:
    return list(http.get("/patches").json()["patches"])


def _patch(http: httpx.Client, name: str) -> dict[str, Any]:
    return next(patch for patch in _library(http) if patch["name"] == name)


def _search(visitor: Visit, recording: Path) -> None:
    visitor.page.get_by_label("Recording to search with").set_input_files(recording)
    expect(visitor.page.locator(".hits li").first).to_be_visible()


def _names(page: Page) -> list[str]:
    """The hits' names, in order."""
    return [text.split("\n")[0] for text in page.locator(".hit .name").all_inner_texts()]


def _touch(visitor: Visit, x: float, y: float) -> None:
    visitor.page.mouse.move(*visitor.pixel(x, y))
    visitor.page.mouse.down()
    visitor.page.mouse.up()


def _painted(canvas: Locator) -> int:
    """How many colours a canvas shows."""
    return int(
        canvas.evaluate(
            """(canvas) => {
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
    )


# --- the map -----------------------------------------------------------------------------------------------------


def test_the_first_thing_to_click_sounds(visitor: Visit) -> None:
    start = visitor.page.get_by_role("button", name="Play a sound")
    expect(start).to_be_visible()
    visitor.picture("start")
    start.click()
    visitor.until(visitor.sounds, "something sounds")
    visitor.until(lambda: len(visitor.notes()) == 2, "the whole note is asked for")
    assert [each["seconds"] for each in visitor.notes()] == [0.6, 3.5]
    expect(start).to_be_hidden()


def test_a_dot_says_its_name_and_sounds_at_the_chosen_key(visitor: Visit, http: httpx.Client) -> None:
    patch = _patch(http, "Tone 5")
    visitor.page.get_by_role("radio", name="E4", exact=True).click()
    visitor.until(lambda: len(visitor.notes()) == 2, "the key sounds")
    visitor.page.mouse.move(*visitor.pixel(patch["x"], patch["y"]))
    expect(visitor.page.locator(".readout")).to_have_text("Tone 5 keyboard")
    visitor.picture("map-hover")
    _touch(visitor, patch["x"], patch["y"])
    visitor.until(lambda: len(visitor.notes()) == 4, "the place sounds")
    short, whole = visitor.notes()[2:]
    assert (short["pitch"], whole["pitch"]) == (64, 64)
    assert math.hypot(short["x"] - patch["x"], short["y"] - patch["y"]) < 0.002
    assert (short["seconds"], whole["seconds"]) == (0.6, 3.5)


def test_a_place_touched_again_is_not_computed_again(visitor: Visit) -> None:
    with visitor.page.expect_response(
        lambda answer: '"seconds":3.5' in (answer.request.post_data or "")
    ) as whole:
        _touch(visitor, 0.35, 0.3)
    whole.value.finished()
    visitor.until(lambda: len(visitor.sounds()) == 1, "it sounds")
    asked = len(visitor.notes())
    again = itertools.count(1)
    # The answer is there; the page may still be decoding it.
    visitor.until(
        lambda: (_touch(visitor, 0.35, 0.3), visitor.sounds()[-1])[1] == "kept" or next(again) < 0, "kept"
    )
    assert len(visitor.notes()) <= asked + next(again)


def test_dragging_plays_along_the_way_and_ends_on_a_whole_note(visitor: Visit) -> None:
    page = visitor.page
    page.mouse.move(*visitor.pixel(-0.4, 0.2))
    page.mouse.down()
    for x in (-0.3, -0.1, 0.1, 0.3):
        sounds = len(visitor.sounds())
        page.mouse.move(*visitor.pixel(x, 0.2))
        visitor.until(lambda sounds=sounds: len(visitor.sounds()) > sounds, "the next place sounds")
    page.mouse.up()
    visitor.until(lambda: visitor.notes()[-1]["seconds"] == 3.5, "the last place is asked for whole")
    places = [each["x"] for each in visitor.notes() if each["seconds"] == 0.6]
    assert places == pytest.approx([-0.4, -0.3, -0.1, 0.1, 0.3], abs=0.01)
    assert visitor.notes()[-1]["x"] == pytest.approx(0.3, abs=0.01)


def test_a_fast_drag_asks_for_one_note_at_a_time(visitor: Visit) -> None:
    page = visitor.page
    running: set[Request] = set()
    most = 0

    def began(request: Request) -> None:
        nonlocal most
        if request.url.endswith("/synthesize"):
            running.add(request)
            most = max(most, len(running))

    page.on("request", began)
    page.on("requestfinished", lambda request: running.discard(request))
    page.on("requestfailed", lambda request: running.discard(request))
    page.mouse.move(*visitor.pixel(-0.6, -0.1))
    page.mouse.down()
    page.mouse.move(*visitor.pixel(0.6, -0.1), steps=60)
    page.mouse.up()
    visitor.until(
        lambda: visitor.notes() and visitor.notes()[-1]["x"] == pytest.approx(0.6, abs=0.01),
        "its end is there",
    )
    assert len(visitor.notes()) < 50
    assert most <= 2  # a short note, and the whole one that it takes the place of


def test_until_the_service_answers_a_patch_nearby_is_heard(visitor: Visit, http: httpx.Client) -> None:
    page = visitor.page
    patch = _patch(http, "Tone 8")
    waiting: list[Route] = []
    page.route("**/synthesize", lambda route: waiting.append(route))
    # The preview at the start's place is fetched anyhow, when the map is there; this one when the pointer comes near.
    visitor.until(lambda: any("/preview" in each.url for each in visitor.asked), "the map is there")
    with page.expect_response(f"**/patches/{patch['patch_id']}/preview") as fetched:
        page.mouse.move(*visitor.pixel(patch["x"], patch["y"]))
    fetched.value.finished()
    # What was fetched is decoded a moment later.
    visitor.until(
        lambda: (_touch(visitor, patch["x"], patch["y"]), page.wait_for_timeout(150), visitor.sounds())[2],
        "it is heard",
    )
    assert visitor.sounds()[0] == "nearby"
    assert waiting  # and never answered


def test_a_key_struck_shortly_is_heard(visitor: Visit) -> None:
    expect(visitor.page.get_by_role("button", name="Play a sound")).to_be_visible()
    visitor.page.keyboard.press("g")
    visitor.until(visitor.sounds, "it is heard")
    assert visitor.notes()[0]["pitch"] == 67


def test_a_finger_plays_and_does_not_scroll(browser: Browser, serving: Serving) -> None:
    with visit(browser, serving.url, size=PHONE, touch=True) as visitor:
        page = visitor.page
        expect(page.get_by_role("button", name="Play a sound")).to_be_visible()
        page.touchscreen.tap(*visitor.pixel(0.5, 0.5))
        visitor.until(visitor.sounds, "the place sounds")
        assert visitor.notes()[0]["x"] == pytest.approx(0.5, abs=0.02)
        assert page.evaluate("scrollY") == 0


def test_the_legend_filters_and_zoom_enlarges(visitor: Visit, http: httpx.Client) -> None:
    page = visitor.page
    patch = _patch(http, "Tone 5")
    legend = page.get_by_role("group", name="Families shown on the map")
    legend.get_by_role("button", name="brass").click()
    expect(legend.get_by_role("button", name="brass")).to_have_attribute("aria-pressed", "true")
    expect(legend.get_by_role("button", name="keyboard")).to_have_attribute("aria-pressed", "false")
    page.mouse.move(*visitor.pixel(patch["x"], patch["y"]))
    expect(page.locator(".readout")).to_be_empty()
    legend.get_by_role("button", name="keyboard").click()
    page.mouse.move(*visitor.pixel(patch["x"] + 0.01, patch["y"]))
    expect(page.locator(".readout")).to_have_text("Tone 5 keyboard")
    # Zoomed in about the middle, the dot lies elsewhere; shown whole again, it is back.
    page.get_by_role("button", name="Zoom in").click()
    page.mouse.move(*visitor.pixel(1.6 * patch["x"], 1.6 * patch["y"]))
    expect(page.locator(".readout")).to_have_text("Tone 5 keyboard")
    page.get_by_role("button", name="Show the whole map").click()
    page.mouse.move(*visitor.pixel(patch["x"], patch["y"]))
    expect(page.locator(".readout")).to_have_text("Tone 5 keyboard")


def test_letters_and_midi_play_keys(browser: Browser, serving: Serving) -> None:
    with visit(browser, serving.url, before=MIDI_KEYBOARD) as visitor:
        page = visitor.page
        expect(page.get_by_role("button", name="Play a sound")).to_be_visible()
        page.keyboard.down("d")
        expect(page.get_by_role("radio", name="E4", exact=True)).to_have_attribute("aria-checked", "true")
        visitor.until(lambda: visitor.sounds(), "the letter sounds")
        page.keyboard.up("d")
        assert visitor.notes()[0]["pitch"] == 64
        page.get_by_role("button", name="Connect MIDI").click()
        expect(page.get_by_role("button", name="MIDI connected")).to_be_disabled()
        page.evaluate("window.midiInput.onmidimessage({ data: new Uint8Array([0x90, 55, 80]) })")
        visitor.until(lambda: len(visitor.sounds()) == 2, "the MIDI key sounds")
        page.evaluate("window.midiInput.onmidimessage({ data: new Uint8Array([0x80, 55, 0]) })")
        played = next(each for each in visitor.notes() if each["pitch"] == 55)
        assert played["velocity"] == 80


def test_a_path_plays_evenly_from_end_to_end(visitor: Visit) -> None:
    page = visitor.page
    page.get_by_role("button", name="Path").click()
    page.get_by_label("Steps").fill("5")
    page.mouse.move(*visitor.pixel(-0.5, -0.4))
    page.mouse.down()
    page.mouse.move(*visitor.pixel(0.5, 0.4), steps=4)
    page.mouse.up()
    visitor.picture("path")
    page.get_by_role("button", name="Play the path").click()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Play the path")).to_be_visible(timeout=20_000)
    assert [each["x"] for each in visitor.notes()] == pytest.approx([-0.5, -0.25, 0, 0.25, 0.5], abs=0.01)
    assert [each["y"] for each in visitor.notes()] == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4], abs=0.01)


def test_the_map_is_played_without_a_mouse(visitor: Visit, http: httpx.Client) -> None:
    page = visitor.page
    expect(page.get_by_role("button", name="Play a sound")).to_be_visible()
    canvas = page.get_by_role("application", name="Timbre map")
    for _ in range(12):
        page.keyboard.press("Tab")
        if canvas.evaluate("(canvas) => canvas === document.activeElement"):
            break
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator("p[aria-live]")).to_contain_text("0.30, -0.38, near Tone")
    page.keyboard.press("Enter")
    visitor.until(lambda: len(visitor.notes()) == 2, "the place sounds")
    assert (visitor.notes()[0]["x"], visitor.notes()[0]["y"]) == pytest.approx((0.3, -0.38))
    page.get_by_label("Find a patch").fill("tone 7")
    page.keyboard.press("Enter")
    visitor.until(lambda: len(visitor.notes()) == 4, "the patch's place sounds")
    patch = _patch(http, "Tone 7")
    assert (visitor.notes()[2]["x"], visitor.notes()[2]["y"]) == pytest.approx(
        (patch["x"], patch["y"]), abs=0.002
    )


# --- the search --------------------------------------------------------------------------------------------------


def test_a_recording_finds_what_the_service_finds(
    visitor: Visit, http: httpx.Client, recording: Path
) -> None:
    page = visitor.page
    _search(visitor, recording)
    answer = http.post("/search", files={"audio": recording.read_bytes()}, data={"k": str(HITS)}).json()
    assert _names(page) == [hit["name"] for hit in answer["hits"]][:10]
    for line, hit in zip(page.locator(".hit").all(), answer["hits"], strict=False):
        shown = [float(each) for each in line.locator(".distance b").all_inner_texts()]
        assert shown == pytest.approx([hit["stage1_distance"], hit["stage2_distance"]], abs=0.0051)
    asked = page.get_by_role("article", name="Your sound")
    expect(asked).to_contain_text(f"{answer['query']['f0_hz']:.1f} Hz")
    expect(asked).to_contain_text(f"{round(100 * answer['query']['confidence'])} %")
    expect(asked).to_contain_text("It has a clear pitch")
    expect(page.locator("p[aria-live]")).to_contain_text(f"Nearest: {answer['hits'][0]['name']}")
    place = http.post("/locate", files={"audio": recording.read_bytes()}).json()
    expect(asked).to_contain_text(f"{place['x']:.2f}, {place['y']:.2f}")
    assert _painted(asked.locator("canvas")) > 50


def test_a_hit_is_heard_seen_compared_and_taken_home(
    visitor: Visit, http: httpx.Client, recording: Path
) -> None:
    page = visitor.page
    _search(visitor, recording)
    line = page.locator(".hits li").nth(1)
    name = _names(page)[1]
    with page.expect_response("**/preview"):
        line.get_by_role("button").first.click()
    expect(line.get_by_role("img")).to_have_count(2)
    for canvas in line.get_by_role("img").all():
        visitor.until(lambda canvas=canvas: _painted(canvas) > 50, "both sounds are drawn")
    for button in ("A yours", "B this"):
        line.get_by_role("button", name=button).click()
        expect(line.get_by_role("button", name=button)).to_have_attribute("aria-pressed", "true")
    line.get_by_role("button", name="Stop comparing").click()
    expect(line.get_by_role("button", name="B this")).to_have_attribute("aria-pressed", "false")
    visitor.picture("search", whole=True)

    patch = _patch(http, name)
    with page.expect_download() as download:
        line.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == http.get(patch["links"]["patch"]).content
    assert download.value.suggested_filename.endswith(".syx")

    line.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("article", name="Your sound").get_by_role("heading")).to_have_text(f"Like {name}")
    like = http.post("/search", json={"like": patch["patch_id"], "k": HITS}).json()["hits"]
    visitor.until(lambda: _names(page) == [hit["name"] for hit in like][:10], "the like hits are there")


def test_filters_and_weights_change_the_hits(visitor: Visit, http: httpx.Client, recording: Path) -> None:
    page = visitor.page
    _search(visitor, recording)
    answer = http.post("/search", files={"audio": recording.read_bytes()}, data={"k": str(HITS)}).json()[
        "hits"
    ]
    served = [hit["name"] for hit in answer]
    page.get_by_text("Order by the service").click()
    page.get_by_role("slider", name="Instrument").fill("0")
    by_colour = [hit["name"] for hit in sorted(answer, key=lambda hit: hit["stage2_distance"])]
    visitor.until(lambda: _names(page) == by_colour[:10], "the tone colour orders them")
    page.get_by_role("slider", name="Tone colour").fill("0")
    page.get_by_role("slider", name="Instrument").fill("100")
    by_instrument = [hit["name"] for hit in sorted(answer, key=lambda hit: hit["stage1_distance"])]
    visitor.until(lambda: _names(page) == by_instrument[:10], "the instrument orders them")
    visitor.picture("weights", whole=True)
    page.get_by_role("button", name="Back to the service").click()
    visitor.until(lambda: _names(page) == served[:10], "the service's order is back")

    page.get_by_text("Filters").click()
    page.get_by_role("group", name="Families", exact=True).get_by_role("button", name="brass").click()
    brass = sorted(patch["name"] for patch in _library(http) if patch["family"] == "brass")
    visitor.until(lambda: _names(page) and set(_names(page)) <= set(brass), "only brass is there")


def test_brightness_is_measured_from_the_previews(visitor: Visit, http: httpx.Client, tmp_path: Path) -> None:
    """The query is one patch's own preview: no other is nearer to it in brightness and envelope."""
    patch = _patch(http, "Tone 9")
    path = tmp_path / "preview.mp3"
    path.write_bytes(http.get(patch["links"]["preview"]).content)
    _search(visitor, path)
    page = visitor.page
    page.get_by_text("Order by the service").click()
    for aspect, weight in {
        "Instrument": "0",
        "Tone colour": "0",
        "Brightness": "100",
        "Envelope": "100",
    }.items():
        page.get_by_role("slider", name=aspect).fill(weight)
    visitor.until(lambda: _names(page)[0] == "Tone 9", "it is the nearest to itself")


# The two filters of ITU-R BS.1770 at 48 kHz: second-order sections.
K_WEIGHTING = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585),
    (1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621),
)


def _loudness(data: bytes) -> float:
    """Of the loudest 400 ms, in LUFS, were the highest sample at full scale."""
    samples = resample(read(data), 48_000).samples.astype(np.float64)
    onset = int(np.argmax(np.abs(samples) > 0.01 * np.abs(samples).max()))
    samples = samples[onset : onset + round(2.2 * 48_000)]
    power = np.cumsum(signal.sosfilt(K_WEIGHTING, samples) ** 2)
    block = round(0.4 * 48_000)
    loudest = (power[block:] - power[:-block]).max() / block
    return float(10 * np.log10(loudest / np.abs(samples).max() ** 2) - 0.691)


def test_loudness_is_that_of_bs_1770_at_equal_peak(
    visitor: Visit, http: httpx.Client, tmp_path: Path
) -> None:
    """The order of the hits is that of what is measured here; how far the query was turned up changes nothing."""
    quiet = tmp_path / "quiet.wav"
    quiet.write_bytes(encoded(0.05 * note(24_000), 24_000, "WAV", "FLOAT"))
    page = visitor.page
    _search(visitor, quiet)
    page.get_by_text("Order by the service").click()
    for aspect, weight in {"Instrument": "0", "Tone colour": "0", "Loudness": "100"}.items():
        page.get_by_role("slider", name=aspect).fill(weight)
    mine = _loudness(quiet.read_bytes())
    theirs = {
        patch["name"]: abs(_loudness(http.get(patch["links"]["preview"]).content) - mine)
        for patch in _library(http)
    }
    assert max(theirs.values()) - min(theirs.values()) > 2.0

    def in_order() -> bool:
        apart = np.array([theirs[name] for name in _names(page)])
        return bool((np.diff(apart) > -0.25).all())  # the browser's MP3 decoder is another

    visitor.until(in_order, "the loudness orders them")


def test_a_second_search_while_previews_are_measured(
    visitor: Visit, http: httpx.Client, recording: Path
) -> None:
    """The hits of the later search are measured, too."""
    page = visitor.page
    held: list[Route] = []
    page.route("**/preview", lambda route: held.append(route))
    ids = {patch["name"]: patch["patch_id"] for patch in _library(http)}

    def are_asked_for() -> bool:
        """The hits' previews. The map asks for some, too: its first one, and those it was pointed at."""
        return {route.request.url.split("/")[-2] for route in held} >= {ids[name] for name in _names(page)}

    _search(visitor, recording)
    page.get_by_text("Filters").click()
    page.get_by_role("group", name="Families", exact=True).get_by_role("button", name="brass").click()
    brass = {patch["name"] for patch in _library(http) if patch["family"] == "brass"}
    visitor.until(lambda: _names(page) and set(_names(page)) <= brass, "only brass is there")
    page.get_by_text("Order by the service").click()
    page.get_by_role("slider", name="Brightness").fill("100")
    visitor.until(are_asked_for, "their previews are asked for")
    page.get_by_role("group", name="Families", exact=True).get_by_role("button", name="brass").click()
    visitor.until(lambda: not set(_names(page)) <= brass, "all are there")
    assert not are_asked_for()
    before = len(held)
    for route in held[:before]:
        route.continue_()
    visitor.until(are_asked_for, "the others' previews are asked for")
    for route in held[before:]:
        route.continue_()


def test_the_later_of_two_recordings_is_searched_with(
    browser: Browser, serving: Serving, recording: Path, tmp_path: Path
) -> None:
    """However long the browser takes to decode the first."""
    later = tmp_path / "later.wav"
    later.write_bytes(wav_note(hz=330.0))
    with visit(browser, serving.url, before=HELD_DECODER) as visitor:
        page = visitor.page
        page.evaluate("window.hold = true")
        page.get_by_label("Recording to search with").set_input_files(recording)
        visitor.until(lambda: page.evaluate("!!window.held"), "the first is being decoded")
        _search(visitor, later)
        asked = page.get_by_role("article", name="Your sound")
        expect(asked.get_by_role("heading")).to_have_text("later.wav")
        page.evaluate("window.held()")
        visitor.until(lambda: page.evaluate("window.decoded >= 2"), "both are decoded")
        page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        expect(asked.get_by_role("heading")).to_have_text("later.wav")
        expect(page.locator(".hits li").first).to_be_visible()


def test_the_microphone_asks(browser: Browser, serving: Serving) -> None:
    with visit(browser, serving.url, before=SENT) as visitor:
        page = visitor.page
        page.get_by_role("button", name="Record", exact=True).click()
        stop = page.get_by_role("button", name="Stop and search")
        expect(stop).to_be_visible()
        page.wait_for_timeout(1500)  # what is recorded needs its time
        visitor.picture("recording")
        stop.click()
        expect(page.locator(".hits li").first).to_be_visible()
        expect(page.get_by_role("article", name="Your sound")).to_contain_text("C4")
        assert set(page.evaluate("window.sent")) == {"RIFF"}


def test_a_file_that_the_service_reads_is_sent_as_it_is(
    browser: Browser, serving: Serving, tmp_path: Path
) -> None:
    path = tmp_path / "clip.flac"
    path.write_bytes(encoded(note(44_100), 44_100, "FLAC", "PCM_16"))
    with visit(browser, serving.url, before=SENT) as visitor:
        _search(visitor, path)
        assert set(visitor.page.evaluate("window.sent")) == {"fLaC"}


def test_a_place_of_the_map_is_searched_with(visitor: Visit) -> None:
    _touch(visitor, 0.2, 0.1)
    visitor.page.get_by_role("button", name="Find patches like this place").click()
    expect(visitor.page.locator(".hits li").first).to_be_visible()
    heading = visitor.page.get_by_role("article", name="Your sound").get_by_role("heading")
    expect(heading).to_have_text("This place at C4")


# --- when things go wrong ----------------------------------------------------------------------------------------


def test_the_services_words_are_shown(visitor: Visit, http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "words.wav"
    path.write_bytes(b"these are words")
    message = http.post("/search", files={"audio": path.read_bytes()}).json()["error"]["message"]
    visitor.page.get_by_label("Recording to search with").set_input_files(path)
    alert = visitor.page.locator(".problem")
    expect(alert).to_contain_text(message[1:])
    visitor.picture("error")
    # The browser itself complains of every answer of 400 and above.
    visitor.complaints.clear()


def test_silence_is_an_empty_answer(visitor: Visit, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    path.write_bytes(encoded(np.zeros(SAMPLE_RATE), SAMPLE_RATE, "WAV", "PCM_16"))
    visitor.page.get_by_label("Recording to search with").set_input_files(path)
    expect(visitor.page.locator(".empty")).to_contain_text("Nothing to show")
    expect(visitor.page.get_by_role("article", name="Your sound")).to_contain_text("It is silent")
    visitor.until(lambda: any(each.url.endswith("/locate") for each in visitor.asked), "it was to be located")
    visitor.complaints.clear()


def test_a_service_that_is_away_is_told_and_tried_again(visitor: Visit) -> None:
    page = visitor.page
    away = ["**/info", "**/synthesize"]

    def abort(route: Route) -> None:
        route.abort()

    for path in away:
        page.route(path, abort)
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The service does not answer. Is it still running?")
    page.unroute("**/info")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Play a sound").click()
    expect(page.get_by_role("alert")).to_have_text("The service does not answer. Is it still running?")
    page.unroute("**/synthesize")
    _touch(visitor, 0.1, 0.1)
    expect(page.get_by_role("alert")).to_have_count(0)
    visitor.complaints.clear()


# --- for everyone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("desk-light", DESK, "light"),
        ("desk-dark", DESK, "dark"),
        ("phone-light", PHONE, "light"),
        ("phone-dark", PHONE, "dark"),
    ],
)
def test_nothing_bars_the_way(
    browser: Browser,
    serving: Serving,
    recording: Path,
    name: str,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    """axe-core finds nothing serious at the start, on a path, and with everything open; nothing is cut off."""
    with visit(browser, serving.url, size=size, scheme=scheme) as visitor:
        page = visitor.page
        expect(page.get_by_role("button", name="Play a sound")).to_be_visible()
        assert page.locator("html").get_attribute("data-theme") == scheme
        barriers = _barriers(page)
        page.get_by_role("button", name="Play a sound").click()
        page.get_by_role("button", name="Path").click()
        page.get_by_text("Ends").click()
        barriers |= _barriers(page)
        page.get_by_role("button", name="Play", exact=True).click()
        _search(visitor, recording)
        page.locator(".hit").first.click()
        expect(page.locator(".details").get_by_role("img")).to_have_count(2)
        page.get_by_text("Filters").click()
        page.get_by_text("Order by the service").click()
        barriers |= _barriers(page)
        assert barriers == set()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        visitor.picture(name, whole=True)


def _barriers(page: Page) -> set[str]:
    """axe-core's findings that are serious or critical, and where."""
    found = Axe().run(page).response["violations"]
    return {
        f"{each['id']} ({each['impact']}): {each['nodes'][0]['html'][:120]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    }


def test_the_theme_is_switched_and_remembered(visitor: Visit) -> None:
    page = visitor.page
    page.get_by_role("button", name="Dark colours").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    expect(page.get_by_role("button", name="Light colours")).to_be_visible()
    assert page.locator("html").get_attribute("data-theme") == "dark"
