/*
 * trustpoint_proof.c - is this the DEK?
 *
 * Trustpoint keeps no check value, and with some of its wraps a wrong KEK gives a wrong DEK
 * without an error. The proof is a ciphertext of this database that opens: the tag of AES-GCM.
 */
#include "error.h"
#include "secret.h"
#include "trustpoint.h"

/* A few: one that was damaged must not hide a DEK that opens all others. Keys in the clear, which
 * an upgrade from 0.3 leaves, prove nothing. */
#define ACTIVE_FIELD                                                                               \
    "SELECT c.private_key FROM pki_activetrustpointtlsservercredentialmodel a"                     \
    " JOIN pki_credentialmodel c ON c.id = a.credential_id WHERE a.id = 1"
#define SOME_FIELDS                                                                                \
    "SELECT private_key FROM pki_credentialmodel WHERE private_key <> ''"                          \
    " AND private_key NOT LIKE '-----BEGIN %' ORDER BY id LIMIT 32"
#define SOME_IMPORTS                                                                               \
    "SELECT encrypted_private_key_pkcs8_der_b64 FROM"                                              \
    " crypto_managed_key_protected_import_binding ORDER BY managed_key_id LIMIT 32"

typedef struct proof {
    const database *d;
    DEK *dek;
    size_t refused; /* ciphertexts that did not open */
    bool proven;
} proof;

static tpks_result try_field(proof *p, const char *field)
{
    SECRET *plain = NULL;

    if (field == NULL || *field == '\0' || trustpoint_field_is_plain(field))
        return TPKS_OK;
    tpks_result result = p->d->tables->keys == TRUSTPOINT_KEYS_MANAGED
                             ? trustpoint_field_open_2(p->dek, field, &plain)
                             : trustpoint_field_open_1(p->dek, field, &plain);
    p->proven = result == TPKS_OK;
    p->refused += result == TPKS_TAMPERED;
    return result == TPKS_TAMPERED ? TPKS_OK : result;
}

static tpks_result try_fields(proof *p, const char *sql)
{
    READER r = {.d = p->d, .table = "of encrypted keys"};
    bool got = !p->proven;

    if (p->proven)
        return TPKS_OK;
    TRY(reader_start(&r, sql, NULL, 0));
    while (got && !p->proven) {
        TRY(reader_next(&r, &got));
        if (!got)
            break;
        const char *field = take_borrowed_text(&r);
        TRY(r.result);
        TRY(try_field(p, field));
    }
    return TPKS_OK;
}

static tpks_result try_all(proof *p)
{
    TRY(try_fields(p, ACTIVE_FIELD));
    TRY(try_fields(p, SOME_FIELDS));
    return p->d->tables->keys == TRUSTPOINT_KEYS_MANAGED ? try_fields(p, SOME_IMPORTS) : TPKS_OK;
}

tpks_result trustpoint_prove_dek(const database *d, OSSL_LIB_CTX *libctx, const head *h, DEK *dek)
{
    proof p = {.d = d, .dek = dek};

    (void)libctx;
    (void)h;
    if (dek_is_none(dek))
        return TPKS_OK;
    TRY(try_all(&p));
    if (!p.proven && p.refused > 0)
        return fail(TPKS_TAMPERED,
                    "none of the %zu encrypted keys that were tried opens with this "
                    "DEK",
                    p.refused);
    return TPKS_OK;
}

bool trustpoint_is_proven(const database *d, DEK *dek, bool by_itself)
{
    proof p = {.d = d, .dek = dek};

    return try_all(&p) == TPKS_OK && (p.proven || (by_itself && p.refused == 0));
}
