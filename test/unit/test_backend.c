/*
 * test_backend.c - what every storage plugin promises, asked of each of them; then what only
 * PostgreSQL's has to keep: lost sessions, its types, its cursors, processes that fork
 */
#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#undef fail /* a macro of old that check.h still has */

#include "backend_load.h"
#include "error.h"

enum { SQLITE, POSTGRESQL, ENGINES };

static char server[64];    /* folder of the PostgreSQL server; "" without one */
static char folder[64];    /* of this test */
static char store[2][160]; /* of this test, by engine */
static char admin[160];

#define ck_ok(expression)                                                                          \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == TPKS_OK, "%s: %s (%s)", #expression, tpks_result_name(got_),         \
                      tpks_error_text());                                                          \
    } while (0)

#define ck_fails(expression, wanted, word)                                                         \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == (wanted), "%s: %s (%s)", #expression, tpks_result_name(got_),        \
                      tpks_error_text());                                                          \
        ck_assert_msg(strstr(tpks_error_text(), (word)) != NULL, "no \"%s\" in: %s", (word),       \
                      tpks_error_text());                                                          \
    } while (0)

/* ---- handles ----------------------------------------------------------------------------------
 */

typedef struct handle {
    const tpks_backend *be;
    tpks_db *db;
} handle;

static void close_handle(handle *h)
{
    if (h->db != NULL)
        h->be->close(h->db);
    h->db = NULL;
}
#define HANDLE __attribute__((cleanup(close_handle))) handle

static tpks_result try_open(const char *where, tpks_db_mode mode, handle *h)
{
    const char *location = NULL;

    h->db = NULL;
    TRY(backend_find(where, &h->be, &location));
    return h->be->open(location, mode, &h->db);
}

static handle open_store(const char *where, tpks_db_mode mode)
{
    handle h;

    ck_ok(try_open(where, mode, &h));
    return h;
}

static tpks_result run(const handle *h, const char *sql)
{
    return h->be->run(h->db, sql, NULL, 0, NULL);
}

static tpks_value number(int64_t value)
{
    return (tpks_value){.type = TPKS_VALUE_INTEGER, .integer = value};
}
static tpks_value words(const char *text)
{
    return (tpks_value){.type = TPKS_VALUE_TEXT, .data = text, .size = strlen(text)};
}
static tpks_value bytes_value(const void *data, size_t size)
{
    return (tpks_value){.type = TPKS_VALUE_BLOB, .data = data, .size = size};
}

/* The first column of the only row; -1: none. */
static int64_t ask(const handle *h, const char *sql)
{
    tpks_rows *rows = NULL;
    bool got = false;
    int64_t value = -1;

    ck_ok(h->be->query(h->db, sql, NULL, 0, &rows));
    ck_ok(h->be->next(rows, &got));
    if (got)
        value = h->be->column(rows, 0).integer;
    h->be->finish(rows);
    return value;
}

/* A marked database with one table t (id, name, data). */
static void make(int engine)
{
    HANDLE h = open_store(store[engine], TPKS_DB_CREATE);

    ck_ok(h.be->begin(h.db, true));
    ck_ok(run(&h, "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, data BYTEA)"));
    ck_ok(h.be->mark(h.db, 1));
    ck_ok(h.be->commit(h.db));
}

static tpks_result insert(const handle *h, int64_t id, const char *name)
{
    tpks_value values[] = {number(id), words(name), bytes_value("\0\1\377", 3)};

    return h->be->run(h->db, "INSERT INTO t (id, name, data) VALUES ($1, $2, $3)", values, 3, NULL);
}

static void fill(const handle *h, int count)
{
    ck_ok(h->be->begin(h->db, true));
    for (int i = 1; i <= count; i++)
        ck_ok(insert(h, i, "row"));
    ck_ok(h->be->commit(h->db));
}

/* ---- around each test
 * ---------------------------------------------------------------------------- */

