/*
 * test_hsm.c - the HSM part against real modules: SoftHSM, and NSS softokn where it is installed
 *
 * Each test runs in a process of its own, with a token folder, a state folder and a PIN file of
 * its own. "Another process" is a child that was forked before the parent touched the module.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define P11_KIT_FUTURE_UNSTABLE_API /* p11_kit_override_system_files(), for NSS's .module file */
#include "hsm_internal.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "unit.h"

#define PIN_TEXT "482915"
#define LABEL "tpks test"

/* ---- the world of one test ------------------------------------------------------------------- */

static char world[160];
static char state[200];
static char pin_path[200];
static char uri[1024];
static const char *softhsm;
static unsigned char cka_id[CKA_ID_SIZE] = "0123456789abcde";
static const unsigned char dek_id[16] = "dek number one.";

static const char *find_module(const char *const *candidates)
{
    for (; *candidates != NULL; candidates++) {
        if (access(*candidates, R_OK) == 0)
            return *candidates;
    }
    return NULL;
}

static void put_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    ck_assert_int_eq(fchmod(fd, mode), 0);
    ck_assert_int_eq(close(fd), 0);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void make_folders(void)
{
    snprintf(world, sizeof(world), "%s/hsm-XXXXXX", scratch());
    ck_assert_ptr_nonnull(mkdtemp(world));
    snprintf(state, sizeof(state), "%s/state", world);
    snprintf(pin_path, sizeof(pin_path), "%s/pin", world);
    ck_assert_int_eq(mkdir(state, 0770), 0);
    put_file(pin_path, PIN_TEXT "\n", 0600);
}

static void set_up(void)
{
    static const char *const candidates[] = {
        "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", NULL};
    char path[256], text[512];

    softhsm = find_module(candidates);
    ck_assert_msg(softhsm != NULL, "SoftHSM is needed for this test: install softhsm2");
    make_folders();
    snprintf(path, sizeof(path), "%s/tokens", world);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(text, sizeof(text), "directories.tokendir = %s\nlog.level = ERROR\n", path);
    snprintf(path, sizeof(path), "%s/softhsm2.conf", world);
    put_file(path, text, 0600);
    ck_assert_int_eq(setenv("SOFTHSM2_CONF", path, 1), 0);
    shell("softhsm2-util --init-token --free --label '%s' --so-pin 99887766 --pin %s >/dev/null",
          LABEL, PIN_TEXT);
    snprintf(uri, sizeof(uri), "pkcs11:token=tpks%%20test?module-path=%s&pin-source=file:%s",
             softhsm, pin_path);
}

static hsm_options options_with(bool keep, bool write)
{
    return (hsm_options){.token_uri = uri,
                         .lock_dir = state,
                         .keep = keep,
                         .write = write,
                         .keystore_label = "test"};
}

static HSM *open_hsm(bool keep, bool write)
{
    hsm_options options = options_with(keep, write);
    HSM *hsm = NULL;

    expect_ok(hsm_open(&options, &hsm));
    ck_assert_ptr_nonnull(hsm);
    return hsm;
}

/* A KEK on the token and a DEK wrapped by it. */
struct sample {
    TPKS_SECRET *dek;
    wrap_algorithm algorithm;
    unsigned char data[WRAPPED_MAX], iv[16];
    size_t size, iv_size;
};

static hsm_wrapped wrapped_of(const struct sample *sample)
{
    return (hsm_wrapped){.cka_id = cka_id,
                         .algorithm = sample->algorithm,
                         .iv = sample->iv,
                         .iv_size = sample->iv_size,
                         .data = sample->data,
                         .size = sample->size};
}

static void new_dek(struct sample *sample)
{
    memset(sample, 0, sizeof(*sample));
    sample->dek = tpks_secret_new(DEK_SIZE);
    ck_assert_ptr_nonnull(sample->dek);
    ck_assert_int_eq(RAND_bytes(tpks_secret_data(sample->dek), DEK_SIZE), 1);
}

static void make_sample(struct sample *sample)
{
    HSM *hsm = open_hsm(false, true);

    new_dek(sample);
    expect_ok(hsm_make_kek(hsm, cka_id, "tpks-kek", sample->dek, &sample->algorithm, sample->data,
                           &sample->size, sample->iv, &sample->iv_size));
    hsm_close(hsm);
}

static tpks_result unwrap_sample(HSM *hsm, const struct sample *sample, HSM_DEK **dek)
{
    hsm_wrapped wrapped = wrapped_of(sample);

    return hsm_unwrap(hsm, &wrapped, dek_id, dek);
}

/* ---- AES-GCM by libcrypto -------------------------------------------------------------------- */

static const unsigned char nonce[GCM_NONCE_SIZE] = "nonce nonce";
static const unsigned char aad[] = "additional data";
static const unsigned char plain[] = "a private key, or what stands for one";

static void host_seal(const TPKS_SECRET *dek, unsigned char *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int size;

    ck_assert_int_eq(
        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, tpks_secret_data_const(dek), nonce), 1);
    ck_assert_int_eq(EVP_EncryptUpdate(ctx, NULL, &size, aad, sizeof(aad)), 1);
    ck_assert_int_eq(EVP_EncryptUpdate(ctx, out, &size, plain, sizeof(plain)), 1);
    ck_assert_int_eq(EVP_EncryptFinal_ex(ctx, out + size, &size), 1);
    ck_assert_int_eq(
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, GCM_TAG_SIZE, out + sizeof(plain)), 1);
    EVP_CIPHER_CTX_free(ctx);
}

#define SEALED_SIZE (sizeof(plain) + GCM_TAG_SIZE)

static tpks_result open_sealed(HSM_DEK *dek, const unsigned char *sealed, unsigned char *out,
                               size_t *size)
{
    return hsm_gcm_open(dek, nonce, aad, sizeof(aad), sealed, SEALED_SIZE, out, size);
}

/* What libcrypto sealed, the token opens; both seal to the same bytes. */
static void check_dek(HSM_DEK *dek, const struct sample *sample)
{
    unsigned char ours[SEALED_SIZE], theirs[SEALED_SIZE], opened[SEALED_SIZE];
    size_t size = 0;

    host_seal(sample->dek, ours);
    expect_ok(open_sealed(dek, ours, opened, &size));
    ck_assert_uint_eq(size, sizeof(plain));
    ck_assert_mem_eq(opened, plain, sizeof(plain));
    expect_ok(hsm_gcm_seal(dek, nonce, aad, sizeof(aad), plain, sizeof(plain), theirs, &size));
    ck_assert_uint_eq(size, SEALED_SIZE);
    ck_assert_mem_eq(ours, theirs, SEALED_SIZE);
}

static void check_load(HSM *hsm, const struct sample *sample)
{
    HSM_DEK *dek = NULL;

    expect_ok(unwrap_sample(hsm, sample, &dek));
    check_dek(dek, sample);
    hsm_dek_free(dek);
}

static void check_unwrap_out(HSM *hsm, const struct sample *sample)
{
    hsm_wrapped wrapped = wrapped_of(sample);
    TPKS_SECRET *dek = NULL;

    expect_ok(hsm_unwrap_out(hsm, &wrapped, &dek));
    ck_assert_uint_eq(tpks_secret_size(dek), DEK_SIZE);
    ck_assert_mem_eq(tpks_secret_data(dek), tpks_secret_data(sample->dek), DEK_SIZE);
    tpks_secret_free(dek);
}

/* ---- other processes ------------------------------------------------------------------------- */

/* A child that does `work` when told to, forked before anything else. */
struct other {
    pid_t pid;
    int go;
};

static struct other fork_other(void (*work)(void))
{
    struct other other;
    int ends[2];
    char byte;

    ck_assert_int_eq(pipe(ends), 0);
    other.pid = fork();
    ck_assert_int_ge(other.pid, 0);
    if (other.pid == 0) {
        close(ends[1]);
        if (read(ends[0], &byte, 1) == 1)
            work();
        exit(0);
    }
    close(ends[0]);
    other.go = ends[1];
    return other;
}

static void expect_exit(pid_t pid, int code)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "child killed by signal %d", WTERMSIG(status));
    ck_assert_int_eq(WEXITSTATUS(status), code);
}

static void run_other(struct other *other)
{
    ck_assert_int_eq(write(other->go, "x", 1), 1);
    close(other->go);
    expect_exit(other->pid, 0);
}

static void destroy_kek_work(void)
{
    HSM *hsm = open_hsm(false, true);

    expect_ok(hsm_destroy_kek(hsm, cka_id));
    hsm_close(hsm);
}

/* ---- the token URI --------------------------------------------------------------------------- */

static const char *const good_uris[] = {
    "pkcs11:token=a?module-path=/m.so&pin-source=file:/p",
    "pkcs11:token=a?module-path=/m.so&pin-source=file:///p",
    "pkcs11:token=a?module-path=/m.so&pin-source=/p",
    "pkcs11:token=a?module-path=m.so&pin-source=callback",
    "pkcs11:token=a%20b;serial=1?module-name=softhsm2&pin-source=callback",
    "pkcs11:slot-id=4?module-name=softhsm2&pin-source=callback",
    "pkcs11:token=a;manufacturer=b;model=c;serial=d?pin-source=callback&module-path=/m.so",
};

