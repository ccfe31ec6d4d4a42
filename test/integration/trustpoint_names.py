#!/usr/bin/python3
"""trustpoint_names.py - what a database of Trustpoint must answer to every name

    trustpoint_names.py uris EXPECTED               every URI to ask, for trustpoint_load
    trustpoint_names.py compare EXPECTED ANSWERS    what trustpoint_load said to them
    trustpoint_names.py list EXPECTED LIST          what `list --json` said
    trustpoint_names.py names EXPECTED              every credential: number, canonical name, home

EXPECTED is an expected.json. The rules of names are written down here once more, on their own:
what each name may mean is worked out from all names in the file, not from what is looked for.
Failures are listed; the last line counts.
"""
import json
import sys
from urllib.parse import quote

NOT_FOUND, AMBIGUOUS, UNSUPPORTED = 1, 2, 23
HOMES = {"db-encrypted": "database", "protected-import": "database",
         "db-plaintext": "in the clear", "hsm": "token",
         "software-managed": "software", "none": "none"}
CANONICAL = ("ca/", "signer/", "owner/", "device/", "key/", "credential/")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Database:
    def __init__(self, expected):
        self.expected = expected
        self.credentials = {c["credential_id"]: c for c in expected["credentials"]}
        for key in expected.get("managed_keys", ()):
            key["names"] = {"alias": key["alias"]}
            key["managed_key"] = {"id": key["id"]}
            self.credentials[key["id"]] = key
        self.canonical = {number: self.name_of(c) for number, c in self.credentials.items()}

    def name_of(self, credential):
        names = credential["names"]
        name = None
        if names.get("active_tls"):
            return "tls-server"
        for kind in ("ca", "signer", "owner"):
            if name is None and kind in names and not names.get(f"{kind}_is_older"):
                name = f"{kind}/{names[kind]}"
        if name is None and "device" in names and "/" not in names["device"]:
            pair = (names["device"], names["issued_cn"])
            if sum(self.pair_of(c) == pair for c in self.credentials.values()) == 1:
                name = f"device/{pair[0]}/{pair[1]}"
        if "credential_id" not in credential:
            return f"key/{names['alias']}"
        if name is None or len(name.encode()) > 255:
            name = f"credential/{credential['credential_id']}"
        return name

    @staticmethod
    def pair_of(credential):
        return credential["names"].get("device"), credential["names"].get("issued_cn")

    def matching(self, **wanted):
        """The numbers of the credentials that have all these names."""
        return {number for number, c in self.credentials.items()
                if all(self.has(c, kind, value) for kind, value in wanted.items())}

    @staticmethod
    def has(credential, kind, value):
        names = credential["names"]
        if kind == "cn":
            return value in (names.get("issued_cn"), credential.get("common_name"))
        if kind == "owner":
            return names.get("owner") == value and not names.get("owner_is_older")
        if kind == "alias":
            key = credential.get("managed_key", {})
            label = credential.get("hsm", {}).get("label")  # all that 0.4 and 0.5 have
            return value in (names.get("alias", label), key.get("id"),
                             key.get("id", "").replace("-", ""))
        if kind == "role":
            return bool(names.get("active_tls"))
        if kind == "serial":
            return credential.get("serial_number") == value
        if kind == "fingerprint":
            return credential.get("certificate_sha256") == value
        return names.get(kind) == value

    def bare(self, name):
        """What is canonical in its form means that alone; else whatever is called so."""
        exact = {n for n, canonical in self.canonical.items() if canonical == name}
        if exact or name == "tls-server" or name.startswith(CANONICAL):
            return exact
        found = set()
        for kind in ("ca", "signer", "owner", "alias", "device"):
            found |= self.matching(**{kind: name})
        return found | self.of_domain(name)

    def of_domain(self, name):
        """A domain means the CA that issues in it; the samples' one is the issuing CA."""
        if name in {c["names"].get("domain") for c in self.credentials.values()}:
            return {n for n, c in self.credentials.items() if c.get("kind") == "issuing-ca"}
        return set()

    def questions(self):
        """Every URI with the credentials that it means."""
        asked = {}

        def ask(uri, numbers):
            asked[uri] = numbers

        for number, c in self.credentials.items():
            ask(f"trustpoint://{encode(self.canonical[number])}", {number})
            ask(f"trustpoint://?id={identifier(number)}", {number})
            if "credential_id" in c:
                ask(f"trustpoint://?credential={number}", {number})
            if c.get("kind", "").startswith("pad-"):  # many of one kind
                continue
            self.ask_names(ask, c)
            if "certificate_sha256" in c:
                self.ask_certificate(ask, number, c)
        ask("trustpoint://?credential=987654", set())
        ask("trustpoint://nobody", set())
        ask("trustpoint://?ca=nobody", set())
        ask("trustpoint://?fingerprint=" + "0" * 64, set())
        return asked

    def ask_names(self, ask, credential):
        names = credential["names"]
        for kind in ("ca", "signer", "owner", "device", "alias"):
            if kind in names:
                ask(f"trustpoint://{encode(names[kind])}", self.bare(names[kind]))
                ask(f"trustpoint://?{kind}={encode(names[kind])}",
                    self.matching(**{kind: names[kind]}))
        if "hsm" in credential:
            label = credential["hsm"]["label"]
            ask(f"trustpoint://?alias={encode(label)}", self.matching(alias=label))
        if "domain" in names:
            ask(f"trustpoint://{encode(names['domain'])}", self.bare(names["domain"]))
        if "device" in names:
            pair = {"device": names["device"], "cn": names["issued_cn"]}
            ask(f"trustpoint://?device={encode(pair['device'])}&cn={encode(pair['cn'])}",
                self.matching(**pair))
            ask(f"trustpoint://?cn={encode(pair['cn'])}", self.matching(cn=pair["cn"]))
        if names.get("active_tls"):
            ask("trustpoint://?role=tls-server", self.matching(role=True))
        if "managed_key" in credential:
            for uuid in (credential["managed_key"]["id"],
                         credential["managed_key"]["id"].replace("-", "")):
                ask(f"trustpoint://?alias={uuid}", self.matching(alias=uuid))

    def ask_certificate(self, ask, number, credential):
        fingerprint = credential["certificate_sha256"]
        ask(f"trustpoint://?fingerprint={fingerprint}", self.matching(fingerprint=fingerprint))
        ask(f"trustpoint://?serial={credential['serial_number']}",
            self.matching(serial=credential["serial_number"]))
        ask(f"trustpoint://?cn={encode(credential['common_name'])}",
            self.matching(cn=credential["common_name"]))
        ask(f"trustpoint://?credential={number}&spki={credential['spki_sha256']}", {number})
        ask(f"trustpoint://?credential={number}&type=cert", {number})
        ask(f"trustpoint://?credential={number}&type=private", {number})


