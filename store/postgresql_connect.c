/*
 * postgresql_connect.c - from the text after "postgresql:" to a connection that is set up
 *
 * The text is libpq's connection string (PostgreSQL manual, "Connection Strings"), read by libpq:
 * service files, environment, ~/.pgpass and TLS work as they do for psql. Connecting goes step by
 * step (PQconnectPoll), for only then can notices be kept from stderr, and SQLSTATEs be seen.
 */
#include "postgresql.h"

#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_TIMEOUT "10" /* seconds, where nobody says another */
#define MAX_WORDS 80
#define OLDEST_SERVER 100000
#define ANSWER_GRACE_MS 30000 /* beyond statement_timeout */

/*
 * One query sets the session up. A keystore lives in one schema: the one that the connection says
 * (options=-csearch_path=NAME, read as the server reads it), else public. Timeouts that the
 * connection says stay as they are. Row security is to be an error, not an empty answer. So is a
 * view in place of a table: it would run functions of whoever made it, with the rights of this role
 * (servers from 12.20, 13.16, 14.13, 15.8 and 16.4 on can refuse it).
 */
static const char set_up[] =
    "WITH chosen AS (SELECT CASE WHEN s.source <> 'client' THEN 'public'"
    "  WHEN s.setting ~ '[\",]' THEN (pg_catalog.parse_ident(s.setting))[1]"
    "  ELSE pg_catalog.lower(s.setting COLLATE pg_catalog.\"C\") END AS name"
    "  FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'),"
    " timeouts AS (SELECT pg_catalog.set_config(s.name, w.value, false) AS set"
    "  FROM (VALUES ('statement_timeout', '60s'), ('lock_timeout', '10s'),"
    "   ('idle_in_transaction_session_timeout', '300s')) AS w (name, value)"
    "  JOIN pg_catalog.pg_settings s ON s.name = w.name WHERE s.source <> 'client'),"
    " durable AS (SELECT pg_catalog.set_config('synchronous_commit', 'on', false) AS set"
    "  WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')),"
    " tables AS (SELECT pg_catalog.set_config(s.name, 'view, foreign-table', false) AS set"
    "  FROM pg_catalog.pg_settings s WHERE s.name = 'restrict_nonsystem_relation_kind'),"
    " fixed AS (SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(name)"
    "  || ', pg_temp', false) AS set, pg_catalog.set_config('row_security', 'off', false),"
    "  pg_catalog.set_config('standard_conforming_strings', 'on', false),"
    "  pg_catalog.set_config('DateStyle', 'ISO, YMD', false),"
    "  pg_catalog.set_config('TimeZone', 'UTC', false) FROM chosen)"
    " SELECT c.name, current_user::pg_catalog.text, (SELECT pg_catalog.count(set) FROM timeouts)"
    " + (SELECT pg_catalog.count(set) FROM durable) + (SELECT pg_catalog.count(set) FROM tables)"
    " + (SELECT pg_catalog.count(set) FROM fixed),"
    " pg_catalog.pg_is_in_recovery()"
    " OR pg_catalog.current_setting('default_transaction_read_only') = 'on',"
    " n.oid IS NOT NULL, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),"
    " pg_catalog.has_schema_privilege(n.oid, 'CREATE'),"
    " (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class t"
    "  WHERE t.relnamespace = n.oid AND t.relkind IN ('r', 'p')),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_class t WHERE t.relnamespace = n.oid"
    "  AND t.relkind IN ('r', 'p') AND t.relname = 'tpks_header'"
    "  AND NOT pg_catalog.has_any_column_privilege(t.oid, 'UPDATE')),"
    " (SELECT pg_catalog.max(s.setting::pg_catalog.int8) FROM pg_catalog.pg_settings s"
    "  WHERE s.name = 'statement_timeout')"
    " FROM chosen c LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = c.name";

