/*
 * driver.c - runs operations under faults, each on a copy of a prepared place
 *
 *     driver make BASE MODULE            prepares the places to start from
 *     driver serve BASE WORK             reads points from stdin, writes a line for each to stdout
 *     driver stampede BASE WORK N M      N rounds of M processes that start at once without a KEK
 *     driver starts BASE WORK N M        N processes, M at once, with the KEK in its place
 *
 * A point is one line, "ID PLACE OPERATION VARIANT KIND ARGUMENTS":
 *     kill N                  SIGKILL at the Nth system call that changes a file; 0: only count
 *     ckr MODE N RV STICKY [FUNCTION]
 *                             p11fault.c's FAULT_MODE, _AT, _RV, _STICKY, _FUNCTION
 *     hang N BESIDE           stops at call N and is killed there; BESIDE 1: after the judgement
 *     count                   no fault; the names of the PKCS#11 functions called go to
 * WORK/ID.calls and its answer
 * "ID<TAB>END<TAB>RESULT<TAB>QUESTIONS<TAB>FLAGS<TAB>TEXT<TAB>COMPLAINTS". END is how the
 * operation's process ended: exit, signal N, hung.
 *
 * Environment: FAULT_MODULE (the module behind p11fault), FAULT_SHIM (p11fault itself),
 * FAULT_OPENSSL_CONF, FAULT_COMMAND (trustpoint-keystore; its `status` must work in the end).
 */
#include "fault.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HANG_MS 120000
#define LINE_ROOM 8192

/* ---- time is short --------------------------------------------------------------------------- */

/*
 * These stand in for libc's in the library under test. While points are served its pauses between
 * retries are cut, for nobody else uses the copied places; and there is no disk to sync.
 */
static unsigned hurry = 1;

int nanosleep(const struct timespec *wanted, struct timespec *left)
{
    long long all = (wanted->tv_sec * 1000000000LL + wanted->tv_nsec) / hurry;
    struct timespec wait = {all / 1000000000LL, all % 1000000000LL};
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, left);
    errno = error != 0 ? error : errno;
    return error != 0 ? -1 : 0;
}

int usleep(useconds_t microseconds)
{
    struct timespec wait = {microseconds / 1000000, microseconds % 1000000 * 1000L};
    return nanosleep(&wait, NULL);
}

void sync(void)
{
}

/* ---- one point ------------------------------------------------------------------------------- */

typedef struct point {
    char id[32], base[32], operation[32], variant[32], kind[16], mode[16], function[64];
    long at;
    unsigned long rv;
    int sticky;
    char place[PATH_ROOM];
    const char *work;
} point;

static bool parse(const char *line, point *p)
{
    int fields =
        sscanf(line, "%31s %31s %31s %31s %15s", p->id, p->base, p->operation, p->variant, p->kind);
    if (fields != 5 || operation_find(p->operation) == NULL)
        return false;
    const char *rest = strstr(line, p->kind) + strlen(p->kind);
    if (strcmp(p->kind, "kill") == 0)
        return sscanf(rest, "%ld", &p->at) == 1;
    if (strcmp(p->kind, "hang") == 0)
        return sscanf(rest, "%ld %d", &p->at, &p->sticky) == 2;
    if (strcmp(p->kind, "ckr") == 0)
        return sscanf(rest, "%15s %ld %lx %d %63s", p->mode, &p->at, &p->rv, &p->sticky,
                      p->function) >= 4;
    return strcmp(p->kind, "count") == 0;
}

static void set_number(const char *name, unsigned long value)
{
    char text[32];
    snprintf(text, sizeof(text), "%lu", value);
    setenv(name, text, 1);
}

static void calls_path(const point *p, char *path)
{
    must(snprintf(path, PATH_ROOM, "%s/%s.calls", p->work, p->id) < PATH_ROOM, "path too long");
}

