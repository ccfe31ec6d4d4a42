"""pkcs11.py - as much of PKCS#11 as the generator and the checker need, by ctypes

A Token is one logged-in read-write session. Attributes are given and read as Python values: bool,
int, bytes or str, by the names in ATTRIBUTES.
"""
import ctypes
import os
import tempfile
from ctypes import Structure, byref, c_char, c_ubyte, c_ulong, c_void_p

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"

CKU_SO, CKU_USER = 0, 1
CKO_CERTIFICATE, CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY = 1, 2, 3, 4
CKK_RSA, CKK_EC, CKK_AES = 0x00, 0x03, 0x1F
CKM_RSA_PKCS = 0x0001
CKM_ECDSA = 0x1041
CKM_AES_KEY_GEN = 0x1080
CKM_AES_ECB = 0x1081
CKM_AES_CBC = 0x1082
CKM_AES_CBC_PAD = 0x1085
CKM_AES_KEY_WRAP = 0x2109
CKM_AES_KEY_WRAP_PAD = 0x210A
CKM_AES_KEY_WRAP_KWP = 0x210B

ATTRIBUTES = {
    "class": (0x000, int), "token": (0x001, bool), "private": (0x002, bool),
    "label": (0x003, str), "value": (0x011, bytes), "key_type": (0x100, int),
    "id": (0x102, bytes), "sensitive": (0x103, bool), "encrypt": (0x104, bool),
    "decrypt": (0x105, bool), "wrap": (0x106, bool), "unwrap": (0x107, bool),
    "sign": (0x108, bool), "verify": (0x10A, bool), "derive": (0x10C, bool),
    "modulus": (0x120, bytes), "public_exponent": (0x122, bytes),
    "private_exponent": (0x123, bytes), "prime_1": (0x124, bytes), "prime_2": (0x125, bytes),
    "exponent_1": (0x126, bytes), "exponent_2": (0x127, bytes), "coefficient": (0x128, bytes),
    "value_len": (0x161, int), "extractable": (0x162, bool), "local": (0x163, bool),
    "never_extractable": (0x164, bool), "always_sensitive": (0x165, bool),
    "modifiable": (0x170, bool), "ec_params": (0x180, bytes), "ec_point": (0x181, bytes),
}


class Attribute(Structure):
    _fields_ = [("type", c_ulong), ("value", c_void_p), ("size", c_ulong)]


class Mechanism(Structure):
    _fields_ = [("mechanism", c_ulong), ("parameter", c_void_p), ("size", c_ulong)]


class TokenInfo(Structure):
    _fields_ = [("label", c_char * 32), ("manufacturer", c_char * 32), ("model", c_char * 16),
                ("serial", c_char * 16), ("flags", c_ulong), ("numbers", c_ulong * 10),
                ("versions", c_ubyte * 4), ("time", c_char * 16)]


class Error(Exception):
    def __init__(self, function, code):
        super().__init__(f"{function}: CKR 0x{code:x}")
        self.code = code


def use_tokens(folder):
    """Makes SoftHSM look into `folder`; before the module is loaded. Returns the configuration."""
    handle, path = tempfile.mkstemp(prefix="softhsm2-", suffix=".conf")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"directories.tokendir = {os.path.abspath(folder)}\n"
                   "objectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = path
    return path


def _template(attributes):
    keep, items = [], []
    for name, value in attributes.items():
        number, kind = ATTRIBUTES[name]
        if kind is bool:
            data = b"\1" if value else b"\0"
        elif kind is int:
            data = int(value).to_bytes(ctypes.sizeof(c_ulong), "little")
        else:
            data = value.encode() if isinstance(value, str) else bytes(value)
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        keep.append(buffer)
        items.append(Attribute(number, ctypes.cast(buffer, c_void_p), len(data)))
    array = (Attribute * max(len(items), 1))(*items)
    array.keep = keep
    return array, len(items)


def _mechanism(number, parameter=b""):
    buffer = ctypes.create_string_buffer(parameter, max(len(parameter), 1))
    mechanism = Mechanism(number, ctypes.cast(buffer, c_void_p) if parameter else None,
                          len(parameter))
    mechanism.keep = buffer
    return mechanism


