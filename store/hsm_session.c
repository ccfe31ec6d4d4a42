/*
 * hsm_session.c - connections to a token: login, sessions for operations, recovery
 *
 * SoftHSM before 2.7 rewrites its token file at each login and gives up the file lock before it
 * has written, so a process that starts meanwhile sees no token until it initialises again. So:
 * one login at a time on this host, and "no such token" is believed after several tries only.
 */
#include "hsm_internal.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#define OPEN_TRIES 8         /* of finding the token */
#define LOGIN_TRIES 3        /* of C_Login, when it failed for another reason than the PIN */
#define BLANK_SERIAL_TRIES 6 /* then it is a token that has none */
#define RECOVERY_TRIES 2     /* of one operation, after its first */
#define LOCK_SECONDS 10
#define MISSED_SECONDS 2
#define SQUEEZED_SECONDS 5 /* until a token that had no more sessions is asked again */

/* ---- life ------------------------------------------------------------------------------------ */

static tpks_result connection_fill(struct hsm_connection *connection, const hsm_options *options)
{
    connection->uri_text = strdup(options->token_uri != NULL ? options->token_uri : "");
    connection->lock_dir = options->lock_dir != NULL ? strdup(options->lock_dir) : NULL;
    if (connection->uri_text == NULL || (options->lock_dir != NULL && connection->lock_dir == NULL))
        return fail_memory();
    return token_uri_parse(connection->uri_text, &connection->uri);
}

tpks_result connection_new(struct hsm_process *process, const hsm_options *options,
                           struct hsm_connection **out)
{
    struct hsm_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return fail_memory();
    connection->process = process;
    connection->write = options->write;
    connection->shared = options->keep && !options->write;
    connection->limit = POOL_MAX;
    pthread_mutex_init(&connection->keeper, NULL);
    pthread_mutex_init(&connection->mutex, NULL);
    pthread_cond_init(&connection->changed, NULL);
    tpks_result result = connection_fill(connection, options);
    if (result != TPKS_OK) {
        connection_free(connection);
        return result;
    }
    *out = connection;
    return TPKS_OK;
}

static void close_session(struct hsm_connection *connection, CK_SESSION_HANDLE session)
{
    connection->module->functions->C_CloseSession(session);
    atomic_fetch_sub(&connection->module->sessions, 1);
}

static void close_idle(struct hsm_connection *connection)
{
    while (connection->idle_count > 0)
        close_session(connection, connection->idle[--connection->idle_count]);
}

static bool mark_closed(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    bool was_open = connection->open;
    connection->open = false;
    return was_open;
}

static void join_module(struct hsm_connection *connection)
{
    HOLD(&connection->process->mutex);
    connection->beside = connection->module->connections;
    connection->module->connections = connection;
}

static void leave_module(struct hsm_connection *connection)
{
    HOLD(&connection->process->mutex);
    if (connection->module == NULL)
        return;
    struct hsm_connection **link = &connection->module->connections;
    while (*link != connection)
        link = &(*link)->beside;
    *link = connection->beside;
}

/* No operation may be in flight. */
static void close_all(struct hsm_connection *connection)
{
    bool was_open = mark_closed(connection);
    close_idle(connection);
    if (was_open)
        close_session(connection, connection->session);
}

/* With the keeper held: another thread may have seized it because the module has died. */
static void let_go(struct hsm_connection *connection)
{
    HOLD(&connection->keeper);
    if (!atomic_load(&connection->process->dead))
        close_all(connection);
    leave_module(connection);
}

void connection_free(struct hsm_connection *connection)
{
    if (connection == NULL)
        return;
    if (connection->process == hsm_process())
        let_go(connection);
    kept_deks_free(connection);
    token_uri_clear(&connection->uri);
    free(connection->uri_text);
    free(connection->lock_dir);
    free(connection);
}

bool connection_is_open(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    return connection->open;
}

uint64_t connection_generation(struct hsm_connection *connection)
{
    return atomic_load(&connection->generation);
}

static int64_t now_seconds(void)
{
    return deadline_in(0).tv_sec;
}