enum {
    COLUMN_SCHEMA,
    COLUMN_ROLE,
    COLUMN_SET,
    COLUMN_READ_ONLY,
    COLUMN_EXISTS,
    COLUMN_USAGE,
    COLUMN_CREATE,
    COLUMN_TABLES,
    COLUMN_MAY_NOT_WRITE,
    COLUMN_TIMEOUT,
    COLUMN_COUNT
};

/* ---- the words of the connection ---------------------------------------------------------------
 */

static void free_options(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}
#define AUTO_OPTIONS __attribute__((cleanup(free_options))) PQconninfoOption *

static void finish(PGconn **conn)
{
    PQfinish(*conn);
}

typedef struct words {
    const char *names[MAX_WORDS + 1];
    const char *values[MAX_WORDS + 1];
    int count;
} words;

static void add_word(words *w, const char *name, const char *value)
{
    if (w->count == MAX_WORDS)
        return; /* libpq knows about 50 */
    w->names[w->count] = name;
    w->values[w->count++] = value;
}

static const char *find_word(const PQconninfoOption *options, const char *name)
{
    for (; options != NULL && options->keyword != NULL; options++)
        if (strcmp(options->keyword, name) == 0)
            return options->val;
    return NULL;
}

static tpks_result fail_password(void)
{
    return pg_host->fail(TPKS_BAD_CONFIG,
                         "store = postgresql:...: a password must not stand here, where everybody "
                         "may read it: put it into ~/.pgpass, into the file that PGPASSFILE or "
                         "passfile= names, or into a service file");
}

/* What is wrong is not shown when it could be part of a password. */
static tpks_result fail_syntax(const tpks_db *db, const char *message)
{
    AUTO_TEXT why = pg_one_line(message != NULL ? message : "out of memory");

    if (strcasestr(db->location, "password") != NULL || why == NULL)
        return fail_password();
    return pg_host->fail(TPKS_BAD_CONFIG,
                         "store = postgresql:%s: %s; it must be connection parameters such as "
                         "service=trustpoint or host=/run/postgresql dbname=trustpoint",
                         db->location, why);
}

static tpks_result parse(const tpks_db *db, PQconninfoOption **options)
{
    AUTO_TEXT message = NULL;

    *options = PQconninfoParse(db->location, &message);
    if (*options == NULL)
        return fail_syntax(db, message);
    for (const PQconninfoOption *o = *options; o->keyword != NULL; o++)
        if (o->dispchar[0] == '*' && o->val != NULL)
            return fail_password();
    return TPKS_OK;
}

/*
 * What comes of words, service file and environment together. libpq finds that out only while it
 * connects; a TLS mode that does not exist stops it before it looks for a password or a server.
 */
static tpks_result resolve(const tpks_db *db, const words *given, PQconninfoOption **options)
{
    static const char no_mode[] = "none-at-all";
    __attribute__((cleanup(finish))) PGconn *conn = NULL;
    words w = *given;

    add_word(&w, "sslmode", no_mode);
    add_word(&w, "password", "none");
    conn = PQconnectStartParams(w.names, w.values, 0);
    *options = conn != NULL ? PQconninfo(conn) : NULL;
    if (*options == NULL)
        return pg_fail_memory();
    const char *mode = find_word(*options, "sslmode");
    if (mode != NULL && strcmp(mode, no_mode) == 0)
        return TPKS_OK;
    AUTO_TEXT why = pg_one_line(PQerrorMessage(conn));
    return pg_host->fail(TPKS_BAD_CONFIG,
                         "store = postgresql:%s: %s; correct `store`, or the service file",
                         db->location, why != NULL ? why : "out of memory");
}

