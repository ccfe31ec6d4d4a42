/* sidecar.c - our own slots for a database that is not ours */
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend_load.h"
#include "file.h"
#include "restore_lock.h"
#include "secret.h"

#define ASIDE_MAX 9999 /* files that were put aside */
#define ASIDE_SIZE (PATH_SIZE + 16)

static void sidecar_path(const TPKS *ks, char path[PATH_SIZE])
{
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    snprintf(path, PATH_SIZE, "%s/%s.slots.db", keystore_setting(ks, "state"), id);
}

static void free_at(TPKS **ks)
{
    if (*ks != NULL)
        keystore_free(*ks);
}

#define OWNED __attribute__((cleanup(free_at))) TPKS

/* A handle of its own on the file, which the same section configures. */
static tpks_result new_handle(const TPKS *ks, const char *path, tpks_db_mode mode, TPKS **out)
{
    char store[PATH_SIZE + 16];
    const char *location = NULL;
    OWNED *side = NULL;
    const tpks_options options = {
        .config = ks->config,
        .keystore = ks->section,
        .libctx = ks->libctx,
        .access = ks->access,
        .accept_new_anchor = ks->accept_new_anchor,
    };

    snprintf(store, sizeof(store), "sqlite:%s", path);
    TRY(keystore_new(&options, &side));
    TRY(backend_find(store, &side->d.backend, &location));
    TRY(side->d.backend->open(location, mode, &side->d.db));
    *out = side;
    side = NULL;
    return TPKS_OK;
}

static tpks_result open_existing(const TPKS *ks, const char *path, TPKS **out)
{
    OWNED *side = NULL;

    TRY(new_handle(ks, path, ks->access == TPKS_WRITE ? TPKS_DB_WRITE : TPKS_DB_READ, &side));
    TRY(native_recognise(&side->d));
    TRY(keystore_reload(side));
    *out = side;
    side = NULL;
    return TPKS_OK;
}

static bool is_damaged(tpks_result result)
{
    return result == TPKS_NOT_A_KEYSTORE || result == TPKS_UNINITIALIZED || result == TPKS_TAMPERED;
}

/* What the keystore of such a file would advise is no advice here. */
static tpks_result explain(tpks_result result, const char *path)
{
    if (!is_damaged(result))
        return fail_in(result, "the passwords and recovery keys beside this database");
    return fail(result,
                "%s, which has the passwords and recovery keys beside this database, is damaged: "
                "bring it back from a backup, or add new ones while the KEK works "
                "(trustpoint-keystore slot add password), which puts it aside",
                path);
}

tpks_result sidecar_get(TPKS *ks, TPKS **out)
{
    char path[PATH_SIZE];
    tpks_result result = TPKS_OK;

    *out = NULL;
    if (ks->schema->read_only == NULL)
        return TPKS_OK;
    sidecar_path(ks, path);
    /* Who may not even look into the state folder has no business with slots. */
    if (ks->sidecar == NULL && access(path, F_OK) == 0)
        result = open_existing(ks, path, &ks->sidecar);
    *out = ks->sidecar;
    return result == TPKS_OK ? TPKS_OK : explain(result, path);
}

/* ---- a new one ---- */

static tpks_result fill(TPKS *side, const TPKS *ks, const TPKS_SECRET *dek)
{
    const database *d = &side->d;

    TRY(keystore_new_head(side, ks->head.label));
    TRY(keystore_seal_new(side, dek));
    TRY(d->backend->begin(d->db, true));
    TRY(native_create(d));
    TRY(native_insert_head(d, &side->head));
    return d->backend->commit(d->db);
}

/* Whole under another name first: killed on the way, nothing is in the way of the next try. */
static tpks_result make(TPKS *ks, const char *path, const TPKS_SECRET *dek)
{
    char next[PATH_SIZE + 8];
    OWNED *side = NULL;

    snprintf(next, sizeof(next), "%s.new", path);
    unlink(next);
    TRY(new_handle(ks, next, TPKS_DB_CREATE, &side));
    if (chmod(next, 0600) != 0)
        return fail(TPKS_NOT_PERMITTED, "%s: its mode cannot be changed: %s", next,
                    strerror(errno));
    tpks_result result = fill(side, ks, dek);
    if (result == TPKS_OK && rename(next, path) != 0)
        result = fail(TPKS_NOT_PERMITTED, "%s: can't be made: %s", path, strerror(errno));
    if (result != TPKS_OK)
        unlink(next);
    return result;
}

/* ---- for a change ---- */