static void plan_fault(const point *p)
{
    char path[PATH_ROOM];
    if (strcmp(p->kind, "count") == 0) {
        calls_path(p, path);
        setenv("FAULT_COUNT", path, 1);
    }
    if (strcmp(p->kind, "ckr") != 0 && strcmp(p->kind, "hang") != 0)
        return;
    setenv("FAULT_MODE", strcmp(p->kind, "hang") == 0 ? "hang" : p->mode, 1);
    if (p->function[0] != '\0')
        setenv("FAULT_FUNCTION", p->function, 1);
    set_number("FAULT_AT", (unsigned long)p->at);
    set_number("FAULT_RV", p->rv);
    set_number("FAULT_STICKY", (unsigned long)p->sticky);
}

static context context_of(const point *p)
{
    context c = {.place = p->place, .openssl_conf = getenv("FAULT_OPENSSL_CONF")};
    tpks_result result = tpks_config_load(in_place(p->place, "keystore.cnf"), &c.config);
    must(result == TPKS_OK, "configuration: %s", tpks_error_text());
    c.ask = strcmp(p->operation, "load-restore") == 0 ? ask_and_answer : ask_and_refuse;
    return c;
}

/* In the child: the operation, and what it says in PLACE/result and PLACE/text. */
static void disturbed(void *arg)
{
    const point *p = arg;
    char text[LINE_ROOM];
    plan_fault(p);
    context c = context_of(p);
    tpks_result result = operation_find(p->operation)(&c);
    snprintf(text, sizeof(text), "%s%s", tpks_result_name(result), c.wrong_key ? " WRONG-KEY" : "");
    write_text(in_place(p->place, "result"), text);
    write_text(in_place(p->place, "text"), result == TPKS_OK ? "" : tpks_error_text());
    tpks_config_free(c.config);
}

static void judged(void *arg)
{
    const point *p = arg;
    size_t size = 0;
    context c = context_of(p);
    FILE *out = fopen(in_place(p->place, "complaints"), "a");
    char *result = access(in_place(p->place, "result"), F_OK) == 0
                       ? read_all(in_place(p->place, "result"), &size)
                       : NULL;
    must(out != NULL, "complaints");
    judge(&c, p->operation, result, out);
    fclose(out);
    free(result);
    tpks_config_free(c.config);
}

/* A child that may hang; *end is "exit", "exit N", "signal N" or "hung". */
static void run_guarded(void (*work)(void *), point *p, char end[32])
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        work(p);
        exit(0);
    }
    must(pid > 0, "fork");
    struct pollfd child = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    must(child.fd != -1, "pidfd_open");
    bool hung = poll(&child, 1, HANG_MS) == 0;
    if (hung)
        kill(pid, SIGKILL);
    must(waitpid(pid, &status, 0) == pid, "waitpid");
    close(child.fd);
    if (hung)
        snprintf(end, 32, "hung");
    else if (WIFSIGNALED(status))
        snprintf(end, 32, "signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        snprintf(end, 32, "exit %d", WEXITSTATUS(status));
    else
        snprintf(end, 32, "exit");
}

static void run_killed(point *p, char end[32])
{
    int status = 0;
    char path[PATH_ROOM];
    calls_path(p, path);
    FILE *names = p->at == 0 ? fopen(path, "w") : NULL;
    run_and_kill(disturbed, p, p->at, &status, names);
    if (names != NULL)
        fclose(names);
    if (WIFSIGNALED(status))
        snprintf(end, 32, "signal %d", WTERMSIG(status));
    else
        snprintf(end, 32, "exit");
    if (p->at != 0)
        unlink(in_place(p->place, "result")); /* killed in its very last calls */
}

/* Runs until it hangs; returns the hung process, or 0 when it ended without hanging. */
static pid_t run_until_hung(point *p, char end[32])
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        disturbed(p);
        exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, WUNTRACED) == pid, "starting a child");
    snprintf(end, 32, "%s", WIFSTOPPED(status) ? "stopped" : "exit");
    return WIFSTOPPED(status) ? pid : 0;
}

static void end_hung(pid_t *pid)
{
    if (*pid != 0)
        must(kill(*pid, SIGKILL) == 0 && waitpid(*pid, NULL, 0) == *pid, "ending a hung process");
    *pid = 0;
}

