/* canonical.c - unambiguous encoding of authenticated rows */
#include "canonical.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "error.h"

#define EXTENSION_CRITICAL 0x8000u

void canonical_free(canonical *c)
{
    OPENSSL_free(c->data);
    memset(c, 0, sizeof(*c));
}

static bool make_room(canonical *c, size_t more)
{
    if (c->failed)
        return false;
    if (c->room - c->size >= more)
        return true;
    size_t room = (c->size + more) * 2;
    unsigned char *data = OPENSSL_realloc(c->data, room);
    if (data == NULL) {
        c->failed = true;
        return false;
    }
    c->data = data;
    c->room = room;
    return true;
}

static void put(canonical *c, const void *data, size_t size)
{
    if (size != 0 && make_room(c, size)) {
        memcpy(c->data + c->size, data, size);
        c->size += size;
    }
}

void canonical_integer(canonical *c, uint64_t value)
{
    unsigned char bytes[8];

    for (int i = 7; i >= 0; i--) {
        bytes[i] = (unsigned char)value;
        value >>= 8;
    }
    put(c, bytes, sizeof(bytes));
}

void canonical_bytes(canonical *c, const void *data, size_t size)
{
    canonical_integer(c, size);
    put(c, data, size);
}

void canonical_text(canonical *c, const char *text)
{
    canonical_bytes(c, text, strlen(text));
}

static void free_md(EVP_MD **md)
{
    EVP_MD_free(*md);
}

static void free_md_ctx(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

tpks_result canonical_digest(const canonical *c, OSSL_LIB_CTX *libctx, const char *domain,
                             unsigned char digest[SHA256_SIZE])
{
    CANONICAL head = {0};
    __attribute__((cleanup(free_md))) EVP_MD *md = EVP_MD_fetch(libctx, "SHA256", NULL);
    __attribute__((cleanup(free_md_ctx))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    canonical_text(&head, domain);
    if (c->failed || head.failed || ctx == NULL)
        return fail_memory();
    if (md == NULL || !EVP_DigestInit_ex(ctx, md, NULL) ||
        !EVP_DigestUpdate(ctx, head.data, head.size) || !EVP_DigestUpdate(ctx, c->data, c->size) ||
        !EVP_DigestFinal_ex(ctx, digest, NULL))
        return fail_crypto(TPKS_INTERNAL, "SHA-256");
    return TPKS_OK;
}

tpks_result canonical_compare(const canonical *a, const canonical *b, bool *same)
{
    if (a->failed || b->failed)
        return fail_memory();
    *same = a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
    return TPKS_OK;
}

/* One entry; `size` is at least EXTENSION_HEAD_SIZE. */
static unsigned entry_type(const unsigned char *entry)
{
    return (unsigned)entry[0] << 8 | entry[1];
}

static size_t entry_length(const unsigned char *entry)
{
    return (size_t)entry[2] << 24 | (size_t)entry[3] << 16 | (size_t)entry[4] << 8 | entry[5];
}

tpks_result extension_check(const unsigned char *data, size_t size, const char *where)
{
    while (size >= EXTENSION_HEAD_SIZE) {
        unsigned type = entry_type(data);
        size_t length = entry_length(data);
        if ((type & EXTENSION_CRITICAL) != 0)
            return fail(TPKS_NEWER_FORMAT,
                        "%s has the required extension %u, which this version does not know: "
                        "use a newer version",
                        where, type & ~EXTENSION_CRITICAL);
        if (length > size - EXTENSION_HEAD_SIZE)
            break;
        data += EXTENSION_HEAD_SIZE + length;
        size -= EXTENSION_HEAD_SIZE + length;
    }
    if (size != 0)
        return fail(TPKS_TAMPERED, "the extension area of %s is malformed: restore from a backup",
                    where);
    return TPKS_OK;
}

bool extension_has(const unsigned char *data, size_t size, unsigned type)
{
    for (size_t step; size >= EXTENSION_HEAD_SIZE; data += step, size -= step) {
        if (entry_type(data) == type)
            return true;
        step = EXTENSION_HEAD_SIZE + entry_length(data);
        if (step > size)
            return false;
    }
    return false;
}

void extension_make(unsigned type, unsigned char out[EXTENSION_HEAD_SIZE])
{
    memset(out, 0, EXTENSION_HEAD_SIZE);
    out[0] = (unsigned char)(type >> 8);
    out[1] = (unsigned char)type;
}
