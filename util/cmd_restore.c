/*
 * cmd_restore.c - trustpoint-keystore restore: a new KEK after the HSM has lost the old one
 */
#include <string.h>

#include "options.h"
#include "output.h"
#include "secrets.h"

typedef struct restore_options {
    const char *token;
    const char *so_pin_source;
    bool init_token, dry_run;
} restore_options;

static int check(const restore_options *o)
{
    if (o->init_token != (o->so_pin_source != NULL))
        return complain(EX_USAGE, "--init-token and --so-pin-source file:PATH belong together");
    if (o->so_pin_source != NULL && strncmp(o->so_pin_source, "file:", 5) != 0)
        return complain(EX_USAGE, "--so-pin-source takes file:PATH");
    return EX_OK;
}

/* Is it a loss that a restore makes good? Anything else it would only report, too. */
static bool would_help(const restore_options *o, tpks_result found)
{
    return found == TPKS_OK || found == TPKS_KEK_MISSING || found == TPKS_KEK_FOREIGN ||
           (found == TPKS_TOKEN_MISSING && o->init_token);
}

/* How it is now: with --dry-run, or where nothing helped, as it was found. */
static int show_json(const tpks_restore_report *report)
{
    struct json_object *object = json_object_new_object();
    tpks_result now = report->restored ? TPKS_OK : report->found;

    json_add_state(object, now, report->why);
    json_add_text(object, "found", state_of(report->found));
    json_add_bool(object, "restored", report->restored);
    return output_json(object);
}

static void show_text(const restore_options *o, const tpks_restore_report *report)
{
    if (report->found == TPKS_OK)
        say("nothing to restore: the keystore can be unlocked without a password");
    else if (o->dry_run && !would_help(o, report->found))
        say("%s (%s); a restore would change nothing", report->why,
            tpks_result_name(report->found));
    else if (o->dry_run)
        say("%s (%s); a restore would ask for the backup password, and %s", report->why,
            tpks_result_name(report->found),
            report->dek_file ? "write the DEK file"
                             : "make a new KEK on the token and renew its slot");
    else if (report->restored && report->dek_file)
        say("restored: the DEK file is back; programs that load keys need no password");
    else if (report->restored)
        say("restored: the token has a new KEK; programs that load keys need no password");
}

static int report_on(const APP *app, const restore_options *o, tpks_result result,
                     const tpks_restore_report *report)
{
    if (result != TPKS_OK)
        return complain_result(result);
    if (app->json)
        DO(show_json(report));
    else
        show_text(o, report);
    return would_help(o, report->found) ? EX_OK : exit_code_of(report->found);
}

/* Reads records only: the password is not tried a second time. */
static void say_what_stays_lost(APP *app)
{
    tpks_options options = app_options(app, TPKS_LOAD);

    if (tpks_open(&options, &app->ks) == TPKS_OK)
        app_say_in_token(app, "a restore does not bring back what the lost token had; \"" PROGRAM
                              " verify\" says which are gone");
}

/* A token is not initialised for a password that does not open the DEK. */
static int prove(APP *app, const restore_options *o, const TPKS_SECRET *password)
{
    tpks_options options = app_options(app, TPKS_LOAD);
    TPKS *ks = NULL;
    tpks_result result;

    if (!o->init_token || o->dry_run || password == NULL)
        return EX_OK;
    result = tpks_open(&options, &ks);
    if (result == TPKS_OK)
        result = tpks_unlock_with(ks, password);
    int code = complain_result(result);

    tpks_close(ks);
    return code;
}

static int restore(APP *app, const restore_options *o)
{
    AUTO(secret) TPKS_SECRET *password = NULL;
    AUTO(secret) TPKS_SECRET *so_pin = NULL;
    tpks_restore_report report;

    DO(check(o));
    DO(app_configure(app));
    if (secrets_given(app))
        DO(secrets_read_given(app, &password));
    if (o->so_pin_source != NULL)
        DO(secrets_read(o->so_pin_source + strlen("file:"), NO_FD, &so_pin));
    DO(prove(app, o, password));
    tpks_options options = app_options(app, TPKS_WRITE);
    tpks_restore_params params = {
        .secret = password, .token_uri = o->token, .so_pin = so_pin, .dry_run = o->dry_run};
    tpks_result result = tpks_restore(&options, &params, &report);
    DO(report_on(app, o, result, &report));
    if (report.upgraded)
        say_upgraded();
    if (report.restored)
        say_what_stays_lost(app);
    if (o->token != NULL && report.restored)
        say("now let the configuration say: token = %s", o->token);
    return EX_OK;
}

int command_restore(APP *app, int argc, char **argv)
{
    restore_options o = {.token = NULL};
    const option_spec specs[] = {
        {"token", OPTION_TEXT, &o.token, "pkcs11:...", "onto this token, not the configured one"},
        {"init-token", OPTION_FLAG, &o.init_token, NULL,
         "initialise a blank token when the named one is not there"},
        {"so-pin-source", OPTION_TEXT, &o.so_pin_source, "file:PATH", "SO PIN for --init-token"},
        {"dry-run", OPTION_FLAG, &o.dry_run, NULL, "only say what would be done"},
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON object"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "restore",
        "",
        "Makes a new KEK when the HSM has lost the old one; needs the backup password or the "
        "recovery key.",
        specs,
        0,
        0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return restore(app, &o);
}
