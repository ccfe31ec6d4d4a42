/*
 * doctor_files.c - modes, owners and places of the keystore's files, and process limits
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/err.h>
#include <p11-kit/uri.h>

#include "config_write.h"
#include "doctor.h"

#define PATH_SIZE 4096
#define MEMLOCK_WANTED (1024UL * 1024)

CLEANUP(CONF *, NCONF_free, cleanup_conf)
CLEANUP(P11KitUri *, p11_kit_uri_free, cleanup_uri)

/* ---- one file
 * ------------------------------------------------------------------------------------- */

typedef struct file_rule {
    const char *what;
    mode_t forbidden; /* a problem when any of these bits is set */
    mode_t unwanted;  /* a warning */
    const char *todo;
} file_rule;

static const file_rule config_rule = {"configuration", S_IWOTH | S_IWGRP, 0,
                                      "chmod 0640, owner root, group trustpoint"};
static const file_rule database_rule = {"database", S_IWOTH, S_IROTH | S_IWGRP,
                                        "chmod 0640, owner root, group trustpoint"};
static const file_rule pin_rule = {"PIN file", S_IRWXO | S_IWGRP, 0,
                                   "chmod 0640, owner root, group trustpoint"};
static const file_rule folder_rule = {"folder", S_IWOTH, 0,
                                      "take the right to write away from others (chmod o-w)"};

static void check_owner(FINDINGS *findings, const char *path, const file_rule *rule,
                        const struct stat *st)
{
    if (st->st_uid != 0 && st->st_uid != geteuid())
        finding(findings, FINDING_WARNING, path, "chown root, unless that user tends the keystore",
                "the %s belongs to user %lu, who can replace it", rule->what,
                (unsigned long)st->st_uid);
}

static bool check_file(FINDINGS *findings, const char *path, const file_rule *rule)
{
    struct stat st;
    mode_t mode;

    if (stat(path, &st) != 0) {
        finding(findings, FINDING_PROBLEM, path,
                "check the path in the configuration, and that "
                "this user may read it",
                "the %s cannot be looked at: %s", rule->what, strerror(errno));
        return false;
    }
    mode = st.st_mode & 07777;
    check_owner(findings, path, rule, &st);
    if ((mode & S_ISVTX) == 0 && (mode & rule->forbidden) != 0)
        finding(findings, FINDING_PROBLEM, path, rule->todo, "the %s has mode %04o", rule->what,
                (unsigned)mode);
    else if ((mode & rule->unwanted) != 0)
        finding(findings, FINDING_WARNING, path, rule->todo, "the %s has mode %04o", rule->what,
                (unsigned)mode);
    else
        finding(findings, FINDING_OK, path, NULL, "the %s has mode %04o", rule->what,
                (unsigned)mode);
    return true;
}

static void check_folder_of(FINDINGS *findings, const char *path)
{
    char folder[PATH_SIZE];
    char *slash;

    if (strlen(path) >= sizeof(folder))
        return;
    strcpy(folder, path);
    slash = strrchr(folder, '/');
    if (slash != NULL && slash != folder) {
        *slash = '\0';
        check_file(findings, folder, &folder_rule);
    }
}

/* A secret file is accepted only from its owner, or from root with one group. */
static void check_pin_file(FINDINGS *findings, const char *path)
{
    struct stat st;

    if (!check_file(findings, path, &pin_rule) || stat(path, &st) != 0)
        return;
    if (st.st_uid != 0 && (st.st_mode & S_IRGRP) != 0)
        finding(findings, FINDING_PROBLEM, path, "chown root, or chmod 0600",
                "the PIN file is readable for a group although it does not belong to root");
}

/* ---- the token
 * -------------------------------------------------------------------------------------- */

static const char *file_of(const char *source)
{
    if (source == NULL || strncmp(source, "file:", 5) != 0)
        return NULL;
    source += 5;
    return strncmp(source, "//", 2) == 0 ? source + 2 : source;
}

static P11KitUri *parse_token(const char *token)
{
    P11KitUri *uri = token != NULL ? p11_kit_uri_new() : NULL;

    if (uri == NULL || p11_kit_uri_parse(token, P11_KIT_URI_FOR_ANY, uri) == P11_KIT_URI_OK)
        return uri;
    p11_kit_uri_free(uri);
    return NULL;
}

