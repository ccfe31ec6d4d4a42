/*
 * secret.c - secrets in memory of their own
 *
 * Each secret has its own mapping, so that locking, leaving it out of core dumps (madvise(2)) and
 * unmapping never touch a neighbour's pages.
 */
#include "keystore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "error.h"
#include "password.h"
#include "secret.h"
#include "text.h"

#define PASSWORD_MIN_CHARACTERS 12
#define PASSWORD_MAX_BYTES 512
#define LINE_END_MAX 2 /* CR LF */

struct tpks_secret {
    size_t size;
    size_t mapped;
    unsigned char data[];
};

TPKS_SECRET *tpks_secret_new(size_t size)
{
    TPKS_SECRET *secret;
    size_t mapped;

    if (size > SIZE_MAX / 2)
        return NULL;
    mapped = sizeof(*secret) + size;
    secret = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (secret == MAP_FAILED)
        return NULL;
    /* Best effort: RLIMIT_MEMLOCK may be small, and sandboxes may refuse both. */
    (void)madvise(secret, mapped, MADV_DONTDUMP);
    (void)mlock(secret, mapped);
    secret->size = size;
    secret->mapped = mapped;
    return secret;
}

TPKS_SECRET *tpks_secret_copy(const void *data, size_t size)
{
    TPKS_SECRET *secret = tpks_secret_new(size);

    if (secret != NULL && size > 0)
        memcpy(secret->data, data, size);
    return secret;
}

void tpks_secret_free(TPKS_SECRET *secret)
{
    size_t mapped;

    if (secret == NULL)
        return;
    mapped = secret->mapped;
    OPENSSL_cleanse(secret, mapped);
    (void)munmap(secret, mapped);
}

unsigned char *tpks_secret_data(TPKS_SECRET *secret)
{
    return secret->data;
}

const unsigned char *tpks_secret_data_const(const TPKS_SECRET *secret)
{
    return secret->data;
}

size_t tpks_secret_size(const TPKS_SECRET *secret)
{
    return secret->size;
}

void tpks_secret_shrink(TPKS_SECRET *secret, size_t size)
{
    if (size >= secret->size)
        return;
    OPENSSL_cleanse(secret->data + size, secret->size - size);
    secret->size = size;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    int kept = errno;

    if (*fd >= 0)
        (void)close(*fd);
    errno = kept;
}

/* Fills the secret from `fd` and shrinks it to what came. */
static tpks_result read_all(int fd, TPKS_SECRET *secret)
{
    size_t done = 0;

    while (done < secret->size) {
        ssize_t got = read(fd, secret->data + done, secret->size - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(TPKS_BAD_INPUT, "can't read: %s", strerror(errno));
        if (got == 0)
            break;
        done += (size_t)got;
    }
    tpks_secret_shrink(secret, done);
    return TPKS_OK;
}

static void strip_line_end(TPKS_SECRET *secret)
{
    size_t size = secret->size;

    if (size == 0 || secret->data[size - 1] != '\n')
        return;
    size--;
    if (size > 0 && secret->data[size - 1] == '\r')
        size--;
    tpks_secret_shrink(secret, size);
}

tpks_result tpks_secret_read_fd(int fd, size_t limit, TPKS_SECRET **out)
{
    SECRET *secret = NULL;

    /* Room for the line end, and for one byte more that shows that it is too long. */
    if (limit < SIZE_MAX - LINE_END_MAX - 1)
        secret = tpks_secret_new(limit + LINE_END_MAX + 1);
    if (secret == NULL)
        return fail_memory();
    TRY(read_all(fd, secret));
    if (secret->size <= limit + LINE_END_MAX)
        strip_line_end(secret);
    if (secret->size > limit)
        return fail(TPKS_BAD_INPUT, "longer than %zu bytes", limit);
    if (secret->size == 0)
        return fail(TPKS_BAD_INPUT, "empty: write the secret on its first line");
    *out = secret;
    secret = NULL;
    return TPKS_OK;
}

/* Others may never read it; a group only where root decided so by owning the file. */
static tpks_result check_readers(const char *path, const struct stat *status)
{
    if (!S_ISREG(status->st_mode))
        return fail(TPKS_BAD_INPUT, "%s: not a regular file", path);
    if (status->st_uid != 0 && status->st_uid != geteuid())
        return fail(
            TPKS_NOT_PERMITTED,
            "%s: belongs to user %lu, who is neither root nor the user %lu of this program; "
            "run: chown %lu %s",
            path, (unsigned long)status->st_uid, (unsigned long)geteuid(), (unsigned long)geteuid(),
            path);
    if ((status->st_mode & S_IRWXO) != 0)
        return fail(TPKS_NOT_PERMITTED,
                    "%s: mode %04o lets every user at this secret; run: chmod %s %s", path,
                    (unsigned)(status->st_mode & 07777), status->st_uid == 0 ? "o=" : "go=", path);
    if ((status->st_mode & S_IRWXG) != 0 && status->st_uid != 0)
        return fail(TPKS_NOT_PERMITTED,
                    "%s: mode %04o lets its group at this secret, which only root may allow; run: "
                    "chmod go= %s (or, to share it with the group: chown root %s)",
                    path, (unsigned)(status->st_mode & 07777), path, path);
    return TPKS_OK;
}

/* Symbolic links are followed (containers mount secrets so); what counts is the file itself. */
tpks_result tpks_secret_read_file(const char *path, size_t limit, TPKS_SECRET **out)
{
    /* O_NONBLOCK: a FIFO put in the file's place must not make a server wait. */
    __attribute__((cleanup(close_fd))) int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;
    tpks_result result;

    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return fail(TPKS_NOT_PERMITTED,
                    "%s: user %lu may not open it (%s); give it to that user (chown %lu %s) or to "
                    "root and a group of that user (mode 0640)",
                    path, (unsigned long)geteuid(), strerror(errno), (unsigned long)geteuid(),
                    path);
    if (fd < 0 || fstat(fd, &status) != 0)
        return fail(TPKS_BAD_INPUT, "%s: can't open: %s", path, strerror(errno));
    TRY(check_readers(path, &status));
    result = tpks_secret_read_fd(fd, limit, out);
    return fail_in(result, "%s", path);
}

/* ---- passwords ------------------------------------------------------------------------------- */

tpks_result tpks_password_check(const TPKS_SECRET *password)
{
    size_t characters;

    if (password->size > PASSWORD_MAX_BYTES)
        return fail(TPKS_BAD_INPUT, "the password is longer than %d bytes: choose a shorter one",
                    PASSWORD_MAX_BYTES);
    if (!text_count((const char *)password->data, password->size, &characters))
        return fail(TPKS_BAD_INPUT, "the password has a control character or is not UTF-8: nobody "
                                    "could be sure to type it again; choose another one");
    if (characters < PASSWORD_MIN_CHARACTERS)
        return fail(TPKS_BAD_INPUT,
                    "the password has fewer than %d characters: choose a longer one",
                    PASSWORD_MIN_CHARACTERS);
    if (recovery_key_looks_like(password))
        return fail(TPKS_BAD_INPUT, "the password begins as a recovery key does, and would be "
                                    "taken for one whenever it is typed: choose another one");
    return TPKS_OK;
}
