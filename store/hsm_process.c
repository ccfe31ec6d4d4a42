/*
 * hsm_process.c - what this process holds of PKCS#11: its start, fork and end
 */
#include "hsm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#define FORK_PAUSE_NS 100000
#define FORK_PAUSES 10000 /* a second, until a fork goes on */

static _Atomic(struct hsm_process *) current_process;
static _Thread_local struct hsm_guard *current_guard;
static pthread_once_t libctx_once = PTHREAD_ONCE_INIT;
static OSSL_LIB_CTX *libctx;

/* ---- forks ----------------------------------------------------------------------------------- */

/*
 * True while this process is the one that current_process belongs to: the kernel clears this page
 * in each child (madvise(2), MADV_WIPEONFORK). It saves asking for the process id, a system call,
 * with each operation. NULL where the kernel can't.
 */
static atomic_bool *unforked;
static pthread_once_t unforked_once = PTHREAD_ONCE_INIT;

static void map_unforked(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return;
    /* An emulator of Linux that takes any advice does nothing with this one. */
    if (madvise(page, size, -1) == 0 || madvise(page, size, MADV_WIPEONFORK) != 0)
        munmap(page, size);
    else
        unforked = page;
}

/* Looked at before current_process, and set after it. */
static bool is_unforked(void)
{
    pthread_once(&unforked_once, map_unforked);
    return unforked != NULL && atomic_load(unforked);
}

static struct hsm_process *note_unforked(struct hsm_process *process)
{
    if (unforked != NULL)
        atomic_store(unforked, true);
    return process;
}

/*
 * A module has locks of its own, and a fork copies them as they are: one that another thread holds
 * would never be given back in the child. So a fork waits until no other thread is inside a module,
 * and threads that would enter wait for the fork. It goes on without those that take too long.
 */
static atomic_uint inside; /* threads */
static atomic_bool forking;
static pthread_mutex_t fork_gate = PTHREAD_MUTEX_INITIALIZER; /* held by the thread that forks */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static _Thread_local bool forks_itself;

static void go_inside(void)
{
    for (;;) {
        atomic_fetch_add(&inside, 1);
        if (!atomic_load(&forking) || forks_itself)
            return;
        atomic_fetch_sub(&inside, 1);
        pthread_mutex_lock(&fork_gate);
        pthread_mutex_unlock(&fork_gate);
    }
}

static void go_outside(void)
{
    atomic_fetch_sub(&inside, 1);
}

/* This thread may be inside itself: modules that start a program of their own do so. */
static unsigned own_part(void)
{
    return current_guard != NULL;
}

static void before_fork(void)
{
    const struct timespec a_while = {.tv_nsec = FORK_PAUSE_NS};
    int saved = errno;

    pthread_mutex_lock(&fork_gate);
    forks_itself = true;
    atomic_store(&forking, true);
    for (unsigned i = 0; atomic_load(&inside) > own_part() && i < FORK_PAUSES; i++)
        nanosleep(&a_while, NULL);
    errno = saved;
}

static void after_fork(void)
{
    atomic_store(&forking, false);
    forks_itself = false;
    pthread_mutex_unlock(&fork_gate);
}