static void psql(const char *database, const char *statement)
{
    char command[700];

    snprintf(command, sizeof(command),
             "psql -XAtq -v ON_ERROR_STOP=1 -h %s -U postgres -d %s -c \"%s\" >/dev/null", server,
             database, statement);
    ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
    char statement[100];

    snprintf(folder, sizeof(folder), "/tmp/test_backend.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(store[SQLITE], sizeof(store[SQLITE]), "sqlite:%s/t.db", folder);
    snprintf(store[POSTGRESQL], sizeof(store[POSTGRESQL]),
             "postgresql:host=%s dbname=t%d user=postgres", server, (int)getpid());
    snprintf(admin, sizeof(admin), "t%d", (int)getpid());
    if (*server == '\0')
        return;
    snprintf(statement, sizeof(statement), "CREATE DATABASE t%d", (int)getpid());
    psql("postgres", statement);
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Is there a server? Without one only SQLite is asked. */
static bool absent(int engine)
{
    return engine == POSTGRESQL && *server == '\0';
}

/* ---- every engine
 * -------------------------------------------------------------------------------- */

START_TEST(test_identity)
{
    tpks_db_identity identity = {0};
    bool there = false;
    handle none;

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_READ);
    ck_ok(h.be->identity(h.db, &identity));
    ck_assert(identity.marked && !identity.empty && identity.format == 1);
    ck_ok(h.be->has_table(h.db, "t", &there));
    ck_assert(there);
    ck_ok(h.be->has_table(h.db, "u", &there));
    ck_assert(!there);
    ck_assert(!h.be->moved(h.db));
    ck_ok(h.be->check(h.db));
    ck_assert_ptr_nonnull(strstr(h.be->describe(h.db), _i == SQLITE ? "t.db" : admin));
    ck_assert_int_eq(try_open(store[_i], TPKS_DB_CREATE, &none), TPKS_EXISTS);
}
END_TEST

START_TEST(test_values)
{
    tpks_value values[] = {number(INT64_MIN), words("Grüße, 'x'; DROP TABLE t; --"),
                           bytes_value("\0\1\377", 3)};
    tpks_value empty[] = {number(7), words(""), bytes_value(NULL, 0)};
    tpks_value null[] = {number(8), {.type = TPKS_VALUE_NULL}, {.type = TPKS_VALUE_NULL}};
    const char sql[] = "INSERT INTO t (id, name, data) VALUES ($1, $2, $3)";
    tpks_rows *rows = NULL;
    uint64_t changed = 0;
    bool got = false;

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_WRITE);
    ck_ok(h.be->begin(h.db, true));
    ck_ok(h.be->run(h.db, sql, values, 3, &changed));
    ck_assert_uint_eq(changed, 1);
    ck_ok(h.be->run(h.db, sql, empty, 3, NULL));
    ck_ok(h.be->run(h.db, sql, null, 3, NULL));
    ck_ok(h.be->commit(h.db));

    ck_ok(h.be->query(h.db, "SELECT id, name, data FROM t ORDER BY id", NULL, 0, &rows));
    ck_ok(h.be->next(rows, &got));
    ck_assert(got);
    ck_assert_int_eq(h.be->column(rows, 0).integer, INT64_MIN);
    ck_assert_str_eq(h.be->column(rows, 1).data, values[1].data);
    tpks_value data = h.be->column(rows, 2);
    ck_assert(data.type == TPKS_VALUE_BLOB && data.size == 3);
    ck_assert_mem_eq(data.data, values[2].data, 3);
    ck_ok(h.be->next(rows, &got));
    ck_assert(h.be->column(rows, 1).type == TPKS_VALUE_TEXT && h.be->column(rows, 1).size == 0);
    ck_assert(h.be->column(rows, 2).type == TPKS_VALUE_BLOB && h.be->column(rows, 2).size == 0);
    ck_ok(h.be->next(rows, &got));
    ck_assert(h.be->column(rows, 1).type == TPKS_VALUE_NULL);
    ck_assert(h.be->column(rows, 2).type == TPKS_VALUE_NULL);
    ck_ok(h.be->next(rows, &got));
    ck_assert(!got);
    h.be->finish(rows);
}
END_TEST