/* The result of another program is its exit code. */
static void note_provider(const point *p, char end[32])
{
    bool good = strcmp(end, "exit") == 0;
    if (strcmp(p->operation, "provider") != 0 || strncmp(end, "exit", 4) != 0)
        return;
    write_text(in_place(p->place, "result"), good ? "ok" : "failed");
    snprintf(end, 32, "exit");
}

static void check_status(const point *p)
{
    char log[PATH_ROOM], configuration[PATH_ROOM];
    const char *arguments[] = {getenv("FAULT_COMMAND"), "--config", configuration, "status", NULL};
    if (arguments[0] == NULL)
        return;
    snprintf(log, sizeof(log), "%s", in_place(p->place, "status"));
    snprintf(configuration, sizeof(configuration), "%s", in_place(p->place, "keystore.cnf"));
    int code = run_program(log, arguments);
    if (code == 0)
        return;
    FILE *out = fopen(in_place(p->place, "complaints"), "a");
    must(out != NULL, "complaints");
    fprintf(out, "status ends with %d\n", code);
    fclose(out);
}

static void print_file(const point *p, const char *name)
{
    size_t size = 0;
    putchar('\t');
    if (access(in_place(p->place, name), F_OK) != 0)
        return;
    char *text = read_all(in_place(p->place, name), &size);
    for (size_t i = 0; i < size; i++)
        putchar(text[i] == '\n' ? '|' : text[i] == '\t' ? ' ' : text[i]);
    free(text);
}

static void answer(const point *p, const char *end, const char *judge_end, long questions,
                   bool lost)
{
    if (strcmp(judge_end, "exit") != 0) {
        FILE *out = fopen(in_place(p->place, "complaints"), "a");
        must(out != NULL, "complaints");
        fprintf(out, "the judge ended with %s\n", judge_end);
        fclose(out);
    }
    printf("%s\t%s", p->id, end);
    print_file(p, "result");
    printf("\t%ld\t%s%s", questions, lost ? "token-lost " : "",
           access(in_place(p->place, "orphan"), F_OK) == 0 ? "orphan" : "");
    print_file(p, "text");
    print_file(p, "complaints");
    putchar('\n');
    fflush(stdout);
}

static void run_point(point *p, const char *base)
{
    char end[32], judge_end[32];
    pid_t hung = 0;
    snprintf(p->place, sizeof(p->place), "%s", in_place(p->work, p->id));
    copy_tree(in_place(base, p->base), p->place);
    use_place(p->place);
    write_configuration(p->place, p->variant,
                        strcmp(p->kind, "kill") == 0 ? getenv("FAULT_MODULE")
                                                     : getenv("FAULT_SHIM"));
    if (strcmp(p->kind, "kill") == 0)
        run_killed(p, end);
    else if (strcmp(p->kind, "hang") == 0)
        hung = run_until_hung(p, end);
    else
        run_guarded(disturbed, p, end);
    if (p->sticky == 0)
        end_hung(&hung);
    note_provider(p, end);
    long questions = asked(p->place);
    bool lost = token_was_lost(p->place);
    run_guarded(judged, p, judge_end);
    end_hung(&hung);
    check_status(p);
    answer(p, end, judge_end, questions, lost);
    remove_tree(p->place);
}

static void serve(const char *base, const char *work)
{
    char line[256];
    hurry = 50;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        point p = {.work = work};
        must(parse(line, &p), "no such point: %s", line);
        run_point(&p, base);
    }
}

/* ---- many processes at once ------------------------------------------------------------------ */

static void load_at_gate(const char *place, int gate)
{
    char byte;
    int result = 0;
    context c = {.place = place, .ask = ask_and_answer};
    must(tpks_config_load(in_place(place, "keystore.cnf"), &c.config) == TPKS_OK, "configuration");
    must(read(gate, &byte, 1) == 0, "waiting at the gate");
    tpks_result loaded = operation_find("load")(&c);
    if (loaded != TPKS_OK)
        fprintf(stderr, "a process ends with %s: %s\n", tpks_result_name(loaded),
                tpks_error_text());
    if (loaded != TPKS_OK || c.wrong_key)
        result = 1;
    tpks_config_free(c.config);
    exit(result);
}

