/* slot.c - making and opening the ways to the DEK */
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "error.h"
#include "file.h"
#include "secret.h"
#include "text.h"

#define DEK_HEX_SIZE ((size_t)2 * DEK_SIZE)

void new_slot_clear(new_slot *made)
{
    slot_row_clear(&made->slot);
    wrap_row_clear(&made->wrap);
}

static bool set_text(char **to, const char *text)
{
    OPENSSL_free(*to);
    *to = OPENSSL_strdup(text);
    return *to != NULL;
}

/* What all kinds have in common. */
static tpks_result start_slot(OSSL_LIB_CTX *libctx, const head *h, slot_kind kind,
                              const char *label, new_slot *out)
{
    char host[256] = "";

    memset(out, 0, sizeof(*out));
    gethostname(host, sizeof(host) - 1);
    out->slot.kind = kind;
    out->slot.state = SLOT_ACTIVE;
    out->slot.created = (int64_t)time(NULL);
    TRY(random_public(libctx, out->slot.id, TPKS_ID_SIZE));
    memcpy(out->wrap.slot, out->slot.id, TPKS_ID_SIZE);
    memcpy(out->wrap.dek, h->dek, TPKS_ID_SIZE);
    if (!set_text(&out->slot.label, label) || !set_text(&out->slot.host, host) ||
        !set_text(&out->slot.token_label, "") || !set_text(&out->slot.token_serial, ""))
        return fail_memory();
    return TPKS_OK;
}

/* ---- HSM ---- */

tpks_result slot_plan_hsm(OSSL_LIB_CTX *libctx, const head *h, const HSM *hsm, new_slot *out)
{
    unsigned char cka_id[CKA_ID_SIZE];

    TRY(start_slot(libctx, h, SLOT_HSM_AES, hsm_token_label(hsm), out));
    out->slot.state = SLOT_PENDING;
    TRY(random_public(libctx, cka_id, sizeof(cka_id)));
    TRY(bytes_set(&out->slot.cka_id, cka_id, sizeof(cka_id)));
    if (!set_text(&out->slot.token_label, hsm_token_label(hsm)) ||
        !set_text(&out->slot.token_serial, hsm_token_serial(hsm)))
        return fail_memory();
    return TPKS_OK;
}

tpks_result slot_fill_hsm(const head *h, HSM *hsm, const TPKS_SECRET *dek, new_slot *planned)
{
    unsigned char wrapped[WRAPPED_MAX], iv[16];
    const unsigned char *cka_id = planned->slot.cka_id.data;
    size_t wrapped_size = 0, iv_size = 0;
    wrap_algorithm algorithm = WRAP_NONE;
    char label[64];

    snprintf(label, sizeof(label), "trustpoint-keystore %02x%02x%02x%02x", h->keystore[0],
             h->keystore[1], h->keystore[2], h->keystore[3]);
    TRY(hsm_make_kek(hsm, cka_id, label, dek, &algorithm, wrapped, &wrapped_size, iv, &iv_size));
    if (algorithm == WRAP_RSA_OAEP_SHA256 || algorithm == WRAP_RSA_OAEP_SHA1)
        planned->slot.kind = SLOT_HSM_RSA_OAEP;
    planned->slot.state = SLOT_ACTIVE;
    planned->wrap.algorithm = algorithm;
    tpks_result result = bytes_set(&planned->wrap.wrapped, wrapped, wrapped_size);
    if (result == TPKS_OK)
        result = bytes_set(&planned->wrap.iv, iv, iv_size);
    if (result != TPKS_OK)
        TRY(hsm_destroy_kek(hsm, cka_id));
    return result;
}

tpks_result slot_make_hsm(OSSL_LIB_CTX *libctx, const head *h, HSM *hsm, const TPKS_SECRET *dek,
                          new_slot *out)
{
    TRY(slot_plan_hsm(libctx, h, hsm, out));
    return slot_fill_hsm(h, hsm, dek, out);
}

