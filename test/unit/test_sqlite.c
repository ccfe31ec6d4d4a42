/*
 * test_sqlite.c - the SQLite storage plugin and the finder of plugins
 *
 * The plugin's source is compiled into this program with a short wait for locks
 * (TPKS_SQLITE_WAIT_MS); the finder is tested with the real plugins in TPKS_PLUGINDIR. Tests of
 * missing rights run in a child that gives up root, if it has it.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#undef fail /* a macro of old that check.h still has */

#include <sqlite3.h>

#include "backend.h"
#include "backend_load.h"
#include "error.h"

extern tpks_backend_entry_fn tpks_backend_entry;

static const tpks_backend_host test_host = {TPKS_BACKEND_ABI, fail};
static const tpks_backend *be;
static char folder[64];
static char path[128];
static char other[128];

/* ---- helpers --------------------------------------------------------------------------------- */

static void setup(void)
{
    be = tpks_backend_entry(&test_host);
    ck_assert_ptr_nonnull(be);
    snprintf(folder, sizeof(folder), "/tmp/test_sqlite.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chmod(folder, 0755), 0);
    snprintf(path, sizeof(path), "%s/ks.db", folder);
    snprintf(other, sizeof(other), "%s/other.db", folder);
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

#define ck_ok(expression)                                                                          \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == TPKS_OK, "%s: %s (%s)", #expression, tpks_result_name(got_),         \
                      tpks_error_text());                                                          \
    } while (0)

/* The result, and that the text names the file (or what else is given) and what to do. */
#define ck_fails(expression, wanted, word)                                                         \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == (wanted), "%s: %s (%s)", #expression, tpks_result_name(got_),        \
                      tpks_error_text());                                                          \
        ck_assert_msg(strstr(tpks_error_text(), (word)) != NULL, "no \"%s\" in: %s", (word),       \
                      tpks_error_text());                                                          \
    } while (0)

static tpks_value text_value(const char *text)
{
    return (tpks_value){.type = TPKS_VALUE_TEXT, .data = text, .size = strlen(text)};
}

static tpks_value int_value(int64_t number)
{
    return (tpks_value){.type = TPKS_VALUE_INTEGER, .integer = number};
}

static tpks_result run0(tpks_db *db, const char *sql)
{
    return be->run(db, sql, NULL, 0, NULL);
}

static int64_t number_of(tpks_db *db, const char *sql)
{
    tpks_rows *rows;
    bool got = false;
    int64_t number;

    ck_ok(be->query(db, sql, NULL, 0, &rows));
    ck_ok(be->next(rows, &got));
    ck_assert(got);
    ck_assert_int_eq(be->column(rows, 0).type, TPKS_VALUE_INTEGER);
    number = be->column(rows, 0).integer;
    be->finish(rows);
    return number;
}

/* A marked database with a table of 200 rows of 2 KiB. */
static void make_keystore(const char *where)
{
    tpks_db *db;

    ck_ok(be->open(where, TPKS_DB_CREATE, &db));
    ck_ok(be->begin(db, true));
    ck_ok(run0(db, "CREATE TABLE tpks_t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)"));
    ck_ok(run0(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
                   "INSERT INTO tpks_t SELECT i, 'name' || i, zeroblob(2048) FROM n"));
    ck_ok(be->mark(db, 1));
    ck_ok(be->commit(db));
    be->close(db);
}

static tpks_db *open_ok(const char *where, tpks_db_mode mode)
{
    tpks_db *db = NULL;

    ck_ok(be->open(where, mode, &db));
    return db;
}

/* Opens, reads something, closes; the first failure. */
static tpks_result try_open(const char *where, tpks_db_mode mode)
{
    tpks_db *db;
    tpks_db_identity identity;
    tpks_result result = be->open(where, mode, &db);

    if (result != TPKS_OK)
        return result;
    result = be->identity(db, &identity);
    be->close(db);
    return result;
}

