/*
 * main.c - trustpoint-keystore: creates and tends a keystore
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "command.h"
#include "options.h"
#include "output.h"

typedef struct command {
    const char *name;
    command_fn *run;
    const char *summary;
} command;

static const command commands[] = {
    {"init", command_init, "make a new keystore"},
    {"import", command_import, "take in a private key with its certificates"},
    {"import-trustpoint", command_import_trustpoint, "copy the keys of Trustpoint's database"},
    {"generate", command_generate, "make a new private key"},
    {"list", command_list, "list the records"},
    {"show", command_show, "show one record"},
    {"set-cert", command_set_cert, "renew a record's certificates, or its key with them"},
    {"cert", command_cert, "write a record's certificates as PEM"},
    {"csr", command_csr, "write a certificate request signed with a record's key"},
    {"rename", command_rename, "give a record another name"},
    {"delete", command_delete, "delete a record"},
    {"policy", command_policy, "show or change what a key may be used for"},
    {"stub", command_stub, "write a PEM file that names a record, for programs that open files"},
    {"nginx-config", command_nginx_config,
     "write what nginx needs for a record, and keep it fresh"},
    {"apache-config", command_apache_config, "the same for Apache"},
    {"export", command_export, "write a private key to a file"},
    {"backup", command_backup, "copy the database"},
    {"verify", command_verify, "prove the database and every record"},
    {"status", command_status, "say how the keystore is"},
    {"doctor", command_doctor, "look for what is wrong with this host's set-up"},
    {"unlock-service", command_unlock_service, "wait until a lost KEK is restored, for systemd"},
    {"unlock", command_unlock, "hand the backup password to the waiting service"},
    {"serve-restore", command_serve_restore, "take the backup password on a web page"},
    {"slots", command_slots, "list what can unlock the keystore"},
    {"slot", command_slot, "add, remove or test what unlocks the keystore"},
    {"password", command_password, "change the backup password"},
    {"restore", command_restore, "make a new KEK after the HSM has lost the old one"},
    {"rotate-kek", command_rotate_kek, "make a new KEK on the same token"},
    {"header", command_header, "copy header and slots, or put a copy back"},
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

/*
 * Private keys pass through this process: no core dump and no debugger of the same user. Only the
 * soft limit is lowered, for a program that we become gets back what it would have had.
 */
static void harden(struct rlimit *cores)
{
    struct rlimit none;

    if (getrlimit(RLIMIT_CORE, cores) != 0)
        *cores = (struct rlimit){0, 0};
    none = (struct rlimit){0, cores->rlim_max};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Returns only when the program can't be run, with the exit code that a shell has for that. */
static int become(char *const *program, const struct rlimit *cores)
{
    setrlimit(RLIMIT_CORE, cores);
    execvp(program[0], program);
    return complain(errno == ENOENT ? 127 : 126, "cannot run %s: %s", program[0], strerror(errno));
}

void print_overview(void)
{
    printf("Usage: " PROGRAM " [--config FILE] [--keystore NAME] COMMAND [OPTIONS] [ARGUMENTS]\n"
           "Creates and tends a keystore of encrypted private keys.\n\nCommands:\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-17s %s\n", commands[i].name, commands[i].summary);
    printf("\n" PROGRAM " COMMAND --help shows the options of a command;\n"
           "the manual page " PROGRAM "(1) says all of it.\n");
}

static int run(APP *app, int argc, char **argv)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, argv[0]) == 0)
            return commands[i].run(app, argc, argv);
    return complain(EX_USAGE, "there is no command \"%s\"; see " PROGRAM " --help", argv[0]);
}

/* A host's openssl.cnf may activate our provider, which must not be entered from below itself. */
static int start_libcrypto(APP *app)
{
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1 ||
        (app->libctx = OSSL_LIB_CTX_new()) == NULL ||
        (app->standard = OSSL_PROVIDER_load(app->libctx, "default")) == NULL ||
        (app->bare = OSSL_LIB_CTX_new()) == NULL ||
        (app->nothing = OSSL_PROVIDER_load(app->bare, "null")) == NULL)
        return complain_crypto(EX_SOFTWARE, "cannot start libcrypto");
    return EX_OK;
}

static void stop_libcrypto(APP *app)
{
    if (app->legacy != NULL)
        OSSL_PROVIDER_unload(app->legacy);
    if (app->standard != NULL)
        OSSL_PROVIDER_unload(app->standard);
    if (app->nothing != NULL)
        OSSL_PROVIDER_unload(app->nothing);
    OSSL_LIB_CTX_free(app->bare);
    OSSL_LIB_CTX_free(app->libctx);
}

static int start_and_run(APP *app, int argc, char **argv)
{
    int next = 0;
    int code;

    app->config_path = secure_getenv("TRUSTPOINT_KEYSTORE_CONF");
    DO(options_parse_global(app, argc, argv, &next));
    if (next >= argc)
        return complain(EX_USAGE, "a command is missing; see " PROGRAM " --help");
    DO(start_libcrypto(app));
    code = run(app, argc - next, argv + next);
    if (code == EX_OK)
        app_finish(app);
    app_close(app);
    stop_libcrypto(app);
    return code;
}

int main(int argc, char **argv)
{
    APP app = {.password_fd = NO_FD};
    struct rlimit cores;
    int code, written;

    harden(&cores);
    code = start_and_run(&app, argc, argv);
    if (app.json)
        (void)output_json_failure(code);
    written = output_finish();
    if (code == EX_OK && written == EX_OK && app.become != NULL)
        return become(app.become, &cores);
    return code != EX_OK ? code : written;
}
