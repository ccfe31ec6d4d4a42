/*
 * hsm_pin.c - the token's PIN, and the memory of refused ones
 *
 * Tokens lock after a few wrong PINs (a TPM after three), and a web server starts many processes
 * with the same PIN file. So a refused file is remembered, in this process and in the state
 * folder, by device, inode, time of change and size, and not tried again until it changes.
 */
#include "hsm_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

void pin_clear(struct pin *pin)
{
    tpks_secret_free(pin->secret);
    pin->secret = NULL;
}

static void stamp_of(const char *path, struct pin_stamp *out)
{
    struct stat status;
    *out = (struct pin_stamp){0};
    if (stat(path, &status) != 0)
        return;
    out->device = status.st_dev;
    out->inode = status.st_ino;
    out->size = (unsigned long long)status.st_size;
    out->seconds = status.st_mtim.tv_sec;
    out->nanoseconds = status.st_mtim.tv_nsec;
}

static bool stamps_equal(const struct pin_stamp *a, const struct pin_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

/* The stamp is taken before the content, so a file changed meanwhile counts as changed. */
static tpks_result pin_read(const char *path, struct pin *out)
{
    stamp_of(path, &out->stamp);
    out->path = path;
    return fail_in(tpks_secret_read_file(path, PIN_MAX, &out->secret), "PIN of the token");
}

static int call_ask(const struct hsm_caller *caller, const char *info, TPKS_SECRET *answer,
                    size_t *length)
{
    struct hsm_guard *guard = hsm_guard_pause();
    int answered = caller->ask(caller->ask_arg, TPKS_ASK_PIN, info,
                               (char *)tpks_secret_data(answer), PIN_MAX, length);
    hsm_guard_resume(guard);
    return answered;
}

static tpks_result pin_ask(const struct token_uri *uri, const struct hsm_caller *caller,
                           struct pin *out)
{
    if (caller->ask == NULL)
        return fail(TPKS_WRONG_SECRET, "PIN of the token: pin-source=callback, but nobody can be "
                                       "asked here: use pin-source=file:/path");
    char *token =
        p11_kit_space_strdup(p11_kit_uri_get_token_info(uri->parsed)->label, TOKEN_LABEL_SIZE - 1);
    char info[256];
    snprintf(info, sizeof(info), "Trustpoint keystore %s token %s PIN",
             caller->keystore_label != NULL ? caller->keystore_label : "",
             token != NULL ? token : "");
    free(token);
    out->secret = tpks_secret_new(PIN_MAX);
    if (out->secret == NULL)
        return fail_memory();
    size_t length = 0;
    if (call_ask(caller, info, out->secret, &length) != 1 || length == 0 || length > PIN_MAX)
        return fail(TPKS_WRONG_SECRET, "PIN of the token: none was given: type it when asked");
    tpks_secret_shrink(out->secret, length);
    return TPKS_OK;
}

tpks_result pin_get(const struct token_uri *uri, const struct hsm_caller *caller, struct pin *out)
{
    *out = (struct pin){0};
    tpks_result result = uri->pin_asked ? pin_ask(uri, caller, out) : pin_read(uri->pin_path, out);
    if (result != TPKS_OK)
        pin_clear(out);
    return result;
}

/* ---- refused PINs ---------------------------------------------------------------------------- */

static bool refusal_name(const struct hsm_connection *connection, char out[FILE_HASH_SIZE])
{
    char *text = NULL;
    if (asprintf(&text, "%s\n%s", connection->serial, connection->uri_text) < 0)
        return false;
    bool hashed = hsm_file_hash(text, out) == TPKS_OK;
    free(text);
    return hashed;
}

static bool refusal_path(const struct hsm_connection *connection, const char *name,
                         char out[PATH_MAX])
{
    return connection->lock_dir != NULL &&
           snprintf(out, PATH_MAX, "%s/pin-%s.refused", connection->lock_dir, name) < PATH_MAX;
}

static bool refusal_read(const char *path, struct pin_stamp *out)
{
    char text[160];
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1)
        return false;
    ssize_t size = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (size <= 0)
        return false;
    text[size] = '\0';
    return sscanf(text, "%llu %llu %llu %lld %lld", &out->device, &out->inode, &out->size,
                  &out->seconds, &out->nanoseconds) == 5;
}

static void refusal_write(const char *path, const struct pin_stamp *stamp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0660);
    if (fd == -1)
        return;
    (void)!fchmod(fd, 0660);
    dprintf(fd, "%llu %llu %llu %lld %lld\n", stamp->device, stamp->inode, stamp->size,
            stamp->seconds, stamp->nanoseconds);
    close(fd);
}

static struct pin_refusal *refusal_in_memory(struct hsm_process *process, const char *name)
{
    struct pin_refusal *refusal = process->refusals;
    while (refusal != NULL && strcmp(refusal->name, name) != 0)
        refusal = refusal->next;
    return refusal;
}

static void remember_in_memory(struct hsm_process *process, const char *name,
                               const struct pin_stamp *stamp)
{
    HOLD(&process->mutex);
    struct pin_refusal *refusal = refusal_in_memory(process, name);
    if (refusal == NULL) {
        refusal = calloc(1, sizeof(*refusal));
        if (refusal == NULL)
            return;
        memcpy(refusal->name, name, FILE_HASH_SIZE);
        refusal->next = process->refusals;
        process->refusals = refusal;
    }
    refusal->stamp = *stamp;
}

static bool refused_in_memory(struct hsm_process *process, const char *name,
                              const struct pin_stamp *stamp)
{
    HOLD(&process->mutex);
    const struct pin_refusal *refusal = refusal_in_memory(process, name);
    return refusal != NULL && stamps_equal(&refusal->stamp, stamp);
}

tpks_result pin_refusal_check(const struct hsm_connection *connection, const struct pin *pin)
{
    char name[FILE_HASH_SIZE], path[PATH_MAX];
    struct pin_stamp stamp;
    if (pin->path == NULL || !refusal_name(connection, name))
        return TPKS_OK;
    bool refused = refused_in_memory(connection->process, name, &pin->stamp);
    if (!refused && refusal_path(connection, name, path) && refusal_read(path, &stamp))
        refused = stamps_equal(&stamp, &pin->stamp);
    if (!refused)
        return TPKS_OK;
    return fail(TPKS_PIN_LOCKED,
                "HSM token \"%s\": the PIN in %s was refused before and is not tried again, so "
                "that the token does not lock: correct the file, or touch it to try once more",
                connection->label, pin->path);
}

void pin_refusal_remember(const struct hsm_connection *connection, const struct pin *pin)
{
    char name[FILE_HASH_SIZE], path[PATH_MAX];
    if (pin->path == NULL || !refusal_name(connection, name))
        return;
    remember_in_memory(connection->process, name, &pin->stamp);
    if (refusal_path(connection, name, path))
        refusal_write(path, &pin->stamp);
}

void pin_refusal_forget(const struct hsm_connection *connection, const struct pin *pin)
{
    char name[FILE_HASH_SIZE], path[PATH_MAX];
    if (pin->path != NULL && refusal_name(connection, name) && refusal_path(connection, name, path))
        unlink(path);
}
