/*
 * present_file.c - what is in a file that another one is to replace
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "new_file.h"
#include "output.h"
#include "present_file.h"

#define PRESENT_MAX (1024 * 1024)

void present_file_free(present_file *file)
{
    EVP_PKEY_free(file->key);
    tpks_secret_free(file->bytes);
    if (file->fd >= 0)
        close(file->fd);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int open_present(const char *path, bool writable, present_file *file, struct stat *st)
{
    int access = writable ? O_RDWR : O_RDONLY;

    *st = (struct stat){.st_size = 0};
    file->fd = open(path, access | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file->fd < 0 && errno == ENOENT)
        return EX_OK;
    if (file->fd < 0 && errno == ELOOP)
        return complain(EX_DATAERR, "%s is a symbolic link: name the folder that it leads to",
                        path);
    if (file->fd < 0 || fstat(file->fd, st) != 0)
        return complain_file("cannot read", path);
    if (!S_ISREG(st->st_mode) || st->st_size > PRESENT_MAX)
        return complain(EX_DATAERR, "%s is no key or certificate file: it is not replaced", path);
    file->linked = st->st_nlink > 1;
    return EX_OK;
}

static int read_bytes(const char *path, present_file *file, size_t size)
{
    size_t done = 0;
    ssize_t count = 1;

    file->bytes = tpks_secret_new(size);
    if (file->bytes == NULL)
        return complain_memory();
    while (count != 0 && done < size) {
        count = read(file->fd, tpks_secret_data(file->bytes) + done, size - done);
        if (count < 0 && errno != EINTR)
            return complain_file("cannot read", path);
        done += count > 0 ? (size_t)count : 0;
    }
    tpks_secret_shrink(file->bytes, done);
    return EX_OK;
}

static BIO *bytes_bio(const present_file *file)
{
    return BIO_new_mem_buf(tpks_secret_data_const(file->bytes), (int)tpks_secret_size(file->bytes));
}

/* ---- what it is
 * --------------------------------------------------------------------------------- */

static present_kind kind_of_block(const char *label, const unsigned char *data, long size)
{
    if (strcmp(label, TPKS_STUB_LABEL) == 0 || tpks_stub_looks_like(data, (size_t)size))
        return PRESENT_STUB;
    if (strstr(label, "PRIVATE KEY") != NULL)
        return PRESENT_KEY;
    return strcmp(label, PEM_STRING_X509) == 0 ? PRESENT_CERTS : PRESENT_OTHER;
}

/* The kind of the next block; PRESENT_NONE when there is none. What can't be parsed may be
 * anything. */
static present_kind next_kind(BIO *bio)
{
    char *label = NULL, *header = NULL;
    unsigned char *data = NULL;
    long size = 0;
    present_kind kind = PRESENT_OTHER;

    ERR_clear_error();
    if (PEM_read_bio(bio, &label, &header, &data, &size) == 1)
        kind = kind_of_block(label, data, size);
    else if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        kind = PRESENT_NONE;
    OPENSSL_free(label);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, (size_t)size);
    return kind;
}

/* Several certificates are one file of them; any other mixture is somebody's own affair. */
static present_kind kind_of(const present_file *file)
{
    AUTO(bio) BIO *bio = bytes_bio(file);
    present_kind first = bio != NULL ? next_kind(bio) : PRESENT_NONE;
    present_kind kind = first == PRESENT_NONE ? PRESENT_OTHER : first;
    present_kind next;

    while (kind != PRESENT_OTHER && (next = next_kind(bio)) != PRESENT_NONE)
        if (next != PRESENT_CERTS || first != PRESENT_CERTS)
            kind = PRESENT_OTHER;
    ERR_clear_error();
    return kind;
}

static int no_password(char *buffer, int size, int rwflag, void *arg)
{
    (void)buffer, (void)size, (void)rwflag, (void)arg;
    return -1;
}

static EVP_PKEY *parse_key(APP *app, const present_file *file)
{
    AUTO(bio) BIO *bio = bytes_bio(file);
    EVP_PKEY *key = NULL;

    if (bio != NULL)
        key = PEM_read_bio_PrivateKey_ex(bio, NULL, no_password, NULL, app->libctx, NULL);
    ERR_clear_error();
    return key;
}

int present_file_read(APP *app, const char *path, bool writable, present_file *out)
{
    struct stat st;

    *out = (present_file){.kind = PRESENT_NONE, .fd = -1};
    DO(open_present(path, writable, out, &st));
    if (st.st_size == 0)
        return EX_OK;
    DO(read_bytes(path, out, (size_t)st.st_size));
    out->kind = kind_of(out);
    if (out->kind == PRESENT_KEY)
        out->key = parse_key(app, out);
    return EX_OK;
}

bool present_file_equals(const present_file *file, const char *data, size_t size)
{
    return file->bytes != NULL && tpks_secret_size(file->bytes) == size &&
           memcmp(tpks_secret_data_const(file->bytes), data, size) == 0;
}

int present_file_wipe(const present_file *file, const char *path)
{
    off_t size = file->bytes != NULL ? (off_t)tpks_secret_size(file->bytes) : 0;

    if (file->fd < 0)
        return EX_OK;
    if (file->linked)
        say("the file that was %s has other names, which are empty of the key now", path);
    if (lseek(file->fd, 0, SEEK_SET) != 0 || new_file_wipe(file->fd, size) != 0)
        return complain_file("the stub is there, but the old bytes were not overwritten of", path);
    return EX_OK;
}
