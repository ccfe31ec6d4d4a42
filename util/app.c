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

void app_finish(APP *app)
{
    if (app->ks != NULL && tpks_upgrade_password(app->ks))
        say_upgraded();
}

void say_upgraded(void)
{
    say("the password's slot was made with less than this machine's present cost of Argon2id: it "
        "was renewed with the same password");
}

int app_find(APP *app, const char *name, TPKS_RECORD **out)
{
    tpks_selector selector = {.name = name};

    DO(complain_result(tpks_name_check(name)));
    return complain_result(tpks_find(app->ks, &selector, out));
}

/* The keystore that a URI names, which must not be another one than --keystore. */
static int take_keystore(APP *app)
{
    const char *named = tpks_uri_keystore(app->uri);

    if (*named == '\0')
        return EX_OK;
    if (app->keystore != NULL && strcmp(app->keystore, named) != 0)
        return complain(EX_USAGE, "--keystore %s and the URI's keystore=%s contradict each other",
                        app->keystore, named);
    app->keystore = named;
    return EX_OK;
}

static int take_uri(APP *app, const char *text)
{
    tpks_uri_type type;

    DO(complain_result(tpks_uri_parse(text, &app->uri)));
    type = tpks_uri_type_of(app->uri);
    if (tpks_uri_is_list(app->uri))
        return complain(EX_USAGE, "%s names no record; " PROGRAM " list shows which there are",
                        text);
    if (type != TPKS_TYPE_ANY && type != TPKS_TYPE_PRIVATE)
        return complain(EX_USAGE, "%s: leave out type=, the whole record is meant", text);
    return take_keystore(app);
}

int app_open_record(APP *app, tpks_access access, const char *name, TPKS_RECORD **out)
{
    if (tpks_uri_is_ours(name)) {
        DO(take_uri(app, name));
        DO(app_open(app, access));
        return complain_result(tpks_find(app->ks, tpks_uri_selector(app->uri), out));
    }
    DO(app_open(app, access));
    return app_find(app, name, out);
}

void app_say_in_token(APP *app, const char *what)
{
    tpks_status_info info;

    if (tpks_status(app->ks, &info) == TPKS_OK && info.in_token != 0)
        say("%llu %s in a token: %s", (unsigned long long)info.in_token,
            info.in_token == 1 ? "key lives" : "keys live", what);
}

void app_close(APP *app)
{
    tpks_close(app->ks);
    app->ks = NULL;
    tpks_uri_free(app->uri);
    app->uri = NULL;
    tpks_config_free(app->config);
    app->config = NULL;
}
