/*
 * test_secret.c - secret memory, secret files, new passwords, and the texts of errors
 */
#include <errno.h>
#include <inttypes.h>

#include <openssl/err.h>

#include "error.h"
#include "text.h"
#include "unit.h"

/* ---- memory ---------------------------------------------------------------------------------- */

START_TEST(new_is_zero)
{
    TPKS_SECRET *secret = tpks_secret_new(10000);

    ck_assert_ptr_nonnull(secret);
    ck_assert_uint_eq(tpks_secret_size(secret), 10000);
    for (size_t i = 0; i < 10000; i++)
        ck_assert_uint_eq(tpks_secret_data(secret)[i], 0);
    tpks_secret_free(secret);
    tpks_secret_free(NULL);
}
END_TEST

START_TEST(too_large_is_null)
{
    ck_assert_ptr_null(tpks_secret_new(SIZE_MAX));
    ck_assert_ptr_null(tpks_secret_new(SIZE_MAX / 2));
}
END_TEST

START_TEST(empty_secret)
{
    TPKS_SECRET *secret = tpks_secret_copy(NULL, 0);

    ck_assert_ptr_nonnull(secret);
    ck_assert_uint_eq(tpks_secret_size(secret), 0);
    tpks_secret_free(secret);
}
END_TEST

START_TEST(shrink_wipes_the_rest)
{
    TPKS_SECRET *secret = secret_of("abcdefgh");
    const unsigned char *data = tpks_secret_data_const(secret);

    tpks_secret_shrink(secret, 3);
    ck_assert_uint_eq(tpks_secret_size(secret), 3);
    ck_assert_mem_eq(data, "abc\0\0\0\0\0", 8);
    tpks_secret_shrink(secret, 100);
    ck_assert_uint_eq(tpks_secret_size(secret), 3);
    tpks_secret_free(secret);
}
END_TEST

/* Flags of the mapping that holds `address`, from /proc/self/smaps; "" if there is none. */
static void mapping_flags(const void *address, char *flags, size_t size)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false;

    ck_assert_ptr_nonnull(file);
    *flags = '\0';
    while (fgets(line, sizeof(line), file) != NULL) {
        uintptr_t from, to;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2)
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, size, "%s", line);
    }
    fclose(file);
}

START_TEST(locked_and_not_dumped)
{
    TPKS_SECRET *secret = secret_of("a secret");
    char flags[512];

    mapping_flags(tpks_secret_data(secret), flags, sizeof(flags));
    ck_assert_msg(strstr(flags, " dd") != NULL, "would be dumped: %s", flags);
    if (!ADDRESS_SANITIZER) /* replaces mlock() by a function that does nothing */
        ck_assert_msg(strstr(flags, " lo") != NULL, "not locked (RLIMIT_MEMLOCK?): %s", flags);
    tpks_secret_free(secret);
}
END_TEST

