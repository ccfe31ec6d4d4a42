/*
 * config_write.h - writes the first configuration file of a host
 */
#ifndef TRUSTPOINT_UTIL_CONFIG_WRITE_H
#define TRUSTPOINT_UTIL_CONFIG_WRITE_H

#include "command.h"

/* What goes into the file; NULL: the directive is left out. */
typedef struct config_values {
    const char *store;
    const char *token;
    const char *state;
} config_values;

/*
 * Writes the configuration file (mode 0640, group trustpoint if there is one) when it does not
 * exist, and reads it. *wrote says whether there is a new file now, also after a failure. Where
 * there was one, the values must not contradict it.
 */
int config_prepare(APP *app, const config_values *values, bool software, bool *wrote);
/* Does the configured database exist as a file? */
bool config_keystore_exists(APP *app);
/* Removes the file that config_prepare() wrote. */
void config_remove(APP *app);

/* The file of a "sqlite:" store; NULL for other stores. Points into `store`. */
const char *config_store_path(const char *store);
/* The path of the configuration file in use. */
const char *config_path(const APP *app);

#endif
