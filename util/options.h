/*
 * options.h - options of a command, described once for parsing and for --help
 */
#ifndef TRUSTPOINT_UTIL_OPTIONS_H
#define TRUSTPOINT_UTIL_OPTIONS_H

#include "command.h"

typedef enum option_kind {
    OPTION_FLAG,  /* target is a bool */
    OPTION_TEXT,  /* target is a const char *; the value is borrowed from argv */
    OPTION_NUMBER /* target is an unsigned long: decimal digits only, at most INT_MAX */
} option_kind;

typedef struct option_spec {
    const char *name;
    option_kind kind;
    void *target;
    const char *argument; /* what --help calls the value; NULL for a flag */
    const char *help;
} option_spec;

/* A command as --help shows it. `options` ends with an entry without name, or is NULL. */
typedef struct command_usage {
    const char *command;
    const char *arguments;
    const char *summary;
    const option_spec *options;
    int min; /* how many arguments it takes */
    int max;
} command_usage;

#define MANY 1000000 /* command_usage.max of a command that takes any number of arguments */

/*
 * Parses the options of a command and the global ones, in any order with the arguments; "--" ends
 * them. Names must be written out. *arguments points into argv, *count says how many there are.
 * --help and --version print and end the process.
 */
int options_parse(APP *app, const command_usage *usage, int argc, char **argv, char ***arguments,
                  int *count);
/* Parses the global options that stand before the command; *next is the index of the command. */
int options_parse_global(APP *app, int argc, char **argv, int *next);
/*
 * Everything behind --hook belongs to the program that is to be run: *hook is its NULL-terminated
 * argv, NULL without --hook; *argc becomes the number of the words before.
 */
int options_split_hook(int *argc, char **argv, char *const **hook);

#endif
