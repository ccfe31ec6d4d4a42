/*
 * plan.h - what a URI yields, in order
 *
 * OSSL_STORE loaders must say that they are at the end no later than with the last object, so the
 * whole plan is made before the first object is given out. Making it needs no unlocking.
 */
#ifndef TRUSTPOINT_PLAN_H
#define TRUSTPOINT_PLAN_H

#include <openssl/bn.h>
#include <openssl/params.h>

#include "load.h"

/* What the program wants besides the URI: OSSL_STORE_expect(3) and OSSL_STORE_find(3). */
typedef struct wish {
    int expect; /* OSSL_STORE_INFO_..., 0 for everything */
    unsigned char *subject;
    size_t subject_size;
    unsigned char *issuer;
    size_t issuer_size;
    BIGNUM *serial;
    unsigned char *fingerprint;
    size_t fingerprint_size;
    char *digest;
    char *alias;
} WISH;

/* Takes what it knows among a loader's parameters; returns 0 when memory is short. */
int wish_set(WISH *wish, const OSSL_PARAM params[]);
void wish_clear(WISH *wish);

typedef enum item_kind {
    ITEM_NAME,
    ITEM_PRIVATE_KEY,
    ITEM_PUBLIC_KEY,
    ITEM_CERTIFICATE,
    ITEM_ERROR /* of a record that can't be read; behind all others, whom it must not hide */
} ITEM_KIND;

typedef struct item {
    ITEM_KIND kind;
    char *uri;                 /* ITEM_NAME */
    char *description;         /* ITEM_NAME; ITEM_ERROR: the text */
    const TPKS_RECORD *record; /* the others */
    size_t certificate;        /* ITEM_CERTIFICATE: its number */
    tpks_result result;        /* ITEM_ERROR: the reason */
} ITEM;

typedef struct plan PLAN;

/* NULL after raising an error, which includes a URI under which there is nothing of what is wanted.
 */
PLAN *plan_new(CONTEXT *context, const SOURCE *source, const TPKS_URI *uri, const WISH *wish);
void plan_free(PLAN *plan);
size_t plan_size(const PLAN *plan);
const ITEM *plan_item(const PLAN *plan, size_t i);

#endif
