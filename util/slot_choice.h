/*
 * slot_choice.h - which slot is meant: by the start of its id, as `slots` prints it
 */
#ifndef TRUSTPOINT_UTIL_SLOT_CHOICE_H
#define TRUSTPOINT_UTIL_SLOT_CHOICE_H

#include "command.h"

/* The one slot whose id begins with these hex digits (4 to 32). EX_NOINPUT, EX_USAGE. */
int slot_by_prefix(APP *app, const char *prefix, unsigned char id[TPKS_ID_SIZE]);
/* The one active slot of this kind; EX_USAGE when there are several: one has to be named. */
int slot_of_kind(APP *app, const char *kind, unsigned char id[TPKS_ID_SIZE]);

#endif