static const struct {
    const char *uri, *part;
} bad_uris[] = {
    {NULL, "there is none"},
    {"", "token URI"},
    {"trustpoint:web", "token URI"},
    {"pkcs11:token=a", "module-path"},
    {"pkcs11:?module-path=/m.so&pin-source=callback", "names no token"},
    {"pkcs11:token=a?module-path=/m.so", "pin-source is missing"},
    {"pkcs11:token=a?pin-source=callback", "exactly one"},
    {"pkcs11:token=a?module-path=/m.so&module-name=m&pin-source=callback", "exactly one"},
    {"pkcs11:token=a?module-path=&pin-source=callback", "token URI"},
    {"pkcs11:token=a?module-path=/m.so&pin-value=1234", "pin-value"},
    {"pkcs11:token=a?module-path=/m.so&pin-value=1234&pin-source=callback", "pin-value"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=p", "absolute"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=file:p", "absolute"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=file://host/p", "absolute"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=|cat", "absolute"},
    {"pkcs11:token=a;colour=red?module-path=/m.so&pin-source=callback", "unknown"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=callback&colour=red", "token URI"},
    {"pkcs11:token=a?modul-path=/m.so&module-path=/m.so&pin-source=callback", "token URI"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=callback&x-color=red", "token URI"},
    {"pkcs11:token=a;object=k?module-path=/m.so&pin-source=callback", "not an object"},
    {"pkcs11:token=a;type=private?module-path=/m.so&pin-source=callback", "not an object"},
    {"pkcs11:token=a;type=bogus?module-path=/m.so&pin-source=callback", "token URI"},
    {"pkcs11:token=a;id=%01?module-path=/m.so&pin-source=callback", "not an object"},
    {"pkcs11:token=a;object=k&pin-source=/p", "token URI"},
    {"pkcs11:token=a;token=b?module-path=/m.so&pin-source=callback", "repeated"},
    {"pkcs11:token=a?module-path=/m.so&module-path=/n.so&pin-source=callback", "repeated"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=/p&pin-source=/q", "repeated"},
    {"pkcs11:token=a b?module-path=/m.so&pin-source=callback", "white space"},
    {"pkcs11:token=a?module-path=/m.so&pin-source=/p\n", "white space"},
    {"pkcs11:token=aaaaaaaaaabbbbbbbbbbccccccccccddd?module-path=/m.so&pin-source=callback",
     "can't"},
    {"pkcs11:slot-id=99999999999999999999?module-path=/m.so&pin-source=callback", "slot-id"},
    {"pkcs11:slot-id=x?module-path=/m.so&pin-source=callback", "token URI"},
    {"pkcs11:token=%zz?module-path=/m.so&pin-source=callback", "token URI"},
};

START_TEST(uri_good)
{
    expect_ok(hsm_check_uri(good_uris[_i]));
    ck_assert_int_eq(hsm_pin_is_asked(good_uris[_i]), strstr(good_uris[_i], "callback") != NULL);
}
END_TEST

START_TEST(uri_bad)
{
    HSM *hsm = NULL;
    hsm_options options = {.token_uri = bad_uris[_i].uri};

    ck_assert_msg(hsm_check_uri(bad_uris[_i].uri) == TPKS_BAD_CONFIG, "accepted: %s",
                  bad_uris[_i].uri);
    expect_text(bad_uris[_i].part);
    ck_assert_ptr_null(strstr(tpks_error_text(), "1234"));
    ck_assert(!hsm_pin_is_asked(bad_uris[_i].uri));
    expect(TPKS_BAD_CONFIG, hsm_open(&options, &hsm));
}
END_TEST

START_TEST(algorithm_names)
{
    ck_assert_str_eq(wrap_algorithm_name(WRAP_AES_KW), "aes-kw");
    ck_assert_str_eq(wrap_algorithm_name(WRAP_RSA_OAEP_SHA1), "rsa-oaep-sha1");
    ck_assert_str_eq(wrap_algorithm_name(WRAP_FILE), "file");
    ck_assert_str_eq(wrap_algorithm_name((wrap_algorithm)99), "unknown");
}
END_TEST

/* ---- KEK and DEK ----------------------------------------------------------------------------- */

START_TEST(make_find_load)
{
    struct sample sample;

    make_sample(&sample);
    ck_assert_int_eq(sample.algorithm, WRAP_AES_KW);
    for (int keep = 0; keep < 2; keep++) {
        HSM *hsm = open_hsm(keep, false);
        ck_assert_str_eq(hsm_token_label(hsm), LABEL);
        ck_assert_uint_eq(strlen(hsm_token_serial(hsm)), 16);
        ck_assert_ptr_nonnull(strstr(hsm_module_name(hsm), "softhsm"));
        expect_ok(hsm_find_kek(hsm, cka_id));
        check_load(hsm, &sample);
        check_load(hsm, &sample);
        check_unwrap_out(hsm, &sample);
        hsm_close(hsm);
    }
    tpks_secret_free(sample.dek);
}
END_TEST

/* How each algorithm fares with this module: inside, outside only, or not at all. */
static void check_algorithm(wrap_algorithm algorithm, bool required)
{
    struct sample sample;
    HSM_DEK *dek = NULL;
    HSM *hsm = open_hsm(false, true);

    new_dek(&sample);
    tpks_result result =
        make_kek_from(hsm, &algorithm, 1, cka_id, "tpks-kek", sample.dek, &sample.algorithm,
                      sample.data, &sample.size, sample.iv, &sample.iv_size);
    if (result != TPKS_OK) {
        ck_assert_msg(!required, "%s: %s", wrap_algorithm_name(algorithm), tpks_error_text());
        expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id));
    } else {
        ck_assert_int_eq(sample.algorithm, algorithm);
        expect_ok(hsm_find_kek(hsm, cka_id));
        check_unwrap_out(hsm, &sample);
        result = unwrap_sample(hsm, &sample, &dek);
        if (result == TPKS_OK)
            check_dek(dek, &sample);
        else
            expect(TPKS_UNSUPPORTED, result);
        hsm_dek_free(dek);
        expect_ok(hsm_destroy_kek(hsm, cka_id));
        expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id));
    }
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}

START_TEST(every_algorithm)
{
    check_algorithm(WRAP_AES_KW, true);
    check_algorithm(WRAP_AES_KWP, false);
    check_algorithm(WRAP_RSA_OAEP_SHA256, false);
    check_algorithm(WRAP_RSA_OAEP_SHA1, true);
    check_algorithm(WRAP_AES_CBC_PAD, false);
    check_algorithm(WRAP_AES_GCM, true);
}
END_TEST

