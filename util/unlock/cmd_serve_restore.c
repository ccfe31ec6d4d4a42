/*
 * cmd_serve_restore.c - trustpoint-keystore serve-restore: the backup password from a browser
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "service.h"
#include "socket_path.h"
#include "web.h"

typedef struct words {
    const char *user, *group, *cert, *key;
} words;

static int find_user(const char *name, web_setup *setup)
{
    const struct passwd *user;

    setup->drop = geteuid() == 0;
    if (!setup->drop)
        return EX_OK;
    user = getpwnam(name);
    if (user == NULL || user->pw_uid == 0)
        return complain(EX_USAGE, "--user needs a user of this machine other than root, not \"%s\"",
                        name);
    setup->uid = user->pw_uid;
    setup->gid = user->pw_gid;
    return EX_OK;
}

static int find_group(const char *name, web_setup *setup)
{
    const struct group *group = name != NULL ? getgrnam(name) : NULL;

    setup->group = group != NULL ? group->gr_gid : NO_GROUP;
    return name == NULL || group != NULL ? EX_OK
                                         : complain(EX_USAGE, "there is no group \"%s\"", name);
}

/* Off the loopback a browser must know whom it talks to, and we that somebody sees the console. */
static int check_exposure(web_setup *setup, const words *given)
{
    bool exposed;

    if (setup->listen == NULL)
        return complain(EX_USAGE, "--listen unix:/PATH or --listen 127.0.0.1:PORT is missing");
    DO(web_listen_check(setup->listen, &exposed));
    if ((given->cert == NULL) != (given->key == NULL))
        return complain(EX_USAGE, "--tls-cert and --tls-key go together");
    if (exposed && given->cert == NULL)
        return complain(EX_USAGE,
                        "%s can be reached from other machines: give --tls-cert and --tls-key, or "
                        "listen on unix:/PATH or 127.0.0.1:PORT behind a proxy that has TLS",
                        setup->listen);
    setup->code_wanted = setup->code_wanted || exposed;
    if (given->cert == NULL)
        return EX_OK;
    return web_tls(setup->app->libctx, given->cert, given->key, &setup->tls);
}

static int prepare(web_setup *setup, const words *given)
{
    DO(find_user(given->user, setup));
    DO(find_group(given->group, setup));
    DO(check_exposure(setup, given));
    return app_configure(setup->app);
}

int command_serve_restore(APP *app, int argc, char **argv)
{
    web_setup setup = {.app = app, .timeout = 1800, .hsm_timeout = 30};
    words given = {.user = "nobody"};
    const option_spec specs[] = {
        {"listen", OPTION_TEXT, &setup.listen, "WHERE", "unix:/PATH or 127.0.0.1:PORT"},
        {"group", OPTION_TEXT, &given.group, "GROUP", "may use the unix socket too (a proxy's)"},
        {"host", OPTION_TEXT, &setup.hosts_given, "NAME[:PORT],…",
         "further names by which browsers reach the page"},
        {"tls-cert", OPTION_TEXT, &given.cert, "FILE", "certificate and chain, PEM"},
        {"tls-key", OPTION_TEXT, &given.key, "FILE", "its private key, PEM"},
        {"code", OPTION_FLAG, &setup.code_wanted, NULL,
         "want a one-time code too (always so on other addresses)"},
        {"user", OPTION_TEXT, &given.user, "USER", "who parses HTTP (default nobody)"},
        {"timeout", OPTION_NUMBER, &setup.timeout, "SECONDS", "close after (default 1800)"},
        {"hsm-timeout", OPTION_NUMBER, &setup.hsm_timeout, "SECONDS",
         "how long one look at the HSM may take (default 30)"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "serve-restore",
        "[--hook PROGRAM ARGUMENTS…]",
        "Serves a page that takes the backup password, while a restore is pending; then runs\n"
        "PROGRAM (all words behind --hook are its) and ends.",
        specs,
        0,
        0};
    char **arguments;
    int count, code;

    DO(options_split_hook(&argc, argv, &app->become));
    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    code = prepare(&setup, &given);
    if (code == EX_OK)
        code = web_run(&setup);
    SSL_CTX_free(setup.tls);
    return code;
}