void connection_note_missing(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    connection->missed = now_seconds();
}

bool connection_missed_lately(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    return connection->missed != 0 && now_seconds() - connection->missed <= MISSED_SECONDS;
}

/* ---- a module that has died ------------------------------------------------------------------ */

/* Its sessions are gone; the keeper is held, and no operation in flight. */
static void abandon_sessions(struct hsm_connection *connection)
{
    unsigned count = connection->idle_count + (connection->open ? 1 : 0);

    connection->idle_count = 0;
    connection->lost = connection->lost || connection->open;
    connection->open = false;
    connection->session = CK_INVALID_HANDLE; /* of the next ones one may have its number */
    connection->generation++;
    atomic_fetch_sub(&connection->module->sessions, count);
}

/* One that is in use just now is left: its thread is inside the module, and will find it dead. */
static void seize(struct hsm_connection *connection)
{
    if (pthread_mutex_trylock(&connection->keeper) != 0)
        return;
    HOLD(&connection->mutex);
    connection->seized = connection->in_flight == 0;
    if (connection->seized)
        abandon_sessions(connection);
    else
        pthread_mutex_unlock(&connection->keeper);
}

static void seize_others(const struct hsm_connection *connection)
{
    HOLD(&connection->process->mutex);
    struct hsm_connection *other = connection->module->connections;
    for (; other != NULL; other = other->beside)
        if (other != connection)
            seize(other);
}

static void release_others(const struct hsm_connection *connection)
{
    HOLD(&connection->process->mutex);
    struct hsm_connection *other = connection->module->connections;
    for (; other != NULL; other = other->beside) {
        if (!other->seized)
            continue;
        other->seized = false;
        pthread_mutex_unlock(&other->keeper);
    }
}

/*
 * Sessions of other connections keep a module as it is, but not a dead one: those sessions are dead
 * too. Nobody is inside the module while it is finalised: seized connections wait for their keeper,
 * closed ones for module->mutex, and when one is in use the module stays as it is for this time.
 * Called with connection->keeper and module->mutex held.
 */
static void reset_module(const struct hsm_connection *connection)
{
    struct hsm_module *module = connection->module;
    bool dead =
        module->initialised && atomic_load(&module->sessions) != 0 && module_is_dead(module);

    if (dead)
        seize_others(connection);
    module_reset(module);
    if (dead)
        release_others(connection);
}

/* ---- login ----------------------------------------------------------------------------------- */

static CK_RV open_session(struct hsm_connection *connection, bool write, CK_SESSION_HANDLE *session)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | (write ? CKF_RW_SESSION : 0);
    CK_RV rv =
        connection->module->functions->C_OpenSession(connection->slot, flags, NULL, NULL, session);
    if (rv == CKR_OK)
        atomic_fetch_add(&connection->module->sessions, 1);
    return rv;
}

static bool is_logged_in(struct hsm_connection *connection, CK_SESSION_HANDLE session)
{
    CK_SESSION_INFO info;
    return connection->module->functions->C_GetSessionInfo(session, &info) == CKR_OK &&
           (info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS);
}

CK_RV connection_search(struct hsm_connection *connection, CK_ATTRIBUTE *template, CK_ULONG size,
                        CK_OBJECT_HANDLE *found, CK_ULONG max, CK_ULONG *count)
{
    CK_FUNCTION_LIST *functions = connection->module->functions;
    *count = 0;
    CK_RV rv = functions->C_FindObjectsInit(connection->session, template, size);
    if (rv != CKR_OK)
        return rv;
    rv = functions->C_FindObjects(connection->session, found, max, count);
    CK_RV end = functions->C_FindObjectsFinal(connection->session);
    rv = rv != CKR_OK ? rv : end;
    if (rv == CKR_OK && *count == 0 && connection->needs_login &&
        !is_logged_in(connection, connection->session))
        return CKR_USER_NOT_LOGGED_IN;
    return rv;
}

