/*
 * new_file.c - writing files that are whole or not there
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "new_file.h"

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);

        if (written < 0 && errno != EINTR)
            return -1;
        data += written > 0 ? written : 0;
        size -= written > 0 ? (size_t)written : 0;
    }
    return 0;
}

/* A half-written file is worse than none: it is removed again. */
static int fill(int fd, const char *path, const char *data, size_t size)
{
    bool written = write_all(fd, data, size) == 0 && fsync(fd) == 0;

    if (close(fd) == 0 && written)
        return EX_OK;
    complain_file("cannot write", path);
    unlink(path);
    return EX_OSERR;
}

int new_file_write(const char *path, mode_t mode, const char *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    return fd >= 0 ? fill(fd, path, data, size) : complain_file("cannot create", path);
}

/* Of exactly that mode, whatever the umask. */
static int write_beside(const char *path, mode_t mode, const char *data, size_t size)
{
    int fd;

    unlink(path); /* left by a killed process that had our number */
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return complain_file("cannot create", path);
    if (fchmod(fd, mode) == 0)
        return fill(fd, path, data, size);
    complain_file("cannot set the mode of", path);
    close(fd);
    unlink(path);
    return EX_OSERR;
}

int new_file_replace(const char *path, mode_t mode, const char *data, size_t size)
{
    char *beside = NULL;
    int code;

    if (asprintf(&beside, "%s.%ld.new", path, (long)getpid()) < 0)
        return complain_memory();
    code = write_beside(beside, mode, data, size);
    if (code == EX_OK && rename(beside, path) != 0) {
        code = complain_file("cannot replace", path);
        unlink(beside);
    }
    free(beside);
    return code == EX_OK ? new_file_sync_folder(path) : code;
}

int new_file_wipe(int fd, off_t size)
{
    static const char zeros[4096];

    while (size > 0) {
        size_t part = size > (off_t)sizeof(zeros) ? sizeof(zeros) : (size_t)size;
        ssize_t written = write(fd, zeros, part);

        if (written < 0 && errno != EINTR)
            return -1;
        size -= written > 0 ? written : 0;
    }
    return fsync(fd);
}

int new_file_sync_folder(const char *path)
{
    char *copy = strdup(path);
    int fd = copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int code = fd >= 0 && fsync(fd) == 0 ? EX_OK : complain_file("cannot sync the folder of", path);

    if (fd >= 0)
        close(fd);
    free(copy);
    return code;
}