START_TEST(secrets_do_not_share_pages)
{
    TPKS_SECRET *a = tpks_secret_new(1), *b = tpks_secret_new(1);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    ck_assert((uintptr_t)tpks_secret_data(a) / page != (uintptr_t)tpks_secret_data(b) / page);
    tpks_secret_free(a);
    tpks_secret_data(b)[0] = 1;
    tpks_secret_free(b);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

static void read_as(const char *content, size_t size, tpks_result expected, const char *value)
{
    const char *path = write_file("secret", content, size, 0600);
    TPKS_SECRET *secret = NULL;

    expect(expected, tpks_secret_read_file(path, 8, &secret));
    if (expected != TPKS_OK) {
        ck_assert_ptr_null(secret);
        expect_text(path);
        return;
    }
    ck_assert_uint_eq(tpks_secret_size(secret), strlen(value));
    ck_assert_mem_eq(tpks_secret_data(secret), value, strlen(value));
    tpks_secret_free(secret);
}

START_TEST(one_line_end_is_stripped)
{
    read_as("1234", 4, TPKS_OK, "1234");
    read_as("1234\n", 5, TPKS_OK, "1234");
    read_as("1234\r\n", 6, TPKS_OK, "1234");
    read_as("1234\n\n", 6, TPKS_OK, "1234\n");
    read_as("1234\r", 5, TPKS_OK, "1234\r");
    read_as(" 1 2 ", 5, TPKS_OK, " 1 2 ");
}
END_TEST

START_TEST(limits_of_size)
{
    read_as("12345678", 8, TPKS_OK, "12345678");
    read_as("12345678\n", 9, TPKS_OK, "12345678");
    read_as("12345678\r\n", 10, TPKS_OK, "12345678");
    read_as("123456789", 9, TPKS_BAD_INPUT, NULL);
    read_as("123456789\n", 10, TPKS_BAD_INPUT, NULL);
    read_as("12345678\r\nx", 11, TPKS_BAD_INPUT, NULL);
    read_as("1234567890123456", 16, TPKS_BAD_INPUT, NULL);
    read_as("", 0, TPKS_BAD_INPUT, NULL);
    read_as("\n", 1, TPKS_BAD_INPUT, NULL);
    read_as("\r\n", 2, TPKS_BAD_INPUT, NULL);
}
END_TEST

static tpks_result try_mode(mode_t mode)
{
    const char *path = write_file("secret", "1234", 4, mode);
    TPKS_SECRET *secret = NULL;
    tpks_result result = tpks_secret_read_file(path, 100, &secret);

    tpks_secret_free(secret);
    return result;
}

START_TEST(modes)
{
    bool root = geteuid() == 0;

    expect_ok(try_mode(0600));
    expect_ok(try_mode(0400));
    expect(TPKS_NOT_PERMITTED, try_mode(0604));
    expect_text("chmod");
    expect(TPKS_NOT_PERMITTED, try_mode(0602));
    expect(TPKS_NOT_PERMITTED, try_mode(0601));
    expect(TPKS_NOT_PERMITTED, try_mode(0644));
    /* Only root shares a secret with a group. */
    expect(root ? TPKS_OK : TPKS_NOT_PERMITTED, try_mode(0640));
}
END_TEST

START_TEST(owners)
{
    const char *path = write_file("secret", "1234", 4, 0600);
    TPKS_SECRET *secret = NULL;

    if (geteuid() == 0) {
        ck_assert_int_eq(chown(path, 65534, 65534), 0);
        expect(TPKS_NOT_PERMITTED, tpks_secret_read_file(path, 100, &secret));
        expect_text("chown 0 ");
    } else {
        ck_assert_int_eq(chmod(path, 0), 0);
        expect(TPKS_NOT_PERMITTED, tpks_secret_read_file(path, 100, &secret));
        expect_text("chown ");
    }
}
END_TEST

START_TEST(kinds_of_file)
{
    TPKS_SECRET *secret = NULL;
    char link[300], fifo[300];
    const char *path = write_file("secret", "1234", 4, 0600);

    snprintf(link, sizeof(link), "%s/link", scratch());
    snprintf(fifo, sizeof(fifo), "%s/fifo", scratch());
    ck_assert_int_eq(symlink(path, link), 0);
    expect_ok(tpks_secret_read_file(link, 100, &secret));
    tpks_secret_free(secret);
    secret = NULL;
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    expect(TPKS_BAD_INPUT, tpks_secret_read_file(fifo, 100, &secret));
    expect(TPKS_BAD_INPUT, tpks_secret_read_file(scratch(), 100, &secret));
    expect(TPKS_BAD_INPUT, tpks_secret_read_file("/nonexistent/file", 100, &secret));
    expect_text("/nonexistent/file");
    expect(TPKS_BAD_INPUT, tpks_secret_read_file("/dev/zero", 100, &secret));
}
END_TEST

START_TEST(descriptors)
{
    TPKS_SECRET *secret = NULL;
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "pass", 4), 4);
    ck_assert_int_eq(write(ends[1], "word\n", 5), 5);
    close(ends[1]);
    expect_ok(tpks_secret_read_fd(ends[0], 100, &secret));
    ck_assert_uint_eq(tpks_secret_size(secret), 8);
    ck_assert_mem_eq(tpks_secret_data(secret), "password", 8);
    tpks_secret_free(secret);
    close(ends[0]);
    expect(TPKS_BAD_INPUT, tpks_secret_read_fd(ends[0], 100, &secret));
    expect(TPKS_NO_MEMORY, tpks_secret_read_fd(0, SIZE_MAX, &secret));
}
END_TEST

