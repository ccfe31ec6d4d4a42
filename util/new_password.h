/*
 * new_password.h - a new password for a slot, and what it may cost to try one
 */
#ifndef TRUSTPOINT_UTIL_NEW_PASSWORD_H
#define TRUSTPOINT_UTIL_NEW_PASSWORD_H

#include "command.h"

typedef struct new_password {
    const char *file; /* --new-password-file */
    unsigned long fd; /* --new-password-fd; NO_FD: not given */
    unsigned long kdf_memory, kdf_passes;
} new_password;

#define NEW_PASSWORD_OPTIONS(p)                                                                    \
    {"new-password-file", OPTION_TEXT, &(p).file, "FILE", "the new password"},                     \
        {"new-password-fd", OPTION_NUMBER, &(p).fd, "N", "the new password"},                      \
        {"kdf-memory", OPTION_NUMBER, &(p).kdf_memory, "MIB", "memory of Argon2id"},               \
    {                                                                                              \
        "kdf-passes", OPTION_NUMBER, &(p).kdf_passes, "N", "passes of Argon2id"                    \
    }

/* Both given or neither, within bounds. EX_USAGE. *cost is all zero for the default. */
int kdf_cost_of(unsigned long memory_mib, unsigned long passes, tpks_kdf_cost *cost);
/* From the options, or asked for twice on the terminal. */
int new_password_get(const new_password *options, TPKS_SECRET **out, tpks_kdf_cost *cost);
/*
 * Prints a recovery key on standard output, once; with `qr` as a QR code below it, too. When that
 * fails nobody has the key, nothing of it is printed later, and SIGPIPE stays ignored, so that the
 * caller lives to undo what it made.
 */
int recovery_key_print(const TPKS_SECRET *key, bool qr);
#define QR_OPTION(target)                                                                          \
    {                                                                                              \
        "qr", OPTION_FLAG, &(target), NULL, "the recovery key as a QR code below it, too"          \
    }

#endif