START_TEST(test_uniqueness_and_rollback)
{
    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_WRITE);
    fill(&h, 3);
    ck_ok(h.be->begin(h.db, true));
    ck_assert_int_eq(insert(&h, 2, "again"), TPKS_EXISTS);
    h.be->rollback(h.db);
    h.be->rollback(h.db);
    ck_ok(h.be->begin(h.db, true));
    ck_ok(insert(&h, 4, "new"));
    h.be->rollback(h.db);
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 3);
}
END_TEST

START_TEST(test_one_view)
{
    if (absent(_i))
        return;
    make(_i);
    HANDLE reader = open_store(store[_i], TPKS_DB_READ);
    HANDLE writer = open_store(store[_i], TPKS_DB_WRITE);

    fill(&writer, 1);
    ck_ok(reader.be->begin(reader.db, false));
    ck_assert_int_eq(ask(&reader, "SELECT count(*) FROM t"), 1);
    if (_i == POSTGRESQL) { /* in SQLite the writer waits for the reader's end */
        ck_ok(writer.be->begin(writer.db, true));
        ck_ok(insert(&writer, 2, "later"));
        ck_ok(writer.be->commit(writer.db));
        ck_assert_int_eq(ask(&reader, "SELECT count(*) FROM t"), 1);
    }
    reader.be->rollback(reader.db);
    ck_ok(writer.be->begin(writer.db, true));
    ck_ok(insert(&writer, 3, "later"));
    ck_ok(writer.be->commit(writer.db));
    ck_assert_int_eq(ask(&reader, "SELECT count(*) FROM t"), _i == POSTGRESQL ? 3 : 2);
    ck_assert_int_ne(reader.be->begin(reader.db, true), TPKS_OK);
}
END_TEST

/* Reads all rows of a long result, with another query at each of them; in or out of a transaction.
 */
static void walk(const handle *h, int count)
{
    tpks_rows *rows = NULL, *inner = NULL;
    bool got = true, one = false;
    int64_t expected = 0;

    ck_ok(h->be->query(h->db, "SELECT id FROM t ORDER BY id", NULL, 0, &rows));
    for (;;) {
        ck_ok(h->be->next(rows, &got));
        if (!got)
            break;
        tpks_value id = h->be->column(rows, 0);
        ck_assert_int_eq(id.integer, ++expected);
        ck_ok(h->be->query(h->db, "SELECT name FROM t WHERE id = $1", &id, 1, &inner));
        ck_ok(h->be->next(inner, &one));
        ck_assert(one);
        h->be->finish(inner);
    }
    ck_assert_int_eq(expected, count);
    h->be->finish(rows);
}

START_TEST(test_long_results)
{
    static const int counts[] = {1, 255, 256, 257, 512, 513, 1000};

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_WRITE);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        ck_ok(run(&h, "DELETE FROM t"));
        fill(&h, counts[i]);
        walk(&h, counts[i]);
        ck_ok(h.be->begin(h.db, false));
        walk(&h, counts[i]);
        h.be->rollback(h.db);
    }
}
END_TEST

/* A caller of a list may begin a transaction while it is at it. */
START_TEST(test_transaction_beside_a_long_result)
{
    tpks_rows *rows = NULL, *second = NULL;
    bool got = true;
    int count = 0;

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_WRITE);
    fill(&h, 1000);
    ck_ok(h.be->query(h.db, "SELECT id FROM t ORDER BY id", NULL, 0, &rows));
    ck_ok(h.be->query(h.db, "SELECT id FROM t ORDER BY id DESC", NULL, 0, &second));
    ck_ok(h.be->next(rows, &got));
    ck_ok(h.be->begin(h.db, false));
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 1000);
    h.be->rollback(h.db);
    for (count = 1; got; count += got)
        ck_ok(h.be->next(rows, &got));
    ck_assert_int_eq(count, 1000);
    h.be->finish(rows);
    ck_ok(h.be->next(second, &got));
    ck_assert_int_eq(h.be->column(second, 0).integer, 1000);
    h.be->finish(second); /* before its end */
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 1000);
}
END_TEST

