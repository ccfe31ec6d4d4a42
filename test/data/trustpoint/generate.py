#!/usr/bin/python3
"""generate.py - makes variants of the sample databases

    generate.py OUT [--from SAMPLE] [--seed N] [options, in any combination]
    generate.py --batch FILE        many, one command line in each line

OUT becomes a folder like the samples: db.sqlite3, postgres.sql, tokens/, the PINs, expected.json,
and besides softhsm2.conf. What the options changed stands in expected.json as well. The same seed
makes the same database, but for ECDSA signatures and what a KEK of the token's own making wraps.
"""
import argparse
import base64
import ctypes
import datetime
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import sqlite3
import sys
import traceback

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

sys.dont_write_bytecode = True
import pkcs11  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
NO_ENCRYPTION = serialization.NoEncryption()
NOW = datetime.datetime(2025, 12, 17, 10, 20, 30)
CERTIFICATE_YEARS = 9
FIELD_V2 = b"trustpoint-app-secrets-v1"
DEVELOPMENT_PASSWORD = b"trustpoint-development-software-backend-secret"
ODD_NAMES = {
    "ca": "Werk Süd/Linie 1; 100 % & mehr?#",
    "alias": "alias+with spaces=1&type=cert",
    "signer": "tls-server",  # the name of something else
    "owner": "ca/Werk Süd",
    "device": "Gerät „7“ / Łódź 工場",
    "domain": "domain:with@odd$chars",
    "cn": "näme with spaces/und;mehr%20",
}


# ---- small things ---------------------------------------------------------------------------

def sha256(data):
    return hashlib.sha256(data).hexdigest()


def pkcs8(key, encoding):
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, NO_ENCRYPTION)


