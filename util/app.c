/*
 * app.c - opening what the global options name
 */
#include <string.h>

#include "command.h"
#include "secrets.h"

int app_configure(APP *app)
{
    if (app->config != NULL)
        return EX_OK;
    return complain_result(tpks_config_load(app->config_path, &app->config));
}

tpks_options app_options(APP *app, tpks_access access)
{
    return (tpks_options){
        .config = app->config,
        .keystore = app->keystore,
        .libctx = app->libctx,
        .access = access,
        .accept_new_anchor = app->accept_new_anchor,
        .no_restore = app->never_ask,
        .ask = secrets_ask,
        .ask_arg = app,
    };
}

int app_unlock_given(APP *app)
{
    AUTO(secret) TPKS_SECRET *password = NULL;

    if (!secrets_given(app))
        return EX_OK;
    DO(secrets_read_given(app, &password));
    return complain_result(tpks_unlock_with(app->ks, password));
}

int app_open(APP *app, tpks_access access)
{
    tpks_options options;

    DO(app_configure(app));
    options = app_options(app, access);
    DO(complain_result(tpks_open(&options, &app->ks)));
    return app_unlock_given(app);
}

int app_find(APP *app, const char *name, TPKS_RECORD **out)
{
    tpks_selector selector = {.name = name};

    DO(complain_result(tpks_name_check(name)));
    return complain_result(tpks_find(app->ks, &selector, out));
}

void app_close(APP *app)
{
    tpks_close(app->ks);
    app->ks = NULL;
    tpks_config_free(app->config);
    app->config = NULL;
}
