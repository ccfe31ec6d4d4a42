/*
 * postgresql_error.c - what went wrong, and what to do about it
 *
 * Servers and libpq speak the language of their administrator: what decides is the SQLSTATE
 * (PostgreSQL manual, appendix A), and before there is one, how far the connection had come.
 */
#include "postgresql.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { STATE_SIZE = 5 };

typedef struct cause {
    char state[STATE_SIZE + 1]; /* what the SQLSTATE begins with */
    tpks_result result;
    const char *advice;
} cause;

static const cause causes[] = {
    {"28P01", TPKS_NOT_PERMITTED,
     "the server refused the password: correct it in ~/.pgpass, in the file that PGPASSFILE or "
     "passfile= names, or in the service file"},
    {"28", TPKS_NOT_PERMITTED,
     "the server does not let this role in from here: see its pg_hba.conf and pg_ident.conf, and "
     "user= of the connection"},
    {"3D000", TPKS_UNINITIALIZED,
     "there is no such database: correct dbname=, or make it with createdb and then "
     "`trustpoint-keystore init`"},
    {"53300", TPKS_DATABASE_UNAVAILABLE,
     "the server has too many connections: try again, or raise its max_connections"},
    {"53100", TPKS_DATABASE_UNAVAILABLE,
     "the server's disk is full; nothing was changed: make room and try again"},
    {"53", TPKS_DATABASE_UNAVAILABLE, "the server is out of resources: try again"},
    {"57014", TPKS_DATABASE_UNAVAILABLE,
     "the server ended a statement that took longer than statement_timeout, or an administrator "
     "did; nothing was changed: find out what keeps it busy (pg_stat_activity) and try again"},
    {"57P", TPKS_DATABASE_UNAVAILABLE,
     "the server is starting or stopping; nothing was changed: try again when it is up"},
    {"25P03", TPKS_DATABASE_UNAVAILABLE,
     "this program paused longer in the middle of its work than the server allows; nothing was "
     "changed: try again"},
    {"08", TPKS_DATABASE_UNAVAILABLE, "the connection was lost; nothing was changed: try again"},
    {"25006", TPKS_DATABASE_UNAVAILABLE,
     "this server only reads, as a standby does: let `store` name the primary server, or all of "
     "them with target_session_attrs=read-write; nothing was changed"},
    {"42501", TPKS_NOT_PERMITTED,
     "grant this role what it needs (see trustpoint-keystore(1) and "
     "postgresql-roles.sql), or use another role"},
    {"23505", TPKS_EXISTS, "there is such an entry already"},
    {"42P07", TPKS_EXISTS, "there is such a table already"},
    {"42710", TPKS_EXISTS, "there is such an object already"},
    {"40", TPKS_CONFLICT, "another process changed the keystore meanwhile: try again"},
    {"55P03", TPKS_DATABASE_UNAVAILABLE,
     "another session kept it locked for longer than lock_timeout; nothing was changed: see which "
     "in pg_stat_activity, and try again when it is done"},
    {"42P01", TPKS_DATABASE_UNAVAILABLE,
     "the database is damaged, or a table was removed: restore it from a backup"},
    {"42703", TPKS_DATABASE_UNAVAILABLE,
     "the database is damaged, or a column was removed: restore it from a backup"},
    {"55000", TPKS_DATABASE_UNAVAILABLE,
     "where it says that a view or foreign table is restricted, one has taken a table's place: the "
     "database is damaged: restore it from a backup"},
    {"XX001", TPKS_DATABASE_UNAVAILABLE, "the database is damaged: restore it from a backup"},
    {"XX002", TPKS_DATABASE_UNAVAILABLE,
     "an index of the database is damaged: run REINDEX on it, or restore it from a backup"},
    {"54", TPKS_BAD_INPUT, "it is too large to store: make it less"},
    {"22023", TPKS_BAD_CONFIG,
     "correct options= of the connection; a keystore lives in one schema: "
     "options=-csearch_path=NAME"},
    {"22021", TPKS_BAD_INPUT,
     "the database's encoding cannot hold this text: use a database with encoding UTF8"},
    {"22P05", TPKS_BAD_INPUT,
     "the database's encoding cannot hold this text: use a database with encoding UTF8"},
};

static const cause *find_cause(const char *state)
{
    for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++)
        if (strncmp(state, causes[i].state, strlen(causes[i].state)) == 0)
            return &causes[i];
    return NULL;
}

/* Its name for messages. */
static const char *name_of(const tpks_db *db)
{
    return db->text != NULL ? db->text : db->location;
}

tpks_result pg_fail_memory(void)
{
    return pg_host->fail(TPKS_NO_MEMORY, "out of memory");
}

