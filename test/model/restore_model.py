#!/usr/bin/env python3
"""restore_model.py - every interleaving of the restore protocol, and that breaking it is noticed

    restore_model.py [--processes N] [--crashes N] [--power-cuts N]       defaults: 3, 2, 1

A search through all states of: processes that start at once on a token which has lost its KEK, an
administrator who changes the slots meanwhile, processes killed at any step and started again, and
a power cut that takes what was not synced. The steps are those of store/unlock.c, restore.c,
slots.c and write.c, named beside them. Invariants:

    dek       nobody accepts a DEK other than the one that the records are sealed with
    deadlock  whoever waits gets on; in the end all are unlocked
    mutual    two processes never restore at the same time
    active    a token never has two active slots
    prompt    without faults exactly one question; at most one more for each fault
    again     nobody is asked once a restore is finished
    orphan    at most one orphaned KEK for each fault, and a slot names it
    update    the administrator's change is not lost
    anchor    a host's anchor is never ahead of the database
    false     while the KEK is on the token (which may hide for a moment) nobody is asked

Then each part of the protocol is taken away in turn, and the search must find what that breaks.
Prints states and transitions; exit code 1 when anything is not as it should be.
"""

import argparse
import sys
import time
from collections import deque, namedtuple

PENDING, ACTIVE, STALE, RETIRED = "PASR"
OURS, FOREIGN = "dek", "other"

# A process: where it is, the generation it has read, the CKA_ID it plans, whether it has the lock,
# and whether it holds the DEK already.
Process = namedtuple("Process", "at generation kek lock")
# The world. `slots`: (CKA_ID, state) of this token; `keks`: (CKA_ID, synced) on the token.
World = namedtuple("World", "generation slots keks processes admin added next_kek prompts crashes "
                            "cuts faults finished anchor hides")

BEGIN = Process("read", 0, -1, False)

# What can be taken away, and which invariant must then break.
BROKEN = {
    "no-lock": ("no restore lock", {"mutual", "prompt"}),
    "no-second-look": ("no second look under the lock", {"prompt", "again"}),
    "label": ("the KEK is found by its label and its DEK is believed", {"dek"}),
    "no-intent": ("the slot is not planned before the KEK is made", {"orphan"}),
    "no-sync": ("the new KEK is not synced before the slot becomes active", {"again"}),
    "no-generation": ("changes do not compare the generation", {"update", "active", "anchor"}),
    "anchor-first": ("the anchor is written before the commit", {"anchor"}),
    "hiding": ("one look is believed when the token hides", {"false"}),
}


class Violation(Exception):
    """An invariant is broken: its name, and the world."""


