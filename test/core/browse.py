"""Open a page in a headless browser and say what is there; run as a program of its own, since Qt wants the main thread.

    python browse.py PAGE [SCREENSHOT.png]

Prints JSON: title, headings, images (all and those that were decoded), tables wider than the page, width of window and
content, console messages, and addresses that were asked for beyond the page and data in it.
"""

import json
import os
import sys
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"  # a container's root may not use the sandbox
os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = "--disable-gpu --disable-logging"

from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

TIMEOUT_MS = 60_000
PAINT_MS = 800
LOOK = """JSON.stringify({
  title: document.title,
  headings: [...document.querySelectorAll('h2')].map(e => e.textContent),
  missing: [...document.querySelectorAll('.missing')].map(e => e.textContent),
  images: document.images.length,
  decoded: [...document.images].filter(e => e.complete && e.naturalWidth > 1).length,
  rows: document.querySelectorAll('tbody tr').length,
  broken: [...document.querySelectorAll('nav a')].filter(e => !document.querySelector(e.getAttribute('href'))).length,
  clipped: [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length,
  window: window.innerWidth, content: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight, mode: document.compatMode})"""


class Watch(QWebEngineUrlRequestInterceptor):
    """Notes every address that is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def interceptRequest(self, info):
        self.asked.append(info.requestUrl().toString()[:100])


class Page(QWebEnginePage):
    """Notes what the console says."""

    def __init__(self, profile):
        super().__init__(profile)
        self.said = []

    def javaScriptConsoleMessage(self, level, message, line, source):
        self.said.append(message)


def main(address, screenshot=None):
    application = QApplication(sys.argv[:1])
    profile = QWebEngineProfile()
    watch = Watch()
    profile.setUrlRequestInterceptor(watch)
    page, view = Page(profile), QWebEngineView()
    view.setPage(page)
    view.resize(1280, 900)
    view.show()
    found = {}

    def shoot():
        if screenshot:
            view.grab().save(screenshot)
        application.quit()

    def looked(text):
        found.update(json.loads(text))
        # The compositor draws a moment later than the page is ready.
        QTimer.singleShot(PAINT_MS if screenshot else 0, shoot)

    def loaded(worked):
        if not worked:
            application.quit()
        page.runJavaScript(LOOK, looked)

    page.loadFinished.connect(loaded)
    url = QUrl.fromLocalFile(str(Path(address).resolve()))
    page.load(url)
    QTimer.singleShot(TIMEOUT_MS, application.quit)
    application.exec()
    elsewhere = [one for one in watch.asked if not one.startswith("data:") and one != url.toString()]
    print(json.dumps({**found, "console": page.said, "elsewhere": elsewhere}))
    view.setPage(None)
    sys.stdout.flush()
    os._exit(0 if found else 1)  # Qt's own teardown order is not ours to get right


if __name__ == "__main__":
    main(*sys.argv[1:])