/* TPKS_TAMPERED: it opens another DEK, or was changed by someone without it. */
static tpks_result give_dek(TPKS *side, const TPKS_SECRET *dek)
{
    TPKS_SECRET *copy = tpks_secret_copy(tpks_secret_data_const(dek), DEK_SIZE);
    DEK *own = NULL;

    if (copy == NULL)
        return fail_memory();
    TRY(dek_from_secret(side->libctx, copy, &own));
    tpks_result result = head_prove_dek(&side->head, own);
    if (result == TPKS_OK)
        result = head_check_seal(&side->head, own);
    if (result != TPKS_OK) {
        dek_free(own);
        return result;
    }
    keystore_lock(side);
    side->dek = own;
    return TPKS_OK;
}

/* The first of PATH.old, PATH.old.2, ... that is free, as an empty file: from then on it is nobody
 * else's. */
static bool reserve_aside(const char *path, char aside[ASIDE_SIZE])
{
    int fd = -1;

    snprintf(aside, ASIDE_SIZE, "%s.old", path);
    for (int i = 2; fd < 0 && i <= ASIDE_MAX + 1; i++) {
        fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            return false;
        if (fd < 0)
            snprintf(aside, ASIDE_SIZE, "%s.old.%d", path, i);
    }
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* What is moved takes the place of the empty file; nothing else is ever written over. */
static bool move_aside(const char *path, char aside[ASIDE_SIZE])
{
    if (!reserve_aside(path, aside))
        return false;
    if (rename(path, aside) == 0)
        return true;
    int why = errno;
    unlink(aside);
    errno = why;
    return false;
}

/* Its slots open nothing any more, but may open an older copy of the database; and what is damaged
 * may be mended. */
static tpks_result put_aside(TPKS *ks, const char *path)
{
    char aside[ASIDE_SIZE];

    if (ks->sidecar != NULL)
        keystore_free(ks->sidecar);
    ks->sidecar = NULL;
    if (!move_aside(path, aside))
        return fail(TPKS_NOT_PERMITTED,
                    "%s holds an older DEK or is damaged, and can't be put aside: %s", path,
                    strerror(errno));
    OPENSSL_free(ks->aside);
    ks->aside = OPENSSL_strdup(aside);
    tpks_log(ks, "slots-put-aside", "", TPKS_OK);
    return TPKS_OK;
}

const char *tpks_slots_aside(const TPKS *ks)
{
    return ks->aside;
}

/* *side, unlocked; it stays NULL when a new one is to be made. */
static tpks_result get_current(TPKS *ks, const char *path, const TPKS_SECRET *dek, TPKS **side)
{
    tpks_result result = sidecar_get(ks, side);

    if (result == TPKS_OK && *side != NULL)
        result = give_dek(*side, dek);
    if (!is_damaged(result))
        return result;
    *side = NULL;
    return put_aside(ks, path);
}

tpks_result sidecar_for_change(TPKS *ks, TPKS **out)
{
    char path[PATH_SIZE];
    RESTORE_LOCK lock = -1; /* nobody puts aside, or replaces, what another process makes now */
    SECRET *dek = NULL;
    TPKS *side = NULL;

    sidecar_path(ks, path);
    TRY(keystore_dek_copy(ks, &dek));
    TRY(keystore_make_state_dir(ks));
    TRY(restore_lock_take(ks, TPKS_RESTORE_WAIT, &lock));
    TRY(get_current(ks, path, dek, out));
    if (*out != NULL)
        return TPKS_OK;
    TRY(make(ks, path, dek));
    TRY(sidecar_get(ks, &side));
    if (side == NULL)
        return fail(TPKS_DATABASE_UNAVAILABLE, "%s: it was made, and is not there", path);
    TRY(give_dek(side, dek));
    *out = side;
    return TPKS_OK;
}

tpks_result sidecar_check_useful(const TPKS *ks)
{
    for (size_t i = 0; i < ks->head.slot_count; i++)
        if (slot_is_hsm(&ks->head.slots[i]))
            return TPKS_OK;
    return fail(TPKS_UNSUPPORTED,
                "this database of Trustpoint's keeps its keys without an HSM: there is no KEK to "
                "lose, and nothing that a password could bring back but from a backup of the "
                "database itself");
}

tpks_result sidecar_open_secret(TPKS *side, const TPKS_SECRET *secret, const slot_row **slot,
                                DEK **out)
{
    SECRET *copy = NULL;

    tpks_result result = tpks_unlock_with(side, secret);
    if (result == TPKS_TAMPERED)
        return explain(result, side->d.backend->describe(side->d.db));
    TRY(result);
    upgrade_forget(side); /* these slots are not renewed, so the password has done its work */
    *slot = keystore_slot(side);
    TRY(keystore_dek_copy(side, &copy));
    keystore_lock(side);
    TPKS_SECRET *given = copy;
    copy = NULL;
    return dek_from_secret(side->libctx, given, out);
}