def flip(data, at=-1):
    """`data` with one bit turned over."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def argon2id(password, salt):
    """32 bytes of Argon2id, version 0x13, t = 3, 64 MiB, p = 1, by libargon2 itself."""
    out = ctypes.create_string_buffer(32)
    result = ctypes.CDLL("libargon2.so.1").argon2id_hash_raw(
        ctypes.c_uint32(3), ctypes.c_uint32(65536), ctypes.c_uint32(1), password,
        ctypes.c_size_t(len(password)), salt, ctypes.c_size_t(len(salt)), out,
        ctypes.c_size_t(32))
    if result != 0:
        raise RuntimeError(f"argon2id_hash_raw: {result}")
    return out.raw


def django_time(moment):
    """A time as Django writes it into SQLite: microseconds only when there are any."""
    return moment.isoformat(sep=" ")


def validity(certificate, end):
    """The begin or the end of a certificate, UTC, without a zone, in old and new releases of
    python3-cryptography."""
    name = f"not_valid_{end}"
    if hasattr(certificate, name + "_utc"):
        return getattr(certificate, name + "_utc").replace(tzinfo=None)
    return getattr(certificate, name)


# ---- a database, its token and what must come out of both -----------------------------------

class Fixture:
    def __init__(self, sample, out, seed):
        self.out = out
        self.random = random.Random(f"trustpoint {seed}")
        shutil.copytree(os.path.join(HERE, sample), out)
        with open(os.path.join(out, "expected.json"), encoding="utf-8") as file:
            self.expected = json.load(file)
        self.expected["sample"] = sample
        self.legacy = self.expected["generation"] == 1
        self.plain = self.expected["storage_type"] == "software" and self.legacy
        self.dek = bytes.fromhex(self.expected.get("dek_hex", ""))
        self.db = sqlite3.connect(os.path.join(out, "db.sqlite3"))
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA synchronous = OFF")
        self.tables = {name for name, in self.rows("SELECT name FROM sqlite_master")}
        self.issued_table = ("pki_issuedcredentialmodel"
                             if "pki_issuedcredentialmodel" in self.tables
                             else "devices_issuedcredentialmodel")
        self.ca_table = ("pki_genericcamodel" if "pki_genericcamodel" in self.tables
                         else "pki_issuingcamodel")
        self.clock = NOW + datetime.timedelta(hours=1)
        self.many = []
        self._token = None

    def rows(self, sql, *values):
        return self.db.execute(sql, values).fetchall()

    def one(self, sql, *values):
        return self.db.execute(sql, values).fetchone()

    def run(self, sql, *values):
        return self.db.execute(sql, values).lastrowid

    def insert(self, table, **values):
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        return self.run(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', *values.values())

    def columns(self, table):
        return [row["name"] for row in self.rows(f'PRAGMA table_info("{table}")')]

    def now(self):
        self.clock += datetime.timedelta(seconds=1, microseconds=7)
        return django_time(self.clock)

    def bytes(self, size):
        return self.random.randbytes(size)

    def credential(self, kind):
        return next(c for c in self.expected["credentials"] if c["kind"] == kind)

    def by_id(self, credential_id):
        return next(c for c in self.expected["credentials"]
                    if c["credential_id"] == credential_id)

    # -- the token --

    def token(self):
        if not self._token:
            pkcs11.use_tokens(os.path.join(self.out, "tokens"))
            self._token = pkcs11.Module().open(self.expected["pin"],
                                               label=self.expected["token_label"])
        return self._token

    def keks(self):
        return self.token().find(key_type=pkcs11.CKK_AES, label=self.expected["kek_label"])

    def new_kek(self, kind=None):
        """A KEK with the attributes that Trustpoint asks for."""
        all_uses = self.legacy or kind == "combined"
        crypt, wrap = all_uses or kind == "encrypt-decrypt", all_uses or kind is None
        template = dict(token=True, private=True, sensitive=True, label=self.expected["kek_label"],
                        id=b"", value_len=32, encrypt=crypt, decrypt=crypt, wrap=wrap,
                        unwrap=wrap, sign=self.legacy, verify=self.legacy, derive=False,
                        **{"class": pkcs11.CKO_SECRET_KEY})
        if not self.legacy:
            template["extractable"] = False
        return self.token().generate(**template)

    # -- sealing --

    def seal(self, text, pad=None):
        """A private key column's value, in this generation's field format."""
        if self.plain:
            return text
        data, aad, prefix = text.encode(), FIELD_V2, "tpsec:v1:"
        if self.legacy:
            count = self.random.randrange(16) if pad is None else pad
            data, aad, prefix = data + bytes(count) + bytes([count]), None, ""
        nonce = self.bytes(12)
        sealed = AESGCM(self.dek).encrypt(nonce, data, aad)
        return prefix + base64.b64encode(nonce + sealed[-16:] + sealed[:-16]).decode()

    def open(self, value):
        if value.startswith("-----BEGIN "):
            return value
        data = base64.b64decode(value if self.legacy else value[len("tpsec:v1:"):])
        plain = AESGCM(self.dek).decrypt(data[:12], data[28:] + data[12:28],
                                         None if self.legacy else FIELD_V2)
        return (plain[:-1 - plain[-1]] if self.legacy else plain).decode()

    def private_key_of(self, entry):
        row = self.one("SELECT * FROM pki_credentialmodel WHERE id = ?", entry["credential_id"])
        if row["private_key"]:
            pem = self.open(row["private_key"]).encode()
            return serialization.load_pem_private_key(pem, None)
        sealed = self.one("SELECT encrypted_private_key_pkcs8_der_b64 FROM"
                          " crypto_managed_key_protected_import_binding WHERE managed_key_id = ?",
                          row["managed_private_key_id"])[0]
        return serialization.load_der_private_key(base64.b64decode(self.open(sealed)), None)

    def write_dek(self, wrapped):
        if self.legacy:
            self.run("UPDATE management_pkcs11token SET encrypted_dek = ?", wrapped)
        else:
            self.run("UPDATE app_secret_pkcs11_config SET wrapped_dek = ?", wrapped)
        self.expected["wrapped_dek_hex"] = wrapped.hex()

    def wrapped_dek(self):
        return bytes.fromhex(self.expected["wrapped_dek_hex"])

    # -- keys, certificates, credentials --

    def new_key(self, curve=ec.SECP256R1()):
        """A key that the seed determines."""
        order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
        return ec.derive_private_key(self.random.randrange(1, order), curve)

    def issue(self, common_name, key, issuer=None, ca=False):
        """A certificate. `issuer` is (certificate, key); None: self-signed."""
        # X.520 allows 64 characters; libraries disagree on what those are outside of ASCII.
        common_name = common_name.encode()[:64].decode(errors="ignore")
        issuer_name = issuer[0].subject if issuer else x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer_key = issuer[1] if issuer else key
        identifier = x509.SubjectKeyIdentifier.from_public_key
        return (x509.CertificateBuilder()
                .subject_name(x509.Name(
                    [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
                .issuer_name(issuer_name).public_key(key.public_key())
                .serial_number(int.from_bytes(self.bytes(15), "big"))
                .not_valid_before(NOW - datetime.timedelta(days=1))
                .not_valid_after(NOW + datetime.timedelta(days=365 * CERTIFICATE_YEARS))
                .add_extension(x509.BasicConstraints(ca, None), True)
                .add_extension(identifier(key.public_key()), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    issuer_key.public_key()), False)
                .sign(issuer_key, hashes.SHA256()))

    def issuing_ca(self):
        entry = self.credential("issuing-ca")
        return self.certificate(entry["certificate_id"]), self.private_key_of(entry)

    def certificate(self, certificate_id):
        pem = self.one("SELECT cert_pem FROM pki_certificatemodel WHERE id = ?", certificate_id)[0]
        return x509.load_pem_x509_certificate(pem.encode())

    def certificate_row(self, certificate):
        public = certificate.public_key()
        is_ec = isinstance(public, ec.EllipticCurvePublicKey)
        name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return {
            "is_self_signed": int(certificate.subject == certificate.issuer),
            "common_name": name,
            "sha256_fingerprint": certificate.fingerprint(hashes.SHA256()).hex().upper(),
            "signature_algorithm_oid": certificate.signature_algorithm_oid.dotted_string,
            "signature_value": certificate.signature.hex().upper(),
            "version": certificate.version.value,
            "serial_number": f"{certificate.serial_number:X}",
            "issuer_public_bytes": certificate.issuer.public_bytes().hex().upper(),
            "subject_public_bytes": certificate.subject.public_bytes().hex().upper(),
            "not_valid_before": django_time(validity(certificate, "before")),
            "not_valid_after": django_time(validity(certificate, "after")),
            "spki_algorithm_oid": "1.2.840.10045.2.1" if is_ec else "1.2.840.113549.1.1.1",
            "spki_algorithm": "ECC" if is_ec else "RSA",
            "spki_key_size": public.key_size,
            "spki_ec_curve_oid": {"secp256r1": "1.2.840.10045.3.1.7",
                                  "secp384r1": "1.3.132.0.34",
                                  "secp521r1": "1.3.132.0.35"}[public.curve.name] if is_ec else "",
            "spki_ec_curve": public.curve.name.upper() if is_ec else "",
            "cert_pem": certificate.public_bytes(PEM).decode(),
            "public_key_pem": public.public_bytes(PEM, SPKI).decode(),
        }

    def add_certificate(self, certificate, issuer_id=None):
        row = self.certificate_row(certificate)
        row["created_at"] = self.now()
        if "issuer_id" in self.columns("pki_certificatemodel"):
            row["issuer_id"] = issuer_id
        return self.insert("pki_certificatemodel", **row)

    def add_chain(self, credential_id, certificate_id, chain, order=None):
        """`chain` from the leaf's issuer up; `order` are the positions to store them at."""
        if order is None:
            reverse = self.expected["release"] not in ("0.3", "0.4")
            order = range(len(chain) - 1, -1, -1) if reverse else range(len(chain))
        for position, member in zip(order, chain):
            self.insert("pki_certificatechainordermodel", order=position, certificate_id=member,
                        primary_certificate_id=certificate_id, credential_id=credential_id)

    def set_certificate(self, entry, certificate_id, chain, order=None):
        """The credential's certificate from now on; the one before becomes history."""
        credential_id = entry["credential_id"]
        self.run("UPDATE pki_credentialmodel SET certificate_id = ? WHERE id = ?", certificate_id,
                 credential_id)
        self.run("UPDATE pki_primarycredentialcertificate SET is_primary = 0"
                 " WHERE credential_id = ?", credential_id)
        self.insert("pki_primarycredentialcertificate", is_primary=1,
                    certificate_id=certificate_id, credential_id=credential_id)
        self.add_chain(credential_id, certificate_id, chain, order)
        self.expect_certificate(entry, certificate_id, chain)

    def expect_certificate(self, entry, certificate_id, chain):
        certificate = self.certificate(certificate_id)
        public = certificate.public_key()
        entry.update(
            certificate_id=certificate_id, certificate_sha256=sha256(certificate.public_bytes(DER)),
            chain_sha256=[sha256(self.certificate(c).public_bytes(DER)) for c in chain],
            common_name=certificate.subject.get_attributes_for_oid(
                NameOID.COMMON_NAME)[0].value,
            serial_number=f"{certificate.serial_number:X}",
            spki_sha256=sha256(public.public_bytes(DER, SPKI)),
            key=({"type": "RSA", "bits": public.key_size}
                 if isinstance(public, rsa.RSAPublicKey) else
                 {"type": "EC", "bits": public.key_size, "curve": public.curve.name}))

    def add_credential(self, kind, credential_type, key, certificate_id, chain, order=None,
                       pad=None, stored=True, names=None):
        """A credential with its row in expected.json. `stored` false: it has no key."""
        private_key = self.seal(pkcs8(key, PEM).decode(), pad) if stored else ""
        credential_id = self.insert(
            "pki_credentialmodel", credential_type=credential_type, private_key=private_key,
            created_at=self.now(), certificate_id=certificate_id)
        entry = {"credential_id": credential_id, "kind": kind, "credential_type": credential_type,
                 "names": names or {}, "key_location": "none"}
        if stored:
            entry["key_location"] = "db-plaintext" if self.plain else "db-encrypted"
            entry["pkcs8_sha256"] = sha256(pkcs8(key, DER))
            entry["spki_sha256"] = sha256(key.public_key().public_bytes(DER, SPKI))
        if certificate_id is not None:
            self.insert("pki_primarycredentialcertificate", is_primary=1,
                        certificate_id=certificate_id, credential_id=credential_id)
            self.add_chain(credential_id, certificate_id, chain, order)
            self.expect_certificate(entry, certificate_id, chain)
        self.expected["credentials"].append(entry)
        return entry

    def issued_by_ca(self, common_name, key):
        """A new certificate by the issuing CA: its id and its chain."""
        ca_id = self.credential("issuing-ca")["certificate_id"]
        root_id = self.one("SELECT certificate_id FROM pki_certificatechainordermodel"
                           " WHERE primary_certificate_id = ?", ca_id)[0]
        certificate = self.issue(common_name, key, self.issuing_ca())
        return self.add_certificate(certificate, ca_id), [ca_id, root_id]

    def add_device_credential(self, kind, device_id, common_name, key=None, **options):
        """An issued credential of a device, with a new key unless one is given."""
        key = key or self.new_key()
        certificate_id, chain = self.issued_by_ca(common_name, key)
        device = self.one("SELECT * FROM devices_devicemodel WHERE id = ?", device_id)
        entry = self.add_credential(kind, 3, key, certificate_id, chain, **options)
        self.add_issued(entry, device, common_name)
        return entry

    def add_issued(self, entry, device, common_name):
        issued_id = self.insert(
            self.issued_table, common_name=common_name, issued_credential_type=1,
            created_at=self.now(), credential_id=entry["credential_id"], device_id=device["id"],
            domain_id=device["domain_id"], issued_using_cert_profile="TLS Client")
        domain = self.one("SELECT unique_name FROM pki_domainmodel WHERE id = ?",
                          device["domain_id"])
        entry["names"] = {"device": device["common_name"], "issued_cn": common_name,
                          "domain": domain[0], "issued_credential_id": issued_id}

    def add_device(self, common_name):
        """A device like the first one, under another name."""
        row = dict(self.one("SELECT * FROM devices_devicemodel LIMIT 1"))
        del row["id"]
        row["common_name"] = common_name
        if "rfc_4122_uuid" in row:
            row["rfc_4122_uuid"] = self.bytes(16).hex()
        return self.insert("devices_devicemodel", **row)

    # -- the end --

    def save(self, postgres=True):
        self.db.commit()
        if self._token:
            self._token.close()
        if postgres:
            write_postgres(self)
        else:
            os.unlink(os.path.join(self.out, "postgres.sql"))
        for sql in self.many:
            self.run(sql)
        self.db.commit()
        self.db.close()
        with open(os.path.join(self.out, "expected.json"), "w", encoding="utf-8") as file:
            json.dump(self.expected, file, indent=1, ensure_ascii=False)
        with open(os.path.join(self.out, "softhsm2.conf"), "w", encoding="utf-8") as file:
            file.write(f"directories.tokendir = {os.path.abspath(self.out)}/tokens\n"
                       "objectstore.backend = file\nlog.level = ERROR\n")


