/*
 * cmd_import.c - trustpoint-keystore import: takes in a private key with its certificates
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key_input.h"
#include "new_file.h"
#include "options.h"
#include "policy.h"

typedef struct import_options {
    const char *cert, *chain;
    bool delete_source;
    policy_options policy;
    input_password password;
} import_options;

/* ---- the sources are given up
 * ----------------------------------------------------------------------- */

/* Only the very file that was read, and no link to it. */
static int delete_open_file(const input_file *file, int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || st.st_dev != file->device || st.st_ino != file->inode ||
        !S_ISREG(st.st_mode))
        return complain(EX_DATAERR,
                        "%s is no longer the file that was read; it was not deleted, "
                        "but the record is in the keystore",
                        file->path);
    if (st.st_nlink > 1)
        say("%s has other links, which are empty of the key now", file->path);
    if (new_file_wipe(fd, st.st_size) != 0 || unlink(file->path) != 0)
        return complain_file("the record is in the keystore, but the source is not deleted:",
                             file->path);
    return EX_OK;
}

static int delete_source(const input_file *file)
{
    int code, fd;

    if (!file->has_key)
        return EX_OK;
    fd = open(file->path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return complain_file("the record is in the keystore, but the source is not deleted:",
                             file->path);
    code = delete_open_file(file, fd);
    close(fd);
    return code == EX_OK ? new_file_sync_folder(file->path) : code;
}

/* A source is given up only for a record that gives the same key back. */
static int read_back(APP *app, const char *name, EVP_PKEY *key)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(secret) TPKS_SECRET *secret = NULL;
    AUTO(pkey) EVP_PKEY *stored = NULL;

    DO(app_find(app, name, &record));
    DO(complain_result(tpks_load_key(app->ks, record, &secret)));
    DO(key_from_secret(app, secret, &stored));
    if (EVP_PKEY_eq(stored, key) == 1)
        return EX_OK;
    return complain(EX_SOFTWARE, "%s: what was read back is not the key; nothing was deleted",
                    name);
}

static int delete_sources(APP *app, const char *name, EVP_PKEY *key, const input_file *files,
                          int count)
{
    DO(read_back(app, name, key));
    for (int i = 0; i < count; i++)
        DO(delete_source(&files[i]));
    return EX_OK;
}

/* ---- import
 * ------------------------------------------------------------------------------------------ */

static int check_deletable(const import_options *options, char **paths, int count)
{
    for (int i = 0; options->delete_source && i < count; i++)
        if (strcmp(paths[i], "-") == 0)
            return complain(EX_USAGE, "--delete-source needs files, not standard input");
    return EX_OK;
}

/* What was passed over is in no record: it must not be wiped with the key. */
static int check_taken(const import_options *options, const input_file *file)
{
    if (!options->delete_source || !file->has_key || file->left_out == NULL)
        return EX_OK;
    return complain(EX_DATAERR,
                    "%s also holds something that is not taken in (%s) and would be lost with "
                    "--delete-source; move it elsewhere, or leave out --delete-source",
                    file->path, file->left_out);
}

static int read_files(APP *app, const import_options *options, key_input *input, input_file *files,
                      int count)
{
    if (options->cert != NULL)
        DO(key_input_read_certs(app, input, options->cert));
    for (int i = 0; i < count; i++) {
        DO(key_input_read(app, input, &files[i]));
        DO(check_taken(options, &files[i]));
    }
    if (options->chain != NULL)
        DO(key_input_read_certs(app, input, options->chain));
    if (input->key == NULL)
        return complain(EX_DATAERR, "there is no private key in what was given");
    return EX_OK;
}

static int add(APP *app, const char *name, const import_options *options, const key_input *input)
{
    AUTO(certs) STACK_OF(X509) *chain = NULL;
    AUTO(secret) TPKS_SECRET *secret = NULL;

    DO(key_input_sort(input, input->key, &chain));
    DO(key_to_secret(input->key, &secret));
    return complain_result(
        tpks_add(app->ks, name, secret, chain, policy_of(&options->policy, TPKS_MAY_SIGN), NULL));
}

static int import_files(APP *app, const char *name, const import_options *options,
                        input_file *files, int count)
{
    __attribute__((cleanup(cleanup_input))) key_input input;

    key_input_init(&input);
    input.password = options->password;
    DO(read_files(app, options, &input, files, count));
    DO(app_open(app, TPKS_WRITE));
    DO(add(app, name, options, &input));
    if (options->delete_source)
        DO(delete_sources(app, name, input.key, files, count));
    return EX_OK;
}

static int import(APP *app, const import_options *options, char **arguments, int count)
{
    /* Never negative, which compilers want to see. */
    input_file *files = calloc((unsigned)count, sizeof(*files));
    int code;

    if (files == NULL)
        return complain_memory();
    for (int i = 0; i < count; i++)
        files[i].path = arguments[i];
    code = import_files(app, arguments[-1], options, files, count);
    free(files);
    return code;
}

int command_import(APP *app, int argc, char **argv)
{
    import_options o = {.password = {.fd = NO_FD}};
    const option_spec specs[] = {
        {"cert", OPTION_TEXT, &o.cert, "FILE", "its certificate (and chain), when not in FILEs"},
        {"chain", OPTION_TEXT, &o.chain, "FILE", "further certificates of the chain"},
        {"delete-source", OPTION_FLAG, &o.delete_source, NULL,
         "overwrite and unlink the key's FILE once the record has been read back"},
        POLICY_ALLOW_OPTIONS(o.policy),
        {"input-password-file", OPTION_TEXT, &o.password.file, "FILE",
         "password of encrypted FILEs"},
        {"input-password-fd", OPTION_NUMBER, &o.password.fd, "N", "the same from descriptor N"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "import",
        "NAME FILE...",
        "Takes in a private key with its certificates: PEM, DER, PKCS#8, PKCS#12.",
        specs,
        2,
        MANY};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    DO(complain_result(tpks_name_check(arguments[0])));
    DO(check_deletable(&o, arguments + 1, count - 1));
    return import(app, &o, arguments + 1, count - 1);
}
