#!/usr/bin/env python3
"""search_core.py - looks for secrets in a core file, eight bytes at a time

    search_core.py CORE MAPS NEEDLES

NEEDLES has lines "NAME HEX"; every window of eight bytes of each is searched for. MAPS is the
process's /proc/PID/maps, which says whose memory an address is. Prints for each needle how many
windows were found how often, and where:

    NAME WINDOWS-FOUND HITS PLACE=HITS,...
"""
import bisect
import collections
import os
import re
import struct
import sys

WINDOW = 8
PT_LOAD = 1


def segments(core):
    """(offset in the file, size, address) of each piece of memory in a 64-bit core."""
    if core[:5] != b"\x7fELF\x02":
        sys.exit("not a 64-bit ELF file")
    start, = struct.unpack_from("<Q", core, 32)
    size, count = struct.unpack_from("<HH", core, 54)
    if count == 0xFFFF:
        sections, = struct.unpack_from("<Q", core, 40)
        count, = struct.unpack_from("<I", core, sections + 44)
    for i in range(count):
        kind, _, offset, address, _, length, _, _ = struct.unpack_from(
            "<IIQQQQQQ", core, start + i * size)
        if kind == PT_LOAD and length:
            yield offset, length, address


class Places:
    def __init__(self, core, maps):
        self.segments = sorted(segments(core))
        self.maps = []
        with open(maps, encoding="utf-8") as file:
            for line in file:
                match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line)
                begin, end, _, name = match.groups()
                self.maps.append((int(begin, 16), int(end, 16), os.path.basename(name) or "anonymous"))

    def total(self):
        return sum(size for _, size, _ in self.segments)

    def of(self, offset):
        """None: not memory (the core's own notes, registers)."""
        i = bisect.bisect_right(self.segments, (offset, float("inf"), 0)) - 1
        start, size, address = self.segments[i] if i >= 0 else (0, 0, 0)
        if not start <= offset < start + size:
            return "registers"
        address += offset - start
        for begin, end, name in self.maps:
            if begin <= address < end:
                return name
        return "unknown"


def search(core, piece):
    position = core.find(piece)
    while position >= 0:
        yield position
        position = core.find(piece, position + 1)


def runs(core, needle):
    """{(offset in the core, offset in the needle): length} of what they have in common.

    Each window of eight bytes has a piece of four in it that begins at a multiple of five.
    """
    found = {}
    for k in range(0, len(needle) - 3, 5):
        for position in search(core, needle[k:k + 4]):
            before, size = 0, 4
            while before < k and position > before and \
                    core[position - before - 1] == needle[k - before - 1]:
                before += 1
            while k + size < len(needle) and position + size < len(core) and \
                    core[position + size] == needle[k + size]:
                size += 1
            if before + size >= WINDOW:
                found[position - before, k - before] = before + size
    return found


def main():
    core_path, maps, needles = sys.argv[1:]
    with open(core_path, "rb") as file:
        core = file.read()
    places = Places(core, maps)
    if places.total() < 1 << 20:
        sys.exit("that core has no memory in it")
    with open(needles, encoding="ascii") as file:
        for line in file:
            name, text = line.split()
            needle = bytes.fromhex(text)
            found = collections.Counter()
            windows = set()
            for (position, offset), size in runs(core, needle).items():
                count = size - WINDOW + 1
                found[places.of(position)] += count
                windows.update(range(offset, offset + count))
            where = ",".join(f"{place}={hits}" for place, hits in sorted(found.items())) or "-"
            print(name, len(windows), sum(found.values()), where)


main()
