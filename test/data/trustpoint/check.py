#!/usr/bin/python3
"""check.py - reads a database of Trustpoint as Trustpoint does, and says what is wrong with it

    check.py [options] sqlite:FILE | postgresql:CONNINFO

    --tokens FOLDER --pin FILE    the tokens of SoftHSM, the user PIN
    --expected FILE               an expected.json: every credential must be as it says
    --password FILE               this backup password must open the DEK too
    --dump FILE                   write everything that is in the database and on the token
    --before FILE                 compare with such a file ...
    --changed nothing | restore   ... what may have changed since (nothing)
    --no-open                     only compare

A second opinion on what the library does: it shares no code with it. Ends with "N passed, N
failed"; failures are listed before.
"""
import argparse
import base64
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

sys.dont_write_bytecode = True
import pkcs11  # noqa: E402

DER = serialization.Encoding.DER
DEVELOPMENT_PASSWORD = b"trustpoint-development-software-backend-secret"
DIGEST_INFO_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
OBJECT_ATTRIBUTES = [name for name in pkcs11.ATTRIBUTES
                     if name not in ("value", "private_exponent", "prime_1", "prime_2",
                                     "exponent_1", "exponent_2", "coefficient")]


class Count:
    passed = failed = 0

    def check(self, right, what):
        if right:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAIL  {what}")
        return right


COUNT = Count()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- databases: every table as a list of dictionaries ---------------------------------------

def read_sqlite(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    names = [name for name, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"
                                          " AND name NOT LIKE 'sqlite_%' ORDER BY name")]
    return {name: [{key: "\\x" + row[key].hex() if isinstance(row[key], bytes) else row[key]
                    for key in row.keys()} for row in db.execute(f'SELECT * FROM "{name}"')]
            for name in names}


def psql(conninfo, sql):
    return subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", conninfo, "-c", sql],
                          check=True, stdout=subprocess.PIPE,
                          env={**os.environ, "PGTZ": "UTC", "PGCLIENTENCODING": "UTF8"}
                          ).stdout.decode()


def read_postgresql(conninfo):
    names = psql(conninfo, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                           " ORDER BY 1").split()
    selects = ", ".join(f"""'{name}', (SELECT coalesce(json_agg(t), '[]') FROM "{name}" t)"""
                        for name in names)
    return json.loads(psql(conninfo, f"SELECT json_build_object({selects})"))


def read_database(where):
    engine, _, rest = where.partition(":")
    return {"sqlite": read_sqlite, "postgresql": read_postgresql}[engine](rest)


def same(stored, value):
    """A UUID is text without dashes in SQLite, and with them from PostgreSQL."""
    if isinstance(stored, str) and isinstance(value, str):
        return stored.replace("-", "") == value.replace("-", "")
    return stored == value


def blob(value):
    return None if value is None else bytes.fromhex(value[2:])


# ---- the token ------------------------------------------------------------------------------

def objects_of(token):
    """Every object, as text that can be compared."""
    found = []
    for handle in token.find():
        values = {name: token.get(handle, name) for name in OBJECT_ATTRIBUTES}
        found.append({name: value.hex() if isinstance(value, bytes) else value
                      for name, value in values.items() if value is not None})
    return sorted(found, key=lambda item: json.dumps(item, sort_keys=True))


def open_token(args, label, serial):
    pkcs11.use_tokens(args.tokens)
    with open(args.pin, encoding="utf-8") as file:
        pin = file.read().strip()
    return pkcs11.Module(args.module).open(pin, label=label or None, serial=serial or None)


# ---- one database ---------------------------------------------------------------------------

