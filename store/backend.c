/*
 * backend.c - finding the storage plugin of a `store` directive
 *
 * A plugin is never unloaded: handles, and state of the engine's own library, may outlive what we
 * know of. So the list of plugins only grows, and a few atomic pointers are enough for it.
 */
#include "backend_load.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"

enum { MAX_PLUGINS = 16, MAX_NAME = 31 };

static _Atomic(const tpks_backend *) plugins[MAX_PLUGINS];

static const tpks_backend_host host = {TPKS_BACKEND_ABI, fail};

typedef struct plugin_name {
    char text[MAX_NAME + 1];
} plugin_name;

static void put_errno_back(const int *saved)
{
    errno = *saved;
}

static tpks_result split(const char *store, plugin_name *name, const char **location)
{
    size_t length = strspn(store, "abcdefghijklmnopqrstuvwxyz0123456789");

    if (length == 0 || length > MAX_NAME || store[length] != ':')
        return fail(TPKS_BAD_CONFIG,
                    "store = %s: it must be PLUGIN:LOCATION with a plugin name of a-z and 0-9, "
                    "such as sqlite:/var/lib/trustpoint/keystore.db",
                    store);
    memcpy(name->text, store, length);
    name->text[length] = '\0';
    *location = store + length + 1;
    return TPKS_OK;
}

static const tpks_backend *find_loaded(const plugin_name *name)
{
    for (size_t i = 0; i < MAX_PLUGINS; i++) {
        const tpks_backend *backend = atomic_load_explicit(&plugins[i], memory_order_acquire);

        if (backend == NULL)
            return NULL;
        if (strcmp(backend->name, name->text) == 0)
            return backend;
    }
    return NULL;
}

/* Two threads may load the same plugin at once; dlopen gives both the same table. */
static void remember(const tpks_backend *backend)
{
    for (size_t i = 0; i < MAX_PLUGINS; i++) {
        const tpks_backend *present = NULL;

        if (atomic_compare_exchange_strong(&plugins[i], &present, backend) || present == backend)
            return;
    }
}

static tpks_result open_plugin(const char *path, const plugin_name *name, void **object)
{
    const char *why;

    *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*object != NULL)
        return TPKS_OK;
    why = dlerror();
    if (access(path, F_OK) != 0)
        return fail(TPKS_BAD_CONFIG,
                    "there is no storage plugin \"%s\": %s: %s; correct `store`, or install the "
                    "plugin",
                    name->text, path, strerror(errno));
    return fail(TPKS_BAD_CONFIG, "storage plugin %s cannot be loaded: %s; install it again", path,
                why != NULL ? why : "unknown reason");
}

static tpks_result ask_plugin(void *object, const char *path, const plugin_name *name,
                              const tpks_backend **backend)
{
    tpks_backend_entry_fn *entry;
    const tpks_backend *table;
    void *symbol = dlsym(object, TPKS_BACKEND_ENTRY);

    if (symbol == NULL)
        return fail(TPKS_BAD_CONFIG,
                    "%s is not a storage plugin (no " TPKS_BACKEND_ENTRY "); "
                    "remove it, or correct `store`",
                    path);
    memcpy(&entry, &symbol, sizeof(entry)); /* ISO C knows no cast from data to function */
    table = entry(&host);
    if (table == NULL || table->abi != TPKS_BACKEND_ABI || strcmp(table->name, name->text) != 0)
        return fail(TPKS_BAD_CONFIG,
                    "storage plugin %s belongs to another version of this software (interface %u "
                    "is needed); install the version that matches",
                    path, (unsigned)TPKS_BACKEND_ABI);
    *backend = table;
    return TPKS_OK;
}

static tpks_result load(const plugin_name *name, const tpks_backend **backend)
{
    char path[sizeof(TPKS_PLUGINDIR) + sizeof(plugin_name) + sizeof("/.so")];
    void *object;
    tpks_result result;

    snprintf(path, sizeof(path), "%s/%s.so", TPKS_PLUGINDIR, name->text);
    TRY(open_plugin(path, name, &object));
    result = ask_plugin(object, path, name, backend);
    if (result != TPKS_OK) {
        dlclose(object);
        return result;
    }
    remember(*backend);
    return TPKS_OK;
}

tpks_result backend_find(const char *store, const tpks_backend **backend, const char **location)
{
    int saved __attribute__((cleanup(put_errno_back), unused)) = errno;
    const char *rest = NULL;
    const tpks_backend *found;
    plugin_name name;

    TRY(split(store, &name, &rest));
    found = find_loaded(&name);
    if (found == NULL)
        TRY(load(&name, &found));
    *backend = found;
    *location = rest;
    return TPKS_OK;
}
