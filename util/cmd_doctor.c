/*
 * cmd_doctor.c - trustpoint-keystore doctor: what is wrong with this host's set-up?
 */
#include <pwd.h>
#include <unistd.h>

#include "doctor.h"
#include "options.h"

static int check_user(const char *user)
{
    if (user == NULL)
        return EX_OK;
    if (getpwnam(user) == NULL)
        return complain(EX_USAGE, "--as: there is no user \"%s\"", user);
    if (geteuid() != 0)
        return complain(EX_NOPERM, "--as needs root");
    return EX_OK;
}

/* Nothing here opens the keystore in this process: it must be able to fork. */
static int doctor(APP *app, const char *user)
{
    FINDINGS findings = {.json = app->json};

    doctor_config(app, &findings);
    doctor_in_child(app, &findings, "openssl.cnf", NULL, doctor_openssl_conf);
    if (app->config != NULL) {
        doctor_files(app, &findings);
        doctor_in_child(app, &findings, "keystore", NULL, doctor_store);
    }
    if (user != NULL)
        doctor_in_child(app, &findings, user, user, doctor_loadable);
    if (app->json)
        output_json_end(&findings.stream);
    return findings.problems > 0 ? 1 : EX_OK;
}

int command_doctor(APP *app, int argc, char **argv)
{
    const char *user = NULL;
    const option_spec specs[] = {
        {"as", OPTION_TEXT, &user, "USER", "also tell what this user could load (as root)"},
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON array of findings"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"doctor", "", "Looks for what is wrong with this host's set-up.",
                                 specs,    0,  0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    DO(check_user(user));
    return doctor(app, user);
}
