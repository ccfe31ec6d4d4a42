/* canonical.c - unambiguous encoding of authenticated rows */
#include "canonical.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "error.h"

#define EXTENSION_CRITICAL 0x8000u
#define EXTENSION_HEAD 6u

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

tpks_result extension_check(const unsigned char *data, size_t size, const char *where)
{
    while (size >= EXTENSION_HEAD) {
        unsigned type = (unsigned)data[0] << 8 | data[1];
        size_t length =
            (size_t)data[2] << 24 | (size_t)data[3] << 16 | (size_t)data[4] << 8 | data[5];
        if ((type & EXTENSION_CRITICAL) != 0)
            return fail(TPKS_NEWER_FORMAT,
                        "%s has the required extension %u, which this version does not know: "
                        "use a newer version",
                        where, type & ~EXTENSION_CRITICAL);
        if (length > size - EXTENSION_HEAD)
            break;
        data += EXTENSION_HEAD + length;
        size -= EXTENSION_HEAD + length;
    }
    if (size != 0)
        return fail(TPKS_TAMPERED, "the extension area of %s is malformed: restore from a backup",
                    where);
    return TPKS_OK;
}