class Trustpoint:
    def __init__(self, tables, args):
        self.tables = tables
        self.args = args
        self.token = None
        self.dek = None
        if "app_secret_backend" in tables:
            self.generation = 2
        else:
            self.generation = 1 if "management_keystorageconfig" in tables else 0
        self.certificates = {}

    def only(self, table):
        rows = self.tables[table]
        return rows[0] if rows else {}

    def by(self, table, **values):
        return [row for row in self.tables.get(table, ())
                if all(same(row[name], value) for name, value in values.items())]

    def is_plain(self):
        return self.generation == 0 or (
            self.generation == 1
            and self.only("management_keystorageconfig")["storage_type"] == "software")

    def has_token(self):
        if self.generation == 2:
            return self.only("app_secret_backend")["backend_kind"] == "pkcs11"
        return self.generation == 1 and not self.is_plain()

    def token_names(self):
        if self.generation == 2:
            row = self.only("app_secret_pkcs11_config")
            return row["token_label"], row["token_serial"]
        return self.only("management_pkcs11token")["label"], ""

    def kek_label(self):
        if self.generation == 2:
            return self.only("app_secret_pkcs11_config")["kek_label"]
        rows = self.by("pki_pkcs11key", id=self.only("management_pkcs11token")["kek_id"])
        return rows[0]["key_label"] if rows else "trustpoint-kek"

    def open(self):
        if self.has_token():
            if COUNT.check(self.token, "the token is there"):
                self.dek = self.unwrap()
        elif self.generation == 2:
            self.dek = blob(self.only("app_secret_software_config")["raw_dek"])

    # -- the KEK and the DEK --

    def unwrap(self):
        keks = self.token.find(key_type=pkcs11.CKK_AES, label=self.kek_label())
        if not COUNT.check(len(keks) == 1, f"one AES key with the label: there are {len(keks)}"):
            return None
        self.check_kek(keks[0])
        try:
            return self.unwrap_legacy(keks[0]) if self.generation == 1 else (
                self.unwrap_current(keks[0]))
        except (pkcs11.Error, ValueError, TypeError) as error:
            COUNT.check(False, f"the DEK can be unwrapped: {error}")
            return None

    def unwrap_legacy(self, kek):
        token_row = self.only("management_pkcs11token")
        wrapped = blob(token_row["encrypted_dek"])
        COUNT.check(len(wrapped) == 40, f"the wrapped DEK has 40 bytes: {len(wrapped)}")
        for row in self.by("pki_pkcs11key", id=token_row["kek_id"]):
            COUNT.check(row["token_label"] == token_row["label"] and row["key_type"] == "aes",
                        "kek_id names the row of a KEK")
        return self.token.decrypt(kek, pkcs11.CKM_AES_ECB, wrapped[8:])

    def unwrap_current(self, kek):
        wrapped = blob(self.only("app_secret_pkcs11_config")["wrapped_dek"])
        kind, prefix, data = re.fullmatch(rb"(tpsec:pkcs11:(cwrap|enc-cbc-pad|enc-cbc):v1:)(.*)",
                                          wrapped, re.DOTALL).group(2, 1, 3)
        if kind == b"enc-cbc-pad":
            return self.token.decrypt(kek, pkcs11.CKM_AES_CBC_PAD, data[16:], data[:16])
        if kind == b"enc-cbc":
            return self.token.decrypt(kek, pkcs11.CKM_AES_CBC, data[16:], data[:16])
        for mechanism in (pkcs11.CKM_AES_KEY_WRAP, pkcs11.CKM_AES_KEY_WRAP_PAD,
                          pkcs11.CKM_AES_KEY_WRAP_KWP):
            try:
                key = self.token.unwrap(
                    kek, mechanism, data, key_type=pkcs11.CKK_AES, encrypt=True, decrypt=True,
                    wrap=False, unwrap=False, sign=False, verify=False, derive=False, token=False,
                    private=True, sensitive=False, extractable=True,
                    **{"class": pkcs11.CKO_SECRET_KEY})
                value = self.token.get(key, "value")
                self.token.destroy(key)
                return value
            except pkcs11.Error:
                continue
        raise ValueError(f"{prefix} opens with no mechanism")

    def check_kek(self, kek):
        """What Trustpoint makes, and what it looks at when it loads one."""
        wanted = {"class": pkcs11.CKO_SECRET_KEY, "token": True, "private": True,
                  "sensitive": True, "extractable": False, "value_len": 32, "derive": False,
                  "id": b"", "local": True}
        uses = {name: self.token.get(kek, name)
                for name in ("encrypt", "decrypt", "wrap", "unwrap")}
        if self.generation == 1:
            wanted.update(encrypt=True, decrypt=True, wrap=True, unwrap=True, sign=True,
                          verify=True)
        else:
            wanted.update(sign=False, verify=False)
            COUNT.check(uses["encrypt"] == uses["decrypt"] and uses["wrap"] == uses["unwrap"]
                        and True in uses.values(), f"the KEK has a use of Trustpoint's: {uses}")
        for name, value in wanted.items():
            found = self.token.get(kek, name)
            COUNT.check(found == value, f"the KEK's {name} is {value!r}: {found!r}")

    def check_password(self, password):
        """2.8 of the formats: Argon2id, then AES-256-GCM as iv, ciphertext, tag."""
        from argon2.low_level import Type, hash_secret_raw
        row = self.only("management_pkcs11token")
        salt_input = f"trustpoint-bek:{row['label']}:{iso_time(row['created_at'])}"
        bek = hash_secret_raw(password.strip().encode(),
                              hashlib.sha256(salt_input.encode()).digest()[:16], 3, 65536, 1, 32,
                              Type.ID)
        envelope = blob(row["bek_encrypted_dek"])
        try:
            dek = AESGCM(bek).decrypt(envelope[:12], envelope[12:], None)
            COUNT.check(dek == self.dek, "the backup password opens the same DEK")
        except InvalidTag:
            COUNT.check(False, "the backup password opens the DEK")

    # -- fields --

    def field(self, value):
        if value.startswith("-----BEGIN ") and self.generation < 2:
            return value
        prefix, aad = ("tpsec:v1:", b"trustpoint-app-secrets-v1") if self.generation == 2 else (
            "", None)
        if not value.startswith(prefix):
            raise ValueError("a value without tpsec:v1:")
        if self.dek is None:
            raise ValueError("there is no DEK")
        data = base64.b64decode(value[len(prefix):], validate=True)
        plain = AESGCM(self.dek).decrypt(data[:12], data[28:] + data[12:28], aad)
        if self.generation == 1 and plain[-1] < 16:
            plain = plain[:-1 - plain[-1]]
        return plain.decode()

    def key_of(self, row):
        """(where, key): the key itself, or the token's handle of it."""
        if row["private_key"]:
            text = self.field(row["private_key"])
            plain = row["private_key"].startswith("-----BEGIN ")
            return ("db-plaintext" if plain else "db-encrypted",
                    serialization.load_pem_private_key(text.encode(), None))
        if row.get("managed_private_key_id"):
            return self.managed_key(row["managed_private_key_id"])
        if row.get("pkcs11_private_key_id"):
            key, = self.by("pki_pkcs11key", id=row["pkcs11_private_key_id"])
            kind = {"rsa": pkcs11.CKK_RSA, "ec": pkcs11.CKK_EC}[key["key_type"]]
            return "hsm", self.handle(key_type=kind, label=key["key_label"])
        return "none", None

    def managed_key(self, number):
        for row in self.by("crypto_managed_key_protected_import_binding", managed_key_id=number):
            text = self.field(row["encrypted_private_key_pkcs8_der_b64"])
            return "protected-import", serialization.load_der_private_key(
                base64.b64decode(text, validate=True), None)
        for row in self.by("crypto_managed_key_pkcs11_binding", managed_key_id=number):
            return "hsm", self.handle(id=bytes.fromhex(row["key_id_hex"]))
        row, = self.by("crypto_managed_key_software_binding", managed_key_id=number)
        return "software-managed", serialization.load_der_private_key(
            blob(row["encrypted_private_key_pkcs8_der"]), DEVELOPMENT_PASSWORD)

    def handle(self, **attributes):
        if not self.token:
            return None
        found = self.token.find(**{"class": pkcs11.CKO_PRIVATE_KEY}, **attributes)
        return found[0] if len(found) == 1 else None

    # -- certificates --

    def certificate(self, number):
        if number not in self.certificates:
            row, = self.by("pki_certificatemodel", id=number)
            certificate = x509.load_pem_x509_certificate(row["cert_pem"].encode())
            self.certificates[number] = certificate
        return self.certificates[number]

    def chain(self, row):
        """From the leaf's issuer up, whatever the stored order."""
        leaf = self.certificate(row["certificate_id"])
        members = [self.certificate(link["certificate_id"])
                   for link in self.by("pki_certificatechainordermodel", credential_id=row["id"],
                                       primary_certificate_id=row["certificate_id"])]
        chain, last = [], leaf
        while last.issuer != last.subject:
            issuers = [m for m in members if m.subject == last.issuer and is_issuer(m, last)]
            if not issuers or issuers[0] in chain:
                break
            last = issuers[0]
            chain.append(last)
        return leaf, chain

    # -- comparing --

    def check_all(self, expected):
        rows = {row["id"]: row for row in self.tables["pki_credentialmodel"]}
        wanted = {entry["credential_id"]: entry for entry in expected["credentials"]}
        count = len(wanted) + expected.get("many", {}).get("count", 0)
        COUNT.check(len(rows) == count, f"{count} credentials: there are {len(rows)}")
        for number, entry in wanted.items():
            if COUNT.check(number in rows, f"credential {number} is there"):
                self.check_one(rows[number], entry)
        for entry in expected.get("managed_keys", ()):
            self.check_lone_key(entry)
        self.check_active(wanted)

    def check_lone_key(self, entry):
        """A managed key that no credential uses; there is no certificate to hold against it."""
        where, key = self.managed_key(entry["id"])
        COUNT.check(where == entry["key_location"], f"key {entry['alias']} is {where}")
        if where != "hsm":
            COUNT.check(spki(key.public_key()) == entry["spki_sha256"],
                        f"key {entry['alias']}: SPKI")

    def check_active(self, wanted):
        active = self.only("pki_activetrustpointtlsservercredentialmodel").get("credential_id")
        marked = [n for n, entry in wanted.items() if entry["names"].get("active_tls")]
        COUNT.check(marked == [active], f"the active TLS credential is {marked}: {active}")

    def check_one(self, row, entry):
        name = f"credential {row['id']} ({entry['kind']})"
        if row["certificate_id"] is not None:
            self.check_certificates(name, row, entry)
        try:
            where, key = self.key_of(row)
        except (InvalidTag, ValueError, TypeError, AttributeError) as error:
            COUNT.check(False, f"{name}: the key can be read: {error!r}")
            return
        COUNT.check(where == entry["key_location"],
                    f"{name}: the key is {entry['key_location']}: {where}")
        if where == "hsm":
            self.check_signature(name, key, self.certificate(row["certificate_id"]).public_key())
        elif key:
            der = key.private_bytes(DER, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption())
            COUNT.check(sha256(der) == entry["pkcs8_sha256"], f"{name}: PKCS#8")
            COUNT.check(spki(key.public_key()) == entry["spki_sha256"], f"{name}: SPKI")

    def check_certificates(self, name, row, entry):
        try:
            leaf, chain = self.chain(row)
        except ValueError as error:
            COUNT.check(False, f"{name}: the certificate can be read: {error}")
            return
        COUNT.check(sha256(leaf.public_bytes(DER)) == entry["certificate_sha256"],
                    f"{name}: the certificate")
        found = [sha256(c.public_bytes(DER)) for c in chain]
        wanted = [c for c in entry["chain_sha256"] if c != entry["certificate_sha256"]]
        COUNT.check(found == wanted, f"{name}: the chain: {found}, not {wanted}")
        COUNT.check(spki(leaf.public_key()) == entry["spki_sha256"],
                    f"{name}: the certificate's key")

    def check_signature(self, name, handle, public):
        if not self.token:
            return
        if not COUNT.check(handle is not None, f"{name}: one key on the token"):
            return
        digest = hashlib.sha256(name.encode()).digest()
        try:
            if isinstance(public, ec.EllipticCurvePublicKey):
                raw = self.token.sign(handle, pkcs11.CKM_ECDSA, digest)
                half = len(raw) // 2
                signature = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"),
                                                       int.from_bytes(raw[half:], "big"))
                public.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
            else:
                signature = self.token.sign(handle, pkcs11.CKM_RSA_PKCS,
                                            DIGEST_INFO_SHA256 + digest)
                public.verify(signature, name.encode(), padding.PKCS1v15(), hashes.SHA256())
            COUNT.check(True, "")
        except InvalidSignature:
            COUNT.check(False, f"{name}: the token's key is that of the certificate")


