/* cache.c - unlocked handles between two loads of one process */
#include "cache.h"

#include <pthread.h>
#include <string.h>

#include "config.h"

#define IDLE_MAX 8

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static TPKS *idle[IDLE_MAX];

/* Is it a handle of the same program part and keystore? NULL options: any. */
static bool concerns(const TPKS *ks, const tpks_options *options)
{
    return options == NULL ||
           (ks->libctx == options->libctx &&
            strcmp(ks->section, options->keystore == NULL ? "" : options->keystore) == 0);
}

/* Takes the first handle that suits out of the list. */
static TPKS *take(const tpks_options *options)
{
    TPKS *found = NULL;

    pthread_mutex_lock(&mutex);
    for (int i = 0; i < IDLE_MAX && found == NULL; i++) {
        if (idle[i] == NULL || !concerns(idle[i], options))
            continue;
        found = idle[i];
        idle[i] = NULL;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

static bool is_empty(void)
{
    for (int i = 0; i < IDLE_MAX; i++)
        if (idle[i] != NULL)
            return false;
    return true;
}

/* Empties the list and keeps it locked, so that the child finds it empty and usable. */
static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
    while (!is_empty()) {
        pthread_mutex_unlock(&mutex);
        TPKS *ks = take(NULL);
        if (ks != NULL)
            keystore_free(ks);
        pthread_mutex_lock(&mutex);
    }
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

TPKS *cache_take(const tpks_options *options)
{
    if (options->access != TPKS_LOAD)
        return NULL;
    for (TPKS *ks = take(options); ks != NULL; ks = take(options)) {
        ks->ask = options->ask;
        ks->ask_arg = options->ask_arg;
        ks->no_restore = options->no_restore;
        ks->caller_compares = options->caller_compares;
        if (config_same(ks->config, options->config, ks->section) &&
            !ks->d.backend->moved(ks->d.db) && keystore_refresh(ks) == TPKS_OK)
            return ks;
        keystore_free(ks);
    }
    return NULL;
}

/* Puts a handle in the list; returns the one that has to leave it: the longest there, or NULL. */
static TPKS *put(TPKS *ks)
{
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < IDLE_MAX && ks != NULL; i++) {
        TPKS *next = idle[i];
        idle[i] = ks;
        ks = next;
    }
    pthread_mutex_unlock(&mutex);
    return ks;
}

bool cache_give(TPKS *ks)
{
    if (ks->access != TPKS_LOAD || ks->dek == NULL || ks->suspect ||
        strcmp(keystore_setting(ks, "hsm-session"), "process") != 0)
        return false;
    ks->ask = NULL;
    ks->ask_arg = NULL;
    pthread_once(&once, watch_forks);
    TPKS *evicted = put(ks);
    if (evicted != NULL)
        keystore_free(evicted);
    return true;
}