START_TEST(test_faults_of_ours)
{
    tpks_rows *rows = NULL;

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_WRITE);
    ck_assert_int_ne(run(&h, "SELECT nonsense FROM nowhere"), TPKS_OK);
    ck_assert_int_ne(h.be->query(h.db, "SELECT id FROM gone", NULL, 0, &rows), TPKS_OK);
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 0);
}
END_TEST

START_TEST(test_close_after_fork)
{
    int status;

    if (absent(_i))
        return;
    make(_i);
    HANDLE h = open_store(store[_i], TPKS_DB_READ);
    pid_t child = fork();
    if (child == 0) {
        h.be->close(h.db);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert(!h.be->moved(h.db));
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 0);
}
END_TEST

/* ---- PostgreSQL alone
 * ----------------------------------------------------------------------------- */

static void end_sessions(void)
{
    psql("postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname "
                     "<> 'postgres'");
}

START_TEST(test_lost_outside)
{
    tpks_rows *rows = NULL;
    bool got = true;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    fill(&h, 600);
    end_sessions();
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 600); /* read once more */
    const char *name = h.be->describe(h.db);
    bool there = false;
    end_sessions();
    ck_ok(h.be->has_table(h.db, "t", &there));
    ck_assert(there);
    ck_assert_ptr_eq(h.be->describe(h.db), name); /* valid as long as the handle */
    end_sessions();
    ck_assert(h.be->moved(h.db));
    ck_ok(h.be->begin(h.db, true));
    ck_ok(insert(&h, 601, "after"));
    ck_ok(h.be->commit(h.db));

    /* In the middle of a result what was given away cannot be taken back. */
    ck_ok(h.be->query(h.db, "SELECT id FROM t", NULL, 0, &rows));
    end_sessions();
    tpks_result result = TPKS_OK;
    while (result == TPKS_OK && got)
        result = h.be->next(rows, &got);
    ck_assert_int_eq(result, TPKS_DATABASE_UNAVAILABLE);
    h.be->finish(rows);
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 601);
}
END_TEST

START_TEST(test_lost_in_a_transaction)
{
    tpks_rows *rows = NULL;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    ck_ok(h.be->begin(h.db, false));
    end_sessions();
    ck_fails(h.be->query(h.db, "SELECT 1", NULL, 0, &rows), TPKS_DATABASE_UNAVAILABLE, "try again");
    ck_assert(h.be->moved(h.db)); /* so it may be read again from the start */
    h.be->rollback(h.db);
    ck_ok(h.be->begin(h.db, false));
    h.be->rollback(h.db);

    ck_ok(h.be->begin(h.db, true));
    ck_ok(insert(&h, 1, "never there"));
    end_sessions();
    ck_fails(h.be->commit(h.db), TPKS_DATABASE_UNAVAILABLE, "may be there or not");
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 0);
}
END_TEST

START_TEST(test_failed_statement_is_not_committed)
{
    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    ck_ok(h.be->begin(h.db, true));
    ck_ok(insert(&h, 1, "one"));
    ck_assert_int_eq(insert(&h, 1, "one again"), TPKS_EXISTS);
    ck_assert_int_ne(h.be->commit(h.db), TPKS_OK);
    ck_assert_int_eq(ask(&h, "SELECT count(*) FROM t"), 0);
}
END_TEST

static void *wait_and_change(void *arg)
{
    static tpks_result result;
    const handle *h = arg;

    result = h->be->begin(h->db, true);
    if (result == TPKS_OK)
        result = run(h, "UPDATE t SET name = 'mine' WHERE id = 1");
    h->be->rollback(h->db);
    return &result;
}

