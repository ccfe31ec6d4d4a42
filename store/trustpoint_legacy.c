/*
 * trustpoint_legacy.c - Trustpoint 0.3 to 0.5
 *
 * 0.3 has its keys in the clear. 0.4 and 0.5 either have them so too (storage "software"), or
 * under a DEK, which a KEK on the token and perhaps a password wrap. A KEK has no more than a
 * label; what it wraps has no integrity.
 */
#include <stdio.h>

#include "error.h"
#include "trustpoint.h"

#define KEK_LABEL "trustpoint-kek" /* unless a row says otherwise */
#define PIN_FILE "/run/secrets/hsm_pin"
#define SALT_SIZE 16
#define BACKUP_SIZE (NONCE_SIZE + DEK_SIZE + TAG_SIZE)
#define TEXT_MAX 512

#define READ_ONLY                                                                                  \
    "it is Trustpoint's own database, which only Trustpoint changes: make the change there, or "   \
    "import the key into a keystore of this software"

/* ---- storage in the clear ---- */

static tpks_result read_plain(OSSL_LIB_CTX *libctx, head *out)
{
    slot_row *slot = NULL;

    TRY(trustpoint_start_head(libctx, "software", out));
    TRY(trustpoint_add_slot(libctx, out, SLOT_SOFTWARE, "keys in the clear", &slot));
    return trustpoint_add_wrap(out, slot, WRAP_NONE, NULL, 0);
}

static tpks_result read_head_0_3(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    (void)d;
    return read_plain(libctx, out);
}

static tpks_result open_software(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const char *state_dir, DEK **out)
{
    (void)d;
    (void)h;
    (void)state_dir;
    return dek_none(libctx, out);
}

/* ---- storage with an HSM ---- */

typedef struct token_row {
    const char *label;
    const char *module;
    tpks_value wrapped; /* DEK under the KEK */
    tpks_value backup;  /* DEK under the password */
    const char *created;
    const char *kek_label;
} token_row;

static tpks_result take_token(reader *r, token_row *row)
{
    row->label = take_borrowed_text(r);
    row->module = take_borrowed_text(r);
    row->wrapped = take_borrowed_blob(r);
    row->backup = take_borrowed_blob(r);
    row->created = take_borrowed_text(r);
    row->kek_label = take_borrowed_text(r);
    if (row->label == NULL || row->module == NULL || row->created == NULL)
        malformed(r);
    return r->result;
}

static tpks_result add_hsm_slot(OSSL_LIB_CTX *libctx, head *h, const token_row *row,
                                int64_t created)
{
    const char *kek = row->kek_label != NULL ? row->kek_label : KEK_LABEL;
    slot_row *slot = NULL;

    TRY(trustpoint_add_slot(libctx, h, SLOT_HSM_AES, kek, &slot));
    slot->created = created;
    TRY(trustpoint_set_text(&slot->token_label, row->label));
    TRY(trustpoint_set_text(&slot->kek_label, kek));
    if (row->wrapped.size == 0)
        return TPKS_OK;
    return trustpoint_add_wrap(h, slot, WRAP_TRUSTPOINT_ECB, row->wrapped.data, row->wrapped.size);
}

/* SHA-256 of a text that names token and time, cut in half. */
static tpks_result set_salt(OSSL_LIB_CTX *libctx, const token_row *row, const char *time,
                            slot_row *slot)
{
    char text[TEXT_MAX];
    unsigned char digest[SHA256_SIZE];
    int size = snprintf(text, sizeof(text), "trustpoint-bek:%s:%s", row->label, time);

    if (size >= (int)sizeof(text))
        return fail(TPKS_TAMPERED, "the token's label is too long");
    TRY(sha256(libctx, text, (size_t)size, digest));
    return bytes_set(&slot->salt, digest, SALT_SIZE);
}

static tpks_result add_password_slot(OSSL_LIB_CTX *libctx, head *h, const token_row *row,
                                     const char *time, int64_t created)
{
    slot_row *slot = NULL;

    if (row->backup.size == 0)
        return TPKS_OK;
    TRY(trustpoint_add_slot(libctx, h, SLOT_PASSWORD, "Trustpoint's backup password", &slot));
    slot->created = created;
    slot->kdf_version = ARGON2_VERSION_13;
    slot->cost = (tpks_kdf_cost){.t = 3, .m_kib = 65536, .p = 1};
    TRY(set_salt(libctx, row, time, slot));
    return trustpoint_add_wrap(h, slot, WRAP_TRUSTPOINT_BACKUP, row->backup.data, row->backup.size);
}

