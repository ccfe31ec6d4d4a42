/*
 * hsm_key.c - keys inside a token: found once for each login, tried again when the token was away
 *
 * A key that is used often works as a copy in the session. Once a second one operation goes to the
 * object of the token all the same: when that was destroyed, or its token is gone, the operation
 * fails as it would without a copy, and takes the copy with it.
 *
 * What a key knows of the token belongs to one process id. A forked child makes its own, and only
 * keeps the parent's reachable. The mutex inside is held for a few instructions only and is the
 * last one in the lock order.
 */
#include "hsm_key_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#define OPERATION_TRIES 3 /* the first one; after finding the key again; after a new login */
#define CHECK_MS 1000     /* how long a copy is used without a look at the token */

enum copying { COPY_NOT_YET = 0, COPY_MAKING, COPY_DONE /* or refused */ };

/* Where the object is, good at one generation of the connection. */
struct key_place {
    bool found;
    uint64_t number; /* of this find */
    uint64_t generation;
    CK_OBJECT_HANDLE object;
    enum copying copying;
    struct key_copy *copy;
    int64_t check_due; /* in ms of now_ms() */
};

/* A key's place in the token, as one process knows it. */
struct key_state {
    struct key_state *older;
    struct hsm_process *process;
    struct hsm_connection *connection; /* a keeper */
    bool local;                        /* its module */
    pthread_mutex_t mutex;
    uint64_t finds;
    struct key_place place;
};

struct hsm_key {
    char *token_uri, *lock_dir, *keystore_label;
    char *name, *serial, *label;
    unsigned char *id;
    size_t id_size;
    struct key_public public;
    _Atomic(struct key_state *) state;
};

/* ---- life ------------------------------------------------------------------------------------ */

void hsm_key_free(HSM_KEY *key)
{
    if (key == NULL)
        return;
    struct key_state *state = atomic_load(&key->state);
    while (state != NULL) {
        struct key_state *older = state->older;
        key_copy_drop(state->connection, state->place.copy);
        free(state);
        state = older;
    }
    key_public_clear(&key->public);
    OPENSSL_free(key->token_uri);
    OPENSSL_free(key->lock_dir);
    OPENSSL_free(key->keystore_label);
    OPENSSL_free(key->name);
    OPENSSL_free(key->serial);
    OPENSSL_free(key->label);
    OPENSSL_free(key->id);
    OPENSSL_free(key);
}

static bool copy_text(char **out, const char *text)
{
    if (text != NULL)
        *out = OPENSSL_strdup(text);
    return text == NULL || *out != NULL;
}

static tpks_result key_fill(HSM_KEY *key, const hsm_options *options, const hsm_key_lookup *lookup)
{
    key->id_size = lookup->id_size;
    if (lookup->id_size > 0)
        key->id = OPENSSL_memdup(lookup->id, lookup->id_size);
    if (!copy_text(&key->token_uri, options->token_uri) ||
        !copy_text(&key->lock_dir, options->lock_dir) ||
        !copy_text(&key->keystore_label, options->keystore_label) ||
        !copy_text(&key->name, lookup->name) || !copy_text(&key->serial, lookup->serial) ||
        !copy_text(&key->label, lookup->label) || (lookup->id_size > 0 && key->id == NULL))
        return fail_memory();
    return key_public_set(&key->public, lookup->spki, lookup->spki_size);
}

static tpks_result state_new(const HSM_KEY *key, struct hsm_process *process,
                             struct key_state **out)
{
    const hsm_options options = {.token_uri = key->token_uri,
                                 .lock_dir = key->lock_dir,
                                 .keep = true,
                                 .keystore_label = key->keystore_label};
    struct hsm_connection *connection = NULL;

    TRY(keeper_join(process, &options, &connection));
    *out = calloc(1, sizeof(**out));
    if (*out == NULL)
        return fail_memory();
    (*out)->process = process;
    (*out)->connection = connection;
    (*out)->local = module_is_local(&connection->uri);
    pthread_mutex_init(&(*out)->mutex, NULL);
    return TPKS_OK;
}