/* libpq would warn about it on stderr, and go on without the password. */
static tpks_result check_passfile(const PQconninfoOption *resolved)
{
    const char *given = find_word(resolved, "passfile");
    char buffer[1024], path[1024];
    struct passwd entry, *user = NULL;
    struct stat st;

    if (given == NULL && getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &user) != 0)
        return TPKS_OK;
    if (given != NULL)
        snprintf(path, sizeof(path), "%s", given);
    else
        snprintf(path, sizeof(path), "%s/.pgpass", user != NULL ? user->pw_dir : "");
    if (stat(path, &st) != 0 || (S_ISREG(st.st_mode) && (st.st_mode & 077) == 0))
        return TPKS_OK;
    return pg_host->fail(TPKS_NOT_PERMITTED,
                         "%s: only its owner may be able to read this password file; run: chmod "
                         "0600 %s",
                         path, path);
}

/* ---- connecting --------------------------------------------------------------------------------
 */

static void say_nothing(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until the socket is ready for `events`; false: not before `deadline` (0: none). */
static bool wait_socket(const tpks_db *db, short events, int64_t deadline)
{
    struct pollfd pfd = {.fd = PQsocket(db->conn), .events = events};

    if (pfd.fd < 0)
        return true; /* libpq goes on to the next address, or says that there is none */
    for (;;) {
        int64_t left = deadline == 0 ? -1 : deadline - now_ms();
        int ready;

        if (deadline != 0 && left <= 0)
            return false;
        ready = poll(&pfd, 1, (int)left);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return true;
    }
}

/*
 * The server ends by itself what takes too long. One that does not even do that is as good as
 * gone: its connection is closed, which libpq finds out at once.
 */
static void wait_answer(const tpks_db *db)
{
    int64_t deadline = db->answer_ms == 0 ? 0 : now_ms() + db->answer_ms;

    while (PQisBusy(db->conn)) {
        if (!wait_socket(db, POLLIN, deadline))
            shutdown(PQsocket(db->conn), SHUT_RDWR);
        if (PQconsumeInput(db->conn) == 0)
            return;
    }
}

PGresult *pg_answer(const tpks_db *db)
{
    PGresult *last = NULL, *next;

    for (wait_answer(db); (next = PQgetResult(db->conn)) != NULL; wait_answer(db)) {
        pg_clear(last);
        last = next;
    }
    return last;
}

static int64_t connect_deadline(const tpks_db *db)
{
    return db->wait_s == 0 ? 0 : now_ms() + db->wait_s * 1000;
}

static tpks_result fail_timeout(const tpks_db *db)
{
    return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                         "postgresql:%s: no answer within %ld s (connect_timeout): is the server "
                         "up, and does a firewall let this host reach it? Try again then",
                         db->location, db->wait_s);
}

typedef PostgresPollingStatusType poll_fn(PGconn *conn);