static tpks_result set_head(const database *d, OSSL_LIB_CTX *libctx, const token_row *row,
                            head *out)
{
    char time[48], facts[TEXT_MAX];
    int64_t created = 0;
    unsigned microseconds = 0;

    if (!trustpoint_isoformat(row->created, time) ||
        !trustpoint_time(row->created, &created, &microseconds))
        return fail(TPKS_TAMPERED,
                    "%s: table management_pkcs11token: created_at is no time: restore the database "
                    "from a backup",
                    d->backend->describe(d->db));
    snprintf(facts, sizeof(facts), "%s\n%s", row->label, time);
    TRY(trustpoint_start_head(libctx, facts, out));
    TRY(trustpoint_set_token(out, row->label, NULL, row->module, PIN_FILE));
    TRY(add_hsm_slot(libctx, out, row, created));
    return add_password_slot(libctx, out, row, time, created);
}

static tpks_result read_token(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    READER r = {.d = d, .table = "management_pkcs11token"};
    token_row row;
    bool got = false;

    TRY(reader_start(&r,
                     "SELECT t.label, t.module_path, t.encrypted_dek, t.bek_encrypted_dek,"
                     " CAST(t.created_at AS VARCHAR(40)), k.key_label"
                     " FROM management_pkcs11token t LEFT JOIN pki_pkcs11key k ON k.id = t.kek_id"
                     " ORDER BY t.id LIMIT 1",
                     NULL, 0));
    TRY(reader_next(&r, &got));
    if (!got) /* the wizard was not finished: nothing can be under a DEK yet */
        return read_plain(libctx, out);
    TRY(take_token(&r, &row));
    return set_head(d, libctx, &row, out);
}

static tpks_result read_head(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    READER r = {.d = d, .table = "management_keystorageconfig"};
    bool got = false, in_hsm = false;

    TRY(reader_start(&r, "SELECT storage_type FROM management_keystorageconfig ORDER BY id LIMIT 1",
                     NULL, 0));
    TRY(reader_next(&r, &got));
    if (got) {
        const char *storage = take_borrowed_text(&r);
        TRY(r.result);
        in_hsm = storage != NULL && strcmp(storage, "software") != 0;
    }
    return in_hsm ? read_token(d, libctx, out) : read_plain(libctx, out);
}

/* ---- the schemas ---- */

static tpks_result unchanged(tpks_result result, const head *h, const head *now, bool *out)
{
    *out = result == TPKS_OK && trustpoint_same_head(h, now);
    return result;
}

static tpks_result is_unchanged(const database *d, OSSL_LIB_CTX *libctx, const head *h, bool *out)
{
    __attribute__((cleanup(head_clear))) head now = {0};

    return unchanged(read_head(d, libctx, &now), h, &now, out);
}

static tpks_result is_unchanged_0_3(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                    bool *out)
{
    __attribute__((cleanup(head_clear))) head now = {0};

    return unchanged(read_head_0_3(d, libctx, &now), h, &now, out);
}

#define SCHEMA_COMMON                                                                              \
    .read_only = READ_ONLY, .prove_dek = trustpoint_prove_dek, .open_software = open_software,     \
    .count_records = trustpoint_count_records, .count_in_token = trustpoint_count_in_token,        \
    .each_record = trustpoint_each_record, .each_readable = trustpoint_each_readable,              \
    .needs_dek = trustpoint_needs_dek, .open_record = trustpoint_open_record

const schema schema_trustpoint_plain = {
    .name = "Trustpoint 0.3",
    .read_head = read_head_0_3,
    .is_unchanged = is_unchanged_0_3,
    SCHEMA_COMMON,
};

const schema schema_trustpoint_0_4 = {
    .name = "Trustpoint 0.4",
    .read_head = read_head,
    .is_unchanged = is_unchanged,
    .rewrap = &trustpoint_legacy_rewrap,
    SCHEMA_COMMON,
};

const schema schema_trustpoint_0_5 = {
    .name = "Trustpoint 0.5",
    .read_head = read_head,
    .is_unchanged = is_unchanged,
    .rewrap = &trustpoint_legacy_rewrap,
    SCHEMA_COMMON,
};