CK_RV connection_destroy(struct hsm_connection *connection, CK_ATTRIBUTE *template, CK_ULONG size)
{
    CK_OBJECT_HANDLE found;
    CK_ULONG count = 0;
    CK_RV rv = connection_search(connection, template, size, &found, 1, &count);
    while (rv == CKR_OK && count > 0) {
        rv = connection->module->functions->C_DestroyObject(connection->session, found);
        if (rv == CKR_OK)
            rv = connection_search(connection, template, size, &found, 1, &count);
    }
    return rv;
}

static void copy_padded(char *out, const unsigned char *in, size_t size)
{
    size_t length = p11_kit_space_strlen(in, size);
    memcpy(out, in, length);
    out[length] = '\0';
}

static void take_token_info(struct hsm_connection *connection, const CK_TOKEN_INFO *info)
{
    HOLD(&connection->mutex);
    copy_padded(connection->label, info->label, sizeof(info->label));
    copy_padded(connection->serial, info->serialNumber, sizeof(info->serialNumber));
    connection->needs_login = (info->flags & CKF_LOGIN_REQUIRED) != 0;
}

static void mark_open(struct hsm_connection *connection, CK_SESSION_HANDLE session)
{
    HOLD(&connection->mutex);
    connection->session = session;
    connection->logins++;
    connection->open = true;
    connection->lost = false;
    connection->generation++;
    connection->limit = POOL_MAX;
}

/* What one try at opening needs and leaves. */
struct attempt {
    const struct pin *pin;
    CK_FLAGS flags;
    unsigned logins;
    unsigned blank_serials;
    bool again; /* a failure that a new initialisation may cure */
};

/*
 * SoftHSM, read while another process rewrites its token file, shows a token without a serial
 * number. A slot is known by the serial, so such a look must not count as another token.
 */
static bool has_serial(const CK_TOKEN_INFO *info)
{
    for (size_t i = 0; i < sizeof(info->serialNumber); i++)
        if (info->serialNumber[i] != ' ' && info->serialNumber[i] != '\0')
            return true;
    return false;
}

static tpks_result fail_no_token(const struct hsm_connection *connection)
{
    const CK_TOKEN_INFO *wanted = p11_kit_uri_get_token_info(connection->uri.parsed);
    char label[sizeof(wanted->label) + 1];

    copy_padded(label, wanted->label, sizeof(wanted->label));
    return fail(TPKS_TOKEN_MISSING,
                "HSM token%s%s%s of %s: the module works, but shows no initialised token that "
                "matches: check the directive `token`, that the token is plugged in and that "
                "this user may read it; nothing was restored or changed",
                *label != '\0' ? " \"" : "", label, *label != '\0' ? "\"" : "",
                connection->module->file);
}

static tpks_result find_token(struct hsm_connection *connection, struct attempt *attempt)
{
    struct hsm_module *module = connection->module;
    CK_TOKEN_INFO info;
    unsigned matches = 0;
    CK_RV rv = module_initialise(module);
    if (rv == CKR_OK)
        rv = module_find_token(module, &connection->uri, &matches, &connection->slot, &info);
    attempt->again = rv != CKR_OK || matches == 0;
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "initialising the module", rv);
    if (matches == 0)
        return fail_no_token(connection);
    if (matches > 1)
        return fail(TPKS_BAD_CONFIG,
                    "HSM token of %s: %u tokens match the directive `token`: add serial=",
                    module->file, matches);
    if (!has_serial(&info) && ++attempt->blank_serials < BLANK_SERIAL_TRIES) {
        attempt->again = true;
        return fail(TPKS_HSM_UNAVAILABLE, "HSM token of %s: it shows no serial number: try again",
                    module->file);
    }
    take_token_info(connection, &info);
    attempt->flags = info.flags;
    return TPKS_OK;
}

/*
 * A software token that uses this process's libcrypto can't compare a PIN without a digest, and
 * calls that a wrong PIN: SoftHSM does, when openssl.cnf activates no default provider. Such a PIN
 * must not be remembered as refused, for all other processes too.
 */
