/*
 * server_files.c - the files that a server reads: certificates, and the stub in place of its key
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key_input.h"
#include "new_file.h"
#include "output.h"
#include "present_file.h"
#include "record_view.h"
#include "server_files.h"
#include "stub_pem.h"

#define MODE 0644 /* none of them holds a secret */

static inline void cleanup_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

void server_files_free(server_files *files)
{
    for (size_t i = 0; i < SERVER_FILES; i++) {
        free(files->file[i].path);
        BIO_free_all(files->file[i].content);
    }
    free(files->mark);
    free(files->folder);
}

/* ---- paths -------------------------------------------------------------------------------------
 */

/* What a configuration, a shell or a unit would not take for more than itself. */
static bool is_safe(const char *path)
{
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "/._-+=@:,~";

    return path[strspn(path, safe)] == '\0';
}

static int find_folder(const char *folder, bool make, char **out)
{
    if (make && mkdir(folder, 0755) == 0)
        say("made the folder %s", folder);
    *out = realpath(folder, NULL);
    if (*out == NULL && !make && errno == ENOENT && *folder == '/')
        *out = strdup(folder);
    if (*out == NULL)
        return complain_file("cannot use the folder", folder);
    if (is_safe(*out))
        return EX_OK;
    return complain(EX_USAGE,
                    "%s: a server's configuration would need quotes for this path; choose a folder "
                    "with letters, digits and / . _ - + = @ : , ~ only",
                    *out);
}

static bool join(char **out, const char *folder, const char *before, const char *base,
                 const char *after)
{
    if (asprintf(out, "%s/%s%s%s", folder, before, base, after) >= 0)
        return true;
    *out = NULL;
    return false;
}

int server_files_name(server_files *files, const char *folder, bool make, const char *base,
                      const char *server)
{
    static const char *const own[SERVER_FILES] = {".crt", ".chain.crt", ".crt.key"};
    static const char *const trustpoint[SERVER_FILES] = {
        "-tls-server-cert.pem", "-tls-server-cert-chain.pem", "-tls-server-key.key"};
    const char *const *ends = server != NULL ? trustpoint : own;
    const char *begin = server != NULL ? server : base;

    DO(find_folder(folder, make, &files->folder));
    for (size_t i = 0; i < SERVER_FILES; i++)
        if (!join(&files->file[i].path, files->folder, "", begin, ends[i]))
            return complain_memory();
    return join(&files->mark, files->folder, ".", begin, ".hook-due") ? EX_OK : complain_memory();
}

/* ---- contents
 * ----------------------------------------------------------------------------------- */

static int new_content(server_file *file)
{
    file->content = BIO_new(BIO_s_mem());
    return file->content != NULL ? EX_OK : complain_memory();
}

int server_files_fill(APP *app, const TPKS_RECORD *record, bool leaf_only, bool stub, bool pin,
                      server_files *files)
{
    server_file *file = files->file;
    size_t count = tpks_record_cert_count(record);

    if (count == 0)
        return complain(EX_NOINPUT, "%s has no certificate; \"" PROGRAM " set-cert\" gives it one",
                        tpks_record_name(record));
    DO(new_content(&file[SERVER_CERT]));
    DO(view_certs_pem(app, record, 0, leaf_only ? 1 : count, file[SERVER_CERT].content));
    if (count > 1) {
        DO(new_content(&file[SERVER_CHAIN]));
        DO(view_certs_pem(app, record, 1, count, file[SERVER_CHAIN].content));
    }
    if (!stub)
        return EX_OK;
    DO(new_content(&file[SERVER_KEY]));
    return stub_pem(app, record, TPKS_STUB_LABEL, pin, file[SERVER_KEY].content);
}

/* ---- what is there
 * ------------------------------------------------------------------------------ */

/* The present files, and which of them are to be written. */
typedef struct comparison {
    present_file present[SERVER_FILES];
    bool differs[SERVER_FILES];
    size_t count;
} comparison;

static inline void cleanup_comparison(comparison *c)
{
    for (size_t i = 0; i < SERVER_FILES; i++)
        present_file_free(&c->present[i]);
}

static int refuse(const char *path)
{
    return complain(EX_CANTCREAT,
                    "%s holds something else than what is to be there: it is not replaced; move "
                    "it away, or choose another --dir",
                    path);
}

static int check_replaceable(size_t i, const char *path, const present_file *present,
                             bool replace_key)
{
    present_kind expected = i == SERVER_KEY ? PRESENT_STUB : PRESENT_CERTS;

    if (present->kind == PRESENT_NONE || present->kind == expected)
        return EX_OK;
    if (i != SERVER_KEY || present->kind != PRESENT_KEY)
        return refuse(path);
    if (present->key == NULL)
        return complain(EX_CANTCREAT,
                        "%s holds a private key that cannot be read without a password: it is not "
                        "replaced; move it away, or choose another --dir",
                        path);
    if (!replace_key)
        return complain(EX_CANTCREAT,
                        "%s holds a private key in the clear; --replace-key-file puts the stub in "
                        "its place if it is the record's own",
                        path);
    return EX_OK;
}

