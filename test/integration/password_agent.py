#!/usr/bin/env python3
"""password_agent.py - answers one question of systemd-ask-password, as password agents do

    password_agent.py --id trustpoint:0123… --password-file FILE
    password_agent.py --id trustpoint:0123… --cancel

Waits for the question whose Id is the given one, prints its Message, sends the password to its
Socket, or that nobody will answer, and ends when the question is gone, so that the next agent does
not meet it again. The protocol: https://systemd.io/PASSWORD_AGENTS/
"""
import argparse
import configparser
import glob
import os
import socket
import sys
import time

FOLDER = "/run/systemd/ask-password"


def question(identity):
    """Path and [Ask] section of the question with this Id, or two times None."""
    for path in glob.glob(FOLDER + "/ask.*"):
        ask = configparser.ConfigParser(interpolation=None)
        try:
            with open(path, encoding="utf-8") as file:
                ask.read_file(file)
        except (OSError, configparser.Error):
            continue  # being written, or gone
        if ask.get("Ask", "Id", fallback="").startswith(identity):
            return path, ask["Ask"]
    return None, None


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--id", required=True)
    how = options.add_mutually_exclusive_group(required=True)
    how.add_argument("--password-file")
    how.add_argument("--cancel", action="store_true")
    given = options.parse_args()
    answer = b"-"
    if not given.cancel:
        with open(given.password_file, "rb") as file:
            answer = b"+" + file.read().rstrip(b"\n")
    deadline = time.monotonic() + 60
    path, ask = question(given.id)
    while ask is None and time.monotonic() < deadline:
        time.sleep(0.05)
        path, ask = question(given.id)
    if ask is None:
        print("nobody asked", file=sys.stderr)
        return 1
    print(ask["Message"])
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    agent.sendto(answer, ask["Socket"])
    while os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
