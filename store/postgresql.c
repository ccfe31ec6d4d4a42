/*
 * postgresql.c - the PostgreSQL storage plugin
 *
 * A keystore is the tables of one schema. What loads a key connects, reads and disconnects in that
 * load. Reading that a lost connection cut off before anything was given away is done once more.
 */
#include "postgresql.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const tpks_backend_host *pg_host;

/* A result that is there, or the part of one that was fetched through a cursor. */
struct tpks_rows {
    tpks_rows *next; /* in the database's list of cursors */
    tpks_db *db;
    PGresult *result;
    PGresult *rest; /* what follows it */
    int row;        /* the current one; -1: none yet */
    bool open;      /* the cursor is there and has more */
    bool cut;       /* its transaction ended before it did */
    char cursor[24];
    pg_text *texts; /* of one row */
};

/* ---- statements --------------------------------------------------------------------------------
 */

/* Runs it; whatever it answers is right unless it failed. */
static tpks_result execute(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                           PGresult **out)
{
    tpks_result why;
    AUTO_RESULT result = pg_execute(db, sql, values, count, &why);
    ExecStatusType status = PQresultStatus(result);

    TRY(why);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        return pg_fail(db, result);
    if (out == NULL)
        return TPKS_OK;
    *out = result;
    result = NULL;
    return TPKS_OK;
}

static tpks_result command(tpks_db *db, const char *sql)
{
    return execute(db, sql, NULL, 0, NULL);
}

/* What begins outside of a transaction may connect again, since nothing depends on what was. */
static tpks_result execute_first(tpks_db *db, const char *sql, const tpks_value *values,
                                 size_t count, PGresult **out)
{
    tpks_result result = execute(db, sql, values, count, out);

    if (result == TPKS_OK || !pg_is_lost(db))
        return result;
    TRY(pg_reconnect(db));
    return execute(db, sql, values, count, out);
}

/* ---- cursors ------------------------------------------------------------------------------------
 */

static const char read_only[] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/* No transaction any more: the cursors are gone with it. */
static void forget_transaction(tpks_db *db)
{
    for (tpks_rows *rows = db->cursors; rows != NULL; rows = rows->next) {
        rows->cut = rows->open;
        rows->open = false;
    }
    db->cursors = NULL;
    db->transaction = PG_NONE;
}

static void unlink_cursor(tpks_rows *rows)
{
    for (tpks_rows **link = &rows->db->cursors; *link != NULL; link = &(*link)->next)
        if (*link == rows) {
            *link = rows->next;
            break;
        }
    rows->open = false;
}

static tpks_result fetch(tpks_rows *rows, const char *how_many, PGresult **out)
{
    char sql[64];

    snprintf(sql, sizeof(sql), "FETCH FORWARD %s FROM %s", how_many, rows->cursor);
    return execute(rows->db, sql, NULL, 0, out);
}

/* Closes it; the last one ends the transaction that was begun for it. */
static tpks_result close_cursor(tpks_rows *rows)
{
    tpks_db *db = rows->db;
    char sql[64];

    if (!rows->open)
        return TPKS_OK;
    unlink_cursor(rows);
    if (db->transaction == PG_IMPLICIT && db->cursors == NULL) {
        forget_transaction(db);
        return command(db, "ROLLBACK");
    }
    snprintf(sql, sizeof(sql), "CLOSE %s", rows->cursor);
    return command(db, sql);
}

/* Before a transaction of the caller's begins: takes what is left of each cursor over here. */
static tpks_result take_cursors_in(tpks_db *db)
{
    while (db->transaction == PG_IMPLICIT) {
        tpks_rows *rows = db->cursors;

        TRY(fetch(rows, "ALL", &rows->rest));
        TRY(close_cursor(rows));
    }
    return TPKS_OK;
}

