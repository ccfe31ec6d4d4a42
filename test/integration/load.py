#!/usr/bin/env python3
"""load.py - asks a TLS server many times over new connections and counts.

    load.py --port PORT --ca FILE --count N [--threads T] [--text TEXT]
            [--every K -- COMMAND...]

Every request is a full handshake with a verified certificate and one HTTP request, whose answer
must contain TEXT. After every K answers COMMAND runs (a reload, say) while the other threads go
on asking. What counts is requests, never time. The exit code is 1 if any request or command
failed; the last line says how many did.
"""
import argparse
import socket
import ssl
import subprocess
import sys
import threading


def ask(port, context, text):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while True:
                part = tls.recv(65536)
                if not part:
                    break
                answer += part
    if text.encode() not in answer:
        raise RuntimeError(f"answer without {text!r}: {answer[:200]!r}")


class Load:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.begun = self.answered = self.failed = self.commands = 0
        self.hook = threading.Lock()

    def run_command(self):
        with self.hook:
            done = subprocess.run(self.options.command, check=False, stdin=subprocess.DEVNULL)
        with self.lock:
            self.commands += 1
            if done.returncode != 0:
                self.failed += 1
                print(f"command failed with {done.returncode}", flush=True)

    def work(self):
        context = ssl.create_default_context(cafile=self.options.ca)
        while True:
            with self.lock:
                if self.begun == self.options.count:
                    return
                self.begun += 1
            try:
                ask(self.options.port, context, self.options.text)
            except (OSError, RuntimeError) as error:
                with self.lock:
                    self.failed += 1
                    print(f"request failed: {error!r}", flush=True)
                continue
            with self.lock:
                self.answered += 1
                due = self.options.every and self.answered % self.options.every == 0
            if due:
                self.run_command()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--text", default="200")
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("command", nargs="*")
    load = Load(parser.parse_args())
    threads = [threading.Thread(target=load.work) for _ in range(load.options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{load.answered} answered, {load.failed} failed, {load.commands} commands")
    sys.exit(1 if load.failed or load.answered != load.options.count else 0)


main()
