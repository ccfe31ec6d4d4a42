/*
 * file.h - small files that must be whole or not there
 */
#ifndef TRUSTPOINT_FILE_H
#define TRUSTPOINT_FILE_H

#include <sys/types.h>

#include "keystore.h"

#define PATH_SIZE 4096

/* Lower-case hex with a NUL: 2 * size + 1 characters. */
void hex_text(const unsigned char *data, size_t size, char *out);

/*
 * A file with this content in place of what may be there, at once and on disk when it returns
 * (temporary file, fsync, rename, fsync of the folder).
 */
TPKS_CHECK tpks_result file_replace(const char *path, mode_t mode, const void *data, size_t size);
/*
 * The file that `path` comes to, without symbolic links; NULL: it is not there, or others than root
 * and this process's user can change it or put another one in its place. OPENSSL_free() it.
 */
char *file_of_ours(const char *path);
/* Makes a folder and its parents when missing; `mode` for the last one. */
TPKS_CHECK tpks_result folder_make(const char *path, mode_t mode);

#endif