bool slot_is_on(const slot_row *slot, const HSM *hsm)
{
    if (*slot->token_serial != '\0' && strcmp(slot->token_serial, hsm_token_serial(hsm)) == 0)
        return true;
    return slot->kek_label != NULL && strcmp(slot->token_label, hsm_token_label(hsm)) == 0;
}

static tpks_result unwrap(OSSL_LIB_CTX *libctx, const head *h, const hsm_wrapped *wrapped, HSM *hsm,
                          const char *where, DEK **out)
{
    TPKS_SECRET *dek = NULL;
    bool decrypts = wrapped->algorithm == WRAP_TRUSTPOINT_ECB ||
                    wrapped->algorithm == WRAP_TRUSTPOINT_CBC_PAD ||
                    wrapped->algorithm == WRAP_TRUSTPOINT_CBC;

    if (decrypts && strcmp(where, "hsm") == 0)
        return fail(TPKS_UNSUPPORTED,
                    "Trustpoint has encrypted its DEK instead of wrapping it, so that the HSM can "
                    "only give it to this process: set dek = auto or process");
    if (strcmp(where, "process") != 0 && !decrypts) {
        HSM_DEK *in_token = NULL;
        tpks_result result = hsm_unwrap(hsm, wrapped, h->dek, &in_token);
        if (result == TPKS_OK)
            return dek_from_hsm(libctx, in_token, out);
        if (result != TPKS_UNSUPPORTED || strcmp(where, "hsm") == 0)
            return result;
    }
    TRY(hsm_unwrap_out(hsm, wrapped, &dek));
    return dek_from_secret(libctx, dek, out);
}

/* Trustpoint does not write down which of these it used, and tries them in this order itself. */
static tpks_result unwrap_trying(OSSL_LIB_CTX *libctx, const head *h, hsm_wrapped *wrapped,
                                 HSM *hsm, const char *where, DEK **out)
{
    static const wrap_algorithm order[] = {WRAP_AES_KW, WRAP_TRUSTPOINT_KW_PAD, WRAP_AES_KWP};
    tpks_result result = TPKS_KEK_FOREIGN, foreign = TPKS_OK;

    TRY(hsm_find_kek_by_label(hsm,
                              wrapped->label)); /* it knows best what is wrong with the label */
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        wrapped->algorithm = order[i];
        result = unwrap(libctx, h, wrapped, hsm, where, out);
        if (result == TPKS_KEK_FOREIGN)
            foreign = result;
        if (result != TPKS_KEK_FOREIGN && result != TPKS_UNSUPPORTED)
            return result;
    }
    if (foreign == TPKS_OK)
        return result;
    TRY(hsm_find_kek_by_label(hsm, wrapped->label)); /* two of them are another matter */
    return fail(foreign,
                "HSM token \"%s\": its key \"%.100s\" does not unwrap Trustpoint's DEK: one of "
                "them was replaced or damaged: restore it",
                hsm_token_label(hsm), wrapped->label);
}

/* Trustpoint has the slot, but nothing that can be unwrapped. */
static tpks_result fail_unwrappable(const slot_row *slot, const wrap_row *wrap)
{
    if (slot->kek_label == NULL)
        return fail(TPKS_TAMPERED, "slot \"%s\" does not hold the current DEK", slot->label);
    if (wrap == NULL)
        return fail(TPKS_KEK_MISSING,
                    "Trustpoint has stored no DEK wrapped by the key \"%.100s\": restore it",
                    slot->kek_label);
    return fail(TPKS_NEWER_FORMAT,
                "Trustpoint has wrapped its DEK in a way that this version does not know: use a "
                "newer version");
}

