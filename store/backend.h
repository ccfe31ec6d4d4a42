/*
 * backend.h - storage plugins
 *
 * A plugin is a shared object NAME.so in the plugin folder, loaded by the name before the colon
 * of the directive `store` ("sqlite:/var/lib/trustpoint/keystore.db"). It knows how to run SQL on
 * one database engine and nothing about keys. It exports one function, tpks_backend_entry.
 *
 * SQL text is the common subset of SQLite and PostgreSQL, with parameters $1, $2, ... A plugin
 * never builds SQL from values. Columns come as SQLite has them: booleans as 0 and 1, UUIDs as 32
 * hex digits, times as text "YYYY-MM-DD HH:MM:SS[.ffffff]" in UTC. A text given as a parameter may
 * stand for any of these. A handle belongs to one thread and never survives a fork.
 */
#ifndef TRUSTPOINT_BACKEND_H
#define TRUSTPOINT_BACKEND_H

#include "keystore.h"

/* Raised when any declaration here changes; a plugin of another number is refused. */
#define TPKS_BACKEND_ABI 1
#define TPKS_BACKEND_ENTRY "tpks_backend_entry"

/* What the library offers to a plugin. */
typedef struct tpks_backend_host {
    unsigned abi;
    /* Sets this thread's error text (printf-style) and returns `result`. */
    tpks_result (*fail)(tpks_result result, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
} tpks_backend_host;

typedef enum tpks_value_type {
    TPKS_VALUE_NULL = 0,
    TPKS_VALUE_INTEGER, /* 64-bit signed */
    TPKS_VALUE_TEXT,    /* UTF-8, `size` bytes; columns are NUL-terminated as well */
    TPKS_VALUE_BLOB
} tpks_value_type;

typedef struct tpks_value {
    tpks_value_type type;
    int64_t integer;
    const void *data;
    size_t size;
} tpks_value;

typedef struct tpks_db tpks_db;     /* one open database; defined by the plugin */
typedef struct tpks_rows tpks_rows; /* one running query; defined by the plugin */

typedef enum tpks_db_mode {
    TPKS_DB_READ = 0, /* must exist */
    TPKS_DB_WRITE,    /* must exist */
    TPKS_DB_CREATE    /* must not exist (TPKS_EXISTS) */
} tpks_db_mode;

/* What the database itself says it is. */
typedef struct tpks_db_identity {
    bool empty;      /* nothing in it yet */
    bool marked;     /* carries the mark of a native keystore */
    uint32_t format; /* the native format number, if marked */
} tpks_db_identity;

typedef struct tpks_backend {
    unsigned abi; /* TPKS_BACKEND_ABI */
    const char *name;

    /* Opens `location` (the text after "NAME:") and sets every safety and durability setting. */
    tpks_result (*open)(const char *location, tpks_db_mode mode, tpks_db **out);
    void (*close)(tpks_db *db);

    /* Is another database now where this one was opened, or was the connection lost? Cheap. Then
       reading may be tried again from its start. */
    bool (*moved)(tpks_db *db);

    tpks_result (*identity)(tpks_db *db, tpks_db_identity *out);
    /* Marks the database as a native keystore of `format`; inside the creating transaction. */
    tpks_result (*mark)(tpks_db *db, uint32_t format);
    tpks_result (*has_table)(tpks_db *db, const char *table, bool *out);

    /* A consistent view of many queries (write false), or an exclusive change (write true). */
    tpks_result (*begin)(tpks_db *db, bool write);
    tpks_result (*commit)(tpks_db *db); /* durable when it returns TPKS_OK */
    void (*rollback)(tpks_db *db);      /* harmless when nothing is open */

    /* Runs a statement without result rows; *changed (may be NULL) gets the number of rows. A
       broken uniqueness rule is TPKS_EXISTS. */
    tpks_result (*run)(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                       uint64_t *changed);
    /* Starts a query; rows are read one by one with next() and closed with finish(). */
    tpks_result (*query)(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                         tpks_rows **out);
    tpks_result (*next)(tpks_rows *rows, bool *got);
    /* Column `i` of the current row, valid until next() or finish(). */
    tpks_value (*column)(tpks_rows *rows, int i);
    void (*finish)(tpks_rows *rows);

    /* A consistent copy into a new file of mode 0600, synced together with its folder. NULL: the
       engine has none of its own. */
    tpks_result (*backup)(tpks_db *db, const char *path);
    /* The engine's own integrity check. */
    tpks_result (*check)(tpks_db *db);
    /* "file ... (mode, owner)" or the server's name: for messages. Valid as long as db. */
    const char *(*describe)(tpks_db *db);
} tpks_backend;

/* The type of the exported function. NULL when host->abi does not suit. */
typedef const tpks_backend *tpks_backend_entry_fn(const tpks_backend_host *host);

#endif
