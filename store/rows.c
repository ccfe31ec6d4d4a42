/* rows.c - columns out of rows, checked */
#include "rows.h"

#include <openssl/crypto.h>

#include "error.h"

void reader_finish(reader *r)
{
    if (r->rows != NULL)
        r->d->backend->finish(r->rows);
    r->rows = NULL;
}

tpks_result reader_start(reader *r, const char *sql, const tpks_value *values, size_t count)
{
    return r->d->backend->query(r->d->db, sql, values, count, &r->rows);
}

tpks_result reader_next(reader *r, bool *got)
{
    r->column = 0;
    r->result = TPKS_OK;
    return r->d->backend->next(r->rows, got);
}

void malformed(reader *r)
{
    if (r->result == TPKS_OK)
        r->result = fail(TPKS_TAMPERED,
                         "%s: table %s, column %d holds what it never should: "
                         "restore the database from a backup",
                         r->d->backend->describe(r->d->db), r->table, r->column);
}

static tpks_value take(reader *r, tpks_value_type type)
{
    tpks_value value = r->d->backend->column(r->rows, r->column++);

    if (value.type != type) {
        malformed(r);
        value = (tpks_value){.type = type, .data = "", .size = 0};
    }
    return value;
}

uint64_t take_integer(reader *r)
{
    return (uint64_t)take(r, TPKS_VALUE_INTEGER).integer;
}

uint32_t take_small(reader *r)
{
    uint64_t value = take_integer(r);

    if (value > UINT32_MAX)
        malformed(r);
    return (uint32_t)value;
}

void take_fixed(reader *r, unsigned char *out, size_t size)
{
    tpks_value value = take(r, TPKS_VALUE_BLOB);

    if (value.size != size)
        malformed(r);
    else
        memcpy(out, value.data, size);
}

void take_bytes(reader *r, bytes *out)
{
    tpks_value value = take(r, TPKS_VALUE_BLOB);

    if (bytes_set(out, value.data, value.size) != TPKS_OK && r->result == TPKS_OK)
        r->result = TPKS_NO_MEMORY;
}

void take_text(reader *r, char **out)
{
    tpks_value value = take(r, TPKS_VALUE_TEXT);

    if (memchr(value.data, '\0', value.size) != NULL)
        malformed(r);
    OPENSSL_free(*out);
    *out = OPENSSL_strndup(value.data, value.size);
    if (*out == NULL && r->result == TPKS_OK)
        r->result = fail_memory();
}

void *take_row(reader *r, void *array, size_t *count, size_t size, size_t limit)
{
    if (*count == limit) {
        r->result = fail(TPKS_TAMPERED,
                         "%s: table %s has more than %zu rows where that never should be: "
                         "restore the database from a backup",
                         r->d->backend->describe(r->d->db), r->table, limit);
        return NULL;
    }
    void *grown = rows_grow(array, count, size);
    if (grown == NULL)
        r->result = fail_memory();
    return grown;
}

tpks_result take_end(reader *r, const bytes *extension)
{
    if (r->result != TPKS_OK)
        return r->result;
    return extension_check(extension->data, extension->size, r->table);
}

/* What an SQL NULL stands for is the caller's affair. */
static bool take_null(reader *r)
{
    if (r->d->backend->column(r->rows, r->column).type != TPKS_VALUE_NULL)
        return false;
    r->column++;
    return true;
}

const char *take_borrowed_text(reader *r)
{
    if (take_null(r))
        return NULL;
    tpks_value value = take(r, TPKS_VALUE_TEXT);
    if (memchr(value.data, '\0', value.size) != NULL)
        malformed(r);
    return value.data;
}

tpks_value take_borrowed_blob(reader *r)
{
    return take_null(r) ? (tpks_value){.type = TPKS_VALUE_NULL} : take(r, TPKS_VALUE_BLOB);
}

uint64_t take_integer_or_zero(reader *r)
{
    return take_null(r) ? 0 : take_integer(r);
}

tpks_result read_integer(const database *d, const char *table, const char *sql,
                         const tpks_value *values, size_t count, uint64_t *out)
{
    READER r = {.d = d, .table = table};
    bool got = false;

    TRY(reader_start(&r, sql, values, count));
    TRY(reader_next(&r, &got));
    *out = got ? take_integer(&r) : 0;
    return r.result;
}