static tpks_result finish_connecting(tpks_db *db, poll_fn *step)
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    ConnStatusType phase = CONNECTION_STARTED;
    const char *place = PQhost(db->conn);
    int64_t deadline = connect_deadline(db);

    while (status != PGRES_POLLING_OK) {
        if (status == PGRES_POLLING_FAILED)
            return pg_fail_connect(db, phase);
        if (!wait_socket(db, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
            return fail_timeout(db);
        phase = PQstatus(db->conn);
        status = step(db->conn);
        if (PQhost(db->conn) != place) { /* the next of several: with a time of its own */
            place = PQhost(db->conn);
            deadline = connect_deadline(db);
        }
    }
    return TPKS_OK;
}

/* It failed before anything had to be waited for: a word that is wrong, or nobody there. */
static tpks_result fail_start(const tpks_db *db, const words *w)
{
    bool tried = PQpingParams(w->names, w->values, 0) != PQPING_NO_ATTEMPT;

    return pg_fail_connect(db, tried ? CONNECTION_STARTED : CONNECTION_NEEDED);
}

static tpks_result start(tpks_db *db, const words *w)
{
    db->conn = PQconnectStartParams(w->names, w->values, 0);
    if (db->conn == NULL)
        return pg_fail_memory();
    PQsetNoticeReceiver(db->conn, say_nothing, NULL);
    PQsetErrorVerbosity(db->conn, PQERRORS_VERBOSE);
    if (PQstatus(db->conn) == CONNECTION_BAD)
        return fail_start(db, w);
    return finish_connecting(db, PQconnectPoll);
}

/* A connection that died silently is to be noticed within half a minute. */
static void add_defaults(words *w, const PQconninfoOption *resolved)
{
    static const char *const defaults[][2] = {
        {"connect_timeout", CONNECT_TIMEOUT},
        {"tcp_user_timeout", "30000"},
        {"keepalives_idle", "10"},
        {"keepalives_interval", "5"},
        {"keepalives_count", "4"},
        {"fallback_application_name", "trustpoint-keystore"},
    };

    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        if (find_word(resolved, defaults[i][0]) == NULL)
            add_word(w, defaults[i][0], defaults[i][1]);
    add_word(w, "client_encoding", "UTF8");
}

/* libpq's own reading of it: under two seconds are two, nothing and less is for ever. */
static long wait_of(const PQconninfoOption *resolved)
{
    const char *word = find_word(resolved, "connect_timeout");
    long wait = strtol(word != NULL ? word : CONNECT_TIMEOUT, NULL, 10);

    if (wait <= 0)
        return 0;
    return wait < 2 ? 2 : wait > 3600 ? 3600 : wait;
}

/* ---- setting the session up --------------------------------------------------------------------
 */

static bool is_true(const PGresult *result, int column)
{
    return PQgetlength(result, 0, column) == 1 && PQgetvalue(result, 0, column)[0] != 0;
}

static int64_t integer_of(const PGresult *result, int column)
{
    return pg_column(result, 0, column, NULL).integer;
}

static const char *host_of(const PGconn *conn)
{
    const char *name = PQhost(conn);

    return name != NULL && *name != '\0' ? name : "this host";
}

/* Names it for messages; once, for the caller may hold what it was given. */
static tpks_result describe(tpks_db *db, const PGresult *result)
{
    if (db->text != NULL)
        return TPKS_OK;
    db->schema = strdup(PQgetvalue(result, 0, COLUMN_SCHEMA));
    if (db->schema == NULL)
        return pg_fail_memory();
    if (asprintf(&db->text, "PostgreSQL database %s on %s:%s, schema %s, as role %s",
                 PQdb(db->conn), host_of(db->conn), PQport(db->conn), db->schema,
                 PQgetvalue(result, 0, COLUMN_ROLE)) < 0) {
        db->text = NULL;
        return pg_fail_memory();
    }
    return TPKS_OK;
}

static tpks_result check_schema(const tpks_db *db, const PGresult *result)
{
    const char *role = PQgetvalue(result, 0, COLUMN_ROLE);

    if (!is_true(result, COLUMN_EXISTS))
        return pg_host->fail(TPKS_UNINITIALIZED,
                             "%s: there is no such schema; correct options=-csearch_path= of the "
                             "connection, or make it: CREATE SCHEMA \"%s\" AUTHORIZATION \"%s\"",
                             db->text, db->schema, role);
    if (!is_true(result, COLUMN_USAGE))
        return pg_host->fail(TPKS_NOT_PERMITTED,
                             "%s: the role may not use this schema; let it: GRANT USAGE ON SCHEMA "
                             "\"%s\" TO \"%s\"",
                             db->text, db->schema, role);
    return TPKS_OK;
}

/* Said before an administrator is asked for any secret. */
static tpks_result check_writer(const tpks_db *db, const PGresult *result)
{
    if (is_true(result, COLUMN_READ_ONLY))
        return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                             "%s: this server only reads, as a standby does: let `store` name the "
                             "primary server, or all of them with target_session_attrs=read-write",
                             db->text);
    if (is_true(result, COLUMN_MAY_NOT_WRITE))
        return pg_host->fail(TPKS_NOT_PERMITTED,
                             "%s: this role may read the keystore, not change it (no UPDATE on "
                             "table tpks_header): use a role for restorers or administrators, see "
                             "postgresql-roles.sql",
                             db->text);
    return TPKS_OK;
}

