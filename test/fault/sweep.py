"""sweep.py - what the sweeps share: places, drivers that work side by side, samples, counting

Environment: BUILD (build folder with test/fault in it), STAGE (installation of the same build),
SEED (of the sample; printed), SECONDS (limit of a sample, 80), JOBS, KEEP=1 (keeps the work folder).
"""

import glob
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD") or os.path.join(ROOT, "build", "test", "gcc")
STAGE = os.environ.get("STAGE") or os.path.join(ROOT, "build", "test", "stage")
DRIVER = os.path.join(BUILD, "test", "fault", "fault-driver")
SHIM = os.path.join(BUILD, "test", "fault", "p11fault.so")
FIELDS = ("id", "end", "result", "questions", "flags", "text", "complaints")

OPENSSL_CNF = """openssl_conf = openssl_init
[openssl_init]
providers = provider_section
[provider_section]
default = default_section
trustpoint = trustpoint_section
[default_section]
activate = 1
[trustpoint_section]
module = {stage}/ossl-modules/trustpoint.so
activate = 1
"""


def find_softhsm():
    for pattern in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so",
                    "/usr/lib64/pkcs11/libsofthsm2.so"):
        found = glob.glob(pattern)
        if found:
            return found[0]
    sys.exit("SoftHSM's PKCS#11 module is not installed (package softhsm2)")


class Workplace:
    """A folder in memory with the places to start from; gone at the end."""

    def __enter__(self):
        for needed in (DRIVER, SHIM, f"{STAGE}/bin/trustpoint-keystore"):
            if not os.path.exists(needed):
                sys.exit(f"{needed} is missing: build and install first, see BUILD= and STAGE=")
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = tempfile.mkdtemp(prefix="trustpoint-fault.", dir=shm)
        self.base = os.path.join(self.path, "base")
        self.work = os.path.join(self.path, "work")
        os.mkdir(self.work)
        self.env = self.environment()
        self.run("make", self.base, self.env["FAULT_MODULE"])
        return self

    def __exit__(self, *_):
        if os.environ.get("KEEP"):
            print("kept:", self.path, file=sys.stderr)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def environment(self):
        """Nothing inherited may decide how a test ends."""
        conf = os.path.join(self.path, "openssl.cnf")
        with open(conf, "w", encoding="ascii") as file:
            file.write(OPENSSL_CNF.format(stage=STAGE))
        kept = {k: v for k, v in os.environ.items()
                if not k.startswith(("OPENSSL_", "SOFTHSM2_", "P11_", "TRUSTPOINT_", "FAULT_",
                                     "LD_PRELOAD", "CREDENTIALS_"))}
        return {**kept, "LC_ALL": "C", "TZ": "UTC", "FAULT_MODULE": find_softhsm(),
                "FAULT_SHIM": SHIM, "FAULT_OPENSSL_CONF": conf,
                "FAULT_COMMAND": f"{STAGE}/bin/trustpoint-keystore"}

    def run(self, *arguments):
        subprocess.run([DRIVER, *arguments], env=self.env, check=True)

    def serve(self):
        return subprocess.Popen([DRIVER, "serve", self.base, self.work], env=self.env, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, errors="replace")

    def calls(self, point_id):
        with open(os.path.join(self.work, f"{point_id}.calls"), encoding="ascii") as file:
            return file.read().split()

    def count(self, operations, kind):
        """The names of the calls of each (place, operation, variant), undisturbed."""
        names = {}
        points = {f"count{i}": Point(f"count{i}", *operation, kind)
                  for i, operation in enumerate(operations)}
        for point, answer in run_all(self, list(points.values())):
            if answer["result"] != "ok" or answer["complaints"]:
                sys.exit(f"without a fault {point.line()} ends with {answer}")
            names[(point.place, point.operation, point.variant)] = self.calls(point.id)
        return names


