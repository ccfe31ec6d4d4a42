/*
 * config.c - the configuration file, parsed strictly
 *
 * OpenSSL's CONF syntax (config(5ossl)), read line by line so that each message can say where.
 * What CONF does silently and nobody expects in a file of URIs is refused: cutting a value at a
 * '#', variables, escapes, quotes, includes, a second value that replaces the first.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/conf.h>
#include <openssl/crypto.h>

#include "error.h"
#include "hsm.h"
#include "text.h"

#ifndef TPKS_CONFDIR
#define TPKS_CONFDIR "/etc/trustpoint"
#endif
#ifndef TPKS_STATEDIR
#define TPKS_STATEDIR "/var/lib/trustpoint"
#endif

#define FILE_MAX 65536
#define SECTION "keystore"
#define SECTION_PREFIX SECTION "_"
#define BLANKS " \t\r"
#define LIST_SEPARATORS ", \t"

enum { STORE, TOKEN, DEK, HSM_SESSION, RESTORE, ALLOW, DECRYPT, LOG, STATE, DIRECTIVE_COUNT };

typedef struct section {
    char name[KEYSTORE_NAME_MAX + 1];
    char *values[DIRECTIVE_COUNT]; /* NULL: not set */
    char *default_store;
} section;

struct tpks_config {
    atomic_uint references;
    section *sections;
    size_t count;
};

const char *tpks_config_default_path(void)
{
    return TPKS_CONFDIR "/keystore.cnf";
}

bool config_keystore_name_ok(const char *name)
{
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    return size >= 1 && size <= KEYSTORE_NAME_MAX && name[size] == '\0';
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_absolute(const char *value, const char *prefix)
{
    size_t size = strlen(prefix);

    return strncmp(value, prefix, size) == 0 && value[size] == '/' && value[size + 1] != '\0';
}

static bool is_one_of(const char *value, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(value, *words) == 0)
            return true;
    return false;
}

/* A parameter, as libpq has password= and sslpassword=; not a name or path with that word in it. */
static bool sets_password(const char *value)
{
    static const char word[] = "password";

    while ((value = strcasestr(value, word)) != NULL) {
        value += sizeof(word) - 1;
        if (value[strspn(value, " \t")] == '=')
            return true;
    }
    return false;
}

static tpks_result check_store(const char *value)
{
    if (is_absolute(value, "sqlite:"))
        return TPKS_OK;
    if (strncmp(value, "postgresql:", 11) != 0 || value[11] == '\0')
        return fail(TPKS_BAD_CONFIG, "must be sqlite:/ABSOLUTE/PATH, or postgresql: and connection "
                                     "parameters such as service=trustpoint");
    if (sets_password(value))
        return fail(TPKS_BAD_CONFIG,
                    "a password must not stand here: put it into ~/.pgpass, into the file that "
                    "PGPASSFILE or passfile= names, or into a service file");
    return TPKS_OK;
}

static tpks_result check_token(const char *value)
{
    return hsm_check_uri(value);
}

static tpks_result check_dek(const char *value)
{
    static const char *const words[] = {"auto", "hsm", "process", NULL};

    return is_one_of(value, words) ? TPKS_OK
                                   : fail(TPKS_BAD_CONFIG, "must be auto, hsm or process");
}

static tpks_result check_session(const char *value)
{
    static const char *const words[] = {"load", "process", NULL};

    return is_one_of(value, words) ? TPKS_OK : fail(TPKS_BAD_CONFIG, "must be load or process");
}

/* Calls `check` with each item of a list; an empty list is none. */
static tpks_result check_list(const char *value, tpks_result (*check)(const char *item))
{
    char *copy = OPENSSL_strdup(value);
    char *rest = NULL;
    tpks_result result = TPKS_OK;
    char *item;

    if (copy == NULL)
        return fail_memory();
    item = strtok_r(copy, LIST_SEPARATORS, &rest);
    if (item == NULL)
        result = fail(TPKS_BAD_CONFIG, "has no value");
    for (; item != NULL && result == TPKS_OK; item = strtok_r(NULL, LIST_SEPARATORS, &rest))
        result = check(item);
    OPENSSL_free(copy);
    return result;
}

