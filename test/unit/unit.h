/*
 * unit.h - what the unit tests share: expectations about results, scratch files, the runner
 */
#ifndef TRUSTPOINT_UNIT_H
#define TRUSTPOINT_UNIT_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <check.h>

/* An obsolete macro of Check, in the way of the function in error.h. */
#undef fail

#include "keystore.h"

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#define ADDRESS_SANITIZER __has_feature(address_sanitizer)
#else
#define ADDRESS_SANITIZER 0
#endif

/* The result is `expected`; otherwise the error text is shown. */
#define expect(expected, expression)                                                               \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == (expected), "%s: got %s (%s), not %s", #expression,                  \
                      tpks_result_name(got_), tpks_error_text(), tpks_result_name(expected));      \
    } while (0)
#define expect_ok(expression) expect(TPKS_OK, expression)

/* The last error text contains `part`. */
#define expect_text(part)                                                                          \
    ck_assert_msg(strstr(tpks_error_text(), part) != NULL, "\"%s\" is not in \"%s\"", part,        \
                  tpks_error_text())

/* Check's own four seconds for a test are not many on a machine that has other things to do. */
__attribute__((constructor)) static void be_patient(void)
{
    setenv("CK_DEFAULT_TIMEOUT", "120", 0);
}

/* A folder that is gone, with all that is in it, when the test program ends. */
static inline const char *scratch(void)
{
    static char folder[] = "/tmp/tpks-unit-XXXXXX";
    static int made;

    /* Check's assertions work in tests only. */
    if (!made && mkdtemp(folder) == NULL)
        abort();
    made = 1;
    return folder;
}

static inline void scratch_remove(void)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf '%s'", scratch());
    if (system(command) != 0)
        abort();
}

/* Writes a file in the scratch folder and returns its path, valid until the next call. */
static inline const char *write_file(const char *name, const void *data, size_t size, mode_t mode)
{
    static char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", scratch(), name);
    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    ck_assert_int_eq(close(fd), 0);
    return path;
}

static inline TPKS_SECRET *secret_of(const char *text)
{
    TPKS_SECRET *secret = tpks_secret_copy(text, strlen(text));

    ck_assert_ptr_nonnull(secret);
    return secret;
}

/* Runs the suite, each test in a process of its own unless CK_FORK=no. */
static inline int run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    (void)scratch();
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    scratch_remove();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
