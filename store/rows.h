/*
 * rows.h - values into statements, and columns out of rows
 *
 * Columns are read in order, each checked for type and size; the first mistake of a row sticks, so
 * that a row is taken whole and then asked for its result.
 */
#ifndef TRUSTPOINT_ROWS_H
#define TRUSTPOINT_ROWS_H

#include <string.h>

#include "schema.h"

static inline tpks_value value_blob(const void *data, size_t size)
{
    return (tpks_value){.type = TPKS_VALUE_BLOB, .data = data == NULL ? "" : data, .size = size};
}

static inline tpks_value value_bytes(const bytes *b)
{
    return value_blob(b->data, b->size);
}

static inline tpks_value value_text(const char *s)
{
    return (tpks_value){.type = TPKS_VALUE_TEXT, .data = s, .size = strlen(s)};
}

static inline tpks_value value_integer(uint64_t i)
{
    return (tpks_value){.type = TPKS_VALUE_INTEGER, .integer = (int64_t)i};
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct reader {
    const database *d;
    tpks_rows *rows;
    const char *table; /* for messages */
    int column;
    tpks_result result; /* of the present row so far */
} reader;

void reader_finish(reader *r);
#define READER __attribute__((cleanup(reader_finish))) reader

TPKS_CHECK tpks_result reader_start(reader *r, const char *sql, const tpks_value *values,
                                    size_t count);
TPKS_CHECK tpks_result reader_next(reader *r, bool *got);
/* The present row holds what it never should: TPKS_TAMPERED. */
void malformed(reader *r);

uint64_t take_integer(reader *r);
/* An integer that must fit 32 bits. */
uint32_t take_small(reader *r);
void take_fixed(reader *r, unsigned char *out, size_t size);
void take_bytes(reader *r, bytes *out);
void take_text(reader *r, char **out);

/* The next three borrow from the row, until the next one, and give NULL or 0 for an SQL NULL. */
const char *take_borrowed_text(reader *r);
tpks_value take_borrowed_blob(reader *r);
uint64_t take_integer_or_zero(reader *r);

/* One more row in an array; NULL with the reason in r->result. */
void *take_row(reader *r, void *array, size_t *count, size_t size, size_t limit);
/* Ends a row: its extension area must hold nothing that we would have to know. */
TPKS_CHECK tpks_result take_end(reader *r, const bytes *extension);

/* Runs a query of one integer. */
TPKS_CHECK tpks_result read_integer(const database *d, const char *table, const char *sql,
                                    const tpks_value *values, size_t count, uint64_t *out);

#endif