/* ---- passwords ------------------------------------------------------------------------------- */

static void try_password(const char *text, size_t size, tpks_result expected)
{
    TPKS_SECRET *password = tpks_secret_copy(text, size);

    expect(expected, tpks_password_check(password));
    tpks_secret_free(password);
}

START_TEST(passwords)
{
    char many[600];

    memset(many, 'x', sizeof(many));
    try_password("123456789012", 12, TPKS_OK);
    try_password("12345678901", 11, TPKS_BAD_INPUT);
    try_password("", 0, TPKS_BAD_INPUT);
    /* characters count, not bytes */
    try_password("\xC3\xA4\xC3\xB6\xC3\xBC\xC3\xA4\xC3\xB6\xC3\xBC", 12, TPKS_BAD_INPUT);
    try_password("\xF0\x9F\x94\x91 Schl\xC3\xBCssel 12", 18, TPKS_OK);
    try_password(many, 512, TPKS_OK);
    try_password(many, 513, TPKS_BAD_INPUT);
    try_password("tab\tin the middle", 17, TPKS_BAD_INPUT);
    try_password("nul\0in the middle", 17, TPKS_BAD_INPUT);
    try_password("delete\x7F in the middle", 21, TPKS_BAD_INPUT);
    try_password("C1 \xC2\x85 control char", 18, TPKS_BAD_INPUT);
    try_password("latin-1 \xFCmlaut here", 18, TPKS_BAD_INPUT);
    try_password("surrogate \xED\xA0\x80 half", 18, TPKS_BAD_INPUT);
    try_password("overlong \xC0\xAF slash", 17, TPKS_BAD_INPUT);
    try_password("beyond \xF4\x90\x80\x80 the end", 19, TPKS_BAD_INPUT);
    try_password("cut off at the end \xC3", 20, TPKS_BAD_INPUT);
}
END_TEST

START_TEST(password_is_not_in_the_text)
{
    TPKS_SECRET *password = secret_of("hunter2");

    expect(TPKS_BAD_INPUT, tpks_password_check(password));
    ck_assert_ptr_null(strstr(tpks_error_text(), "hunter2"));
    tpks_secret_free(password);
}
END_TEST

/* ---- error texts ----------------------------------------------------------------------------- */

START_TEST(result_names)
{
    ck_assert_str_eq(tpks_result_name(TPKS_OK), "ok");
    ck_assert_str_eq(tpks_result_name(TPKS_KEK_MISSING), "kek-missing");
    ck_assert_str_eq(tpks_result_name(TPKS_UNINITIALIZED), "uninitialized");
    ck_assert_str_eq(tpks_result_name(TPKS_INTERNAL), "internal");
    ck_assert_str_eq(tpks_result_name((tpks_result)27), "unknown");
    ck_assert_str_eq(tpks_result_name((tpks_result)-1), "unknown");
    for (int i = 0; i <= TPKS_KEY_MISSING; i++)
        ck_assert_str_ne(tpks_result_name((tpks_result)i), "unknown");
}
END_TEST

START_TEST(contexts)
{
    expect(TPKS_BAD_INPUT, fail(TPKS_BAD_INPUT, "no %s", "luck"));
    ck_assert_str_eq(tpks_error_text(), "no luck");
    expect(TPKS_CONFLICT, fail_in(TPKS_CONFLICT, "line %d", 7));
    ck_assert_str_eq(tpks_error_text(), "line 7: no luck");
    expect_ok(fail_in(TPKS_OK, "not this"));
    ck_assert_str_eq(tpks_error_text(), "line 7: no luck");
    expect(TPKS_INTERNAL, fail(TPKS_INTERNAL, "because of (%s)", tpks_error_text()));
    ck_assert_str_eq(tpks_error_text(), "because of (line 7: no luck)");
}
END_TEST