/* The first algorithm by which the DEK can stay inside wins, and what was tried before is gone. */
START_TEST(order_prefers_inside)
{
    static const wrap_algorithm order[] = {WRAP_AES_GCM, WRAP_RSA_OAEP_SHA1};
    struct sample sample;
    HSM *hsm = open_hsm(false, true);

    new_dek(&sample);
    expect_ok(make_kek_from(hsm, order, 2, cka_id, "k", sample.dek, &sample.algorithm, sample.data,
                            &sample.size, sample.iv, &sample.iv_size));
    ck_assert_int_eq(sample.algorithm, WRAP_RSA_OAEP_SHA1);
    expect_ok(hsm_find_kek(hsm, cka_id));
    check_load(hsm, &sample);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(make_needs_write_and_a_free_id)
{
    struct sample sample;
    HSM *hsm;

    make_sample(&sample);
    for (int write = 0; write < 2; write++) {
        hsm = open_hsm(false, write);
        expect(write ? TPKS_EXISTS : TPKS_NOT_PERMITTED,
               hsm_make_kek(hsm, cka_id, "k", sample.dek, &sample.algorithm, sample.data,
                            &sample.size, sample.iv, &sample.iv_size));
        if (!write)
            expect(TPKS_NOT_PERMITTED, hsm_destroy_kek(hsm, cka_id));
        hsm_close(hsm);
    }
    hsm = open_hsm(false, false);
    expect_ok(hsm_find_kek(hsm, cka_id));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(dek_is_not_readable)
{
    struct sample sample;
    HSM_DEK *dek = NULL;
    HSM *hsm;
    unsigned char value[64];
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_TOKEN, &no, sizeof(no)}};
    CK_ATTRIBUTE wanted = {CKA_VALUE, value, sizeof(value)};
    CK_OBJECT_HANDLE found[4];
    CK_ULONG count = 0;

    make_sample(&sample);
    hsm = open_hsm(false, false);
    expect_ok(unwrap_sample(hsm, &sample, &dek));
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;
    CK_SESSION_HANDLE session = hsm->connection->session;
    ck_assert_uint_eq(functions->C_FindObjectsInit(session, template, 2), CKR_OK);
    ck_assert_uint_eq(functions->C_FindObjects(session, found, 4, &count), CKR_OK);
    ck_assert_uint_eq(functions->C_FindObjectsFinal(session), CKR_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(functions->C_GetAttributeValue(session, found[0], &wanted, 1),
                      CKR_ATTRIBUTE_SENSITIVE);
    hsm_dek_free(dek);
    ck_assert_uint_ne(functions->C_GetAttributeValue(session, found[0], &wanted, 1), CKR_OK);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(tampered_data_is_refused_and_wiped)
{
    static const unsigned char zeros[SEALED_SIZE];
    unsigned char sealed[SEALED_SIZE], opened[SEALED_SIZE];
    struct sample sample;
    HSM_DEK *dek = NULL;
    size_t size = 0;

    make_sample(&sample);
    for (int keep = 0; keep < 2; keep++) {
        HSM *hsm = open_hsm(keep, false);
        expect_ok(unwrap_sample(hsm, &sample, &dek));
        for (size_t i = 0; i < SEALED_SIZE; i += 13) {
            host_seal(sample.dek, sealed);
            sealed[i] ^= 1;
            memset(opened, 0xAA, sizeof(opened));
            errno = 4711;
            expect(TPKS_TAMPERED, open_sealed(dek, sealed, opened, &size));
            ck_assert_mem_eq(opened, zeros, SEALED_SIZE);
            ck_assert_int_eq(errno, 4711);
            ck_assert_uint_eq(ERR_peek_error(), 0);
        }
        host_seal(sample.dek, sealed);
        expect(TPKS_TAMPERED, hsm_gcm_open(dek, nonce, aad, 3, sealed, SEALED_SIZE, opened, &size));
        expect(TPKS_TAMPERED, hsm_gcm_open(dek, nonce, aad, 3, sealed, 15, opened, &size));
        check_dek(dek, &sample);
        hsm_dek_free(dek);
        hsm_close(hsm);
    }
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(large_and_empty_data)
{
    struct sample sample;
    HSM_DEK *dek = NULL;
    static unsigned char big[20000], sealed[20016], opened[20016];
    size_t size = 0;

    make_sample(&sample);
    HSM *hsm = open_hsm(false, false);
    expect_ok(unwrap_sample(hsm, &sample, &dek));
    ck_assert_int_eq(RAND_bytes(big, sizeof(big)), 1);
    expect_ok(hsm_gcm_seal(dek, nonce, NULL, 0, big, sizeof(big), sealed, &size));
    ck_assert_uint_eq(size, sizeof(sealed));
    expect_ok(hsm_gcm_open(dek, nonce, NULL, 0, sealed, size, opened, &size));
    ck_assert_uint_eq(size, sizeof(big));
    ck_assert_mem_eq(opened, big, sizeof(big));
    hsm_dek_free(dek);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* ---- loss of the KEK ------------------------------------------------------------------------- */

START_TEST(kek_destroyed_by_another_process)
{
    struct sample sample;
    HSM_DEK *kept = NULL, *dek = NULL;
    struct other other = fork_other(destroy_kek_work);
    unsigned char another_id[16] = "another dek";

    make_sample(&sample);
    HSM *keeper = open_hsm(true, false);
    HSM *hsm = open_hsm(false, false);
    hsm_wrapped wrapped = wrapped_of(&sample);
    expect_ok(unwrap_sample(keeper, &sample, &kept));
    run_other(&other);
    expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id));
    expect(TPKS_KEK_MISSING, unwrap_sample(hsm, &sample, &dek));
    expect(TPKS_KEK_MISSING, hsm_find_kek(keeper, cka_id));
    expect(TPKS_KEK_MISSING, hsm_unwrap(keeper, &wrapped, another_id, &dek));
    check_dek(kept, &sample); /* it is inside already, and stays */
    hsm_dek_free(kept);
    hsm_close(hsm);
    hsm_close(keeper);
    hsm = open_hsm(false, false);
    expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(foreign_kek)
{
    struct sample sample, second;
    HSM_DEK *dek = NULL;
    TPKS_SECRET *out = NULL;

    make_sample(&sample);
    HSM *hsm = open_hsm(false, true);
    expect_ok(hsm_destroy_kek(hsm, cka_id));
    hsm_close(hsm);
    make_sample(&second);
    hsm = open_hsm(false, false);
    hsm_wrapped wrapped = wrapped_of(&sample);
    expect_ok(hsm_find_kek(hsm, cka_id));
    expect(TPKS_KEK_FOREIGN, unwrap_sample(hsm, &sample, &dek));
    expect(TPKS_KEK_FOREIGN, hsm_unwrap_out(hsm, &wrapped, &out));
    check_load(hsm, &second);
    second.data[7] ^= 1;
    expect(TPKS_KEK_FOREIGN, unwrap_sample(hsm, &second, &dek));
    second.size = 39;
    expect(TPKS_KEK_FOREIGN, unwrap_sample(hsm, &second, &dek));
    second.algorithm = WRAP_PASSWORD_GCM;
    expect(TPKS_KEK_FOREIGN, unwrap_sample(hsm, &second, &dek));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
    tpks_secret_free(second.dek);
}
END_TEST

/* ---- what a token says when it has no room --------------------------------------------------- */

static CK_RV said;

static CK_RV say_to_unwrap(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE kek,
                           unsigned char *wrapped, CK_ULONG size, CK_ATTRIBUTE *template,
                           CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    (void)session, (void)mechanism, (void)kek, (void)wrapped, (void)size;
    (void)template, (void)count, (void)key;
    return said;
}

static CK_RV say_to_encrypt(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                            CK_OBJECT_HANDLE key)
{
    (void)session, (void)mechanism, (void)key;
    return said;
}

static const struct {
    CK_RV rv;
    tpks_result unwrap, encrypt; /* when C_UnwrapKey, C_EncryptInit says it */
} sayings[] = {
    {CKR_WRAPPED_KEY_INVALID, TPKS_KEK_FOREIGN, TPKS_UNSUPPORTED},
    {CKR_ENCRYPTED_DATA_INVALID, TPKS_KEK_FOREIGN, TPKS_UNSUPPORTED},
    {CKR_GENERAL_ERROR, TPKS_KEK_FOREIGN, TPKS_UNSUPPORTED},
    {CKR_MECHANISM_INVALID, TPKS_UNSUPPORTED, TPKS_UNSUPPORTED},
    {CKR_DEVICE_MEMORY, TPKS_HSM_UNAVAILABLE, TPKS_HSM_UNAVAILABLE},
    {CKR_SESSION_COUNT, TPKS_HSM_UNAVAILABLE, TPKS_HSM_UNAVAILABLE},
    {CKR_OPERATION_ACTIVE, TPKS_HSM_UNAVAILABLE, TPKS_HSM_UNAVAILABLE},
    {CKR_VENDOR_DEFINED | 0x101, TPKS_HSM_UNAVAILABLE, TPKS_HSM_UNAVAILABLE},
    {CKR_HOST_MEMORY, TPKS_NO_MEMORY, TPKS_NO_MEMORY},
};

/* Neither is the KEK called foreign, nor the DEK taken out of the token, for want of room. */
START_TEST(codes_are_not_misread)
{
    struct sample sample;
    HSM_DEK *dek = NULL;

    make_sample(&sample);
    HSM *hsm = open_hsm(false, false);
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;
    CK_FUNCTION_LIST real = *functions;
    said = sayings[_i].rv;
    functions->C_UnwrapKey = say_to_unwrap;
    expect(sayings[_i].unwrap, unwrap_sample(hsm, &sample, &dek));
    functions->C_UnwrapKey = real.C_UnwrapKey;
    functions->C_EncryptInit = say_to_encrypt;
    expect(sayings[_i].encrypt, unwrap_sample(hsm, &sample, &dek));
    functions->C_EncryptInit = real.C_EncryptInit;
    check_load(hsm, &sample);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

static void make_second_key(void)
{
    HSM *hsm = open_hsm(false, true);
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG size = 32;
    CK_OBJECT_HANDLE object;
    CK_ATTRIBUTE template[] = {{CKA_TOKEN, &yes, sizeof(yes)},
                               {CKA_VALUE_LEN, &size, sizeof(size)},
                               {CKA_ID, cka_id, CKA_ID_SIZE}};

    ck_assert_uint_eq(hsm->connection->module->functions->C_GenerateKey(
                          hsm->connection->session, &mechanism, template, 3, &object),
                      CKR_OK);
    hsm_close(hsm);
}

START_TEST(two_keys_with_one_id)
{
    struct sample sample;
    HSM_DEK *dek = NULL;

    make_sample(&sample);
    make_second_key();
    HSM *hsm = open_hsm(false, true);
    expect(TPKS_KEK_FOREIGN, hsm_find_kek(hsm, cka_id));
    expect(TPKS_KEK_FOREIGN, unwrap_sample(hsm, &sample, &dek));
    expect_ok(hsm_destroy_kek(hsm, cka_id));
    expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* Trustpoint's KEKs have no id. */
START_TEST(a_kek_by_its_label)
{
    struct sample sample;
    HSM_DEK *dek = NULL;
    TPKS_SECRET *copy = NULL;

    make_sample(&sample);
    hsm_wrapped wrapped = wrapped_of(&sample);
    wrapped.cka_id = NULL;
    wrapped.label = "tpks-kek";
    HSM *hsm = open_hsm(false, true);
    expect_ok(hsm_find_kek_by_label(hsm, "tpks-kek"));
    expect_ok(hsm_unwrap(hsm, &wrapped, dek_id, &dek));
    check_dek(dek, &sample);
    hsm_dek_free(dek);
    expect_ok(hsm_unwrap_out(hsm, &wrapped, &copy));
    ck_assert_mem_eq(tpks_secret_data(copy), tpks_secret_data(sample.dek), DEK_SIZE);
    tpks_secret_free(copy);
    wrapped.label = "tpks-kek ";
    expect(TPKS_KEK_MISSING, hsm_unwrap(hsm, &wrapped, dek_id, &dek));
    expect_text("tpks-kek ");
    expect(TPKS_KEK_MISSING, hsm_find_kek_by_label(hsm, "tpks-ke"));
    expect_ok(hsm_destroy_kek(hsm, cka_id));
    wrapped.label = "tpks-kek";
    expect(TPKS_KEK_MISSING, hsm_unwrap(hsm, &wrapped, dek_id, &dek));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(two_keks_with_one_label)
{
    unsigned char other[CKA_ID_SIZE] = "another id 1234";
    struct sample sample, second;
    HSM_DEK *dek = NULL;

    make_sample(&sample);
    new_dek(&second);
    HSM *hsm = open_hsm(false, true);
    expect_ok(hsm_make_kek(hsm, other, "tpks-kek", second.dek, &second.algorithm, second.data,
                           &second.size, second.iv, &second.iv_size));
    hsm_wrapped wrapped = wrapped_of(&sample);
    wrapped.cka_id = NULL;
    wrapped.label = "tpks-kek";
    expect(TPKS_KEK_FOREIGN, hsm_unwrap(hsm, &wrapped, dek_id, &dek));
    expect_text("several AES keys labelled \"tpks-kek\"");
    expect_ok(hsm_destroy_kek(hsm, cka_id));
    /* The one that is left is the wrong one. */
    expect(TPKS_KEK_FOREIGN, hsm_unwrap(hsm, &wrapped, dek_id, &dek));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
    tpks_secret_free(second.dek);
}
END_TEST

/* The token goes while the process runs: that is no lost KEK. */
START_TEST(token_removed_while_running)
{
    struct sample sample;

    make_sample(&sample);
    HSM *hsm = open_hsm(false, false);
    shell("rm -rf '%s/tokens' && mkdir '%s/tokens'", world, world);
    expect(TPKS_TOKEN_MISSING, hsm_find_kek(hsm, cka_id));
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* ---- PIN ------------------------------------------------------------------------------------- */

static unsigned count_refused(void)
{
    DIR *folder = opendir(state);
    struct dirent *entry;
    unsigned count = 0;

    ck_assert_ptr_nonnull(folder);
    while ((entry = readdir(folder)) != NULL)
        count += strstr(entry->d_name, ".refused") != NULL;
    closedir(folder);
    return count;
}

static tpks_result try_open(void)
{
    hsm_options options = options_with(false, false);
    HSM *hsm = NULL;
    tpks_result result = hsm_open(&options, &hsm);

    hsm_close(hsm);
    return result;
}

static void expect_pin_locked(void)
{
    expect(TPKS_PIN_LOCKED, try_open());
    expect_text("touch it");
    expect_text(pin_path);
}

START_TEST(refused_pin_is_tried_once)
{
    struct other other = fork_other(expect_pin_locked);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1700000000}};

    put_file(pin_path, "000000\n", 0600);
    ck_assert_uint_eq(count_refused(), 0);
    expect(TPKS_WRONG_SECRET, try_open());
    ck_assert_ptr_null(strstr(tpks_error_text(), "000000"));
    ck_assert_uint_eq(count_refused(), 1);
    expect_pin_locked();
    run_other(&other);
    ck_assert_int_eq(utimensat(AT_FDCWD, pin_path, times, 0), 0);
    expect(TPKS_WRONG_SECRET, try_open());
    expect_pin_locked();
    put_file(pin_path, PIN_TEXT, 0600);
    expect_ok(try_open());
    ck_assert_uint_eq(count_refused(), 0);
}
END_TEST

/* Without a state folder the process itself remembers. */
START_TEST(refused_pin_without_state_folder)
{
    put_file(pin_path, "000000\n", 0600);
    shell("rmdir '%s'", state);
    expect(TPKS_WRONG_SECRET, try_open());
    expect_pin_locked();
    put_file(pin_path, PIN_TEXT, 0600);
    expect_ok(try_open());
}
END_TEST

START_TEST(pin_file_of_others)
{
    put_file(pin_path, PIN_TEXT, 0644);
    expect(TPKS_NOT_PERMITTED, try_open());
    ck_assert_int_eq(unlink(pin_path), 0);
    ck_assert_int_ne(try_open(), TPKS_OK);
    expect_text("PIN");
}
END_TEST

struct asked {
    const char *answer;
    unsigned calls;
};

static int answer(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                  size_t *length)
{
    struct asked *asked = arg;

    asked->calls++;
    ck_assert_int_eq(purpose, TPKS_ASK_PIN);
    ck_assert_ptr_nonnull(strstr(info, "test"));
    if (asked->answer == NULL)
        return 0;
    *length = strlen(asked->answer);
    ck_assert_uint_le(*length, size);
    memcpy(buffer, asked->answer, *length);
    return 1;
}

static tpks_result open_asking(struct asked *asked, bool nobody)
{
    hsm_options options = options_with(false, false);
    HSM *hsm = NULL;

    options.ask = nobody ? NULL : answer;
    options.ask_arg = asked;
    tpks_result result = hsm_open(&options, &hsm);
    hsm_close(hsm);
    return result;
}

START_TEST(pin_from_callback)
{
    struct asked asked = {PIN_TEXT, 0};

    snprintf(uri, sizeof(uri), "pkcs11:token=tpks%%20test?module-path=%s&pin-source=callback",
             softhsm);
    expect_ok(open_asking(&asked, false));
    ck_assert_uint_eq(asked.calls, 1);
    asked.answer = "000000";
    expect(TPKS_WRONG_SECRET, open_asking(&asked, false));
    ck_assert_uint_eq(asked.calls, 2);
    asked.answer = NULL;
    expect(TPKS_WRONG_SECRET, open_asking(&asked, false));
    ck_assert_uint_eq(asked.calls, 3);
    expect(TPKS_WRONG_SECRET, open_asking(&asked, true));
    ck_assert_uint_eq(count_refused(), 0);
}
END_TEST

/* ---- what is not there ----------------------------------------------------------------------- */

START_TEST(missing_module)
{
    snprintf(uri, sizeof(uri), "pkcs11:token=a?module-path=%s/none.so&pin-source=file:%s", world,
             pin_path);
    expect(TPKS_HSM_UNAVAILABLE, try_open());
    expect_text("none.so");
    snprintf(uri, sizeof(uri), "pkcs11:token=a?module-name=tpks-none&pin-source=file:%s", pin_path);
    expect(TPKS_HSM_UNAVAILABLE, try_open());
    expect_text("tpks-none");
}
END_TEST

START_TEST(missing_token)
{
    snprintf(uri, sizeof(uri), "pkcs11:token=other?module-path=%s&pin-source=file:%s", softhsm,
             pin_path);
    expect(TPKS_TOKEN_MISSING, try_open());
    expect_text("softhsm");
}
END_TEST

START_TEST(ambiguous_token)
{
    shell("softhsm2-util --init-token --free --label '%s' --so-pin 99887766 --pin %s >/dev/null",
          LABEL, PIN_TEXT);
    expect(TPKS_BAD_CONFIG, try_open());
    expect_text("serial=");
}
END_TEST

static CK_RV slot_answer;

static CK_RV answer_for_slot(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    (void)slot, (void)info;
    return slot_answer;
}

/* A reader that does not answer for its token is no lost token; an empty one is. */
START_TEST(slot_does_not_answer)
{
    HSM *hsm = open_hsm(false, false);
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;

    hsm_close(hsm);
    functions->C_GetTokenInfo = answer_for_slot;
    slot_answer = CKR_DEVICE_ERROR;
    expect(TPKS_HSM_UNAVAILABLE, try_open());
    expect_text("0x30");
    slot_answer = CKR_TOKEN_NOT_PRESENT;
    expect(TPKS_TOKEN_MISSING, try_open());
    slot_answer = CKR_TOKEN_NOT_RECOGNIZED;
    expect(TPKS_TOKEN_MISSING, try_open());
}
END_TEST

/* A damaged configuration of the module is no lost token. */
START_TEST(module_does_not_start)
{
    shell("rm -rf '%s/tokens' && touch '%s/tokens'", world, world);
    expect(TPKS_HSM_UNAVAILABLE, try_open());
}
END_TEST

/* ---- a new token ----------------------------------------------------------------------------- */

#define SO_PIN "99887766"

static void name_token(const char *selects)
{
    snprintf(uri, sizeof(uri), "pkcs11:%s?module-path=%s&pin-source=file:%s", selects, softhsm,
             pin_path);
}

static tpks_result init_with(const char *so_pin)
{
    hsm_options options = options_with(false, false);
    TPKS_SECRET *secret = secret_of(so_pin);
    tpks_result result = hsm_init_token(&options, secret);

    tpks_secret_free(secret);
    return result;
}

static int count_tokens(void)
{
    char path[256];
    struct dirent *entry;
    int count = 0;

    snprintf(path, sizeof(path), "%s/tokens", world);
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while ((entry = readdir(folder)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static void check_opens(void)
{
    hsm_close(open_hsm(false, true));
}

/* The module of `uri`, loaded and initialised, so that a test can stand between. */
static CK_FUNCTION_LIST *loaded_module(void)
{
    struct token_uri parsed;
    struct hsm_module *module = NULL;

    expect_ok(token_uri_parse(uri, &parsed));
    expect_ok(module_get(hsm_process(), &parsed, &module));
    token_uri_clear(&parsed);
    {
        HOLD(&module->mutex);
        ck_assert_uint_eq(module_initialise(module), CKR_OK);
    }
    return module->functions;
}

static CK_SLOT_ID blank_slot(CK_FUNCTION_LIST *functions)
{
    CK_SLOT_ID slots[8];
    CK_ULONG count = 8;
    CK_TOKEN_INFO info;

    ck_assert_uint_eq(functions->C_GetSlotList(CK_TRUE, slots, &count), CKR_OK);
    for (CK_ULONG i = 0; i < count; i++) {
        ck_assert_uint_eq(functions->C_GetTokenInfo(slots[i], &info), CKR_OK);
        if ((info.flags & CKF_TOKEN_INITIALIZED) == 0)
            return slots[i];
    }
    ck_abort_msg("no blank token");
}

START_TEST(a_blank_token_is_initialised_once)
{
    name_token("token=brand%20new");
    expect_ok(init_with(SO_PIN));
    check_opens();
    expect(TPKS_EXISTS, init_with(SO_PIN));
    ck_assert_int_eq(count_tokens(), 2);
}
END_TEST

/* Its token file is as a process leaves it that was killed in C_Login. */
START_TEST(a_token_that_is_destroyed_is_made_anew)
{
    shell("truncate -s 0 %s/tokens/*/token.object", world);
    expect(TPKS_TOKEN_MISSING, try_open());
    expect_ok(init_with(SO_PIN));
    check_opens();
}
END_TEST

static CK_C_GetTokenInfo real_info;
static int looks_left; /* that fail */
static CK_RV look_fails;

static CK_RV fail_to_look(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    return looks_left-- > 0 ? look_fails : real_info(slot, info);
}

/* What SoftHSM shows while another process writes the token file; the rest it leaves as it was. */
static CK_RV look_at_nothing(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    if (looks_left-- <= 0)
        return real_info(slot, info);
    memset(info->label, ' ', sizeof(info->label));
    memset(info->serialNumber, ' ', sizeof(info->serialNumber));
    return CKR_OK;
}

static CK_RV look_at_blank(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = real_info(slot, info);

    if (looks_left-- > 0)
        info->flags &= ~(CK_FLAGS)CKF_TOKEN_INITIALIZED;
    return rv;
}

static void expect_init(tpks_result expected, CK_C_GetTokenInfo look, int looks, CK_RV rv)
{
    CK_FUNCTION_LIST *functions = loaded_module();

    real_info = functions->C_GetTokenInfo;
    functions->C_GetTokenInfo = look;
    looks_left = looks;
    look_fails = rv;
    expect(expected, init_with(SO_PIN));
    functions->C_GetTokenInfo = real_info;
    ck_assert_int_eq(count_tokens(), 1);
    check_opens();
}

START_TEST(a_token_that_hides_for_a_moment_is_there)
{
    expect_init(TPKS_EXISTS, fail_to_look, 3, CKR_GENERAL_ERROR);
    expect_init(TPKS_EXISTS, look_at_nothing, 3, CKR_OK);
    expect_init(TPKS_EXISTS, look_at_blank, 3, CKR_OK);
}
END_TEST

START_TEST(no_token_is_made_beside_one_that_can_not_be_seen)
{
    static const CK_RV codes[] = {CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_TOKEN_NOT_PRESENT};

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        expect_init(TPKS_HSM_UNAVAILABLE, fail_to_look, 1000, codes[i]);
        expect_text("CKR");
    }
    expect_init(TPKS_HSM_UNAVAILABLE, look_at_nothing, 1000, CKR_OK);
    name_token("token=brand%20new"); /* one look of many is enough */
    CK_FUNCTION_LIST *functions = loaded_module();
    real_info = functions->C_GetTokenInfo;
    functions->C_GetTokenInfo = fail_to_look;
    looks_left = 1;
    look_fails = CKR_GENERAL_ERROR;
    expect(TPKS_HSM_UNAVAILABLE, init_with(SO_PIN));
    expect_ok(init_with(SO_PIN));
    check_opens();
}
END_TEST

/* A session keeps the module as it was initialised, with what it did not see then. */
START_TEST(no_token_is_made_beside_a_session)
{
    HSM *hsm = open_hsm(false, false);

    name_token("token=brand%20new");
    expect(TPKS_HSM_UNAVAILABLE, init_with(SO_PIN));
    hsm_close(hsm);
    expect_ok(init_with(SO_PIN));
}
END_TEST

START_TEST(a_serial_number_can_not_be_chosen)
{
    name_token("token=brand%20new;serial=0123456789abcdef");
    expect(TPKS_BAD_CONFIG, init_with(SO_PIN));
    expect_text("serial=");
    ck_assert_int_eq(count_tokens(), 1);
}
END_TEST

/* Made because the serial number or the slot is another, it would be one more with each try. */
START_TEST(no_second_token_gets_a_label)
{
    name_token("token=tpks%20test;serial=0123456789abcdef");
    expect(TPKS_BAD_CONFIG, init_with(SO_PIN));
    expect_text("tpks test");
    name_token("token=tpks%20test;slot-id=77");
    expect(TPKS_BAD_CONFIG, init_with(SO_PIN));
    name_token("token=tpks%20test;model=Another");
    expect(TPKS_BAD_CONFIG, init_with(SO_PIN));
    ck_assert_int_eq(count_tokens(), 1);
}
END_TEST

START_TEST(only_the_place_that_is_named_is_taken)
{
    char selects[80];

    name_token("token=brand%20new;slot-id=77");
    expect(TPKS_TOKEN_MISSING, init_with(SO_PIN));
    name_token("token=brand%20new;model=Another");
    expect(TPKS_TOKEN_MISSING, init_with(SO_PIN));
    name_token("token=brand%20new;library-manufacturer=Another");
    expect(TPKS_TOKEN_MISSING, init_with(SO_PIN));
    ck_assert_int_eq(count_tokens(), 1);
    snprintf(selects, sizeof(selects), "token=brand%%20new;slot-id=%lu",
             (unsigned long)blank_slot(loaded_module()));
    name_token(selects);
    expect_ok(init_with(SO_PIN));
    ck_assert_int_eq(count_tokens(), 2);
}
END_TEST

START_TEST(a_pin_that_does_not_fit_is_refused_first)
{
    char pin[PIN_MAX + 2];

    name_token("token=brand%20new");
    put_file(pin_path, "123\n", 0600);
    expect(TPKS_WRONG_SECRET, init_with(SO_PIN));
    memset(pin, '1', sizeof(pin));
    snprintf(pin + PIN_MAX, 2, "\n");
    put_file(pin_path, pin, 0600);
    expect(TPKS_WRONG_SECRET, init_with(SO_PIN));
    put_file(pin_path, PIN_TEXT "\n", 0600);
    expect(TPKS_WRONG_SECRET, init_with("123"));
    ck_assert_int_eq(count_tokens(), 1);
    expect_ok(init_with(SO_PIN));
    check_opens();
}
END_TEST

/* A program was killed between C_InitToken and C_InitPIN. */
START_TEST(half_a_token_is_finished)
{
    CK_FUNCTION_LIST *functions = loaded_module();
    CK_UTF8CHAR label[33] = "brand new                       ";

    ck_assert_uint_eq(
        functions->C_InitToken(blank_slot(functions), (CK_UTF8CHAR *)SO_PIN, strlen(SO_PIN), label),
        CKR_OK);
    name_token("token=brand%20new");
    expect(TPKS_WRONG_SECRET, init_with("66778899"));
    put_file(pin_path, "123\n", 0600);
    expect(TPKS_WRONG_SECRET, init_with(SO_PIN));
    put_file(pin_path, PIN_TEXT "\n", 0600);
    expect_ok(init_with(SO_PIN));
    check_opens();
    expect(TPKS_EXISTS, init_with(SO_PIN));
    ck_assert_int_eq(count_tokens(), 2);
}
END_TEST

/* ---- the lock -------------------------------------------------------------------------------- */

static void lock_file(char path[300])
{
    DIR *folder = opendir(state);
    struct dirent *entry;

    ck_assert_ptr_nonnull(folder);
    path[0] = '\0';
    while ((entry = readdir(folder)) != NULL) {
        if (strncmp(entry->d_name, "hsm-", 4) == 0)
            snprintf(path, 300, "%s/%.60s", state, entry->d_name);
    }
    closedir(folder);
    ck_assert_msg(path[0] != '\0', "no lock file");
}

START_TEST(lock_is_taken_and_not_followed)
{
    char path[300], target[300];
    struct stat status;

    umask(077);
    expect_ok(try_open());
    lock_file(path);
    ck_assert_int_eq(lstat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode, S_IFREG | 0660);
    snprintf(target, sizeof(target), "%s/target", world);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink(target, path), 0);
    expect_ok(try_open());
    ck_assert_int_ne(access(target, F_OK), 0);
}
END_TEST

/* ---- signals --------------------------------------------------------------------------------- */

START_TEST(signal_mask_is_kept)
{
    sigset_t before, after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    expect_ok(try_open());
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int i = 1; i < SIGRTMAX; i++)
        ck_assert_int_eq(sigismember(&before, i), sigismember(&after, i));
}
END_TEST

/* ---- sessions that go away ------------------------------------------------------------------- */

static CK_FUNCTION_LIST *raw_module(void)
{
    CK_FUNCTION_LIST *functions = NULL;
    void *module = dlopen(softhsm, RTLD_NOW | RTLD_LOCAL);
    CK_RV (*get)(CK_FUNCTION_LIST **);

    ck_assert_ptr_nonnull(module);
    *(void **)&get = dlsym(module, "C_GetFunctionList");
    ck_assert_ptr_nonnull(get);
    ck_assert_uint_eq(get(&functions), CKR_OK);
    return functions;
}

static void close_all_sessions(CK_FUNCTION_LIST *raw, const HSM *hsm)
{
    ck_assert_uint_eq(raw->C_CloseAllSessions(hsm->connection->slot), CKR_OK);
}

static void finalise(CK_FUNCTION_LIST *raw, const HSM *hsm)
{
    (void)hsm;
    ck_assert_uint_eq(raw->C_Finalize(NULL), CKR_OK);
}

/* From then on private objects are hidden, which is no reason to call the KEK lost. */
static void log_out(CK_FUNCTION_LIST *raw, const HSM *hsm)
{
    CK_SESSION_HANDLE session;

    ck_assert_uint_eq(
        raw->C_OpenSession(hsm->connection->slot, CKF_SERIAL_SESSION, NULL, NULL, &session),
        CKR_OK);
    ck_assert_uint_eq(raw->C_Logout(session), CKR_OK);
    ck_assert_uint_eq(raw->C_CloseSession(session), CKR_OK);
}

/* Another user of the module in this process takes everything away; what was opened goes on. */
START_TEST(recovery)
{
    static void (*const losses[])(CK_FUNCTION_LIST *, const HSM *) = {close_all_sessions, finalise,
                                                                      log_out};
    struct sample sample;
    CK_FUNCTION_LIST *raw = raw_module();
    HSM_DEK *dek = NULL;
    HSM *hsm;

    make_sample(&sample);
    hsm = open_hsm(_i & 1, false);
    expect_ok(unwrap_sample(hsm, &sample, &dek));
    check_dek(dek, &sample);
    for (size_t i = 0; i < sizeof(losses) / sizeof(losses[0]); i++) {
        losses[i](raw, hsm);
        check_dek(dek, &sample);
        losses[i](raw, hsm);
        expect_ok(hsm_find_kek(hsm, cka_id));
        check_load(hsm, &sample);
        check_dek(dek, &sample);
    }
    hsm_dek_free(dek);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* Another keeper: keepers are known by their state folder too. */
static HSM *open_beside(bool keep)
{
    static char beside[256];
    hsm_options options = options_with(keep, false);
    HSM *hsm = NULL;

    snprintf(beside, sizeof(beside), "%s/beside", world);
    ck_assert(mkdir(beside, 0770) == 0 || errno == EEXIST);
    options.lock_dir = beside;
    expect_ok(hsm_open(&options, &hsm));
    return hsm;
}

/* What one of several connections finds broken is mended for all of them. */
START_TEST(recovery_beside_others)
{
    struct sample sample;
    CK_FUNCTION_LIST *raw = raw_module();
    HSM_DEK *dek = NULL;

    make_sample(&sample);
    HSM *keeper = open_hsm(true, false), *other = open_beside(true), *loader = open_beside(false);
    expect_ok(unwrap_sample(other, &sample, &dek));
    check_dek(dek, &sample);
    for (int i = 0; i < 2; i++) {
        uint64_t seen = connection_generation(other->connection);
        finalise(raw, keeper);
        if (i == 0)
            expect_ok(hsm_find_kek(keeper, cka_id));
        else
            hsm_close(open_beside(false)); /* a new one finds it so */
        /* For an operation of another thread that failed before. */
        expect_ok(connection_recover(other->connection, &other->caller, seen, RECOVER_MODULE));
        check_dek(dek, &sample);
        check_load(loader, &sample);
        check_load(keeper, &sample);
    }
    hsm_close(loader);
    hsm_dek_free(dek);
    hsm_close(other);
    hsm_close(keeper);
    tpks_secret_free(sample.dek);
}
END_TEST

/* ---- sessions for operations ----------------------------------------------------------------- */

/* The token has no session to give; meanwhile the one in use comes back. */
static struct hsm_connection *squeezed;
static CK_SESSION_HANDLE in_use;

static CK_RV give_back_and_refuse(CK_SLOT_ID slot, CK_FLAGS flags, void *arg, CK_NOTIFY notify,
                                  CK_SESSION_HANDLE *session)
{
    (void)slot, (void)flags, (void)arg, (void)notify, (void)session;
    if (in_use != CK_INVALID_HANDLE)
        session_give(squeezed, in_use, false);
    in_use = CK_INVALID_HANDLE;
    return CKR_SESSION_COUNT;
}

START_TEST(a_session_that_comes_back_is_used)
{
    HSM *hsm = open_hsm(_i, false);
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;
    CK_C_OpenSession real = functions->C_OpenSession;
    CK_SESSION_HANDLE first, second;

    squeezed = hsm->connection;
    ck_assert_uint_eq(session_take(squeezed, &first), CKR_OK);
    in_use = first;
    functions->C_OpenSession = give_back_and_refuse;
    ck_assert_uint_eq(session_take(squeezed, &second), CKR_OK);
    ck_assert_uint_eq(second, first);
    session_give(squeezed, second, true);
    ck_assert_uint_eq(session_take(squeezed, &second), CKR_SESSION_COUNT); /* there is none */
    functions->C_OpenSession = real;
    hsm_close(hsm);
}
END_TEST

/* Another process had all sessions for a moment. */
START_TEST(a_short_squeeze_is_forgotten)
{
    HSM *hsm = open_hsm(_i, false);
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;
    CK_C_OpenSession real = functions->C_OpenSession;
    CK_SESSION_HANDLE sessions[POOL_MAX];

    squeezed = hsm->connection;
    ck_assert_uint_eq(session_take(squeezed, &in_use), CKR_OK);
    functions->C_OpenSession = give_back_and_refuse;
    ck_assert_uint_eq(session_take(squeezed, &sessions[0]), CKR_OK);
    ck_assert_uint_eq(squeezed->limit, 1);
    functions->C_OpenSession = real;
    squeezed->squeezed -= 3600; /* an hour ago */
    session_give(squeezed, sessions[0], false);
    ck_assert_uint_eq(session_take(squeezed, &sessions[0]), CKR_OK);
    ck_assert_uint_eq(squeezed->limit, POOL_MAX);
    for (size_t i = 1; i < POOL_MAX; i++)
        ck_assert_uint_eq(session_take(squeezed, &sessions[i]), CKR_OK);
    for (size_t i = 0; i < POOL_MAX; i++)
        session_give(squeezed, sessions[i], false);
    hsm_close(hsm);
}
END_TEST

/* ---- a token that is away -------------------------------------------------------------------- */

/* Counts tries at finding the token; each fails while `broken`. */
static atomic_uint tries;
static atomic_ulong broken;
static CK_C_GetSlotList real_list;

static CK_RV list_or_fail(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count)
{
    CK_RV rv = atomic_load(&broken);

    if (present)
        atomic_fetch_add(&tries, 1);
    return rv != CKR_OK ? rv : real_list(present, slots, count);
}

#define OPENERS 16

static struct hsm_connection *away;
static pthread_barrier_t all_there;

static void *open_away(void *arg)
{
    HSM_GUARD guard;
    const struct hsm_caller caller = {.keystore_label = "test"};

    (void)arg;
    pthread_barrier_wait(&all_there);
    if (hsm_enter(&guard, NULL) != TPKS_OK)
        return NULL;
    return (void *)(uintptr_t)connection_open(away, &caller);
}

/* Whoever waits meanwhile does not try as often once more, one after another. */
START_TEST(many_wait_for_one_that_tries)
{
    pthread_t threads[OPENERS];
    hsm_options options = options_with(true, false);
    HSM *hsm = open_hsm(false, false);
    CK_FUNCTION_LIST *functions = hsm->connection->module->functions;
    void *result = NULL;

    real_list = functions->C_GetSlotList;
    functions->C_GetSlotList = list_or_fail;
    hsm_close(hsm);
    expect_ok(keeper_join(hsm_process(), &options, &away));
    ck_assert_int_eq(pthread_barrier_init(&all_there, NULL, OPENERS), 0);
    atomic_store(&broken, CKR_TOKEN_NOT_PRESENT);
    for (size_t i = 0; i < OPENERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, open_away, NULL), 0);
    for (size_t i = 0; i < OPENERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &result), 0);
        ck_assert_int_eq((int)(uintptr_t)result, TPKS_HSM_UNAVAILABLE);
    }
    ck_assert_uint_ge(atomic_load(&tries), 8);
    ck_assert_uint_le(atomic_load(&tries), OPENERS * 8 / 2);
    atomic_store(&broken, CKR_OK);
    hsm_close(open_hsm(true, false)); /* who comes later tries anew */
    functions->C_GetSlotList = real_list;
}
END_TEST

/* ---- fork and exit --------------------------------------------------------------------------- */

/* Whoever descends from a process that used a module must not finalise what it inherited. */
START_TEST(a_grandchild_has_inherited_too)
{
    hsm_close(open_hsm(true, false));
    ck_assert(!hsm_process()->inherited);
    pid_t pid = fork();
    if (pid == 0) {
        ck_assert(hsm_process()->inherited);
        pid = fork();
        if (pid == 0)
            _exit(hsm_process()->inherited ? 0 : 1);
        expect_exit(pid, 0);
        _exit(0);
    }
    expect_exit(pid, 0);
}
END_TEST

START_TEST(forked_child_opens_its_own)
{
    struct sample sample;
    HSM_DEK *dek = NULL;
    HSM *hsm;
    unsigned char sealed[SEALED_SIZE], opened[SEALED_SIZE];
    size_t size;

    make_sample(&sample);
    host_seal(sample.dek, sealed);
    hsm = open_hsm(_i, false);
    expect_ok(unwrap_sample(hsm, &sample, &dek));
    pid_t pid = fork();
    if (pid == 0) {
        expect(TPKS_INTERNAL, hsm_find_kek(hsm, cka_id));
        expect_text("fork");
        expect(TPKS_INTERNAL, open_sealed(dek, sealed, opened, &size));
        hsm_dek_free(dek);
        hsm_close(hsm);
        hsm = open_hsm(_i, false);
        check_load(hsm, &sample);
        hsm_close(hsm);
        exit(0);
    }
    expect_exit(pid, 0);
    check_dek(dek, &sample);
    hsm_dek_free(dek);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

static HSM *late_hsm;
static HSM_DEK *late_dek;

static void use_late(void)
{
    if (hsm_find_kek(late_hsm, cka_id) != TPKS_HSM_UNAVAILABLE)
        _exit(3);
    hsm_dek_free(late_dek);
    hsm_close(late_hsm);
}

/* Handles that are open at exit, used and closed by a handler that runs after the module's end. */
START_TEST(exit_with_open_handles)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct sample sample;
        atexit(use_late);
        make_sample(&sample);
        late_hsm = open_hsm(_i, false);
        expect_ok(unwrap_sample(late_hsm, &sample, &late_dek));
        check_dek(late_dek, &sample);
        exit(0);
    }
    expect_exit(pid, 0);
}
END_TEST

/* ---- many at once ---------------------------------------------------------------------------- */

#define THREADS 8
#define LOADS 20

static struct sample shared_sample;

static void *load_in_thread(void *keep)
{
    for (int i = 0; i < LOADS; i++) {
        HSM *hsm = open_hsm(keep != NULL, false);
        check_load(hsm, &shared_sample);
        hsm_close(hsm);
    }
    return NULL;
}

START_TEST(threads_load)
{
    pthread_t threads[THREADS];

    make_sample(&shared_sample);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, load_in_thread, _i ? &uri : NULL), 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    tpks_secret_free(shared_sample.dek);
}
END_TEST

#define PROCESSES 8
#define STARTS 10

static void start_again_and_again(void)
{
    for (int i = 0; i < STARTS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            HSM *hsm = open_hsm(false, false);
            check_load(hsm, &shared_sample);
            hsm_close(hsm);
            exit(0);
        }
        expect_exit(pid, 0);
    }
}

