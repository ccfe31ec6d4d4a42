/*
 * policy.h - options that say what a key may be used for
 */
#ifndef TRUSTPOINT_UTIL_POLICY_H
#define TRUSTPOINT_UTIL_POLICY_H

#include "command.h"

typedef struct policy_options {
    bool allow_decrypt, no_decrypt, allow_agree, no_agree;
} policy_options;

#define POLICY_ALLOW_OPTIONS(o)                                                                    \
    {"allow-decrypt", OPTION_FLAG, &(o).allow_decrypt, NULL, "the key may decrypt"},               \
    {                                                                                              \
        "allow-agree", OPTION_FLAG, &(o).allow_agree, NULL, "the key may agree on secrets (ECDH)"  \
    }
#define POLICY_FORBID_OPTIONS(o)                                                                   \
    {"no-decrypt", OPTION_FLAG, &(o).no_decrypt, NULL, "the key may not decrypt"},                 \
    {                                                                                              \
        "no-agree", OPTION_FLAG, &(o).no_agree, NULL, "the key may not agree on secrets"           \
    }

/* `present` (TPKS_MAY_...) with what the options change. */
static inline unsigned policy_of(const policy_options *options, unsigned present)
{
    if (options->allow_decrypt)
        present |= TPKS_MAY_DECRYPT;
    if (options->allow_agree)
        present |= TPKS_MAY_AGREE;
    if (options->no_decrypt)
        present &= ~(unsigned)TPKS_MAY_DECRYPT;
    if (options->no_agree)
        present &= ~(unsigned)TPKS_MAY_AGREE;
    return present;
}

#endif
