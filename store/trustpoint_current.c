/*
 * trustpoint_current.c - Trustpoint 0.6 and later
 *
 * Every key in a credential's row is encrypted, also with storage "software", where the DEK lies
 * beside them in the clear. What wraps it with a KEK says in front which way it was done, but not
 * with which mechanism of PKCS#11. There is no password.
 */
#include <stdio.h>

#include "error.h"
#include "trustpoint.h"

#define TEXT_MAX 512
#define IV_SIZE 16

/* ---- the wrapped DEK ---- */

static const struct {
    const char *prefix;
    wrap_algorithm algorithm;
    size_t iv_size;
} envelopes[] = {
    {"tpsec:pkcs11:cwrap:v1:", WRAP_TRUSTPOINT_CWRAP, 0},
    {"tpsec:pkcs11:enc-cbc-pad:v1:", WRAP_TRUSTPOINT_CBC_PAD, IV_SIZE},
    {"tpsec:pkcs11:enc-cbc:v1:", WRAP_TRUSTPOINT_CBC, IV_SIZE},
};

static tpks_result add_envelope(head *h, const slot_row *slot, const tpks_value *stored)
{
    const unsigned char *data = stored->data;

    for (size_t i = 0; i < COUNT(envelopes); i++) {
        size_t prefix = strlen(envelopes[i].prefix), iv_size = envelopes[i].iv_size;
        if (stored->size < prefix + iv_size || memcmp(data, envelopes[i].prefix, prefix) != 0)
            continue;
        TRY(trustpoint_add_wrap(h, slot, envelopes[i].algorithm, data + prefix + iv_size,
                                stored->size - prefix - iv_size));
        return bytes_set(&h->wraps[h->wrap_count - 1].iv, data + prefix, iv_size);
    }
    return trustpoint_add_wrap(h, slot, WRAP_NONE, data, stored->size);
}

static size_t envelope_of(uint64_t algorithm)
{
    for (size_t i = 1; i < COUNT(envelopes); i++)
        if (envelopes[i].algorithm == algorithm)
            return i;
    return 0; /* C_WrapKey, with whatever mechanism */
}

tpks_result trustpoint_make_envelope(const wrap_row *wrap, bytes *out)
{
    unsigned char text[WRAPPED_MAX + 64];
    const char *prefix = envelopes[envelope_of(wrap->algorithm)].prefix;
    size_t size = strlen(prefix);

    if (wrap->iv.size > IV_SIZE || wrap->wrapped.size > WRAPPED_MAX)
        return fail(TPKS_INTERNAL, "the wrapped DEK is too long");
    memcpy(text, prefix, size);
    if (wrap->iv.size != 0)
        memcpy(text + size, wrap->iv.data, wrap->iv.size);
    size += wrap->iv.size;
    memcpy(text + size, wrap->wrapped.data, wrap->wrapped.size);
    return bytes_set(out, text, size + wrap->wrapped.size);
}

/* ---- the head ---- */

typedef struct config_row {
    const char *module;
    const char *label;
    const char *serial;
    const char *auth_source;
    const char *auth_ref;
    const char *kek_label;
    tpks_value wrapped;
} config_row;

static tpks_result take_config(reader *r, config_row *row)
{
    row->module = take_borrowed_text(r);
    row->label = take_borrowed_text(r);
    row->serial = take_borrowed_text(r);
    row->auth_source = take_borrowed_text(r);
    row->auth_ref = take_borrowed_text(r);
    row->kek_label = take_borrowed_text(r);
    row->wrapped = take_borrowed_blob(r);
    if (row->module == NULL || row->label == NULL || row->serial == NULL ||
        row->auth_source == NULL || row->auth_ref == NULL || row->kek_label == NULL)
        malformed(r);
    return r->result;
}

static tpks_result set_head(OSSL_LIB_CTX *libctx, const config_row *row, head *out)
{
    char facts[TEXT_MAX];
    slot_row *slot = NULL;

    snprintf(facts, sizeof(facts), "%s\n%s", row->serial, row->label);
    TRY(trustpoint_start_head(libctx, facts, out));
    TRY(trustpoint_set_token(out, row->label, row->serial, row->module,
                             strcmp(row->auth_source, "file") == 0 ? row->auth_ref : NULL));
    TRY(trustpoint_add_slot(libctx, out, SLOT_HSM_AES, row->kek_label, &slot));
    TRY(trustpoint_set_text(&slot->token_label, row->label));
    TRY(trustpoint_set_text(&slot->token_serial, row->serial));
    TRY(trustpoint_set_text(&slot->kek_label, row->kek_label));
    return row->wrapped.size == 0 ? TPKS_OK : add_envelope(out, slot, &row->wrapped);
}

