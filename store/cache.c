/* cache.c - unlocked handles between two loads of one process */
#include "cache.h"

#include <pthread.h>
#include <string.h>

#define IDLE_MAX 8

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static TPKS *idle[IDLE_MAX];

/* Takes the first handle that suits (NULL options: any) out of the list. */
static TPKS *take(const tpks_options *options)
{
    const char *section =
        options == NULL || options->keystore == NULL ? "" : options->keystore;
    TPKS *found = NULL;

    pthread_mutex_lock(&mutex);
    for (int i = 0; i < IDLE_MAX && found == NULL; i++) {
        TPKS *ks = idle[i];
        if (ks == NULL || (options != NULL && (ks->config != options->config ||
                                               ks->libctx != options->libctx ||
                                               strcmp(ks->section, section) != 0)))
            continue;
        found = ks;
        idle[i] = NULL;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

static void close_all(void)
{
    for (TPKS *ks = take(NULL); ks != NULL; ks = take(NULL))
        keystore_free(ks);
}

static void watch_forks(void)
{
    pthread_atfork(close_all, NULL, NULL);
}

TPKS *cache_take(const tpks_options *options)
{
    if (options->access != TPKS_LOAD)
        return NULL;
    for (TPKS *ks = take(options); ks != NULL; ks = take(options)) {
        ks->ask = options->ask;
        ks->ask_arg = options->ask_arg;
        ks->no_restore = options->no_restore;
        if (!ks->d.backend->moved(ks->d.db) && keystore_refresh(ks) == TPKS_OK)
            return ks;
        keystore_free(ks);
    }
    return NULL;
}

bool cache_give(TPKS *ks)
{
    bool kept = false;

    if (ks->access != TPKS_LOAD || ks->dek == NULL || ks->suspect ||
        strcmp(keystore_setting(ks, "hsm-session"), "process") != 0)
        return false;
    ks->ask = NULL;
    ks->ask_arg = NULL;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < IDLE_MAX && !kept; i++) {
        if (idle[i] != NULL)
            continue;
        idle[i] = ks;
        kept = true;
    }
    pthread_mutex_unlock(&mutex);
    return kept;
}
