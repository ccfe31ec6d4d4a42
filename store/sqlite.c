/*
 * sqlite.c - the SQLite storage plugin
 *
 * A keystore is one SQLite file in rollback-journal mode, so that a program with no right but to
 * read the file can use it. What a reader trusts is the C library, not the file: no triggers,
 * views or extensions run, nothing is mapped into memory (a truncated file would be SIGBUS).
 *
 * POSIX file locks go with *any* close(2) of the file in the process (sqlite.org/howtocorrupt.html
 * section 2.2). Hence nothing here opens an existing database by itself: stat(2) is enough.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "backend.h"
#include "error.h" /* for TRY only: fail() is the library's, reached through the host */

#ifndef TPKS_SQLITE_WAIT_MS
#define TPKS_SQLITE_WAIT_MS 10000 /* for a lock of another process */
#endif

#define APPLICATION_ID 0x54504B53 /* "TPKS" */

enum {
    MAX_LENGTH = 4 * 1024 * 1024, /* of one value or row */
    MAX_IDLE = 24,                /* statements kept prepared */
    HOT_TRIES = 8,                /* before a journal is taken for that of a dead process */
    NAME_SIZE = 64
};

static const char read_mark[] = "PRAGMA application_id";

static const tpks_backend_host *host;

/* One prepared statement; kept for the next use of the same text. */
struct tpks_rows {
    struct tpks_rows *next;
    tpks_db *db;
    sqlite3_stmt *statement;
    bool running;
};

struct tpks_db {
    sqlite3 *sql;
    tpks_rows *statements; /* the last used first */
    tpks_db_mode mode;
    bool made; /* our new file, without a commit yet: removed by close */
    struct stat made_stat;
    int made_fd; /* held (flock(2)) while it is made, so that no other creation takes it over */
    pid_t pid;
    char *text;  /* of describe(); NULL until asked for */
    char path[]; /* absolute, the folder without symbolic links */
};

/* ---- small helpers --------------------------------------------------------------------------- */

static void put_errno_back(const int *saved)
{
    errno = *saved;
}

/* Programs look at errno after a key load that went well; what we do must not be seen there. */
#define KEEP_ERRNO int saved_errno __attribute__((cleanup(put_errno_back), unused)) = errno

static void free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *

static void close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static void close_sql(sqlite3 **sql)
{
    sqlite3_close(*sql);
}

static tpks_result no_memory(void)
{
    return host->fail(TPKS_NO_MEMORY, "out of memory");
}

typedef struct name_text {
    char text[NAME_SIZE];
} name_text;

static name_text user_name(uid_t uid)
{
    char buffer[1024];
    struct passwd entry, *found = NULL;
    name_text name;

    if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) == 0 && found != NULL)
        snprintf(name.text, sizeof(name.text), "%s", found->pw_name);
    else
        snprintf(name.text, sizeof(name.text), "%ju", (uintmax_t)uid);
    return name;
}

static name_text group_name(gid_t gid)
{
    char buffer[1024];
    struct group entry, *found = NULL;
    name_text name;

    if (getgrgid_r(gid, &entry, buffer, sizeof(buffer), &found) == 0 && found != NULL)
        snprintf(name.text, sizeof(name.text), "%s", found->gr_name);
    else
        snprintf(name.text, sizeof(name.text), "%ju", (uintmax_t)gid);
    return name;
}

static unsigned mode_bits(const struct stat *st)
{
    return (unsigned)st->st_mode & 07777;
}

/* ---- what went wrong ------------------------------------------------------------------------- */

static tpks_result fail_entering(const char *path)
{
    return host->fail(TPKS_NOT_PERMITTED,
                      "%s: user %s may not enter one of its folders; `namei -l %s` shows which: "
                      "give that user or its group the right x there",
                      path, user_name(geteuid()).text, path);
}

static tpks_result fail_read_only(const char *path)
{
    return host->fail(TPKS_DATABASE_UNAVAILABLE,
                      "%s: the file system is read-only; remount it writable to change the "
                      "keystore",
                      path);
}

static tpks_result fail_access(const char *path, bool writing)
{
    name_text user = user_name(geteuid());
    struct stat st;

    if (stat(path, &st) != 0)
        return fail_entering(path);
    errno = 0;
    if (writing && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0 && errno == EROFS)
        return fail_read_only(path);
    if (writing && errno == 0)
        return host->fail(TPKS_NOT_PERMITTED,
                          "%s: user %s may not make files in its folder, as every change must; do "
                          "this as its owner: sudo -u %s ...",
                          path, user.text, user_name(st.st_uid).text);
    if (writing)
        return host->fail(TPKS_NOT_PERMITTED,
                          "%s: user %s may not change it (mode %04o, owner %s:%s); do this as "
                          "its owner: sudo -u %s ...",
                          path, user.text, mode_bits(&st), user_name(st.st_uid).text,
                          group_name(st.st_gid).text, user_name(st.st_uid).text);
    return host->fail(TPKS_NOT_PERMITTED,
                      "%s: user %s may not read it (mode %04o, owner %s:%s); let it read: setfacl "
                      "-m u:%s:r %s",
                      path, user.text, mode_bits(&st), user_name(st.st_uid).text,
                      group_name(st.st_gid).text, user.text, path);
}