static void raw(const char *where, const char *sql)
{
    sqlite3 *db;

    ck_assert_int_eq(sqlite3_open(where, &db), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

static void write_file(const char *where, const char *text, mode_t mode)
{
    FILE *file = fopen(where, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(chmod(where, mode), 0);
}

static bool exists(const char *where)
{
    struct stat st;

    return lstat(where, &st) == 0;
}

/* What a child process found out. */
typedef struct answer {
    tpks_result result;
    char text[1024];
} answer;

typedef tpks_result child_fn(const char *where);

/* Runs `work` as an ordinary user and takes over its result and error text. */
static tpks_result as_nobody(child_fn *work, const char *where)
{
    answer *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    answer copy;
    int status;
    pid_t child;

    ck_assert(shared != MAP_FAILED);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(1);
        shared->result = work(where);
        snprintf(shared->text, sizeof(shared->text), "%s", tpks_error_text());
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    copy = *shared;
    munmap(shared, sizeof(*shared));
    return copy.result == TPKS_OK ? TPKS_OK : fail(copy.result, "%s", copy.text);
}

static tpks_result open_to_read(const char *where)
{
    return try_open(where, TPKS_DB_READ);
}

static tpks_result open_to_write(const char *where)
{
    return try_open(where, TPKS_DB_WRITE);
}

static tpks_result write_row(const char *where)
{
    tpks_db *db = NULL;
    tpks_result result = be->open(where, TPKS_DB_WRITE, &db);

    if (result == TPKS_OK)
        result = be->begin(db, true);
    if (result == TPKS_OK)
        result = run0(db, "UPDATE tpks_t SET name='changed' WHERE id=1");
    if (result == TPKS_OK)
        result = be->commit(db);
    be->close(db);
    return result;
}

static tpks_result create_there(const char *where)
{
    return try_open(where, TPKS_DB_CREATE);
}

/* Dies in the middle of a change whose journal and pages are written already. */
static void crash_while_writing(const char *where)
{
    char journal[160];
    struct stat st;
    int status;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        tpks_db *db;

        if (be->open(where, TPKS_DB_WRITE, &db) == TPKS_OK && be->begin(db, true) == TPKS_OK &&
            run0(db, "PRAGMA cache_size=1") == TPKS_OK &&
            run0(db, "UPDATE tpks_t SET data=randomblob(2048), name='x' || id") == TPKS_OK)
            raise(SIGKILL);
        _exit(1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    snprintf(journal, sizeof(journal), "%s-journal", where);
    ck_assert_int_eq(stat(journal, &st), 0);
    ck_assert_int_gt(st.st_size, 512);
}

/* ---- a new database -------------------------------------------------------------------------- */

START_TEST(test_create_and_identity)
{
    tpks_db_identity identity;
    struct stat st;
    bool has;
    tpks_db *db;

    umask(022);
    db = open_ok(path, TPKS_DB_CREATE);
    ck_ok(be->identity(db, &identity));
    ck_assert(identity.empty && !identity.marked);
    ck_ok(be->begin(db, true));
    ck_ok(run0(db, "CREATE TABLE tpks_t (id INTEGER PRIMARY KEY)"));
    ck_ok(be->mark(db, 7));
    ck_ok(be->commit(db));
    be->close(db);

    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
    db = open_ok(path, TPKS_DB_READ);
    ck_ok(be->identity(db, &identity));
    ck_assert(!identity.empty && identity.marked);
    ck_assert_uint_eq(identity.format, 7);
    ck_ok(be->has_table(db, "tpks_t", &has));
    ck_assert(has);
    ck_ok(be->has_table(db, "tpks_u", &has));
    ck_assert(!has);
    ck_assert_ptr_nonnull(strstr(be->describe(db), path));
    ck_assert_ptr_nonnull(strstr(be->describe(db), "0640"));
    be->close(db);
}
END_TEST

START_TEST(test_create_refuses_what_is_there)
{
    make_keystore(path);
    ck_fails(try_open(path, TPKS_DB_CREATE), TPKS_EXISTS, path);
    ck_ok(try_open(path, TPKS_DB_READ));
    ck_assert_int_eq(symlink("/nowhere/at/all", other), 0);
    ck_fails(try_open(other, TPKS_DB_CREATE), TPKS_EXISTS, other);
}
END_TEST

START_TEST(test_create_without_commit_leaves_nothing)
{
    char journal[160];
    tpks_db *db = open_ok(path, TPKS_DB_CREATE);

    snprintf(journal, sizeof(journal), "%s-journal", path);
    ck_assert(exists(path));
    ck_ok(be->begin(db, true));
    ck_ok(run0(db, "CREATE TABLE tpks_t (id INTEGER PRIMARY KEY)"));
    be->close(db);
    ck_assert(!exists(path));
    ck_assert(!exists(journal));

    db = open_ok(path, TPKS_DB_CREATE);
    ck_ok(be->begin(db, true));
    ck_ok(be->mark(db, 1));
    be->rollback(db);
    be->close(db);
    ck_assert(!exists(path));
}
END_TEST

START_TEST(test_create_goes_on_with_what_a_killed_one_left)
{
    ck_assert_int_eq(close(open(path, O_WRONLY | O_CREAT, 0640)), 0);
    tpks_db *db = open_ok(path, TPKS_DB_CREATE);
    ck_fails(try_open(path, TPKS_DB_CREATE), TPKS_EXISTS, path);
    ck_ok(be->begin(db, true));
    ck_ok(be->mark(db, 1));
    ck_ok(be->commit(db));
    be->close(db);
    ck_ok(try_open(path, TPKS_DB_READ));
    ck_fails(try_open(path, TPKS_DB_CREATE), TPKS_EXISTS, path);
    /* A file with content is nobody's leftover, whatever the content. */
    raw(other, "PRAGMA user_version=1");
    ck_fails(try_open(other, TPKS_DB_CREATE), TPKS_EXISTS, other);
}
END_TEST

START_TEST(test_create_does_not_remove_the_file_of_others)
{
    tpks_db *db = open_ok(path, TPKS_DB_CREATE);

    make_keystore(other);
    ck_assert_int_eq(rename(other, path), 0);
    be->close(db);
    ck_ok(try_open(path, TPKS_DB_READ));
}
END_TEST

/* ---- what is not a keystore ------------------------------------------------------------------ */

START_TEST(test_missing)
{
    snprintf(other, sizeof(other), "%s/no/such/ks.db", folder);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_UNINITIALIZED, "trustpoint-keystore init");
    ck_fails(try_open(path, TPKS_DB_WRITE), TPKS_UNINITIALIZED, path);
    ck_fails(try_open(other, TPKS_DB_READ), TPKS_UNINITIALIZED, "mkdir -p");
    ck_fails(try_open(other, TPKS_DB_CREATE), TPKS_DATABASE_UNAVAILABLE, "mkdir -p");
    ck_assert(!exists(path));
}
END_TEST

START_TEST(test_bad_location)
{
    ck_fails(try_open("", TPKS_DB_READ), TPKS_BAD_CONFIG, "absolute path");
    ck_fails(try_open("ks.db", TPKS_DB_READ), TPKS_BAD_CONFIG, "ks.db");
    ck_fails(try_open("file:/x?mode=memory", TPKS_DB_CREATE), TPKS_BAD_CONFIG, "absolute path");
    ck_fails(try_open("/tmp/", TPKS_DB_READ), TPKS_BAD_CONFIG, "/tmp/");
}
END_TEST

START_TEST(test_not_a_file)
{
    ck_fails(try_open(folder, TPKS_DB_READ), TPKS_NOT_A_KEYSTORE, "folder");
    ck_fails(try_open(folder, TPKS_DB_WRITE), TPKS_NOT_A_KEYSTORE, folder);
    ck_fails(try_open("/dev/null", TPKS_DB_READ), TPKS_NOT_A_KEYSTORE, "special file");
}
END_TEST

START_TEST(test_symbolic_links)
{
    char through[160];

    make_keystore(path);
    ck_assert_int_eq(symlink(path, other), 0);
    ck_fails(try_open(other, TPKS_DB_READ), TPKS_NOT_PERMITTED, "symbolic link");
    snprintf(other, sizeof(other), "%s/link", folder);
    ck_assert_int_eq(symlink(folder, other), 0);
    snprintf(through, sizeof(through), "%s/ks.db", other);
    ck_ok(try_open(through, TPKS_DB_READ));
}
END_TEST

START_TEST(test_empty_and_foreign_files)
{
    tpks_db_identity identity;
    tpks_db *db;

    write_file(path, "", 0644);
    db = open_ok(path, TPKS_DB_READ);
    ck_ok(be->identity(db, &identity));
    ck_assert(identity.empty && !identity.marked);
    be->close(db);

    write_file(path, "-----BEGIN PRIVATE KEY-----\nthis is something else\n", 0644);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_NOT_A_KEYSTORE, path);
    ck_fails(try_open(path, TPKS_DB_WRITE), TPKS_NOT_A_KEYSTORE, "not a database");

    raw(other, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)");
    ck_assert_int_eq(chmod(other, 0644), 0);
    db = open_ok(other, TPKS_DB_WRITE);
    ck_ok(be->identity(db, &identity));
    ck_assert(!identity.empty && !identity.marked);
    be->close(db);
}
END_TEST

/* Another program's file keeps its journal mode: only the header's bytes 18 and 19 tell (2 = WAL).
 */
START_TEST(test_foreign_journal_mode_is_kept)
{
    unsigned char header[20];
    FILE *file;

    raw(path, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)");
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_ok(try_open(path, TPKS_DB_WRITE));
    file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(header, 1, sizeof(header), file), sizeof(header));
    fclose(file);
    ck_assert_uint_eq(header[18], 2);
}
END_TEST

START_TEST(test_damaged)
{
    tpks_db *db;
    bool got = true;
    tpks_rows *rows;
    FILE *file;

    make_keystore(path);
    file = fopen(path, "r+");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, 4096, SEEK_SET), 0);
    for (int i = 0; i < 60 * 4096; i++)
        ck_assert_int_ne(fputc(0xA5, file), EOF);
    ck_assert_int_eq(fclose(file), 0);
    db = open_ok(path, TPKS_DB_READ);
    ck_fails(be->check(db), TPKS_DATABASE_UNAVAILABLE, "restore it from a backup");
    ck_ok(be->query(db, "SELECT data FROM tpks_t", NULL, 0, &rows));
    ck_fails(be->next(rows, &got), TPKS_DATABASE_UNAVAILABLE, "damaged");
    be->finish(rows);
    be->close(db);

    ck_assert_int_eq(truncate(path, 4096 + 2000), 0);
    db = NULL;
    if (be->open(path, TPKS_DB_READ, &db) == TPKS_OK) {
        ck_fails(be->check(db), TPKS_DATABASE_UNAVAILABLE, path);
        be->close(db);
    } else {
        ck_assert_ptr_nonnull(strstr(tpks_error_text(), "damaged"));
    }
    ck_assert_int_eq(truncate(path, 50), 0);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_DATABASE_UNAVAILABLE, path);
}
END_TEST

