/*
 * secret.h - secrets that end with the block they are declared in
 */
#ifndef TRUSTPOINT_SECRET_H
#define TRUSTPOINT_SECRET_H

#include "keystore.h"

static inline void secret_free_at(TPKS_SECRET **secret)
{
    tpks_secret_free(*secret);
}

/* SECRET *name = ...: wiped and freed on every way out of the block. */
#define SECRET __attribute__((cleanup(secret_free_at))) TPKS_SECRET

#endif
