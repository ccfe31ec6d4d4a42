#!/usr/bin/env python3
"""browser.py - a real browser visits the restore page, driven by chromedriver (W3C WebDriver)

    browser.py --driver PORT --page URL --foreign
        a form on another site sends a password to the page: prints what the browser shows
    browser.py --driver PORT --page URL --look
        prints what a screen reader would say about the form
    browser.py --driver PORT --page URL --password-file FILE... [--then URL --text TEXT]
        enters the passwords one after the other, prints each result; then loads another page
        until it shows the text
"""
import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name that the standard gives
PATIENCE = 60
CHROMIUM = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-proxy-server", "--disable-background-networking", "--no-first-run"]


class Browser:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        always = {"browserName": "chrome", "acceptInsecureCerts": True,
                  "goog:chromeOptions": {"args": CHROMIUM}}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self.base += "/session/" + answer["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def go(self, url):
        self.call("POST", "/url", {"url": url})

    def element(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return "/element/" + found[ELEMENT]

    def text(self, selector):
        return self.call("GET", self.element(selector) + "/text")

    def title(self):
        return self.call("GET", "/title")

    def type(self, selector, text):
        self.call("POST", self.element(selector) + "/value", {"text": text})

    def press(self, selector):
        """Clicks and waits until the page that was there is gone and the next one is loaded."""
        before = self.call("POST", "/element", {"using": "css selector", "value": "html"})
        self.call("POST", self.element(selector) + "/click", {})
        until(lambda: self.call("POST", "/element", {"using": "css selector", "value": "html"})
              != before and self.run("return document.readyState") == "complete")

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def close(self):
        self.call("DELETE", "")


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except RuntimeError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError("waited in vain for the browser")
        time.sleep(0.05)


def foreign(browser, page):
    form = (f'<form method="post" action="{page}"><input name="password" value="x">'
            '<button>go</button></form>')
    browser.go("data:text/html," + urllib.parse.quote(form))
    browser.press("button")
    print("title:", browser.title())


def look(browser, page):
    browser.go(page)
    field = browser.element("#password")
    print("title:", browser.title())
    print("language:", browser.run("return document.documentElement.lang"))
    until(lambda: browser.run("return document.activeElement !== document.body"))  # a frame later
    print("focus:", browser.run("return document.activeElement.id"))
    print("label:", browser.call("GET", field + "/computedlabel"))
    print("role of main:", browser.call("GET", browser.element("main") + "/computedrole"))
    print("button:", browser.call("GET", browser.element("button") + "/computedlabel"))
    print("scripts:", browser.run("return document.scripts.length"))
    print("background:", browser.run(
        "return getComputedStyle(document.querySelector('button')).backgroundColor"))


def enter(browser, page, password_file):
    """Until it was looked at: after a wrong one the page wants a pause."""
    with open(password_file, encoding="utf-8") as file:
        password = file.read().rstrip("\n")

    def looked_at():
        browser.type("#password", password)
        browser.press("button")
        return "not looked at" not in browser.text("#result")

    until(looked_at)
    print("title:", browser.title())
    print("result:", browser.call("GET", browser.element("#result") + "/computedrole"),
          browser.text("#result"))
    if password in browser.call("GET", "/source"):
        print("the page contains the password")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--driver", required=True)
    options.add_argument("--page", required=True)
    options.add_argument("--foreign", action="store_true")
    options.add_argument("--look", action="store_true")
    options.add_argument("--password-file", action="append", default=[])
    options.add_argument("--then")
    options.add_argument("--text")
    given = options.parse_args()
    browser = Browser(given.driver)
    try:
        if given.foreign:
            foreign(browser, given.page)
        if given.look:
            look(browser, given.page)
        if given.password_file:
            browser.go(given.page)
        for password_file in given.password_file:
            enter(browser, given.page, password_file)
        if given.then:
            until(lambda: browser.go(given.then) or given.text in browser.text("body"))
            print("then:", browser.text("body"))
    finally:
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
