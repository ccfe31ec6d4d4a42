/*
 * cmd_init.c - trustpoint-keystore init: a new keystore, and its configuration if there is none
 */
#include <errno.h>
#include <grp.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_write.h"
#include "new_password.h"
#include "options.h"
#include "output.h"
#include "qr.h"
#include "secrets.h"

typedef struct init_options {
    config_values values;
    bool software, recovery, no_recovery, qr;
    const char *label;
    unsigned long kdf_memory, kdf_passes;
} init_options;

static int check_ways_back(const APP *app, const init_options *options)
{
    if (options->no_recovery && (options->recovery || secrets_given(app)))
        return complain(EX_USAGE, "--no-recovery means no way back at all; leave it out, or leave "
                                  "out --recovery and the password");
    if (options->qr && !options->recovery)
        return complain(EX_USAGE, "--qr shows a recovery key: it needs --recovery");
    return options->qr ? qr_check() : EX_OK;
}

static int check_fit(TPKS_SECRET *password)
{
    return complain_result(tpks_password_check(password));
}

/* *password stays NULL when there is to be no password slot. */
static int get_password(const APP *app, const init_options *options, TPKS_SECRET **password)
{
    if (options->no_recovery)
        return EX_OK;
    if (secrets_given(app)) {
        DO(secrets_read_given(app, password));
        return check_fit(*password);
    }
    if (options->recovery && !secrets_have_terminal())
        return EX_OK;
    if (options->recovery)
        return secrets_prompt_new("New backup password (empty: only the recovery key): ", true,
                                  password);
    return secrets_prompt_new("New backup password: ", false, password);
}

/* ---- the recovery key ---------------------------------------------------------------------------
 */

/* What was typed is proven by opening the new keystore with it. */
static bool opens(APP *app, const TPKS_SECRET *typed)
{
    tpks_options options = app_options(app, TPKS_LOAD);
    TPKS *ks = NULL;
    tpks_result result = tpks_open(&options, &ks);

    if (result == TPKS_OK)
        result = tpks_unlock_with(ks, typed);
    if (result != TPKS_OK)
        say("%s", tpks_error_text());
    tpks_close(ks);
    return result == TPKS_OK;
}

static int confirm_recovery_key(APP *app)
{
    for (int i = 0; i < 3; i++) {
        AUTO(secret) TPKS_SECRET *typed = NULL;

        DO(secrets_prompt("Write the recovery key down, then type it here: ", &typed));
        if (opens(app, typed))
            return EX_OK;
    }
    return complain(EX_NOPERM, "the recovery key was not typed correctly. The keystore exists and "
                               "the key shown above opens it: make sure that you have it");
}

/* tpks_slot_fn: of a new keystore, which has one recovery slot. */
static tpks_result note_recovery_slot(void *arg, const tpks_slot_info *slot)
{
    if (strcmp(slot->kind, "recovery") == 0)
        memcpy(arg, slot->id, TPKS_ID_SIZE);
    return TPKS_OK;
}

/* Not possible when it is the only way back. */
static tpks_result take_back(APP *app, unsigned char id[TPKS_ID_SIZE])
{
    tpks_options options = app_options(app, TPKS_WRITE);
    TPKS *ks = NULL;
    tpks_result result = tpks_open(&options, &ks);

    if (result == TPKS_OK)
        result = tpks_each_slot(ks, note_recovery_slot, id);
    if (result == TPKS_OK)
        result = tpks_slot_remove(ks, id, false);
    tpks_close(ks);
    return result;
}

/* Nobody has the key: it must not count as a way back. */
static int give_up_recovery_key(APP *app, int code)
{
    unsigned char id[TPKS_ID_SIZE] = {0};
    char hex[2 * TPKS_ID_SIZE + 1];

    if (take_back(app, id) == TPKS_OK)
        say("the recovery slot was taken back");
    else
        say("nobody has the recovery key of the new keystore: run \"" PROGRAM
            " slot add recovery\", then \"" PROGRAM " slot remove %.8s\"",
            hex_text(id, sizeof(id), hex));
    return code;
}

/* *printed: somebody may have the key. */
static int hand_out_recovery_key(APP *app, const TPKS_SECRET *key, bool qr, bool *printed)
{
    int code;

    *printed = false;
    if (key == NULL)
        return EX_OK;
    code = recovery_key_print(key, qr);
    if (code != EX_OK)
        return give_up_recovery_key(app, code);
    *printed = true;
    if (isatty(STDOUT_FILENO) && secrets_have_terminal())
        return confirm_recovery_key(app);
    return EX_OK;
}

/* ---- the keystore
 * ----------------------------------------------------------------------------------- */

