/*
 * options.c - options of a command, described once for parsing and for --help
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"

#define MAX_OPTIONS 32

enum { IS_HELP = 1000, IS_VERSION };

/* The options of one command line: its own, then the global ones. */
typedef struct option_set {
    const option_spec *specs[MAX_OPTIONS];
    struct option longopts[MAX_OPTIONS + 3];
    size_t count;
} option_set;

static void add_specs(option_set *set, const option_spec *specs)
{
    for (; specs != NULL && specs->name != NULL && set->count < MAX_OPTIONS; specs++) {
        set->longopts[set->count] = (struct option){
            specs->name, specs->kind == OPTION_FLAG ? no_argument : required_argument, NULL,
            (int)set->count};
        set->specs[set->count++] = specs;
    }
}

static void end_specs(option_set *set)
{
    set->longopts[set->count] = (struct option){"help", no_argument, NULL, IS_HELP};
    set->longopts[set->count + 1] = (struct option){"version", no_argument, NULL, IS_VERSION};
    set->longopts[set->count + 2] = (struct option){NULL, 0, NULL, 0};
}

static int read_number(const option_spec *spec, const char *text)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > INT_MAX ||
        strspn(text, "0123456789") != strlen(text))
        return complain(EX_USAGE, "--%s needs a number, not \"%s\"", spec->name, text);
    *(unsigned long *)spec->target = value;
    return EX_OK;
}

static int take(const option_spec *spec, const char *value)
{
    if (spec->kind == OPTION_FLAG)
        *(bool *)spec->target = true;
    else if (spec->kind == OPTION_NUMBER)
        return read_number(spec, value);
    else
        *(const char **)spec->target = value;
    return EX_OK;
}

static void print_options(const option_spec *specs)
{
    for (; specs != NULL && specs->name != NULL; specs++) {
        char left[64];

        snprintf(left, sizeof(left), "--%s %s", specs->name,
                 specs->argument != NULL ? specs->argument : "");
        printf("  %-28s %s\n", left, specs->help);
    }
}

static void print_usage(const command_usage *usage, const option_spec *global)
{
    printf("Usage: " PROGRAM " %s [OPTIONS]%s%s\n%s\n\n", usage->command,
           *usage->arguments != '\0' ? " " : "", usage->arguments, usage->summary);
    if (usage->options != NULL && usage->options->name != NULL)
        printf("Options:\n");
    print_options(usage->options);
    printf("\nGlobal options:\n");
    print_options(global);
    printf("\nThe manual page " PROGRAM "(1) says more.\n");
}

static void print_version(void)
{
    printf(PROGRAM " %s\n", tpks_version());
}

/* Ends the process when all that was asked for is a text. */
static int take_number(int number, const option_set *set, const command_usage *usage,
                       const option_spec *global)
{
    if (number >= 0 && (size_t)number < set->count)
        return take(set->specs[number], optarg);
    if (number == IS_VERSION)
        print_version();
    else if (number == IS_HELP && *usage->command == '\0')
        print_overview();
    else if (number == IS_HELP)
        print_usage(usage, global);
    else
        return complain(EX_USAGE, "see " PROGRAM " %s%s--help", usage->command,
                        *usage->command != '\0' ? " " : "");
    exit(output_finish());
}

/*
 * getopt_long(3) takes any beginning of a name, and has just read `longopt`; but a long name that
 * is a safeguard must have been written out.
 */
static int check_written_out(const struct option *longopt, char **argv)
{
    bool apart = longopt->has_arg == required_argument && optarg == argv[optind - 1];
    const char *word = argv[optind - (apart ? 2 : 1)] + strlen("--");
    size_t length = strcspn(word, "=");

    if (length == strlen(longopt->name))
        return EX_OK;
    return complain(EX_USAGE, "there is no option --%.*s; --%s must be written out", (int)length,
                    word, longopt->name);
}

static int parse(const command_usage *usage, const option_spec *global, const char *shortopts,
                 int argc, char **argv)
{
    static char program[] = PROGRAM; /* what getopt calls us in its messages */
    option_set set = {.count = 0};
    int number, index = 0;

    add_specs(&set, usage->options);
    add_specs(&set, global);
    end_specs(&set);
    argv[0] = program;
    optind = 0;
    while ((number = getopt_long(argc, argv, shortopts, set.longopts, &index)) != -1) {
        if (number != '?')
            DO(check_written_out(&set.longopts[index], argv));
        DO(take_number(number, &set, usage, global));
    }
    return EX_OK;
}

#define GLOBAL_OPTIONS(app)                                                                        \
    {                                                                                              \
        {"config", OPTION_TEXT, &(app)->config_path, "FILE",                                       \
         "configuration file (else TRUSTPOINT_KEYSTORE_CONF or the default)"},                     \
            {"keystore", OPTION_TEXT, &(app)->keystore, "NAME", "section [keystore_NAME] of it"},  \
            {"password-file", OPTION_TEXT, &(app)->password_file, "FILE",                          \
             "unlock with the backup password in FILE instead of the HSM"},                        \
            {"password-fd", OPTION_NUMBER, &(app)->password_fd, "N",                               \
             "the same from descriptor N"},                                                        \
            {"accept-new-anchor", OPTION_FLAG, &(app)->accept_new_anchor, NULL,                    \
             "go on although this host remembers another state"},                                  \
            {NULL, OPTION_FLAG, NULL, NULL, NULL},                                                 \
    }

/* Whoever asked for JSON gets it also when a word before that was wrong. */
static void look_for_json(APP *app, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        app->json = app->json || strcmp(argv[i], "--json") == 0;
}

static bool knows_json(const APP *app, const option_spec *specs)
{
    for (; specs != NULL && specs->name != NULL; specs++)
        if (specs->target == &app->json)
            return true;
    return false;
}

int options_parse(APP *app, const command_usage *usage, int argc, char **argv, char ***arguments,
                  int *count)
{
    const option_spec global[] = GLOBAL_OPTIONS(app);
    int code = parse(usage, global, "", argc, argv);

    if (code != EX_OK && knows_json(app, usage->options))
        look_for_json(app, argc, argv);
    DO(code);
    *arguments = argv + optind;
    *count = argc - optind;
    if (*count >= usage->min && *count <= usage->max)
        return EX_OK;
    return complain(EX_USAGE, "%s: too %s arguments; usage: " PROGRAM " %s [OPTIONS] %s",
                    usage->command, *count < usage->min ? "few" : "many", usage->command,
                    usage->arguments);
}

int options_parse_global(APP *app, int argc, char **argv, int *next)
{
    const option_spec global[] = GLOBAL_OPTIONS(app);
    const command_usage usage = {.command = "", .arguments = "COMMAND", .summary = ""};

    int code = parse(&usage, global, "+", argc, argv);

    if (code != EX_OK)
        look_for_json(app, argc, argv);
    *next = optind;
    return code;
}

int options_split_hook(int *argc, char **argv, char *const **hook)
{
    *hook = NULL;
    for (int i = 1; i < *argc && *hook == NULL; i++) {
        if (strcmp(argv[i], "--hook") != 0)
            continue;
        *hook = argv + i + 1;
        *argc = i;
    }
    if (*hook != NULL && **hook == NULL)
        return complain(EX_USAGE, "--hook needs a program");
    return EX_OK;
}