tpks_result slot_open_hsm(OSSL_LIB_CTX *libctx, const head *h, const slot_row *slot, HSM *hsm,
                          const char *where, DEK **out)
{
    const wrap_row *wrap = head_wrap(h, slot);

    if (wrap == NULL || wrap->algorithm == WRAP_NONE)
        return fail_unwrappable(slot, wrap);
    hsm_wrapped wrapped = {
        .cka_id = slot->cka_id.data,
        .label = slot->kek_label,
        .algorithm = (wrap_algorithm)wrap->algorithm,
        .iv = wrap->iv.data,
        .iv_size = wrap->iv.size,
        .data = wrap->wrapped.data,
        .size = wrap->wrapped.size,
    };
    if (wrap->algorithm == WRAP_TRUSTPOINT_CWRAP)
        return unwrap_trying(libctx, h, &wrapped, hsm, where, out);
    return unwrap(libctx, h, &wrapped, hsm, where, out);
}

/* ---- passwords and recovery keys ---- */

static tpks_result secret_aad(OSSL_LIB_CTX *libctx, const head *h, const slot_row *slot,
                              unsigned char aad[SHA256_SIZE])
{
    CANONICAL about = {0};

    canonical_bytes(&about, h->keystore, TPKS_ID_SIZE);
    canonical_bytes(&about, slot->id, TPKS_ID_SIZE);
    canonical_bytes(&about, h->dek, TPKS_ID_SIZE);
    canonical_integer(&about, slot->kind);
    canonical_integer(&about, slot->kdf_version);
    canonical_integer(&about, slot->cost.t);
    canonical_integer(&about, slot->cost.m_kib);
    canonical_integer(&about, slot->cost.p);
    canonical_bytes(&about, slot->salt.data, slot->salt.size);
    return canonical_digest(&about, libctx, DOMAIN_PASSWORD_WRAP, aad);
}

/* The slot has its parameters; wraps the DEK under what the BEK expands to. */
static tpks_result wrap_under_bek(OSSL_LIB_CTX *libctx, const head *h, const TPKS_SECRET *bek,
                                  const TPKS_SECRET *dek, new_slot *out)
{
    SECRET *key = NULL;
    unsigned char commitment[COMMITMENT_SIZE], aad[SHA256_SIZE], nonce[NONCE_SIZE];
    unsigned char wrapped[DEK_SIZE + TAG_SIZE];

    TRY(kdf_expand(libctx, bek, out->slot.salt.data, &key, commitment));
    TRY(secret_aad(libctx, h, &out->slot, aad));
    TRY(random_public(libctx, nonce, sizeof(nonce)));
    TRY(gcm_seal(libctx, tpks_secret_data_const(key), nonce, aad, sizeof(aad),
                 tpks_secret_data_const(dek), DEK_SIZE, wrapped));
    out->wrap.algorithm = WRAP_PASSWORD_GCM;
    TRY(bytes_set(&out->wrap.iv, nonce, sizeof(nonce)));
    TRY(bytes_set(&out->wrap.wrapped, wrapped, sizeof(wrapped)));
    return bytes_set(&out->wrap.commitment, commitment, sizeof(commitment));
}

static tpks_result make_salt(OSSL_LIB_CTX *libctx, slot_row *slot)
{
    unsigned char salt[KDF_SALT_SIZE];

    TRY(random_public(libctx, salt, sizeof(salt)));
    return bytes_set(&slot->salt, salt, sizeof(salt));
}

bool slot_cost_is_chosen(const slot_row *slot)
{
    return extension_has(slot->extension.data, slot->extension.size, SLOT_COST_CHOSEN);
}

/* What a caller asks for is marked as such; zero asks for this machine's default. */
static tpks_result choose_cost(tpks_kdf_cost cost, slot_row *slot)
{
    unsigned char chosen[EXTENSION_HEAD_SIZE];

    if (cost.t == 0 && cost.m_kib == 0 && cost.p == 0)
        return kdf_default_cost(&slot->cost);
    if (kdf_check_cost(ARGON2_VERSION_13, &cost) != TPKS_OK)
        return fail(TPKS_BAD_INPUT,
                    "Argon2id cost out of bounds: 1 to 32 passes, 8 MiB to 1 GiB, at "
                    "most 4 lanes, passes times memory at most 8 GiB");
    slot->cost = cost;
    extension_make(SLOT_COST_CHOSEN, chosen);
    return bytes_set(&slot->extension, chosen, sizeof(chosen));
}

