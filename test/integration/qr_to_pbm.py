#!/usr/bin/env python3
"""qr_to_pbm.py - half blocks on standard input become a picture (PBM) on standard output

Lines that are not of half blocks, colours and line ends of a terminal are left out.
"""
import re
import sys

SCALE = 4
BLOCKS = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}

rows = []
for line in sys.stdin.buffer.read().decode("utf-8", "replace").splitlines():
    line = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip("\r")
    if len(line) > 20 and set(line) <= set(BLOCKS):
        rows.append([BLOCKS[character][0] for character in line])
        rows.append([BLOCKS[character][1] for character in line])
if not rows or len({len(row) for row in rows}) != 1:
    sys.exit("there is no rectangle of half blocks")
print("P1", len(rows[0]) * SCALE, len(rows) * SCALE)
for row in rows:
    bits = " ".join(str(bit) for bit in row for _ in range(SCALE))
    for _ in range(SCALE):
        print(bits)