static tpks_result open_cursor(tpks_rows *rows, const char *query, const tpks_value *values,
                               size_t count)
{
    tpks_db *db = rows->db;
    AUTO_TEXT sql = NULL;

    snprintf(rows->cursor, sizeof(rows->cursor), "tpks_cursor_%u", ++db->numbers);
    if (asprintf(&sql, "DECLARE %s NO SCROLL CURSOR FOR %s", rows->cursor, query) < 0) {
        sql = NULL;
        return pg_fail_memory();
    }
    if (db->transaction == PG_NONE) {
        TRY(command(db, read_only));
        db->transaction = PG_IMPLICIT;
    }
    rows->open = true;
    rows->next = db->cursors;
    db->cursors = rows;
    TRY(execute(db, sql, values, count, NULL));
    pg_clear(rows->result);
    rows->result = NULL;
    return fetch(rows, "256", &rows->result);
}

/* ---- rows ---------------------------------------------------------------------------------------
 */

static void rows_finish(tpks_rows *rows)
{
    KEEP_ERRNO;

    if (rows == NULL)
        return;
    /* A cursor that cannot be closed is gone with its connection, or with its transaction. */
    if (close_cursor(rows) != TPKS_OK)
        rows->open = false;
    pg_clear(rows->result);
    pg_clear(rows->rest);
    free(rows->texts);
    free(rows);
}

static void auto_rows(tpks_rows **rows)
{
    rows_finish(*rows);
}
#define AUTO_ROWS __attribute__((cleanup(auto_rows))) tpks_rows *

static tpks_rows *rows_new(tpks_db *db)
{
    tpks_rows *rows = calloc(1, sizeof(*rows));

    if (rows == NULL)
        return NULL;
    rows->db = db;
    rows->row = -1;
    return rows;
}

/* As many rows as are read at once, and one that says whether there are more. */
static tpks_result first_rows(tpks_rows *rows, const char *query, const tpks_value *values,
                              size_t count)
{
    tpks_db *db = rows->db;
    AUTO_TEXT sql = NULL;

    if (asprintf(&sql, "SELECT * FROM (%s) AS q LIMIT %d", query, PG_CHUNK + 1) < 0) {
        sql = NULL;
        return pg_fail_memory();
    }
    if (db->transaction == PG_NONE)
        return execute_first(db, sql, values, count, &rows->result);
    return execute(db, sql, values, count, &rows->result);
}

static tpks_result db_query(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                            tpks_rows **out)
{
    KEEP_ERRNO;
    AUTO_ROWS rows = rows_new(db);

    if (rows == NULL)
        return pg_fail_memory();
    TRY(first_rows(rows, sql, values, count));
    if (PQntuples(rows->result) > PG_CHUNK)
        TRY(open_cursor(rows, sql, values, count));
    rows->texts = calloc((size_t)PQnfields(rows->result) + 1, sizeof(*rows->texts));
    if (rows->texts == NULL)
        return pg_fail_memory();
    *out = rows;
    rows = NULL;
    return TPKS_OK;
}

/* The next part in place of the one that is through. */
static tpks_result next_part(tpks_rows *rows)
{
    PGresult *part = rows->rest;

    rows->rest = NULL;
    if (rows->cut)
        return pg_host->fail(TPKS_CONFLICT,
                             "%s: the transaction ended before its rows were read: try again",
                             rows->db->text);
    if (part == NULL && rows->open)
        TRY(fetch(rows, "256", &part));
    if (part == NULL)
        return TPKS_OK;
    pg_clear(rows->result);
    rows->result = part;
    rows->row = 0;
    return TPKS_OK;
}

static tpks_result rows_next(tpks_rows *rows, bool *got)
{
    KEEP_ERRNO;

    if (++rows->row >= PQntuples(rows->result))
        TRY(next_part(rows));
    *got = rows->row < PQntuples(rows->result);
    return TPKS_OK;
}

static tpks_value rows_column(tpks_rows *rows, int i)
{
    KEEP_ERRNO;

    if (i < 0 || i >= PQnfields(rows->result))
        return (tpks_value){.type = TPKS_VALUE_NULL};
    return pg_column(rows->result, rows->row, i, &rows->texts[i]);
}

/* ---- transactions -------------------------------------------------------------------------------
 */

static void db_rollback(tpks_db *db)
{
    KEEP_ERRNO;

    if (db->transaction == PG_NONE)
        return;
    forget_transaction(db);
    if (PQsendQuery(db->conn, "ROLLBACK") == 1)
        pg_clear(pg_answer(db));
}

