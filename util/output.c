/*
 * output.c - how the command writes: text, JSON, PEM, files
 */
#include <errno.h>
#include <string.h>

#include <openssl/asn1.h>

#include "new_file.h"
#include "output.h"

/* Would a terminal act on this character, or show the text in another order? */
static bool is_harmful(unsigned long c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* Writes the character at `text`, escaped if need be; returns how many bytes it has. */
static size_t put_character(FILE *stream, const char *text, size_t left, bool is_json)
{
    unsigned long c = 0;
    int size = UTF8_getc((const unsigned char *)text, (int)(left > 6 ? 6 : left), &c);

    if (size <= 0) {
        fprintf(stream, is_json ? "\\ufffd" : "\\x%02x", (unsigned char)*text);
        return 1;
    }
    if (is_harmful(c) && !(is_json && c == '\n'))
        fprintf(stream, "\\u%04lx", c);
    else
        fwrite(text, 1, (size_t)size, stream);
    return (size_t)size;
}

/* Returns how many characters of the text there are. */
static size_t put_text(FILE *stream, const char *text, bool is_json)
{
    size_t left = strlen(text), count = 0;

    while (left > 0) {
        size_t size = put_character(stream, text, left, is_json);

        text += size;
        left -= size;
        count++;
    }
    return count;
}

void output_escaped(FILE *stream, const char *text)
{
    put_text(stream, text, false);
}

void output_column(FILE *stream, const char *text, size_t width)
{
    size_t count = put_text(stream, text, false);

    do
        fputc(' ', stream);
    while (++count < width);
}

void output_fact(const char *label, const char *text)
{
    if (text == NULL)
        return;
    printf("%-22s ", label);
    output_escaped(stdout, text);
    putchar('\n');
}

#define JSON_FLAGS                                                                                 \
    (JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)

/* Has anything in JSON been printed? */
static bool json_printed;

int output_json(struct json_object *object)
{
    json_printed = true;
    const char *text = json_object_to_json_string_ext(object, JSON_FLAGS);

    if (text == NULL)
        return complain_memory();
    put_text(stdout, text, true);
    putchar('\n');
    json_object_put(object);
    return EX_OK;
}

int output_json_failure(int code)
{
    struct json_object *object;

    if (code == EX_OK || json_printed)
        return EX_OK;
    object = json_object_new_object();
    json_add_state(object, complaint_result(), complaint_text());
    return output_json(object);
}

struct json_object *output_bad_json(const char *name, tpks_result result, const char *reason)
{
    struct json_object *object = json_object_new_object();

    json_add_text(object, "name", name);
    json_add_state(object, result, reason);
    return object;
}

int output_json_element(json_stream *stream, struct json_object *element)
{
    json_printed = true;
    fputs(stream->started ? ",\n" : "[\n", stdout);
    stream->started = true;

    const char *text = json_object_to_json_string_ext(element, JSON_C_TO_STRING_SPACED |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE);

    if (text == NULL)
        return complain_memory();
    put_text(stdout, text, true);
    json_object_put(element);
    return EX_OK;
}

int output_json_end(json_stream *stream)
{
    json_printed = true;
    fputs(stream->started ? "\n]\n" : "[]\n", stdout);
    return EX_OK;
}

void json_add_text(struct json_object *object, const char *key, const char *value)
{
    json_object_object_add(object, key, value != NULL ? json_object_new_string(value) : NULL);
}

void json_add_state(struct json_object *object, tpks_result result, const char *reason)
{
    json_add_text(object, "state", state_of(result));
    json_add_text(object, "reason", result == TPKS_OK ? NULL : reason);
    json_add_text(object, "todo", todo_of(result));
}

void json_add_number(struct json_object *object, const char *key, int64_t value)
{
    json_object_object_add(object, key, json_object_new_int64(value));
}

void json_add_bool(struct json_object *object, const char *key, bool value)
{
    json_object_object_add(object, key, json_object_new_boolean(value));
}

void json_add_hex(struct json_object *object, const char *key, const unsigned char *data,
                  size_t size)
{
    char text[2 * 64 + 1];

    json_add_text(object, key, data != NULL && size <= 64 ? hex_text(data, size, text) : NULL);
}

void json_add_time(struct json_object *object, const char *key, time_t value)
{
    char text[TIME_SIZE];

    json_add_text(object, key, time_text(value, text));
}

const char *time_text(time_t value, char *buffer)
{
    struct tm tm;

    if (gmtime_r(&value, &tm) == NULL ||
        strftime(buffer, TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        strcpy(buffer, "?");
    return buffer;
}

const char *hex_text(const unsigned char *data, size_t size, char *out)
{
    for (size_t i = 0; i < size; i++)
        sprintf(out + 2 * i, "%02x", data[i]);
    out[2 * size] = '\0';
    return out;
}

int output_bio(BIO *bio, const char *path, mode_t mode)
{
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);

    if (size < 0 || data == NULL)
        return complain_memory();
    if (path != NULL && strcmp(path, "-") != 0)
        return new_file_write(path, mode, data, (size_t)size);
    fwrite(data, 1, (size_t)size, stdout);
    return EX_OK;
}

int output_finish(void)
{
    static bool complained;

    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EX_OK;
    if (!complained)
        complain(EX_OSERR, "cannot write to standard output: %s",
                 errno != 0 ? strerror(errno) : "a part of it was lost");
    complained = true;
    return EX_OSERR;
}