/* The slot has its cost; gives it a fresh salt and the DEK. */
static tpks_result fill_password(OSSL_LIB_CTX *libctx, const head *h, const TPKS_SECRET *password,
                                 const TPKS_SECRET *dek, new_slot *out)
{
    SECRET *bek = NULL;

    out->slot.kdf_version = ARGON2_VERSION_13;
    TRY(make_salt(libctx, &out->slot));
    TRY(kdf_password(password, &out->slot.cost, out->slot.salt.data, &bek));
    return wrap_under_bek(libctx, h, bek, dek, out);
}

tpks_result slot_make_password(OSSL_LIB_CTX *libctx, const head *h, const TPKS_SECRET *password,
                               tpks_kdf_cost cost, const TPKS_SECRET *dek, new_slot *out)
{
    TRY(tpks_password_check(password));
    TRY(start_slot(libctx, h, SLOT_PASSWORD, "backup password", out));
    TRY(choose_cost(cost, &out->slot));
    return fill_password(libctx, h, password, dek, out);
}

tpks_result slot_renew_password(OSSL_LIB_CTX *libctx, const head *h, const slot_row *old,
                                const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                                const TPKS_SECRET *dek, new_slot *out)
{
    TRY(start_slot(libctx, h, SLOT_PASSWORD, old->label, out));
    memcpy(out->slot.id, old->id, TPKS_ID_SIZE);
    memcpy(out->wrap.slot, old->id, TPKS_ID_SIZE);
    if (!set_text(&out->slot.host, old->host))
        return fail_memory();
    out->slot.cost = *cost;
    TRY(bytes_set(&out->slot.extension, old->extension.data, old->extension.size));
    return fill_password(libctx, h, password, dek, out);
}

tpks_result slot_make_recovery(OSSL_LIB_CTX *libctx, const head *h, const TPKS_SECRET *dek,
                               new_slot *out, TPKS_SECRET **text)
{
    SECRET *bek = NULL;
    SECRET *printable = NULL;

    TRY(start_slot(libctx, h, SLOT_RECOVERY, "recovery key", out));
    TRY(make_salt(libctx, &out->slot));
    TRY(recovery_key_new(&bek, &printable));
    TRY(wrap_under_bek(libctx, h, bek, dek, out));
    *text = printable;
    printable = NULL;
    return TPKS_OK;
}

static tpks_result bek_of(const slot_row *slot, const TPKS_SECRET *secret, TPKS_SECRET **bek)
{
    if (slot->kind == SLOT_RECOVERY)
        return recovery_key_parse(secret, bek);
    TRY(kdf_check_cost((uint32_t)slot->kdf_version, &slot->cost));
    return kdf_password(secret, &slot->cost, slot->salt.data, bek);
}

/* As Django takes a password from a form: without white space around it. */
static tpks_result trustpoint_bek(const slot_row *slot, const TPKS_SECRET *secret,
                                  TPKS_SECRET **bek)
{
    size_t size = 0;
    const char *text =
        text_strip((const char *)tpks_secret_data_const(secret), tpks_secret_size(secret), &size);
    SECRET *password = tpks_secret_copy(text, size);

    if (password == NULL)
        return fail_memory();
    return kdf_password_salted(password, &slot->cost, slot->salt.data, slot->salt.size, bek);
}

