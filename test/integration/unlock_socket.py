#!/usr/bin/env python3
"""unlock_socket.py - what others might send to the unlock service's socket

    unlock_socket.py PATH long      a message over the limit
    unlock_socket.py PATH empty     a connection that ends without a message
    unlock_socket.py PATH hold N    N connections that say nothing while one more asks

Prints the service's answer.
"""
import socket
import sys


def connect(path):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.settimeout(60)
    one.connect(path)
    return one


def main():
    path, what = sys.argv[1:3]
    held = []
    if what == "hold":
        held = [connect(path) for _ in range(int(sys.argv[3]))]
    one = connect(path)
    if what == "long":
        try:
            one.send(b"x" * 1025)
        except BrokenPipeError:
            pass  # turned away already: the answer is there
    if what == "empty":
        one.shutdown(socket.SHUT_WR)
    print(one.recv(2000).decode().strip())
    for other in held:
        other.close()


if __name__ == "__main__":
    main()
