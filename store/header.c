/*
 * header.c - a copy of header, DEKs, slots and wraps, for when the database's own are damaged
 *
 * The copy is a keystore without records. The newest is kept in the state folder, made anew with
 * every change of the slots; it opens with the same passwords and tokens as the keystore did then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "backend_load.h"
#include "file.h"
#include "keystore_internal.h"

static void close_database(database *d)
{
    if (d->db != NULL)
        d->backend->close(d->db);
}

#define DATABASE __attribute__((cleanup(close_database))) database

tpks_result tpks_header_backup(TPKS *ks, const char *path)
{
    CRYPTO_SCOPE;

    if (ks->schema->read_only != NULL)
        return fail(TPKS_UNSUPPORTED,
                    "%s: a database of Trustpoint's has no header of its own to copy: back the "
                    "whole database up, and with it the file ID.slots.db of the state folder",
                    ks->d.backend->describe(ks->d.db));
    /* Only what proves itself is worth keeping. */
    TRY(tpks_unlock(ks));
    return backup_head(ks, path);
}

/* ---- the copy that is kept ---- */

/* Of the copy at `path`; 0: there is none that could be read. */
static uint64_t kept_generation(const char *path)
{
    DATABASE d = {0};
    __attribute__((cleanup(head_clear))) head kept = {0};
    char store[PATH_SIZE];
    const char *location = NULL;

    if (access(path, F_OK) != 0 || backup_store(path, store) != TPKS_OK ||
        backend_find(store, &d.backend, &location) != TPKS_OK ||
        d.backend->open(location, TPKS_DB_READ, &d.db) != TPKS_OK ||
        native_read_head(&d, &kept) != TPKS_OK)
        return 0;
    return kept.generation;
}

/* Has a faster process of this host kept a later one? One that is later than what the anchor knows
 * is of a history that was given up. */
static bool overtaken(const TPKS *ks, const char *path)
{
    uint64_t kept = kept_generation(path);

    return kept > ks->head.generation && kept <= anchor_generation(ks);
}

/* At every moment there is a whole copy at `path`, where the file system has hard links. */
static bool replace_kept(const char *path, const char *next, const char *last)
{
    unlink(last);
    if (link(path, last) != 0 && errno != ENOENT && rename(path, last) != 0)
        return false;
    return rename(next, path) == 0;
}

static bool keep(const TPKS *ks, const char *path)
{
    char next[PATH_SIZE + 8], last[PATH_SIZE + 8];

    snprintf(next, sizeof(next), "%s.new", path);
    snprintf(last, sizeof(last), "%s.old", path);
    unlink(next); /* left by a killed process */
    return backup_head(ks, next) == TPKS_OK && replace_kept(path, next, last);
}

static void unlock_kept(int *fd)
{
    if (*fd >= 0)
        close(*fd); /* ends the flock(2) with it */
}

