/*
 * test_frozen.c - the sample of format 1 opens for ever
 *
 * A copy of test/data/format-1 is opened through each of its slots, and every record must give the
 * key that was put in. See test/data/make_format_1.c.
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

#define MODULE "/usr/lib/softhsm/libsofthsm2.so"
#define RECORDS 10

static char folder[64];
static TPKS_CONFIG *config;
static TPKS *ks;

#define OK(expression) ck_assert_msg((expression) == TPKS_OK, "%s", tpks_error_text())

static void put_file(const char *name, mode_t mode, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fchmod(fileno(file), mode), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* The rest of a line of secrets.txt that starts with `word` and a blank. */
static void secret_text(const char *word, char *out, size_t size)
{
    FILE *file = fopen(TEST_DATA "/format-1/secrets.txt", "r");
    char line[512];
    bool found = false;

    ck_assert_ptr_nonnull(file);
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, word, strlen(word)) == 0 && line[strlen(word)] == ' ';
    }
    fclose(file);
    ck_assert(found);
    snprintf(out, size, "%s", line + strlen(word) + 1);
}

static void setup(void)
{
    char command[512], text[1024], pin[64];

    strcpy(folder, "/tmp/test_frozen.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(command, sizeof(command),
             "cp -R '" TEST_DATA "/format-1/.' %s && cd %s && chmod 700 state tokens tokens/* &&"
             " chmod 600 keystore.db state/*.dek tokens/*/*",
             folder, folder);
    ck_assert_int_eq(system(command), 0);
    secret_text("pin", pin, sizeof(pin));
    put_file("pin", 0600, pin);
    snprintf(text, sizeof(text), "directories.tokendir = %s/tokens\nobjectstore.backend = file\n",
             folder);
    put_file("softhsm2.conf", 0644, text);
    snprintf(text, sizeof(text), "%s/softhsm2.conf", folder);
    ck_assert_int_eq(setenv("SOFTHSM2_CONF", text, 1), 0);
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\n"
             "token = pkcs11:token=frozen?module-path=" MODULE "&pin-source=file:%s/pin\n",
             folder, folder, folder);
    put_file("keystore.cnf", 0644, text);
    snprintf(text, sizeof(text), "%s/keystore.cnf", folder);
    OK(tpks_config_load(text, &config));
    OK(tpks_open(&(tpks_options){.config = config}, &ks));
}

static void teardown(void)
{
    char command[96];

    tpks_close(ks);
    tpks_config_free(config);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* ---- what must come out ---- */

static void expect_digest(const char *hex, const void *data, size_t size)
{
    unsigned char digest[32], wanted[32];
    size_t length = 0;

    OK(sha256(NULL, data, size, digest));
    ck_assert(OPENSSL_hexstr2buf_ex(wanted, sizeof(wanted), &length, hex, '\0'));
    ck_assert_mem_eq(digest, wanted, sizeof(wanted));
}

static void prove_record(const char *line)
{
    char type[16], spki_digest[65], key_digest[65], name[256];
    unsigned policy = 0, certs = 0;
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;
    size_t size = 0;

    ck_assert_int_eq(sscanf(line, "record %15s %u %u %64s %64s %255[^\n]", type, &policy, &certs,
                            spki_digest, key_digest, name),
                     6);
    OK(tpks_find(ks, &(tpks_selector){.name = name}, &record));
    ck_assert_str_eq(tpks_record_key_type(record), type);
    ck_assert_uint_eq(tpks_record_policy(record), policy);
    ck_assert_uint_eq(tpks_record_cert_count(record), certs);
    const unsigned char *spki = tpks_record_spki(record, &size);
    expect_digest(spki_digest, spki, size);
    OK(tpks_load_key(ks, record, &pkcs8));
    expect_digest(key_digest, tpks_secret_data(pkcs8), tpks_secret_size(pkcs8));
    OK(record_check_halves(NULL, record, pkcs8));
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
}

static void prove_all(void)
{
    FILE *file = fopen(TEST_DATA "/format-1/secrets.txt", "r");
    char line[512];
    uint64_t proven = 0, expected = 0;

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "record ", 7) != 0)
            continue;
        prove_record(line);
        expected++;
    }
    fclose(file);
    ck_assert_uint_eq(expected, RECORDS);
    OK(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, expected);
}

/* ---- the ways in ---- */

START_TEST(the_dek_file_opens_it)
{
    OK(tpks_unlock(ks));
    ck_assert_uint_eq(keystore_slot(ks)->kind, SLOT_SOFTWARE);
    prove_all();
}
END_TEST

START_TEST(password_and_recovery_key_open_it)
{
    static const struct {
        const char *word;
        slot_kind kind;
    } ways[] = {{"password", SLOT_PASSWORD}, {"recovery", SLOT_RECOVERY}};
    char text[256];

    for (size_t i = 0; i < 2; i++) {
        secret_text(ways[i].word, text, sizeof(text));
        TPKS_SECRET *secret = tpks_secret_copy(text, strlen(text));
        OK(tpks_unlock_with(ks, secret));
        tpks_secret_free(secret);
        ck_assert_uint_eq(keystore_slot(ks)->kind, ways[i].kind);
        prove_all();
    }
}
END_TEST

START_TEST(the_token_opens_it)
{
    static const char *const where[] = {"auto", "process"};

    OK(keystore_hsm_open(ks, false, &ks->hsm));
    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        for (size_t w = 0; w < 2 && slot_is_hsm(slot); w++) {
            OK(slot_open_hsm(NULL, &ks->head, slot, ks->hsm, where[w], &ks->dek));
            memcpy(ks->slot_id, slot->id, TPKS_ID_SIZE);
            OK(head_prove_dek(&ks->head, ks->dek));
            OK(head_check_seal(&ks->head, ks->dek));
            prove_all();
            dek_free(ks->dek);
            ks->dek = NULL;
        }
    }
    ck_assert_uint_eq(ks->head.slot_count, 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frozen");
    TCase *tests = tcase_create("format 1");

    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, the_dek_file_opens_it);
    tcase_add_test(tests, password_and_recovery_key_open_it);
    tcase_add_test(tests, the_token_opens_it);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
