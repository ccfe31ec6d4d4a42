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