# ---- the same rows for PostgreSQL -----------------------------------------------------------

def split_columns(text):
    """The parts of a CREATE TABLE's body, split at its outer commas."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return parts + [text[start:].strip()]


def copy_value(value, kind):
    """A value as COPY reads it."""
    if value is None:
        return "\\N"
    if kind.startswith("boolean"):
        return "t" if value else "f"
    if kind.startswith("bytea"):
        return "\\\\x" + value.hex()
    text = str(value) + ("+00" if kind.startswith("timestamp with") else "")
    return (text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
            .replace("\r", "\\r"))


def write_postgres(fixture):
    """postgres.sql anew: the sample's tables, as far as the database still has them, and its
    present rows."""
    path = os.path.join(fixture.out, "postgres.sql")
    with open(path, encoding="utf-8") as file:
        creates = re.findall(r'^CREATE TABLE "(\w+)" \((.*)\);$', file.read(), re.MULTILINE)
    lines = ["BEGIN;", "SET client_encoding = 'UTF8';", "SET standard_conforming_strings = on;"]
    for table, body in creates:
        present = fixture.columns(table)
        parts = [part for part in split_columns(body)
                 if not part.startswith('"') or part.split('"')[1] in present]
        if present:
            lines += [f'CREATE TABLE "{table}" ({", ".join(parts)});']
            lines += copy_table(fixture, table, parts)
    lines += ["COMMIT;"] + [to_postgres(sql) for sql in fixture.many]
    for table, body in creates:
        if fixture.columns(table) and "GENERATED BY DEFAULT AS IDENTITY" in body:
            lines.append(f"""SELECT setval(pg_get_serial_sequence('"{table}"', 'id'),"""
                         f""" (SELECT coalesce(max(id), 0) + 1 FROM "{table}"), false);""")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines + [""]))


def copy_table(fixture, table, parts):
    kinds = {part.split('"')[1]: part.split('"')[2].strip()
             for part in parts if part.startswith('"')}
    names = ", ".join(f'"{name}"' for name in kinds)
    lines = [f'COPY "{table}" ({names}) FROM stdin;']
    for row in fixture.rows(f'SELECT {names} FROM "{table}"'):
        lines.append("\t".join(copy_value(value, kind)
                               for value, kind in zip(row, kinds.values())))
    return lines + ["\\."]


def to_postgres(sql):
    """One of the statements of --many, which count with a recursive query in SQLite."""
    return (re.sub(r"^WITH RECURSIVE count\(n\) AS \(.*?LIMIT (\d+)\) ",
                   r"WITH count(n) AS (SELECT generate_series(1, \1)) ", sql)
            .replace("printf('%064X', n)", "upper(lpad(to_hex(n), 64, '0'))")
            .replace("printf('%032x', n)", "lpad(to_hex(n), 32, '0')::uuid") + ";")


# ---- what the options do --------------------------------------------------------------------

def apply_kek(fixture, state):
    fixture.expected["kek_state"] = state
    if state == "token-lost":
        shutil.rmtree(os.path.join(fixture.out, "tokens"))
        os.mkdir(os.path.join(fixture.out, "tokens"))
        return
    if state in ("lost", "foreign"):
        for kek in fixture.keks():
            fixture.token().destroy(kek)
    if state in ("foreign", "duplicate"):
        fixture.new_kek()


def apply_kek_label(fixture, label):
    """Another label; and another AES key on the token, which is nobody's KEK."""
    for kek in fixture.keks():
        fixture.token().set(kek, label=label)
    fixture.expected["kek_label"] = "bystander"
    fixture.new_kek()
    fixture.expected["kek_label"] = label
    if fixture.legacy:
        fixture.run("UPDATE pki_pkcs11key SET key_label = ? WHERE key_type = 'aes'", label)
    else:
        fixture.run("UPDATE app_secret_pkcs11_config SET kek_label = ?", label)


