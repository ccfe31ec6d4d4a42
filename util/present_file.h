/*
 * present_file.h - what is in a file that another one is to replace
 */
#ifndef TRUSTPOINT_UTIL_PRESENT_FILE_H
#define TRUSTPOINT_UTIL_PRESENT_FILE_H

#include <sys/types.h>

#include <openssl/evp.h>

#include "command.h"

typedef enum present_kind {
    PRESENT_NONE,  /* no such file, or an empty one */
    PRESENT_CERTS, /* PEM certificates and nothing else */
    PRESENT_STUB,  /* a PEM stub and nothing else */
    PRESENT_KEY,   /* one PEM private key and nothing else */
    PRESENT_OTHER
} present_kind;

typedef struct present_file {
    present_kind kind;
    TPKS_SECRET *bytes; /* NULL: PRESENT_NONE */
    EVP_PKEY *key;      /* of PRESENT_KEY; NULL: encrypted, or not a key that can be read */
    int fd;             /* -1: PRESENT_NONE */
    bool linked;        /* it has other names too */
} present_file;

/*
 * Looks at a regular file of at most 1 MiB; asks for no password. With `writable` its bytes can be
 * wiped afterwards. A symbolic link is an error: what it leads to would stay.
 */
int present_file_read(APP *app, const char *path, bool writable, present_file *out);
/* Are these its bytes? */
bool present_file_equals(const present_file *file, const char *data, size_t size);
/* Overwrites its bytes, under whatever name it has now. */
int present_file_wipe(const present_file *file, const char *path);
void present_file_free(present_file *file);

#endif
