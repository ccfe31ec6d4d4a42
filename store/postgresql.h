/*
 * postgresql.h - an open PostgreSQL database, as the files of this plugin share it
 */
#ifndef TRUSTPOINT_POSTGRESQL_H
#define TRUSTPOINT_POSTGRESQL_H

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>

#include <libpq-fe.h>

#include "backend.h"
#include "error.h" /* for TRY only: fail() is the library's, reached through the host */

/* Rows that are fetched at once; a longer result is read through a cursor. */
#define PG_CHUNK 256

typedef enum pg_transaction {
    PG_NONE = 0,
    PG_IMPLICIT, /* of our own, around cursors that were opened outside of any */
    PG_READ,
    PG_WRITE
} pg_transaction;

struct tpks_db {
    PGconn *conn;
    tpks_db_mode mode;
    pid_t pid;
    pg_transaction transaction;
    tpks_rows *cursors; /* the queries that have more rows on the server */
    unsigned numbers;   /* of cursors, so that names never repeat */
    long wait_s;        /* for an answer while connecting; 0: without end */
    int64_t answer_ms;  /* for an answer to a statement; 0: without end */
    char *schema;
    char *text;      /* of describe() */
    char location[]; /* the connection's parameters, without a password */
};

/*
 * Wipes every value and frees the result, which may be NULL: what Trustpoint keeps without an HSM
 * has keys in the clear. What libpq received them in stays as it is, and so does OpenSSL's buffer
 * of a connection with TLS: both are theirs.
 */
void pg_clear(PGresult *result);

/* The library's functions for us; set once by the entry. */
extern const tpks_backend_host *pg_host;

/* Programs look at errno after a key load that went well; what we do must not be seen there. */
static inline void pg_put_errno_back(const int *saved)
{
    errno = *saved;
}
#define KEEP_ERRNO int saved_errno __attribute__((cleanup(pg_put_errno_back), unused)) = errno

static inline void pg_clear_result(PGresult **result)
{
    pg_clear(*result);
}
#define AUTO_RESULT __attribute__((cleanup(pg_clear_result))) PGresult *

static inline void pg_free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(pg_free_text))) char *

/* ---- postgresql_connect.c ---- */

/* Connects `db` for the first time, sets every setting, and finds out what it may do there. */
TPKS_CHECK tpks_result pg_connect(tpks_db *db);
/* The same again on a connection that was lost; cursors and transactions are gone. */
TPKS_CHECK tpks_result pg_reconnect(tpks_db *db);
/* What the server answers to the statement that was sent; NULL or a fatal error when it is lost. */
PGresult *pg_answer(const tpks_db *db);
/* Was it lost? Only what was noticed so far. */
static inline bool pg_is_lost(const tpks_db *db)
{
    return PQstatus(db->conn) == CONNECTION_BAD;
}

/* ---- postgresql_error.c ---- */

/* Why a statement failed; `result` may be NULL. */
tpks_result pg_fail(const tpks_db *db, const PGresult *result);
/* Why no connection came to be; `phase` is how far it had come. */
tpks_result pg_fail_connect(const tpks_db *db, ConnStatusType phase);
tpks_result pg_fail_memory(void);
/* A message of libpq in one line, to be freed; NULL: out of memory. */
char *pg_one_line(const char *message);

/* ---- postgresql_value.c ---- */

/* Runs one statement; integers and bytes travel in binary, texts as what the server makes of them.
 * NULL: *why says what is wrong with a value, or it is TPKS_OK and the connection failed. */
PGresult *pg_execute(const tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                     tpks_result *why);
/* Room for what a value looks like as text. */
typedef struct pg_text {
    char text[40];
} pg_text;
/* A value as SQLite would hold it: booleans as 0 and 1, UUIDs as 32 hex digits, times as text in
 * UTC. `room` is where texts are made. */
tpks_value pg_column(const PGresult *result, int row, int column, pg_text *room);

#endif