def apply_no_kek_row(fixture):
    """0.4 and 0.5: the row of the KEK is gone, so that its label is the usual one."""
    fixture.run("UPDATE management_pkcs11token SET kek_id = NULL")
    fixture.run("DELETE FROM pki_pkcs11key WHERE key_type = 'aes'")


def apply_serial(fixture):
    """0.6: the token is named by its serial number as well."""
    fixture.token()
    serial = next(serial for _, label, serial in fixture.token().module.tokens()
                  if label == fixture.expected["token_label"])
    for table in ("app_secret_pkcs11_config", "crypto_provider_pkcs11_config"):
        fixture.run(f"UPDATE {table} SET token_serial = ?", serial)


def apply_protection(fixture, protection):
    """The DEK of Trustpoint 0.6 under another of the ways that it can be protected in."""
    fixture.expected["dek_protection"] = protection
    token = fixture.token()
    if protection.startswith("cwrap"):
        key = token.create(token=False, private=True, sensitive=False, extractable=True,
                           encrypt=True, decrypt=True, key_type=pkcs11.CKK_AES, value=fixture.dek,
                           **{"class": pkcs11.CKO_SECRET_KEY})
        prefix = "tpsec:pkcs11:cwrap:v1:"
        mechanism = (pkcs11.CKM_AES_KEY_WRAP_PAD if protection == "cwrap-pad"
                     else pkcs11.CKM_AES_KEY_WRAP)
        wrapped = token.wrap(fixture.keks()[0], mechanism, key)
        token.destroy(key)
    else:
        for kek in fixture.keks():
            token.destroy(kek)
        prefix = f"tpsec:pkcs11:{protection}:v1:"
        mechanism = (pkcs11.CKM_AES_CBC_PAD if protection == "enc-cbc-pad"
                     else pkcs11.CKM_AES_CBC)
        iv = fixture.bytes(16)
        wrapped = iv + token.encrypt(fixture.new_kek("encrypt-decrypt"), mechanism, fixture.dek,
                                     iv)
    fixture.write_dek(prefix.encode() + wrapped)