static int compare(APP *app, const server_files *files, bool replace_key, comparison *c)
{
    for (size_t i = 0; i < SERVER_FILES; i++) {
        const server_file *file = &files->file[i];
        char *data = NULL;
        long size = file->content != NULL ? BIO_get_mem_data(file->content, &data) : 0;

        if (file->content == NULL)
            continue;
        DO(present_file_read(app, file->path, replace_key && i == SERVER_KEY, &c->present[i]));
        c->differs[i] = !present_file_equals(&c->present[i], data, (size_t)size);
        c->count += c->differs[i];
        DO(check_replaceable(i, file->path, &c->present[i], replace_key));
    }
    return EX_OK;
}

/* ---- writing
 * ------------------------------------------------------------------------------------ */

/* The record's own private key must be what is about to be replaced. */
static int compare_keys(APP *app, const TPKS_RECORD *record, const TPKS_SECRET *secret,
                        const char *path, const present_file *present)
{
    AUTO(pkey) EVP_PKEY *key = NULL;

    DO(key_from_secret(app, secret, &key));
    if (EVP_PKEY_eq(key, present->key) == 1)
        return EX_OK;
    return complain(EX_CANTCREAT,
                    "%s holds another private key than the record %s: it is not replaced; find out "
                    "where it comes from",
                    path, tpks_record_name(record));
}

static int prove_token_key(APP *app, const TPKS_RECORD *record, const char *path,
                           const present_file *present)
{
    TPKS_TOKEN_KEY *key = NULL;

    if (present->kind == PRESENT_KEY)
        return complain(EX_CANTCREAT,
                        "%s holds a private key, but that of the record %s is in a token: it is "
                        "not replaced; find out where it comes from",
                        path, tpks_record_name(record));
    DO(complain_result(tpks_token_key_open(app->ks, record, &key)));
    tpks_token_key_free(key);
    return EX_OK;
}

/*
 * Until the key has been opened, together with what is authenticated beside it, nobody knows
 * whether the certificates are the keystore's own; and a server could not load it either.
 */
static int prove(APP *app, const TPKS_RECORD *record, const char *path, const present_file *present)
{
    AUTO(secret) TPKS_SECRET *secret = NULL;

    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        return prove_token_key(app, record, path, present);
    DO(complain_result(tpks_load_key(app->ks, record, &secret)));
    if (present->kind != PRESENT_KEY)
        return EX_OK;
    return compare_keys(app, record, secret, path, present);
}

static int write_one(const server_file *file, const present_file *present)
{
    char *data = NULL;
    long size = BIO_get_mem_data(file->content, &data);

    DO(new_file_replace(file->path, MODE, data, (size_t)size));
    say("wrote %s", file->path);
    if (present->kind != PRESENT_KEY)
        return EX_OK;
    DO(present_file_wipe(present, file->path));
    say("the private key that was in %s is overwritten; flash storage, journals and backups may "
        "still have it: replace the key and its certificate",
        file->path);
    return EX_OK;
}

static int write_all(const server_files *files, const comparison *c)
{
    for (size_t i = 0; i < SERVER_FILES; i++)
        if (c->differs[i])
            DO(write_one(&files->file[i], &c->present[i]));
    return EX_OK;
}

static void say_plan(const server_files *files, const comparison *c)
{
    for (size_t i = 0; i < SERVER_FILES; i++)
        if (c->differs[i])
            say("would write %s", files->file[i].path);
}

/* Held while files are compared and written, never while a hook runs. */
static int lock_folder(const server_files *files, int *fd)
{
    *fd = open(files->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || flock(*fd, LOCK_EX) != 0)
        return complain_file("cannot lock the folder", files->folder);
    return EX_OK;
}

/* A chain that this certificate does not have any more: the configuration may still name it. */
static void say_left_over(const server_files *files)
{
    const server_file *chain = &files->file[SERVER_CHAIN];

    if (chain->content == NULL && access(chain->path, F_OK) == 0)
        say("%s belongs to an earlier certificate: the present one has no chain", chain->path);
}

int server_files_update(APP *app, const TPKS_RECORD *record, const server_files *files,
                        server_update how, size_t *changed)
{
    __attribute__((cleanup(cleanup_comparison)))
    comparison c = {.present = {{.fd = -1}, {.fd = -1}, {.fd = -1}}};
    __attribute__((cleanup(cleanup_fd))) int lock = -1;

    if (!how.dry_run)
        DO(lock_folder(files, &lock));
    DO(compare(app, files, how.replace_key, &c));
    *changed = c.count;
    if (c.count == 0)
        return EX_OK;
    DO(prove(app, record, files->file[SERVER_KEY].path, &c.present[SERVER_KEY]));
    if (how.dry_run) {
        say_plan(files, &c);
        return EX_OK;
    }
    DO(new_file_replace(files->mark, 0600, "", 0));
    DO(write_all(files, &c));
    say_left_over(files);
    return EX_OK;
}

/* ---- the mark
 * ----------------------------------------------------------------------------------- */

bool server_files_marked(server_files *files)
{
    return stat(files->mark, &files->seen) == 0;
}

/* Another process may have changed the files again meanwhile: then its mark stays. */
int server_files_unmark(const server_files *files)
{
    __attribute__((cleanup(cleanup_fd))) int lock = -1;
    struct stat now;

    DO(lock_folder(files, &lock));
    if (stat(files->mark, &now) != 0 || now.st_ino != files->seen.st_ino ||
        now.st_ctim.tv_sec != files->seen.st_ctim.tv_sec ||
        now.st_ctim.tv_nsec != files->seen.st_ctim.tv_nsec)
        return EX_OK;
    return unlink(files->mark) == 0 ? EX_OK : complain_file("cannot remove", files->mark);
}
