/*
 * passthrough.c - the default provider's own functions, with ours in place of a few
 */
#include "passthrough.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

#include <openssl/provider.h>

static pthread_mutex_t filling = PTHREAD_MUTEX_INITIALIZER;

/* Is `name` in the list "A:B:C"? */
static bool has_name(const char *names, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = names; at != NULL; at = strchr(at, ':')) {
        at += *at == ':';
        if (strncasecmp(at, name, length) == 0 && (at[length] == ':' || at[length] == '\0'))
            return true;
    }
    return false;
}

static const OSSL_DISPATCH *find_theirs(const OSSL_ALGORITHM *theirs, const char *name)
{
    for (; theirs != NULL && theirs->algorithm_names != NULL; theirs++)
        if (has_name(theirs->algorithm_names, name))
            return theirs->implementation;
    return NULL;
}

static OSSL_DISPATCH replaced(const OSSL_DISPATCH *theirs, const OSSL_DISPATCH *ours)
{
    for (; ours != NULL && ours->function_id != 0; ours++)
        if (ours->function_id == theirs->function_id)
            return *ours;
    return *theirs;
}

static void take_over(const TAKEOVER *what, const OSSL_DISPATCH *theirs)
{
    OSSL_DISPATCH *next = what->into->table;

    for (; theirs != NULL && theirs->function_id != 0; theirs++) {
        if (theirs->function_id > what->last)
            continue;
        what->into->original[theirs->function_id] = theirs->function;
        *next++ = replaced(theirs, what->ours);
    }
}

static void fill_one(OSSL_PROVIDER *defaults, const TAKEOVER *what)
{
    int no_cache = 0;
    const OSSL_ALGORITHM *theirs;

    if (what->into->table[0].function_id != 0)
        return;
    theirs = OSSL_PROVIDER_query_operation(defaults, what->operation, &no_cache);
    take_over(what, find_theirs(theirs, what->name));
    OSSL_PROVIDER_unquery_operation(defaults, what->operation, theirs);
}

void passthrough_fill(const CONTEXT *context, const TAKEOVER *list)
{
    if (!context_works(context))
        return;
    pthread_mutex_lock(&filling);
    for (; list->into != NULL; list++)
        fill_one(context_default(context), list);
    pthread_mutex_unlock(&filling);
}
