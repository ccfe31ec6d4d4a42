/*
 * cmd_server_config.c - trustpoint-keystore nginx-config and apache-config: what a server's
 * configuration says about a key of the keystore, and the files that it names
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "key_input.h"
#include "options.h"
#include "output.h"
#include "process.h"
#include "record_view.h"
#include "safe_name.h"
#include "server_files.h"
#include "stub_pem.h"

#define DEFAULT_FOLDER "/etc/trustpoint/tls"

/* One kind of server, as its configuration speaks of certificate and key. */
typedef struct server_kind {
    const char *command;
    const char *name; /* what Trustpoint's names of files begin with */
    const char *cert; /* the two directives, aligned */
    const char *key;
    const char *end; /* of a directive */
} server_kind;

static const server_kind nginx = {"nginx-config", "nginx", "ssl_certificate     ",
                                  "ssl_certificate_key ", ";"};
static const server_kind apache = {"apache-config", "apache", "SSLCertificateFile    ",
                                   "SSLCertificateKeyFile ", ""};

typedef struct server_options {
    const server_kind *kind;
    const char *dir;
    bool uri, pin, trustpoint_names, replace_key, dry_run;
    char *const *hook;
} server_options;

static inline void cleanup_files(server_files *files)
{
    server_files_free(files);
}

static inline void cleanup_text(char **text)
{
    free(*text);
}

/* ---- what an administrator should know
 * ------------------------------------------------------------ */

/* Whoever renews in time does it before a third of the certificate's life is left. */
static void warn_of_dates(const TPKS_RECORD *record, const X509 *leaf)
{
    time_t now = time(NULL), from = view_not_before(leaf), until = view_not_after(leaf);
    const char *name = tpks_record_name(record);
    char text[TIME_SIZE];

    if (until <= now)
        say("warning: the certificate of %s has expired: %s", name, time_text(until, text));
    else if (from > now)
        say("warning: the certificate of %s is not valid before %s", name, time_text(from, text));
    else if (until - now < (until - from) / 3)
        say("warning: the certificate of %s ends soon: %s", name, time_text(until, text));
}

static void warn_of_home(const TPKS_RECORD *record)
{
    const char *name = tpks_record_name(record);

    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        say("warning: the key of %s never leaves its token: the server's workers use it in every "
            "handshake and need the token, its PIN file and the module's environment (in nginx the "
            "directive env) too",
            name);
    if (tpks_record_home(record) == TPKS_HOME_PLAIN)
        say("warning: the key of %s lies in the database in the clear", name);
}

static void warn(APP *app, const TPKS_RECORD *record)
{
    AUTO(x509) X509 *leaf = view_cert(app, record, 0);

    if (leaf != NULL)
        warn_of_dates(record, leaf);
    warn_of_home(record);
    if ((tpks_record_policy(record) & TPKS_MAY_SIGN) == 0)
        say("warning: the policy of %s does not let it sign: every handshake will fail",
            tpks_record_name(record));
    if (tpks_allowed(app->ks, tpks_record_name(record)) != TPKS_OK)
        say("warning: %s", tpks_error_text());
}

/* ---- the snippet
 * -------------------------------------------------------------------------------- */

static int print_comment(APP *app, const TPKS_RECORD *record)
{
    AUTO(x509) X509 *leaf = view_cert(app, record, 0);
    char *uri = stub_uri(app, record, false);
    char key[KEY_TEXT_SIZE], time[TIME_SIZE];

    if (uri == NULL || leaf == NULL) {
        OPENSSL_free(uri);
        return complain_memory();
    }
    view_key(app, record, key);
    printf("# %s, %s, certificate until %s\n", uri, key, time_text(view_not_after(leaf), time));
    OPENSSL_free(uri);
    return EX_OK;
}

static int print_key(APP *app, const TPKS_RECORD *record, const server_options *o,
                     const server_files *files)
{
    char *uri;

    if (!o->uri) {
        printf("%s%s%s\n", o->kind->key, files->file[SERVER_KEY].path, o->kind->end);
        return EX_OK;
    }
    uri = stub_uri(app, record, o->pin);
    if (uri == NULL)
        return complain_memory();
    printf("%sstore:%s%s\n", o->kind->key, uri, o->kind->end);
    OPENSSL_free(uri);
    return EX_OK;
}

static int print_snippet(APP *app, const TPKS_RECORD *record, const server_options *o,
                         const server_files *files)
{
    DO(print_comment(app, record));
    printf("%s%s%s\n", o->kind->cert, files->file[SERVER_CERT].path, o->kind->end);
    DO(print_key(app, record, o, files));
    if (o->dir == NULL)
        say("nothing was written; --dir %s writes the files that these lines name", files->folder);
    return EX_OK;
}

/* ---- the hook
 * ------------------------------------------------------------------------------------- */