/*
 * A change begins with the update of the header's row, where others wait for its end; then it is
 * no longer what they read before, and PostgreSQL refuses them (SQLSTATE 40001): TPKS_CONFLICT.
 */
static tpks_result db_begin(tpks_db *db, bool write)
{
    KEEP_ERRNO;

    if (write && db->mode == TPKS_DB_READ)
        return pg_host->fail(TPKS_INTERNAL,
                             "%s: a change through a handle for reading; report this", db->text);
    TRY(take_cursors_in(db));
    TRY(execute_first(db, write ? "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE" : read_only,
                      NULL, 0, NULL));
    db->transaction = write ? PG_WRITE : PG_READ;
    return TPKS_OK;
}

static tpks_result fail_commit(const tpks_db *db)
{
    return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                         "%s: the connection was lost while the change was being finished; it may "
                         "be there or not: look at it (trustpoint-keystore list, slots) before you "
                         "do it again",
                         db->text);
}

static tpks_result db_commit(tpks_db *db)
{
    KEEP_ERRNO;
    AUTO_RESULT result = NULL;
    tpks_result why = execute(db, "COMMIT", NULL, 0, &result);
    bool writing = db->transaction == PG_WRITE;

    forget_transaction(db);
    if (why != TPKS_OK && writing && pg_is_lost(db))
        return fail_commit(db);
    TRY(why);
    /* After a statement that failed it answers ROLLBACK, and calls that a success. */
    if (strcmp(PQcmdStatus(result), "COMMIT") != 0)
        return pg_host->fail(
            TPKS_INTERNAL, "%s: a change with a statement that failed was to be kept; report this",
            db->text);
    return TPKS_OK;
}

static tpks_result db_run(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                          uint64_t *changed)
{
    KEEP_ERRNO;
    AUTO_RESULT result = NULL;

    TRY(take_cursors_in(db));
    TRY(execute(db, sql, values, count, &result));
    if (changed != NULL)
        *changed = strtoull(PQcmdTuples(result), NULL, 10);
    return TPKS_OK;
}

/* ---- what it is ---------------------------------------------------------------------------------
 */

/* The first column of the only row, an integer. */
static tpks_result ask_integer(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                               int64_t *out)
{
    AUTO_ROWS rows = NULL;
    bool got = false;

    TRY(db_query(db, sql, values, count, &rows));
    TRY(rows_next(rows, &got));
    *out = got ? rows_column(rows, 0).integer : 0;
    return TPKS_OK;
}

static tpks_value text_value(const char *text)
{
    return (tpks_value){.type = TPKS_VALUE_TEXT, .data = text, .size = strlen(text)};
}

static tpks_result db_has_table(tpks_db *db, const char *table, bool *out)
{
    KEEP_ERRNO;
    tpks_value values[] = {text_value(db->schema), text_value(table)};
    int64_t count = 0;

    TRY(ask_integer(db,
                    "SELECT count(*) FROM pg_catalog.pg_class c"
                    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
                    values, 2, &count));
    *out = count != 0;
    return TPKS_OK;
}

static tpks_result is_empty(tpks_db *db, bool *out)
{
    tpks_value schema = text_value(db->schema);
    int64_t count = 0;

    TRY(ask_integer(db,
                    "SELECT count(*) FROM pg_catalog.pg_class c"
                    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
                    &schema, 1, &count));
    *out = count == 0;
    return TPKS_OK;
}

/* PostgreSQL has no place for a mark in the database itself: it is a table with one number. */
static tpks_result db_identity(tpks_db *db, tpks_db_identity *out)
{
    KEEP_ERRNO;
    int64_t format = 0;

    *out = (tpks_db_identity){.empty = false};
    TRY(db_has_table(db, "tpks_mark", &out->marked));
    if (out->marked)
        TRY(ask_integer(db, "SELECT max(format) FROM tpks_mark", NULL, 0, &format));
    else
        TRY(is_empty(db, &out->empty));
    out->format = format < 0 || format > UINT32_MAX ? UINT32_MAX : (uint32_t)format;
    if (out->empty)
        return pg_host->fail(TPKS_UNINITIALIZED,
                             "%s: there is no keystore; make one with `trustpoint-keystore init`, "
                             "or name its schema with options=-csearch_path=NAME",
                             db->text);
    return TPKS_OK;
}

