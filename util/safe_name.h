/*
 * safe_name.h - names of records as names of files
 */
#ifndef TRUSTPOINT_UTIL_SAFE_NAME_H
#define TRUSTPOINT_UTIL_SAFE_NAME_H

/*
 * A file name that stands unquoted in shells, in the configuration of servers and in units of
 * systemd: A-Z a-z 0-9 - _ and . (not in front) stand for themselves, every other byte is '=' with
 * two hexadecimal digits ("ca/Süd" is "ca=2FS=C3=BCd"). So is the first byte of the end `reserved`:
 * no name gives one that ends so. No two names give the same: where that would be too long for a
 * file, the end is '=.' and 32 digits of the name's SHA-256. At most 160 bytes. Free with free();
 * NULL: no memory.
 */
char *safe_name(const char *name, const char *reserved);

#endif