/* ---- texts ----------------------------------------------------------------------------------- */

/* Where in the server's source it was raised: nothing that helps an administrator. */
static bool is_source_line(const char *line, size_t size)
{
    const char *dot = memmem(line, size, ".c:", 3);

    return dot != NULL && strspn(dot + 3, "0123456789") == size - (size_t)(dot + 3 - line);
}

char *pg_one_line(const char *message)
{
    char *out = calloc(1, 2 * strlen(message) + 1), *end = out;

    if (out == NULL)
        return NULL;
    for (size_t size; *message != '\0'; message += size + (message[size] == '\n')) {
        message += strspn(message, "\t");
        size = strcspn(message, "\n");
        if (size == 0 || is_source_line(message, size))
            continue;
        if (end != out)
            end = stpcpy(end, "; ");
        for (size_t i = 0; i < size; i++)
            *end++ = iscntrl((unsigned char)message[i]) ? ' ' : message[i];
    }
    return out;
}

/* The last SQLSTATE of a verbose message ("FATAL:  28P01: ..."), a byte range; NULL: none. */
static char *find_state(char *message)
{
    char *found = NULL;

    for (char *at = strstr(message, ":  "); at != NULL; at = strstr(at + 1, ":  "))
        if (strspn(at + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == STATE_SIZE &&
            strncmp(at + 3 + STATE_SIZE, ": ", 2) == 0)
            found = at + 3;
    return found;
}

/* Takes "28P01: " out of the text again. */
static void cut_state(char *state)
{
    memmove(state, state + STATE_SIZE + 2, strlen(state + STATE_SIZE + 2) + 1);
}

/* ---- a connection that did not come to be ------------------------------------------------------
 */

static const char *advice_by_phase(ConnStatusType phase)
{
    switch (phase) {
    case CONNECTION_NEEDED: /* nothing was tried: a word is wrong */
        return "correct the connection's parameters in `store` or in the service file";
    case CONNECTION_STARTED:
        return "is the server running, and does `store` name it rightly? Try again when it is up";
    case CONNECTION_SSL_STARTUP:
        return "TLS with the server failed: see sslmode=, sslrootcert=, sslcert= and sslkey= of "
               "the connection, and the server's certificate";
    default:
        return "the server ended the connection at login: its log says why";
    }
}

static tpks_result result_by_phase(ConnStatusType phase)
{
    return phase == CONNECTION_NEEDED ? TPKS_BAD_CONFIG : TPKS_DATABASE_UNAVAILABLE;
}

tpks_result pg_fail_connect(const tpks_db *db, ConnStatusType phase)
{
    AUTO_TEXT why = pg_one_line(PQerrorMessage(db->conn));
    char *state = why != NULL ? find_state(why) : NULL;
    const cause *known = state != NULL ? find_cause(state) : NULL;

    if (why == NULL)
        return pg_fail_memory();
    if (state != NULL)
        cut_state(state);
    if (known != NULL)
        return pg_host->fail(known->result, "postgresql:%s: %s; %s", db->location, why,
                             known->advice);
    if (PQconnectionNeedsPassword(db->conn))
        return pg_host->fail(TPKS_NOT_PERMITTED,
                             "postgresql:%s: the server wants a password and there is none: put it "
                             "into ~/.pgpass of the user of this program, into the file that "
                             "PGPASSFILE or passfile= names, or into the service file",
                             db->location);
    return pg_host->fail(result_by_phase(phase), "postgresql:%s: %s; %s", db->location, why,
                         advice_by_phase(phase));
}

/* ---- a statement that failed -------------------------------------------------------------------
 */

static tpks_result fail_lost(const tpks_db *db)
{
    AUTO_TEXT why = pg_one_line(PQerrorMessage(db->conn));

    return pg_host->fail(TPKS_DATABASE_UNAVAILABLE,
                         "%s: the connection was lost (%s); nothing was changed: try again when "
                         "the server is up",
                         name_of(db), why != NULL ? why : "no reason known");
}

tpks_result pg_fail(const tpks_db *db, const PGresult *result)
{
    const char *state = result != NULL ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *why = result != NULL ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const cause *known = state != NULL ? find_cause(state) : NULL;

    if (state == NULL && pg_is_lost(db))
        return fail_lost(db);
    if (state == NULL)
        return pg_fail_memory();
    if (why == NULL)
        why = "no reason known";
    if (known != NULL)
        return pg_host->fail(known->result, "%s: %s; %s", name_of(db), why, known->advice);
    return pg_host->fail(TPKS_INTERNAL, "%s: %s (SQLSTATE %s); report this", name_of(db), why,
                         state);
}