static tpks_result db_mark(tpks_db *db, uint32_t format)
{
    tpks_value value = {.type = TPKS_VALUE_INTEGER, .integer = format};

    TRY(db_run(db, "CREATE TABLE tpks_mark (format BIGINT NOT NULL)", NULL, 0, NULL));
    return db_run(db, "INSERT INTO tpks_mark (format) VALUES ($1)", &value, 1, NULL);
}

/*
 * The server checks pages as it reads them (data checksums), and every row is read by whoever
 * verifies a keystore; what is left to ask is whether an index is known to be unusable.
 */
static tpks_result db_check(tpks_db *db)
{
    KEEP_ERRNO;
    tpks_value schema = text_value(db->schema);
    int64_t invalid = 0;

    TRY(ask_integer(db,
                    "SELECT count(*) FROM pg_catalog.pg_index i"
                    " JOIN pg_catalog.pg_class c ON c.oid = i.indrelid"
                    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = $1 AND NOT (i.indisvalid AND i.indisready)",
                    &schema, 1, &invalid));
    if (invalid == 0)
        return TPKS_OK;
    return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                         "%s: an index is not valid: run REINDEX SCHEMA \"%s\"", db->text,
                         db->schema);
}

static const char *db_describe(tpks_db *db)
{
    return db->text;
}

/* Is the server gone, or another one in its place? What it said last has arrived by now. */
static bool db_moved(tpks_db *db)
{
    KEEP_ERRNO;

    if (db->pid != getpid() || pg_is_lost(db))
        return true;
    for (int i = 0; i < 8; i++) {
        struct pollfd pfd = {.fd = PQsocket(db->conn), .events = POLLIN};

        if (poll(&pfd, 1, 0) <= 0)
            break;
        if (PQconsumeInput(db->conn) == 0)
            return true;
    }
    return pg_is_lost(db);
}

/* ---- open and close
 * ------------------------------------------------------------------------------ */

static void db_close(tpks_db *db)
{
    KEEP_ERRNO;

    if (db == NULL)
        return;
    /* Over a fork the session belongs to the parent: here it may only be let go. */
    if (db->pid != getpid()) {
        if (PQsocket(db->conn) >= 0)
            close(PQsocket(db->conn));
        return;
    }
    PQfinish(db->conn);
    free(db->schema);
    free(db->text);
    free(db);
}

static void auto_close(tpks_db **db)
{
    db_close(*db);
}

static tpks_result db_open(const char *location, tpks_db_mode mode, tpks_db **out)
{
    KEEP_ERRNO;
    size_t size = strlen(location) + 1;
    __attribute__((cleanup(auto_close))) tpks_db *db = calloc(1, sizeof(*db) + size);

    if (db == NULL)
        return pg_fail_memory();
    memcpy(db->location, location, size);
    db->mode = mode;
    db->pid = getpid();
    TRY(pg_connect(db));
    *out = db;
    db = NULL;
    return TPKS_OK;
}

/* ---- the table
 * ----------------------------------------------------------------------------------- */

tpks_backend_entry_fn tpks_backend_entry;

__attribute__((visibility("default"))) const tpks_backend *
tpks_backend_entry(const tpks_backend_host *from)
{
    static const tpks_backend table = {
        .abi = TPKS_BACKEND_ABI,
        .name = "postgresql",
        .open = db_open,
        .close = db_close,
        .moved = db_moved,
        .identity = db_identity,
        .mark = db_mark,
        .has_table = db_has_table,
        .begin = db_begin,
        .commit = db_commit,
        .rollback = db_rollback,
        .run = db_run,
        .query = db_query,
        .next = rows_next,
        .column = rows_column,
        .finish = rows_finish,
        .backup = NULL, /* a copy is made row by row */
        .check = db_check,
        .describe = db_describe,
    };

    if (from->abi != TPKS_BACKEND_ABI)
        return NULL;
    pg_host = from;
    return &table;
}
