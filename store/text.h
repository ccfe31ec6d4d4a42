/*
 * text.h - UTF-8 (RFC 3629) that comes from outside: names, passwords, messages
 *
 * All functions here may be called by any thread at any time; none allocates.
 */
#ifndef TRUSTPOINT_TEXT_H
#define TRUSTPOINT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Reads one character of at most `size` bytes at `text` into *character. Returns how many bytes it
 * has, 0 when they are not well-formed UTF-8 (overlong, surrogate, beyond U+10FFFF, cut off).
 */
size_t text_next(const char *text, size_t size, unsigned long *character);

/* A control character: C0, DEL or C1 (Unicode general category Cc). */
bool text_is_control(unsigned long character);

/* What Python's str.strip() leaves of the text: its start, and *left its size. */
const char *text_strip(const char *text, size_t size, size_t *left);

/* Makes a letter A to Z small, whatever the program's locale says. */
char text_lower(char byte);

/* Counts the characters of `size` bytes. False: not UTF-8, or a control character is among them. */
bool text_count(const char *text, size_t size, size_t *characters);

/*
 * Copies the NUL-terminated `text` to `out` (NUL-terminated, at most `size` bytes with it, cut
 * between characters), with everything as \xNN that could disturb a terminal or a log: control
 * characters, bytes that are not UTF-8, line separators, marks that reverse the direction of text.
 */
void text_escape(const char *text, char *out, size_t size);
/* The same for text between double quotes: quotes and backslashes as \xNN too. */
void text_quote(const char *text, char *out, size_t size);

#endif