START_TEST(test_missing_table_is_damage)
{
    tpks_rows *rows;
    tpks_db *db;

    make_keystore(path);
    raw(path, "DROP TABLE tpks_t");
    db = open_ok(path, TPKS_DB_READ);
    ck_fails(be->query(db, "SELECT id FROM tpks_t", NULL, 0, &rows), TPKS_DATABASE_UNAVAILABLE,
             "no such table");
    be->close(db);
}
END_TEST

/* ---- rights ---------------------------------------------------------------------------------- */

START_TEST(test_writable_by_others)
{
    make_keystore(path);
    ck_assert_int_eq(chmod(path, 0646), 0);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_NOT_PERMITTED, "chmod o-w");
    ck_fails(try_open(path, TPKS_DB_WRITE), TPKS_NOT_PERMITTED, path);
    ck_assert_int_eq(chmod(path, 0660), 0);
    ck_ok(try_open(path, TPKS_DB_READ));
    ck_assert_int_eq(chmod(folder, 0777), 0);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_NOT_PERMITTED, "chmod o-w");
    ck_assert_int_eq(chmod(folder, 01777), 0);
    ck_ok(try_open(path, TPKS_DB_READ));
}
END_TEST

START_TEST(test_no_right_to_read)
{
    make_keystore(path);
    ck_assert_int_eq(chmod(path, 0000), 0);
    ck_fails(as_nobody(open_to_read, path), TPKS_NOT_PERMITTED, "setfacl");
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "mode 0000"));
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_ok(as_nobody(open_to_read, path));
    ck_assert_int_eq(chmod(folder, 0000), 0);
    ck_fails(as_nobody(open_to_read, path), TPKS_NOT_PERMITTED, "namei -l");
    ck_assert_int_eq(chmod(folder, 0755), 0);
}
END_TEST