static tpks_result check_digests(const struct hsm_connection *connection)
{
    ERR_set_mark();
    EVP_MD *digest = EVP_MD_fetch(NULL, "SHA256", NULL);
    bool there = digest != NULL;
    EVP_MD_free(digest);
    ERR_pop_to_mark();
    if (there)
        return TPKS_OK;
    return fail(TPKS_HSM_UNAVAILABLE,
                "HSM token \"%s\" (%s): this process has no SHA-256, which a token may need to "
                "check the PIN, so none is tried: activate the provider default in openssl.cnf "
                "and set no default_properties",
                connection->label, connection->module->file);
}

static tpks_result check_pin_may_be_tried(struct hsm_connection *connection,
                                          const struct attempt *attempt)
{
    const char *why = NULL;
    TRY(check_digests(connection));
    if ((attempt->flags & CKF_USER_PIN_LOCKED) != 0)
        why = "its PIN is locked";
    else if ((attempt->flags & CKF_USER_PIN_FINAL_TRY) != 0)
        why = "one more wrong PIN would lock it, so none is tried";
    if (why != NULL)
        return fail(TPKS_PIN_LOCKED,
                    "HSM token \"%s\" (%s): %s: log in once by hand with the token's own tool, or "
                    "have the PIN reset",
                    connection->label, connection->module->file, why);
    return pin_refusal_check(connection, attempt->pin);
}

static CK_RV call_login(struct hsm_connection *connection, CK_SESSION_HANDLE session,
                        const struct pin *pin)
{
    SIGNALS_BLOCKED; /* killed here, SoftHSM loses the whole token */
    CK_RV rv = connection->module->functions->C_Login(
        session, CKU_USER, tpks_secret_data(pin->secret), tpks_secret_size(pin->secret));
    return rv == CKR_USER_ALREADY_LOGGED_IN ? CKR_OK : rv;
}

static tpks_result login(struct hsm_connection *connection, CK_SESSION_HANDLE session,
                         struct attempt *attempt)
{
    if ((attempt->flags & CKF_LOGIN_REQUIRED) == 0 || is_logged_in(connection, session))
        return TPKS_OK;
    TRY(check_pin_may_be_tried(connection, attempt));
    CK_RV rv = call_login(connection, session, attempt->pin);
    if (rv == CKR_OK) {
        pin_refusal_forget(connection, attempt->pin);
        return TPKS_OK;
    }
    tpks_result result = ckr_result(rv);
    if (result == TPKS_WRONG_SECRET)
        pin_refusal_remember(connection, attempt->pin);
    attempt->again = result == TPKS_HSM_UNAVAILABLE && ++attempt->logins < LOGIN_TRIES;
    return fail_ckr(result, connection, "C_Login", rv);
}

static tpks_result open_and_login(struct hsm_connection *connection, struct attempt *attempt)
{
    CK_SESSION_HANDLE session;
    TRY(find_token(connection, attempt));
    CK_RV rv = open_session(connection, connection->write, &session);
    if (rv != CKR_OK) {
        attempt->again = recovery_for(rv, false) != RECOVER_NOT;
        return fail_ckr(ckr_result(rv), connection, "C_OpenSession", rv);
    }
    tpks_result result = login(connection, session, attempt);
    if (result == TPKS_OK)
        mark_open(connection, session);
    else
        close_session(connection, session);
    return result;
}

static tpks_result try_to_connect(struct hsm_connection *connection, const struct pin *pin)
{
    struct hsm_module *module = connection->module;
    struct attempt attempt = {.pin = pin};
    const struct timespec deadline = deadline_in(LOCK_SECONDS);
    HOLD(&module->mutex);
    connection->fresh = !module->initialised;
    for (unsigned i = 0;; i++) {
        attempt.again = false;
        tpks_result result;
        {
            HOST_LOCK lock = host_lock_take(connection->lock_dir, module->lock_name, &deadline);
            result = open_and_login(connection, &attempt);
        }
        if (result == TPKS_OK || !attempt.again || i + 1 == OPEN_TRIES)
            return result;
        reset_module(connection);
        connection->fresh = !module->initialised;
        pause_jittered(i);
    }
}