/* SoftHSM 2.6 hides its token from processes that start while another one logs in. */
START_TEST(processes_start_together)
{
    struct other others[PROCESSES];
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    pid_t maker = fork();
    if (maker == 0) {
        make_sample(&shared_sample);
        ck_assert_int_eq(write(ends[1], tpks_secret_data(shared_sample.dek), DEK_SIZE), DEK_SIZE);
        ck_assert_int_eq(write(ends[1], &shared_sample, sizeof(shared_sample)),
                         (ssize_t)sizeof(shared_sample));
        exit(0);
    }
    TPKS_SECRET *dek = tpks_secret_new(DEK_SIZE);
    ck_assert_int_eq(read(ends[0], tpks_secret_data(dek), DEK_SIZE), DEK_SIZE);
    ck_assert_int_eq(read(ends[0], &shared_sample, sizeof(shared_sample)),
                     (ssize_t)sizeof(shared_sample));
    shared_sample.dek = dek;
    expect_exit(maker, 0);
    for (int i = 0; i < PROCESSES; i++)
        others[i] = fork_other(start_again_and_again);
    for (int i = 0; i < PROCESSES; i++) {
        ck_assert_int_eq(write(others[i].go, "x", 1), 1);
        close(others[i].go);
    }
    for (int i = 0; i < PROCESSES; i++)
        expect_exit(others[i].pid, 0);
    tpks_secret_free(dek);
}
END_TEST