/* This process's own. */
static tpks_result state_get(HSM_KEY *key, struct hsm_process *process, struct key_state **out)
{
    struct key_state *fresh = NULL;

    *out = atomic_load(&key->state);
    if (*out != NULL && (*out)->process == process)
        return TPKS_OK;
    TRY(state_new(key, process, &fresh));
    fresh->older = *out;
    if (atomic_compare_exchange_strong(&key->state, out, fresh))
        *out = fresh;
    else
        free(fresh);
    return TPKS_OK;
}

/* ---- finding --------------------------------------------------------------------------------- */

struct key_find_job {
    struct keeper_job base;
    const HSM_KEY *key;
    CK_ULONG count;
    CK_OBJECT_HANDLE object;
    struct key_proof proof;
};

static CK_RV find_run(struct hsm_connection *connection, struct keeper_job *base)
{
    struct key_find_job *job = (struct key_find_job *)base;
    const HSM_KEY *key = job->key;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_KEY_TYPE type = key->public.type;
    CK_OBJECT_HANDLE found[2];
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)},
                               {CKA_KEY_TYPE, &type, sizeof(type)},
                               {CKA_ID, key->id, key->id_size}};

    if (key->id_size == 0)
        template[2] = (CK_ATTRIBUTE){CKA_LABEL, key->label, strlen(key->label)};
    key_copies_destroy(connection);
    CK_RV rv = connection_search(connection, template, 3, found, 2, &job->count);
    if (rv != CKR_OK || job->count != 1)
        return rv;
    job->object = found[0];
    return key_proof_take(connection, job->object, &key->public, &job->proof);
}

static tpks_result check_serial(const HSM_KEY *key, struct hsm_connection *connection)
{
    HOLD(&connection->mutex);

    if (key->serial == NULL || *key->serial == '\0' || strcmp(key->serial, connection->serial) == 0)
        return TPKS_OK;
    return fail(TPKS_TOKEN_MISSING,
                "the key of \"%s\" lives in the token with serial %s, but the token of this "
                "configuration is \"%s\" with serial %s: put that token in, or correct `token`",
                key->name, key->serial, connection->label, connection->serial);
}

static tpks_result search(struct hsm_connection *connection, const struct hsm_caller *caller,
                          struct key_find_job *job)
{
    CK_RV rv;

    TRY(keeper_run(connection, caller, &job->base, &rv));
    if (rv == CKR_KEY_FUNCTION_NOT_PERMITTED)
        return fail(TPKS_NOT_PERMITTED,
                    "the key of \"%s\" on token \"%s\" may not sign, so it can't show that it is "
                    "the right one",
                    job->key->name, connection->label);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "searching the key", rv);
    return check_serial(job->key, connection);
}

/* A module that was initialised long ago does not see that a token was replaced. */
static tpks_result look_anew(struct hsm_connection *connection, const struct hsm_caller *caller,
                             struct key_find_job *job)
{
    if (connection_missed_lately(connection))
        return TPKS_OK;
    TRY(connection_recover(connection, caller, job->base.generation, RECOVER_MODULE));
    TRY(search(connection, caller, job));
    if (job->count == 0)
        connection_note_missing(connection);
    return TPKS_OK;
}

static tpks_result check_found(const struct hsm_connection *connection,
                               const struct key_find_job *job)
{
    const char *how = job->key->id_size > 0 ? "CKA_ID" : "CKA_LABEL";

    if (job->count == 0)
        return fail(TPKS_KEY_MISSING,
                    "the key of \"%s\" is not on token \"%s\" (%s): it was destroyed, or the token "
                    "is an older copy; such a key has no backup: make a new one",
                    job->key->name, connection->label, connection->module->file);
    if (job->count > 1)
        return fail(TPKS_MISMATCH,
                    "token \"%s\" (%s) has several keys with the %s of \"%s\": destroy those that "
                    "do not belong there",
                    connection->label, connection->module->file, how, job->key->name);
    if (!key_proof_holds(&job->key->public, &job->proof))
        return fail(TPKS_MISMATCH,
                    "the key on token \"%s\" (%s) with the %s of \"%s\" is another key than the "
                    "record's public key: it was replaced, or the wrong token is in",
                    connection->label, connection->module->file, how, job->key->name);
    return TPKS_OK;
}