static tpks_result note_try(struct hsm_connection *connection, tpks_result result)
{
    HOLD(&connection->mutex);
    connection->tries++;
    connection->lost = false;
    connection->renewed = result;
    return result;
}

/* Called with connection->keeper held. */
static tpks_result connect_with_pin(struct hsm_connection *connection, const struct pin *pin)
{
    return note_try(connection, try_to_connect(connection, pin));
}

static uint64_t count_tries(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    return connection->tries;
}

/* Of those that take long: another PIN may be the right one, and a refusal comes at once. */
static bool failed_meanwhile(struct hsm_connection *connection, uint64_t tries)
{
    HOLD(&connection->mutex);
    return !connection->open && connection->tries != tries &&
           (connection->renewed == TPKS_TOKEN_MISSING ||
            connection->renewed == TPKS_HSM_UNAVAILABLE);
}

static bool is_lost(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    return connection->lost;
}

/* Whoever waited for the thread that logged in anew shares its luck: no queue of long tries. */
static tpks_result renewed_meanwhile(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);

    if (connection->open)
        return TPKS_OK;
    return fail(connection->renewed != TPKS_OK ? connection->renewed : TPKS_HSM_UNAVAILABLE,
                "HSM token \"%s\" (%s): it is away; another thread has just tried to log in to it",
                connection->label, connection->module->file);
}

/* ---- a second session beside a login of this process: no lock, no PIN ------------------------ */

static bool join_login(struct hsm_connection *connection)
{
    struct hsm_module *module = connection->module;
    CK_TOKEN_INFO info;
    CK_SESSION_HANDLE session;
    unsigned matches = 0;
    HOLD(&module->mutex);
    if (!module->initialised || atomic_load(&module->sessions) == 0)
        return false;
    if (module_find_token(module, &connection->uri, &matches, &connection->slot, &info) != CKR_OK ||
        matches != 1 || !has_serial(&info) ||
        open_session(connection, connection->write, &session) != CKR_OK)
        return false;
    if (!is_logged_in(connection, session)) {
        close_session(connection, session);
        return false;
    }
    take_token_info(connection, &info);
    connection->fresh = false;
    mark_open(connection, session);
    return true;
}

static tpks_result find_module(struct hsm_connection *connection)
{
    if (connection->module != NULL)
        return TPKS_OK;
    TRY(module_get(connection->process, &connection->uri, &connection->module));
    join_module(connection);
    return TPKS_OK;
}

static tpks_result open_without_pin(struct hsm_connection *connection, bool *done)
{
    uint64_t tries = count_tries(connection);
    HOLD(&connection->keeper);
    *done = connection_is_open(connection);
    if (*done)
        return TPKS_OK;
    if (failed_meanwhile(connection, tries))
        return renewed_meanwhile(connection);
    TRY(find_module(connection));
    *done = join_login(connection);
    return TPKS_OK;
}

static tpks_result open_with_pin(struct hsm_connection *connection, const struct pin *pin)
{
    uint64_t tries = count_tries(connection);
    HOLD(&connection->keeper);
    if (connection_is_open(connection) || failed_meanwhile(connection, tries))
        return renewed_meanwhile(connection);
    return connect_with_pin(connection, pin);
}

tpks_result connection_open(struct hsm_connection *connection, const struct hsm_caller *caller)
{
    bool done = false;
    TRY(open_without_pin(connection, &done));
    if (done)
        return TPKS_OK;
    PIN pin;
    TRY(pin_get(&connection->uri, caller, &pin));
    return open_with_pin(connection, &pin);
}

/* ---- recovery -------------------------------------------------------------------------------- */

static void wait_until_unused(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    connection->renewing = true;
    while (connection->in_flight > 0)
        pthread_cond_wait(&connection->changed, &connection->mutex);
}

static void end_renewing(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    connection->renewing = false;
    connection->generation++;
    pthread_cond_broadcast(&connection->changed);
}

static void disconnect(struct hsm_connection *connection, enum recovery recovery)
{
    close_all(connection);
    HOLD(&connection->module->mutex);
    if (recovery == RECOVER_MODULE)
        reset_module(connection);
}