/* ---- NSS softokn ----------------------------------------------------------------------------- */

static const char *nss_module(void)
{
    static const char *const candidates[] = {"/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
                                             "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
                                             "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
                                             "/usr/lib/aarch64-linux-gnu/nss/libsoftokn3.so",
                                             "/usr/lib64/libsoftokn3.so",
                                             NULL};

    return find_module(candidates);
}

/* NSS takes its database from an initialisation string that only a .module file can give. */
static void set_up_nss(void)
{
    static char modules[256];
    char path[300], text[1024];

    make_folders();
    shell("mkdir '%s/db' '%s/modules' && certutil -N -d sql:'%s/db' -f '%s'", world, world, world,
          pin_path);
    snprintf(modules, sizeof(modules), "%s/modules", world);
    snprintf(path, sizeof(path), "%s/tpks-nss.module", modules);
    snprintf(text, sizeof(text),
             "module: %s\nx-init-reserved: configDir='sql:%s/db' certPrefix='' keyPrefix='' "
             "secmod='secmod.db' flags=\n",
             nss_module(), world);
    put_file(path, text, 0644);
    p11_kit_override_system_files("/nonexistent", "/nonexistent", modules, modules, modules);
    snprintf(uri, sizeof(uri),
             "pkcs11:token=NSS%%20Certificate%%20DB?module-name=tpks-nss&pin-source=file:%s",
             pin_path);
}

