/*
 * doctor_openssl.c - does openssl.cnf activate the provider, and harm nothing else?
 *
 * The file is read for what it says, and then really loaded into a library context of its own, to
 * see which provider serves ordinary keys and whether ours answers to its scheme.
 */
#include <string.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/store.h>

#include "config_write.h"
#include "doctor.h"

CLEANUP(CONF *, NCONF_free, cleanup_conf)

static inline void cleanup_path(char **path)
{
    OPENSSL_free(*path);
}

static const char *const recipe =
    "activate default first and then trustpoint, both with activate = 1; openssl.cnf.example "
    "shows the whole file";

/* ---- what the file says
 * ---------------------------------------------------------------------------- */

/* Where a provider stands among those that are activated. */
typedef struct provider_line {
    int position;        /* -1: not listed */
    const char *section; /* its section, NULL if not listed */
    bool activated;
} provider_line;

static const char *get(const CONF *conf, const char *section, const char *name)
{
    const char *value = section != NULL ? NCONF_get_string(conf, section, name) : NULL;

    ERR_clear_error();
    return value;
}

/* OpenSSL takes "a.default" for "default", so that one name can be assigned twice. */
static const char *plain_name(const char *name)
{
    const char *dot = strchr(name, '.');

    return dot != NULL ? dot + 1 : name;
}

static provider_line find_provider(const CONF *conf, const char *section, const char *name)
{
    provider_line line = {-1, NULL, false};
    STACK_OF(CONF_VALUE) *lines = section != NULL ? NCONF_get_section(conf, section) : NULL;

    for (int i = 0; lines != NULL && i < sk_CONF_VALUE_num(lines); i++) {
        const CONF_VALUE *value = sk_CONF_VALUE_value(lines, i);
        const char *active = get(conf, value->value, "activate");

        if (strcmp(plain_name(value->name), name) == 0)
            line = (provider_line){i, value->value, active != NULL && strcmp(active, "0") != 0};
    }
    ERR_clear_error();
    return line;
}

static void check_order(FINDINGS *findings, const char *path, const provider_line *standard,
                        const provider_line *ours)
{
    if (!standard->activated)
        finding(findings, FINDING_PROBLEM, path, recipe,
                "the default provider is not activated although another one is listed: ordinary "
                "cryptography fails in every program");
    else if (standard->position > ours->position)
        finding(findings, FINDING_PROBLEM, path, recipe,
                "trustpoint stands before default: programs may hang");
    else
        finding(findings, FINDING_OK, path, NULL, "activates default and then trustpoint");
}

static void check_module(FINDINGS *findings, const CONF *conf, const char *section)
{
    const char *module = get(conf, section, "module");
    const char *folder = secure_getenv("OPENSSL_MODULES");
    char path[4096];

    if (folder == NULL)
        folder = OPENSSL_info(OPENSSL_INFO_MODULES_DIR);
    if (module == NULL || *module != '/') {
        const char *name = module != NULL ? module : "trustpoint.so";

        snprintf(path, sizeof(path), "%s/%s", folder != NULL ? folder : "", name);
        module = path;
    }
    if (access(module, R_OK) == 0)
        finding(findings, FINDING_OK, module, NULL, "the provider's module is there");
    else
        finding(findings, FINDING_PROBLEM, module,
                "install the provider, or name its module in openssl.cnf: module = /path",
                "the provider's module is missing or not readable");
}

/* Programs and this command should speak of the same keystore. */
static void check_same_config(APP *app, FINDINGS *findings, const CONF *conf, const char *section)
{
    const char *config = get(conf, section, "config");

    if (config == NULL)
        config = tpks_config_default_path();
    if (secure_getenv("TRUSTPOINT_KEYSTORE_CONF") == NULL && strcmp(config, config_path(app)) != 0)
        finding(findings, FINDING_WARNING, config,
                "name the same file with --config here, or with config = in openssl.cnf",
                "programs use this configuration, this command uses %s", config_path(app));
}