static tpks_result fail_busy(const char *path)
{
    return host->fail(TPKS_DATABASE_UNAVAILABLE,
                      "%s: another process kept it locked for more than %d ms; see which with "
                      "`fuser -v %s`, and try again when it is done",
                      path, TPKS_SQLITE_WAIT_MS, path);
}

static tpks_result fail_damaged(const char *path, const char *why)
{
    return host->fail(TPKS_DATABASE_UNAVAILABLE,
                      "%s: the database is damaged (%s): restore it from a backup", path, why);
}

static tpks_result fail_too_big(const char *path, bool writing)
{
    if (!writing)
        return fail_damaged(path, "it holds an entry larger than this software ever stores");
    return host->fail(TPKS_BAD_INPUT, "%s: more than %d bytes are too large to store; make it less",
                      path, MAX_LENGTH);
}

static tpks_result fail_constraint(const char *path, int rc, const char *why)
{
    if (rc == SQLITE_CONSTRAINT_UNIQUE || rc == SQLITE_CONSTRAINT_PRIMARYKEY ||
        rc == SQLITE_CONSTRAINT_ROWID)
        return host->fail(TPKS_EXISTS, "%s: there is such an entry already (%s)", path, why);
    return host->fail(TPKS_INTERNAL, "%s: refused by a rule of the database (%s); report this",
                      path, why);
}

/* Why a file could not be opened or read, by the number that the kernel gave. */
static tpks_result fail_system(const char *path, int number, bool writing, const char *why)
{
    switch (number) {
    case EACCES:
    case EPERM:
        return fail_access(path, writing);
    case ENOENT:
        return host->fail(TPKS_UNINITIALIZED,
                          "%s: there is no keystore; make one with `trustpoint-keystore init`",
                          path);
    case EROFS:
        return fail_read_only(path);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return host->fail(
            TPKS_DATABASE_UNAVAILABLE,
            "%s: the disk is full, or a quota or `ulimit -f` reached; nothing was changed: make "
            "room and try again",
            path);
    default:
        return host->fail(TPKS_DATABASE_UNAVAILABLE,
                          "%s: %s (%s); nothing was changed: see the kernel's log about this disk, "
                          "and `ulimit -n`",
                          path, why, number != 0 ? strerror(number) : "no reason known");
    }
}

/* A change was interrupted, and this connection may not undo it. */
static bool is_hot_journal(int rc)
{
    return rc == SQLITE_READONLY_ROLLBACK || rc == SQLITE_READONLY_RECOVERY;
}

static tpks_result fail_readonly(const tpks_db *db, int rc)
{
    if (rc == SQLITE_READONLY_DBMOVED || is_hot_journal(rc))
        return host->fail(TPKS_CONFLICT,
                          "%s: while it was open, %s; nothing was changed: try again", db->path,
                          is_hot_journal(rc) ? "a change by another process was interrupted"
                                             : "the file was replaced");
    if (db->mode == TPKS_DB_READ)
        return host->fail(TPKS_INTERNAL, "%s: a change through a handle for reading; report this",
                          db->path);
    return fail_access(db->path, true);
}

/* Turns the failure `rc` of the engine into ours. */
static tpks_result fail_sqlite(const tpks_db *db, sqlite3 *sql, int rc)
{
    const char *why = sql != NULL ? sqlite3_errmsg(sql) : sqlite3_errstr(rc);
    bool writing = db->mode != TPKS_DB_READ;

    if (rc == SQLITE_IOERR_NOMEM)
        return no_memory();
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return no_memory();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fail_busy(db->path);
    case SQLITE_NOTADB:
        return host->fail(TPKS_NOT_A_KEYSTORE,
                          "%s: not a keystore (%s); correct `store`, or restore the file from a "
                          "backup",
                          db->path, why);
    case SQLITE_CORRUPT:
    case SQLITE_ERROR: /* our own SQL is right: a table or column is not there */
        return fail_damaged(db->path, why);
    case SQLITE_TOOBIG:
        return fail_too_big(db->path, writing);
    case SQLITE_CONSTRAINT:
        return fail_constraint(db->path, rc, why);
    case SQLITE_READONLY:
        return fail_readonly(db, rc);
    case SQLITE_FULL:
        return fail_system(db->path, ENOSPC, writing, why);
    case SQLITE_PERM:
        return fail_access(db->path, writing);
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        return fail_system(db->path, sql != NULL ? sqlite3_system_errno(sql) : 0, writing, why);
    default:
        return host->fail(TPKS_INTERNAL, "%s: SQLite: %s (%d); report this", db->path, why, rc);
    }
}