static void report(APP *app, const init_options *options, bool has_password, bool has_recovery,
                   bool wrote_config)
{
    const char *store = tpks_config_get(app->config, app->keystore, "store");
    const char *token = tpks_config_get(app->config, app->keystore, "token");
    const char *path = app->config_path != NULL ? app->config_path : tpks_config_default_path();

    if (wrote_config)
        say("wrote the configuration %s", path);
    say("made the keystore %s", store != NULL ? store : "");
    if (options->software)
        say("its DEK lies in a file below %s: whoever reads that file and the database has the "
            "keys",
            tpks_config_get(app->config, app->keystore, "state"));
    else
        say("its KEK is in the token %s", token != NULL ? token : "");
    say("ways back without the HSM: %s%s%s", has_password ? "backup password" : "",
        has_password && has_recovery ? ", " : "",
        has_recovery   ? "recovery key"
        : has_password ? ""
                       : "none");
    say("next: \"" PROGRAM " import NAME FILE\" or \"" PROGRAM " generate NAME\"; then "
        "\"" PROGRAM " doctor\" and, when records are in it, \"" PROGRAM " backup FILE\"");
}

/* A server says what is there, and whether it is there itself. */
static tpks_result ask_server(APP *app)
{
    tpks_options options = app_options(app, TPKS_LOAD);
    TPKS *ks = NULL;
    tpks_result result = tpks_open(&options, &ks);

    tpks_close(ks);
    return result;
}

static bool is_on_server(const APP *app)
{
    const char *store =
        app->config != NULL ? tpks_config_get(app->config, app->keystore, "store") : NULL;

    return store != NULL && config_store_path(store) == NULL;
}

static bool keystore_exists(APP *app)
{
    return is_on_server(app) ? ask_server(app) == TPKS_OK : config_keystore_exists(app);
}

static int check_server(APP *app)
{
    tpks_result result = ask_server(app);

    if (result == TPKS_OK)
        return complain(EX_CANTCREAT, "there is a keystore already in %s",
                        tpks_config_get(app->config, app->keystore, "store"));
    return result == TPKS_UNINITIALIZED ? EX_OK : complain_result(result);
}

/* Said before anybody is asked for a password. */
static int check_absent(APP *app)
{
    if (is_on_server(app))
        return check_server(app);
    if (!config_keystore_exists(app))
        return EX_OK;
    return complain(EX_CANTCREAT, "%s exists already; init never replaces a file",
                    tpks_config_get(app->config, app->keystore, "store"));
}

/* Where nothing says whether the keystore is there, its recovery key is shown all the same. */
static int complain_create(tpks_result result, const TPKS_SECRET *recovery_key, bool qr)
{
    int code = complain_result(result);

    if (recovery_key == NULL)
        return code;
    say("should the keystore be there, this is its recovery key:");
    DO(recovery_key_print(recovery_key, qr));
    return code;
}

static int create(APP *app, const init_options *options, bool wrote_config)
{
    AUTO(secret) TPKS_SECRET *password = NULL;
    AUTO(secret) TPKS_SECRET *recovery_key = NULL;
    bool printed;
    int code;
    tpks_options open_options = app_options(app, TPKS_WRITE);
    tpks_create_params params = {
        .label = options->label,
        .software = options->software,
        .recovery = options->recovery,
        .no_way_back = options->no_recovery,
    };

    DO(check_absent(app));
    DO(kdf_cost_of(options->kdf_memory, options->kdf_passes, &params.cost));
    DO(get_password(app, options, &password));
    params.password = password;
    tpks_result result = tpks_create(&open_options, &params, &recovery_key);
    if (result != TPKS_OK)
        return complain_create(result, recovery_key, options->qr);
    code = hand_out_recovery_key(app, recovery_key, options->qr, &printed);
    report(app, options, password != NULL, printed, wrote_config);
    return code;
}

/* A configuration that this run wrote goes again when no keystore came of it. */
static int init(APP *app, init_options *options)
{
    bool wrote = false;
    int code;

    DO(check_ways_back(app, options));
    code = config_prepare(app, &options->values, options->software, &wrote);
    if (code == EX_OK)
        code = create(app, options, wrote);
    if (code != EX_OK && wrote && !keystore_exists(app))
        config_remove(app);
    return code;
}

int command_init(APP *app, int argc, char **argv)
{
    init_options o = {.software = false};
    const option_spec specs[] = {
        {"store", OPTION_TEXT, &o.values.store, "sqlite:PATH|postgresql:CONNINFO",
         "database, for a new configuration"},
        {"token", OPTION_TEXT, &o.values.token, "pkcs11:...", "HSM, for a new configuration"},
        {"state", OPTION_TEXT, &o.values.state, "DIR", "state folder, for a new configuration"},
        {"software", OPTION_FLAG, &o.software, NULL, "no HSM: the DEK lies in a file"},
        {"label", OPTION_TEXT, &o.label, "TEXT", "name of the keystore for humans"},
        {"recovery", OPTION_FLAG, &o.recovery, NULL, "print a recovery key on standard output"},
        QR_OPTION(o.qr),
        {"no-recovery", OPTION_FLAG, &o.no_recovery, NULL,
         "no password and no recovery key: when the HSM is lost, all keys are"},
        {"kdf-memory", OPTION_NUMBER, &o.kdf_memory, "MIB", "memory of Argon2id"},
        {"kdf-passes", OPTION_NUMBER, &o.kdf_passes, "N", "passes of Argon2id"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "init", "", "Makes a new keystore; --password-file names its new backup password.",
        specs,  0,  0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return init(app, &o);
}