/* One process at a time; a file of its own, which only who may keep the copies can hold. */
static int lock_kept(const char *path)
{
    char lock[PATH_SIZE + 8];

    snprintf(lock, sizeof(lock), "%s.lock", path);
    int fd = open(lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    while (fd >= 0 && flock(fd, LOCK_EX) != 0 && errno == EINTR)
        continue;
    return fd;
}

void header_keep(const TPKS *ks)
{
    char id[2 * TPKS_ID_SIZE + 1], path[PATH_SIZE];

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    snprintf(path, sizeof(path), "%s/%s.hdr", keystore_setting(ks, "state"), id);
    __attribute__((cleanup(unlock_kept))) int lock = lock_kept(path);
    if (lock < 0 || (!overtaken(ks, path) && !keep(ks, path)))
        tpks_log(ks, "header-not-kept", "", TPKS_NOT_PERMITTED);
}

/* ---- bringing it back ---- */

/* The newest generation that this host or the database itself speaks of, or the backup. */
static uint64_t newest_generation(const TPKS *ks, const head *damaged)
{
    uint64_t newest = anchor_generation(ks);

    newest = damaged->generation > newest ? damaged->generation : newest;
    return ks->head.generation > newest ? ks->head.generation : newest;
}

static tpks_result check_age(const TPKS *ks, uint64_t newest)
{
    if (ks->head.generation >= newest || ks->accept_new_anchor)
        return TPKS_OK;
    return fail(TPKS_ROLLED_BACK,
                "the header backup is of generation %llu, the keystore was at %llu: slots removed "
                "since then would come back; if that is acceptable, go on with "
                "--accept-new-anchor",
                (unsigned long long)ks->head.generation, (unsigned long long)newest);
}

/* Every record must open with the backup's DEK: the two belong together. */
static tpks_result prove_record(void *arg, TPKS_RECORD *record)
{
    TPKS *ks = arg;
    TPKS_SECRET *pkcs8 = NULL;

    TRY(record_open(record, ks->dek, &pkcs8));
    tpks_secret_free(pkcs8);
    return TPKS_OK;
}

/* A header put into another keystore would hide all of its records. */
static tpks_result check_same_keystore(const TPKS *ks, const database *target, const head *damaged,
                                       bool readable)
{
    uint64_t strangers = 0;

    TRY(native_count_strangers(target, &ks->head, &strangers));
    if (strangers == 0 &&
        (!readable || memcmp(damaged->keystore, ks->head.keystore, TPKS_ID_SIZE) == 0))
        return TPKS_OK;
    return fail(TPKS_MISMATCH,
                "the header backup is that of another keystore than the one in %s: "
                "check the directive `store` and the file",
                target->backend->describe(target->db));
}

/* No HSM call while the database is locked: the proofs are made with the DEK in this process. */
static tpks_result hold_dek_here(TPKS *ks)
{
    TPKS_SECRET *raw = NULL;
    DEK *dek = NULL;

    TRY(keystore_dek_copy(ks, &raw));
    TRY(dek_from_secret(ks->libctx, raw, &dek));
    dek_free(ks->dek);
    ks->dek = dek;
    return TPKS_OK;
}

/* What is to be replaced, as it was before anybody was asked for a password. */
typedef struct replaced {
    database target;
    head damaged;
    bool readable;
} replaced;

static void replaced_end(replaced *r)
{
    head_clear(&r->damaged);
    close_database(&r->target);
}

static tpks_result check_unmoved(const replaced *r)
{
    __attribute__((cleanup(head_clear))) head now = {0};
    bool readable = native_read_head(&r->target, &now) == TPKS_OK;

    if (readable == r->readable && now.generation == r->damaged.generation &&
        memcmp(now.seal, r->damaged.seal, PROOF_SIZE) == 0)
        return TPKS_OK;
    return fail(TPKS_CONFLICT,
                "another process changed header or slots meanwhile: look at the keystore again, "
                "then decide whether the backup is still wanted");
}

/* Is it right to put the backup there? */
static tpks_result check_target(const TPKS *ks, const replaced *r)
{
    TRY(check_same_keystore(ks, &r->target, &r->damaged, r->readable));
    return check_age(ks, newest_generation(ks, &r->damaged));
}

static tpks_result check_written(const TPKS *ks, const database *target)
{
    __attribute__((cleanup(head_clear))) head stored = {0};

    TRY(native_read_head(target, &stored));
    return head_check_written(&stored, &ks->head);
}

/* Inside the transaction, so that what is proven is what is there. */
static tpks_result prove_and_write(TPKS *ks, const replaced *r)
{
    const database *target = &r->target;

    TRY(check_unmoved(r));
    TRY(check_target(ks, r));
    TRY(native_each_record(target, ks->libctx, &ks->head, NULL, prove_record, ks));
    ks->head.generation = newest_generation(ks, &r->damaged) + 1;
    TRY(head_seal(&ks->head, ks->dek));
    TRY(native_replace_head(target, &ks->head));
    return check_written(ks, target);
}

static tpks_result write_back(TPKS *ks, const replaced *r)
{
    const database *target = &r->target;

    TRY(target->backend->begin(target->db, true));
    tpks_result result = prove_and_write(ks, r);
    if (result == TPKS_OK)
        result = target->backend->commit(target->db);
    if (result != TPKS_OK)
        target->backend->rollback(target->db);
    return result;
}

static tpks_result read_backup(database *d, const char *location, head *out)
{
    TRY(d->backend->open(location, TPKS_DB_READ, &d->db));
    TRY(native_recognise(d));
    return native_read_head(d, out);
}

/* What would be advised for the file that `store` names is no advice here. */
static tpks_result explain(tpks_result result, const char *path)
{
    if (result == TPKS_UNINITIALIZED)
        return fail(TPKS_NOT_FOUND, "%s: there is no such file", path);
    if (result == TPKS_NOT_A_KEYSTORE)
        return fail(result,
                    "%s is no header backup: name a file that trustpoint-keystore header backup "
                    "has written, or ID.hdr of the state folder",
                    path);
    return result;
}

/* Takes the backup's database in hand in place of the configured one, locked. */
static tpks_result open_backup(const tpks_options *options, const char *path, TPKS **out)
{
    char store[PATH_SIZE];
    const char *location = NULL;
    TPKS *ks = NULL;

    TRY(backup_store(path, store));
    TRY(keystore_new(options, &ks));
    *out = ks; /* the caller frees it from here on */
    TRY(backend_find(store, &ks->d.backend, &location));
    return explain(read_backup(&ks->d, location, &ks->head), path);
}

static void free_keystore(TPKS **ks)
{
    if (*ks != NULL)
        keystore_free(*ks);
}

static tpks_result open_target(const TPKS *ks, replaced *r)
{
    const char *location = NULL;

    TRY(backend_find(keystore_setting(ks, "store"), &r->target.backend, &location));
    TRY(r->target.backend->open(location, TPKS_DB_WRITE, &r->target.db));
    TRY(native_recognise(&r->target));
    r->readable = native_read_head(&r->target, &r->damaged) == TPKS_OK;
    if (!r->readable)
        tpks_log(ks, "header-damaged", "", TPKS_TAMPERED);
    return TPKS_OK;
}

tpks_result tpks_header_restore(const tpks_options *options, const char *path,
                                const TPKS_SECRET *secret)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(free_keystore))) TPKS *ks = NULL;
    __attribute__((cleanup(replaced_end))) replaced r = {.readable = false};
    tpks_options opening = *options;

    opening.access = TPKS_LOAD; /* an anchor is left at the end, not by unlocking */
    TRY(open_backup(&opening, path, &ks));
    TRY(open_target(ks, &r));
    TRY(check_target(ks, &r)); /* nobody is asked for a password in vain */
    TRY(secret != NULL ? tpks_unlock_with(ks, secret) : unlock_machine(ks));
    TRY(hold_dek_here(ks));
    TRY(write_back(ks, &r));
    anchor_write(ks);
    tpks_log(ks, "header-restored", "", TPKS_OK);
    return TPKS_OK;
}
