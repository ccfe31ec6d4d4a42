/*
 * sources.c - where the unlock service gets the backup password from, and whose turn it is
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "secrets.h"
#include "sources.h"

#define SEPARATORS ", \t"

static bool only_looks(source_kind kind)
{
    return kind == SOURCE_GIVEN || kind == SOURCE_FILE;
}

/* ---- the list ---- */

static bool add(sources *list, source_kind kind, const char *path)
{
    SOURCE *grown = realloc(list->items, (list->count + 1) * sizeof(*grown));

    if (grown == NULL)
        return false;
    list->items = grown;
    grown[list->count] = (SOURCE){.kind = kind};
    if (path != NULL && (grown[list->count].path = strdup(path)) == NULL)
        return false;
    list->count++;
    return true;
}

/* A second question at the same place would be the same question. */
static bool add_waiting(sources *list, bool may_wait, source_kind kind)
{
    return !may_wait || sources_find(list, kind) != NULL || add(list, kind, NULL);
}

/* The names are those that the library reads. */
static bool add_credentials(sources *list)
{
    static const char *const names[] = {"trustpoint.backup-password", "trustpoint.recovery-key"};
    const char *folder = secure_getenv("CREDENTIALS_DIRECTORY");
    char path[4096];
    bool added = true;

    for (size_t i = 0; folder != NULL && added && i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        added = add(list, SOURCE_FILE, path);
    }
    return added;
}

static bool add_word(sources *list, bool may_wait, const char *word)
{
    if (strcmp(word, "credential") == 0)
        return add_credentials(list);
    if (strncmp(word, "file:", 5) == 0)
        return add(list, SOURCE_FILE, word + 5);
    if (strcmp(word, "callback") == 0)
        return !secrets_have_terminal() || add_waiting(list, may_wait, SOURCE_TERMINAL);
    return add_waiting(list, may_wait,
                       strcmp(word, "ask-password") == 0 ? SOURCE_AGENT : SOURCE_SOCKET);
}

static bool add_directive(sources *list, bool may_wait, char *words)
{
    char *rest = NULL;
    bool added = true;

    for (char *word = strtok_r(words, SEPARATORS, &rest); word != NULL && added;
         word = strtok_r(NULL, SEPARATORS, &rest))
        added = add_word(list, may_wait, word);
    return added && add_waiting(list, may_wait, SOURCE_AGENT) &&
           add_waiting(list, may_wait, SOURCE_SOCKET);
}

int sources_read(const APP *app, bool may_wait, sources *out)
{
    char *words = OPENSSL_strdup(tpks_config_get(app->config, app->keystore, "restore"));
    bool added = words != NULL;

    *out = (sources){.items = NULL};
    if (added && secrets_given(app))
        added = add(out, SOURCE_GIVEN, NULL);
    if (added && strcmp(words, "no") != 0)
        added = add_directive(out, may_wait, words);
    OPENSSL_free(words);
    return added ? EX_OK : complain_memory();
}

void sources_free(sources *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].path);
    free(list->items);
    *list = (sources){.items = NULL};
}

/* ---- questions ---- */

SOURCE *sources_find(const sources *list, source_kind kind)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].kind == kind)
            return &list->items[i];
    return NULL;
}

SOURCE *sources_turn(const sources *list, bool humans_only)
{
    bool waited_for = false;

    for (size_t i = 0; i < list->count; i++) {
        SOURCE *one = &list->items[i];

        if (one->ended || (humans_only && only_looks(one->kind)))
            continue;
        if (waited_for && only_looks(one->kind))
            return NULL;
        if (!one->open)
            return one;
        waited_for = true;
    }
    return NULL;
}

bool sources_wait(const sources *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].open && !list->items[i].ended)
            return true;
    return false;
}
