/*
 * sources.c - which sources of the directive `restore` the unlock service can use
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "secrets.h"
#include "sources.h"

#define SEPARATORS ", \t"

/* The names of the credentials are those that the library reads. */
static bool have_credential(void)
{
    static const char *const names[] = {"trustpoint.backup-password", "trustpoint.recovery-key"};
    const char *folder = secure_getenv("CREDENTIALS_DIRECTORY");
    char path[4096];

    for (size_t i = 0; folder != NULL && i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static void take_source(sources *from, const char *word)
{
    if (strcmp(word, "credential") == 0)
        from->unattended = from->unattended || have_credential();
    else if (strncmp(word, "file:", 5) == 0)
        from->unattended = from->unattended || access(word + 5, F_OK) == 0;
    else if (strcmp(word, "callback") == 0)
        from->terminal = secrets_have_terminal();
    else if (strcmp(word, "ask-password") == 0)
        from->ask_password = true;
    else if (strcmp(word, "socket") == 0)
        from->socket = true;
}

sources sources_of(const APP *app)
{
    sources from = {.unattended = false};
    char *list = OPENSSL_strdup(tpks_config_get(app->config, app->keystore, "restore"));
    char *rest = NULL;

    for (char *word = list != NULL ? strtok_r(list, SEPARATORS, &rest) : NULL; word != NULL;
         word = strtok_r(NULL, SEPARATORS, &rest))
        take_source(&from, word);
    OPENSSL_free(list);
    return from;
}

bool sources_wait(const sources *from)
{
    return from->terminal || from->ask_password || from->socket;
}