def identifier(number):
    """A record's id: the credential's number in 16 bytes, or the managed key's UUID."""
    return number if isinstance(number, str) else f"{number:032x}"


def encode(text):
    return quote(text, safe="-._~")


# ---- comparing ------------------------------------------------------------------------------

class Count:
    passed = failed = 0

    def check(self, right, what):
        if right:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAIL  {what}")


COUNT = Count()


def compare(database, path):
    with open(path, encoding="utf-8") as file:
        answers = dict(line.rstrip("\n").split("\t", 1) for line in file)
    for uri, numbers in database.questions().items():
        parts = answers.get(uri, "no answer").split("\t")
        if len(numbers) == 1:
            check_loaded(database.credentials[min(numbers)], uri, parts)
        else:
            check_refused(database, numbers, uri, parts)


def check_loaded(credential, uri, parts):
    wants_key = not uri.endswith("&type=cert")
    keyless = credential["key_location"] == "none"
    if keyless and uri.endswith("&type=private"):
        COUNT.check(parts[:2] == ["failed", str(NOT_FOUND)] and "type=cert" in parts[-1],
                    f"{uri}: a credential without a key says so: {parts}")
        return
    if "certificate_sha256" not in credential:  # unfinished: its public half is not known
        COUNT.check(parts[:2] == ["failed", str(UNSUPPORTED)] and "certificate" in parts[-1],
                    f"{uri}: a key without a certificate says so: {parts}")
        return
    if parts[0] != "ok":
        COUNT.check(False, f"{uri}: {parts}")
        return
    spki, leaf, chain, signed = parts[1:]
    if wants_key and not keyless:
        COUNT.check(spki == credential["spki_sha256"], f"{uri}: the key {spki}")
        COUNT.check(signed == "signed", f"{uri}: its signature: {signed}")
    else:
        COUNT.check(spki == "-", f"{uri}: a key where there should be none: {spki}")
    if "&type=" not in uri:
        chain_wanted = ",".join(credential.get("chain_sha256", ())) or "-"
        if credential.get("chain_sha256") == [credential.get("certificate_sha256")]:
            chain_wanted = "-"
        COUNT.check(leaf == credential.get("certificate_sha256", "-"), f"{uri}: the leaf {leaf}")
        COUNT.check(chain == chain_wanted, f"{uri}: the chain {chain}, not {chain_wanted}")


def check_refused(database, numbers, uri, parts):
    reason = AMBIGUOUS if numbers else NOT_FOUND
    COUNT.check(parts[:2] == ["failed", str(reason)], f"{uri}: reason {reason}: {parts}")
    for number in numbers if len(numbers) <= 5 else ():
        COUNT.check(database.canonical[number] in parts[-1],
                    f"{uri}: {database.canonical[number]} is not among the candidates: {parts}")


def compare_list(database, path):
    rows = load(path)
    many = database.expected.get("many", {}).get("count", 0)
    names = [row["name"] for row in rows]
    COUNT.check(len(set(names)) == len(names), "every name is there once")
    COUNT.check(len(rows) == len(database.credentials) + many, f"{len(rows)} records")
    by_id = {row["id"]: row for row in rows}
    for number, c in database.credentials.items():
        row = by_id.get(identifier(number))
        if row is None:
            COUNT.check(False, f"credential {number} is not listed")
            continue
        name = database.canonical[number]
        COUNT.check(row["name"] == name, f"{number} is called {name}: {row['name']}")
        COUNT.check(row["home"] == HOMES[c["key_location"]], f"{name}: home: {row['home']}")
        if "certificate_sha256" not in c:
            continue
        COUNT.check(row["spki_sha256"] == c["spki_sha256"], f"{name}: SPKI")
        COUNT.check(row["key_type"] == c["key"]["type"], f"{name}: key type {row['key_type']}")
        chain = [x for x in c["chain_sha256"] if x != c["certificate_sha256"]]
        COUNT.check([x["sha256"] for x in row["certificates"]] == [c["certificate_sha256"]] + chain,
                    f"{name}: certificates")


def main():
    command, database = sys.argv[1], Database(load(sys.argv[2]))
    if command == "uris":
        print("\n".join(database.questions()))
        return 0
    if command == "names":
        for number, c in database.credentials.items():
            print(number, HOMES[c["key_location"]], c.get("pkcs8_sha256", "-"),
                  database.canonical[number], sep="\t")
        return 0
    if command == "compare":
        compare(database, sys.argv[3])
    else:
        compare_list(database, sys.argv[3])
    print(f"{COUNT.passed} passed, {COUNT.failed} failed")
    return 1 if COUNT.failed else 0


if __name__ == "__main__":
    sys.exit(main())
