/*
 * test_memory.c - every allocation of the library fails once
 *
 * libcrypto's allocator is replaced by one that refuses the n-th allocation made from the sources
 * of this library, for each n until nothing is refused any more. Whatever is refused, the operation
 * reports it, frees what it had (the sanitizers and valgrind look) and leaves the keystore whole.
 */
/* Before check.h, which has a macro named fail. */
#include "keystore_internal.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

static char folder[64];
static TPKS_CONFIG *config;
static TPKS_SECRET *password, *pkcs8;

/* ---- an allocator that refuses ---- */

static long until_refusal; /* 0: none */
static bool refused;

static bool is_ours(const char *file)
{
    return file != NULL && strstr(file, "/store/") != NULL && strstr(file, "/crypto/") == NULL;
}

static bool refuse(const char *file)
{
    if (until_refusal == 0 || !is_ours(file) || --until_refusal > 0)
        return false;
    refused = true;
    return true;
}

static void *give(size_t size, const char *file, int line)
{
    (void)line;
    return size == 0 || refuse(file) ? NULL : malloc(size);
}

static void *give_again(void *data, size_t size, const char *file, int line)
{
    (void)line;
    if (size == 0) {
        free(data);
        return NULL;
    }
    return refuse(file) ? NULL : realloc(data, size);
}

static void take_back(void *data, const char *file, int line)
{
    (void)file;
    (void)line;
    free(data);
}

/* ---- a place to work in ---- */

static void shell(const char *format)
{
    char command[400];

    snprintf(command, sizeof(command), "cd %s && %s", folder, format);
    ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
    char path[96];
    unsigned char *der = NULL;

    strcpy(folder, "/tmp/test_memory.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/keystore.cnf", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "[keystore]\nstore = sqlite:%s/a.db\nstate = %s/state\n", folder, folder);
    fchmod(fileno(file), 0644);
    fclose(file);
    ck_assert_int_eq(tpks_config_load(path, &config), TPKS_OK);
    password = tpks_secret_copy("correct horse battery staple", 28);
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    pkcs8 = tpks_secret_copy(der, (size_t)size);
    OPENSSL_free(der);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
}

static void teardown(void)
{
    tpks_secret_free(pkcs8);
    tpks_secret_free(password);
    tpks_config_free(config);
    shell("rm -rf ../\"${PWD##*/}\"");
}

/* ---- what is done ---- */

typedef tpks_result operation(void);

static tpks_result do_create(void)
{
    tpks_options options = {.config = config};
    TPKS_SECRET *recovery = NULL;
    tpks_create_params params = {.software = true,
                                 .password = password,
                                 .recovery = true,
                                 .cost = {.t = 1, .m_kib = 8192, .p = 1}};
    tpks_result result = tpks_create(&options, &params, &recovery);

    tpks_secret_free(recovery);
    return result;
}

static tpks_result change_all(TPKS *ks)
{
    tpks_selector by_name = {.name = "web"};
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *opened = NULL, *recovery = NULL;
    tpks_result result = tpks_add(ks, "web", pkcs8, NULL, TPKS_MAY_SIGN, NULL);

    if (result == TPKS_OK)
        result = tpks_find(ks, &by_name, &record);
    if (result == TPKS_OK)
        result = tpks_load_key(ks, record, &opened);
    if (result == TPKS_OK)
        result = tpks_rename(ks, record, "mail");
    if (result == TPKS_OK)
        result = tpks_slot_add_recovery(ks, &recovery, NULL);
    tpks_secret_free(recovery);
    tpks_secret_free(opened);
    tpks_record_free(record);
    return result;
}

static tpks_result do_changes(void)
{
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    TPKS *ks = NULL;
    tpks_result result = tpks_open(&options, &ks);

    if (result == TPKS_OK)
        result = change_all(ks);
    tpks_close(ks);
    return result;
}

static void check_whole(void)
{
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    TPKS *ks = NULL;
    uint64_t proven = 0;

    ck_assert_msg(tpks_open(&options, &ks) == TPKS_OK, "%s", tpks_error_text());
    ck_assert_msg(tpks_verify(ks, NULL, NULL, NULL, &proven) == TPKS_OK, "%s", tpks_error_text());
    tpks_close(ks);
}

/* Refuses one allocation after the other; `before` brings back what the operation starts from. */
static void sweep(operation *operate, const char *before, bool exists)
{
    long n = 0;

    do {
        shell(before);
        refused = false;
        until_refusal = ++n;
        tpks_result result = operate();
        until_refusal = 0;
        /* Nothing else may be made of it than what it is, except where it can be done without. */
        ck_assert_msg(result == TPKS_OK || refused, "%ld: %s", n, tpks_error_text());
        ck_assert_msg(result == TPKS_OK || result == TPKS_NO_MEMORY || result == TPKS_BAD_CONFIG,
                      "%ld: %s (%s)", n, tpks_result_name(result), tpks_error_text());
        if (exists || result == TPKS_OK)
            check_whole();
    } while (refused);
    ck_assert_int_gt(n, 20);
}

START_TEST(a_keystore_is_made_or_not)
{
    sweep(do_create, "rm -rf a.db state", false);
}
END_TEST

START_TEST(changes_are_made_or_not)
{
    ck_assert_int_eq(do_create(), TPKS_OK);
    shell("cp -a state state.0 && cp a.db a.0");
    sweep(do_changes, "rm -rf state && cp -a state.0 state && cp a.0 a.db", true);
}
END_TEST

int main(void)
{
    if (CRYPTO_set_mem_functions(give, give_again, take_back) != 1)
        return EXIT_FAILURE;
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");

    tcase_set_timeout(tests, 280);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_keystore_is_made_or_not);
    tcase_add_test(tests, changes_are_made_or_not);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
