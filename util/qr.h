/*
 * qr.h - a text as a QR code in the terminal
 *
 * Drawn with libqrencode, which is looked for at run time: who wants no QR code needs no such
 * library. Two modules stand above each other in one character, as Unicode half blocks.
 */
#ifndef TRUSTPOINT_UTIL_QR_H
#define TRUSTPOINT_UTIL_QR_H

#include "command.h"

/* Says what to install when the library is not there: EX_UNAVAILABLE. To be asked before anything
 * is made whose QR code is wanted. */
int qr_check(void);
/*
 * Prints a secret text of digits, letters and "$%*+-./:" on standard output, with capital letters:
 * a smaller code. Black on white where standard output is a terminal, else without colours. The
 * code is wiped from this process's memory as far as libqrencode lets us.
 */
int qr_print(const TPKS_SECRET *text);

#endif