class Module:
    def __init__(self, path=SOFTHSM):
        self.library = ctypes.CDLL(path)
        self.call("C_Initialize", None)

    def call(self, function, *arguments):
        code = getattr(self.library, function)(*arguments)
        if code:
            raise Error(function, code)

    def tokens(self):
        """Every initialised token as (slot, label, serial)."""
        count = c_ulong()
        self.call("C_GetSlotList", c_ubyte(1), None, byref(count))
        slots = (c_ulong * count.value)()
        self.call("C_GetSlotList", c_ubyte(1), slots, byref(count))
        found = []
        for slot in slots[:count.value]:
            info = TokenInfo()
            self.call("C_GetTokenInfo", c_ulong(slot), byref(info))
            if info.flags & 0x400:
                found.append((slot, ctypes.string_at(byref(info), 32).rstrip(b" \0").decode(),
                              bytes(info.serial).rstrip(b" \0").decode()))
        return found

    def open(self, pin, label=None, serial=None):
        """The one token with that label or serial number, logged in; None: there is none."""
        matching = [slot for slot, name, number in self.tokens()
                    if (label is None or name == label) and (serial is None or number == serial)]
        if len(matching) > 1:
            raise LookupError(f"{len(matching)} tokens match {label!r} {serial!r}")
        return Token(self, matching[0], pin) if matching else None

    def init_token(self, label, so_pin, pin):
        """A new token in the first slot that has none."""
        count = c_ulong()
        self.call("C_GetSlotList", c_ubyte(1), None, byref(count))
        slots = (c_ulong * count.value)()
        self.call("C_GetSlotList", c_ubyte(1), slots, byref(count))
        taken = {slot for slot, _, _ in self.tokens()}
        slot = next(slot for slot in slots if slot not in taken)
        padded = label.encode().ljust(32)
        self.call("C_InitToken", c_ulong(slot), so_pin.encode(), c_ulong(len(so_pin)), padded)
        session = c_ulong()
        slot = next(slot for slot, name, _ in self.tokens()
                    if name == label and slot not in taken)
        self.call("C_OpenSession", c_ulong(slot), c_ulong(6), None, None, byref(session))
        self.call("C_Login", session, c_ulong(CKU_SO), so_pin.encode(), c_ulong(len(so_pin)))
        self.call("C_InitPIN", session, pin.encode(), c_ulong(len(pin)))
        self.call("C_CloseSession", session)


class Token:
    def __init__(self, module, slot, pin):
        self.module = module
        self.session = c_ulong()
        module.call("C_OpenSession", c_ulong(slot), c_ulong(6), None, None, byref(self.session))
        data = pin.encode()
        module.call("C_Login", self.session, c_ulong(CKU_USER), data, c_ulong(len(data)))

    def close(self):
        self.module.call("C_CloseSession", self.session)

    def find(self, **attributes):
        template, count = _template(attributes)
        self.module.call("C_FindObjectsInit", self.session, template, c_ulong(count))
        found, got, handle = [], c_ulong(1), c_ulong()
        while got.value:
            self.module.call("C_FindObjects", self.session, byref(handle), c_ulong(1), byref(got))
            if got.value:
                found.append(handle.value)
        self.module.call("C_FindObjectsFinal", self.session)
        return found

    def get(self, handle, name):
        """An attribute's value; None: this object has none, or does not show it."""
        number, kind = ATTRIBUTES[name]
        item = Attribute(number, None, 0)
        try:
            self.module.call("C_GetAttributeValue", self.session, c_ulong(handle), byref(item),
                             c_ulong(1))
            buffer = ctypes.create_string_buffer(max(item.size, 1))
            item.value = ctypes.cast(buffer, c_void_p)
            self.module.call("C_GetAttributeValue", self.session, c_ulong(handle), byref(item),
                             c_ulong(1))
        except Error:
            return None
        data = buffer.raw[:item.size]
        if kind is bool:
            return data != b"\0"
        if kind is int:
            return int.from_bytes(data, "little")
        return data.decode() if kind is str else data

    def create(self, **attributes):
        template, count = _template(attributes)
        handle = c_ulong()
        self.module.call("C_CreateObject", self.session, template, c_ulong(count), byref(handle))
        return handle.value

    def set(self, handle, **attributes):
        template, count = _template(attributes)
        self.module.call("C_SetAttributeValue", self.session, c_ulong(handle), template,
                         c_ulong(count))

    def generate(self, **attributes):
        template, count = _template(attributes)
        handle = c_ulong()
        self.module.call("C_GenerateKey", self.session, byref(_mechanism(CKM_AES_KEY_GEN)),
                         template, c_ulong(count), byref(handle))
        return handle.value

    def destroy(self, handle):
        self.module.call("C_DestroyObject", self.session, c_ulong(handle))

    def _crypt(self, verb, key, mechanism, parameter, data):
        self.module.call(f"C_{verb}Init", self.session, byref(_mechanism(mechanism, parameter)),
                         c_ulong(key))
        out, size = ctypes.create_string_buffer(len(data) + 1024), c_ulong(len(data) + 1024)
        self.module.call(f"C_{verb}", self.session, data, c_ulong(len(data)), out, byref(size))
        return out.raw[:size.value]

    def encrypt(self, key, mechanism, data, parameter=b""):
        return self._crypt("Encrypt", key, mechanism, parameter, data)

    def decrypt(self, key, mechanism, data, parameter=b""):
        return self._crypt("Decrypt", key, mechanism, parameter, data)

    def sign(self, key, mechanism, data):
        return self._crypt("Sign", key, mechanism, b"", data)

    def wrap(self, kek, mechanism, key):
        out, size = ctypes.create_string_buffer(4096), c_ulong(4096)
        self.module.call("C_WrapKey", self.session, byref(_mechanism(mechanism)), c_ulong(kek),
                         c_ulong(key), out, byref(size))
        return out.raw[:size.value]

    def unwrap(self, kek, mechanism, data, **attributes):
        template, count = _template(attributes)
        handle = c_ulong()
        self.module.call("C_UnwrapKey", self.session, byref(_mechanism(mechanism)), c_ulong(kek),
                         data, c_ulong(len(data)), template, c_ulong(count), byref(handle))
        return handle.value
