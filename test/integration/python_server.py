#!/usr/bin/env python3
"""python_server.py - a TLS server as Python programs are: load the key, then fork and drop rights.

    python_server.py PORT CERT KEY USER WORKERS

The key is loaded as root; WORKERS children become USER, then answer each connection with their
user id. Prints "ready" when they are there and ends them when it is told to (SIGTERM).
"""
import os
import pwd
import signal
import socket
import ssl
import sys


def serve(listener, context):
    while True:
        plain, _ = listener.accept()
        try:
            with context.wrap_socket(plain, server_side=True) as tls:
                tls.recv(4096)
                tls.sendall(f"HTTP/1.0 200 OK\r\n\r\nuid={os.getuid()}\n".encode())
        except OSError as error:
            print(f"connection failed: {error!r}", flush=True)


def become(user):
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def main():
    port, certificate, key, user, workers = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=64)
    children = []
    for _ in range(int(workers)):
        child = os.fork()
        if child == 0:
            os.environ.clear()
            become(user)
            serve(listener, context)
        children.append(child)

    def stop(_signal, _frame):
        for child in children:
            os.kill(child, signal.SIGTERM)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while True:
        signal.pause()


main()