def apply_corruption(fixture, what):
    fixture.expected["corrupt"] = what
    tls, device = fixture.credential("tls"), fixture.credential("device-p384")
    value = {entry["kind"]: fixture.one("SELECT private_key FROM pki_credentialmodel WHERE id = ?",
                                        entry["credential_id"])[0] for entry in (tls, device)}
    update = "UPDATE pki_credentialmodel SET private_key = ? WHERE id = ?"
    prefix = "" if fixture.legacy else "tpsec:v1:"
    if what == "tls-key":
        data = flip(base64.b64decode(value["tls"][len(prefix):]), 40)
        fixture.run(update, prefix + base64.b64encode(data).decode(), tls["credential_id"])
    elif what == "tls-tag":
        data = flip(base64.b64decode(value["tls"][len(prefix):]), 12)
        fixture.run(update, prefix + base64.b64encode(data).decode(), tls["credential_id"])
    elif what == "tls-base64":
        fixture.run(update, value["tls"][:-8] + "*" + value["tls"][-7:], tls["credential_id"])
    elif what == "tls-short":
        fixture.run(update, prefix + base64.b64encode(bytes(20)).decode(), tls["credential_id"])
    elif what == "swapped-keys":
        fixture.run(update, value["device-p384"], tls["credential_id"])
        fixture.run(update, value["tls"], device["credential_id"])
    elif what == "certificate":
        fixture.run("UPDATE pki_certificatemodel SET cert_pem = replace(cert_pem, 'M', 'N')"
                    " WHERE id = ?", tls["certificate_id"])
    elif what == "wrapped-dek":
        fixture.write_dek(flip(fixture.wrapped_dek()))
    elif what == "wrapped-dek-short":
        fixture.write_dek(fixture.wrapped_dek()[:-1])
    elif what == "wrapped-dek-null":
        fixture.write_dek(b"")
        table, column = (("management_pkcs11token", "encrypted_dek") if fixture.legacy
                         else ("app_secret_pkcs11_config", "wrapped_dek"))
        fixture.run(f"UPDATE {table} SET {column} = NULL")
    elif what == "backup-dek":
        blob = flip(bytes.fromhex(fixture.expected["backup"]["blob_hex"]), 20)
        fixture.run("UPDATE management_pkcs11token SET bek_encrypted_dek = ?", blob)
        fixture.expected["backup"]["blob_hex"] = blob.hex()


CORRUPTIONS = ("tls-key", "tls-tag", "tls-base64", "tls-short", "swapped-keys", "certificate",
               "wrapped-dek", "wrapped-dek-short", "wrapped-dek-null", "backup-dek")


def apply_created_at(fixture, text, password):
    """Another creation time (and password): it is part of the salt, so the envelope is new."""
    moment = datetime.datetime.fromisoformat(text)
    backup = fixture.expected["backup"]
    password = backup["password"] if password is None else password
    stamp = moment.isoformat() + "+00:00"
    salt_input = f"trustpoint-bek:{fixture.expected['token_label']}:{stamp}"
    salt = hashlib.sha256(salt_input.encode()).digest()[:16]
    bek, nonce = argon2id(password.encode(), salt), fixture.bytes(12)
    blob = nonce + AESGCM(bek).encrypt(nonce, fixture.dek, None)
    fixture.run("UPDATE management_pkcs11token SET created_at = ?, bek_encrypted_dek = ?",
                django_time(moment), blob)
    fixture.expected["created_at"] = stamp
    backup.update(password=password, salt_input=salt_input, salt_hex=salt.hex(),
                  bek_hex=bek.hex(), blob_hex=blob.hex())


def apply_no_backup(fixture):
    fixture.run("UPDATE management_pkcs11token SET bek_encrypted_dek = NULL")
    del fixture.expected["backup"]


def apply_pads(fixture):
    """A device whose credentials have every length of padding."""
    device = fixture.add_device("fx-pads")
    for pad in range(16):
        fixture.add_device_credential(f"pad-{pad}", device, f"pad-{pad}.fx-pads", pad=pad)


def apply_chain(fixture, how):
    """Every chain in another order, and a longer one."""
    tls = fixture.credential("tls")
    issuer, chain_ids = fixture.issuing_ca(), fixture.issued_by_ca("unused", fixture.new_key())[1]
    for level in range(1, 4):
        key = fixture.new_key()
        certificate = fixture.issue(f"fx Sub CA {level}", key, issuer, ca=True)
        chain_ids.insert(0, fixture.add_certificate(certificate, chain_ids[0]))
        issuer = certificate, key
    key = fixture.private_key_of(tls)
    leaf = fixture.add_certificate(fixture.issue("localhost", key, issuer), chain_ids[0])
    fixture.set_certificate(tls, leaf, chain_ids)
    for credential_id, primary in fixture.rows(
            "SELECT DISTINCT credential_id, primary_certificate_id"
            " FROM pki_certificatechainordermodel"):
        reorder(fixture, how, credential_id, primary)


