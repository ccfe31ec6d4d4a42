/*
 * hsm_internal.h - what the files of the HSM part share
 *
 * From the bottom up: hsm_process.c (what this process holds, fork, exit), hsm_lock.c (host-wide
 * lock, signals, pauses), hsm_error.c (CKR codes), hsm_uri.c (token URI), hsm_pin.c (PIN and
 * refused PINs), hsm_module.c (module life cycle, finding the token), hsm_session.c (connections:
 * login, operation sessions, recovery), hsm_wrap.c (wrap algorithms), hsm_gcm.c (DEK objects and
 * AES-GCM), hsm_kek.c (KEKs), hsm_trustpoint.c (Trustpoint's KEKs), hsm.c (handles), hsm_key*.c
 * (keys that are used in the token).
 *
 * Lock order: connection.keeper, module.mutex, process.mutex, connection.mutex. The last two are
 * held for a few instructions only, never across a PKCS#11 call, a callback or I/O. A thread that
 * has these and needs the keeper of another connection tries for it and never waits.
 */
#ifndef TRUSTPOINT_HSM_INTERNAL_H
#define TRUSTPOINT_HSM_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>

#include <openssl/types.h>

#include "error.h"
#include "hsm.h"

#define GCM_NONCE_SIZE 12
#define GCM_TAG_SIZE 16
#define PIN_MAX 256
#define TOKEN_LABEL_SIZE 33  /* CK_TOKEN_INFO.label and NUL */
#define TOKEN_SERIAL_SIZE 17 /* CK_TOKEN_INFO.serialNumber and NUL */
#define FILE_HASH_SIZE 33    /* hex of 16 bytes and NUL */

struct hsm_module;
struct hsm_connection;

/* ---- hsm_process.c --------------------------------------------------------------------------- */

/* What identifies the PIN file that was refused. */
struct pin_stamp {
    unsigned long long device, inode, size;
    long long seconds, nanoseconds;
};

struct pin_refusal {
    struct pin_refusal *next;
    char name[FILE_HASH_SIZE];
    struct pin_stamp stamp;
};

/*
 * Everything PKCS#11 that belongs to one process id. A forked child gets a new, empty one; the
 * parent's is kept reachable but never looked into, so no mutex that was held at the time of the
 * fork matters.
 */
struct hsm_process {
    pid_t pid;
    struct hsm_process *parent;
    bool inherited; /* it, or one it descends from, was forked when a module had been used: must
                     * never finalise that at exit */
    pthread_mutex_t mutex;
    struct hsm_module *modules;
    struct hsm_connection *keepers;
    struct pin_refusal *refusals;
    atomic_uint busy; /* threads between hsm_enter() and hsm_leave() */
    atomic_bool dead; /* the process is ending: no PKCS#11 call any more */
};

/* This process's own, made on first use; NULL when memory is short. Any thread. */
struct hsm_process *hsm_process(void);
/* Finalises the modules when the process ends, before their own destructors run. Call after each
 * first initialisation. */
void hsm_process_watch_exit(void);
/* A library context of our own, so that an application's OpenSSL configuration has no say here.
 * NULL: no memory. */
OSSL_LIB_CTX *hsm_libctx(void);
/* Hex of the first half of the SHA-256 of `text`, for file names. */
TPKS_CHECK tpks_result hsm_file_hash(const char *text, char out[FILE_HASH_SIZE]);

/*
 * Every public function runs inside a guard: the process is alive and the same, SIGPIPE is blocked
 * and consumed (p11-kit's client writes to sockets without MSG_NOSIGNAL), errno and OpenSSL's error
 * queue are kept, and a module that calls back into us through libcrypto is refused.
 */
struct hsm_guard {
    struct hsm_process *process;
    sigset_t old_mask;
    bool pipe_blocked;
    bool pipe_was_pending;
    int saved_errno;
};
/* `owner` is the process of the handle, NULL when there is none yet. */
TPKS_CHECK tpks_result hsm_enter(struct hsm_guard *guard, const struct hsm_process *owner);
void hsm_leave(struct hsm_guard *guard);
/*
 * As hsm_enter(), with SIGPIPE as it is, for where each operation counts: blocking it costs three
 * system calls. hsm_guard_pipe() is to follow before a module is called that is not local.
 */
