/* postgresql_value.c - values on their way to the server and back */
#include "postgresql.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_VALUES = 64 };

/* Types by the numbers that PostgreSQL never changes (src/include/catalog/pg_type.dat). */
enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_OID = 26,
    OID_JSON = 114,
    OID_NAME = 19,
    OID_UNKNOWN = 705,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    OID_TIMESTAMP = 1114,
    OID_TIMESTAMPTZ = 1184,
    OID_UUID = 2950,
    OID_JSONB = 3802
};

#define EPOCH_2000 946684800 /* PostgreSQL's epoch in Unix seconds */

/* ---- parameters ------------------------------------------------------------------------------ */

typedef struct parameters {
    Oid types[MAX_VALUES];
    const char *data[MAX_VALUES];
    int sizes[MAX_VALUES];
    int formats[MAX_VALUES];
    int64_t integers[MAX_VALUES];
    char *copies[MAX_VALUES];
} parameters;

static void free_copies(parameters *p)
{
    for (int i = 0; i < MAX_VALUES; i++)
        free(p->copies[i]);
}

/* The server takes the type from where it is used: a text may be meant for a uuid or a time. */
static tpks_result set_text(parameters *p, size_t i, const tpks_value *value)
{
    const char *data = value->size == 0 ? "" : value->data;

    if (memchr(data, '\0', value->size) != NULL)
        return pg_host->fail(TPKS_BAD_INPUT, "a text with a NUL byte in it cannot be stored");
    p->copies[i] = strndup(data, value->size);
    if (p->copies[i] == NULL)
        return pg_fail_memory();
    p->data[i] = p->copies[i];
    return TPKS_OK;
}

static tpks_result set_value(parameters *p, size_t i, const tpks_value *value)
{
    switch (value->type) {
    case TPKS_VALUE_TEXT:
        return set_text(p, i, value);
    case TPKS_VALUE_INTEGER:
        p->integers[i] = (int64_t)htobe64((uint64_t)value->integer);
        p->types[i] = OID_INT8;
        p->data[i] = (const char *)&p->integers[i];
        p->sizes[i] = sizeof(p->integers[i]);
        p->formats[i] = 1;
        return TPKS_OK;
    case TPKS_VALUE_BLOB:
        p->types[i] = OID_BYTEA;
        p->data[i] = value->data != NULL ? value->data : "";
        p->sizes[i] = (int)value->size;
        p->formats[i] = 1;
        return value->size <= INT32_MAX ? TPKS_OK
                                        : pg_host->fail(TPKS_BAD_INPUT, "too large to store");
    default:
        return TPKS_OK; /* NULL */
    }
}

PGresult *pg_execute(const tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                     tpks_result *why)
{
    __attribute__((cleanup(free_copies))) parameters p = {0};

    *why = count <= MAX_VALUES
               ? TPKS_OK
               : pg_host->fail(TPKS_INTERNAL, "%zu parameters are too many; report this", count);
    for (size_t i = 0; i < count && *why == TPKS_OK; i++)
        *why = set_value(&p, i, &values[i]);
    if (*why != TPKS_OK ||
        PQsendQueryParams(db->conn, sql, (int)count, p.types, p.data, p.sizes, p.formats, 1) != 1)
        return NULL;
    return pg_answer(db);
}

/* ---- columns --------------------------------------------------------------------------------- */

static uint64_t big_endian(const char *data, int size)
{
    uint64_t value = 0;

    for (int i = 0; i < size; i++)
        value = value << 8 | (unsigned char)data[i];
    return value;
}

static tpks_value integer_value(int64_t integer)
{
    return (tpks_value){.type = TPKS_VALUE_INTEGER, .integer = integer};
}

static tpks_value bytes_value(tpks_value_type type, const char *data, int size)
{
    return (tpks_value){.type = type, .data = data, .size = (size_t)size};
}

static tpks_value uuid_value(const char *data, int size, pg_text *room)
{
    for (int i = 0; i < size && i < 16; i++)
        snprintf(room->text + 2 * i, 3, "%02x", (unsigned char)data[i]);
    return bytes_value(TPKS_VALUE_TEXT, room->text, (int)strlen(room->text));
}

/* "YYYY-MM-DD HH:MM:SS", then ".ffffff" unless it is zero: as Django writes it into SQLite. */
static tpks_value time_value(int64_t since_2000, pg_text *room)
{
    int64_t micros = since_2000 % 1000000, seconds = since_2000 / 1000000;
    struct tm tm;
    time_t at;
    size_t used;

    if (since_2000 == INT64_MAX || since_2000 == INT64_MIN)
        return bytes_value(TPKS_VALUE_TEXT, "infinity", 8);
    if (micros < 0) {
        micros += 1000000;
        seconds--;
    }
    at = (time_t)(seconds + EPOCH_2000);
    if (gmtime_r(&at, &tm) == NULL)
        return (tpks_value){.type = TPKS_VALUE_NULL};
    used = strftime(room->text, sizeof(room->text), "%Y-%m-%d %H:%M:%S", &tm);
    if (micros != 0)
        snprintf(room->text + used, sizeof(room->text) - used, ".%06d", (int)micros);
    return bytes_value(TPKS_VALUE_TEXT, room->text, (int)strlen(room->text));
}

static tpks_value small_value(uint64_t bits, int size)
{
    if (size == 2)
        return integer_value((int16_t)bits);
    if (size == 4)
        return integer_value((int32_t)bits);
    return integer_value((int64_t)bits);
}

tpks_value pg_column(const PGresult *result, int row, int column, pg_text *room)
{
    const char *data = PQgetvalue(result, row, column);
    int size = PQgetlength(result, row, column);

    if (PQgetisnull(result, row, column))
        return (tpks_value){.type = TPKS_VALUE_NULL};
    switch (PQftype(result, column)) {
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
        return small_value(big_endian(data, size), size);
    case OID_BOOL:
    case OID_OID:
        return integer_value((int64_t)big_endian(data, size));
    case OID_BYTEA:
        return bytes_value(TPKS_VALUE_BLOB, data, size);
    case OID_UUID:
        return uuid_value(data, size, room);
    case OID_TIMESTAMP:
    case OID_TIMESTAMPTZ:
        return time_value((int64_t)big_endian(data, size), room);
    case OID_JSONB: /* one byte of version first */
        return bytes_value(TPKS_VALUE_TEXT, data + (size > 0), size - (size > 0));
    case OID_TEXT:
    case OID_VARCHAR:
    case OID_BPCHAR:
    case OID_NAME:
    case OID_JSON:
    case OID_UNKNOWN:
        return bytes_value(TPKS_VALUE_TEXT, data, size);
    default: /* no column of ours has another type */
        return (tpks_value){.type = TPKS_VALUE_NULL};
    }
}

void pg_clear(PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++)
        for (int column = 0; column < PQnfields(result); column++)
            if (PQgetlength(result, row, column) > 0)
                explicit_bzero(PQgetvalue(result, row, column),
                               (size_t)PQgetlength(result, row, column));
    PQclear(result);
}