class Point:
    """One fault at one place in one operation."""

    def __init__(self, point_id, place, operation, variant, kind, call="", number=0):
        self.id, self.place, self.operation, self.variant = point_id, place, operation, variant
        self.kind, self.call, self.number = kind, call, number

    def line(self):
        return f"{self.id} {self.place} {self.operation} {self.variant} {self.kind}"

    def describe(self):
        return (f"{self.operation} ({self.place}, {self.variant}), call {self.number} "
                f"{self.call}, {self.kind}")


def ask(driver, point):
    """One point to one driver. A driver that ends is a broken test, not a finding."""
    driver.stdin.write(point.line() + "\n")
    driver.stdin.flush()
    line = driver.stdout.readline().rstrip("\n")
    answer = dict(zip(FIELDS, line.split("\t")))
    if len(answer) != len(FIELDS) or answer["id"] != point.id:
        raise RuntimeError(f"the driver ended at: {point.line()}")
    return answer


def work_off(place, waiting, done, deadline):
    with place.serve() as driver:
        try:
            while deadline is None or time.monotonic() < deadline:
                point = waiting.get_nowait()
                done.put((point, ask(driver, point)))
        except queue.Empty:
            pass
        except (RuntimeError, OSError) as error:
            done.put(error)
        driver.stdin.close()
    done.put(None)


def run_all(place, points, deadline=None):
    """Yields (point, answer) as they come in; `deadline` leaves the rest out."""
    waiting, done = queue.Queue(), queue.Queue()
    for point in points:
        waiting.put(point)
    jobs = int(os.environ.get("JOBS") or 2 * (os.cpu_count() or 1))
    threads = [threading.Thread(target=work_off, args=(place, waiting, done, deadline), daemon=True)
               for _ in range(jobs)]
    for thread in threads:
        thread.start()
    running = jobs
    while running:
        item = done.get()
        if isinstance(item, Exception):
            sys.exit(f"fault test broken: {item}")
        running -= item is None
        if item is not None:
            yield item


def sample(points, seed, stratum):
    """All points, but so that any beginning of the list has every stratum in it."""
    strata = {}
    chance = random.Random(seed)
    for point in points:
        strata.setdefault(stratum(point), []).append(point)
    keyed = []
    for members in strata.values():
        chance.shuffle(members)
        keyed += [((i + chance.random()) / len(members), member)
                  for i, member in enumerate(members)]
    firsts = [members[0] for members in strata.values()]
    chance.shuffle(firsts)
    taken = {id(member) for member in firsts}
    keyed.sort(key=lambda pair: pair[0])
    rest = [member for _, member in keyed if id(member) not in taken]
    chance.shuffle(rest)
    return firsts + rest


def sweep(title, points_of, stratum, judge):
    """The main program of a sweep: `points_of(place)` to the closing line."""
    everything = "--all" in sys.argv[1:] or os.environ.get("FULL") == "1"
    seed = int(os.environ.get("SEED") or time.time())
    begun = time.monotonic()
    passed = failed = 0
    tally = {}
    with Workplace() as place:
        points = points_of(place)
        # From here on: a slow machine, too, has points to tell of.
        limit = None if everything else time.monotonic() + float(os.environ.get("SECONDS") or 80)
        print(f"{title}: {len(points)} points, {'all' if everything else f'a sample, SEED={seed}'}",
              flush=True)
        for point, answer in run_all(place, sample(points, seed, stratum), limit):
            wrong = judge(point, answer)
            tally[answer["end"], answer["result"]] = tally.get((answer["end"], answer["result"]),
                                                               0) + 1
            for flag in answer["flags"].split():
                tally["", flag] = tally.get(("", flag), 0) + 1
            passed, failed = passed + (not wrong), failed + bool(wrong)
            if wrong:
                print(f"FAIL  {point.describe()}: {'; '.join(wrong)}\n      | {answer}", flush=True)
    for (end, result), count in sorted(tally.items(), key=lambda item: -item[1]):
        print(f"{count:7d}  {end} {result}".rstrip())
    print(f"{time.monotonic() - begun:.0f} s")
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if passed and not failed else 1)