/* Takes another place; returns the copy that belonged to the old one. */
static struct key_copy *change_place(struct key_state *state, struct key_place place)
{
    HOLD(&state->mutex);
    struct key_copy *copy = state->place.copy;

    place.number = ++state->finds;
    state->place = place;
    return copy;
}

static void keep_object(struct key_state *state, const struct key_find_job *job)
{
    const struct key_place place = {
        .found = true, .generation = job->base.generation, .object = job->object};

    key_copy_drop(state->connection, change_place(state, place));
}

static tpks_result find_key(HSM_KEY *key, struct key_state *state, const struct hsm_caller *caller)
{
    struct hsm_connection *connection = state->connection;
    struct key_find_job job = {.base.run = find_run, .key = key};

    TRY(connection_open(connection, caller));
    TRY(check_serial(key, connection));
    TRY(search(connection, caller, &job));
    if (job.count == 0)
        TRY(look_anew(connection, caller, &job));
    TRY(check_found(connection, &job));
    keep_object(state, &job);
    return TPKS_OK;
}

/* ---- the object, or its copy ----------------------------------------------------------------- */

/* What one operation uses. */
struct key_choice {
    uint64_t number; /* of the place */
    uint64_t generation;
    CK_OBJECT_HANDLE object;
    struct key_copy *copy; /* in use, when it is the copy */
    bool copied;
    bool checks;     /* the object of the token, because it was time to */
    bool makes_copy; /* and this thread is the one to do it */
};

/* Without a system call; a few ms late at most. */
static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * False when the key must be found again. The first operation goes to the object of the token, as
 * all do that come seldom; a copy is for those that follow soon.
 */
static bool choose(struct key_state *state, struct key_choice *out)
{
    int64_t now = now_ms();
    HOLD(&state->mutex);
    struct key_place *place = &state->place;

    *out = (struct key_choice){
        .number = place->number, .generation = place->generation, .object = place->object};
    if (!place->found || place->generation != connection_generation(state->connection))
        return false;
    if (now >= place->check_due) {
        place->check_due = now + CHECK_MS;
        out->checks = true;
    } else if (place->copy != NULL) {
        out->copy = place->copy;
        out->copied = true;
        out->object = key_copy_use(place->copy);
    } else if (place->copying == COPY_NOT_YET) {
        place->copying = COPY_MAKING;
        out->makes_copy = true;
    }
    return true;
}

/* False when the place has changed since. */
static bool keep_copy(struct key_state *state, struct key_choice *choice, struct key_copy *copy)
{
    HOLD(&state->mutex);
    if (!state->place.found || state->place.number != choice->number)
        return false;
    state->place.copying = COPY_DONE;
    state->place.copy = copy;
    choice->copy = copy;
    choice->copied = copy != NULL;
    if (copy != NULL)
        choice->object = key_copy_use(copy);
    return true;
}

static void make_copy(struct key_state *state, struct key_choice *choice)
{
    struct key_copy *copy = key_copy_make(state->connection, choice->object, choice->generation);

    if (!keep_copy(state, choice, copy))
        key_copy_drop(state->connection, copy);
}

static struct key_copy *take_copy(struct key_state *state, uint64_t number)
{
    HOLD(&state->mutex);
    struct key_copy *copy = NULL;

    if (state->place.number == number) {
        copy = state->place.copy;
        state->place.copy = NULL;
    }
    return copy;
}

/* No other is made until the key is found again. */
static void abandon_copy(struct key_state *state, const struct key_choice *choice)
{
    key_copy_drop(state->connection, take_copy(state, choice->number));
}

/* A look at the token that failed, whatever the reason, was none. */
static void check_again(struct key_state *state, const struct key_choice *choice)
{
    HOLD(&state->mutex);
    if (state->place.number == choice->number)
        state->place.check_due = 0;
}

static bool is_place_of(const struct key_state *state, const struct key_choice *choice)
{
    return state->place.found && state->place.number == choice->number;
}

/* Another thread may have found the key again: that is not to be forgotten. */
static struct key_copy *clear_place(struct key_state *state, const struct key_choice *choice)
{
    HOLD(&state->mutex);
    struct key_copy *copy = NULL;