static tpks_result check_sqlite(const tpks_db *db, int rc)
{
    return rc == SQLITE_OK ? TPKS_OK : fail_sqlite(db, db->sql, rc);
}

/* ---- statements ------------------------------------------------------------------------------ */

static void statement_free(tpks_rows *rows)
{
    sqlite3_finalize(rows->statement);
    free(rows);
}

/* Frees the idle statements behind the first `keep` ones. */
static void drop_idle(tpks_db *db, int keep)
{
    tpks_rows **link = &db->statements;

    while (*link != NULL) {
        tpks_rows *rows = *link;

        if (rows->running || keep-- > 0) {
            link = &rows->next;
        } else {
            *link = rows->next;
            statement_free(rows);
        }
    }
}

/* An idle statement of this text, taken out of the list; NULL if there is none. */
static tpks_rows *take_idle(tpks_db *db, const char *text)
{
    for (tpks_rows **link = &db->statements; *link != NULL; link = &(*link)->next) {
        tpks_rows *rows = *link;

        if (!rows->running && strcmp(sqlite3_sql(rows->statement), text) == 0) {
            *link = rows->next;
            return rows;
        }
    }
    return NULL;
}

static tpks_rows *statement_new(tpks_db *db, const char *text, int *rc)
{
    tpks_rows *rows = calloc(1, sizeof(*rows));
    const char *rest = "";

    if (rows == NULL) {
        *rc = SQLITE_NOMEM;
        return NULL;
    }
    rows->db = db;
    *rc = sqlite3_prepare_v2(db->sql, text, -1, &rows->statement, &rest);
    if (*rc == SQLITE_OK && (rows->statement == NULL || rest[strspn(rest, " \n;")] != '\0'))
        *rc = SQLITE_MISUSE; /* nothing, or more than one: the rest would be lost silently */
    if (*rc == SQLITE_OK)
        return rows;
    statement_free(rows);
    return NULL;
}

/* A statement ready to be bound and stepped; *rc says what is wrong when it is NULL. */
static tpks_rows *statement_get(tpks_db *db, const char *text, int *rc)
{
    tpks_rows *rows = take_idle(db, text);

    *rc = SQLITE_OK;
    if (rows == NULL)
        rows = statement_new(db, text, rc);
    if (rows == NULL)
        return NULL;
    rows->running = true;
    rows->next = db->statements;
    db->statements = rows;
    return rows;
}

static bool is_idle(const tpks_db *db)
{
    for (const tpks_rows *rows = db->statements; rows != NULL; rows = rows->next)
        if (rows->running)
            return false;
    return true;
}

static void statement_done(tpks_rows *rows)
{
    sqlite3_reset(rows->statement);
    sqlite3_clear_bindings(rows->statement);
    rows->running = false;
    drop_idle(rows->db, MAX_IDLE);
}

static void auto_done(tpks_rows **rows)
{
    if (*rows != NULL)
        statement_done(*rows);
}
#define AUTO_ROWS __attribute__((cleanup(auto_done))) tpks_rows *

static int bind_value(sqlite3_stmt *statement, int index, const tpks_value *value,
                      sqlite3_destructor_type life)
{
    /* SQLite takes a NULL pointer for NULL, whatever the size. */
    const void *data = value->data != NULL ? value->data : "";

    switch (value->type) {
    case TPKS_VALUE_INTEGER:
        return sqlite3_bind_int64(statement, index, value->integer);
    case TPKS_VALUE_TEXT:
        return sqlite3_bind_text64(statement, index, data, value->size, life, SQLITE_UTF8);
    case TPKS_VALUE_BLOB:
        return sqlite3_bind_blob64(statement, index, data, value->size, life);
    default:
        return sqlite3_bind_null(statement, index);
    }
}

static tpks_result bind_number(tpks_rows *rows, size_t number, const tpks_value *value,
                               sqlite3_destructor_type life)
{
    char name[32];
    int index;

    snprintf(name, sizeof(name), "$%zu", number);
    index = sqlite3_bind_parameter_index(rows->statement, name);
    if (index == 0)
        return host->fail(TPKS_INTERNAL, "parameter %s is not used in: %s; report this", name,
                          sqlite3_sql(rows->statement));
    return check_sqlite(rows->db, bind_value(rows->statement, index, value, life));
}