/* Trustpoint's envelope: nonce, ciphertext and tag, without a word about its parameters. */
static tpks_result open_backup(OSSL_LIB_CTX *libctx, const slot_row *slot, const wrap_row *wrap,
                               const TPKS_SECRET *secret, DEK **out)
{
    SECRET *bek = NULL;
    const unsigned char *stored = wrap->wrapped.data;

    if (wrap->wrapped.size != NONCE_SIZE + DEK_SIZE + TAG_SIZE)
        return fail(TPKS_TAMPERED,
                    "Trustpoint's backup of its DEK has an impossible length: restore the database "
                    "from a backup");
    TRY(trustpoint_bek(slot, secret, &bek));
    TPKS_SECRET *dek = tpks_secret_new(DEK_SIZE);
    if (dek == NULL)
        return fail_memory();
    tpks_result result = gcm_open(libctx, tpks_secret_data_const(bek), stored, NULL, 0,
                                  stored + NONCE_SIZE, DEK_SIZE + TAG_SIZE, tpks_secret_data(dek));
    if (result == TPKS_OK)
        return dek_from_secret(libctx, dek, out);
    tpks_secret_free(dek);
    if (result != TPKS_TAMPERED)
        return result;
    return fail(TPKS_WRONG_SECRET, "it is not Trustpoint's backup password (or what the password "
                                   "opens was changed)");
}

tpks_result slot_open_secret(OSSL_LIB_CTX *libctx, const head *h, const slot_row *slot,
                             const TPKS_SECRET *secret, DEK **out)
{
    const wrap_row *wrap = head_wrap(h, slot);
    SECRET *bek = NULL;
    SECRET *key = NULL;
    unsigned char commitment[COMMITMENT_SIZE], aad[SHA256_SIZE];

    if (wrap != NULL && wrap->algorithm == WRAP_TRUSTPOINT_BACKUP)
        return open_backup(libctx, slot, wrap, secret, out);
    if (wrap == NULL || wrap->algorithm != WRAP_PASSWORD_GCM || wrap->iv.size != NONCE_SIZE ||
        wrap->wrapped.size != DEK_SIZE + TAG_SIZE || wrap->commitment.size != COMMITMENT_SIZE)
        return fail(TPKS_TAMPERED, "slot \"%s\" is malformed: restore the database from a backup",
                    slot->label);
    TRY(bek_of(slot, secret, &bek));
    TRY(kdf_expand(libctx, bek, slot->salt.data, &key, commitment));
    if (CRYPTO_memcmp(commitment, wrap->commitment.data, COMMITMENT_SIZE) != 0)
        return fail(TPKS_WRONG_SECRET, "the password or recovery key is not that of slot \"%s\"",
                    slot->label);
    TRY(secret_aad(libctx, h, slot, aad));
    SECRET *dek = tpks_secret_new(DEK_SIZE);
    if (dek == NULL)
        return fail_memory();
    if (gcm_open(libctx, tpks_secret_data_const(key), wrap->iv.data, aad, sizeof(aad),
                 wrap->wrapped.data, wrap->wrapped.size, tpks_secret_data(dek)) != TPKS_OK)
        return fail(TPKS_TAMPERED, "slot \"%s\" was changed: restore the database from a backup",
                    slot->label);
    TPKS_SECRET *given = dek;
    dek = NULL;
    return dek_from_secret(libctx, given, out);
}

tpks_result slot_prove_secret(OSSL_LIB_CTX *libctx, const head *h, const new_slot *made,
                              const TPKS_SECRET *secret)
{
    head only = {.wraps = (wrap_row *)&made->wrap, .wrap_count = 1};
    DEK *dek = NULL;

    memcpy(only.keystore, h->keystore, TPKS_ID_SIZE);
    memcpy(only.dek, h->dek, TPKS_ID_SIZE);
    TRY(slot_open_secret(libctx, &only, &made->slot, secret, &dek));
    tpks_result result = head_prove_dek(h, dek);
    dek_free(dek);
    return result;
}

/* ---- storage without an HSM ---- */

static void software_path(const head *h, const char *state_dir, char *path, size_t size)
{
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(h->keystore, TPKS_ID_SIZE, id);
    snprintf(path, size, "%s/%s.dek", state_dir, id);
}