START_TEST(test_no_right_to_write)
{
    make_keystore(path);
    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_fails(as_nobody(open_to_write, path), TPKS_NOT_PERMITTED, "sudo -u");
    ck_assert_int_eq(chmod(path, 0644), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(chown(path, 65534, 65534), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    ck_fails(as_nobody(write_row, path), TPKS_NOT_PERMITTED, "in its folder");
    ck_fails(as_nobody(create_there, other), TPKS_NOT_PERMITTED, folder);
    ck_assert_int_eq(chmod(folder, 0755), 0);
}
END_TEST

START_TEST(test_no_change_through_a_reader)
{
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_READ);
    ck_fails(be->begin(db, true), TPKS_INTERNAL, path);
    ck_fails(run0(db, "DELETE FROM tpks_t"), TPKS_INTERNAL, "for reading");
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t"), 200);
    be->close(db);
}
END_TEST

/* ---- interrupted changes --------------------------------------------------------------------- */

START_TEST(test_hot_journal_is_rolled_back)
{
    tpks_db *db;

    make_keystore(path);
    crash_while_writing(path);
    db = open_ok(path, TPKS_DB_READ);
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t WHERE name='name' || id"), 200);
    ck_fails(run0(db, "DELETE FROM tpks_t"), TPKS_INTERNAL, "for reading");
    ck_ok(be->check(db));
    be->close(db);

    crash_while_writing(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t WHERE name='name' || id"), 200);
    be->close(db);
}
END_TEST

START_TEST(test_hot_journal_without_rights)
{
    make_keystore(path);
    crash_while_writing(path);
    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    ck_fails(as_nobody(open_to_read, path), TPKS_DATABASE_UNAVAILABLE,
             "trustpoint-keystore status");
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "sudo -u"));
    ck_assert_int_eq(chmod(folder, 0755), 0);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_ok(try_open(path, TPKS_DB_READ));
    ck_ok(as_nobody(open_to_read, path));
}
END_TEST

START_TEST(test_hot_journal_under_an_open_handle)
{
    tpks_rows *rows;
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_READ);
    ck_ok(be->begin(db, false));
    ck_ok(be->commit(db));
    crash_while_writing(path);
    ck_fails(be->query(db, "SELECT count(*) FROM tpks_t", NULL, 0, &rows), TPKS_CONFLICT,
             "interrupted");
    ck_ok(be->begin(db, false));
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t WHERE name='name' || id"), 200);
    ck_ok(be->commit(db));
    be->close(db);
}
END_TEST

static int ghosts; /* how often a journal is still to be seen that is gone when it is opened */

static int see_ghosts(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    sqlite3_vfs *real = vfs->pAppData;

    if (flags == SQLITE_ACCESS_EXISTS && strstr(name, "-journal") != NULL && ghosts > 0) {
        ghosts--;
        *result = 1;
        return SQLITE_OK;
    }
    return real->xAccess(real, name, flags, result);
}

static int open_really(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    sqlite3_vfs *real = vfs->pAppData;

    return real->xOpen(real, name, file, flags, out);
}

/* A change that ends while a reader looks at its journal does not look like an interrupted one. */
START_TEST(test_vanishing_journal)
{
    sqlite3_vfs shim = *sqlite3_vfs_find(NULL);
    tpks_db *db;

    make_keystore(path);
    shim.pAppData = sqlite3_vfs_find(NULL);
    shim.zName = "ghosts";
    shim.xAccess = see_ghosts;
    shim.xOpen = open_really;
    ck_assert_int_eq(sqlite3_vfs_register(&shim, 1), SQLITE_OK);
    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    ghosts = 4;
    ck_ok(as_nobody(open_to_read, path));
    ghosts = 1000;
    ck_fails(as_nobody(open_to_read, path), TPKS_DATABASE_UNAVAILABLE, "interrupted");
    ck_assert_int_eq(chmod(folder, 0755), 0);
    ghosts = 0;
    db = open_ok(path, TPKS_DB_READ);
    ghosts = 4;
    ck_ok(be->begin(db, false));
    ck_assert_int_eq(ghosts, 0);
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t"), 200);
    ck_ok(be->commit(db));
    be->close(db);
    ck_assert_int_eq(sqlite3_vfs_unregister(&shim), SQLITE_OK);
}
END_TEST

/* ---- transactions ---------------------------------------------------------------------------- */

