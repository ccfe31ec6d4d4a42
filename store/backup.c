/*
 * backup.c - copies of a keystore, row by row where the engine has no copy of its own
 *
 * A copy of a PostgreSQL keystore is a SQLite file, which needs no server to be opened; and a
 * keystore moves from one engine to the other when the target is written as a `store`.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

static bool is_postgresql(const char *target)
{
    return strncmp(target, "postgresql:", strlen("postgresql:")) == 0;
}

tpks_result backup_store(const char *path, char *store)
{
    char folder[PATH_SIZE] = "";

    if (*path != '/' && getcwd(folder, sizeof(folder)) == NULL)
        return fail(TPKS_BAD_INPUT,
                    "the present folder is not there any more: give an absolute path");
    if (snprintf(store, PATH_SIZE, "sqlite:%s%s%s", folder, *folder == '\0' ? "" : "/", path) >=
        PATH_SIZE)
        return fail(TPKS_BAD_INPUT, "the path is too long");
    return TPKS_OK;
}

/* A new database. A backup lies in places that the group of the original has no business in. */
static tpks_result make_target(const char *path, database *d)
{
    char store[PATH_SIZE];
    const char *location = NULL;

    TRY(backup_store(path, store));
    TRY(backend_find(store, &d->backend, &location));
    TRY(d->backend->open(location, TPKS_DB_CREATE, &d->db));
    if (chmod(path, 0600) != 0)
        return fail(TPKS_NOT_PERMITTED, "%s: its mode cannot be changed: %s", path,
                    strerror(errno));
    return TPKS_OK;
}

static tpks_result open_target(const char *target, database *d)
{
    const char *location = NULL;

    if (!is_postgresql(target))
        return make_target(target, d);
    TRY(backend_find(target, &d->backend, &location));
    return d->backend->open(location, TPKS_DB_CREATE, &d->db);
}

static tpks_result write_head(const database *d, const head *h)
{
    TRY(d->backend->begin(d->db, true));
    TRY(native_create(d));
    return native_insert_head(d, h);
}

tpks_result backup_head(const TPKS *ks, const char *path)
{
    DATABASE d = {0};

    TRY(make_target(path, &d));
    TRY(write_head(&d, &ks->head));
    return d.backend->commit(d.db);
}

typedef struct copy {
    const TPKS *ks;
    const database *target;
} copy;

static tpks_result copy_record(void *arg, TPKS_RECORD *record)
{
    const copy *c = arg;

    return native_insert_record(c->target, c->ks->libctx, record);
}

/* In one view of the source: header and records of one moment. */
static tpks_result copy_rows(const TPKS *ks, const database *target)
{
    __attribute__((cleanup(head_clear))) head h = {0};
    copy c = {ks, target};

    TRY(native_read_head(&ks->d, &h));
    TRY(write_head(target, &h));
    TRY(native_each_record(&ks->d, ks->libctx, &h, NULL, copy_record, &c));
    return target->backend->commit(target->db);
}

tpks_result tpks_backup(TPKS *ks, const char *target)
{
    CRYPTO_SCOPE;
    DATABASE d = {0};

    if (!is_postgresql(target) && ks->d.backend->backup != NULL)
        return ks->d.backend->backup(ks->d.db, target);
    if (ks->schema != &schema_native)
        return fail(TPKS_UNSUPPORTED,
                    "%s: back a database of Trustpoint up with its own means, such as pg_dump",
                    ks->d.backend->describe(ks->d.db));
    TRY(open_target(target, &d));
    TRY(ks->d.backend->begin(ks->d.db, false));
    tpks_result result = copy_rows(ks, &d);
    ks->d.backend->rollback(ks->d.db);
    return result;
}
