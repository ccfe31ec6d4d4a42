/*
 * config_write.c - writes the first configuration file of a host
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_write.h"
#include "output.h"

#define GROUP "trustpoint"

const char *config_path(const APP *app)
{
    return app->config_path != NULL ? app->config_path : tpks_config_default_path();
}

const char *config_store_path(const char *store)
{
    static const char scheme[] = "sqlite:";

    if (store == NULL || strncmp(store, scheme, sizeof(scheme) - 1) != 0)
        return NULL;
    return store + sizeof(scheme) - 1;
}

bool config_keystore_exists(APP *app)
{
    const char *path = NULL;

    if (app->config != NULL)
        path = config_store_path(tpks_config_get(app->config, app->keystore, "store"));
    return path != NULL && access(path, F_OK) == 0;
}

void config_remove(APP *app)
{
    if (unlink(config_path(app)) == 0)
        say("removed the configuration %s again", config_path(app));
}

/* ---- writing it ---------------------------------------------------------------------------------
 */

static void write_value(FILE *file, const char *directive, const char *value)
{
    if (value != NULL)
        fprintf(file, "%s = %s\n", directive, value);
}

static void write_section(FILE *file, const APP *app, const config_values *values)
{
    fprintf(file, "# The keystores of this host: see trustpoint-provider(7).\n");
    if (app->keystore != NULL && *app->keystore != '\0')
        fprintf(file, "[keystore_%s]\n", app->keystore);
    else
        fprintf(file, "[keystore]\n");
    write_value(file, "store", values->store);
    write_value(file, "token", values->token);
    write_value(file, "state", values->state);
}

/* Services of the group may read it; it holds no secret. */
static void give_to_group(int fd)
{
    const struct group *group = getgrnam(GROUP);

    if (group != NULL && fchown(fd, (uid_t)-1, group->gr_gid) != 0)
        say("the configuration could not be given to the group " GROUP ": %s", strerror(errno));
}

/* A fresh host has no /etc/trustpoint yet. Only the last folder of the path is made. */
static void make_folder_of(const char *path)
{
    char *copy = strdup(path);

    if (copy != NULL && mkdir(dirname(copy), 0755) == 0)
        say("made the folder %s", copy);
    free(copy);
}

static int create_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

    if (fd >= 0 || errno != ENOENT)
        return fd;
    make_folder_of(path);
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
}

static int write_file(APP *app, const config_values *values)
{
    const char *path = config_path(app);
    int fd = create_file(path);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool written;

    if (file == NULL)
        return complain_file("cannot create the configuration", path);
    give_to_group(fd);
    write_section(file, app, values);
    written = fchmod(fd, 0640) == 0 && fflush(file) == 0 && fsync(fd) == 0;
    if (fclose(file) == 0 && written)
        return EX_OK;
    complain_file("cannot write the configuration", path);
    unlink(path);
    return EX_OSERR;
}

/* ---- checking the values
 * ---------------------------------------------------------------------------- */

static int check_value(const char *option, const char *value)
{
    if (value == NULL)
        return EX_OK;
    for (const char *p = value; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return complain(EX_USAGE, "%s: control characters are not possible", option);
    if (*value == '\0' || *value == ' ' || value[strlen(value) - 1] == ' ')
        return complain(EX_USAGE, "%s must neither be empty nor begin or end with a space", option);
    return EX_OK;
}

static int check_values(const APP *app, const config_values *values, bool software)
{
    DO(check_value("--store", values->store));
    DO(check_value("--token", values->token));
    DO(check_value("--state", values->state));
    if (values->store == NULL)
        return complain(EX_CONFIG,
                        "there is no configuration %s; make one, or let init write it: "
                        "--store sqlite:PATH and --token 'pkcs11:...' (or --software)",
                        config_path(app));
    if (values->token == NULL && !software)
        return complain(EX_USAGE, "--store needs --token 'pkcs11:...' too, or --software for a "
                                  "keystore without an HSM");
    if (values->token != NULL && software)
        return complain(EX_USAGE, "--software means no HSM; leave out --token or --software");
    return EX_OK;
}

static int check_same(APP *app, const char *directive, const char *given, bool wrote)
{
    const char *present = tpks_config_get(app->config, app->keystore, directive);

    if (given == NULL || (present != NULL && strcmp(given, present) == 0))
        return EX_OK;
    if (present == NULL)
        present = "(nothing)";
    if (wrote)
        return complain(
            EX_USAGE,
            "--%s: a configuration file would read this value as \"%s\"; percent-encode "
            "special characters in URIs and avoid them in paths",
            directive, present);
    return complain(EX_CANTCREAT, "%s exists and says %s = %s; change it there, or leave out --%s",
                    config_path(app), directive, present, directive);
}

int config_prepare(APP *app, const config_values *values, bool software, bool *wrote)
{
    if (access(config_path(app), F_OK) != 0 && errno == ENOENT) {
        DO(check_values(app, values, software));
        DO(write_file(app, values));
        *wrote = true;
    }
    DO(app_configure(app));
    DO(check_same(app, "store", values->store, *wrote));
    DO(check_same(app, "token", values->token, *wrote));
    return check_same(app, "state", values->state, *wrote);
}