tpks_result slot_restore_software(const head *h, const char *state_dir, const TPKS_SECRET *dek)
{
    char path[PATH_SIZE];
    SECRET *hex = tpks_secret_new(DEK_HEX_SIZE + 1);

    if (hex == NULL)
        return fail_memory();
    software_path(h, state_dir, path, sizeof(path));
    hex_text(tpks_secret_data_const(dek), DEK_SIZE, (char *)tpks_secret_data(hex));
    /* Whole or not at all: a part of it would look like a DEK file that was damaged. */
    return file_replace(path, 0600, tpks_secret_data_const(hex), DEK_HEX_SIZE);
}

tpks_result slot_make_software(OSSL_LIB_CTX *libctx, const head *h, const char *state_dir,
                               const TPKS_SECRET *dek, new_slot *out)
{
    TRY(start_slot(libctx, h, SLOT_SOFTWARE, "DEK file", out));
    out->wrap.algorithm = WRAP_FILE;
    return slot_restore_software(h, state_dir, dek);
}

void slot_undo_software(const head *h, const char *state_dir)
{
    char path[PATH_SIZE];

    software_path(h, state_dir, path, sizeof(path));
    unlink(path);
}

bool slot_has_software_file(const head *h, const char *state_dir)
{
    char path[PATH_SIZE];

    software_path(h, state_dir, path, sizeof(path));
    return access(path, F_OK) == 0 || errno != ENOENT;
}

static tpks_result fail_dek_file(const char *path, const char *why)
{
    return fail(TPKS_KEK_FOREIGN,
                "the DEK file %s %s: put the right file or database back, or let a password make "
                "the file anew (trustpoint-keystore restore)",
                path, why);
}

/* *out stays NULL when it is not the text of a DEK. */
static tpks_result parse_dek(const TPKS_SECRET *hex, TPKS_SECRET **out)
{
    SECRET *dek = tpks_secret_new(DEK_SIZE);
    SECRET *text = tpks_secret_new(DEK_HEX_SIZE + 1);
    size_t size = 0;

    if (dek == NULL || text == NULL)
        return fail_memory();
    if (tpks_secret_size(hex) == DEK_HEX_SIZE)
        memcpy(tpks_secret_data(text), tpks_secret_data_const(hex), DEK_HEX_SIZE);
    if (!OPENSSL_hexstr2buf_ex(tpks_secret_data(dek), DEK_SIZE, &size,
                               (const char *)tpks_secret_data_const(text), '\0') ||
        size != DEK_SIZE)
        return TPKS_OK;
    *out = dek;
    dek = NULL;
    return TPKS_OK;
}

/* The DEK in the file, whoever's it is. */
static tpks_result read_dek_file(OSSL_LIB_CTX *libctx, const char *path, DEK **out)
{
    SECRET *hex = NULL;
    TPKS_SECRET *dek = NULL;
    tpks_result result = tpks_secret_read_file(path, DEK_HEX_SIZE, &hex);

    if (result == TPKS_BAD_INPUT) /* empty or too long */
        return fail_dek_file(path, "is malformed");
    TRY(result);
    TRY(parse_dek(hex, &dek));
    return dek == NULL ? fail_dek_file(path, "is malformed") : dek_from_secret(libctx, dek, out);
}

tpks_result slot_open_software(OSSL_LIB_CTX *libctx, const head *h, const char *state_dir,
                               DEK **out)
{
    char path[PATH_SIZE];
    DEK *dek = NULL;

    software_path(h, state_dir, path, sizeof(path));
    if (!slot_has_software_file(h, state_dir))
        return fail(TPKS_KEK_MISSING,
                    "the DEK file %s of this software keystore is not there: copy it from the host "
                    "that has it, or restore it with a password",
                    path);
    TRY(read_dek_file(libctx, path, &dek));
    tpks_result result = head_prove_dek(h, dek);
    if (result == TPKS_OK)
        *out = dek;
    else
        dek_free(dek);
    return result == TPKS_TAMPERED ? fail_dek_file(path, "does not hold the DEK of this database")
                                   : result;
}
