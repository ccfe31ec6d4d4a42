/*
 * cache.h - unlocked handles that wait for the next load
 *
 * With hsm-session = process a program loads many keys: what opening and unlocking cost is then
 * paid once. A handle is used by one thread at a time; idle ones wait here. They are closed before
 * a fork (pthread_atfork(3)), so that no child inherits a database.
 */
#ifndef TRUSTPOINT_CACHE_H
#define TRUSTPOINT_CACHE_H

#include "keystore_internal.h"

/* An idle handle for these options, its header as fresh as the database's; NULL: open one. */
TPKS *cache_take(const tpks_options *options);
/* Keeps a handle that nobody uses any more. False: it is not one to keep, the caller frees it. */
bool cache_give(TPKS *ks);

#endif