START_TEST(test_locked)
{
    sqlite3 *lock;
    tpks_db *first, *second;

    make_keystore(path);
    first = open_ok(path, TPKS_DB_WRITE);
    second = open_ok(path, TPKS_DB_WRITE);
    ck_ok(be->begin(first, true));
    ck_fails(be->begin(second, true), TPKS_DATABASE_UNAVAILABLE, "fuser -v");
    be->rollback(first);
    ck_ok(be->begin(second, true));
    be->rollback(second);
    be->close(second);

    ck_assert_int_eq(sqlite3_open(path, &lock), SQLITE_OK);
    ck_assert_int_eq(sqlite3_exec(lock, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    ck_fails(try_open(path, TPKS_DB_READ), TPKS_DATABASE_UNAVAILABLE, "locked");
    ck_fails(be->backup(first, other), TPKS_DATABASE_UNAVAILABLE, "locked");
    ck_assert(!exists(other));
    ck_assert_int_eq(sqlite3_exec(lock, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_close(lock), SQLITE_OK);
    be->close(first);
}
END_TEST

/* A commit that readers hold up is given up as a whole. */
START_TEST(test_commit_against_a_reader)
{
    tpks_db *reader, *writer;

    make_keystore(path);
    reader = open_ok(path, TPKS_DB_READ);
    writer = open_ok(path, TPKS_DB_WRITE);
    ck_ok(be->begin(reader, false));
    ck_ok(be->begin(writer, true));
    ck_ok(run0(writer, "DELETE FROM tpks_t WHERE id=1"));
    ck_fails(be->commit(writer), TPKS_DATABASE_UNAVAILABLE, "locked");
    ck_assert_int_eq(number_of(reader, "SELECT count(*) FROM tpks_t"), 200);
    ck_ok(be->commit(reader));
    ck_assert_int_eq(number_of(writer, "SELECT count(*) FROM tpks_t"), 200);
    ck_ok(be->begin(writer, true));
    ck_ok(run0(writer, "DELETE FROM tpks_t WHERE id=1"));
    ck_ok(be->commit(writer));
    ck_assert_int_eq(number_of(reader, "SELECT count(*) FROM tpks_t"), 199);
    be->close(writer);
    be->close(reader);
}
END_TEST

START_TEST(test_rollback)
{
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    be->rollback(db);
    ck_ok(be->begin(db, true));
    ck_ok(run0(db, "DELETE FROM tpks_t"));
    be->rollback(db);
    be->rollback(db);
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t"), 200);
    be->close(db);
}
END_TEST

enum { WRITERS = 4, ROUNDS = 25 };

/* Adds one to a counter, reading it first; again as long as others are in the way. */
static tpks_result count_once(tpks_db *db)
{
    tpks_result result = be->begin(db, true);

    if (result == TPKS_OK)
        result = run0(db, "UPDATE c SET n = (SELECT n FROM c) + 1");
    if (result == TPKS_OK)
        result = be->commit(db);
    be->rollback(db);
    return result;
}

static int count_up(void)
{
    tpks_db *db = NULL;
    tpks_result result;
    int done = 0;

    do
        result = be->open(path, TPKS_DB_WRITE, &db);
    while (result == TPKS_DATABASE_UNAVAILABLE);
    while (done < ROUNDS && (result == TPKS_OK || result == TPKS_DATABASE_UNAVAILABLE)) {
        result = count_once(db);
        done += result == TPKS_OK;
    }
    be->close(db);
    if (done < ROUNDS)
        fprintf(stderr, "%s\n", tpks_error_text());
    return done < ROUNDS;
}

START_TEST(test_concurrent_writers)
{
    pid_t children[WRITERS];
    int status;
    tpks_db *db;

    make_keystore(path);
    raw(path, "CREATE TABLE c (n INTEGER); INSERT INTO c VALUES (0)");
    for (int i = 0; i < WRITERS; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0)
            _exit(count_up());
    }
    for (int i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_int_eq(status, 0);
    }
    db = open_ok(path, TPKS_DB_READ);
    ck_assert_int_eq(number_of(db, "SELECT n FROM c"), WRITERS * ROUNDS);
    ck_ok(be->check(db));
    be->close(db);
}
END_TEST

START_TEST(test_disk_full_and_io_error)
{
    struct rlimit limit = {300 * 4096, 300 * 4096};
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_ok(run0(db, "PRAGMA max_page_count=120"));
    ck_ok(be->begin(db, true));
    ck_fails(run0(db, "UPDATE tpks_t SET data=zeroblob(100000)"), TPKS_DATABASE_UNAVAILABLE,
             "disk is full");
    be->rollback(db);
    be->close(db);

    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_ok(be->begin(db, true));
    ck_fails(run0(db, "UPDATE tpks_t SET data=zeroblob(10000)"), TPKS_DATABASE_UNAVAILABLE,
             "ulimit -f");
    be->rollback(db);
    be->close(db);
    db = open_ok(path, TPKS_DB_READ);
    ck_assert_int_eq(number_of(db, "SELECT max(length(data)) FROM tpks_t"), 2048);
    ck_ok(be->check(db));
    limit.rlim_cur = 4096;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_fails(be->backup(db, other), TPKS_DATABASE_UNAVAILABLE, other);
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "ulimit -f"));
    ck_assert(!exists(other));
    be->close(db);
}
END_TEST

/* ---- SQL ------------------------------------------------------------------------------------- */

static void ck_value(tpks_value got, tpks_value want)
{
    ck_assert_int_eq(got.type, want.type);
    ck_assert_int_eq(got.integer, want.integer);
    ck_assert_uint_eq(got.size, want.size);
    if (want.type == TPKS_VALUE_TEXT || want.type == TPKS_VALUE_BLOB) {
        ck_assert_ptr_nonnull(got.data);
        ck_assert(want.size == 0 || memcmp(got.data, want.data, want.size) == 0);
    }
    if (want.type == TPKS_VALUE_TEXT)
        ck_assert_int_eq(((const char *)got.data)[got.size], '\0');
}

