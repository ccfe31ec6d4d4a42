/*
 * password.c - keys from passwords: Argon2id (RFC 9106) and HKDF (RFC 5869)
 */
/* Before password.h, whose macro ARGON2_VERSION_13 has the name of a constant in here. */
#include <argon2.h>

#include "password.h"

#include <string.h>
#include <sys/mman.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "error.h"
#include "memory_limit.h"
#include "secret.h"

#define KIB_PER_MIB 1024u
#define DEFAULT_T 4
#define DEFAULT_P 1
#define DEFAULT_M_MAX (256 * KIB_PER_MIB)
#define DEFAULT_M_MIN (64 * KIB_PER_MIB)
#define ACCEPTED_T_MAX 32
#define ACCEPTED_M_MIN (8 * KIB_PER_MIB)
#define ACCEPTED_M_MAX (1024 * KIB_PER_MIB)
#define ACCEPTED_P_MAX 4
#define ACCEPTED_WORK_MAX (UINT64_C(8) * 1024 * KIB_PER_MIB) /* t * m */

#define SALT_MAX 64

#define WRAP_KEY_SIZE 32
#define INFO_WRAP_KEY "trustpoint-keystore/1 wrap key"
#define INFO_COMMITMENT "trustpoint-keystore/1 commitment"

/* ---- cost ------------------------------------------------------------------------------------ */

tpks_result kdf_default_cost(tpks_kdf_cost *out)
{
    uint64_t quarter_kib = memory_limit("") / 1024 / 4;

    if (quarter_kib < DEFAULT_M_MIN)
        return fail(TPKS_UNSUPPORTED,
                    "a password slot needs %u MiB of memory for Argon2id, and a quarter of what "
                    "this machine or its memory limit has is only %llu MiB: use a recovery key, or "
                    "raise the limit",
                    DEFAULT_M_MIN / KIB_PER_MIB, (unsigned long long)(quarter_kib / KIB_PER_MIB));
    out->t = DEFAULT_T;
    out->m_kib = quarter_kib < DEFAULT_M_MAX ? (uint32_t)quarter_kib : DEFAULT_M_MAX;
    out->p = DEFAULT_P;
    return TPKS_OK;
}

static uint64_t work(const tpks_kdf_cost *cost)
{
    return (uint64_t)cost->t * cost->m_kib;
}

bool kdf_is_weak(const tpks_kdf_cost *cost, const tpks_kdf_cost *policy, tpks_kdf_cost *out)
{
    if (cost->m_kib >= policy->m_kib && work(cost) >= work(policy))
        return false;
    *out = *cost;
    if (out->m_kib < policy->m_kib)
        out->m_kib = policy->m_kib;
    if (work(out) < work(policy))
        out->t = (uint32_t)((work(policy) + out->m_kib - 1) / out->m_kib);
    return true;
}

tpks_result kdf_check_cost(uint32_t version, const tpks_kdf_cost *cost)
{
    if (version != ARGON2_VERSION_13)
        return fail(TPKS_TAMPERED,
                    "password slot: Argon2 version 0x%02x, but only 0x13 is ever "
                    "written: restore the database from a backup",
                    (unsigned)version);
    if (cost->t < 1 || cost->t > ACCEPTED_T_MAX || cost->m_kib < ACCEPTED_M_MIN ||
        cost->m_kib > ACCEPTED_M_MAX || cost->p < 1 || cost->p > ACCEPTED_P_MAX ||
        work(cost) > ACCEPTED_WORK_MAX)
        return fail(
            TPKS_TAMPERED,
            "password slot: Argon2id cost t=%u, m=%u KiB, p=%u is out of bounds (t 1 to %u, "
            "m 8 MiB to 1 GiB, p 1 to %u, t times m up to 8 GiB)",
            cost->t, cost->m_kib, cost->p, ACCEPTED_T_MAX, ACCEPTED_P_MAX);
    return TPKS_OK;
}

/* ---- Argon2id -------------------------------------------------------------------------------- */

/* The type is libargon2's. It ignores the return value and looks at *memory. */
static int allocate_matrix(uint8_t **memory, size_t size)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (mapped == MAP_FAILED) {
        *memory = NULL;
        return ARGON2_MEMORY_ALLOCATION_ERROR;
    }
    (void)madvise(mapped, size, MADV_DONTDUMP);
    *memory = mapped;
    return ARGON2_OK;
}

/* libargon2 has wiped it already. */
static void free_matrix(uint8_t *memory, size_t size)
{
    (void)munmap(memory, size);
}

/*
 * One thread does all lanes: the result is the same, and the program that this runs in need not
 * cope with threads that it doesn't know.
 */