TPKS_CHECK tpks_result hsm_enter_local(struct hsm_guard *guard, const struct hsm_process *owner);
void hsm_guard_pipe(struct hsm_guard *guard);
#define HSM_GUARD __attribute__((cleanup(hsm_leave))) struct hsm_guard
/* Step outside of this thread's guard for a callback, and back. */
struct hsm_guard *hsm_guard_pause(void);
void hsm_guard_resume(struct hsm_guard *guard);

/* ---- hsm_lock.c ------------------------------------------------------------------------------ */

void mutex_unlock(pthread_mutex_t **mutex);
#define HOLD_NAME_(a, b) a##b
#define HOLD_NAME(a, b) HOLD_NAME_(a, b)
/* Holds a mutex until the end of the block. */
#define HOLD(mutex_)                                                                               \
    __attribute__((cleanup(mutex_unlock), unused)) pthread_mutex_t *HOLD_NAME(held_, __LINE__) =   \
        (pthread_mutex_lock(mutex_), (mutex_))

/* All signals that can be blocked, except those of a fault of this thread itself. */
void signals_block(sigset_t *old);
void signals_restore(sigset_t *old);
#define SIGNALS_BLOCKED                                                                            \
    __attribute__((cleanup(signals_restore), unused)) sigset_t old_signals_;                       \
    signals_block(&old_signals_)

/* The host-wide lock: descriptor, -1 while not held. */
int host_lock_take(const char *lock_dir, const char *name, const struct timespec *deadline);
void host_lock_drop(int *fd);
#define HOST_LOCK __attribute__((cleanup(host_lock_drop), unused)) int

/* Sleeps about 2 ms, doubled with each attempt (at most 256 ms), plus or minus half of it at
 * random. */
void pause_jittered(unsigned attempt);
struct timespec deadline_in(int seconds);
bool deadline_passed(const struct timespec *deadline);

/* ---- hsm_error.c ----------------------------------------------------------------------------- */

/* What has to be done before an operation that failed so can be tried again. */
enum recovery {
    RECOVER_NOT = 0, /* trying again would not help */
    RECOVER_HANDLES, /* object handles are stale */
    RECOVER_SESSION, /* open a session and log in again */
    RECOVER_MODULE   /* finalise and initialise the module too */
};
/* `ambiguous`: the call may answer CKR_GENERAL_ERROR for bad data (C_Decrypt, C_UnwrapKey). */
enum recovery recovery_for(CK_RV rv, bool ambiguous);
/* The result that says best what a CKR code of an ordinary call means. */
tpks_result ckr_result(CK_RV rv);
/* "HSM token LABEL (MODULE): CALL failed: TEXT (CKR 0x...): HINT" */
tpks_result fail_ckr(tpks_result result, const struct hsm_connection *connection, const char *call,
                     CK_RV rv);

/* ---- hsm_uri.c ------------------------------------------------------------------------------- */

struct token_uri {
    P11KitUri *parsed;
    const char *module; /* a path, or a name of p11-kit's configuration */
    bool module_by_name;
    bool pin_asked;       /* pin-source=callback */
    const char *pin_path; /* else the file */
};
TPKS_CHECK tpks_result token_uri_parse(const char *text, struct token_uri *out);
void token_uri_clear(struct token_uri *uri);

/* ---- hsm_pin.c ------------------------------------------------------------------------------- */

/* Who opened the handle: needed whenever somebody must be asked. */
struct hsm_caller {
    tpks_ask_fn *ask;
    void *ask_arg;
    const char *keystore_label;
};

struct pin {
    TPKS_SECRET *secret;
    const char *path; /* borrowed from the token URI; NULL when it was asked for */
    struct pin_stamp stamp;
};
/* Reads the file or asks. Call without any lock held. */
TPKS_CHECK tpks_result pin_get(const struct token_uri *uri, const struct hsm_caller *caller,
                               struct pin *out);
void pin_clear(struct pin *pin);
#define PIN __attribute__((cleanup(pin_clear))) struct pin

/* Was exactly this PIN file refused before by this token? TPKS_PIN_LOCKED. Under the host-wide
 * lock. */
TPKS_CHECK tpks_result pin_refusal_check(const struct hsm_connection *connection,
                                         const struct pin *pin);
void pin_refusal_remember(const struct hsm_connection *connection, const struct pin *pin);
void pin_refusal_forget(const struct hsm_connection *connection, const struct pin *pin);

/* ---- hsm_module.c ---------------------------------------------------------------------------- */

