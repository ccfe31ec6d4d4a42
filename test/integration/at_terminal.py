#!/usr/bin/env python3
"""at_terminal.py - a human at a terminal who types what is in files

    at_terminal.py --prompt TEXT [--answer FILE]... [--then COMMAND] -- COMMAND...
    at_terminal.py --answers FILE -- COMMAND...

Each time the prompt appears the next file's first line is typed. When no answer is left and the
prompt appears once more, the shell command of --then runs instead. With --answers it is one of
its lines for any question of trustpoint-keystore. Prints what the terminal shows and, at the end,
whether it would show what is typed. The exit code is the command's.
"""
import argparse
import os
import pty
import re
import subprocess
import sys
import termios
import time


# Whatever trustpoint-keystore asks. It throws away what was typed before.
QUESTIONS = r"(?:Type yes|Type yes again|[Pp]assword(?: of [^:]*)?|The same again): "


def is_shown(fd):
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


def react(fd, answers, then, wait):
    deadline = time.monotonic() + 60
    while wait and is_shown(fd) and time.monotonic() < deadline:  # the prompt may come before
        time.sleep(0.01)
    if answers:
        os.write(fd, answers.pop(0) + b"\n")
    elif then:
        subprocess.run(then, shell=True, check=True, stdin=subprocess.DEVNULL)


def lines(path):
    with open(path, "rb") as file:
        return file.read().splitlines() or [b""]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--prompt")
    options.add_argument("--answers")
    options.add_argument("--answer", action="append", default=[])
    options.add_argument("--then")
    options.add_argument("command", nargs="+")
    given = options.parse_args()
    question = re.compile(re.escape(given.prompt) if given.prompt else QUESTIONS)
    answers = [lines(path)[0] for path in given.answer]
    if given.answers:
        answers += lines(given.answers)
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(given.command[0], given.command)
    seen, asked = b"", 0
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
        while len(question.findall(seen.decode(errors="replace"))) > asked:
            asked += 1
            react(fd, answers, given.then, given.prompt is not None)
    echo = is_shown(fd)  # as the last to have it open has left it
    sys.stdout.write(seen.decode(errors="replace"))
    print("typing is shown:", "yes" if echo else "no")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
