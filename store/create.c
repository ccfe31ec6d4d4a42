/* create.c - a new keystore: DEK, slots and tables in one transaction */
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "backend_load.h"
#include "file.h"
#include "keystore_internal.h"

#define LOADERS_GROUP "trustpoint"

/* What has to be undone when the keystore certainly does not come to be. */
typedef struct creation {
    TPKS *ks;
    TPKS_SECRET *dek;
    TPKS_SECRET *recovery_key;
    HSM *hsm;
    bool kek_made;
    unsigned char cka_id[CKA_ID_SIZE];
    bool file_made;
    bool kept; /* the keystore is there, or nobody knows: nothing that it needs may go */
} creation;

static void creation_end(creation *c)
{
    if (!c->kept && c->kek_made && hsm_destroy_kek(c->hsm, c->cka_id) != TPKS_OK)
        tpks_log(c->ks, "orphan-kek", "", TPKS_HSM_UNAVAILABLE);
    if (!c->kept && c->file_made)
        slot_undo_software(&c->ks->head, keystore_setting(c->ks, "state"));
    hsm_close(c->hsm);
    tpks_secret_free(c->dek);
    tpks_secret_free(c->recovery_key);
    if (c->ks != NULL)
        keystore_free(c->ks);
}

/* A folder of root and the loaders' group, when it is new and there is such a group. */
static tpks_result make_folder(const char *path, mode_t mode)
{
    const struct group *loaders = getgrnam(LOADERS_GROUP);

    if (access(path, F_OK) == 0)
        return TPKS_OK;
    TRY(folder_make(path, mode));
    if (loaders != NULL && geteuid() == 0 &&
        (chown(path, 0, loaders->gr_gid) != 0 || chmod(path, mode) != 0))
        return fail(TPKS_NOT_PERMITTED, "can't give the folder %s to group %s", path,
                    LOADERS_GROUP);
    return TPKS_OK;
}

/*
 * Loaders may only read the state folder: in it lie anchors and perhaps the database, whose journal
 * nobody else may plant. They make lock files in a folder of their own; its sticky bit keeps
 * them from those of others.
 */
tpks_result keystore_make_state_dir(const TPKS *ks)
{
    char locks[PATH_SIZE];

    TRY(make_folder(keystore_setting(ks, "state"), 0750));
    return make_folder(keystore_lock_dir(ks, locks), 01770);
}

static tpks_result new_dek(const TPKS *ks, TPKS_SECRET **out)
{
    *out = tpks_secret_new(DEK_SIZE);
    if (*out == NULL)
        return fail_memory();
    if (RAND_priv_bytes_ex(ks->libctx, tpks_secret_data(*out), DEK_SIZE, 256) != 1)
        return fail_crypto(TPKS_INTERNAL, "random numbers");
    return TPKS_OK;
}

tpks_result keystore_new_head(TPKS *ks, const char *label)
{
    head *h = &ks->head;
    const char *name = label != NULL ? label : *ks->section != '\0' ? ks->section : "trustpoint";

    h->format = NATIVE_FORMAT;
    h->generation = 1;
    h->label = OPENSSL_strdup(name);
    h->deks = rows_grow(NULL, &h->dek_count, sizeof(*h->deks));
    if (h->label == NULL || h->deks == NULL)
        return fail_memory();
    dek_row *row = h->deks;
    row->state = DEK_CURRENT;
    TRY(random_public(ks->libctx, h->keystore, TPKS_ID_SIZE));
    TRY(random_public(ks->libctx, h->dek, TPKS_ID_SIZE));
    memcpy(row->id, h->dek, TPKS_ID_SIZE);
    return TPKS_OK;
}

/* Adds a slot that was made, and frees it either way. */
static tpks_result add_slot(head *h, new_slot *made, tpks_result result)
{
    if (result == TPKS_OK)
        result = head_put_slot(h, &made->slot, &made->wrap);
    new_slot_clear(made);
    return result;
}

static tpks_result make_machine_slot(creation *c, bool software)
{
    TPKS *ks = c->ks;
    new_slot made = {0};

    if (software) {
        tpks_result result =
            slot_make_software(ks->libctx, &ks->head, keystore_setting(ks, "state"), c->dek, &made);
        c->file_made = result == TPKS_OK;
        return add_slot(&ks->head, &made, result);
    }
    TRY(keystore_hsm_open(ks, true, &c->hsm));
    tpks_result result = slot_make_hsm(ks->libctx, &ks->head, c->hsm, c->dek, &made);
    c->kek_made = result == TPKS_OK;
    if (c->kek_made)
        memcpy(c->cka_id, made.slot.cka_id.data, CKA_ID_SIZE);
    return add_slot(&ks->head, &made, result);
}

static tpks_result make_ways_back(creation *c, const tpks_create_params *params)
{
    TPKS *ks = c->ks;
    new_slot made = {0};

    if (params->password != NULL)
        TRY(add_slot(&ks->head, &made,
                     slot_make_password(ks->libctx, &ks->head, params->password, params->cost,
                                        c->dek, &made)));
    if (params->recovery)
        TRY(add_slot(&ks->head, &made,
                     slot_make_recovery(ks->libctx, &ks->head, c->dek, &made, &c->recovery_key)));
    return TPKS_OK;
}