/* How many of `count` processes that start together did not get the key. */
static unsigned start_together(const char *place, unsigned count)
{
    int gate[2], status = 0;
    unsigned failed = 0;
    must(pipe(gate) == 0, "pipe");
    fflush(NULL);
    for (unsigned i = 0; i < count; i++) {
        pid_t pid = fork();
        must(pid != -1, "fork");
        if (pid == 0) {
            close(gate[1]);
            load_at_gate(place, gate[0]);
        }
    }
    close(gate[0]);
    close(gate[1]);
    for (unsigned i = 0; i < count; i++) {
        must(wait(&status) > 0, "wait");
        failed += status != 0;
    }
    return failed;
}

static tpks_result count_active(void *arg, const tpks_slot_info *slot)
{
    *(unsigned *)arg += slot->cka_id != NULL && strcmp(slot->state, "active") == 0;
    return TPKS_OK;
}

static unsigned active_slots(const char *place)
{
    unsigned active = 0;
    TPKS *ks = NULL;
    context c = {.place = place};
    must(tpks_config_load(in_place(place, "keystore.cnf"), &c.config) == TPKS_OK, "configuration");
    tpks_options options = options_of(&c, TPKS_LOAD);
    must(tpks_open(&options, &ks) == TPKS_OK &&
             tpks_each_slot(ks, count_active, &active) == TPKS_OK,
         "reading the slots");
    tpks_close(ks);
    tpks_config_free(c.config);
    return active;
}

static void fresh_place(const char *base, const char *kind, const char *work, char *place)
{
    snprintf(place, PATH_ROOM, "%s", in_place(work, "stampede"));
    copy_tree(in_place(base, kind), place);
    use_place(place);
    write_configuration(place, "auto/load", getenv("FAULT_MODULE"));
}

static int verdict(const char *what, bool good, unsigned failed, long questions, unsigned active)
{
    printf("%s  %s: %u failed, %ld questions, %u active slots\n", good ? "ok  " : "FAIL", what,
           failed, questions, active);
    fflush(stdout);
    return good ? 0 : 1;
}

static int stampede(const char *base, const char *work, unsigned rounds, unsigned processes)
{
    char place[PATH_ROOM], what[64];
    int bad = 0;
    for (unsigned i = 1; i <= rounds; i++) {
        fresh_place(base, "lost", work, place);
        unsigned failed = start_together(place, processes);
        unsigned active = active_slots(place);
        long questions = asked(place);
        snprintf(what, sizeof(what), "round %u: %u processes without a KEK", i, processes);
        bad +=
            verdict(what, failed == 0 && questions == 1 && active == 1, failed, questions, active);
        remove_tree(place);
    }
    return bad == 0 ? 0 : 1;
}

static int starts(const char *base, const char *work, unsigned count, unsigned processes)
{
    char place[PATH_ROOM], what[64];
    unsigned failed = 0;
    fresh_place(base, "full", work, place);
    for (unsigned i = 0; i < count; i += processes)
        failed += start_together(place, processes);
    unsigned active = active_slots(place);
    long questions = asked(place);
    snprintf(what, sizeof(what), "%u starts, %u at once, with the KEK", count, processes);
    int bad =
        verdict(what, failed == 0 && questions == 0 && active == 1, failed, questions, active);
    remove_tree(place);
    return bad;
}

int main(int argc, char **argv)
{
    const char *command = argc > 3 ? argv[1] : "";
    unsigned count = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
    unsigned processes = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) : 0;
    must(getenv("FAULT_MODULE") != NULL && getenv("FAULT_SHIM") != NULL,
         "FAULT_MODULE and FAULT_SHIM are needed");
    setenv("JUDGE_MODULE", getenv("FAULT_MODULE"), 1);
    if (strcmp(command, "make") == 0)
        make_bases(argv[2], argv[3]);
    else if (strcmp(command, "serve") == 0)
        serve(argv[2], argv[3]);
    else if (strcmp(command, "stampede") == 0 && processes > 0)
        return stampede(argv[2], argv[3], count, processes);
    else if (strcmp(command, "starts") == 0 && processes > 0)
        return starts(argv[2], argv[3], count, processes);
    else
        must(false, "usage: driver make|serve|stampede|starts ...");
    return 0;
}
