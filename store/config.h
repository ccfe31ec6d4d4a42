/*
 * config.h - what the rest of the library asks the configuration beyond keystore.h
 */
#ifndef TRUSTPOINT_CONFIG_H
#define TRUSTPOINT_CONFIG_H

#include "keystore.h"

#define KEYSTORE_NAME_MAX 32

/* May this be the NAME of a section [keystore_NAME]: 1 to 32 of a-z, 0-9, '_' and '-'? */
bool config_keystore_name_ok(const char *name);

/*
 * Does the directive `allow` of keystore `keystore` (NULL or "" for [keystore]) cover the record
 * name `name` (percent-decoded)? False also when there is no such keystore. Any thread may call it.
 */
bool config_allows(const TPKS_CONFIG *config, const char *keystore, const char *name);

/* The same for the directive `decrypt`. */
bool config_lets_decrypt(const TPKS_CONFIG *config, const char *keystore, const char *name);

/* Another owner; each ends with tpks_config_free(). Any thread may call both. */
TPKS_CONFIG *config_up_ref(const TPKS_CONFIG *config);

/* Do two configurations, read at different times perhaps, say the same about `keystore`? */
bool config_same(const TPKS_CONFIG *a, const TPKS_CONFIG *b, const char *keystore);

#endif
