/*
 * doctor_finding.c - findings of `doctor`, and child processes that make them
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"

/* Longer than any HSM needs for a login, shorter than an operator's patience. */
#define CHILD_SECONDS 120

static const char *const levels[] = {"ok", "warning", "problem"};

static void print_text(struct json_object *object)
{
    const char *todo = json_object_get_string(json_object_object_get(object, "todo"));

    output_column(stdout, json_object_get_string(json_object_object_get(object, "level")), 9);
    output_escaped(stdout, json_object_get_string(json_object_object_get(object, "thing")));
    fputs(": ", stdout);
    output_escaped(stdout, json_object_get_string(json_object_object_get(object, "reason")));
    if (todo != NULL) {
        fputs("\n         -> ", stdout);
        output_escaped(stdout, todo);
    }
    putchar('\n');
    json_object_put(object);
}

/* Takes the object over. */
static void show(FINDINGS *findings, struct json_object *object)
{
    const char *level = json_object_get_string(json_object_object_get(object, "level"));

    if (level != NULL && strcmp(level, levels[FINDING_PROBLEM]) == 0)
        findings->problems++;
    if (findings->to_parent != NULL) {
        fprintf(findings->to_parent, "%s\n",
                json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
        json_object_put(object);
    } else if (findings->json) {
        output_json_element(&findings->stream, object);
    } else {
        print_text(object);
    }
}

void finding(FINDINGS *findings, finding_level level, const char *thing, const char *todo,
             const char *format, ...)
{
    struct json_object *object = json_object_new_object();
    char *why = NULL;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&why, format, arguments) < 0)
        why = NULL;
    va_end(arguments);
    json_add_text(object, "level", levels[level]);
    json_add_text(object, "thing", thing);
    json_add_text(object, "reason", why != NULL ? why : "out of memory");
    json_add_text(object, "todo", todo);
    free(why);
    show(findings, object);
}

/* ---- children ----------------------------------------------------------------------------------
 */

/* Gives every right of the present user up. */
static bool become(const char *user)
{
    const struct passwd *entry = getpwnam(user);

    return entry != NULL && initgroups(user, entry->pw_gid) == 0 && setgid(entry->pw_gid) == 0 &&
           setuid(entry->pw_uid) == 0 && setenv("HOME", entry->pw_dir, 1) == 0;
}

/* Leaves without exit handlers: those of an HSM module may hang. */
static void __attribute__((noreturn))
run_child(APP *app, bool json, const char *user, check_fn *check, int fd)
{
    FINDINGS findings = {.json = json, .to_parent = fdopen(fd, "w")};

    alarm(CHILD_SECONDS);
    if (findings.to_parent == NULL)
        _exit(1);
    if (user != NULL && !become(user))
        finding(&findings, FINDING_PROBLEM, user, "run doctor --as as root",
                "cannot become this user: %s", strerror(errno));
    else
        check(app, &findings);
    fflush(findings.to_parent);
    _exit(0);
}

static void read_findings(FINDINGS *findings, int fd)
{
    FILE *from_child = fdopen(fd, "r");
    char *line = NULL;
    size_t size = 0;

    while (from_child != NULL && getline(&line, &size, from_child) > 0) {
        struct json_object *object = json_tokener_parse(line);

        if (object != NULL)
            show(findings, object);
    }
    free(line);
    if (from_child != NULL)
        fclose(from_child);
    else
        close(fd);
}

static void judge_end(FINDINGS *findings, const char *thing, pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        finding(findings, FINDING_PROBLEM, thing,
                "look at the HSM and the providers of openssl.cnf", "did not end within %d seconds",
                CHILD_SECONDS);
    else if (WIFSIGNALED(status))
        finding(findings, FINDING_PROBLEM, thing,
                "look at the HSM and the providers of openssl.cnf", "crashed: %s",
                strsignal(WTERMSIG(status)));
}

void doctor_in_child(APP *app, FINDINGS *findings, const char *thing, const char *user,
                     check_fn *check)
{
    int ends[2];
    pid_t pid;

    fflush(stdout);
    if (pipe(ends) != 0 || (pid = fork()) < 0) {
        finding(findings, FINDING_PROBLEM, thing, "free some memory or processes",
                "cannot be checked: %s", strerror(errno));
        return;
    }
    if (pid == 0) {
        close(ends[0]);
        run_child(app, findings->json, user, check, ends[1]);
    }
    close(ends[1]);
    read_findings(findings, ends[0]);
    judge_end(findings, thing, pid);
}