tpks_result keystore_seal_new(TPKS *ks, const TPKS_SECRET *raw)
{
    TPKS_SECRET *copy = tpks_secret_copy(tpks_secret_data_const(raw), DEK_SIZE);
    DEK *dek = NULL;

    if (copy == NULL)
        return fail_memory();
    TRY(dek_from_secret(ks->libctx, copy, &dek));
    tpks_result result = head_make_check(&ks->head, dek, &ks->head.deks[0]);
    if (result == TPKS_OK)
        result = head_seal(&ks->head, dek);
    dek_free(dek);
    return result;
}

/* Unlocks in every way that any later process will. */
static tpks_result prove_slots(creation *c, const tpks_create_params *params)
{
    if (params->password != NULL)
        TRY(tpks_unlock_with(c->ks, params->password));
    if (params->recovery)
        TRY(tpks_unlock_with(c->ks, c->recovery_key));
    keystore_lock(c->ks);
    return unlock_machine(c->ks);
}

/* Reads the rows back, before anything is committed. */
static tpks_result check_rows(const creation *c)
{
    __attribute__((cleanup(head_clear))) head stored = {0};

    TRY(native_read_head(&c->ks->d, &stored));
    return head_check_written(&stored, &c->ks->head);
}

/* Names what is left there, so that it can be removed should the keystore not have come to be. */
static tpks_result fail_in_doubt(const creation *c, tpks_result result)
{
    char id[2 * CKA_ID_SIZE + 1], left[PATH_SIZE + 64];

    hex_text(c->cka_id, CKA_ID_SIZE, id);
    if (c->file_made)
        snprintf(left, sizeof(left), "its DEK file in %s", keystore_setting(c->ks, "state"));
    else
        snprintf(left, sizeof(left), "its KEK on the token (CKA_ID %s)", id);
    return fail(result,
                "%s: the connection was lost while the keystore was being made; it may be there or "
                "not: look at it (trustpoint-keystore status) before you do it again; %s was left "
                "where it is",
                c->ks->d.backend->describe(c->ks->d.db), left);
}

static tpks_result commit_new(creation *c)
{
    TPKS *ks = c->ks;
    tpks_result result = ks->d.backend->commit(ks->d.db);

    bool cut_off = keystore_was_cut_off(ks, result);
    c->kept = result == TPKS_OK || cut_off;
    if (!cut_off)
        return result;
    return keystore_is_committed(ks) ? TPKS_OK : fail_in_doubt(c, result);
}

static tpks_result write_new(creation *c)
{
    const database *d = &c->ks->d;

    TRY(d->backend->begin(d->db, true));
    TRY(native_create(d));
    TRY(native_insert_head(d, &c->ks->head));
    TRY(check_rows(c));
    TRY(commit_new(c));
    anchor_write(c->ks);
    header_keep(c->ks);
    return TPKS_OK;
}

static tpks_result check_params(const TPKS *ks, const tpks_create_params *params, bool may_give)
{
    if (params->password == NULL && !params->recovery && !params->no_way_back)
        return fail(TPKS_BAD_INPUT,
                    "a keystore without a password or recovery key is lost with its "
                    "HSM: give one, or say --no-recovery");
    if (params->recovery && !may_give)
        return fail(TPKS_BAD_INPUT, "nobody is there to take the recovery key");
    if (params->label != NULL && tpks_name_check(params->label) != TPKS_OK)
        return fail_in(TPKS_BAD_INPUT, "the keystore's label");
    if (!params->software && keystore_setting(ks, "token") == NULL)
        return fail(TPKS_BAD_CONFIG,
                    "the configuration names no `token`: add one, or say --software "
                    "for storage without an HSM");
    return params->password == NULL ? TPKS_OK : tpks_password_check(params->password);
}

tpks_result tpks_create(const tpks_options *options, const tpks_create_params *params,
                        TPKS_SECRET **recovery_key)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(creation_end))) creation c = {0};
    const char *location = NULL;

    TRY(keystore_new(options, &c.ks));
    TRY(check_params(c.ks, params, recovery_key != NULL));
    TRY(backend_find(keystore_setting(c.ks, "store"), &c.ks->d.backend, &location));
    TRY(keystore_make_state_dir(c.ks)); /* first: the database may be to lie in it */
    TRY(c.ks->d.backend->open(location, TPKS_DB_CREATE, &c.ks->d.db));
    TRY(new_dek(c.ks, &c.dek));
    TRY(keystore_new_head(c.ks, params->label));
    TRY(make_machine_slot(&c, params->software));
    TRY(make_ways_back(&c, params));
    TRY(keystore_seal_new(c.ks, c.dek));
    TRY(prove_slots(&c, params));
    tpks_result result = write_new(&c);
    if (c.kept && recovery_key != NULL) {
        *recovery_key = c.recovery_key;
        c.recovery_key = NULL;
    }
    return result;
}