static tpks_result bind_all(tpks_rows *rows, const tpks_value *values, size_t count,
                            sqlite3_destructor_type life)
{
    if ((size_t)sqlite3_bind_parameter_count(rows->statement) != count)
        return host->fail(TPKS_INTERNAL, "%zu parameters given for: %s; report this", count,
                          sqlite3_sql(rows->statement));
    for (size_t i = 0; i < count; i++)
        TRY(bind_number(rows, i + 1, &values[i], life));
    return TPKS_OK;
}

/* Runs a statement without parameters to its end; *first (may be NULL) gets the first column. */
static int run_plain(tpks_db *db, const char *text, int64_t *first)
{
    int rc;
    AUTO_ROWS rows = statement_get(db, text, &rc);

    if (rows == NULL)
        return rc;
    for (bool got = false; (rc = sqlite3_step(rows->statement)) == SQLITE_ROW; got = true)
        if (first != NULL && !got)
            *first = sqlite3_column_int64(rows->statement, 0);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void disconnect(tpks_db *db)
{
    for (tpks_rows *rows = db->statements; rows != NULL; rows = rows->next)
        rows->running = false;
    drop_idle(db, 0);
    sqlite3_close(db->sql);
    db->sql = NULL;
}

static void set_safety(sqlite3 *sql)
{
    static const struct {
        int option, on;
    } settings[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},    {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_DQS_DML, 0},        {SQLITE_DBCONFIG_DQS_DDL, 0},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        sqlite3_db_config(sql, settings[i].option, settings[i].on, NULL);
    sqlite3_limit(sql, SQLITE_LIMIT_LENGTH, MAX_LENGTH);
    sqlite3_limit(sql, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_busy_timeout(sql, TPKS_SQLITE_WAIT_MS);
}

/* Opens the file without reading it. */
static int connect_file(const char *path, bool writing, sqlite3 **sql)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW |
                SQLITE_OPEN_EXRESCODE | (writing ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
    int rc = sqlite3_open_v2(path, sql, flags, NULL);

    if (rc != SQLITE_OK)
        return rc;
    set_safety(*sql);
    return sqlite3_exec(*sql, "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0", NULL, NULL, NULL);
}

/*
 * Takes a lock and reads page 1, so that everything that can be wrong with a file shows up. A
 * journal that vanishes while SQLite looks at it, because its change just ended, counts as hot for
 * SQLite (a writer would find out under its lock, a reader cannot): only one that stays is.
 */
static int read_first(tpks_db *db, int64_t *mark)
{
    int rc = SQLITE_OK;

    for (int i = 0; i < HOT_TRIES; i++) {
        rc = run_plain(db, read_mark, mark);
        if (!is_hot_journal(rc))
            break;
    }
    return rc;
}

static int connect_once(tpks_db *db, int64_t *mark)
{
    int rc = connect_file(db->path, db->mode != TPKS_DB_READ, &db->sql);

    return rc == SQLITE_OK ? read_first(db, mark) : rc;
}

/*
 * A process died in the middle of a change. Whoever may write the file undoes it by opening it
 * for writing and reading once.
 */
static tpks_result roll_back_journal(tpks_db *db)
{
    __attribute__((cleanup(close_sql))) sqlite3 *sql = NULL;
    int rc = connect_file(db->path, true, &sql);
    struct stat st;

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(sql, read_mark, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return TPKS_OK;
    if ((rc & 0xff) == SQLITE_BUSY)
        return fail_busy(db->path);
    if (stat(db->path, &st) != 0)
        return fail_system(db->path, errno, false, "stat");
    return host->fail(TPKS_DATABASE_UNAVAILABLE,
                      "%s: a change was interrupted and must be undone first, which user %s cannot "
                      "do (%s); run as its owner: sudo -u %s trustpoint-keystore status",
                      db->path, user_name(geteuid()).text, sqlite3_errmsg(sql),
                      user_name(st.st_uid).text);
}

static tpks_result connect_reader(tpks_db *db)
{
    int rc = connect_once(db, NULL);

    if (is_hot_journal(rc)) {
        disconnect(db);
        TRY(roll_back_journal(db));
        rc = connect_once(db, NULL);
    }
    return check_sqlite(db, rc);
}

static tpks_result connect_writer(tpks_db *db)
{
    static const char durable[] = "PRAGMA synchronous=EXTRA; PRAGMA secure_delete=ON";
    int64_t mark = 0;

    TRY(check_sqlite(db, connect_once(db, &mark)));
    bool ours = mark == APPLICATION_ID || db->mode == TPKS_DB_CREATE;
    if (sqlite3_db_readonly(db->sql, "main") == 1)
        return fail_access(db->path, true);
    /* Another program's tables may have rules with functions that SQLite trusts in one's own schema
       only; triggers and views stay off. */
    if (!ours)
        sqlite3_db_config(db->sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1, (int *)NULL);
    TRY(check_sqlite(db, sqlite3_exec(db->sql, durable, NULL, NULL, NULL)));
    /* The journal mode is a property of the file: another program's stays as it is. */
    if (!ours)
        return TPKS_OK;
    return check_sqlite(db, sqlite3_exec(db->sql, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL));
}

/* ---- the file -------------------------------------------------------------------------------- */

static tpks_result fail_folder(const char *folder, const char *path, bool making)
{
    if (errno == EACCES)
        return fail_entering(path);
    if (errno == ENOENT && !making)
        return host->fail(TPKS_UNINITIALIZED,
                          "%s: there is no keystore, not even the folder %s; make them: mkdir -p "
                          "%s, then `trustpoint-keystore init`",
                          path, folder, folder);
    return host->fail(TPKS_DATABASE_UNAVAILABLE, "%s: folder %s: %s; make it: mkdir -p %s", path,
                      folder, strerror(errno), folder);
}

/*
 * Resolves symbolic links in the folder part only: the file itself must not be one, and SQLite
 * would refuse them anywhere. *out is FOLDER/FILE, to be freed; *folder its first part.
 */
static tpks_result resolve(const char *path, bool making, char **out, char **folder)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    AUTO_TEXT given = slash == NULL   ? strdup(".")
                      : slash == path ? strdup("/")
                                      : strndup(path, (size_t)(slash - path));
    AUTO_TEXT real = NULL;

    if (given == NULL)
        return no_memory();
    real = realpath(given, NULL);
    if (real == NULL)
        return fail_folder(given, path, making);
    if (asprintf(out, "%s/%s", strcmp(real, "/") == 0 ? "" : real, file) < 0) {
        *out = NULL;
        return no_memory();
    }
    *folder = real;
    real = NULL;
    return TPKS_OK;
}

static tpks_result check_others(const char *path, const struct stat *st)
{
    if ((st->st_mode & S_IWOTH) == 0 || (S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) != 0))
        return TPKS_OK;
    return host->fail(TPKS_NOT_PERMITTED,
                      "%s: everybody on this host may change it (mode %04o), so nothing in it can "
                      "be trusted; forbid it: chmod o-w %s",
                      path, mode_bits(st), path);
}

static tpks_result check_folder(const char *folder)
{
    struct stat st;

    if (stat(folder, &st) != 0)
        return fail_system(folder, errno, false, "stat");
    return check_others(folder, &st);
}

static tpks_result check_file(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == EACCES ? fail_entering(path) : fail_system(path, errno, false, "stat");
    if (S_ISLNK(st.st_mode))
        return host->fail(TPKS_NOT_PERMITTED,
                          "%s: a symbolic link; name the file itself in `store`", path);
    if (!S_ISREG(st.st_mode))
        return host->fail(TPKS_NOT_A_KEYSTORE, "%s: a %s, not a keystore; name a file in `store`",
                          path, S_ISDIR(st.st_mode) ? "folder" : "special file");
    return check_others(path, &st);
}

static tpks_result sync_folder(const char *folder)
{
    __attribute__((cleanup(close_fd))) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) != 0)
        return fail_system(folder, errno, true, "fsync");
    return TPKS_OK;
}