static void check_properties(FINDINGS *findings, const CONF *conf, const char *init,
                             const char *path)
{
    const char *section = get(conf, init, "alg_section");
    const char *properties = get(conf, section, "default_properties");

    if (properties == NULL)
        return;
    finding(findings, strstr(properties, "provider") != NULL ? FINDING_PROBLEM : FINDING_WARNING,
            path, "remove default_properties from openssl.cnf",
            "default_properties = %s may hide the provider from every program", properties);
}

static void check_text(APP *app, FINDINGS *findings, const CONF *conf, const char *path)
{
    const char *init = get(conf, "default", "openssl_conf");
    const char *providers = get(conf, init, "providers");
    provider_line standard = find_provider(conf, providers, "default");
    provider_line ours = find_provider(conf, providers, "trustpoint");

    check_properties(findings, conf, init, path);
    if (!ours.activated) {
        finding(findings, FINDING_PROBLEM, path, recipe,
                "does not activate the provider trustpoint: programs without their own "
                "OPENSSL_CONF cannot load its keys");
        return;
    }
    check_order(findings, path, &standard, &ours);
    check_module(findings, conf, ours.section);
    check_same_config(app, findings, conf, ours.section);
}

/* ---- what it does
 * ------------------------------------------------------------------------------------ */

static void check_keymgmt(FINDINGS *findings, OSSL_LIB_CTX *context, const char *algorithm)
{
    EVP_KEYMGMT *keymgmt = EVP_KEYMGMT_fetch(context, algorithm, NULL);
    const char *name =
        keymgmt != NULL ? OSSL_PROVIDER_get0_name(EVP_KEYMGMT_get0_provider(keymgmt)) : "nobody";

    if (strcmp(name, "default") == 0 || strcmp(name, "fips") == 0)
        finding(findings, FINDING_OK, algorithm, NULL, "ordinary keys are served by %s", name);
    else
        finding(findings, FINDING_PROBLEM, algorithm, recipe,
                "ordinary keys are served by %s instead of default", name);
    EVP_KEYMGMT_free(keymgmt);
    ERR_clear_error();
}

static void check_loader(FINDINGS *findings, OSSL_LIB_CTX *context)
{
    OSSL_STORE_LOADER *loader = OSSL_STORE_LOADER_fetch(context, "trustpoint", NULL);

    if (loader != NULL)
        finding(findings, FINDING_OK, "provider trustpoint", NULL, "is active and serves URIs");
    else
        finding(findings, FINDING_PROBLEM, "provider trustpoint",
                "see the findings above; \"openssl list -providers\" must show trustpoint",
                "is not active: %s",
                ERR_peek_last_error() != 0 ? ERR_reason_error_string(ERR_peek_last_error())
                                           : "no reason given");
    OSSL_STORE_LOADER_free(loader);
    ERR_clear_error();
}

static void check_effect(FINDINGS *findings, const char *path)
{
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();

    if (context == NULL || OSSL_LIB_CTX_load_config(context, path) != 1)
        finding(findings, FINDING_PROBLEM, path, "see \"openssl list -providers\"",
                "OpenSSL cannot load it: %s",
                ERR_peek_last_error() != 0 ? ERR_reason_error_string(ERR_peek_last_error())
                                           : "no reason given");
    ERR_clear_error();
    check_keymgmt(findings, context, "RSA");
    check_keymgmt(findings, context, "EC");
    check_loader(findings, context);
    OSSL_LIB_CTX_free(context);
}

void doctor_openssl_conf(APP *app, FINDINGS *findings)
{
    __attribute__((cleanup(cleanup_path))) char *path = CONF_get1_default_config_file();
    AUTO(conf) CONF *conf = NCONF_new_ex(app->libctx, NULL);
    long line = 0;

    if (path == NULL || conf == NULL)
        return;
    if (NCONF_load(conf, path, &line) <= 0) {
        finding(findings, FINDING_PROBLEM, path,
                "correct or restore the file; OPENSSL_CONF names "
                "another one",
                line > 0 ? "cannot be parsed (line %ld)" : "cannot be read", line);
        ERR_clear_error();
        return;
    }
    check_text(app, findings, conf, path);
    check_effect(findings, path);
}