static int argon2id(TPKS_SECRET *password, const tpks_kdf_cost *cost, unsigned char *salt,
                    size_t salt_size, TPKS_SECRET *bek)
{
    argon2_context context = {
        .out = tpks_secret_data(bek),
        .outlen = BEK_SIZE,
        .pwd = tpks_secret_data(password),
        .pwdlen = (uint32_t)tpks_secret_size(password),
        .salt = salt,
        .saltlen = (uint32_t)salt_size,
        .t_cost = cost->t,
        .m_cost = cost->m_kib,
        .lanes = cost->p,
        .threads = 1,
        .version = ARGON2_VERSION_13,
        .allocate_cbk = allocate_matrix,
        .free_cbk = free_matrix,
        .flags = ARGON2_FLAG_CLEAR_PASSWORD,
    };

    return argon2_ctx(&context, Argon2_id);
}

tpks_result kdf_password(const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                         const unsigned char salt[KDF_SALT_SIZE], TPKS_SECRET **bek)
{
    return kdf_password_salted(password, cost, salt, KDF_SALT_SIZE, bek);
}

tpks_result kdf_password_salted(const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                                const unsigned char *salt, size_t salt_size, TPKS_SECRET **bek)
{
    SECRET *copy = NULL;
    SECRET *key = NULL;
    unsigned char salt_copy[SALT_MAX];
    int error;

    TRY(kdf_check_cost(ARGON2_VERSION_13, cost));
    if (tpks_secret_size(password) > UINT32_MAX)
        return fail(TPKS_BAD_INPUT, "the password is too long");
    if (salt_size < ARGON2_MIN_SALT_LENGTH || salt_size > SALT_MAX)
        return fail(TPKS_TAMPERED, "the salt of the password has an impossible length");
    /* libargon2 wants to be able to write to its inputs, and wipes the password. */
    copy = tpks_secret_copy(tpks_secret_data_const(password), tpks_secret_size(password));
    key = tpks_secret_new(BEK_SIZE);
    if (copy == NULL || key == NULL)
        return fail_memory();
    memcpy(salt_copy, salt, salt_size);
    error = argon2id(copy, cost, salt_copy, salt_size, key);
    if (error == ARGON2_MEMORY_ALLOCATION_ERROR)
        return fail(TPKS_NO_MEMORY, "out of memory: Argon2id needs %u MiB for this password slot",
                    cost->m_kib / KIB_PER_MIB);
    if (error != ARGON2_OK)
        return fail(TPKS_INTERNAL, "Argon2id: %s", argon2_error_message(error));
    *bek = key;
    key = NULL;
    return TPKS_OK;
}

/* ---- HKDF ------------------------------------------------------------------------------------ */

static void free_kdf(EVP_KDF **kdf)
{
    EVP_KDF_free(*kdf);
}

static void free_kdf_ctx(EVP_KDF_CTX **ctx)
{
    EVP_KDF_CTX_free(*ctx);
}

/* Extract and expand (EVP_KDF-HKDF(7)); `info` separates what the bytes are for. */
static tpks_result hkdf(OSSL_LIB_CTX *libctx, const TPKS_SECRET *bek, const unsigned char *salt,
                        const char *info, unsigned char *out, size_t size)
{
    __attribute__((cleanup(free_kdf))) EVP_KDF *kdf = EVP_KDF_fetch(libctx, "HKDF", NULL);
    __attribute__((cleanup(free_kdf_ctx))) EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA512", 6),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, (void *)tpks_secret_data_const(bek),
                                tpks_secret_size(bek)),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, KDF_SALT_SIZE),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_END,
    };

    if (ctx == NULL || EVP_KDF_derive(ctx, out, size, params) <= 0)
        return fail_crypto(TPKS_INTERNAL, "HKDF-SHA512");
    return TPKS_OK;
}

tpks_result kdf_expand(OSSL_LIB_CTX *libctx, const TPKS_SECRET *bek,
                       const unsigned char salt[KDF_SALT_SIZE], TPKS_SECRET **wrap_key,
                       unsigned char commitment[COMMITMENT_SIZE])
{
    CRYPTO_SCOPE;
    SECRET *key = tpks_secret_new(WRAP_KEY_SIZE);

    if (key == NULL)
        return fail_memory();
    if (tpks_secret_size(bek) != BEK_SIZE)
        return fail(TPKS_INTERNAL, "HKDF-SHA512: the key must have %d bytes", BEK_SIZE);
    TRY(hkdf(libctx, bek, salt, INFO_WRAP_KEY, tpks_secret_data(key), WRAP_KEY_SIZE));
    TRY(hkdf(libctx, bek, salt, INFO_COMMITMENT, commitment, COMMITMENT_SIZE));
    *wrap_key = key;
    key = NULL;
    return TPKS_OK;
}
