#!/usr/bin/env python3
"""python_client.py - what Python's ssl module meets when it loads keys from the keystore.

    python_client.py threads CERT KEY CERT2 KEY2   loads and handshakes in 8 threads at once
    python_client.py fork CERT KEY                 loads in a parent, uses and loads in children
    python_client.py load CERT KEY                 loads once; prints the exception if there is one

Everything happens in memory: client and server are joined by MemoryBIOs.
"""
import os
import ssl
import sys
import threading


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def handshake(context):
    """A whole TLS handshake with `context` as the server; returns the server's certificate."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    return client.getpeercert(True)


def expected(certificate):
    with open(certificate, encoding="ascii") as file:
        return ssl.PEM_cert_to_DER_cert(file.read())


def threads(first, first_key, second, second_key):
    errors = []
    shared = server_context(first, first_key)

    def work(number):
        try:
            certificate, key = (first, first_key) if number % 2 else (second, second_key)
            for _ in range(5):
                own = server_context(certificate, key)
                for _ in range(5):
                    assert handshake(own) == expected(certificate)
                    assert handshake(shared) == expected(first)
        except Exception as error:  # pylint: disable=broad-except
            errors.append(repr(error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit("\n".join(errors) or None)


def fork(certificate, key):
    context = server_context(certificate, key)
    assert handshake(context) == expected(certificate)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert handshake(context) == expected(certificate)
                assert handshake(server_context(certificate, key)) == expected(certificate)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert handshake(server_context(certificate, key)) == expected(certificate)
    sys.exit(f"children ended with {codes}" if any(codes) else None)


def load(certificate, key):
    try:
        server_context(certificate, key)
    except Exception as error:  # pylint: disable=broad-except
        sys.exit(repr(error))


{"threads": threads, "fork": fork, "load": load}[sys.argv[1]](*sys.argv[2:])