def reorder(fixture, how, credential_id, primary):
    where = "WHERE credential_id = ? AND primary_certificate_id = ?"
    rows = fixture.rows('SELECT id, certificate_id FROM pki_certificatechainordermodel '
                        f'{where} ORDER BY "order"', credential_id, primary)
    reverse = fixture.expected["release"] not in ("0.3", "0.4")
    members = [row["certificate_id"] for row in (reversed(rows) if reverse else rows)]
    if how == "root-first":
        members.reverse()
    elif how == "shuffled":  # neither way round
        members = members[1::2] + members[0::2]
    for position, (row, member) in enumerate(zip(rows, members)):
        fixture.run('UPDATE pki_certificatechainordermodel SET certificate_id = ?, "order" = ?'
                    " WHERE id = ?", member, position, row["id"])


def apply_renewed(fixture):
    """The TLS server's certificate was renewed for the same key, by another CA; the old chain
    stays."""
    tls = fixture.credential("tls")
    certificate_id, chain = fixture.issued_by_ca("localhost", fixture.private_key_of(tls))
    tls["earlier_certificate_sha256"] = [tls["certificate_sha256"]]
    fixture.set_certificate(tls, certificate_id, chain)


def apply_self_listed(fixture):
    """The active TLS credential is one that Trustpoint signed itself: its own chain."""
    tls, key = fixture.credential("tls"), fixture.new_key()
    certificate_id = fixture.add_certificate(
        fixture.issue("Trustpoint Self-Signed TLS Server Credential", key))
    entry = fixture.add_credential("tls-self-signed", 0, key, certificate_id, [certificate_id],
                                   names={"active_tls": True})
    fixture.run("UPDATE pki_activetrustpointtlsservercredentialmodel SET credential_id = ?",
                entry["credential_id"])
    entry["chain_sha256"] = []
    tls["names"] = {"note": "replaced"}