START_TEST(nss_every_algorithm)
{
    check_algorithm(WRAP_AES_KW, true);
    check_algorithm(WRAP_AES_KWP, true);
    check_algorithm(WRAP_RSA_OAEP_SHA256, true);
    check_algorithm(WRAP_RSA_OAEP_SHA1, true);
    check_algorithm(WRAP_AES_CBC_PAD, true);
    check_algorithm(WRAP_AES_GCM, true);
}
END_TEST

START_TEST(nss_make_and_load)
{
    struct sample sample;

    make_sample(&sample);
    ck_assert_int_eq(sample.algorithm, WRAP_AES_KW);
    HSM *hsm = open_hsm(_i, false);
    check_load(hsm, &sample);
    check_unwrap_out(hsm, &sample);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* The padding is sound with a wrong IV too, so the token takes in a wrong DEK. */
START_TEST(nss_wrong_iv_does_not_last)
{
    static const wrap_algorithm algorithm = WRAP_AES_CBC_PAD;
    struct sample sample;
    HSM_DEK *wrong = NULL, *dek = NULL;

    new_dek(&sample);
    HSM *hsm = open_hsm(false, true);
    expect_ok(make_kek_from(hsm, &algorithm, 1, cka_id, "tpks-kek", sample.dek, &sample.algorithm,
                            sample.data, &sample.size, sample.iv, &sample.iv_size));
    hsm_close(hsm);
    hsm = open_hsm(true, false);
    sample.iv[3] ^= 1;
    expect_ok(unwrap_sample(hsm, &sample, &wrong));
    sample.iv[3] ^= 1;
    expect_ok(unwrap_sample(hsm, &sample, &dek));
    check_dek(dek, &sample);
    hsm_dek_free(dek);
    hsm_dek_free(wrong);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

START_TEST(nss_refused_pin)
{
    put_file(pin_path, "000000\n", 0600);
    expect(TPKS_WRONG_SECRET, try_open());
    expect_pin_locked();
}
END_TEST

/* ---- p11-kit's server: a token far away, which can do little and may hang up ----------------- */

static const char *remote_client(void)
{
    static const char *const candidates[] = {"/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
                                             "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
                                             "/usr/lib64/pkcs11/p11-kit-client.so", NULL};
    static const char *const servers[] = {"/usr/libexec/p11-kit/p11-kit-server",
                                          "/usr/lib/p11-kit/p11-kit-server", NULL};

    return find_module(servers) != NULL ? find_module(candidates) : NULL;
}

static pid_t server;

static void exec_server(int output, const char *socket_path)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* also when the test fails */
    dup2(output, STDOUT_FILENO);
    execlp("p11-kit", "p11-kit", "server", "-f", "-n", socket_path, "--provider", softhsm,
           "pkcs11:", (char *)NULL);
    _exit(127);
}

/* The server says its address once it listens. */
static void set_up_remote(void)
{
    char socket_path[300], address[400];
    int ends[2];

    set_up();
    snprintf(socket_path, sizeof(socket_path), "%s/socket", world);
    ck_assert_int_eq(pipe(ends), 0);
    server = fork();
    if (server == 0)
        exec_server(ends[1], socket_path);
    close(ends[1]);
    ck_assert_int_gt(read(ends[0], address, sizeof(address)), 0);
    snprintf(address, sizeof(address), "unix:path=%s", socket_path);
    ck_assert_int_eq(setenv("P11_KIT_SERVER_ADDRESS", address, 1), 0);
    snprintf(uri, sizeof(uri), "pkcs11:token=tpks%%20test?module-path=%s&pin-source=file:%s",
             remote_client(), pin_path);
}

static void stop_server(void)
{
    if (server <= 0)
        return;
    kill(-server, SIGKILL);
    ck_assert_int_eq(waitpid(server, NULL, 0), server);
    server = 0;
}

/* Kills a process that is not our child and waits for its end; false: it had ended before. */
static bool end_process(pid_t pid)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

    if (end.fd < 0 && errno == ESRCH)
        return false;
    ck_assert_int_ge(end.fd, 0);
    bool there = poll(&end, 1, 0) == 0;
    ck_assert(syscall(SYS_pidfd_send_signal, end.fd, SIGKILL, NULL, 0) == 0 || errno == ESRCH);
    ck_assert_int_eq(poll(&end, 1, -1), 1);
    close(end.fd);
    return there;
}