def spki(public):
    return sha256(public.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def is_issuer(issuer, certificate):
    key = issuer.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes,
                       ec.ECDSA(certificate.signature_hash_algorithm))
        else:
            key.verify(certificate.signature, certificate.tbs_certificate_bytes,
                       padding.PKCS1v15(), certificate.signature_hash_algorithm)
        return True
    except InvalidSignature:
        return False


def iso_time(text):
    """As Python's isoformat() writes it: six digits of a second, or none."""
    date, time, fraction = re.match(r"([\d-]+)[ T]([\d:]+)(?:\.(\d+))?", text).groups()
    fraction = (fraction or "").ljust(6, "0")
    return f"{date}T{time}{'' if fraction == '000000' else '.' + fraction}+00:00"


# ---- before and after -----------------------------------------------------------------------

def may_change(trustpoint, before, table, column, old):
    """What a restore may write."""
    if trustpoint.generation == 2:
        return (table, column) == ("app_secret_pkcs11_config", "wrapped_dek")
    return table == "management_pkcs11token" and (
        column == "encrypted_dek" or (column == "kek_id" and old is None))


def compare_rows(trustpoint, before, restore):
    tables = trustpoint.tables
    COUNT.check(sorted(before) == sorted(tables), "the same tables")
    for table in sorted(set(before) & set(tables)):
        old, new = by_key(before[table]), by_key(tables[table])
        added = [new[key] for key in new if key not in old]
        if added and restore and table == "pki_pkcs11key":
            added = [row for row in added if row["key_label"] != trustpoint.kek_label()
                     or row["key_type"] != "aes" or len(added) != 1]
        COUNT.check(not added, f"{table}: no new rows: {added}")
        COUNT.check(not set(old) - set(new), f"{table}: no row is gone")
        for key in set(old) & set(new):
            changed = [name for name in new[key] if new[key][name] != old[key].get(name)
                       and not (restore and may_change(trustpoint, before, table, name,
                                                       old[key][name]))]
            COUNT.check(not changed and set(old[key]) == set(new[key]),
                        f"{table} {key}: unchanged: {changed}")


