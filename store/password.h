/*
 * password.h - keys from passwords and recovery keys
 *
 * password:     BEK = Argon2id(password, salt, t, m, p) (RFC 9106, version 0x13), 32 bytes
 * recovery key: BEK = the 256 bits themselves
 * then          HKDF-SHA512 (RFC 5869) of the BEK with the slot's salt gives wrap key and
 * commitment.
 */
#ifndef TRUSTPOINT_PASSWORD_H
#define TRUSTPOINT_PASSWORD_H

#include "keystore.h"

#define KDF_SALT_SIZE 32
#define BEK_SIZE 32
#define COMMITMENT_SIZE 32
#define ARGON2_VERSION_13 0x13

/* The cost for this machine: t=4, m=min(256 MiB, a quarter of RAM or cgroup limit), p=1.
 * TPKS_UNSUPPORTED when m would be under 64 MiB. */
TPKS_CHECK tpks_result kdf_default_cost(tpks_kdf_cost *out);
/*
 * Is `cost` weaker than `policy`, in memory or in work (t * m)? Then *out is what takes its place:
 * nothing of it is less than `cost` has, and neither memory nor work less than those of `policy`.
 */
bool kdf_is_weak(const tpks_kdf_cost *cost, const tpks_kdf_cost *policy, tpks_kdf_cost *out);
/* Bounds for parameters from a database, checked before anything is allocated: t <= 32, 8 MiB <= m
 * <= 1 GiB, p <= 4, t*m <= 8 GiB. TPKS_TAMPERED. */
TPKS_CHECK tpks_result kdf_check_cost(uint32_t version, const tpks_kdf_cost *cost);

TPKS_CHECK tpks_result kdf_password(const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                                    const unsigned char salt[KDF_SALT_SIZE], TPKS_SECRET **bek);
/* The same with a salt of another size, 8 to 64 bytes, as another program has chosen it. */
TPKS_CHECK tpks_result kdf_password_salted(const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                                           const unsigned char *salt, size_t salt_size,
                                           TPKS_SECRET **bek);
/* wrap key (32 bytes) and commitment from a BEK. */
TPKS_CHECK tpks_result kdf_expand(OSSL_LIB_CTX *libctx, const TPKS_SECRET *bek,
                                  const unsigned char salt[KDF_SALT_SIZE], TPKS_SECRET **wrap_key,
                                  unsigned char commitment[COMMITMENT_SIZE]);

/*
 * A recovery key as people write it: "TPRK1-" and groups of modhex (cbdefghijklnrtuv), a checksum
 * at the end. Printing: a NUL-terminated text in a secret, whose size leaves the NUL out. Parsing:
 * ignores case, blanks, line ends and dashes.
 */
TPKS_CHECK tpks_result recovery_key_new(TPKS_SECRET **bek, TPKS_SECRET **text);
/* Does it look like a recovery key at all (starts with TPRK1)? */
bool recovery_key_looks_like(const TPKS_SECRET *text);
/* TPKS_BAD_INPUT when the checksum says that it was mistyped: costs no attempt. */
TPKS_CHECK tpks_result recovery_key_parse(const TPKS_SECRET *text, TPKS_SECRET **bek);

#endif