static int run_hook(char *const *hook)
{
    pid_t pid = process_fork();

    if (pid < 0)
        return complain_file("cannot run the hook", hook[0]);
    if (pid == 0) {
        execvp(hook[0], hook);
        complain_file("cannot run the hook", hook[0]);
        _exit(EX_UNAVAILABLE);
    }
    if (process_reap(pid))
        return EX_OK;
    return complain(EX_TEMPFAIL,
                    "the hook %s has failed; the files are right, and it is run again next time",
                    hook[0]);
}

/* Due after a change, and until it has succeeded once: also when a run was killed in between. */
static int run_hook_if_due(server_files *files, const server_options *o)
{
    if (o->hook == NULL || o->dry_run || !server_files_marked(files))
        return EX_OK;
    DO(run_hook(o->hook));
    return server_files_unmark(files);
}

/* ---- all of it
 * ------------------------------------------------------------------------------------ */

/* Without the reserved end, web.chain.crt would belong to "web" and to "web.chain". */
static int name_files(const TPKS_RECORD *record, const server_options *o, server_files *files)
{
    AUTO(text) char *base = safe_name(tpks_record_name(record), ".chain");

    if (base == NULL)
        return complain_memory();
    return server_files_name(files, o->dir != NULL ? o->dir : DEFAULT_FOLDER,
                             o->dir != NULL && !o->dry_run, base,
                             o->trustpoint_names ? o->kind->name : NULL);
}

static int configure(APP *app, const char *name, const server_options *o, server_files *files,
                     size_t *changed)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    const server_update how = {o->replace_key, o->dry_run};

    app->never_ask = true;
    DO(app_open_record(app, TPKS_LOAD, name, &record));
    if (tpks_record_home(record) == TPKS_HOME_NONE)
        return complain(EX_NOINPUT, "%s has certificates but no private key: a server needs both",
                        tpks_record_name(record));
    DO(name_files(record, o, files));
    DO(server_files_fill(app, record, o->trustpoint_names, !o->uri, o->pin, files));
    warn(app, record);
    if (o->dir != NULL)
        DO(server_files_update(app, record, files, how, changed));
    return o->hook == NULL && !o->dry_run ? print_snippet(app, record, o, files) : EX_OK;
}

static int check(const server_options *o)
{
    if (o->dir == NULL && (o->dry_run || o->replace_key || o->hook != NULL))
        return complain(EX_USAGE, "--dry-run, --replace-key-file and --hook need --dir FOLDER");
    if (o->uri && o->replace_key)
        return complain(EX_USAGE, "--uri writes no stub that could replace a key file");
    return EX_OK;
}

static int server_config(APP *app, const char *name, const server_options *o)
{
    __attribute__((cleanup(cleanup_files))) server_files files = {.folder = NULL};
    size_t changed = 0;

    DO(configure(app, name, o, &files, &changed));
    app_close(app);
    DO(run_hook_if_due(&files, o));
    return o->dry_run && changed > 0 ? 1 : EX_OK;
}

#define FILE_OPTIONS(o)                                                                            \
    {"dir", OPTION_TEXT, &(o).dir, "FOLDER", "write certificate, chain and stub there"},           \
        {"pin", OPTION_FLAG, &(o).pin, NULL, "accept no key but the present one (spki=)"},         \
        {"trustpoint-names", OPTION_FLAG, &(o).trustpoint_names, NULL,                             \
         "files named and made as Trustpoint does"},                                               \
        {"replace-key-file", OPTION_FLAG, &(o).replace_key, NULL,                                  \
         "put the stub in the place of the same key in the clear"},                                \
    {                                                                                              \
        "dry-run", OPTION_FLAG, &(o).dry_run, NULL,                                                \
            "only say what would be written; exit code 1 if there is anything"                     \
    }
#define HOOK_ARGUMENTS "NAME|URI [--hook PROGRAM ARGUMENTS…]"
#define HOOK_SUMMARY                                                                               \
    "Prints what the configuration says about a record; with --dir writes the files that it "      \
    "names\nand, if any was changed, runs PROGRAM (all words behind --hook are its)."

static int run(APP *app, const command_usage *usage, int argc, char **argv, server_options *o)
{
    char **arguments;
    int count;

    DO(options_split_hook(&argc, argv, &o->hook));
    DO(options_parse(app, usage, argc, argv, &arguments, &count));
    DO(check(o));
    return server_config(app, arguments[0], o);
}

int command_nginx_config(APP *app, int argc, char **argv)
{
    server_options o = {.kind = &nginx};
    const option_spec specs[] = {
        FILE_OPTIONS(o),
        {"uri", OPTION_FLAG, &o.uri, NULL, "a store: URI instead of a stub (nginx 1.29 and later)"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"nginx-config", HOOK_ARGUMENTS, HOOK_SUMMARY, specs, 1, 1};

    return run(app, &usage, argc, argv, &o);
}

int command_apache_config(APP *app, int argc, char **argv)
{
    server_options o = {.kind = &apache};
    const option_spec specs[] = {
        FILE_OPTIONS(o),
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"apache-config", HOOK_ARGUMENTS, HOOK_SUMMARY, specs, 1, 1};

    return run(app, &usage, argc, argv, &o);
}
