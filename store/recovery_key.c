/*
 * recovery_key.c - recovery keys as people write them
 *
 *     TPRK1-cbdefghi-jklnrtuv-...-cbde     prefix, 8 groups of 8 letters, 4 letters of checksum
 *
 * A letter is 4 bits in modhex, whose letters lie in the same place on most keyboards. The
 * checksum tells a typing error from a wrong key.
 */
#include "password.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "error.h"
#include "secret.h"
#include "text.h"

#define PREFIX "TPRK1"
#define NORMAL_PREFIX "tprk1"
#define PREFIX_SIZE (sizeof(PREFIX) - 1)
#define GROUP_SIZE 8
#define CHECKSUM_SIZE 2 /* bytes */
#define CODE_SIZE (BEK_SIZE + CHECKSUM_SIZE)
#define LETTERS (2 * CODE_SIZE)
#define TEXT_SIZE (PREFIX_SIZE + LETTERS + (LETTERS + GROUP_SIZE - 1) / GROUP_SIZE)
#define DOMAIN "trustpoint-keystore/1 recovery key checksum"
#define DOMAIN_SIZE (sizeof(DOMAIN) - 1)
#define IGNORED " -\t\r\n"

static const char modhex[] = "cbdefghijklnrtuv";

static tpks_result checksum(const unsigned char *key, unsigned char out[CHECKSUM_SIZE])
{
    SECRET *input = tpks_secret_new(DOMAIN_SIZE + BEK_SIZE);
    unsigned char digest[EVP_MAX_MD_SIZE];

    if (input == NULL)
        return fail_memory();
    memcpy(tpks_secret_data(input), DOMAIN, DOMAIN_SIZE);
    memcpy(tpks_secret_data(input) + DOMAIN_SIZE, key, BEK_SIZE);
    if (!EVP_Q_digest(NULL, "SHA256", NULL, tpks_secret_data(input), tpks_secret_size(input),
                      digest, NULL))
        return fail_crypto(TPKS_INTERNAL, "SHA-256");
    memcpy(out, digest, CHECKSUM_SIZE);
    OPENSSL_cleanse(digest, sizeof(digest));
    return TPKS_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_text(const unsigned char *code, char *out)
{
    memcpy(out, PREFIX, PREFIX_SIZE);
    out += PREFIX_SIZE;
    for (size_t i = 0; i < LETTERS; i++) {
        if (i % GROUP_SIZE == 0)
            *out++ = '-';
        *out++ = modhex[i % 2 == 0 ? code[i / 2] >> 4 : code[i / 2] & 15];
    }
}

tpks_result recovery_key_new(TPKS_SECRET **bek, TPKS_SECRET **text)
{
    CRYPTO_SCOPE;
    SECRET *code = tpks_secret_new(CODE_SIZE);
    SECRET *written = tpks_secret_new(TEXT_SIZE + 1);
    unsigned char *bytes;

    if (code == NULL || written == NULL)
        return fail_memory();
    bytes = tpks_secret_data(code);
    if (RAND_priv_bytes(bytes, BEK_SIZE) != 1)
        return fail_crypto(TPKS_INTERNAL, "random numbers");
    TRY(checksum(bytes, bytes + BEK_SIZE));
    write_text(bytes, (char *)tpks_secret_data(written));
    /* The size leaves the NUL out, the memory keeps it. */
    tpks_secret_shrink(written, TEXT_SIZE);
    tpks_secret_shrink(code, BEK_SIZE);
    *bek = code;
    *text = written;
    code = written = NULL;
    return TPKS_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The same without what is ignored, in lower case; NULL: no memory. */
static TPKS_SECRET *normalize(const TPKS_SECRET *text)
{
    const unsigned char *from = tpks_secret_data_const(text);
    TPKS_SECRET *out = tpks_secret_copy(from, tpks_secret_size(text));
    size_t n = 0;

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < tpks_secret_size(text); i++) {
        if (from[i] == '\0' || strchr(IGNORED, from[i]) == NULL)
            tpks_secret_data(out)[n++] = (unsigned char)text_lower((char)from[i]);
    }
    tpks_secret_shrink(out, n);
    return out;
}

static bool has_prefix(const TPKS_SECRET *normal)
{
    return tpks_secret_size(normal) >= PREFIX_SIZE &&
           memcmp(tpks_secret_data_const(normal), NORMAL_PREFIX, PREFIX_SIZE) == 0;
}

bool recovery_key_looks_like(const TPKS_SECRET *text)
{
    SECRET *normal = normalize(text);

    return normal != NULL && has_prefix(normal);
}

static bool read_letters(const unsigned char *letters, unsigned char *code)
{
    for (size_t i = 0; i < LETTERS; i++) {
        const char *found = letters[i] != '\0' ? strchr(modhex, letters[i]) : NULL;

        if (found == NULL)
            return false;
        code[i / 2] = (unsigned char)(code[i / 2] << 4 | (found - modhex));
    }
    return true;
}

tpks_result recovery_key_parse(const TPKS_SECRET *text, TPKS_SECRET **bek)
{
    CRYPTO_SCOPE;
    SECRET *normal = normalize(text);
    SECRET *code = tpks_secret_new(CODE_SIZE);
    unsigned char expected[CHECKSUM_SIZE];

    if (normal == NULL || code == NULL)
        return fail_memory();
    if (!has_prefix(normal))
        return fail(TPKS_BAD_INPUT, "not a recovery key: it starts with " PREFIX);
    if (tpks_secret_size(normal) != PREFIX_SIZE + LETTERS)
        return fail(TPKS_BAD_INPUT,
                    "not a valid recovery key: after " PREFIX
                    " come %zu letters, not %zu; look for "
                    "one that is missing or too many",
                    (size_t)LETTERS, tpks_secret_size(normal) - PREFIX_SIZE);
    if (!read_letters(tpks_secret_data_const(normal) + PREFIX_SIZE, tpks_secret_data(code)))
        return fail(TPKS_BAD_INPUT, "not a valid recovery key: only the letters %s occur in it",
                    modhex);
    TRY(checksum(tpks_secret_data(code), expected));
    if (CRYPTO_memcmp(expected, tpks_secret_data(code) + BEK_SIZE, CHECKSUM_SIZE) != 0)
        return fail(TPKS_BAD_INPUT, "not a valid recovery key: a letter is mistyped; compare it "
                                    "with what was written down");
    tpks_secret_shrink(code, BEK_SIZE);
    *bek = code;
    code = NULL;
    return TPKS_OK;
}
