/*
 * doctor.h - the checks of `doctor` and what they find
 */
#ifndef TRUSTPOINT_UTIL_DOCTOR_H
#define TRUSTPOINT_UTIL_DOCTOR_H

#include <stdio.h>

#include "command.h"
#include "output.h"

typedef enum finding_level { FINDING_OK, FINDING_WARNING, FINDING_PROBLEM } finding_level;

/* Where findings go: to stdout, or from a child process through a pipe to its parent. */
typedef struct findings {
    bool json;
    json_stream stream;
    FILE *to_parent; /* NULL in the parent */
    size_t problems;
} FINDINGS;

/* One finding: which thing, why (a format), what to do (NULL when nothing). */
void finding(FINDINGS *findings, finding_level level, const char *thing, const char *todo,
             const char *format, ...) __attribute__((format(printf, 5, 6)));

/* A group of checks. */
typedef void check_fn(APP *app, FINDINGS *findings);

/*
 * Runs checks in a child, which alone may load providers and HSM modules: one that crashes or
 * hangs becomes a finding about `thing`. With `user` the child runs as that user.
 */
void doctor_in_child(APP *app, FINDINGS *findings, const char *thing, const char *user,
                     check_fn *check);

check_fn doctor_config;       /* the configuration file; opens it for the other checks */
check_fn doctor_openssl_conf; /* openssl.cnf in effect, the provider module */
check_fn doctor_files;        /* modes, owners, devices, limits */
check_fn doctor_store;        /* database, unlocking, slots, certificates */
check_fn doctor_loadable;     /* what the present user could load */

#endif
