/*
 * fault.h - what the fault tests share: places to work in, operations, judgement, killing
 *
 * A place is a folder with everything that a keystore needs (token, database, state, PIN, password,
 * configuration), so that a copy of it is independent. Paths have room for PATH_ROOM bytes.
 */
#ifndef TRUSTPOINT_FAULT_H
#define TRUSTPOINT_FAULT_H

#include <stdbool.h>
#include <stdio.h>

#include "keystore.h"

#define PATH_ROOM 512
#define PIN "123456"
#define PASSWORD "correct horse battery staple"
#define NEW_PASSWORD "another horse, another battery"
#define EXTRA_PASSWORD "a third horse in the stable"
#define TOKEN_LABEL "fault"

/* Ends the program with a message unless `good`: the test itself is broken, not what it tests. */
void must(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- place.c ---- */

/* PLACE/NAME, valid until the eighth next call. */
const char *in_place(const char *place, const char *name);
void write_text(const char *path, const char *text);
void write_bytes(const char *path, const void *data, size_t size);
/* The content of a file, NUL-terminated; free() it. */
char *read_all(const char *path, size_t *size);
void copy_tree(const char *from, const char *to);
void remove_tree(const char *path);
/* How the keystore of a place is used: "dek/hsm-session", such as "auto/load". */
void write_configuration(const char *place, const char *variant, const char *module);
/* SOFTHSM2_CONF for this process and those that it starts. */
void use_place(const char *place);
/* A fresh token with TOKEN_LABEL and PIN; the older ones in the place are left alone. */
void init_token(const char *place);
/* Did SoftHSM lose the token: is there a token.object without content? */
bool token_was_lost(const char *place);
/* Runs a program and waits for it; its exit code, or 128 + signal. Output goes to `log`. */
int run_program(const char *log, const char *const *arguments);

/* ---- operation.c ---- */

/* What an operation needs besides its place. */
typedef struct context {
    const char *place;
    const char *openssl_conf; /* for the operation `provider` */
    TPKS_CONFIG *config;
    tpks_ask_fn *ask;
    bool wrong_key; /* a key came out that is not the one that went in */
} context;

typedef tpks_result operation_fn(context *c);
/* NULL: no such operation. */
operation_fn *operation_find(const char *name);

/* Appends a byte to PLACE/asked (O_APPEND) and gives PASSWORD, or refuses. `arg` is the place. */
int ask_and_answer(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                   size_t *length);
int ask_and_refuse(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                   size_t *length);
/* How many questions were asked. */
long asked(const char *place);

tpks_options options_of(const context *c, tpks_access access);
TPKS_SECRET *secret_from(const char *text);
/* Loads the record and compares it with the key that went in (PLACE/NAME.der). */
tpks_result load_and_compare(context *c, TPKS *ks, const char *name);
/* Makes the starting points BASE/empty, full, lost, rotated. */
void make_bases(const char *base, const char *module);
/* Destroys every KEK on the token of the place, as a careless administrator would. */
void lose_keks(const char *place);
/* The CKA_IDs of all secret and private keys on the token, 16 bytes each; how many. */
typedef struct key_ids {
    size_t count;
    unsigned char id[32][TPKS_ID_SIZE];
} key_ids;
void list_keks(const char *module, key_ids *out);

/* ---- judge.c ---- */

/*
 * After the fault: brings the keystore of the place back to work as its owner would (the same
 * operation again, or a restore) and writes one line for each thing that is wrong to `out`.
 * `result` is what the disturbed operation said, or NULL when it was killed.
 */
void judge(context *c, const char *operation, const char *result, FILE *out);

/* ---- killer.c ---- */

/*
 * Runs `work(arg)` in a child and kills it with SIGKILL as it enters its `at`th system call that
 * changes a file or makes it durable (0: never). Returns how many such calls it began; *status is
 * waitpid's. Their names are appended to `names` unless it is NULL.
 */
long run_and_kill(void (*work)(void *), void *arg, long at, int *status, FILE *names);

#endif