START_TEST(test_values_round_trip)
{
    static unsigned char big[1 << 20];
    const tpks_value values[] = {
        {.type = TPKS_VALUE_NULL},
        {.type = TPKS_VALUE_INTEGER, .integer = INT64_MIN},
        {.type = TPKS_VALUE_INTEGER, .integer = INT64_MAX},
        {.type = TPKS_VALUE_INTEGER, .integer = 0},
        {.type = TPKS_VALUE_BLOB, .data = NULL, .size = 0},
        {.type = TPKS_VALUE_BLOB, .data = big, .size = sizeof(big)},
        {.type = TPKS_VALUE_BLOB, .data = "\0\xff", .size = 2},
        {.type = TPKS_VALUE_TEXT, .data = NULL, .size = 0},
        {.type = TPKS_VALUE_TEXT, .data = "Gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x91", .size = 11},
        {.type = TPKS_VALUE_TEXT, .data = "a\0b", .size = 3},
    };
    size_t count = sizeof(values) / sizeof(values[0]);
    tpks_rows *rows;
    uint64_t changed = 0;
    bool got;
    tpks_db *db;

    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (unsigned char)(i * 7);
    make_keystore(path);
    raw(path, "CREATE TABLE v (i INTEGER PRIMARY KEY, x)");
    db = open_ok(path, TPKS_DB_WRITE);
    for (size_t i = 0; i < count; i++) {
        const tpks_value both[] = {values[i], int_value((int64_t)i)};

        ck_ok(be->run(db, "INSERT INTO v (i, x) VALUES ($2, $1)", both, 2, &changed));
        ck_assert_uint_eq(changed, 1);
    }
    ck_ok(be->query(db, "SELECT x FROM v ORDER BY i", NULL, 0, &rows));
    for (size_t i = 0; i < count; i++) {
        ck_ok(be->next(rows, &got));
        ck_assert(got);
        ck_value(be->column(rows, 0), values[i]);
    }
    ck_ok(be->next(rows, &got));
    ck_assert(!got);
    be->finish(rows);
    ck_ok(be->run(db, "DELETE FROM v", NULL, 0, &changed));
    ck_assert_uint_eq(changed, count);
    be->close(db);
}
END_TEST

START_TEST(test_too_large)
{
    size_t size = 5 * 1024 * 1024;
    tpks_value big = {.type = TPKS_VALUE_BLOB, .data = calloc(1, size), .size = size};
    tpks_db *db;

    ck_assert_ptr_nonnull(big.data);
    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_fails(be->run(db, "UPDATE tpks_t SET data=$1 WHERE id=1", &big, 1, NULL), TPKS_BAD_INPUT,
             "too large");
    be->close(db);
    free((void *)(uintptr_t)big.data);
    raw(path, "UPDATE tpks_t SET data=zeroblob(5000000) WHERE id=1");
    db = open_ok(path, TPKS_DB_READ);
    {
        tpks_rows *rows;
        bool got = true;

        ck_ok(be->query(db, "SELECT data FROM tpks_t WHERE id=1", NULL, 0, &rows));
        ck_fails(be->next(rows, &got), TPKS_DATABASE_UNAVAILABLE, "larger");
        be->finish(rows);
    }
    be->close(db);
}
END_TEST

START_TEST(test_unique)
{
    tpks_value name = text_value("name2");
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_ok(be->begin(db, true));
    ck_ok(run0(db, "UPDATE tpks_t SET name='first' WHERE id=1"));
    ck_fails(be->run(db, "UPDATE tpks_t SET name=$1 WHERE id=3", &name, 1, NULL), TPKS_EXISTS,
             "tpks_t.name");
    ck_fails(run0(db, "INSERT INTO tpks_t (id) VALUES (5)"), TPKS_EXISTS, path);
    ck_ok(be->commit(db));
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t WHERE name='first'"), 1);
    be->close(db);
}
END_TEST

START_TEST(test_parameters_are_counted)
{
    tpks_value values[] = {int_value(1), int_value(2)};
    tpks_rows *rows;
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_fails(be->query(db, "SELECT name FROM tpks_t WHERE id=$1", values, 2, &rows), TPKS_INTERNAL,
             "parameters");
    ck_fails(be->query(db, "SELECT name FROM tpks_t WHERE id=$1 AND id=$3", values, 2, &rows),
             TPKS_INTERNAL, "$2");
    ck_fails(run0(db, "DELETE FROM tpks_t WHERE id=1; DELETE FROM tpks_t"), TPKS_INTERNAL, path);
    ck_fails(run0(db, ""), TPKS_INTERNAL, path);
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM tpks_t"), 200);
    be->close(db);
}
END_TEST

