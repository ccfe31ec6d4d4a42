/*
 * text.c - UTF-8 that comes from outside
 */
#include "text.h"

#include <stdio.h>
#include <string.h>

#include <openssl/asn1.h>

size_t text_next(const char *text, size_t size, unsigned long *character)
{
    int length = size > 4 ? 4 : (int)size; /* no character is longer */
    int used = length == 0 ? 0 : UTF8_getc((const unsigned char *)text, length, character);

    /* Whether UTF8_getc() lets these two pass depends on the version of OpenSSL. */
    if (used <= 0 || *character > 0x10FFFF || (*character >= 0xD800 && *character <= 0xDFFF))
        return 0;
    return (size_t)used;
}

bool text_is_control(unsigned long character)
{
    return character < 0x20 || (character >= 0x7F && character <= 0x9F);
}

/* White space by Unicode, and the separators that Python counts among it. */
static bool is_space(unsigned long c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

const char *text_strip(const char *text, size_t size, size_t *left)
{
    size_t start = size, end = 0, used;
    unsigned long character;

    for (size_t i = 0; i < size; i += used) {
        used = text_next(text + i, size - i, &character);
        if (used != 0 && is_space(character))
            continue;
        used = used == 0 ? 1 : used;
        start = start == size ? i : start;
        end = i + used;
    }
    *left = end > start ? end - start : 0;
    return text + start;
}

char text_lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

bool text_count(const char *text, size_t size, size_t *characters)
{
    unsigned long character;
    size_t used;

    *characters = 0;
    for (size_t i = 0; i < size; i += used) {
        used = text_next(text + i, size - i, &character);
        if (used == 0 || text_is_control(character))
            return false;
        ++*characters;
    }
    return true;
}

static bool disturbs(unsigned long character)
{
    return text_is_control(character) || character == 0x2028 || character == 0x2029 ||
           (character >= 0x202A && character <= 0x202E) ||
           (character >= 0x2066 && character <= 0x2069);
}

/* `also`: ASCII characters that are not plain either. */
static void escape(const char *text, const char *also, char *out, size_t size)
{
    size_t left = strlen(text);
    size_t room = size - 1;

    while (left > 0) {
        unsigned long character;
        size_t used = text_next(text, left, &character);
        bool plain = used > 0 && !disturbs(character) && strchr(also, *text) == NULL;
        size_t step = plain ? used : 1;
        size_t need = plain ? used : strlen("\\xNN");

        if (need > room)
            break;
        if (plain)
            memcpy(out, text, used);
        else
            snprintf(out, room + 1, "\\x%02x", (unsigned)(unsigned char)*text);
        out += need;
        room -= need;
        text += step;
        left -= step;
    }
    *out = '\0';
}

void text_escape(const char *text, char *out, size_t size)
{
    escape(text, "", out, size);
}

void text_quote(const char *text, char *out, size_t size)
{
    escape(text, "\"\\", out, size);
}