static void after_fork_in_child(void)
{
    atomic_store(&inside, own_part());
    after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static struct hsm_process *process_new(struct hsm_process *parent)
{
    struct hsm_process *process = calloc(1, sizeof(*process));
    if (process == NULL)
        return NULL;
    process->pid = getpid();
    process->parent = parent;
    process->inherited = parent != NULL && (parent->inherited || parent->modules != NULL);
    pthread_mutex_init(&process->mutex, NULL);
    pthread_once(&fork_once, watch_forks);
    return process;
}

struct hsm_process *hsm_process(void)
{
    if (is_unforked())
        return atomic_load(&current_process);
    struct hsm_process *process = atomic_load(&current_process);
    if (process != NULL && process->pid == getpid())
        return note_unforked(process);
    struct hsm_process *fresh = process_new(process);
    if (fresh == NULL)
        return NULL;
    if (atomic_compare_exchange_strong(&current_process, &process, fresh))
        return note_unforked(fresh);
    free(fresh);
    return process;
}

/* ---- the guard ------------------------------------------------------------------------------- */

static void make_libctx(void)
{
    libctx = OSSL_LIB_CTX_new();
}

OSSL_LIB_CTX *hsm_libctx(void)
{
    pthread_once(&libctx_once, make_libctx);
    return libctx;
}

tpks_result hsm_file_hash(const char *text, char out[FILE_HASH_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t size = 0;
    if (hsm_libctx() == NULL ||
        EVP_Q_digest(hsm_libctx(), "SHA256", NULL, text, strlen(text), digest, &size) != 1)
        return fail_crypto(TPKS_INTERNAL, "hashing a file name");
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < (FILE_HASH_SIZE - 1) / 2; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[FILE_HASH_SIZE - 1] = '\0';
    return TPKS_OK;
}

void hsm_guard_pipe(struct hsm_guard *guard)
{
    sigset_t pipe, pending;
    guard->pipe_blocked = true;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &guard->old_mask);
    /* One that was not blocked before has been delivered, if there was any. */
    guard->pipe_was_pending = sigismember(&guard->old_mask, SIGPIPE) == 1 &&
                              sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

static void pipe_restore(struct hsm_guard *guard)
{
    if (!guard->pipe_blocked)
        return;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    const struct timespec now = {0, 0};
    if (!guard->pipe_was_pending) {
        while (sigtimedwait(&pipe, NULL, &now) == -1 && errno == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &guard->old_mask, NULL);
}

/* Says whether a handle of `owner` may be used now. */
static tpks_result check_alive(const struct hsm_process *process, const struct hsm_process *owner)
{
    if (owner != NULL && owner != process)
        return fail(TPKS_INTERNAL, "HSM handle: it belongs to the parent process and does not "
                                   "survive a fork: open the keystore again in the child");
    if (atomic_load(&process->dead))
        return fail(TPKS_HSM_UNAVAILABLE, "HSM: this process is ending and has let go of its "
                                          "tokens: load keys before exit");
    return TPKS_OK;
}

tpks_result hsm_enter_local(struct hsm_guard *guard, const struct hsm_process *owner)
{
    guard->process = NULL;
    guard->pipe_blocked = false;
    guard->saved_errno = errno;
    if (current_guard != NULL)
        return fail(TPKS_INTERNAL, "HSM: the PKCS#11 module called back into the keystore: list "
                                   "provider `default` before `trustpoint` in openssl.cnf");
    struct hsm_process *process = hsm_process();
    if (process == NULL)
        return fail_memory();
    atomic_fetch_add(&process->busy, 1);
    tpks_result result = check_alive(process, owner);
    if (result != TPKS_OK) {
        atomic_fetch_sub(&process->busy, 1);
        errno = guard->saved_errno;
        return result;
    }
    guard->process = process;
    go_inside();
    ERR_set_mark(); /* modules that use libcrypto leave their errors behind */
    current_guard = guard;
    return TPKS_OK;
}

tpks_result hsm_enter(struct hsm_guard *guard, const struct hsm_process *owner)
{
    TRY(hsm_enter_local(guard, owner));
    hsm_guard_pipe(guard);
    return TPKS_OK;
}

void hsm_leave(struct hsm_guard *guard)
{
    if (guard->process == NULL)
        return;
    current_guard = NULL;
    ERR_pop_to_mark();
    pipe_restore(guard);
    go_outside();
    atomic_fetch_sub(&guard->process->busy, 1);
    errno = guard->saved_errno;
}

struct hsm_guard *hsm_guard_pause(void)
{
    struct hsm_guard *guard = current_guard;
    current_guard = NULL;
    if (guard == NULL)
        return NULL;
    pipe_restore(guard);
    go_outside();
    return guard;
}

void hsm_guard_resume(struct hsm_guard *guard)
{
    if (guard == NULL)
        return;
    if (guard->pipe_blocked)
        hsm_guard_pipe(guard);
    go_inside();
    current_guard = guard;
}

/*
 * At exit the destructors of a module run before OpenSSL's cleanup, and any call after them
 * crashes. This handler, registered after the module was initialised, runs before both.
 * While another thread is inside a module nothing is finalised: that is safe too.
 */
static void finalise_at_exit(void)
{
    struct hsm_process *process = atomic_load(&current_process);
    if (process == NULL || process->pid != getpid() || atomic_exchange(&process->dead, true))
        return;
    if (atomic_load(&process->busy) != 0 || process->inherited)
        return;
    struct hsm_guard guard;
    hsm_guard_pipe(&guard);
    for (struct hsm_module *module = process->modules; module != NULL; module = module->next) {
        if (module->initialised)
            p11_kit_module_finalize(module->functions);
    }
    pipe_restore(&guard);
}

void hsm_process_watch_exit(void)
{
    atexit(finalise_at_exit);
}