class Model:
    def __init__(self, options, broken=None, lost=True):
        self.processes, self.crashes = options.processes, options.crashes
        self.cuts, self.broken, self.lost = options.power_cuts, broken, lost

    def initial(self):
        keks = () if self.lost else ((0, True),)
        if self.broken == "label":
            keks = ((-1, True),)  # somebody made a KEK of the same label on the new token
        return World(1, ((0, ACTIVE),), keks, (BEGIN,) * self.processes, "read", False, 1, 0,
                     self.crashes, self.cuts, 0, False, 1, 0 if self.lost else 2)

    # ---- what a process sees -------------------------------------------------------------------

    def unwrap(self, world):
        """unlock.c try_token_slots: the DEK through an active slot, None when its KEK is missing."""
        on_token = {kek for kek, _ in world.keks}
        for kek, state in world.slots:
            if state == ACTIVE and kek in on_token:
                return OURS
        if self.broken == "label" and on_token:
            return FOREIGN
        return None

    def looks(self, world, under_lock):
        """(what is seen, world after). SoftHSM may hide a token for a moment: several looks."""
        seen = self.unwrap(world)
        yield seen, world
        if seen and world.hides and (not under_lock or self.broken == "hiding"):
            yield None, world._replace(hides=world.hides - 1)

    # ---- changing the slots (write.c keystore_change) ------------------------------------------

    def commit(self, world, process, change):
        """World after the commit, or None when another process was faster."""
        if process.generation != world.generation:
            if self.broken != "no-generation":
                return None
            # What this process read is written over what others have written since.
            world = world._replace(added=False)
        return world._replace(generation=process.generation + 1, slots=change(world.slots))

    @staticmethod
    def planned(slots, kek):
        """slots.c prepare_slots with a pending slot; older plans of this token are given up."""
        return tuple((k, RETIRED if s == PENDING else s) for k, s in slots) + ((kek, PENDING),)

    @staticmethod
    def activated(slots, kek):
        """The same with the filled slot: the token's older ones become stale."""
        outdated = {PENDING: RETIRED, ACTIVE: STALE}
        return tuple((k, outdated.get(s, s)) for k, s in slots if k != kek) + ((kek, ACTIVE),)

    # ---- steps of a process --------------------------------------------------------------------

    def steps(self, world, process):
        """Every (world, process) that one step of `process` can lead to."""
        return getattr(self, "step_" + process.at)(world, process)

    def step_read(self, world, process):
        yield world, process._replace(at="unlock", generation=world.generation)

    def step_unlock(self, world, process):
        for seen, after in self.looks(world, False):
            self.check_dek(seen, after)
            yield after, process._replace(at="done" if seen else "lock")

    def step_lock(self, world, process):
        """restore.c take_lock; waiting is no step."""
        if self.broken == "no-lock" or not any(p.lock for p in world.processes):
            yield world, process._replace(at="look", lock=True)

    def step_look(self, world, process):
        """restore.c look, after keystore_reload."""
        process = process._replace(generation=world.generation)
        if self.broken == "no-second-look":
            yield world, process._replace(at="ask")
            return
        for seen, after in self.looks(world, True):
            self.check_dek(seen, after)
            yield after, process._replace(at="release" if seen else "ask")

    def step_ask(self, world, process):
        """The password opens the DEK (a wrong one changes nothing and is left out)."""
        if not self.lost:
            raise Violation("false", world)
        if world.finished:
            raise Violation("again", world)
        world = world._replace(prompts=world.prompts + 1, next_kek=world.next_kek + 1)
        at = "generate" if self.broken == "no-intent" else "plan"
        yield world, process._replace(at=at, kek=world.next_kek - 1)

    def step_plan(self, world, process):
        """slots.c keystore_add_hsm_slot: the intent is committed first."""
        after = self.commit(world, process, lambda slots: self.planned(slots, process.kek))
        if after is None:
            yield world, process._replace(generation=world.generation)
        else:
            yield after, process._replace(at="generate", generation=after.generation)

    def step_generate(self, world, process):
        """hsm_kek.c: generate, wrap, unwrap, compare."""
        yield world._replace(keks=world.keks + ((process.kek, False),)), process._replace(at="sync")

    def step_sync(self, world, process):
        if self.broken != "no-sync":
            world = world._replace(keks=tuple((k, s or k == process.kek) for k, s in world.keks))
        if self.broken == "anchor-first":
            world = world._replace(anchor=process.generation + 1)
        yield world, process._replace(at="activate")

    def step_activate(self, world, process):
        after = self.commit(world, process, lambda slots: self.activated(slots, process.kek))
        if after is None:
            yield world, process._replace(generation=world.generation)
        else:
            yield after._replace(finished=True), process._replace(at="anchor",
                                                                  generation=after.generation)

    def step_anchor(self, world, process):
        """write.c anchor_write, after the commit; another process may have written since."""
        yield world._replace(anchor=process.generation), process._replace(at="prove")

    def step_prove(self, world, process):
        """restore.c bring_back: unlocks once more as any later process will."""
        seen = self.unwrap(world)
        self.check_dek(seen, world)
        yield world, process._replace(at="release" if seen else "read", lock=bool(seen))

    def step_release(self, world, process):
        yield world, process._replace(at="done", lock=False)

    def step_done(self, _world, _process):
        return ()

    @staticmethod
    def check_dek(seen, world):
        if seen == FOREIGN:
            raise Violation("dek", world)

    # ---- the administrator adds a password slot meanwhile --------------------------------------

    def admin_steps(self, world):
        if world.admin == "read":
            yield world._replace(admin=world.generation)
        elif world.admin != "done":
            after = self.commit(world, BEGIN._replace(generation=world.admin), lambda s: s)
            yield world._replace(admin="read") if after is None else after._replace(
                admin="done", added=True)

    # ---- faults --------------------------------------------------------------------------------

    @staticmethod
    def crash(world, i):
        processes = world.processes[:i] + (BEGIN,) + world.processes[i + 1:]
        return world._replace(processes=processes, crashes=world.crashes - 1,
                              faults=world.faults + 1)

    def power_cut(self, world):
        admin = "done" if world.admin == "done" else "read"
        return world._replace(processes=(BEGIN,) * self.processes, admin=admin,
                              keks=tuple(k for k in world.keks if k[1]), cuts=world.cuts - 1,
                              faults=world.faults + 1)

    # ---- all successors, and what must hold ----------------------------------------------------

    def next_worlds(self, world):
        for i, process in enumerate(world.processes):
            for after, moved in self.steps(world, process):
                yield self.canonical(after._replace(
                    processes=world.processes[:i] + (moved,) + world.processes[i + 1:]))
        yield from self.admin_steps(world)

    def faulty_worlds(self, world):
        for i, process in enumerate(world.processes):
            if world.crashes and process.at not in ("read", "done"):
                yield self.canonical(self.crash(world, i))
        if world.cuts:
            yield self.canonical(self.power_cut(world))

    @staticmethod
    def canonical(world):
        """Processes are alike: their order says nothing."""
        return world._replace(processes=tuple(sorted(world.processes)))

    def check(self, world):
        named = dict(world.slots)
        active = [k for k, s in world.slots if s == ACTIVE]
        if len(active) > 1:
            raise Violation("active", world)
        if sum(p.lock for p in world.processes) > 1:
            raise Violation("mutual", world)
        if world.prompts > 1 + world.faults:
            raise Violation("prompt", world)
        if world.anchor > world.generation:
            raise Violation("anchor", world)
        if world.admin == "done" and not world.added:
            raise Violation("update", world)
        being_made = {p.kek for p in world.processes if p.at in ("sync", "activate")}
        orphans = [k for k, _ in world.keks if k > 0 and named.get(k) not in (ACTIVE, STALE)
                   and k not in being_made]
        if len(orphans) > world.faults or any(k not in named for k in orphans):
            raise Violation("orphan", world)

    def check_end(self, world):
        if any(p.at != "done" for p in world.processes) or world.admin != "done":
            raise Violation("deadlock", world)
        if self.lost and world.faults == 0 and world.prompts != 1:
            raise Violation("prompt", world)

    def search(self):
        """(states, transitions); raises Violation."""
        start = self.canonical(self.initial())
        seen, waiting, transitions = {start}, deque([start]), 0
        while waiting:
            world = waiting.popleft()
            self.check(world)
            normal = list(self.next_worlds(world))
            if not normal:
                self.check_end(world)
            for after in normal + list(self.faulty_worlds(world)):
                transitions += 1
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return len(seen), transitions