static void check_module(FINDINGS *findings, const P11KitUri *uri)
{
    const char *path = p11_kit_uri_get_module_path((P11KitUri *)(uintptr_t)uri);

    if (path == NULL)
        return;
    if (access(path, R_OK) == 0)
        finding(findings, FINDING_OK, path, NULL, "the HSM's module is there");
    else
        finding(findings, FINDING_PROBLEM, path,
                "install it, or correct module-path in the configuration",
                "the HSM's module cannot be read: %s", strerror(errno));
}

static bool is_softhsm(P11KitUri *uri)
{
    const char *path = p11_kit_uri_get_module_path(uri);
    const char *name = p11_kit_uri_get_module_name(uri);

    return (path != NULL && strcasestr(path, "softhsm") != NULL) ||
           (name != NULL && strcasestr(name, "softhsm") != NULL);
}

/* SoftHSM's own file names the folder; its syntax is a subset of config(5). */
static bool softhsm_folder(char *folder, size_t size)
{
    AUTO(conf) CONF *conf = NCONF_new(NULL);
    const char *path = secure_getenv("SOFTHSM2_CONF");
    const char *value = NULL;
    long line;

    if (path == NULL)
        path = "/etc/softhsm/softhsm2.conf";
    if (conf != NULL && NCONF_load(conf, path, &line) > 0)
        value = NCONF_get_string(conf, "default", "directories.tokendir");
    ERR_clear_error();
    return value != NULL && snprintf(folder, size, "%s", value) < (int)size;
}

static void check_one_disk(FINDINGS *findings, P11KitUri *uri, const char *database)
{
    const char *pin = file_of(p11_kit_uri_get_pin_source(uri));
    char folder[PATH_SIZE];
    struct stat token_st, database_st, pin_st;

    if (!is_softhsm(uri) || !softhsm_folder(folder, sizeof(folder)) || database == NULL ||
        pin == NULL || stat(folder, &token_st) != 0 || stat(database, &database_st) != 0 ||
        stat(pin, &pin_st) != 0)
        return;
    if (token_st.st_dev == database_st.st_dev && token_st.st_dev == pin_st.st_dev)
        finding(findings, FINDING_WARNING, folder,
                "use a hardware token, or keep one of the three "
                "on another disk",
                "SoftHSM's token, the PIN file and the database lie on one disk: who copies it has "
                "all keys; this is obfuscation, not protection");
}

static void check_token(FINDINGS *findings, const char *token, const char *database)
{
    AUTO(uri) P11KitUri *uri = parse_token(token);
    const char *pin;

    if (uri == NULL)
        return;
    pin = file_of(p11_kit_uri_get_pin_source(uri));
    check_module(findings, uri);
    if (pin != NULL)
        check_pin_file(findings, pin);
    check_one_disk(findings, uri, database);
}

/* ---- all of them
 * -------------------------------------------------------------------------------------- */

static void check_memlock(FINDINGS *findings)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return;
    if (limit.rlim_cur >= MEMLOCK_WANTED || geteuid() == 0)
        finding(findings, FINDING_OK, "locked memory", NULL, "secrets can be kept out of swap");
    else
        finding(findings, FINDING_WARNING, "locked memory",
                "raise it: LimitMEMLOCK=8M in the unit, or memlock in limits.conf",
                "the limit is %lu KiB: secrets may reach swap",
                (unsigned long)limit.rlim_cur / 1024);
}

void doctor_files(APP *app, FINDINGS *findings)
{
    const char *database = config_store_path(tpks_config_get(app->config, app->keystore, "store"));
    const char *state = tpks_config_get(app->config, app->keystore, "state");

    check_file(findings, config_path(app), &config_rule);
    check_folder_of(findings, config_path(app));
    if (database != NULL && check_file(findings, database, &database_rule))
        check_folder_of(findings, database);
    if (state != NULL)
        check_file(findings, state, &folder_rule);
    check_token(findings, tpks_config_get(app->config, app->keystore, "token"), database);
    check_memlock(findings);
}