/*
 * The server has a process of its own for every client. One that ended before may be in the list
 * until the server comes to it.
 */
static void hang_up(void)
{
    char path[80];
    int child, count = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)server, (int)server);
    FILE *children = fopen(path, "re");
    ck_assert_ptr_nonnull(children);
    while (fscanf(children, "%d", &child) == 1)
        count += end_process(child);
    fclose(children);
    ck_assert_int_gt(count, 0);
}

/* Whatever passes through, some algorithm works; what can't stay inside comes out. */
START_TEST(remote_make_and_load)
{
    struct sample sample;
    HSM_DEK *dek = NULL;

    make_sample(&sample);
    HSM *hsm = open_hsm(_i, false);
    check_unwrap_out(hsm, &sample);
    tpks_result result = unwrap_sample(hsm, &sample, &dek);
    if (result == TPKS_OK)
        check_dek(dek, &sample);
    else
        expect(TPKS_UNSUPPORTED, result);
    hsm_dek_free(dek);
    hsm_close(hsm);
    tpks_secret_free(sample.dek);
}
END_TEST

/* The client writes to a closed socket: that must not kill the program. */
START_TEST(remote_hangs_up)
{
    HSM *hsm = open_hsm(_i, false);

    ck_assert_ptr_eq(signal(SIGPIPE, SIG_DFL), SIG_DFL);
    hang_up();
    expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, cka_id)); /* connected again */
    hang_up();
    stop_server();
    tpks_result result = hsm_find_kek(hsm, cka_id);
    ck_assert_msg(result == TPKS_HSM_UNAVAILABLE || result == TPKS_TOKEN_MISSING, "%s",
                  tpks_error_text());
    hsm_close(hsm);
}
END_TEST