struct hsm_module {
    struct hsm_module *next;
    char *name;
    bool by_name;
    pthread_mutex_t mutex;       /* held from initialisation to login: one opener at a time */
    CK_FUNCTION_LIST *functions; /* NULL until loaded */
    CK_FUNCTION_LIST **all;      /* by_name: the list it came from */
    char *file;                  /* for messages */
    char lock_name[FILE_HASH_SIZE + 16];
    bool initialised;
    bool watched;         /* the exit handler has been registered */
    atomic_uint sessions; /* open ones of this process; the module is not finalised under them */
    struct hsm_connection *connections; /* under process->mutex: all that may have such sessions */
};

/* The module of this URI, loaded but perhaps not initialised. */
TPKS_CHECK tpks_result module_get(struct hsm_process *process, const struct token_uri *uri,
                                  struct hsm_module **out);
/* Is it a module that is known to write to files only, never to a pipe or socket? SoftHSM. */
bool module_is_local(const struct token_uri *uri);
/* The next four are called with module->mutex held. */
CK_RV module_initialise(struct hsm_module *module);
/* Finalises unless a session is open; the next initialisation then sees tokens anew. */
void module_reset(struct hsm_module *module);
/* Does it say of itself that it has to be initialised anew? Then no session of it is left. */
bool module_is_dead(const struct hsm_module *module);
/* How many tokens match; slot and info are those of the last one. With none, the code is that of a
 * slot that does not answer, if there is one. */
CK_RV module_find_token(struct hsm_module *module, const struct token_uri *uri, unsigned *matches,
                        CK_SLOT_ID *slot, CK_TOKEN_INFO *info);

/* ---- hsm_session.c --------------------------------------------------------------------------- */

#define POOL_MAX 8

/* A wrapped DEK and its object inside the token; see hsm_gcm.c. */
struct kept_dek;
/* A copy of a key in the keeper session; see hsm_key_copy.c. */
struct key_copy;

/*
 * A login: the keeper session, opened first and closed last, which owns the DEK objects and the
 * copies of keys, and a few sessions for operations, each used by one thread at a time (two threads
 * in one session crash SoftHSM, NSS and openCryptoki). It belongs to one handle, or, with
 * hsm-session=process, to the process and is never freed.
 */
struct hsm_connection {
    struct hsm_connection *next;
    struct hsm_process *process;
    struct hsm_module *module;
    struct hsm_connection *beside; /* the next one of the module, under process->mutex */
    bool seized;                   /* its keeper is held by a thread of another connection */
    char *uri_text;
    struct token_uri uri;
    char *lock_dir;
    bool write;
    bool shared;

    pthread_mutex_t keeper; /* held by who uses, opens or renews the keeper session */
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE session;
    uint64_t logins;  /* session objects are of the last one */
    bool fresh;       /* the module was initialised for this very login */
    bool needs_login; /* the token hides private objects from those who are not logged in */

    pthread_mutex_t mutex; /* the rest */
    pthread_cond_t changed;
    bool open;
    bool renewing;
    bool lost;                    /* closed because the module has died; nobody has tried since */
    uint64_t tries;               /* logins that were tried, each as often as it takes */
    tpks_result renewed;          /* how the last one ended */
    _Atomic(uint64_t) generation; /* +1 when object handles became stale; read without the mutex */
    unsigned limit, in_flight, idle_count;
    int64_t squeezed; /* when the limit was lowered */
    int64_t missed;   /* when an object was last missing although the module was initialised anew */
    CK_SESSION_HANDLE idle[POOL_MAX];
    struct kept_dek *deks;
    struct key_copy *dropped; /* to be destroyed */
    char label[TOKEN_LABEL_SIZE];
    char serial[TOKEN_SERIAL_SIZE];
};

TPKS_CHECK tpks_result connection_new(struct hsm_process *process, const hsm_options *options,
                                      struct hsm_connection **out);
/* Closes the sessions unless the process is another one or ending, and frees. */
void connection_free(struct hsm_connection *connection);
/* Logs in unless that was done. Threads that wait while another one finds the token away do not try
 * themselves: they fail as it does. */
TPKS_CHECK tpks_result connection_open(struct hsm_connection *connection,
                                       const struct hsm_caller *caller);
bool connection_is_open(struct hsm_connection *connection);
/*
 * Searches objects in the keeper session; called with `keeper` held. At most `max` of what matches.
 * One that finds nothing proves nothing when somebody else of this process, or the HSM, has ended
 * the login, for private objects are hidden then: CKR_USER_NOT_LOGGED_IN (PKCS#11 3.0, section
 * 5.6.8).
 */
