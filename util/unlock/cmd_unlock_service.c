/*
 * cmd_unlock_service.c - trustpoint-keystore unlock-service: brings a lost KEK back at system or
 * container start, from the sources of the directive `restore`
 */
#include <string.h>

#include "options.h"
#include "service.h"
#include "socket_path.h"

int command_unlock_service(APP *app, int argc, char **argv)
{
    service_options options = {
        .timeout = NO_LIMIT, .hsm_timeout = 30, .socket = UNLOCK_SOCKET, .state_file = NULL};
    const option_spec specs[] = {
        {"timeout", OPTION_NUMBER, &options.timeout, "SECONDS",
         "how long to wait for password, token, HSM or database (default: no limit; 0: not at "
         "all)"},
        {"hsm-timeout", OPTION_NUMBER, &options.hsm_timeout, "SECONDS",
         "how long one look at the HSM may take (default 30)"},
        {"socket", OPTION_TEXT, &options.socket, "PATH",
         "where `unlock` reaches it (default " UNLOCK_SOCKET ")"},
        {"state-file", OPTION_TEXT, &options.state_file, "FILE",
         "where to say how it stands (default " RUN_FOLDER "/XXXXXXXX.state)"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "unlock-service",
        "[-- COMMAND [ARGUMENTS...]]",
        "Waits until the keystore can be unlocked, restoring a lost KEK with a password from the\n"
        "sources of the directive `restore`, then from systemd-ask-password and `unlock`. For\n"
        "systemd and containers. With a COMMAND, becomes that program then.",
        specs,
        0,
        MANY};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    if (count > 0 && strcmp(arguments[-1], "--") != 0)
        return complain(EX_USAGE, "unlock-service: a command stands behind --, not so \"%s\"",
                        arguments[0]);
    if (count > 0)
        app->become = arguments;
    DO(app_configure(app));
    return service_run(app, &options);
}
