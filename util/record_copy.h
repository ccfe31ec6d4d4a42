/*
 * record_copy.h - one record from one keystore into another
 */
#ifndef TRUSTPOINT_UTIL_RECORD_COPY_H
#define TRUSTPOINT_UTIL_RECORD_COPY_H

#include "command.h"

/* What becomes, or has become, of a record. */
typedef enum copy_action {
    COPY_NEW,       /* there was none of that name */
    COPY_CERTS,     /* the same key with other certificates: these are renewed */
    COPY_REPLACED,  /* another key, which was to be replaced */
    COPY_UNCHANGED, /* it is there already */
    COPY_CONFLICT,  /* another key, which is left alone */
    COPY_ADOPTED,   /* the key stays in the token, which this keystore uses too */
    COPY_IN_TOKEN,  /* the key stays in a token that this keystore does not use */
    COPY_NO_KEY,    /* certificates without a private key */
    COPY_FAILED,
    COPY_ACTIONS
} copy_action;

/* "copied", "certificates", "replaced", "unchanged", "conflict", "adopted", "in-token", "no-key",
 * "failed". */
const char *copy_action_name(copy_action action);

typedef struct copy_params {
    OSSL_LIB_CTX *libctx;
    TPKS *from;
    TPKS *to;       /* open for changes, unless only planning */
    bool replace;   /* another key under the same name too */
    bool plan;      /* only say what would become of it */
    bool has_token; /* `to` has a token configured */
    unsigned more;  /* TPKS_MAY_...: what a copied key may do besides */
} copy_params;

typedef struct copy_item {
    unsigned char id[TPKS_ID_SIZE]; /* in the keystore it comes from */
    char *name;                     /* there */
    char *target;                   /* its name here */
    copy_action action;
    tpks_result result; /* why it failed */
    char *why;          /* the same in words; NULL: it has not */
} copy_item;

/*
 * Copies one record, in the transaction that is under way, if any, and reads the key back. What is
 * set on failure is `action`, `result` and `why` of the item too; the result says whether it is
 * worth going on with other records: a failure that is not this record's own is returned.
 */
tpks_result record_copy(const copy_params *params, copy_item *item);
void copy_item_clear(copy_item *item);

#endif
