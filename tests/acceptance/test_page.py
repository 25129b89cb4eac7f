"""A person at the page, in a real browser: the shipped supervisord.conf, a real ElasticMQ."""

import io
import os
import random
import shutil
import signal

import pytest
from containers import Container
from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright
from servers import ROOT, NotHere, counts, skipping_what_is_not_here, wait_for

pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    with skipping_what_is_not_here():
        if chromium is None:
            raise NotHere("needs Debian's chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()


@pytest.fixture
def box(tmp_path, elasticmq_url, make_queue):
    container = Container(tmp_path, make_queue(elasticmq_url, visibility_seconds=10))
    yield container.wait_until_up()
    container.stop()


@pytest.fixture
def page(browser, box):
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    opened.goto(f"http://127.0.0.1:{box.port}/")
    yield opened
    opened.close()


def picture(color="tomato", size=(1200, 900), name="cat.png"):
    drawn = Image.new("RGB", size, color)
    pen = ImageDraw.Draw(drawn)
    for _ in range(12):
        x, y, r = random.randrange(size[0]), random.randrange(size[1]), random.randrange(40, 260)
        pen.ellipse((x - r, y - r, x + r, y + r), outline="white", width=12)
    data = io.BytesIO()
    drawn.save(data, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": data.getvalue()}


def bomb():
    """Fold many pixels into few bytes."""
    data = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(data, "PNG")
    assert len(data.getvalue()) < 100_000
    return data.getvalue()


def upload(page, *files):
    page.set_input_files("#pictures", list(files))
    page.click("text=Make thumbnails")


def test_pictures_become_thumbnails_by_themselves(page, box):
    colors = ["tomato", "gold", "seagreen", "steelblue", "orchid"]
    upload(page, *[picture(color, name=f"{color}.png") for color in colors])
    expect(page.locator("li.task.done img")).to_have_count(5, timeout=60_000)
    page.click("text=Write the newsletter now")
    expect(page.locator("section[aria-label=Newsletters] li")).to_have_count(3, timeout=60_000)
    page.click("text=Make a job fail")
    expect(page.locator("li.task.failed")).to_contain_text("stumbled on attempt 1", timeout=60_000)
    for image in page.locator("li.task img").all():
        assert image.evaluate("image => image.naturalWidth") == 320
    if os.environ.get("SCREENSHOT"):
        page.screenshot(path=ROOT / "docs" / "page.png", full_page=True)
    expect(page.locator("li.task", has_text="stumbles")).to_contain_text("done, attempt 3", timeout=50_000)
    expect(page.locator("#dead")).to_have_text("0")


@pytest.mark.long
def test_restart_and_kill_in_the_middle_lose_nothing(page, box):
    upload(page, *[picture(size=(3000, 2200), name=f"{n}.png") for n in range(6)])
    assert "started" in box.ctl("restart", "jobrunner:*")
    upload(page, *[picture(size=(3000, 2200), name=f"more{n}.png") for n in range(6)])
    for pid in box.worker_pids():
        os.kill(pid, signal.SIGKILL)
    expect(page.locator("li.task.done img")).to_have_count(12, timeout=60_000)
    wait_for(lambda: counts(box.env["JOBRUNNER_QUEUE_URL"]) == (0, 0, 0))


def test_what_is_no_picture_or_too_much_of_one_is_refused_with_the_reason(page, box):
    for name, data, reason in [
        ("<script>alert(1)</script>.png", b"not a picture", "not a picture"),
        ("huge.png", b"x" * (11 * 1024 * 1024), "MB"),
        ("../../etc/passwd", b"GIF89a", "not a picture"),
        ("empty.png", b"x", "not a picture"),
        ("bomb.png", bomb(), "too many pixels"),
    ]:
        page.goto(f"http://127.0.0.1:{box.port}/")
        upload(page, {"name": name, "mimeType": "image/png", "buffer": data})
        expect(page.locator("[role=alert]")).to_contain_text(reason, timeout=60_000)
        assert page.locator("li.task").count() == 0


def test_the_page_works_without_javascript_and_is_labelled(browser, box):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"http://127.0.0.1:{box.port}/")
    page.get_by_label("Pictures").set_input_files([picture()])
    with page.expect_navigation():  # a reload in the middle of the form's own way there is an error
        page.get_by_role("button", name="Make thumbnails").click()
    wait_for(lambda: page.reload() and page.locator("li.task.done img").count() == 1)
    assert page.locator("li.task img").get_attribute("alt") == "Thumbnail of cat.png"
    page.close()