    if (is_place_of(state, choice)) {
        copy = state->place.copy;
        state->place = (struct key_place){0};
    }
    return copy;
}

static void forget_place(struct key_state *state, const struct key_choice *choice)
{
    key_copy_drop(state->connection, clear_place(state, choice));
}

/* ---- operations ------------------------------------------------------------------------------ */

/* One use of the key: what was answered, and at which generation. */
struct key_use {
    HSM_KEY *key;
    struct key_state *state;
    struct key_job *job;
    struct hsm_caller caller;
    struct key_choice choice;
    CK_RV rv;
    uint64_t generation;
};

/*
 * While this thread has a session of the pool nobody logs in anew, so a handle that is good at the
 * present generation stays so until the session is given back.
 */
static void operate(struct key_use *use)
{
    struct hsm_connection *connection = use->state->connection;
    CK_SESSION_HANDLE session;

    use->generation = connection_generation(connection);
    use->rv = session_take(connection, &session);
    if (use->rv != CKR_OK)
        return;
    use->generation = connection_generation(connection);
    if (use->choice.generation != use->generation) {
        session_give(connection, session, false);
        use->rv = CKR_KEY_HANDLE_INVALID;
        return;
    }
    use->rv = key_job_run(connection->module->functions, session, use->choice.object, use->job);
    session_give(connection, session, use->rv != CKR_OK);
}

static bool is_ambiguous(CK_RV rv)
{
    return rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED;
}

static bool is_bad_data(const struct key_use *use)
{
    switch (use->rv) {
    case CKR_DATA_INVALID:
    case CKR_DATA_LEN_RANGE:
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
    case CKR_BUFFER_TOO_SMALL:
        return true;
    default:
        return use->job->decrypt && is_ambiguous(use->rv);
    }
}

/*
 * Makes ready for one more try, or says that it would not help. CKR_GENERAL_ERROR may speak of the
 * data or of the token: one that finds its key as before is well.
 */
static tpks_result prepare_again(struct key_use *use, bool *again)
{
    struct hsm_connection *connection = use->state->connection;
    enum recovery recovery = recovery_for(use->rv, true);

    *again = recovery != RECOVER_NOT;
    if (use->choice.copied && recovery == RECOVER_NOT && !is_bad_data(use)) {
        abandon_copy(use->state, &use->choice); /* the key itself may be able to */
        *again = true;
        return TPKS_OK;
    }
    if (recovery == RECOVER_HANDLES)
        forget_place(use->state, &use->choice);
    else if (*again)
        return connection_recover(connection, &use->caller, use->generation, recovery);
    if (!is_ambiguous(use->rv))
        return TPKS_OK;
    TRY(find_key(use->key, use->state, &use->caller));
    *again = !use->job->decrypt || connection_generation(connection) != use->generation;
    return TPKS_OK;
}

static tpks_result operation_result(const struct key_use *use)
{
    const struct hsm_connection *connection = use->state->connection;
    const char *what = use->job->decrypt ? "decrypt" : "sign";

    if (use->rv == CKR_OK)
        return TPKS_OK;
    if (is_bad_data(use))
        return fail(TPKS_BAD_INPUT, "token \"%s\" can't %s this with the key of \"%s\"",
                    connection->label, what, use->key->name);
    if (use->rv == CKR_KEY_FUNCTION_NOT_PERMITTED)
        return fail(TPKS_NOT_PERMITTED,
                    "the key of \"%s\" was made in token \"%s\" without the right to %s",
                    use->key->name, connection->label, what);
    if (ckr_result(use->rv) == TPKS_UNSUPPORTED)
        return fail(TPKS_UNSUPPORTED,
                    "token \"%s\" (%s) can't %s so: %s (CKR 0x%lx): use another padding or digest",
                    connection->label, connection->module->file, what, p11_kit_strerror(use->rv),
                    (unsigned long)use->rv);
    return fail_ckr(ckr_result(use->rv), connection, use->job->decrypt ? "C_Decrypt" : "C_Sign",
                    use->rv);
}