static tpks_result read_pkcs11(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    READER r = {.d = d, .table = "app_secret_pkcs11_config"};
    config_row row;
    bool got = false;

    TRY(reader_start(&r,
                     "SELECT module_path, token_label, token_serial, auth_source, auth_source_ref,"
                     " kek_label, wrapped_dek FROM app_secret_pkcs11_config WHERE backend_id = 1",
                     NULL, 0));
    TRY(reader_next(&r, &got));
    if (!got)
        return fail(TPKS_TAMPERED,
                    "%s: Trustpoint's application secrets are said to be in a token, but table "
                    "app_secret_pkcs11_config is empty: finish the set-up of Trustpoint",
                    d->backend->describe(d->db));
    TRY(take_config(&r, &row));
    return set_head(libctx, &row, out);
}

static tpks_result read_software(OSSL_LIB_CTX *libctx, head *out)
{
    slot_row *slot = NULL;

    TRY(trustpoint_start_head(libctx, "software", out));
    TRY(trustpoint_add_slot(libctx, out, SLOT_SOFTWARE, "DEK in the database, in the clear",
                            &slot));
    return trustpoint_add_wrap(out, slot, WRAP_TRUSTPOINT_RAW, NULL, 0);
}

static tpks_result read_head(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    READER r = {.d = d, .table = "app_secret_backend"};
    const char *kind = NULL;
    bool got = false;

    TRY(reader_start(&r, "SELECT backend_kind FROM app_secret_backend WHERE singleton_id = 1", NULL,
                     0));
    TRY(reader_next(&r, &got));
    if (!got)
        return fail(TPKS_UNINITIALIZED,
                    "%s: Trustpoint has no application secrets yet: finish its "
                    "set-up",
                    d->backend->describe(d->db));
    kind = take_borrowed_text(&r);
    TRY(r.result);
    if (kind != NULL && strcmp(kind, "pkcs11") == 0)
        return read_pkcs11(d, libctx, out);
    if (kind != NULL && strcmp(kind, "software") == 0)
        return read_software(libctx, out);
    return fail(
        TPKS_NEWER_FORMAT,
        "%s: Trustpoint keeps its application secrets in \"%.40s\", which this version does "
        "not know: use a newer version",
        d->backend->describe(d->db), kind == NULL ? "" : kind);
}

static tpks_result is_unchanged(const database *d, OSSL_LIB_CTX *libctx, const head *h, bool *out)
{
    __attribute__((cleanup(head_clear))) head now = {0};

    TRY(read_head(d, libctx, &now));
    *out = trustpoint_same_head(h, &now);
    return TPKS_OK;
}

/* From the row into secret memory, no way round. */
static tpks_result open_software(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const char *state_dir, DEK **out)
{
    READER r = {.d = d, .table = "app_secret_software_config"};
    bool got = false;

    (void)h;
    (void)state_dir;
    TRY(reader_start(&r, "SELECT raw_dek FROM app_secret_software_config WHERE backend_id = 1",
                     NULL, 0));
    TRY(reader_next(&r, &got));
    tpks_value raw = got ? take_borrowed_blob(&r) : (tpks_value){.type = TPKS_VALUE_NULL};
    TRY(r.result);
    if (raw.size != DEK_SIZE)
        return fail(TPKS_KEK_MISSING,
                    "%s: Trustpoint has no DEK of %d bytes in table app_secret_software_config: "
                    "restore the database from a backup",
                    d->backend->describe(d->db), DEK_SIZE);
    TPKS_SECRET *dek = tpks_secret_copy(raw.data, raw.size);
    return dek == NULL ? fail_memory() : dek_from_secret(libctx, dek, out);
}

const schema schema_trustpoint_current = {
    .name = "Trustpoint 0.6 or later",
    .read_only = "it is Trustpoint's own database, which only Trustpoint changes: make the change "
                 "there, or import the key into a keystore of this software",
    .read_head = read_head,
    .is_unchanged = is_unchanged,
    .rewrap = &trustpoint_current_rewrap,
    .prove_dek = trustpoint_prove_dek,
    .open_software = open_software,
    .count_records = trustpoint_count_records,
    .count_in_token = trustpoint_count_in_token,
    .each_record = trustpoint_each_record,
    .each_readable = trustpoint_each_readable,
    .needs_dek = trustpoint_needs_dek,
    .open_record = trustpoint_open_record,
};