def prove(options, name, lost):
    """The protocol as it is: nothing may be found."""
    begun = time.monotonic()
    try:
        states, transitions = Model(options, lost=lost).search()
    except Violation as found:
        print(f"FAIL  {name}: {found.args[0]}: {found.args[1]}")
        return False
    print(f"ok    {name}: {states} states, {transitions} transitions, "
          f"{time.monotonic() - begun:.1f} s")
    return True


def refute(options, variant):
    """A part is missing: exactly the invariants that it serves may break, and one must."""
    description, expected = BROKEN[variant]
    try:
        states, _ = Model(options, variant, lost=variant != "hiding").search()
    except Violation as found:
        good = found.args[0] in expected
        print(f"{'ok   ' if good else 'FAIL '} {description}: breaks `{found.args[0]}`")
        return good
    print(f"FAIL  {description}: nothing breaks in {states} states")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--crashes", type=int, default=2)
    parser.add_argument("--power-cuts", type=int, default=1)
    options = parser.parse_args()
    print(f"{options.processes} processes, {options.crashes} crashes, "
          f"{options.power_cuts} power cuts", flush=True)
    results = [prove(options, "the KEK is lost", True),
               prove(options, "the KEK is there, the token hides", False)]
    results += [refute(options, variant) for variant in BROKEN]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