/* The same text twice at once, more texts than are kept, and values that are gone when stepped. */
START_TEST(test_many_statements)
{
    tpks_rows *outer, *inner;
    bool got;
    char sql[80], name[16];
    tpks_db *db;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_READ);
    snprintf(name, sizeof(name), "name7");
    {
        tpks_value value = text_value(name);

        ck_ok(be->query(db, "SELECT id FROM tpks_t WHERE name=$1", &value, 1, &outer));
    }
    snprintf(name, sizeof(name), "name9");
    {
        tpks_value value = text_value(name);

        ck_ok(be->query(db, "SELECT id FROM tpks_t WHERE name=$1", &value, 1, &inner));
    }
    ck_ok(be->next(outer, &got));
    ck_assert_int_eq(be->column(outer, 0).integer, 7);
    ck_ok(be->next(inner, &got));
    ck_assert_int_eq(be->column(inner, 0).integer, 9);
    for (int i = 0; i < 100; i++) {
        snprintf(sql, sizeof(sql), "SELECT %d FROM tpks_t WHERE id=1", i);
        ck_assert_int_eq(number_of(db, sql), i);
    }
    be->finish(inner);
    ck_assert_int_eq(be->column(outer, 0).integer, 7);
    be->finish(outer);
    be->finish(NULL);
    be->close(db);
    be->close(NULL);
}
END_TEST

/* What stands in the file does not run: no trigger, no view. But deleting reaches what belongs. */
START_TEST(test_schema_is_not_trusted)
{
    tpks_rows *rows;
    tpks_db *db;

    make_keystore(path);
    raw(path, "CREATE TABLE evil (x); CREATE TRIGGER t AFTER UPDATE ON tpks_t BEGIN INSERT INTO "
              "evil VALUES (1); END; CREATE VIEW w AS SELECT id FROM tpks_t; CREATE TABLE child (p "
              "INTEGER NOT NULL REFERENCES tpks_t(id) ON DELETE CASCADE); INSERT INTO child VALUES "
              "(3),(4)");
    db = open_ok(path, TPKS_DB_WRITE);
    ck_ok(run0(db, "UPDATE tpks_t SET name='x' WHERE id=2"));
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM evil"), 0);
    ck_fails(be->query(db, "SELECT id FROM w", NULL, 0, &rows), TPKS_DATABASE_UNAVAILABLE, "view");
    ck_ok(run0(db, "DELETE FROM tpks_t WHERE id=3"));
    ck_assert_int_eq(number_of(db, "SELECT count(*) FROM child"), 1);
    ck_fails(run0(db, "INSERT INTO child VALUES (9999)"), TPKS_INTERNAL, "FOREIGN KEY");
    be->close(db);
}
END_TEST

START_TEST(test_settings)
{
    tpks_db *db;

    make_keystore(path);
    raw(path, "PRAGMA journal_mode=WAL");
    db = open_ok(path, TPKS_DB_WRITE);
    ck_assert_int_eq(number_of(db, "PRAGMA synchronous"), 3);
    ck_assert_int_eq(number_of(db, "PRAGMA secure_delete"), 1);
    ck_assert_int_eq(number_of(db, "PRAGMA foreign_keys"), 1);
    ck_assert_int_eq(number_of(db, "PRAGMA cell_size_check"), 1);
    ck_assert_int_eq(number_of(db, "PRAGMA mmap_size"), 0);
    ck_assert_int_eq(number_of(db, "PRAGMA trusted_schema"), 0);
    ck_assert_int_eq(number_of(db, "PRAGMA busy_timeout"), TPKS_SQLITE_WAIT_MS);
    ck_assert_int_eq(number_of(db, "SELECT journal_mode='delete' FROM pragma_journal_mode"), 1);
    be->close(db);
}
END_TEST

/* ---- process --------------------------------------------------------------------------------- */

START_TEST(test_errno_and_descriptors)
{
    tpks_db *db;
    tpks_db_identity identity;

    make_keystore(path);
    errno = 77;
    ck_assert_int_eq(be->open(other, TPKS_DB_READ, &db), TPKS_UNINITIALIZED);
    ck_assert_int_eq(errno, 77);
    ck_assert_int_eq(be->open(path, TPKS_DB_READ, &db), TPKS_OK);
    ck_assert_int_eq(errno, 77);
    ck_assert_int_eq(be->identity(db, &identity), TPKS_OK);
    (void)be->describe(db);
    ck_assert_int_eq(errno, 77);
    for (int fd = 3; fd < 64; fd++) {
        char link[64], target[128];
        ssize_t size;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        size = readlink(link, target, sizeof(target));
        if (size == (ssize_t)strlen(path) && memcmp(target, path, (size_t)size) == 0)
            ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    }
    errno = 77;
    be->close(db);
    ck_assert_int_eq(errno, 77);
}
END_TEST

START_TEST(test_closing_in_a_child_changes_nothing)
{
    tpks_db *db, *second;
    int status;
    pid_t child;

    make_keystore(path);
    db = open_ok(path, TPKS_DB_WRITE);
    ck_ok(be->begin(db, true));
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        be->close(db);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    second = open_ok(path, TPKS_DB_WRITE);
    ck_fails(be->begin(second, true), TPKS_DATABASE_UNAVAILABLE, "locked");
    be->close(second);
    ck_ok(run0(db, "DELETE FROM tpks_t WHERE id=1"));
    ck_ok(be->commit(db));
    be->close(db);
}
END_TEST

START_TEST(test_moved)
{
    tpks_db *db;

    make_keystore(path);
    make_keystore(other);
    db = open_ok(path, TPKS_DB_READ);
    ck_assert(!be->moved(db));
    ck_assert_int_eq(rename(other, path), 0);
    ck_assert(be->moved(db));
    ck_assert_int_eq(unlink(path), 0);
    errno = 77;
    ck_assert(be->moved(db));
    ck_assert_int_eq(errno, 77);
    be->close(db);
}
END_TEST

/* ---- backup ---------------------------------------------------------------------------------- */

