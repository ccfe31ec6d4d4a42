/*
 * killer.c - a process that dies as it begins a chosen system call
 *
 * A seccomp filter makes the kernel stop the child at the system calls that change files or make
 * them durable, and only there; the parent counts the stops (ptrace) and kills it at the chosen
 * one, before that call has any effect.
 */
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>

static const struct {
    int number;
    const char *name;
} watched[] = {
    {SYS_write, "write"},         {SYS_writev, "writev"},       {SYS_pwrite64, "pwrite64"},
    {SYS_ftruncate, "ftruncate"}, {SYS_fsync, "fsync"},         {SYS_fdatasync, "fdatasync"},
#ifdef SYS_rename
    {SYS_rename, "rename"},       {SYS_unlink, "unlink"},       {SYS_mkdir, "mkdir"},
#endif
    {SYS_renameat, "renameat"},   {SYS_renameat2, "renameat2"}, {SYS_unlinkat, "unlinkat"},
    {SYS_mkdirat, "mkdirat"},
};
#define WATCHED (sizeof(watched) / sizeof(watched[0]))

static void install_filter(void)
{
    struct sock_filter code[2 * WATCHED + 2];
    struct sock_fprog program = {.len = 0, .filter = code};
    code[program.len++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < WATCHED; i++) {
        code[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                           (unsigned)watched[i].number, 0, 1);
        code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(71);
}

static void child(void (*work)(void *), void *arg)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(71);
    raise(SIGSTOP);
    install_filter();
    work(arg);
    exit(0);
}

static void note_name(pid_t pid, FILE *names)
{
    struct ptrace_syscall_info info = {0};
    if (names == NULL)
        return;
    must(ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) > 0, "ptrace: info");
    for (size_t i = 0; i < WATCHED; i++)
        if (watched[i].number == (int)info.seccomp.nr)
            fprintf(names, "%s\n", watched[i].name);
}

static bool is_watched_call(int status)
{
    return status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
}

long run_and_kill(void (*work)(void *), void *arg, long at, int *status, FILE *names)
{
    long calls = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(work, arg);
    must(pid > 0 && waitpid(pid, status, 0) == pid && WIFSTOPPED(*status), "starting a child");
    must(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL) == 0,
         "ptrace: options");
    int signal = 0;
    for (;;) {
        must(ptrace(PTRACE_CONT, pid, NULL, signal) == 0 || errno == ESRCH, "ptrace: continue");
        must(waitpid(pid, status, 0) == pid, "waiting for a child");
        if (!WIFSTOPPED(*status))
            return calls;
        signal = is_watched_call(*status) ? 0 : WSTOPSIG(*status);
        if (!is_watched_call(*status))
            continue;
        note_name(pid, names);
        if (++calls == at)
            kill(pid, SIGKILL);
    }
}