static tpks_result check_creator(const tpks_db *db, const PGresult *result)
{
    if (integer_of(result, COLUMN_TABLES) != 0)
        return pg_host->fail(TPKS_EXISTS,
                             "%s: there are tables already; a keystore needs a schema of its "
                             "own: make one and name it with options=-csearch_path=NAME",
                             db->text);
    if (!is_true(result, COLUMN_CREATE))
        return pg_host->fail(TPKS_NOT_PERMITTED,
                             "%s: the role may not make tables in this schema; let it: GRANT "
                             "CREATE ON SCHEMA \"%s\" TO \"%s\"",
                             db->text, db->schema, PQgetvalue(result, 0, COLUMN_ROLE));
    return TPKS_OK;
}

static tpks_result set_session_up(tpks_db *db)
{
    tpks_result why;

    if (PQserverVersion(db->conn) < OLDEST_SERVER)
        return pg_host->fail(TPKS_UNSUPPORTED,
                             "postgresql:%s: the server is older than PostgreSQL 10: use a newer "
                             "one",
                             db->location);
    AUTO_RESULT result = pg_execute(db, set_up, NULL, 0, &why);
    TRY(why);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return pg_fail(db, result);
    if (PQntuples(result) != 1 || PQnfields(result) != COLUMN_COUNT)
        return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                             "postgresql:%s: what answers there is no PostgreSQL server",
                             db->location);
    db->answer_ms = integer_of(result, COLUMN_TIMEOUT);
    if (db->answer_ms != 0)
        db->answer_ms += ANSWER_GRACE_MS;
    TRY(describe(db, result));
    TRY(check_schema(db, result));
    if (db->mode != TPKS_DB_READ)
        TRY(check_writer(db, result));
    return db->mode == TPKS_DB_CREATE ? check_creator(db, result) : TPKS_OK;
}

/*
 * libpq loads the client key of sslkey= while it connects. Were that key in a keystore on a
 * PostgreSQL server, to connect would mean to connect first, and so on.
 */
static _Thread_local bool connecting;

static void stop_connecting(const bool *mine)
{
    if (*mine)
        connecting = false;
}
#define CONNECTING __attribute__((cleanup(stop_connecting))) bool

static tpks_result enter(const tpks_db *db, bool *mine)
{
    if (connecting)
        return pg_host->fail(
            TPKS_BAD_CONFIG,
            "postgresql:%s: the client key of a connection to PostgreSQL (sslkey=) "
            "cannot itself lie in a keystore in PostgreSQL: use a key file, or a "
            "keystore in SQLite for it",
            db->location);
    connecting = *mine = true;
    return TPKS_OK;
}

tpks_result pg_connect(tpks_db *db)
{
    CONNECTING mine = false;
    AUTO_OPTIONS given = NULL;
    AUTO_OPTIONS resolved = NULL;
    words w = {.count = 0};

    TRY(enter(db, &mine));
    TRY(parse(db, &given));
    for (const PQconninfoOption *o = given; o->keyword != NULL; o++)
        if (o->val != NULL)
            add_word(&w, o->keyword, o->val);
    TRY(resolve(db, &w, &resolved));
    TRY(check_passfile(resolved));
    db->wait_s = wait_of(resolved);
    db->answer_ms = db->wait_s * 1000; /* until the server has said what it allows */
    add_defaults(&w, resolved);
    TRY(start(db, &w));
    return set_session_up(db);
}

tpks_result pg_reconnect(tpks_db *db)
{
    CONNECTING mine = false;

    TRY(enter(db, &mine));
    /* What was made there is looked at again as any other database. */
    if (db->mode == TPKS_DB_CREATE)
        db->mode = TPKS_DB_WRITE;
    if (PQresetStart(db->conn) == 0)
        return pg_fail_connect(db, CONNECTION_STARTED);
    TRY(finish_connecting(db, PQresetPoll));
    return set_session_up(db);
}