def check_restored(trustpoint):
    """What Trustpoint needs besides to find the new KEK."""
    if trustpoint.generation == 1:
        COUNT.check(trustpoint.only("management_pkcs11token")["kek_id"] is not None,
                    "kek_id is set")
    else:
        wrapped = blob(trustpoint.only("app_secret_pkcs11_config")["wrapped_dek"])
        COUNT.check(wrapped.startswith(b"tpsec:pkcs11:cwrap:v1:") and len(wrapped) == 62,
                    f"the DEK is wrapped with AES key wrap: {wrapped[:22]}, {len(wrapped)} bytes")


def by_key(rows):
    """By the first column, the primary key of every table."""
    key = next((name for name in ("id", "singleton_id", "backend_id", "profile_id",
                                  "managed_key_id") if rows and name in rows[0]), None)
    return {row[key]: row for row in rows}


def compare_objects(trustpoint, before, after, restore):
    label = trustpoint.kek_label()

    def others(objects):
        return [item for item in objects if not (
            restore and item.get("key_type") == pkcs11.CKK_AES
            and (item["label"] == label or item["label"].startswith(label + ".replaced-")))]
    COUNT.check(others(before) == others(after), "the token's other objects are unchanged")


# ---- command line ---------------------------------------------------------------------------

def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("--tokens")
    parser.add_argument("--pin")
    parser.add_argument("--module", default=pkcs11.SOFTHSM)
    parser.add_argument("--expected")
    parser.add_argument("--password")
    parser.add_argument("--dump")
    parser.add_argument("--before")
    parser.add_argument("--changed", choices=["nothing", "restore"], default="nothing")
    parser.add_argument("--no-open", action="store_true")
    return parser.parse_args()


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main():
    args = parse_arguments()
    trustpoint = Trustpoint(read_database(args.database), args)
    objects = None
    if args.tokens and trustpoint.has_token():
        trustpoint.token = open_token(args, *trustpoint.token_names())
        objects = objects_of(trustpoint.token) if trustpoint.token else []
    if args.dump:
        with open(args.dump, "w", encoding="utf-8") as file:
            json.dump({"tables": trustpoint.tables, "objects": objects}, file)
    if args.before:
        before, restore = load(args.before), args.changed == "restore"
        compare_rows(trustpoint, before["tables"], restore)
        if restore:
            check_restored(trustpoint)
        if objects is not None:
            compare_objects(trustpoint, before["objects"], objects, restore)
    if not args.no_open:
        trustpoint.open()
        if args.expected:
            trustpoint.check_all(load(args.expected))
        if args.password:
            with open(args.password, encoding="utf-8") as file:
                trustpoint.check_password(file.read())
    print(f"{COUNT.passed} passed, {COUNT.failed} failed")
    return 1 if COUNT.failed else 0


if __name__ == "__main__":
    sys.exit(main())