static tpks_result check_source(const char *item)
{
    static const char *const words[] = {"credential", "callback", "ask-password", "socket", NULL};

    if (is_one_of(item, words) || is_absolute(item, "file:"))
        return TPKS_OK;
    return fail(TPKS_BAD_CONFIG, "must be a list of credential, file:/ABSOLUTE/PATH, callback, "
                                 "ask-password and socket, or only the word no");
}

static tpks_result check_restore(const char *value)
{
    return strcmp(value, "no") == 0 ? TPKS_OK : check_list(value, check_source);
}

static tpks_result check_pattern(const char *item)
{
    return *item != '!' ? TPKS_OK
                        : fail(TPKS_BAD_CONFIG,
                               "has a pattern that starts with '!': patterns can only allow, so "
                               "list what is allowed");
}

static tpks_result check_patterns(const char *value)
{
    return check_list(value, check_pattern);
}

static tpks_result check_log(const char *value)
{
    static const char *const words[] = {"no", "syslog", NULL};

    return is_one_of(value, words) || is_absolute(value, "file:")
               ? TPKS_OK
               : fail(TPKS_BAD_CONFIG, "must be no, syslog or file:/ABSOLUTE/PATH");
}

static tpks_result check_state(const char *value)
{
    return is_absolute(value, "") ? TPKS_OK
                                  : fail(TPKS_BAD_CONFIG, "must be the absolute path of a folder");
}

static const struct directive {
    const char *name;
    const char *fallback; /* the default; NULL: none, or (store) one made for the section */
    tpks_result (*check)(const char *value);
} DIRECTIVES[DIRECTIVE_COUNT] = {
    [STORE] = {"store", NULL, check_store},
    [TOKEN] = {"token", NULL, check_token},
    [DEK] = {"dek", "auto", check_dek},
    [HSM_SESSION] = {"hsm-session", "load", check_session},
    [RESTORE] = {"restore", "credential, callback", check_restore},
    [ALLOW] = {"allow", "*", check_patterns},
    [DECRYPT] = {"decrypt", NULL, check_patterns},
    [LOG] = {"log", "no", check_log},
    [STATE] = {"state", TPKS_STATEDIR, check_state},
};

