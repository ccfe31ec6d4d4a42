/*
 * new_file.h - writing files that are whole or not there
 *
 * Paths may be anything that open(2) takes. Everything is on disk when a function returns.
 */
#ifndef TRUSTPOINT_UTIL_NEW_FILE_H
#define TRUSTPOINT_UTIL_NEW_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* A file that was not there before, of that mode as far as the umask allows. */
int new_file_write(const char *path, mode_t mode, const char *data, size_t size);
/*
 * A file of exactly that mode in place of what may be there: written beside it, then renamed, so
 * that who opens it finds the old one or the new one. A symbolic link is replaced, not followed.
 */
int new_file_replace(const char *path, mode_t mode, const char *data, size_t size);
/* Overwrites the first `size` bytes of an open file with zeros. Returns -1 and errno on failure. */
int new_file_wipe(int fd, off_t size);
/* Makes a change of the entries of the folder that `path` lies in durable. */
int new_file_sync_folder(const char *path);

#endif
