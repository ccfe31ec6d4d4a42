/*
 * passthrough.h - the default provider's own functions, with ours in place of a few
 *
 * Signatures, decryption and key agreement are done by the code of OpenSSL's default provider:
 * its function tables are taken over as they are, except for the functions that are given a
 * provider context or a key, which are ours and hand on what lies inside. So every padding, digest
 * and parameter that the installed OpenSSL knows works. OpenSSL says what each function number
 * means in provider-signature(7), provider-asym_cipher(7), provider-keyexch(7) and
 * provider-keymgmt(7).
 *
 * The tables belong to the process, not to a CONTEXT, because the functions in them are not told
 * which context they work for. That is sound: the default provider is part of libcrypto, so it has
 * the same functions in every library context.
 */
#ifndef TRUSTPOINT_PASSTHROUGH_H
#define TRUSTPOINT_PASSTHROUGH_H

#include "context.h"

/* Function numbers of every operation we offer are below this. */
#define PASSTHROUGH_FUNCTIONS 48

typedef void passthrough_fn(void);

typedef struct passthrough {
    /* The default provider's functions by number; NULL where it has none. */
    passthrough_fn *original[PASSTHROUGH_FUNCTIONS];
    /* What we register. */
    OSSL_DISPATCH table[PASSTHROUGH_FUNCTIONS];
} PASSTHROUGH;

/* One algorithm whose table is to be taken over. */
typedef struct takeover {
    PASSTHROUGH *into;
    int operation;    /* OSSL_OP_... */
    const char *name; /* one of its names in the default provider */
    /*
     * The last function number we know. Later ones are left out: a function that takes a key or
     * a context and that we did not replace would be handed one of ours.
     */
    int last;
    const OSSL_DISPATCH *ours; /* replace the default provider's where it has them */
} TAKEOVER;

/* Fills the tables of a list that ends with a NULL `into`; only the first call in a process does
 * anything. */
void passthrough_fill(const CONTEXT *context, const TAKEOVER *list);

/* The default provider's function number `id` as `type`; NULL if it has none. */
#define ORIGINAL(passthrough, id, type) ((type *)(passthrough)->original[id])

#endif