START_TEST(test_two_writers)
{
    pthread_t thread;
    void *result = NULL;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE first = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    HANDLE second = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    HANDLE watcher = open_store(store[POSTGRESQL], TPKS_DB_READ);
    fill(&first, 1);
    ck_ok(first.be->begin(first.db, true));
    ck_ok(run(&first, "UPDATE t SET name = 'first' WHERE id = 1"));
    ck_assert_int_eq(pthread_create(&thread, NULL, wait_and_change, &second), 0);
    while (ask(&watcher, "SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT granted") == 0)
        continue;
    ck_ok(first.be->commit(first.db));
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_int_eq(*(tpks_result *)result, TPKS_CONFLICT);
}
END_TEST

/* As SQLite has what Django stores there. */
START_TEST(test_types)
{
    static const char *const expected[] = {"00112233445566778899aabbccddeeff",
                                           "2025-12-17 10:20:31.123457",
                                           "2025-12-17 10:20:31",
                                           "1999-12-31 23:59:59.500000",
                                           "{\"a\": 1}",
                                           "varchar"};
    tpks_value uuid = words(expected[0]);
    tpks_rows *rows = NULL;
    bool got = false;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_READ);
    ck_ok(h.be->query(h.db,
                      "SELECT u, '2025-12-17 05:20:31.123457-05'::timestamptz,"
                      " '2025-12-17 10:20:31+00'::timestamptz,"
                      " '1999-12-31 23:59:59.5+00'::timestamptz, '{\"a\":1}'::jsonb,"
                      " 'varchar'::varchar, true, false, (-2)::smallint, (-3)::integer"
                      " FROM (VALUES ('00112233-4455-6677-8899-aabbccddeeff'::uuid)) AS v (u)"
                      " WHERE u = $1",
                      &uuid, 1, &rows));
    ck_ok(h.be->next(rows, &got));
    ck_assert(got);
    for (int i = 0; i < 6; i++) {
        tpks_value value = h.be->column(rows, i);
        ck_assert_int_eq(value.type, TPKS_VALUE_TEXT);
        ck_assert_uint_eq(value.size, strlen(expected[i]));
        ck_assert_str_eq(value.data, expected[i]);
    }
    ck_assert_int_eq(h.be->column(rows, 6).integer, 1);
    ck_assert_int_eq(h.be->column(rows, 7).integer, 0);
    ck_assert_int_eq(h.be->column(rows, 8).integer, -2);
    ck_assert_int_eq(h.be->column(rows, 9).integer, -3);
    h.be->finish(rows);
}
END_TEST

START_TEST(test_session)
{
    tpks_rows *rows = NULL;
    bool got = false;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    ck_ok(h.be->query(h.db,
                      "SELECT concat_ws('|', current_setting('search_path'),"
                      " current_setting('client_encoding'), current_setting('row_security'),"
                      " current_setting('standard_conforming_strings'),"
                      " current_setting('synchronous_commit'), current_setting('lock_timeout'),"
                      " current_setting('statement_timeout'),"
                      " current_setting('idle_in_transaction_session_timeout'))",
                      NULL, 0, &rows));
    ck_ok(h.be->next(rows, &got));
    ck_assert_str_eq(h.be->column(rows, 0).data, "public, pg_temp|UTF8|off|on|on|10s|1min|5min");
    h.be->finish(rows);
}
END_TEST

START_TEST(test_text_with_nul)
{
    tpks_value value = {.type = TPKS_VALUE_TEXT, .data = "a\0b", .size = 3};
    tpks_rows *rows = NULL;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_READ);
    ck_fails(h.be->query(h.db, "SELECT id FROM t WHERE name = $1", &value, 1, &rows),
             TPKS_BAD_INPUT, "NUL");
}
END_TEST

/* ---- what is left in memory -------------------------------------------------------------------
 */

static bool watching;
static int wiped, unwiped; /* values of results that the plugin freed meanwhile */

static void watch(const PGresult *result)
{
    static const char zeros[4096];

    for (int row = 0; row < PQntuples(result); row++)
        for (int i = 0; i < PQnfields(result); i++) {
            size_t size = (size_t)PQgetlength(result, row, i);
            ck_assert_uint_le(size, sizeof(zeros));
            if (memcmp(PQgetvalue(result, row, i), zeros, size) == 0)
                wiped++;
            else
                unwiped++;
        }
}