static tpks_result fail_exists(const char *path)
{
    return host->fail(TPKS_EXISTS,
                      "%s: there is a file already; move it away, or choose "
                      "another name",
                      path);
}

/* Makes a new empty file; *fd is open for writing. Nothing may be there, not even a dead link. */
static tpks_result make_file(const char *path, const char *folder, mode_t mode, int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (*fd >= 0)
        return TPKS_OK;
    if (errno == EEXIST)
        return fail_exists(path);
    if (errno == EACCES)
        return fail_access(folder, true);
    return fail_system(path, errno, true, "open");
}

/* A file of ours that is empty, or may be so when its journal is undone. */
static bool may_be_leftover(const char *path)
{
    AUTO_TEXT journal = NULL;
    struct stat st, journal_st;

    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return false;
    if (asprintf(&journal, "%s-journal", path) < 0)
        journal = NULL;
    return st.st_size == 0 || (journal != NULL && lstat(journal, &journal_st) == 0);
}

static bool has_no_page(tpks_db *db)
{
    int64_t pages = 1;
    bool none = connect_once(db, NULL) == SQLITE_OK &&
                run_plain(db, "PRAGMA page_count", &pages) == SQLITE_OK && pages == 0;

    disconnect(db);
    return none;
}

/* A creation that was killed leaves a file without content: the next one goes on with it. */
static tpks_result make_or_take(tpks_db *db, const char *folder)
{
    tpks_result result = make_file(db->path, folder, 0640, &db->made_fd);

    if (result == TPKS_EXISTS && may_be_leftover(db->path))
        db->made_fd = open(db->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (db->made_fd < 0)
        return result;
    if (flock(db->made_fd, LOCK_EX | LOCK_NB) != 0)
        return fail_exists(db->path);
    return result == TPKS_OK || has_no_page(db) ? TPKS_OK : fail_exists(db->path);
}

static tpks_result make_database(tpks_db *db, const char *folder)
{
    struct stat now;

    TRY(make_or_take(db, folder));
    if (fstat(db->made_fd, &db->made_stat) != 0)
        return fail_system(db->path, errno, true, "fstat");
    /* Its former owner may have removed it while we waited to hold it. */
    if (lstat(db->path, &now) != 0 || now.st_ino != db->made_stat.st_ino ||
        now.st_dev != db->made_stat.st_dev)
        return fail_exists(db->path);
    db->made = true;
    return TPKS_OK;
}

static tpks_result sync_own_folder(tpks_db *db)
{
    AUTO_TEXT folder = strdup(db->path);
    char *slash;

    if (folder == NULL)
        return no_memory();
    slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = '\0';
    return sync_folder(folder);
}

/* A creation that never was committed leaves nothing behind, and nothing of others is removed. */
static void remove_unfinished(const tpks_db *db)
{
    AUTO_TEXT journal = NULL;
    struct stat st;

    if (lstat(db->path, &st) != 0 || st.st_ino != db->made_stat.st_ino ||
        st.st_dev != db->made_stat.st_dev)
        return;
    unlink(db->path);
    if (asprintf(&journal, "%s-journal", db->path) < 0)
        journal = NULL;
    if (journal != NULL)
        unlink(journal);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void db_close(tpks_db *db)
{
    KEEP_ERRNO;

    /* SQLite forbids even closing what was inherited over a fork. */
    if (db == NULL || db->pid != getpid())
        return;
    disconnect(db);
    if (db->made)
        remove_unfinished(db);
    if (db->made_fd >= 0)
        close(db->made_fd); /* after SQLite: closing any descriptor of a file ends its locks */
    free(db->text);
    free(db);
}

static void auto_close(tpks_db **db)
{
    db_close(*db);
}

static tpks_db *db_new(const char *path, tpks_db_mode mode)
{
    size_t size = strlen(path) + 1;
    tpks_db *db = calloc(1, sizeof(*db) + size);

    if (db == NULL)
        return NULL;
    memcpy(db->path, path, size);
    db->mode = mode;
    db->pid = getpid();
    db->made_fd = -1;
    return db;
}

static tpks_result db_open(const char *location, tpks_db_mode mode, tpks_db **out)
{
    KEEP_ERRNO;
    AUTO_TEXT path = NULL;
    AUTO_TEXT folder = NULL;
    __attribute__((cleanup(auto_close))) tpks_db *db = NULL;

    if (location[0] != '/' || location[strlen(location) - 1] == '/')
        return host->fail(TPKS_BAD_CONFIG,
                          "store = sqlite:%s: it must be the absolute path of a file", location);
    TRY(resolve(location, mode == TPKS_DB_CREATE, &path, &folder));
    TRY(check_folder(folder));
    db = db_new(path, mode);
    if (db == NULL)
        return no_memory();
    TRY(mode == TPKS_DB_CREATE ? make_database(db, folder) : check_file(path));
    TRY(mode == TPKS_DB_READ ? connect_reader(db) : connect_writer(db));
    *out = db;
    db = NULL;
    return TPKS_OK;
}

static bool db_moved(tpks_db *db)
{
    KEEP_ERRNO;
    int moved = 1;

    return sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK ||
           moved != 0;
}

/* ---- what it is ------------------------------------------------------------------------------ */

static tpks_result db_identity(tpks_db *db, tpks_db_identity *out)
{
    KEEP_ERRNO;
    int64_t mark = 0, format = 0, empty = 0;

    TRY(check_sqlite(db, run_plain(db, read_mark, &mark)));
    if (mark == APPLICATION_ID)
        TRY(check_sqlite(db, run_plain(db, "PRAGMA user_version", &format)));
    else
        TRY(check_sqlite(db,
                         run_plain(db, "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", &empty)));
    out->marked = mark == APPLICATION_ID;
    out->format = (uint32_t)format;
    out->empty = empty != 0;
    return TPKS_OK;
}

static tpks_result db_mark(tpks_db *db, uint32_t format)
{
    KEEP_ERRNO;
    char text[96];

    /* A PRAGMA takes no parameters; these are numbers. */
    snprintf(text, sizeof(text), "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID,
             (int)format);
    return check_sqlite(db, sqlite3_exec(db->sql, text, NULL, NULL, NULL));
}

/* ---- transactions ---------------------------------------------------------------------------- */

static void db_rollback(tpks_db *db)
{
    KEEP_ERRNO;

    if (db->sql != NULL && sqlite3_get_autocommit(db->sql) == 0)
        run_plain(db, "ROLLBACK", NULL);
}

/* BEGIN alone takes no lock: the first reading fixes what this transaction sees. */
static int begin_reading(tpks_db *db)
{
    int rc = run_plain(db, "BEGIN", NULL);

    if (rc == SQLITE_OK)
        rc = read_first(db, NULL);
    if (rc != SQLITE_OK)
        db_rollback(db);
    return rc;
}

static tpks_result db_begin(tpks_db *db, bool write)
{
    KEEP_ERRNO;
    int rc;

    if (write && db->mode == TPKS_DB_READ)
        return fail_readonly(db, SQLITE_READONLY);
    if (write)
        return check_sqlite(db, run_plain(db, "BEGIN IMMEDIATE", NULL));
    rc = begin_reading(db);
    if (is_hot_journal(rc) && is_idle(db)) {
        disconnect(db);
        TRY(connect_reader(db));
        rc = begin_reading(db);
    }
    return check_sqlite(db, rc);
}

static tpks_result db_commit(tpks_db *db)
{
    KEEP_ERRNO;
    tpks_result result = check_sqlite(db, run_plain(db, "COMMIT", NULL));

    if (result != TPKS_OK) {
        db_rollback(db);
        return result;
    }
    if (!db->made)
        return TPKS_OK;
    TRY(sync_own_folder(db));
    db->made = false;
    return TPKS_OK;
}

/* ---- SQL ------------------------------------------------------------------------------------- */

static tpks_result db_run(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                          uint64_t *changed)
{
    KEEP_ERRNO;
    int rc;
    AUTO_ROWS rows = statement_get(db, sql, &rc);

    if (rows == NULL)
        return fail_sqlite(db, db->sql, rc);
    TRY(bind_all(rows, values, count, SQLITE_STATIC));
    while ((rc = sqlite3_step(rows->statement)) == SQLITE_ROW)
        continue;
    if (rc != SQLITE_DONE)
        return fail_sqlite(db, db->sql, rc);
    if (changed != NULL)
        *changed = (uint64_t)sqlite3_changes64(db->sql);
    return TPKS_OK;
}

static tpks_result db_query(tpks_db *db, const char *sql, const tpks_value *values, size_t count,
                            tpks_rows **out)
{
    KEEP_ERRNO;
    int rc;
    AUTO_ROWS rows = statement_get(db, sql, &rc);

    if (rows == NULL)
        return fail_sqlite(db, db->sql, rc);
    /* The values are read by the steps to come, when the caller's may be gone. */
    TRY(bind_all(rows, values, count, SQLITE_TRANSIENT));
    *out = rows;
    rows = NULL;
    return TPKS_OK;
}

static tpks_result rows_next(tpks_rows *rows, bool *got)
{
    KEEP_ERRNO;
    int rc = sqlite3_step(rows->statement);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return fail_sqlite(rows->db, rows->db->sql, rc);
    *got = rc == SQLITE_ROW;
    return TPKS_OK;
}

/* Not to be wiped: this may be SQLite's copy of the file's page, from which it goes on reading, and
 * in a change writing. The page stays in memory until SQLite has another use for it. */
static tpks_value column_bytes(sqlite3_stmt *statement, int i, tpks_value_type type)
{
    tpks_value value = {.type = type};

    value.data = type == TPKS_VALUE_BLOB ? sqlite3_column_blob(statement, i)
                                         : (const void *)sqlite3_column_text(statement, i);
    value.size = (size_t)sqlite3_column_bytes(statement, i);
    if (value.data == NULL)
        value.data = ""; /* what SQLite has for no bytes at all */
    return value;
}

static tpks_value rows_column(tpks_rows *rows, int i)
{
    KEEP_ERRNO;
    tpks_value value = {.type = TPKS_VALUE_NULL};

    switch (sqlite3_column_type(rows->statement, i)) {
    case SQLITE_NULL:
        return value;
    case SQLITE_INTEGER:
        value.type = TPKS_VALUE_INTEGER;
        value.integer = sqlite3_column_int64(rows->statement, i);
        return value;
    case SQLITE_BLOB:
        return column_bytes(rows->statement, i, TPKS_VALUE_BLOB);
    default: /* a float too: its text */
        return column_bytes(rows->statement, i, TPKS_VALUE_TEXT);
    }
}

static void rows_finish(tpks_rows *rows)
{
    KEEP_ERRNO;

    if (rows != NULL)
        statement_done(rows);
}

static tpks_result db_has_table(tpks_db *db, const char *table, bool *out)
{
    KEEP_ERRNO;
    AUTO_ROWS rows = NULL;
    tpks_value name = {.type = TPKS_VALUE_TEXT, .data = table, .size = strlen(table)};

    TRY(db_query(db, "SELECT 1 FROM sqlite_schema WHERE type='table' AND name=$1", &name, 1,
                 &rows));
    return rows_next(rows, out);
}

/* ---- care ------------------------------------------------------------------------------------ */

/* Only the copy is written: for want of room there, the database itself is not to blame. */
static bool is_of_copy(int rc)
{
    return (rc & 0xff) == SQLITE_FULL || rc == SQLITE_IOERR_WRITE || rc == SQLITE_IOERR_TRUNCATE ||
           rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC ||
           (rc & 0xff) == SQLITE_CANTOPEN;
}

static tpks_result fail_copy(const tpks_db *db, const char *path, sqlite3 *target, int rc)
{
    int number = (rc & 0xff) == SQLITE_FULL ? ENOSPC : sqlite3_system_errno(target);

    if (!is_of_copy(rc))
        return fail_sqlite(db, target, rc);
    return fail_system(path, number, true, sqlite3_errmsg(target));
}

static tpks_result copy_pages(tpks_db *db, const char *path, sqlite3 *target)
{
    /* In one step: it holds a reader's lock for the whole copy, so it is of one moment. */
    sqlite3_backup *copy = sqlite3_backup_init(target, "main", db->sql, "main");
    int rc, end;

    if (copy == NULL)
        return fail_copy(db, path, target, sqlite3_extended_errcode(target));
    rc = sqlite3_backup_step(copy, -1);
    end = sqlite3_backup_finish(copy);
    if (rc == SQLITE_DONE && end == SQLITE_OK)
        return TPKS_OK;
    return fail_copy(db, path, target, rc != SQLITE_DONE ? rc : end);
}

/* `fd` stays open meanwhile: closing it earlier would drop SQLite's locks on the new file. */
static tpks_result write_copy(tpks_db *db, const char *path, int fd)
{
    {
        __attribute__((cleanup(close_sql))) sqlite3 *target = NULL;
        int rc = connect_file(path, true, &target);

        /* A copy that does not succeed is removed, and one that does is synced below. */
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(target, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL,
                              NULL);
        if (rc != SQLITE_OK)
            return fail_copy(db, path, target, rc);
        TRY(copy_pages(db, path, target));
    }
    return fsync(fd) == 0 ? TPKS_OK : fail_system(path, errno, true, "fsync");
}

static tpks_result db_backup(tpks_db *db, const char *path)
{
    KEEP_ERRNO;
    AUTO_TEXT target = NULL;
    AUTO_TEXT folder = NULL;
    __attribute__((cleanup(close_fd))) int fd = -1;
    tpks_result result;

    TRY(resolve(path, true, &target, &folder));
    TRY(make_file(target, folder, 0600, &fd));
    result = write_copy(db, target, fd);
    if (result == TPKS_OK)
        result = sync_folder(folder);
    if (result != TPKS_OK)
        unlink(target);
    return result;
}

static tpks_result db_check(tpks_db *db)
{
    KEEP_ERRNO;
    AUTO_ROWS rows = NULL;
    bool got = false;
    const char *text;

    TRY(db_query(db, "PRAGMA integrity_check(1)", NULL, 0, &rows));
    TRY(rows_next(rows, &got));
    text = got ? (const char *)sqlite3_column_text(rows->statement, 0) : NULL;
    if (text == NULL)
        return no_memory();
    return strcmp(text, "ok") == 0 ? TPKS_OK : fail_damaged(db->path, text);
}

static const char *db_describe(tpks_db *db)
{
    KEEP_ERRNO;
    struct stat st;

    if (db->text != NULL)
        return db->text;
    if (stat(db->path, &st) != 0 ||
        asprintf(&db->text, "file %s (mode %04o, owner %s:%s)", db->path, mode_bits(&st),
                 user_name(st.st_uid).text, group_name(st.st_gid).text) < 0)
        db->text = NULL;
    return db->text != NULL ? db->text : db->path;
}

/* ---- the table ------------------------------------------------------------------------------- */

tpks_backend_entry_fn tpks_backend_entry;

__attribute__((visibility("default"))) const tpks_backend *
tpks_backend_entry(const tpks_backend_host *from)
{
    static const tpks_backend table = {
        .abi = TPKS_BACKEND_ABI,
        .name = "sqlite",
        .open = db_open,
        .moved = db_moved,
        .close = db_close,
        .identity = db_identity,
        .mark = db_mark,
        .has_table = db_has_table,
        .begin = db_begin,
        .commit = db_commit,
        .rollback = db_rollback,
        .run = db_run,
        .query = db_query,
        .next = rows_next,
        .column = rows_column,
        .finish = rows_finish,
        .backup = db_backup,
        .check = db_check,
        .describe = db_describe,
    };

    if (from->abi != TPKS_BACKEND_ABI)
        return NULL;
    host = from;
    return &table;
}