def apply_odd_names(fixture):
    renames = [(fixture.ca_table, "unique_name", "ca", "issuing-ca"),
               ("signer_signermodel", "unique_name", "signer", "hsm-signer"),
               ("pki_ownercredentialmodel", "unique_name", "owner", "dev-owner-id"),
               ("crypto_managed_key", "alias", "alias", "issuing-ca"),
               ("pki_domainmodel", "unique_name", "domain", None),
               ("devices_devicemodel", "common_name", "device", None),
               (fixture.issued_table, "common_name", "issued_cn", "device-p521")]
    for table, column, name, kind in renames:
        if table not in fixture.tables:
            continue
        new = ODD_NAMES["cn" if name == "issued_cn" else name]
        old = next(c["names"][name] for c in fixture.expected["credentials"]
                   if name in c["names"] and kind in (None, c["kind"]))
        fixture.run(f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?', new, old)
        for entry in fixture.expected["credentials"]:
            if entry["names"].get(name) == old:
                entry["names"][name] = new
    # Two pairs of device and name that read alike once they are joined by a slash; and one that
    # is longer than any name may be.
    for device, common_name in (("press", "line/1"), ("press/line", "1"), ("ö" * 100, "ü" * 250)):
        fixture.add_device_credential("odd", fixture.add_device(device), common_name)


def apply_ambiguous(fixture):
    """A device with one name twice, an owner with two credentials where a release has them, and
    one name for a signer, an owner and a device."""
    first = fixture.one("SELECT id FROM devices_devicemodel LIMIT 1")[0]
    same = fixture.credential("device-p384")["names"]["issued_cn"]
    fixture.add_device_credential("same-cn", first, same)
    twin = fixture.add_device(fixture.credential("hsm-signer")["names"]["signer"])
    fixture.add_device_credential("same-name", twin, "only.twin")
    if "pki_remoteissuedcredentialmodel" in fixture.tables:
        key = fixture.new_key()
        certificate_id, chain = fixture.issued_by_ca("fx DevOwnerID 2", key)
        entry = fixture.add_credential("second-owner-credential", 4, key, certificate_id, chain)
        row = dict(fixture.one("SELECT * FROM pki_remoteissuedcredentialmodel"))
        del row["id"]
        row.update(credential_id=entry["credential_id"], created_at=fixture.now(),
                   common_name="fx DevOwnerID 2")
        fixture.insert("pki_remoteissuedcredentialmodel", **row)
        entry["names"] = {"owner": fixture.credential("dev-owner-id")["names"]["owner"]}
        fixture.credential("dev-owner-id")["names"]["owner_is_older"] = True


def apply_keyless(fixture):
    """A CA and a TLS credential without a key and, where a release allows it, a credential that
    waits for its certificate."""
    for kind, credential_type, name in (("keyless-ca", 2, "fx-keyless-ca"),
                                        ("keyless-tls", 0, "keyless.example")):
        certificate_id, chain = fixture.issued_by_ca(name, fixture.new_key())
        entry = fixture.add_credential(kind, credential_type, None, certificate_id, chain,
                                       stored=False)
        if kind == "keyless-ca":
            row = dict(fixture.one(f'SELECT * FROM "{fixture.ca_table}" WHERE credential_id'
                                   " IS NOT NULL"))
            del row["id"]
            row.update(unique_name=name, credential_id=entry["credential_id"])
            fixture.insert(fixture.ca_table, **row)
            entry["names"] = {"ca": name}
    if fixture.expected["release"] not in ("0.3", "0.4"):
        device = fixture.one("SELECT * FROM devices_devicemodel LIMIT 1")
        entry = fixture.add_credential("pending", 3, fixture.new_key(), None, None)
        fixture.add_issued(entry, device, "pending.fx-device-01")


def apply_lone_keys(fixture):
    """Managed keys of 0.6 that no credential uses (yet): one imported, and one in the token or in
    Trustpoint's software storage."""
    profile = fixture.one("SELECT id FROM crypto_provider_profile")[0]
    in_token = fixture.expected["storage_type"] == "pkcs11"
    fixture.expected["managed_keys"] = []
    for alias, kind in (("lone import", "protected_import"),
                        ("lone/other", "pkcs11" if in_token else "software")):
        key, number = fixture.new_key(), fixture.bytes(16).hex()
        row = dict(fixture.one("SELECT * FROM crypto_managed_key WHERE algorithm = 'ec'"))
        fingerprint = sha256(key.public_key().public_bytes(DER, SPKI))
        row.update(id=number, alias=alias, provider_label=alias,
                   public_key_fingerprint_sha256=fingerprint)
        fixture.insert("crypto_managed_key", **row)
        bind = {"protected_import": bind_import, "pkcs11": bind_token,
                "software": bind_software}[kind]
        location = bind(fixture, key, alias, managed_key_id=number, provider_profile_id=profile)
        fixture.expected["managed_keys"].append({
            "id": number, "alias": alias, "key_location": location, "spki_sha256": fingerprint,
            "pkcs8_sha256": sha256(pkcs8(key, DER)),
            "key": {"type": "EC", "bits": 256, "curve": "secp256r1"}})


def bind_import(fixture, key, _alias, **row):
    text = base64.b64encode(pkcs8(key, DER)).decode()
    fixture.insert("crypto_managed_key_protected_import_binding",
                   key_handle=fixture.bytes(16).hex(), encryption_metadata="{}",
                   encrypted_private_key_pkcs8_der_b64=fixture.seal(text), **row)
    return "protected-import"


def bind_software(fixture, key, _alias, **row):
    sealed = key.private_bytes(
        DER, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(DEVELOPMENT_PASSWORD))
    fixture.insert("crypto_managed_key_software_binding", key_handle=fixture.bytes(16).hex(),
                   encryption_metadata="{}", encrypted_private_key_pkcs8_der=sealed, **row)
    return "software-managed"


def bind_token(fixture, key, alias, **row):
    identifier = fixture.bytes(16)
    p256 = bytes.fromhex("06082a8648ce3d030107")
    point = key.public_key().public_bytes(serialization.Encoding.X962,
                                          serialization.PublicFormat.UncompressedPoint)
    fixture.token().create(token=True, private=True, sensitive=True, extractable=False, sign=True,
                           key_type=pkcs11.CKK_EC, label=alias, id=identifier, ec_params=p256,
                           value=key.private_numbers().private_value.to_bytes(32, "big"),
                           **{"class": pkcs11.CKO_PRIVATE_KEY})
    fixture.token().create(token=True, private=False, verify=True, key_type=pkcs11.CKK_EC,
                           label=alias, id=identifier, ec_params=p256, ec_point=b"\x04\x41" + point,
                           **{"class": pkcs11.CKO_PUBLIC_KEY})
    fixture.insert("crypto_managed_key_pkcs11_binding", key_id_hex=identifier.hex(), **row)
    return "hsm"


def apply_plaintext(fixture, kind):
    """Keys in the clear although the configuration says HSM: of one kind, or all."""
    for entry in fixture.expected["credentials"]:
        if entry["key_location"] == "db-encrypted" and kind in ("all", entry["kind"]):
            value = fixture.one("SELECT private_key FROM pki_credentialmodel WHERE id = ?",
                                entry["credential_id"])[0]
            fixture.run("UPDATE pki_credentialmodel SET private_key = ? WHERE id = ?",
                        fixture.open(value), entry["credential_id"])
            entry["key_location"] = "db-plaintext"


def apply_release_0_3(fixture):
    """Trustpoint 0.3: what 0.4 has without HSM, encryption and DevOwnerIDs."""
    for entry in [c for c in fixture.expected["credentials"]
                  if c["key_location"] == "hsm" or "owner" in c["names"]]:
        number = entry["credential_id"]
        for table in (fixture.ca_table, "signer_signermodel", "pki_ownercredentialmodel",
                      "pki_primarycredentialcertificate", "pki_certificatechainordermodel"):
            fixture.run(f'DELETE FROM "{table}" WHERE credential_id = ?', number)
        fixture.run("DELETE FROM pki_credentialmodel WHERE id = ?", number)
        fixture.expected["credentials"].remove(entry)
    apply_plaintext(fixture, "all")
    fixture.run("ALTER TABLE pki_credentialmodel DROP COLUMN pkcs11_private_key_id")
    for table in ("management_keystorageconfig", "management_pkcs11token", "pki_pkcs11key",
                  "pki_ownercredentialmodel"):
        fixture.run(f'DROP TABLE "{table}"')
    fixture.run("UPDATE management_appversion SET version = '0.3.0'")
    shutil.rmtree(os.path.join(fixture.out, "tokens"))
    os.mkdir(os.path.join(fixture.out, "tokens"))
    for name in ("backup", "dek_hex", "wrapped_dek_hex"):
        del fixture.expected[name]
    fixture.expected.update(generation=0, release="0.3", storage_type="software")
    fixture.plain = True


def apply_many(fixture, count):
    """That many more devices with a credential each, all with one key, each with a certificate row
    of its own; and the indices that Django makes."""
    model = fixture.credential("device-p384")
    base = {table: fixture.one(f'SELECT max(id) FROM "{table}"')[0] + 1
            for table in ("devices_devicemodel", "pki_credentialmodel", "pki_certificatemodel",
                          fixture.issued_table,
                          "pki_primarycredentialcertificate", "pki_certificatechainordermodel")}
    numbers = ("WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count"
               f" LIMIT {count}) ")

    def multiply(table, where, **replaced):
        names = [name for name in fixture.columns(table)]
        values = [replaced.get(name, f'"{name}"') for name in names]
        quoted = ", ".join(f'"{name}"' for name in names)
        fixture.many.append(f'{numbers}INSERT INTO "{table}" ({quoted}) SELECT {", ".join(values)}'
                            f' FROM count CROSS JOIN "{table}" WHERE {where}')

    credential = f"{base['pki_credentialmodel']} + n"
    certificate = f"{base['pki_certificatemodel']} + n"
    device = f"{base['devices_devicemodel']} + n"
    leaf, number = model["certificate_id"], model["credential_id"]
    multiply("devices_devicemodel",
             f"common_name = '{model['names']['device']}'", id=device,
             common_name="'bulk-' || n", rfc_4122_uuid="printf('%032x', n)")
    multiply("pki_certificatemodel", f'"{"pki_certificatemodel"}".id = {leaf}', id=certificate,
             sha256_fingerprint="printf('%064X', n)")
    multiply("pki_credentialmodel", f'"pki_credentialmodel".id = {number}', id=credential,
             certificate_id=certificate)
    multiply(fixture.issued_table, f"credential_id = {number}", credential_id=credential,
             id=f"{base[fixture.issued_table]} + n", device_id=device,
             common_name="'bulk-' || n")
    multiply("pki_primarycredentialcertificate",
             f"credential_id = {number} AND certificate_id = {leaf}",
             id=f"{base['pki_primarycredentialcertificate']} + n", credential_id=credential,
             certificate_id=certificate)
    for position in (0, 1):
        multiply("pki_certificatechainordermodel",
                 f"credential_id = {number} AND primary_certificate_id = {leaf}"
                 f' AND "order" = {position}',
                 id=f"{base['pki_certificatechainordermodel']} + {position * count} + n",
                 credential_id=credential, primary_certificate_id=certificate)
    index_foreign_keys(fixture)
    fixture.expected["many"] = {
        "count": count, "device": "bulk-%d", "issued_cn": "bulk-%d",
        "first_credential_id": base["pki_credentialmodel"] + 1, "key_of": number}


def index_foreign_keys(fixture):
    """As Django does, where there is no other index."""
    tables = [table for table in fixture.tables
              if not table.startswith("sqlite") and fixture.columns(table)]
    for table in sorted(tables):
        indexed = {fixture.one(f'PRAGMA index_info("{index["name"]}")')["name"]
                   for index in fixture.rows(f'PRAGMA index_list("{table}")')}
        for key in fixture.rows(f'PRAGMA foreign_key_list("{table}")'):
            if key["from"] not in indexed:
                fixture.many.append(f'CREATE INDEX "fk_{len(fixture.many)}" ON "{table}"'
                                    f' ("{key["from"]}")')


# ---- command line ---------------------------------------------------------------------------

def parse_arguments(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--from", dest="sample", default="legacy-0.5")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--release", choices=["0.3"])
    parser.add_argument("--kek", choices=["lost", "foreign", "duplicate", "token-lost"])
    parser.add_argument("--kek-label", metavar="LABEL")
    parser.add_argument("--no-kek-row", action="store_true")
    parser.add_argument("--with-serial", action="store_true")
    parser.add_argument("--corrupt", choices=CORRUPTIONS)
    parser.add_argument("--dek-protection", choices=["cwrap", "cwrap-pad", "enc-cbc-pad",
                                                     "enc-cbc"])
    parser.add_argument("--created-at", metavar="YYYY-MM-DDTHH:MM:SS[.ffffff]")
    parser.add_argument("--password", help="the backup password, with --created-at")
    parser.add_argument("--no-backup", action="store_true")
    parser.add_argument("--pads", action="store_true")
    parser.add_argument("--chain", choices=["leaf-first", "root-first", "shuffled"])
    parser.add_argument("--renewed", action="store_true")
    parser.add_argument("--self-listed", action="store_true")
    parser.add_argument("--odd-names", action="store_true")
    parser.add_argument("--ambiguous", action="store_true")
    parser.add_argument("--keyless", action="store_true")
    parser.add_argument("--lone-keys", action="store_true")
    parser.add_argument("--plaintext", metavar="KIND", help="a kind of expected.json, or all")
    parser.add_argument("--many", type=int, metavar="N")
    parser.add_argument("--no-postgres", action="store_true")
    return parser.parse_args(words)


def batch(path):
    """A process for each, since one process has one folder of tokens."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        child = os.fork()
        if child == 0:
            try:
                generate(shlex.split(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit(f"failed: {line}")


def main():
    if sys.argv[1:2] == ["--batch"]:
        batch(sys.argv[2])
    else:
        generate(sys.argv[1:])


def generate(words):
    args = parse_arguments(words)
    if args.release:
        args.sample = "legacy-0.4"
    fixture = Fixture(args.sample, args.out, args.seed)
    steps = [  # those that need the present KEK and keys come before those that spoil them
        (args.kek_label, apply_kek_label), (args.no_kek_row, apply_no_kek_row),
        (args.with_serial, apply_serial), (args.dek_protection, apply_protection), (args.pads, apply_pads),
        (args.chain, apply_chain), (args.renewed, apply_renewed),
        (args.self_listed, apply_self_listed), (args.ambiguous, apply_ambiguous),
        (args.keyless, apply_keyless), (args.lone_keys, apply_lone_keys), (args.odd_names, apply_odd_names),
        (args.plaintext, apply_plaintext), (args.release, apply_release_0_3),
        (args.no_backup, apply_no_backup), (args.many, apply_many),
        (args.corrupt, apply_corruption), (args.kek, apply_kek)]
    if args.created_at:
        apply_created_at(fixture, args.created_at, args.password)
    for value, step in steps:
        if value is True or value == "0.3":
            step(fixture)
        elif value:
            step(fixture, value)
    fixture.save(postgres=not args.no_postgres)


if __name__ == "__main__":
    main()