static void forget_handles(struct hsm_connection *connection, uint64_t seen)
{
    HOLD(&connection->mutex);
    if (connection->generation == seen)
        connection->generation++;
}

tpks_result connection_recover(struct hsm_connection *connection, const struct hsm_caller *caller,
                               uint64_t seen, enum recovery recovery)
{
    if (recovery == RECOVER_HANDLES) {
        forget_handles(connection, seen);
        return TPKS_OK;
    }
    PIN pin;
    TRY(pin_get(&connection->uri, caller, &pin));
    uint64_t tries = count_tries(connection);
    HOLD(&connection->keeper);
    if (!is_lost(connection) &&
        (connection_generation(connection) != seen || failed_meanwhile(connection, tries)))
        return renewed_meanwhile(connection);
    wait_until_unused(connection);
    disconnect(connection, recovery);
    tpks_result result = connect_with_pin(connection, &pin);
    end_renewing(connection);
    return result;
}

/* ---- sessions for operations ----------------------------------------------------------------- */

/* With connection->mutex held. Another process may have had the sessions for a moment only. */
static unsigned pool_limit(struct hsm_connection *connection)
{
    if (connection->limit < POOL_MAX && now_seconds() - connection->squeezed > SQUEEZED_SECONDS)
        connection->limit = POOL_MAX;
    return connection->limit;
}

/* Takes part in the pool; true when *session is one that was idle. */
static CK_RV enter_pool(struct hsm_connection *connection, CK_SESSION_HANDLE *session, bool *idle)
{
    HOLD(&connection->mutex);
    while (connection->renewing || connection->in_flight >= pool_limit(connection))
        pthread_cond_wait(&connection->changed, &connection->mutex);
    if (!connection->open)
        return CKR_SESSION_CLOSED;
    connection->in_flight++;
    *idle = connection->idle_count > 0;
    if (*idle)
        *session = connection->idle[--connection->idle_count];
    return CKR_OK;
}

static void leave_pool(struct hsm_connection *connection, const CK_SESSION_HANDLE *back)
{
    HOLD(&connection->mutex);
    connection->in_flight--;
    if (back != NULL)
        connection->idle[connection->idle_count++] = *back;
    pthread_cond_broadcast(&connection->changed);
}

/* The token has no more sessions: do with those that are there, one that just came back too. */
static bool shrink_pool(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    unsigned there = connection->in_flight + connection->idle_count;
    if (there < 1)
        return false;
    connection->limit = there;
    connection->squeezed = now_seconds();
    return true;
}

CK_RV session_take(struct hsm_connection *connection, CK_SESSION_HANDLE *session)
{
    for (;;) {
        bool idle = false;
        CK_RV rv = enter_pool(connection, session, &idle);
        if (rv != CKR_OK || idle)
            return rv;
        rv = open_session(connection, false, session);
        if (rv == CKR_OK)
            return rv;
        leave_pool(connection, NULL);
        if (rv != CKR_SESSION_COUNT || !shrink_pool(connection))
            return rv;
    }
}

void session_give(struct hsm_connection *connection, CK_SESSION_HANDLE session, bool drop)
{
    if (drop)
        close_session(connection, session);
    leave_pool(connection, drop ? NULL : &session);
}

/* ---- work in the keeper session -------------------------------------------------------------- */

static CK_RV keeper_try(struct hsm_connection *connection, struct keeper_job *job)
{
    HOLD(&connection->keeper);
    job->generation = connection_generation(connection);
    job->ambiguous = false;
    return connection_is_open(connection) ? job->run(connection, job) : CKR_SESSION_CLOSED;
}

tpks_result keeper_run(struct hsm_connection *connection, const struct hsm_caller *caller,
                       struct keeper_job *job, CK_RV *rv)
{
    for (unsigned i = 0;; i++) {
        *rv = keeper_try(connection, job);
        enum recovery recovery = recovery_for(*rv, job->ambiguous);
        if (recovery == RECOVER_NOT || i == RECOVERY_TRIES)
            return TPKS_OK;
        TRY(connection_recover(connection, caller, job->generation, recovery));
    }
}