/* A server that dies takes the sessions of all connections with it. */
START_TEST(remote_hangs_up_beside_others)
{
    HSM *keeper = open_hsm(true, false), *other = open_beside(true);

    hang_up();
    expect(TPKS_KEK_MISSING, hsm_find_kek(keeper, cka_id));
    expect(TPKS_KEK_MISSING, hsm_find_kek(other, cka_id));
    hang_up();
    hsm_close(open_beside(false));
    expect(TPKS_KEK_MISSING, hsm_find_kek(other, cka_id));
    hsm_close(other);
    hsm_close(keeper);
}
END_TEST

/* ---- all of it ------------------------------------------------------------------------------- */

static TCase *new_case(Suite *suite, const char *name, SFun setup)
{
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 240);
    if (setup != NULL)
        tcase_add_checked_fixture(tcase, setup, NULL);
    suite_add_tcase(suite, tcase);
    return tcase;
}

static void add_softhsm(Suite *suite)
{
    TCase *keys = new_case(suite, "keys", set_up);
    tcase_add_test(keys, make_find_load);
    tcase_add_test(keys, every_algorithm);
    tcase_add_test(keys, order_prefers_inside);
    tcase_add_test(keys, make_needs_write_and_a_free_id);
    tcase_add_test(keys, dek_is_not_readable);
    tcase_add_test(keys, tampered_data_is_refused_and_wiped);
    tcase_add_test(keys, large_and_empty_data);
    TCase *loss = new_case(suite, "loss", set_up);
    tcase_add_test(loss, kek_destroyed_by_another_process);
    tcase_add_test(loss, foreign_kek);
    tcase_add_loop_test(loss, codes_are_not_misread, 0, sizeof(sayings) / sizeof(sayings[0]));
    tcase_add_test(loss, two_keys_with_one_id);
    tcase_add_test(loss, a_kek_by_its_label);
    tcase_add_test(loss, two_keks_with_one_label);
    tcase_add_test(loss, token_removed_while_running);
    tcase_add_test(loss, missing_module);
    tcase_add_test(loss, missing_token);
    tcase_add_test(loss, ambiguous_token);
    tcase_add_test(loss, slot_does_not_answer);
    tcase_add_test(loss, module_does_not_start);
    TCase *init = new_case(suite, "init", set_up);
    tcase_add_test(init, a_blank_token_is_initialised_once);
    tcase_add_test(init, a_token_that_is_destroyed_is_made_anew);
    tcase_add_test(init, a_token_that_hides_for_a_moment_is_there);
    tcase_add_test(init, no_token_is_made_beside_one_that_can_not_be_seen);
    tcase_add_test(init, no_token_is_made_beside_a_session);
    tcase_add_test(init, a_serial_number_can_not_be_chosen);
    tcase_add_test(init, no_second_token_gets_a_label);
    tcase_add_test(init, only_the_place_that_is_named_is_taken);
    tcase_add_test(init, a_pin_that_does_not_fit_is_refused_first);
    tcase_add_test(init, half_a_token_is_finished);
    TCase *pin = new_case(suite, "pin", set_up);
    tcase_add_test(pin, refused_pin_is_tried_once);
    tcase_add_test(pin, refused_pin_without_state_folder);
    tcase_add_test(pin, pin_file_of_others);
    tcase_add_test(pin, pin_from_callback);
    TCase *life = new_case(suite, "life", set_up);
    tcase_add_test(life, lock_is_taken_and_not_followed);
    tcase_add_test(life, signal_mask_is_kept);
    tcase_add_loop_test(life, recovery, 0, 2);
    tcase_add_test(life, recovery_beside_others);
    tcase_add_loop_test(life, a_session_that_comes_back_is_used, 0, 2);
    tcase_add_loop_test(life, a_short_squeeze_is_forgotten, 0, 2);
    tcase_add_test(life, many_wait_for_one_that_tries);
    tcase_add_test(life, a_grandchild_has_inherited_too);
    tcase_add_loop_test(life, forked_child_opens_its_own, 0, 2);
    tcase_add_loop_test(life, exit_with_open_handles, 0, 2);
    tcase_add_loop_test(life, threads_load, 0, 2);
    tcase_add_test(life, processes_start_together);
}

static Suite *hsm_suite(void)
{
    Suite *suite = suite_create("hsm");
    TCase *uris = new_case(suite, "uri", NULL);

    tcase_add_loop_test(uris, uri_good, 0, sizeof(good_uris) / sizeof(good_uris[0]));
    tcase_add_loop_test(uris, uri_bad, 0, sizeof(bad_uris) / sizeof(bad_uris[0]));
    tcase_add_test(uris, algorithm_names);
    add_softhsm(suite);
    if (nss_module() != NULL) {
        TCase *nss = new_case(suite, "nss", set_up_nss);
        tcase_add_test(nss, nss_every_algorithm);
        tcase_add_loop_test(nss, nss_make_and_load, 0, 2);
        tcase_add_test(nss, nss_wrong_iv_does_not_last);
        tcase_add_test(nss, nss_refused_pin);
    } else {
        printf("NSS softokn is not installed: its tests are left out\n");
    }
    if (remote_client() != NULL) {
        TCase *remote = new_case(suite, "remote", NULL);
        tcase_add_checked_fixture(remote, set_up_remote, stop_server);
        tcase_add_loop_test(remote, remote_make_and_load, 0, 2);
        tcase_add_loop_test(remote, remote_hangs_up, 0, 2);
        tcase_add_test(remote, remote_hangs_up_beside_others);
    } else {
        printf("p11-kit's server is not installed: its tests are left out\n");
    }
    return suite;
}

int main(void)
{
    return run(hsm_suite());
}