CK_RV connection_search(struct hsm_connection *connection, CK_ATTRIBUTE *template, CK_ULONG size,
                        CK_OBJECT_HANDLE *found, CK_ULONG max, CK_ULONG *count);
/* Destroys all that match, in the same way; that there is nothing is fine. */
CK_RV connection_destroy(struct hsm_connection *connection, CK_ATTRIBUTE *template, CK_ULONG size);
uint64_t connection_generation(struct hsm_connection *connection);
/* A search that finds nothing is believed after one with the module initialised anew; this
 * remembers such a one, and says whether there was one a moment ago. */
void connection_note_missing(struct hsm_connection *connection);
bool connection_missed_lately(struct hsm_connection *connection);
/*
 * Recovers from a failure that was seen at generation `seen`. One thread does it, others find
 * the generation changed. No lock may be held.
 */
TPKS_CHECK tpks_result connection_recover(struct hsm_connection *connection,
                                          const struct hsm_caller *caller, uint64_t seen,
                                          enum recovery recovery);
/* A session for one operation. Give it back, or drop it when the operation failed. */
CK_RV session_take(struct hsm_connection *connection, CK_SESSION_HANDLE *session);
void session_give(struct hsm_connection *connection, CK_SESSION_HANDLE session, bool drop);

/* Work in the keeper session. `run` sets `ambiguous` before a call that may answer
 * CKR_GENERAL_ERROR for bad data. */
struct keeper_job {
    CK_RV (*run)(struct hsm_connection *connection, struct keeper_job *job);
    bool ambiguous;
    uint64_t generation; /* at which it ran */
};
/* Runs the job, recovering and trying again where that can help; *rv is its last answer. */
TPKS_CHECK tpks_result keeper_run(struct hsm_connection *connection,
                                  const struct hsm_caller *caller, struct keeper_job *job,
                                  CK_RV *rv);

/* ---- hsm_wrap.c ------------------------------------------------------------------------------ */

#define MECHANISM_AES_KWP 0x210BUL /* CKM_AES_KEY_WRAP_KWP, PKCS#11 3.0; older p11-kit lacks it */

/* What kind of object a KEK is. */
enum kek_kind { KEK_NONE = 0, KEK_AES_WRAP, KEK_AES_ENCRYPT, KEK_RSA };

struct wrap_method {
    wrap_algorithm algorithm;
    const char *name;
    enum kek_kind kind;
    CK_MECHANISM_TYPE mechanism;
    size_t wrapped_size; /* 0: the size of the modulus */
    size_t iv_size;
    size_t skip; /* bytes before what is wrapped, which mean nothing */
};
/* NULL for a number that is not an HSM algorithm. */
const struct wrap_method *wrap_method(wrap_algorithm algorithm);
/* May these bytes be given to the token? Malformed ones crash some modules. */
bool wrapped_is_well_formed(const hsm_wrapped *wrapped);

/* PKCS#11 mechanism with its parameters. */
struct mechanism {
    CK_MECHANISM mechanism;
    union {
        CK_GCM_PARAMS gcm;
        CK_RSA_PKCS_OAEP_PARAMS oaep;
        unsigned char iv[16];
    } parameters;
};
void mechanism_set(struct mechanism *out, const struct wrap_method *method,
                   const unsigned char *iv);
/* AES-GCM with the six-field parameters that every module takes. */
void mechanism_set_gcm(struct mechanism *out, const unsigned char nonce[GCM_NONCE_SIZE],
                       const unsigned char *aad, size_t aad_size);

/* C_UnwrapKey into a session object of the keeper session, which the caller holds. */
CK_RV unwrap_inside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                    const hsm_wrapped *wrapped, CK_OBJECT_HANDLE *object);
/* Unwraps to `out` (room for WRAPPED_MAX bytes), through the keeper session, which the caller
 * holds. */
CK_RV unwrap_outside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                     const hsm_wrapped *wrapped, unsigned char *out, size_t *out_size);
/* Wraps; `kek` is the public key with RSA-OAEP. `wrapped` has room for WRAPPED_MAX bytes. */
TPKS_CHECK tpks_result wrap_dek(struct hsm_connection *connection, const struct wrap_method *method,
                                CK_OBJECT_HANDLE kek, const TPKS_SECRET *dek,
                                const unsigned char *iv, unsigned char *wrapped,
                                size_t *wrapped_size);

/* Makes a libcrypto key of an RSA public key object; *key stays NULL when libcrypto refuses it. */
CK_RV rsa_read_public(struct hsm_connection *connection, CK_OBJECT_HANDLE object, EVP_PKEY **key);

