/* file.c - writing small files durably */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

void hex_text(const unsigned char *data, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * size] = '\0';
}

static tpks_result fail_file(const char *what, const char *path)
{
    tpks_result result = TPKS_DATABASE_UNAVAILABLE;

    if (errno == EEXIST)
        result = TPKS_EXISTS;
    else if (errno == EACCES || errno == EPERM || errno == EROFS)
        result = TPKS_NOT_PERMITTED;
    return fail(result, "can't %s %s: %s", what, path, strerror(errno));
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        data += done;
        size -= (size_t)done;
    }
    return true;
}

/* Makes a change of the folder's entries durable. */
static tpks_result sync_folder_of(const char *path)
{
    char folder[PATH_SIZE];

    snprintf(folder, sizeof(folder), "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        strcpy(folder, ".");
    else if (slash == folder)
        folder[1] = '\0';
    else
        *slash = '\0';
    __attribute__((cleanup(close_fd))) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        return fail_file("sync", folder);
    return TPKS_OK;
}

static tpks_result write_new(const char *path, mode_t mode, const void *data, size_t size)
{
    __attribute__((cleanup(close_fd))) int fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

    if (fd < 0)
        return fail_file("create", path);
    /* The mode is the one asked for, whatever the umask. */
    if (fchmod(fd, mode) != 0 || !write_all(fd, data, size) || fsync(fd) != 0) {
        tpks_result result = fail_file("write", path);
        unlink(path);
        return result;
    }
    return TPKS_OK;
}

tpks_result file_replace(const char *path, mode_t mode, const void *data, size_t size)
{
    char temporary[PATH_SIZE + 32];

    snprintf(temporary, sizeof(temporary), "%s.%ld.new", path, (long)getpid());
    unlink(temporary); /* left by a killed process that had our number */
    TRY(write_new(temporary, mode, data, size));
    if (rename(temporary, path) != 0) {
        tpks_result result = fail_file("replace", path);
        unlink(temporary);
        return result;
    }
    return sync_folder_of(path);
}

tpks_result folder_make(const char *path, mode_t mode)
{
    char part[PATH_SIZE];

    if (strlen(path) >= sizeof(part))
        return fail(TPKS_BAD_CONFIG, "the path %.40s... is too long", path);
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return fail_file("make the folder", part);
    }
    if (mkdir(path, mode) == 0)
        return chmod(path, mode) == 0 ? TPKS_OK : fail_file("set the mode of", path);
    return errno == EEXIST ? TPKS_OK : fail_file("make the folder", path);
}

/* In a sticky folder others can't touch what is not theirs. */
static bool only_we_write(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0 || (info.st_uid != 0 && info.st_uid != geteuid()))
        return false;
    return (info.st_mode & (S_IWGRP | S_IWOTH)) == 0 ||
           (S_ISDIR(info.st_mode) && (info.st_mode & S_ISVTX) != 0);
}

/* From the file up to the root; `path` is cut on the way. */
static bool only_we_write_up(char *path)
{
    for (char *slash = strrchr(path, '/'); slash != NULL; slash = strrchr(path, '/')) {
        if (!only_we_write(path))
            return false;
        *slash = '\0';
    }
    return only_we_write("/");
}

char *file_of_ours(const char *path)
{
    char real[PATH_SIZE], cut[PATH_SIZE];

    if (realpath(path, real) == NULL)
        return NULL;
    memcpy(cut, real, sizeof(cut));
    return only_we_write_up(cut) ? OPENSSL_strdup(real) : NULL;
}