START_TEST(texts_are_safe_to_print)
{
    expect(TPKS_INTERNAL,
           fail(TPKS_INTERNAL, "%s", "a\x1B[31m\n\x7F\xFF\xC2\x9B\xE2\x80\xAE\xC3\xA4"));
    ck_assert_str_eq(tpks_error_text(),
                     "a\\x1b[31m\\x0a\\x7f\\xff\\xc2\\x9b\\xe2\\x80\\xae\xC3\xA4");
}
END_TEST

START_TEST(long_texts_are_cut_between_characters)
{
    char text[5000];
    size_t characters;

    for (size_t i = 0; i + 2 < sizeof(text); i += 2)
        memcpy(text + i, "\xC3\xA4", 3);
    expect(TPKS_INTERNAL, fail(TPKS_INTERNAL, "x%s", text));
    ck_assert_uint_gt(strlen(tpks_error_text()), 1000);
    ck_assert(text_count(tpks_error_text(), strlen(tpks_error_text()), &characters));
    for (int i = 0; i < 50; i++)
        expect(TPKS_INTERNAL, fail_in(TPKS_INTERNAL, "%d %s", i, text));
    ck_assert_uint_lt(strlen(tpks_error_text()), 1024);
    memset(text, '\x01', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    expect(TPKS_INTERNAL, fail(TPKS_INTERNAL, "%s", text));
    ck_assert_uint_lt(strlen(tpks_error_text()), 1024);
}
END_TEST

START_TEST(libcrypto_queue_is_given_back)
{
    ERR_clear_error();
    ERR_raise(ERR_LIB_PEM, 100);
    {
        CRYPTO_SCOPE;
        ERR_raise(ERR_LIB_EVP, ERR_R_MALLOC_FAILURE);
        {
            /* a nested scope, as when one function of ours calls another */
            int inner = crypto_scope_begin();

            ERR_raise(ERR_LIB_RSA, ERR_R_MALLOC_FAILURE);
            crypto_scope_end(&inner);
        }
        expect(TPKS_INTERNAL, fail_crypto(TPKS_INTERNAL, "cipher"));
        ck_assert_int_eq(strncmp(tpks_error_text(), "cipher: ", 8), 0);
        ck_assert_int_eq(ERR_GET_LIB(ERR_peek_last_error()), ERR_LIB_EVP);
    }
    ck_assert_int_eq(ERR_GET_LIB(ERR_peek_last_error()), ERR_LIB_PEM);
    ck_assert_int_eq(ERR_GET_LIB(ERR_get_error()), ERR_LIB_PEM);
    ck_assert_uint_eq(ERR_get_error(), 0);
    {
        CRYPTO_SCOPE;
        ERR_raise(ERR_LIB_EVP, ERR_R_MALLOC_FAILURE);
    }
    ck_assert_uint_eq(ERR_get_error(), 0);
    expect(TPKS_INTERNAL, fail_crypto(TPKS_INTERNAL, "cipher"));
    expect_text("no reason");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("secret");
    TCase *memory = tcase_create("memory"), *files = tcase_create("files");
    TCase *password = tcase_create("password"), *error = tcase_create("error");

    tcase_add_test(memory, new_is_zero);
    tcase_add_test(memory, too_large_is_null);
    tcase_add_test(memory, empty_secret);
    tcase_add_test(memory, shrink_wipes_the_rest);
    tcase_add_test(memory, locked_and_not_dumped);
    tcase_add_test(memory, secrets_do_not_share_pages);
    tcase_add_test(files, one_line_end_is_stripped);
    tcase_add_test(files, limits_of_size);
    tcase_add_test(files, modes);
    tcase_add_test(files, owners);
    tcase_add_test(files, kinds_of_file);
    tcase_add_test(files, descriptors);
    tcase_add_test(password, passwords);
    tcase_add_test(password, password_is_not_in_the_text);
    tcase_add_test(error, result_names);
    tcase_add_test(error, contexts);
    tcase_add_test(error, texts_are_safe_to_print);
    tcase_add_test(error, long_texts_are_cut_between_characters);
    tcase_add_test(error, libcrypto_queue_is_given_back);
    suite_add_tcase(suite, memory);
    suite_add_tcase(suite, files);
    suite_add_tcase(suite, password);
    suite_add_tcase(suite, error);
    return run(suite);
}