START_TEST(test_backup_while_writing)
{
    struct stat st;
    tpks_db *writer, *reader, *copy;
    tpks_db_identity identity;

    make_keystore(path);
    writer = open_ok(path, TPKS_DB_WRITE);
    reader = open_ok(path, TPKS_DB_READ);
    ck_ok(be->begin(writer, true));
    ck_ok(run0(writer, "DELETE FROM tpks_t WHERE id > 100"));
    ck_ok(be->backup(reader, other));
    ck_ok(be->commit(writer));
    ck_assert_int_eq(stat(other, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    copy = open_ok(other, TPKS_DB_READ);
    ck_assert_int_eq(number_of(copy, "SELECT count(*) FROM tpks_t"), 200);
    ck_ok(be->identity(copy, &identity));
    ck_assert(identity.marked);
    ck_ok(be->check(copy));
    be->close(copy);
    ck_fails(be->backup(reader, other), TPKS_EXISTS, other);
    ck_fails(be->backup(reader, "/no/such/folder/copy"), TPKS_DATABASE_UNAVAILABLE, "mkdir");
    ck_ok(try_open(other, TPKS_DB_READ));
    be->close(reader);
    be->close(writer);
}
END_TEST

/* ---- the finder ------------------------------------------------------------------------------ */

START_TEST(test_find)
{
    const tpks_backend *first, *second;
    const char *location;

    errno = 77;
    ck_ok(backend_find("sqlite:/a/b:c", &first, &location));
    ck_assert_int_eq(errno, 77);
    ck_assert_str_eq(location, "/a/b:c");
    ck_assert_str_eq(first->name, "sqlite");
    ck_ok(backend_find("sqlite:", &second, &location));
    ck_assert_ptr_eq(first, second);
    ck_assert_str_eq(location, "");
    ck_assert_int_eq(first->open("/no/such/file", TPKS_DB_READ, &(tpks_db *){NULL}),
                     TPKS_UNINITIALIZED);
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "/no/such"));
}
END_TEST

START_TEST(test_find_refuses)
{
    static const char *const bad[] = {"",         ":",          "sqlite",    "/var/lib/ks.db",
                                      "SQLite:x", "../sqlite:", "sq lite:x", "a/b:x"};
    const tpks_backend *backend;
    const char *location;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_fails(backend_find(bad[i], &backend, &location), TPKS_BAD_CONFIG, "PLUGIN:LOCATION");
    ck_fails(backend_find("abcdefghijklmnopqrstuvwxyz0123456789:x", &backend, &location),
             TPKS_BAD_CONFIG, "PLUGIN:LOCATION");
    ck_fails(backend_find("nosuch:x", &backend, &location), TPKS_BAD_CONFIG,
             TPKS_PLUGINDIR "/nosuch.so");
}
END_TEST

START_TEST(test_find_refuses_foreign_objects)
{
    const tpks_backend *backend;
    const char *location;
    char store[64], file[PATH_MAX];

    snprintf(store, sizeof(store), "notelf%d:x", getpid());
    snprintf(file, sizeof(file), TPKS_PLUGINDIR "/notelf%d.so", getpid());
    write_file(file, "not a shared object\n", 0644);
    ck_fails(backend_find(store, &backend, &location), TPKS_BAD_CONFIG, file);
    ck_assert_int_eq(unlink(file), 0);

    /* Our own plugin under another name is not that other plugin. */
    snprintf(store, sizeof(store), "alias%d:x", getpid());
    snprintf(file, sizeof(file), TPKS_PLUGINDIR "/alias%d.so", getpid());
    ck_assert_int_eq(symlink("sqlite.so", file), 0);
    ck_fails(backend_find(store, &backend, &location), TPKS_BAD_CONFIG, "another version");
    ck_assert_int_eq(unlink(file), 0);
}
END_TEST

START_TEST(test_other_abi)
{
    const tpks_backend_host newer = {TPKS_BACKEND_ABI + 1, fail};

    ck_assert_ptr_null(tpks_backend_entry(&newer));
}
END_TEST

static Suite *make_suite(void)
{
    const TTest *const tests[] = {
        test_create_and_identity,
        test_create_refuses_what_is_there,
        test_create_without_commit_leaves_nothing,
        test_create_goes_on_with_what_a_killed_one_left,
        test_create_does_not_remove_the_file_of_others,
        test_missing,
        test_bad_location,
        test_not_a_file,
        test_symbolic_links,
        test_empty_and_foreign_files,
        test_foreign_journal_mode_is_kept,
        test_damaged,
        test_missing_table_is_damage,
        test_writable_by_others,
        test_no_right_to_read,
        test_no_right_to_write,
        test_no_change_through_a_reader,
        test_hot_journal_is_rolled_back,
        test_hot_journal_without_rights,
        test_hot_journal_under_an_open_handle,
        test_vanishing_journal,
        test_locked,
        test_commit_against_a_reader,
        test_rollback,
        test_concurrent_writers,
        test_disk_full_and_io_error,
        test_values_round_trip,
        test_too_large,
        test_unique,
        test_parameters_are_counted,
        test_many_statements,
        test_schema_is_not_trusted,
        test_settings,
        test_errno_and_descriptors,
        test_closing_in_a_child_changes_nothing,
        test_moved,
        test_backup_while_writing,
        test_find,
        test_find_refuses,
        test_find_refuses_foreign_objects,
        test_other_abi,
    };
    Suite *suite = suite_create("sqlite");
    TCase *tcase = tcase_create("sqlite");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
