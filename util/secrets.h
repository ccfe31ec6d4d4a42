/*
 * secrets.h - where the command gets passwords and answers from
 *
 * From the terminal with echo off, from a file, or from an open descriptor; never from an
 * argument or the environment.
 */
#ifndef TRUSTPOINT_UTIL_SECRETS_H
#define TRUSTPOINT_UTIL_SECRETS_H

#include "command.h"

/* The longest password that is read: what keystore.h allows for a new one. */
#define SECRET_MAX 512

/* Is there a terminal to ask at? */
bool secrets_have_terminal(void);
/* Were --password-file or --password-fd given? */
bool secrets_given(const APP *app);
/* Reads what they name, once. */
int secrets_read_given(const APP *app, TPKS_SECRET **out);
/* Reads a secret from a file (`path` not NULL) or a descriptor. */
int secrets_read(const char *path, unsigned long fd, TPKS_SECRET **out);
/* Asks once. EX_NOPERM when nobody is there or nothing was entered. */
int secrets_prompt(const char *prompt, TPKS_SECRET **out);
/*
 * Asks twice for a new password, up to three times, until it is fit. With `optional` an empty
 * answer gives *out NULL and success.
 */
int secrets_prompt_new(const char *prompt, bool optional, TPKS_SECRET **out);
/* Shows the question and waits for the word "yes". EX_NOPERM for any other answer. */
int secrets_confirm(const char *question);
/* tpks_ask_fn for tpks_options: `arg` is the APP. */
int secrets_ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                size_t *length);

#endif
