/*
 * output.h - how the command writes: text, JSON, PEM, files
 *
 * Data goes to stdout or to the file of --out. What a database or a certificate says is never
 * printed raw: control characters, bidirectional overrides and broken UTF-8 are escaped.
 */
#ifndef TRUSTPOINT_UTIL_OUTPUT_H
#define TRUSTPOINT_UTIL_OUTPUT_H

#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <json-c/json.h>
#include <openssl/bio.h>

#include "command.h"

/* Text with what could harm a terminal written as \uXXXX, and broken UTF-8 as \xXX. */
void output_escaped(FILE *stream, const char *text);
/* The same, followed by spaces up to `width` characters (at least one). */
void output_column(FILE *stream, const char *text, size_t width);
/* "label: text" for a screen of facts; nothing when `text` is NULL. */
void output_fact(const char *label, const char *text);

/* Prints one object on stdout, on several lines, and frees it. */
int output_json(struct json_object *object);
/* A JSON array on stdout, element by element: begin, each element (which it frees), end. */
typedef struct json_stream {
    bool started;
} json_stream;
int output_json_element(json_stream *stream, struct json_object *element);
int output_json_end(json_stream *stream);
/*
 * With --json a program gets JSON from every end of a command: when nothing has been printed and
 * the command failed with `code`, an object with state, reason and todo of the last complaint.
 */
int output_json_failure(int code);
/* A record that is not as it should be: its name, with state, reason and todo. */
struct json_object *output_bad_json(const char *name, tpks_result result, const char *reason);
/* The members that say how something is: "state" (see state_of()), "reason" and "todo", which are
 * null for TPKS_OK. */
void json_add_state(struct json_object *object, tpks_result result, const char *reason);
/* Adds a member; values that are NULL become JSON's null. */
void json_add_text(struct json_object *object, const char *key, const char *value);
void json_add_number(struct json_object *object, const char *key, int64_t value);
void json_add_bool(struct json_object *object, const char *key, bool value);
void json_add_hex(struct json_object *object, const char *key, const unsigned char *data,
                  size_t size);
void json_add_time(struct json_object *object, const char *key, time_t value);

/* "2026-11-25T03:38:27Z" into a buffer of at least TIME_SIZE bytes; returns it. */
#define TIME_SIZE 32
const char *time_text(time_t value, char *buffer);
/* Lower-case hexadecimal; `out` has room for 2 * size + 1 bytes; returns it. */
const char *hex_text(const unsigned char *data, size_t size, char *out);

/* Writes what a memory BIO holds to `path` (a new file of that mode), or to stdout for NULL or "-".
 */
int output_bio(BIO *bio, const char *path, mode_t mode);

/* Files that stdout or --out got: has everything arrived? */
int output_finish(void);

CLEANUP(BIO *, BIO_free_all, cleanup_bio)

#endif