static int find_directive(const char *name)
{
    for (int i = 0; i < DIRECTIVE_COUNT; i++)
        if (strcmp(DIRECTIVES[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- sections -------------------------------------------------------------------------------- */

static section *find_section(const TPKS_CONFIG *config, const char *name)
{
    for (size_t i = 0; i < config->count; i++)
        if (strcmp(config->sections[i].name, name != NULL ? name : "") == 0)
            return &config->sections[i];
    return NULL;
}

/* "sqlite:STATE/keystore.db", or keystore_NAME.db: two keystores never share a file by default. */
static char *make_default_store(const char *name)
{
    static const char start[] = "sqlite:" TPKS_STATEDIR "/" SECTION;
    char *store = OPENSSL_malloc(sizeof(start) + KEYSTORE_NAME_MAX + sizeof("_.db"));
    char *end;

    if (store == NULL)
        return NULL;
    end = stpcpy(store, start);
    if (*name != '\0')
        end = stpcpy(stpcpy(end, "_"), name);
    strcpy(end, ".db");
    return store;
}

static tpks_result add_section(TPKS_CONFIG *config, const char *name)
{
    size_t size = (config->count + 1) * sizeof(section);
    section *grown = OPENSSL_realloc(config->sections, size);
    section *added;

    if (grown == NULL)
        return fail_memory();
    config->sections = grown;
    added = &grown[config->count];
    *added = (section){.default_store = make_default_store(name)};
    if (added->default_store == NULL)
        return fail_memory();
    OPENSSL_strlcpy(added->name, name, sizeof(added->name));
    config->count++;
    return TPKS_OK;
}

/* `title` is what stands between the brackets. */
static tpks_result open_section(TPKS_CONFIG *config, const char *title)
{
    size_t prefix = strlen(SECTION_PREFIX);
    const char *name = "";

    if (strncmp(title, SECTION_PREFIX, prefix) == 0 && config_keystore_name_ok(title + prefix))
        name = title + prefix;
    else if (strcmp(title, SECTION) != 0)
        return fail(TPKS_BAD_CONFIG,
                    "[%s]: unknown section; known are [" SECTION "] and [" SECTION_PREFIX
                    "NAME], where NAME is 1 to %d of a-z, 0-9, '_', '-'",
                    title, KEYSTORE_NAME_MAX);
    if (find_section(config, name) != NULL)
        return fail(TPKS_BAD_CONFIG, "[%s]: the section is there twice: join the two", title);
    return add_section(config, name);
}

static tpks_result set_directive(section *into, const char *name, const char *value)
{
    int i = find_directive(name);

    if (i < 0)
        return fail(TPKS_BAD_CONFIG, "unknown directive; known are store, token, dek, hsm-session, "
                                     "restore, allow, decrypt, log and state");
    if (into->values[i] != NULL)
        return fail(TPKS_BAD_CONFIG, "the directive is there twice: leave one");
    if (*value == '\0')
        return fail(TPKS_BAD_CONFIG, "has no value: give it one or remove the line");
    TRY(DIRECTIVES[i].check(value));
    into->values[i] = OPENSSL_strdup(value);
    return into->values[i] != NULL ? TPKS_OK : fail_memory();
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void free_conf(CONF **conf)
{
    NCONF_free(*conf);
}

static void free_bio(BIO **bio)
{
    BIO_free(*bio);
}

/* The one value of what was read; CONF puts it into a section "default" of its own. NULL: not one.
 */
static const CONF_VALUE *only_value(const CONF *conf)
{
    STACK_OF(CONF_VALUE) *values = NCONF_get_section(conf, "default");
    const CONF_VALUE *value = NULL;

    if (values != NULL && sk_CONF_VALUE_num(values) == 1)
        value = sk_CONF_VALUE_value(values, 0);
    return value != NULL && *value->name != '\0' ? value : NULL;
}

static tpks_result parse_directive(section *into, const char *line)
{
    __attribute__((cleanup(free_conf))) CONF *conf = NCONF_new(NULL);
    __attribute__((cleanup(free_bio))) BIO *bio = BIO_new_mem_buf(line, -1);
    const CONF_VALUE *value;
    long at = 0;

    if (conf == NULL || bio == NULL)
        return fail_memory();
    if (NCONF_load_bio(conf, bio, &at) <= 0)
        return fail_crypto(TPKS_BAD_CONFIG, "not `directive = value`");
    value = only_value(conf);
    if (value == NULL)
        return fail(TPKS_BAD_CONFIG, "not `directive = value`");
    return fail_in(set_directive(into, value->name, value->value), "[" SECTION "%s%s] %s",
                   *into->name != '\0' ? "_" : "", into->name, value->name);
}

/* Cuts off the comment; a '#' inside a value would start one that nobody meant. */
static tpks_result cut_comment(char *line)
{
    char *hash = strchr(line, '#');

    if (hash == NULL)
        return TPKS_OK;
    if (hash > line && strchr(BLANKS, hash[-1]) == NULL)
        return fail(TPKS_BAD_CONFIG, "a '#' starts a comment even in a value: write %%23 in a URI, "
                                     "or put a space before the comment");
    *hash = '\0';
    return TPKS_OK;
}

static char *trim(char *line)
{
    char *end;

    line += strspn(line, BLANKS);
    end = line + strlen(line);
    while (end > line && strchr(BLANKS, end[-1]) != NULL)
        end--;
    *end = '\0';
    return line;
}

static tpks_result check_characters(const char *line)
{
    static const char refused[] = "$\\\"'`";
    const char *found = strpbrk(line, refused);

    if (*line == '.')
        return fail(TPKS_BAD_CONFIG, "includes and pragmas are not allowed: write everything into "
                                     "this file");
    if (found != NULL)
        return fail(TPKS_BAD_CONFIG,
                    "the character %c is not allowed: write %%%02X in a URI, and "
                    "choose paths without it",
                    *found, (unsigned)*found);
    for (const char *at = line; *at != '\0';) {
        unsigned long character;
        size_t used = text_next(at, strlen(at), &character);

        if (used == 0 || (text_is_control(character) && character != '\t'))
            return fail(TPKS_BAD_CONFIG, "has a control character or is not UTF-8");
        at += used;
    }
    return TPKS_OK;
}

static tpks_result parse_header(TPKS_CONFIG *config, char *line)
{
    size_t size = strlen(line);

    if (line[size - 1] != ']')
        return fail(TPKS_BAD_CONFIG, "a section must be written [NAME]");
    line[size - 1] = '\0';
    return open_section(config, trim(line + 1));
}

static tpks_result parse_line(TPKS_CONFIG *config, char *line)
{
    TRY(cut_comment(line));
    line = trim(line);
    if (*line == '\0')
        return TPKS_OK;
    TRY(check_characters(line));
    if (*line == '[')
        return parse_header(config, line);
    if (config->count == 0)
        return fail(TPKS_BAD_CONFIG, "stands before the first section, where it would hold for all "
                                     "of them: put it under [" SECTION "]");
    return parse_directive(&config->sections[config->count - 1], line);
}

static tpks_result parse(TPKS_CONFIG *config, char *text)
{
    size_t number = 1;

    for (char *line = text; line != NULL; number++) {
        char *end = strchr(line, '\n');
        tpks_result result;

        if (end != NULL)
            *end++ = '\0';
        result = parse_line(config, line);
        if (result != TPKS_OK)
            return fail_in(result, "line %zu", number);
        line = end;
    }
    if (config->count == 0)
        return fail(TPKS_BAD_CONFIG,
                    "has no section [" SECTION "]: run `trustpoint-keystore init`");
    return TPKS_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static tpks_result open_file(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (*fd >= 0)
        return TPKS_OK;
    if (errno == ENOENT || errno == ENOTDIR)
        return fail(TPKS_BAD_CONFIG,
                    "the configuration file is missing; `trustpoint-keystore init` makes one");
    return fail(errno == EACCES || errno == EPERM ? TPKS_NOT_PERMITTED : TPKS_BAD_CONFIG,
                "can't open the configuration file as user %lu: %s", (unsigned long)geteuid(),
                strerror(errno));
}

/* Who can write it chooses the module that is loaded into this process. */
static tpks_result check_writers(int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return fail(TPKS_BAD_CONFIG, "not a regular file");
    if (status.st_uid != 0 && status.st_uid != geteuid())
        return fail(TPKS_NOT_PERMITTED,
                    "belongs to user %lu, who is neither root nor the user %lu of this program; "
                    "run: chown root %s",
                    (unsigned long)status.st_uid, (unsigned long)geteuid(), path);
    if ((status.st_mode & S_IWOTH) != 0 || ((status.st_mode & S_IWGRP) != 0 && status.st_gid != 0))
        return fail(TPKS_NOT_PERMITTED, "mode %04o lets others change it; run: chmod go-w %s",
                    (unsigned)(status.st_mode & 07777), path);
    return TPKS_OK;
}

/* `text` has room for FILE_MAX bytes and a NUL. */
static tpks_result read_file(int fd, char *text)
{
    size_t size = 0;

    while (size <= FILE_MAX) {
        ssize_t got = read(fd, text + size, FILE_MAX + 1 - size);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(TPKS_BAD_CONFIG, "can't read: %s", strerror(errno));
        if (got == 0)
            break;
        size += (size_t)got;
    }
    if (size > FILE_MAX)
        return fail(TPKS_BAD_CONFIG, "longer than %d bytes", FILE_MAX);
    text[size] = '\0';
    if (strlen(text) != size)
        return fail(TPKS_BAD_CONFIG, "has a NUL byte, so it is not a text file");
    return TPKS_OK;
}

static tpks_result load(TPKS_CONFIG *config, const char *path)
{
    __attribute__((cleanup(close_fd))) int fd = -1;
    char *text = OPENSSL_malloc(FILE_MAX + 1);
    tpks_result result;

    if (text == NULL)
        return fail_memory();
    result = open_file(path, &fd);
    if (result == TPKS_OK)
        result = check_writers(fd, path);
    if (result == TPKS_OK)
        result = read_file(fd, text);
    if (result == TPKS_OK)
        result = parse(config, text);
    OPENSSL_free(text);
    return result;
}

tpks_result tpks_config_load(const char *path, TPKS_CONFIG **out)
{
    CRYPTO_SCOPE;
    const char *file = path != NULL ? path : tpks_config_default_path();
    TPKS_CONFIG *config = OPENSSL_zalloc(sizeof(*config));
    tpks_result result;

    if (config == NULL)
        return fail_memory();
    atomic_init(&config->references, 1);
    config->references = 1;
    result = load(config, file);
    if (result == TPKS_OK)
        *out = config;
    else
        tpks_config_free(config);
    return fail_in(result, "%s", file);
}

TPKS_CONFIG *config_up_ref(const TPKS_CONFIG *config)
{
    TPKS_CONFIG *shared = (TPKS_CONFIG *)config; /* only the counter changes */

    atomic_fetch_add(&shared->references, 1);
    return shared;
}

void tpks_config_free(TPKS_CONFIG *config)
{
    if (config == NULL || atomic_fetch_sub(&config->references, 1) != 1)
        return;
    for (size_t i = 0; i < config->count; i++) {
        for (int j = 0; j < DIRECTIVE_COUNT; j++)
            OPENSSL_free(config->sections[i].values[j]);
        OPENSSL_free(config->sections[i].default_store);
    }
    OPENSSL_free(config->sections);
    OPENSSL_free(config);
}

/* ---- questions ------------------------------------------------------------------------------- */

size_t tpks_config_count(const TPKS_CONFIG *config)
{
    return config->count;
}

const char *tpks_config_name(const TPKS_CONFIG *config, size_t i)
{
    return i < config->count ? config->sections[i].name : NULL;
}

const char *tpks_config_get(const TPKS_CONFIG *config, const char *keystore, const char *directive)
{
    const section *from = find_section(config, keystore);
    int i = find_directive(directive);

    if (from == NULL || i < 0)
        return NULL;
    if (from->values[i] != NULL)
        return from->values[i];
    return i == STORE ? from->default_store : DIRECTIVES[i].fallback;
}

/* Does one of the directive's patterns fit the name? */
static bool covers(const TPKS_CONFIG *config, const char *keystore, const char *directive,
                   const char *name)
{
    const char *patterns = tpks_config_get(config, keystore, directive);
    char *copy = patterns != NULL ? OPENSSL_strdup(patterns) : NULL;
    char *rest = NULL;
    bool covered = false;

    if (copy == NULL)
        return false;
    for (char *item = strtok_r(copy, LIST_SEPARATORS, &rest); item != NULL && !covered;
         item = strtok_r(NULL, LIST_SEPARATORS, &rest))
        covered = fnmatch(item, name, FNM_NOESCAPE) == 0;
    OPENSSL_free(copy);
    return covered;
}

bool config_allows(const TPKS_CONFIG *config, const char *keystore, const char *name)
{
    return covers(config, keystore, "allow", name);
}

bool config_lets_decrypt(const TPKS_CONFIG *config, const char *keystore, const char *name)
{
    return covers(config, keystore, "decrypt", name);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool config_same(const TPKS_CONFIG *a, const TPKS_CONFIG *b, const char *keystore)
{
    const section *one = find_section(a, keystore), *other = find_section(b, keystore);

    if (one == NULL || other == NULL)
        return false;
    for (int i = 0; i < DIRECTIVE_COUNT; i++)
        if (!same_text(one->values[i], other->values[i]))
            return false;
    return true;
}
