/*
 * backend_load.h - finding the storage plugin of a `store` directive
 */
#ifndef TRUSTPOINT_BACKEND_LOAD_H
#define TRUSTPOINT_BACKEND_LOAD_H

#include "backend.h"

/*
 * Splits `store` ("sqlite:/var/lib/trustpoint/keystore.db") at its first colon and finds the
 * plugin of that name ([a-z0-9]+, at most 31 bytes) in the compiled-in plugin folder: loaded with
 * dlopen(3) on first use, checked for its ABI number and name, and kept until the process ends.
 * *location is the rest of `store` and lives as long as `store` does.
 *
 * TPKS_BAD_CONFIG: not NAME:LOCATION, no such plugin (the text has the path), or not one of ours.
 * Any thread may call it at any time; no lock is held, so that a fork can never inherit one.
 */
TPKS_CHECK tpks_result backend_find(const char *store, const tpks_backend **backend,
                                    const char **location);

#endif