/* ---- hsm_gcm.c ------------------------------------------------------------------------------- */

/* One AES-GCM operation in a session of its own; `out` has room for in_size + GCM_TAG_SIZE (seal)
 * or in_size (open). */
struct gcm_job {
    bool seal;
    const unsigned char *nonce;
    const unsigned char *aad;
    size_t aad_size;
    const unsigned char *in;
    size_t in_size;
    unsigned char *out;
    size_t out_room;
    size_t out_size;
};
CK_RV gcm_once(struct hsm_connection *connection, CK_OBJECT_HANDLE key, struct gcm_job *job);
/* Seals and opens a few zero bytes: can this object do AES-GCM? */
CK_RV gcm_try(struct hsm_connection *connection, CK_OBJECT_HANDLE key);
/*
 * Is a wrapped DEK usable through this KEK: inside the token, with the same AES-GCM as libcrypto's?
 * Through the keeper session, which the caller holds.
 */
bool dek_proves_inside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                       const hsm_wrapped *wrapped, const TPKS_SECRET *dek);
/* Does unwrapping it out of the token give the DEK? */
bool dek_proves_outside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                        const hsm_wrapped *wrapped, const TPKS_SECRET *dek);
/* Forgets the DEKs of a connection that is being freed. */
void kept_deks_free(struct hsm_connection *connection);

/* Reads a flag of an object; false too when the module does not tell it. Through the keeper
 * session.
 */
bool flag_is(struct hsm_connection *connection, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
             CK_BBOOL expected);

/* ---- hsm_kek.c ------------------------------------------------------------------------------- */

/* What a KEK is found by: its id or, without one, its label. */
struct kek_name {
    const unsigned char *cka_id;
    const char *label;
};
/* Objects of this class and id on the token, at most two, through the keeper session. */
CK_RV find_objects(struct hsm_connection *connection, CK_OBJECT_CLASS class,
                   const unsigned char *cka_id, CK_OBJECT_HANDLE found[2], CK_ULONG *count);
/* Secret and private keys together: 0, 1, or more than one. */
CK_RV find_kek(struct hsm_connection *connection, const struct kek_name *name,
               CK_OBJECT_HANDLE *kek, CK_ULONG *count);
/* Says how many KEKs were found: TPKS_OK for one, TPKS_KEK_MISSING, TPKS_KEK_FOREIGN for several.
 */
TPKS_CHECK tpks_result check_kek_count(const HSM *hsm, const struct kek_name *name, CK_ULONG count);
/*
 * After a search that found nothing: a module that was initialised long ago does not show that its
 * token was replaced. Makes sure of the token; *again when the search is to be repeated.
 */
TPKS_CHECK tpks_result confirm_missing(HSM *hsm, bool *again);
/* Destroys every object of this id, in a session for writing that the caller holds. */
CK_RV destroy_by_id(struct hsm_connection *connection, const unsigned char *cka_id);
/* File tokens such as SoftHSM never sync, and where their files are nobody can ask. */
void make_durable(void);
TPKS_CHECK tpks_result check_may_write(const HSM *hsm);
TPKS_CHECK tpks_result check_id_is_free(HSM *hsm, const unsigned char *cka_id);
/* As hsm_make_kek(), with only these algorithms, in this order. */
TPKS_CHECK tpks_result make_kek_from(HSM *hsm, const wrap_algorithm *order, size_t order_size,
                                     const unsigned char cka_id[CKA_ID_SIZE], const char *label,
                                     const TPKS_SECRET *dek, wrap_algorithm *algorithm,
                                     unsigned char *wrapped, size_t *wrapped_size,
                                     unsigned char iv[16], size_t *iv_size);

/* ---- hsm.c ----------------------------------------------------------------------------------- */

/* The keeper of this process for these options, made on first use, perhaps not open yet. */
TPKS_CHECK tpks_result keeper_join(struct hsm_process *process, const hsm_options *options,
                                   struct hsm_connection **out);

struct hsm {
    struct hsm_process *process;
    struct hsm_connection *connection;
    struct hsm_caller caller;
    char *keystore_label;
    bool missing_confirmed; /* a missing KEK was looked for again after a new login */
    bool has_made;          /* a KEK that has no label of Trustpoint's yet: `made` */
    CK_OBJECT_HANDLE made;
    char label[TOKEN_LABEL_SIZE];
    char serial[TOKEN_SERIAL_SIZE];
};

#endif
