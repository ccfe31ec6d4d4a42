/*
 * safe_name.c - names of records as names of files
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "output.h"
#include "safe_name.h"

#define LONGEST 160
#define DIGEST_USED 16
#define SHORTENED (LONGEST - 2 * DIGEST_USED - 2)

static bool is_plain(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

/* Writes one byte of the name; returns the end. */
static char *put(char *to, unsigned char c, bool escape)
{
    if (is_plain(c) && !escape) {
        *to++ = (char)c;
        return to;
    }
    return to + sprintf(to, "=%02X", c);
}

/* Cuts between two bytes of the name, never inside an escape. */
static size_t cut(const char *text)
{
    size_t at = 0;

    while (at + (text[at] == '=' ? 3 : 1) <= SHORTENED)
        at += text[at] == '=' ? 3 : 1;
    return at;
}

static bool shorten(char *text, const char *name)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char *end = text + cut(text);

    if (EVP_Digest(name, strlen(name), digest, NULL, EVP_sha256(), NULL) != 1)
        return false;
    hex_text(digest, DIGEST_USED, stpcpy(end, "=."));
    return true;
}

char *safe_name(const char *name, const char *reserved)
{
    char *text = malloc(3 * strlen(name) + 1);
    char *end = text;

    if (text == NULL)
        return NULL;
    for (const char *from = name; *from != '\0'; from++)
        end = put(end, (unsigned char)*from,
                  (*from == '.' && from == name) || strcmp(from, reserved) == 0);
    *end = '\0';
    if (end - text > LONGEST && !shorten(text, name)) {
        free(text);
        return NULL;
    }
    return text;
}