static tpks_result provide_object(struct key_use *use)
{
    if (!choose(use->state, &use->choice)) {
        TRY(find_key(use->key, use->state, &use->caller));
        (void)choose(use->state, &use->choice); /* if it moved again, the operation sees it */
    }
    if (use->choice.makes_copy)
        make_copy(use->state, &use->choice);
    return TPKS_OK;
}

static tpks_result use_key(HSM_KEY *key, struct key_job *job)
{
    HSM_GUARD guard;
    struct key_use use = {.key = key, .job = job, .caller = {NULL, NULL, key->keystore_label}};

    TRY(hsm_enter_local(&guard, NULL));
    TRY(state_get(key, guard.process, &use.state));
    if (!use.state->local)
        hsm_guard_pipe(&guard);
    for (unsigned tries = 1;; tries++) {
        bool again = false;
        TRY(provide_object(&use));
        operate(&use);
        key_copy_end_use(use.choice.copy);
        if (use.rv != CKR_OK && use.choice.checks)
            check_again(use.state, &use.choice);
        if (use.rv != CKR_OK && tries < OPERATION_TRIES)
            TRY(prepare_again(&use, &again));
        if (!again)
            return operation_result(&use);
    }
}

tpks_result hsm_key_sign(HSM_KEY *key, const tpks_token_op *op, const unsigned char *in,
                         size_t in_size, unsigned char *out, size_t *out_size)
{
    const struct key_public *public = &key->public;
    size_t expected = public->type == CKK_RSA ? public->size : 2 * public->size;
    struct key_job job = {.in = in, .in_size = in_size, .out = out, .out_room = *out_size};

    TRY(key_job_set(&job, public, false, op));
    if (*out_size < expected)
        return fail(TPKS_BAD_INPUT, "a signature of \"%s\" needs %zu bytes, not %zu", key->name,
                    expected, *out_size);
    TRY(use_key(key, &job));
    if (job.out_size != expected)
        return fail(TPKS_HSM_UNAVAILABLE,
                    "the token gives signatures of %zu bytes for \"%s\", not %zu", job.out_size,
                    key->name, expected);
    *out_size = job.out_size;
    return TPKS_OK;
}

/* Some modules write as much as the modulus has before they take the padding off. */
tpks_result hsm_key_decrypt(HSM_KEY *key, const tpks_token_op *op, const unsigned char *in,
                            size_t in_size, unsigned char *out, size_t *out_size)
{
    unsigned char plain[KEY_BYTES_MAX];
    struct key_job job = {.in = in, .in_size = in_size, .out = plain, .out_room = sizeof(plain)};
    tpks_result result = key_job_set(&job, &key->public, true, op);

    if (result == TPKS_OK)
        result = use_key(key, &job);
    if (result == TPKS_OK && (job.out_size > *out_size || job.out_size > sizeof(plain)))
        result = fail(TPKS_BAD_INPUT, "what \"%s\" decrypts needs %zu bytes, not %zu", key->name,
                      job.out_size, *out_size);
    if (result == TPKS_OK) {
        memcpy(out, plain, job.out_size);
        *out_size = job.out_size;
    }
    OPENSSL_cleanse(plain, sizeof(plain));
    return result;
}

/* ---- opening --------------------------------------------------------------------------------- */

static tpks_result open_key(HSM_KEY *key, const hsm_options *options)
{
    HSM_GUARD guard;
    const struct hsm_caller caller = {options->ask, options->ask_arg, key->keystore_label};
    struct key_state *state = NULL;

    TRY(hsm_enter(&guard, NULL));
    TRY(state_get(key, guard.process, &state));
    return find_key(key, state, &caller);
}

tpks_result hsm_key_open(const hsm_options *options, const hsm_key_lookup *lookup, HSM_KEY **out)
{
    HSM_KEY *key = OPENSSL_zalloc(sizeof(*key));

    if (key == NULL)
        return fail_memory();
    tpks_result result = key_fill(key, options, lookup);
    if (result == TPKS_OK)
        result = open_key(key, options);
    if (result != TPKS_OK) {
        hsm_key_free(key);
        return result;
    }
    *out = key;
    return TPKS_OK;
}
