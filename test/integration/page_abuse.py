#!/usr/bin/env python3
"""page_abuse.py - visitors that a web page must survive

    page_abuse.py PORT slow         one byte at a time, for as long as the server lets it
    page_abuse.py PORT many N PID   N connections that say nothing; prints how many processes serve
                                    (children of PID), then ends them
    page_abuse.py PORT garbage N    N connections that send random bytes
    page_abuse.py PORT last LOG TEXT PATH
                                    a connection that sends its request for PATH when LOG has TEXT
    page_abuse.py PORT post N FILE  N forms at once with the password in FILE; prints their codes
"""
import collections
import concurrent.futures
import os
import random
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PATH = "/setup-wizard/auto_restore_password/"
PATIENCE = 60


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def slow(port):
    one = connect(port)
    one.sendall(b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: localhost\r\nX: ")
    one.settimeout(0.2)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            one.send(b"x")
            if one.recv(100) == b"":
                print("closed by the server")
                return 0
        except TimeoutError:
            continue
        except OSError:
            print("closed by the server")
            return 0
    print("still open")
    return 1


def last(port, log, text, path):
    """Who is connected when the page ends, and asks then: connections that are never too old."""
    def ending():
        with open(log, encoding="utf-8") as file:
            return text in file.read()

    deadline = time.monotonic() + PATIENCE
    one = following = connect(port)
    young = time.monotonic() + 3
    while not ending() and time.monotonic() < deadline:
        time.sleep(0.05)
        if time.monotonic() > young:  # the one before is surely with a process by now
            one, following = following, connect(port)
            young = time.monotonic() + 3
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    while data := one.recv(4096):
        sys.stdout.write(data.decode())
    return 0


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return len(file.read().split())


def many(port, count, pid):
    held = [connect(port) for _ in range(count)]
    most, deadline = 0, time.monotonic() + PATIENCE
    while most < 16 and time.monotonic() < deadline:
        most = max(most, children(pid))
    for _ in range(200):  # none may be added now
        most = max(most, children(pid))
    print("processes:", most)
    for one in held:
        one.close()
    return 0


def garbage(port, count):
    random.seed(int(os.environ.get("SEED", "1")))
    for _ in range(count):
        one = connect(port)
        one.sendall(random.randbytes(random.randrange(1, 4000)))
        one.shutdown(socket.SHUT_WR)
        try:
            while one.recv(4096):
                pass
        except OSError:
            pass
        one.close()
    return 0


def one_post(port, form, cookie):
    origin = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(origin + PATH, form, headers={"Origin": origin,
                                                                   "Cookie": cookie})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def post(port, count, password_file):
    with open(password_file, encoding="utf-8") as file:
        password = file.read().rstrip("\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{PATH}", timeout=PATIENCE) as answer:
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        token = re.search(r'name="csrf" value="(\w+)"', answer.read().decode()).group(1)
    form = urllib.parse.urlencode({"csrf": token, "password": password}).encode()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        codes = list(pool.map(lambda _: one_post(port, form, cookie), range(count)))
    for code, times in sorted(collections.Counter(codes).items()):
        print(f"{code}: {times}")
    return 0


def main():
    port, what, more = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if what == "slow":
        return slow(port)
    if what == "many":
        return many(port, int(more[0]), int(more[1]))
    if what == "last":
        return last(port, *more)
    if what == "garbage":
        return garbage(port, int(more[0]))
    return post(port, int(more[0]), more[1])


if __name__ == "__main__":
    sys.exit(main())