/* In place of libpq's own, which it calls in the end. */
__attribute__((visibility("default"))) void PQclear(PGresult *result)
{
    static void (*real)(PGresult *);

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "PQclear");
    if (watching)
        watch(result);
    real(result);
}

/* A single part, several parts, and what is taken over from a cursor. */
START_TEST(test_values_are_wiped)
{
    tpks_rows *rows = NULL;
    bool got = false;

    if (absent(POSTGRESQL))
        return;
    make(POSTGRESQL);
    HANDLE h = open_store(store[POSTGRESQL], TPKS_DB_WRITE);
    fill(&h, 1000);
    watching = true;
    ck_ok(h.be->query(h.db, "SELECT 'secret', NULL, '', id FROM t WHERE id = 3", NULL, 0, &rows));
    ck_ok(h.be->next(rows, &got));
    h.be->finish(rows);
    ck_assert_int_eq(wiped, 4);
    walk(&h, 1000);
    ck_ok(h.be->query(h.db, "SELECT name FROM t ORDER BY id", NULL, 0, &rows));
    ck_ok(h.be->begin(h.db, true));
    h.be->rollback(h.db);
    h.be->finish(rows);
    close_handle(&h);
    watching = false;
    ck_assert_int_eq(unwiped, 0);
    ck_assert_int_ge(wiped, 2000);
}
END_TEST

/* ---- all of it
 * -------------------------------------------------------------------------------------- */

static Suite *make_suite(void)
{
    Suite *suite = suite_create("backend");
    TCase *every = tcase_create("every engine");
    TCase *postgresql = tcase_create("PostgreSQL");

    tcase_add_checked_fixture(every, setup, teardown);
    tcase_set_timeout(every, 60);
    tcase_add_loop_test(every, test_identity, 0, ENGINES);
    tcase_add_loop_test(every, test_values, 0, ENGINES);
    tcase_add_loop_test(every, test_uniqueness_and_rollback, 0, ENGINES);
    tcase_add_loop_test(every, test_one_view, 0, ENGINES);
    tcase_add_loop_test(every, test_long_results, 0, ENGINES);
    tcase_add_loop_test(every, test_transaction_beside_a_long_result, 0, ENGINES);
    tcase_add_loop_test(every, test_faults_of_ours, 0, ENGINES);
    tcase_add_loop_test(every, test_close_after_fork, 0, ENGINES);
    tcase_add_checked_fixture(postgresql, setup, teardown);
    tcase_set_timeout(postgresql, 60);
    tcase_add_test(postgresql, test_lost_outside);
    tcase_add_test(postgresql, test_lost_in_a_transaction);
    tcase_add_test(postgresql, test_failed_statement_is_not_committed);
    tcase_add_test(postgresql, test_two_writers);
    tcase_add_test(postgresql, test_types);
    tcase_add_test(postgresql, test_session);
    tcase_add_test(postgresql, test_text_with_nul);
    tcase_add_test(postgresql, test_values_are_wiped);
    suite_add_tcase(suite, every);
    suite_add_tcase(suite, postgresql);
    return suite;
}

static int server_command(const char *what)
{
    char command[256];

    snprintf(command, sizeof(command), "%s %s %s", TEST_SERVER, what, server);
    return system(command);
}

/* Without a server: what SQLite promises, still. */
static void start_server(void)
{
    snprintf(server, sizeof(server), "/tmp/test_backend-server.XXXXXX");
    if (mkdtemp(server) == NULL || server_command("start") != 0) {
        printf("no PostgreSQL server here: only SQLite is tested\n");
        rmdir(server);
        *server = '\0';
    }
}

static void stop_server(void)
{
    char command[128];

    if (*server == '\0')
        return;
    server_command("stop");
    snprintf(command, sizeof(command), "rm -rf %s", server);
    if (system(command) != 0)
        printf("%s is still there\n", server);
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());
    int failed;

    start_server();
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    stop_server();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
