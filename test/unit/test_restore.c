/*
 * test_restore.c - a token loses its KEK and gets it back; slots come and go
 *
 * On a real token (SoftHSM) in a folder of its own. Losing a KEK is done as it happens: the object
 * is destroyed behind our back, or the whole token is made anew.
 */
#include <sys/resource.h>
#include <sys/wait.h>

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <sqlite3.h>

#include "keystore_internal.h"
#include "restore_lock.h"

#include "unit.h"

#define PASSWORD "correct horse battery staple"
#define SOFTHSM "/usr/lib/softhsm/libsofthsm2.so"

static TPKS_CONFIG *config;
static TPKS_SECRET *password;
static char token_uri[512];
static char config_path[512];
static char prompts[256]; /* one byte for each question that any process asked */

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    ck_assert_msg(system(command) == 0, "%s", command);
}

static void init_token(const char *label)
{
    shell("softhsm2-util --init-token --free --label %s --so-pin 87654321 --pin 123456 >/dev/null",
          label);
}

static const char *answer; /* what the callback gives; NULL: it refuses */

/* Runs in the loading program too, where Check's assertions do not work. */
static int ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
               size_t *length)
{
    int fd = open(prompts, O_WRONLY | O_APPEND | O_CREAT, 0600);

    (void)arg;
    if (purpose != TPKS_ASK_PASSWORD || strstr(info, "Trustpoint keystore edge (") == NULL ||
        write(fd, "?", 1) != 1)
        abort();
    close(fd);
    if (answer == NULL || strlen(answer) > size)
        return 0;
    memcpy(buffer, answer, strlen(answer));
    *length = strlen(answer);
    return 1;
}

static long prompt_count(void)
{
    struct stat info;

    return stat(prompts, &info) == 0 ? (long)info.st_size : 0;
}

static tpks_options options_for(tpks_access access)
{
    return (tpks_options){.config = config, .access = access, .ask = ask};
}

static TPKS *open_for(tpks_access access)
{
    tpks_options options = options_for(access);
    TPKS *ks = NULL;

    expect_ok(tpks_open(&options, &ks));
    return ks;
}

static void add_record(void)
{
    TPKS *ks = open_for(TPKS_WRITE);
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    TPKS_SECRET *pkcs8 = tpks_secret_copy(der, (size_t)size);

    expect_ok(tpks_add(ks, "web", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    tpks_secret_free(pkcs8);
    OPENSSL_clear_free(der, (size_t)size);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    tpks_close(ks);
}

static void setup(void)
{
    char text[1024];

    shell("rm -rf %s/* && mkdir %s/tokens", scratch(), scratch());
    snprintf(prompts, sizeof(prompts), "%s/prompts", scratch());
    snprintf(text, sizeof(text), "directories.tokendir = %s/tokens\n", scratch());
    setenv("SOFTHSM2_CONF", write_file("softhsm2.conf", text, strlen(text), 0600), 1);
    init_token("edge");
    write_file("pin", "123456\n", 7, 0600);
    snprintf(token_uri, sizeof(token_uri),
             "pkcs11:token=edge?module-path=" SOFTHSM "&pin-source=file:%s/pin", scratch());
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\ntoken = %s\n", scratch(),
             scratch(), token_uri);
    snprintf(config_path, sizeof(config_path), "%s",
             write_file("keystore.cnf", text, strlen(text), 0600));
    expect_ok(tpks_config_load(config_path, &config));
    password = secret_of(PASSWORD);
    answer = PASSWORD;
    tpks_options options = options_for(TPKS_WRITE);
    tpks_create_params params = {
        .label = "edge", .password = password, .cost = {.t = 1, .m_kib = 8192, .p = 1}};
    expect_ok(tpks_create(&options, &params, NULL));
    add_record();
}

static void teardown(void)
{
    tpks_secret_free(password);
    tpks_config_free(config);
}

static tpks_result load(void)
{
    tpks_options options = options_for(TPKS_LOAD);
    tpks_selector by_name = {.name = "web"};
    TPKS *ks = NULL;
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;
    tpks_result result = tpks_open(&options, &ks);

    if (result == TPKS_OK)
        result = tpks_find(ks, &by_name, &record);
    if (result == TPKS_OK)
        result = tpks_load_key(ks, record, &pkcs8);
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
    tpks_close(ks);
    return result;
}

/* In a new program, as a server that starts: it sees the token as it is now. */
static pid_t start_load(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "test_restore", "load", config_path, prompts,
              answer == NULL ? "" : answer, NULL);
        _exit(127);
    }
    return pid;
}

static tpks_result end_load(pid_t pid)
{
    int status = 0;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    return (tpks_result)WEXITSTATUS(status);
}

static tpks_result load_elsewhere(void)
{
    return end_load(start_load());
}

/* What that program does. */
static int load_as_told(char **argv)
{
    snprintf(prompts, sizeof(prompts), "%s", argv[3]);
    answer = *argv[4] == '\0' ? NULL : argv[4];
    tpks_result result = tpks_config_load(argv[2], &config);
    if (result == TPKS_OK)
        result = load();
    tpks_config_free(config);
    return (int)result;
}

typedef struct slot_count {
    const char *kind;
    const char *state;
    int count;
} slot_count;

static tpks_result count_slot(void *arg, const tpks_slot_info *slot)
{
    slot_count *c = arg;

    c->count += strcmp(slot->kind, c->kind) == 0 && strcmp(slot->state, c->state) == 0;
    return TPKS_OK;
}

static int slots(const char *kind, const char *state)
{
    TPKS *ks = open_for(TPKS_LOAD);
    slot_count c = {kind, state, 0};

    expect_ok(tpks_each_slot(ks, count_slot, &c));
    tpks_close(ks);
    return c.count;
}

static tpks_result keep_first(void *arg, const tpks_slot_info *slot)
{
    tpks_slot_info *first = arg;

    if (strcmp(slot->kind, first->kind) == 0 && strcmp(slot->state, "active") == 0) {
        memcpy(first->id, slot->id, TPKS_ID_SIZE);
        if (slot->cka_id != NULL && first->cka_id != NULL)
            memcpy((unsigned char *)first->cka_id, slot->cka_id, CKA_ID_SIZE);
    }
    return TPKS_OK;
}

static void active_slot(const char *kind, unsigned char id[TPKS_ID_SIZE],
                        unsigned char cka_id[CKA_ID_SIZE])
{
    TPKS *ks = open_for(TPKS_LOAD);
    tpks_slot_info first = {.kind = kind, .cka_id = cka_id};

    expect_ok(tpks_each_slot(ks, keep_first, &first));
    memcpy(id, first.id, TPKS_ID_SIZE);
    tpks_close(ks);
}

/* Destroys the KEK in another process, so that nothing here knows. */
static void lose_kek(void)
{
    unsigned char id[TPKS_ID_SIZE], cka_id[CKA_ID_SIZE];
    int status = 0;

    active_slot("hsm-aes", id, cka_id);
    pid_t pid = fork();
    if (pid == 0) {
        hsm_options options = {.token_uri = token_uri, .lock_dir = scratch(), .write = true};
        HSM *hsm = NULL;
        _exit(hsm_open(&options, &hsm) != TPKS_OK || hsm_destroy_kek(hsm, cka_id) != TPKS_OK);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

static void lose_token(void)
{
    shell("rm -rf %s/tokens/*", scratch());
}

/* ---- restore ---- */

START_TEST(a_lost_kek_is_restored_while_loading)
{
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    lose_kek();
    answer = NULL;
    expect(TPKS_KEK_MISSING, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 1);
    answer = "not the right password";
    expect(TPKS_WRONG_SECRET, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 2);
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    answer = PASSWORD;
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 3);
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 3);
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 1);
}
END_TEST

START_TEST(a_new_token_of_the_same_name_is_a_lost_kek)
{
    lose_token();
    expect(TPKS_TOKEN_MISSING, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    init_token("edge");
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 1);
    /* The slot of the token that is gone says nothing about the new one. */
    ck_assert_int_eq(slots("hsm-aes", "active"), 2);
}
END_TEST

/* In this very process, which knew the old token. */
START_TEST(a_wiped_token_is_made_anew_on_demand)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;
    TPKS_SECRET *so_pin = secret_of("87654321");

    lose_token();
    expect(TPKS_TOKEN_MISSING, tpks_restore(&options, &params, &report));
    params.so_pin = so_pin;
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored);
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    /* The token that is there is not touched. */
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(!report.restored);
    expect_ok(load_elsewhere());
    tpks_secret_free(so_pin);
}
END_TEST

START_TEST(nothing_but_a_lost_kek_asks)
{
    shell("chmod 0644 %s/pin", scratch());
    expect(TPKS_NOT_PERMITTED, load_elsewhere());
    shell("chmod 0600 %s/pin && printf 000000 >%s/pin", scratch(), scratch());
    expect(TPKS_WRONG_SECRET, load_elsewhere());
    expect(TPKS_PIN_LOCKED, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
}
END_TEST

/* Somebody imports another AES key under our CKA_ID. */
START_TEST(a_foreign_kek_is_neither_used_nor_destroyed)
{
    unsigned char id[TPKS_ID_SIZE], cka_id[CKA_ID_SIZE];
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;
    int status = 0;

    active_slot("hsm-aes", id, cka_id);
    lose_kek();
    pid_t pid = fork();
    if (pid == 0) {
        hsm_options writing = {.token_uri = token_uri, .lock_dir = scratch(), .write = true};
        HSM *hsm = NULL;
        TPKS_SECRET *other = tpks_secret_new(DEK_SIZE);
        wrap_algorithm algorithm;
        unsigned char wrapped[WRAPPED_MAX], iv[16];
        size_t wrapped_size = 0, iv_size = 0;
        _exit(hsm_open(&writing, &hsm) != TPKS_OK ||
              hsm_make_kek(hsm, cka_id, "foreign", other, &algorithm, wrapped, &wrapped_size, iv,
                           &iv_size) != TPKS_OK);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(TPKS_KEK_FOREIGN, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert_int_eq(report.found, TPKS_KEK_FOREIGN);
    ck_assert(report.restored);
    expect_ok(load_elsewhere());
    hsm_options reading = {.token_uri = token_uri, .lock_dir = scratch()};
    HSM *hsm = NULL;
    expect_ok(hsm_open(&reading, &hsm));
    expect_ok(hsm_find_kek(hsm, cka_id));
    hsm_close(hsm);
}
END_TEST

START_TEST(a_restore_on_demand_looks_before_it_acts)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password, .dry_run = true};
    tpks_restore_report report;

    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert_int_eq(report.found, TPKS_OK);
    lose_kek();
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert_int_eq(report.found, TPKS_KEK_MISSING);
    ck_assert(!report.restored);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 0);
    params.dry_run = false;
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored);
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(!report.restored);
    ck_assert_int_eq(prompt_count(), 0);
    expect_ok(load_elsewhere());
}
END_TEST

START_TEST(a_source_of_the_configuration_spares_the_question)
{
    char text[1024];

    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\ntoken = %s\n"
             "restore = file:%s/password, callback\n",
             scratch(), scratch(), token_uri, scratch());
    write_file("keystore.cnf", text, strlen(text), 0600);
    write_file("password", PASSWORD "\n", strlen(PASSWORD) + 1, 0600);
    lose_kek();
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
}
END_TEST

START_TEST(many_processes_ask_once)
{
    enum { PROCESSES = 12 };
    pid_t pids[PROCESSES];

    lose_kek();
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = start_load();
    for (int i = 0; i < PROCESSES; i++)
        ck_assert_int_eq(end_load(pids[i]), TPKS_OK);
    ck_assert_int_eq(prompt_count(), 1);
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 1);
}
END_TEST

/* The token can't wrap for a while: however often that is tried, nothing of it stays. */
START_TEST(a_restore_that_fails_leaves_no_slot)
{
    char conf[256], less[300];

    snprintf(conf, sizeof(conf), "directories.tokendir = %s/tokens\n", scratch());
    snprintf(less, sizeof(less), "%sslots.mechanisms = CKM_SHA256\n", conf);
    lose_kek();
    write_file("softhsm2.conf", less, strlen(less), 0600);
    for (int i = 0; i < 3; i++)
        expect(TPKS_UNSUPPORTED, load_elsewhere());
    write_file("softhsm2.conf", conf, strlen(conf), 0600);
    ck_assert_int_eq(slots("hsm-aes", "pending"), 0);
    ck_assert_int_eq(slots("hsm-aes", "retired"), 0);
    expect_ok(load_elsewhere());
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    ck_assert_int_eq(slots("hsm-aes", "retired"), 0);
}
END_TEST

/* Another configuration of the same keystore. */
static TPKS_CONFIG *other_config(const char *token, const char *more)
{
    TPKS_CONFIG *other = NULL;
    char text[2048];

    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\ntoken = %s\n%s\n",
             scratch(), scratch(), token, more);
    expect_ok(tpks_config_load(write_file("other.cnf", text, strlen(text), 0600), &other));
    return other;
}

START_TEST(without_a_secret_it_says_where_it_looked)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {0};
    tpks_restore_report report;
    TPKS_CONFIG *other =
        other_config(token_uri, "restore = credential, file:/nowhere/password, callback, socket");

    options.config = other;
    options.ask = NULL;
    lose_kek();
    expect(TPKS_KEK_MISSING, tpks_restore(&options, &params, &report));
    ck_assert_int_eq(report.found, TPKS_KEK_MISSING);
    ck_assert(!report.restored);
    expect_text("credential: systemd gave none");
    expect_text("file:/nowhere/password: is not there");
    expect_text("callback: nobody to ask");
    expect_text("socket: used by");
    expect_text("--password-file");
    params.secret = secret_of("not the right password");
    expect(TPKS_WRONG_SECRET, tpks_restore(&options, &params, &report));
    tpks_secret_free((TPKS_SECRET *)params.secret);
    tpks_config_free(other);
}
END_TEST

/* Has the lock until its input ends. */
static pid_t start_holder(const TPKS *ks, int *input)
{
    int in[2], out[2];
    char byte = 0;

    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = -1;
        close(in[1]);
        if (restore_lock_take(ks, 0, &fd) != TPKS_OK || fd < 0 || write(out[1], "!", 1) != 1)
            _exit(1);
        _exit(read(in[0], &byte, 1) != 0);
    }
    close(in[0]);
    close(out[1]);
    ck_assert_int_eq(read(out[0], &byte, 1), 1);
    close(out[0]);
    *input = in[1];
    return pid;
}

START_TEST(who_waits_is_told_who_restores)
{
    tpks_options options = options_for(TPKS_LOAD);
    TPKS *ks = NULL;
    char who[64];
    int input = -1, status = 0;

    lose_kek();
    options.no_restore = true;
    expect_ok(tpks_open(&options, &ks));
    pid_t pid = start_holder(ks, &input);
    snprintf(who, sizeof(who), "process %ld (test_restore on host ", (long)pid);
    /* However often it asks: who is told takes nothing from the one who restores. */
    for (int i = 0; i < 2; i++) {
        expect(TPKS_RESTORE_PENDING, tpks_unlock(ks));
        expect_text(who);
    }
    close(input);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(TPKS_KEK_MISSING, tpks_unlock(ks));
    tpks_close(ks);
}
END_TEST

START_TEST(a_line_of_the_log_stays_one_line)
{
    tpks_options options = options_for(TPKS_LOAD);
    TPKS *ks = NULL;
    char more[300], line[512] = "";

    snprintf(more, sizeof(more), "log = file:%s/log", scratch());
    TPKS_CONFIG *other = other_config(token_uri, more);
    options.config = other;
    expect_ok(tpks_open(&options, &ks));
    tpks_log(ks, "test", "a\"b\\c\nd\xc2\x85\xe2\x80\xae\xc3\xbc", TPKS_OK);
    tpks_close(ks);
    tpks_config_free(other);
    snprintf(more, sizeof(more), "%s/log", scratch());
    FILE *log = fopen(more, "r");
    ck_assert_ptr_nonnull(log);
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), log));
    ck_assert_msg(
        strstr(line, " record=\"a\\x22b\\x5cc\\x0ad\\xc2\\x85\\xe2\\x80\\xae\xc3\xbc\"\n") != NULL,
        "%s", line);
    ck_assert_int_eq(fgetc(log), EOF);
    fclose(log);
}
END_TEST

/* ---- slots ---- */

START_TEST(a_password_is_changed_in_one_step)
{
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_SECRET *next = secret_of("another long password");
    TPKS_SECRET *short_one = secret_of("short");
    unsigned char old[TPKS_ID_SIZE], cka_id[CKA_ID_SIZE];
    tpks_kdf_cost cost = {.t = 1, .m_kib = 8192, .p = 1};

    active_slot("password", old, cka_id);
    expect(TPKS_BAD_INPUT, tpks_password_change(ks, old, short_one, cost, NULL));
    expect_ok(tpks_password_change(ks, old, next, cost, NULL));
    expect(TPKS_NOT_FOUND, tpks_password_change(ks, old, next, cost, NULL));
    expect(TPKS_WRONG_SECRET, tpks_unlock_with(ks, password));
    expect_ok(tpks_unlock_with(ks, next));
    tpks_close(ks);
    ck_assert_int_eq(slots("password", "active"), 1);
    tpks_secret_free(short_one);
    tpks_secret_free(next);
}
END_TEST

START_TEST(the_last_way_back_stays)
{
    TPKS *ks = open_for(TPKS_WRITE);
    unsigned char id[TPKS_ID_SIZE], recovery[TPKS_ID_SIZE], cka_id[CKA_ID_SIZE];
    TPKS_SECRET *key = NULL;

    active_slot("password", id, cka_id);
    expect(TPKS_NOT_PERMITTED, tpks_slot_remove(ks, id, false));
    expect_ok(tpks_slot_add_recovery(ks, &key, recovery));
    expect_ok(tpks_slot_remove(ks, id, false));
    expect(TPKS_NOT_FOUND, tpks_slot_remove(ks, id, false));
    expect(TPKS_NOT_PERMITTED, tpks_slot_remove(ks, recovery, false));
    expect_ok(tpks_unlock_with(ks, key));
    tpks_secret_free(key);
    tpks_close(ks);
    expect_ok(load_elsewhere());
}
END_TEST

START_TEST(a_kek_is_rotated_and_its_predecessor_destroyed)
{
    TPKS *ks = open_for(TPKS_WRITE);
    unsigned char old[TPKS_ID_SIZE], old_cka[CKA_ID_SIZE], new_id[TPKS_ID_SIZE];
    hsm_options reading = {.token_uri = token_uri, .lock_dir = scratch()};
    HSM *hsm = NULL;

    active_slot("hsm-aes", old, old_cka);
    expect_ok(tpks_rotate_kek(ks, new_id));
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 1);
    expect_ok(load_elsewhere());
    expect_ok(hsm_open(&reading, &hsm));
    expect_ok(hsm_find_kek(hsm, old_cka));
    expect_ok(tpks_slot_remove(ks, old, true));
    expect(TPKS_KEK_MISSING, hsm_find_kek(hsm, old_cka));
    hsm_close(hsm);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 0);
    tpks_close(ks);
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
}
END_TEST

START_TEST(a_second_token_gets_a_slot_of_its_own)
{
    TPKS *ks = open_for(TPKS_WRITE);
    char other[512];

    init_token("second");
    snprintf(other, sizeof(other),
             "pkcs11:token=second?module-path=" SOFTHSM "&pin-source=file:%s/pin", scratch());
    expect_ok(tpks_unlock_with(ks, password));
    expect_ok(tpks_slot_add_hsm(ks, other, NULL));
    tpks_close(ks);
    ck_assert_int_eq(slots("hsm-aes", "active"), 2);
    expect_ok(load_elsewhere());
}
END_TEST

/* Slots are tried in the order of their ids, which are random: until it lies in the wanted half. */
static void add_password_in(TPKS *ks, bool first_half, const TPKS_SECRET *secret,
                            tpks_kdf_cost cost)
{
    unsigned char id[TPKS_ID_SIZE];

    for (;;) {
        expect_ok(tpks_slot_add_password(ks, secret, cost, id));
        if ((id[0] < 0x80) == first_half)
            return;
        expect_ok(tpks_slot_remove(ks, id, false));
    }
}

/* From now on this process gets no more than `more` bytes. */
static void limit_memory(size_t more)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    rlim_t size = pages * (rlim_t)sysconf(_SC_PAGESIZE) + more;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &(struct rlimit){size, size}), 0);
}

START_TEST(a_slot_that_does_not_fit_into_memory_hides_no_other)
{
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_SECRET *of_large = secret_of("the password of the large slot");
    TPKS_SECRET *of_small = secret_of("the password of the small slot");
    TPKS_SECRET *wrong = secret_of("not the right password");

    add_password_in(ks, true, of_large, (tpks_kdf_cost){.t = 1, .m_kib = 256 * 1024, .p = 1});
    add_password_in(ks, false, of_small, (tpks_kdf_cost){.t = 1, .m_kib = 8192, .p = 1});
    limit_memory((size_t)128 * 1024 * 1024);
    expect_ok(tpks_unlock_with(ks, of_small));
    expect(TPKS_NO_MEMORY, tpks_unlock_with(ks, of_large));
    /* Whether it is a wrong one nobody can say then. */
    expect(TPKS_NO_MEMORY, tpks_unlock_with(ks, wrong));
    expect_text("256 MiB");
    tpks_secret_free(wrong);
    tpks_secret_free(of_small);
    tpks_secret_free(of_large);
    tpks_close(ks);
}
END_TEST

/* Two tokens and no way back: of two removals at once, one is refused. */
START_TEST(two_writers_leave_a_slot)
{
    char text[1024], second[512];
    unsigned char id[2][TPKS_ID_SIZE];
    TPKS_CONFIG *other = NULL;
    TPKS *a = NULL, *b = NULL;
    HSM *hsm = NULL;
    tpks_create_params params = {.no_way_back = true};

    init_token("second");
    snprintf(second, sizeof(second),
             "pkcs11:token=second?module-path=" SOFTHSM "&pin-source=file:%s/pin", scratch());
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/other.db\nstate = %s/other\ntoken = %s\n", scratch(),
             scratch(), token_uri);
    expect_ok(tpks_config_load(write_file("other.cnf", text, strlen(text), 0600), &other));
    tpks_options options = {.config = other, .access = TPKS_WRITE};
    /* The module looks for new tokens only while nobody uses it. */
    expect_ok(
        hsm_open(&(hsm_options){.token_uri = second, .lock_dir = scratch(), .write = true}, &hsm));
    hsm_close(hsm);
    expect_ok(tpks_create(&options, &params, NULL));
    expect_ok(tpks_open(&options, &a));
    expect_ok(tpks_unlock(a));
    ck_assert(tpks_unlocked_slot(a, id[0]));
    expect_ok(tpks_slot_add_hsm(a, second, id[1]));
    expect_ok(tpks_open(&options, &b));
    expect_ok(tpks_unlock(b));
    expect_ok(tpks_slot_remove(a, id[1], false));
    expect(TPKS_NOT_PERMITTED, tpks_slot_remove(b, id[0], false));
    expect_text("last slot");
    tpks_close(a);
    tpks_close(b);
    tpks_config_free(other);
}
END_TEST

/* ---- a software keystore whose host has got an HSM ---- */

static void make_software_keystore_with_an_hsm_slot(void)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_create_params params = {.label = "edge",
                                 .software = true,
                                 .password = password,
                                 .cost = {.t = 1, .m_kib = 8192, .p = 1}};

    shell("rm -r %s/keystore.db %s/state", scratch(), scratch());
    expect_ok(tpks_create(&options, &params, NULL));
    add_record();
    TPKS *ks = open_for(TPKS_WRITE);
    expect_ok(tpks_slot_add_hsm(ks, NULL, NULL));
    tpks_close(ks);
}

START_TEST(without_its_dek_file_a_host_uses_its_hsm)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;

    make_software_keystore_with_an_hsm_slot();
    shell("rm %s/state/*.dek", scratch());
    expect_ok(load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    /* Its KEK is restored, and the DEK does not come to lie there in the clear. */
    lose_kek();
    answer = NULL;
    expect(TPKS_KEK_MISSING, load_elsewhere());
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored && !report.dek_file);
    shell("test ! -e %s/state/*.dek", scratch());
    expect_ok(load_elsewhere());
    ck_assert_int_eq(slots("hsm-aes", "active"), 1);
    ck_assert_int_eq(slots("hsm-aes", "stale"), 1);
}
END_TEST

START_TEST(a_dek_file_that_is_there_stays_the_way_to_the_dek)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;

    make_software_keystore_with_an_hsm_slot();
    lose_token();
    expect_ok(load_elsewhere());
    shell("f=$(echo %s/state/*.dek) && : >$f", scratch());
    expect(TPKS_KEK_FOREIGN, load_elsewhere());
    ck_assert_int_eq(prompt_count(), 0);
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored && report.dek_file);
    expect_ok(load_elsewhere());
}
END_TEST

/* ---- the cost of passwords ---- */

/* As if the default of this machine had been lower once: nobody asked for this slot's cost. */
static tpks_result forget_choice(TPKS *ks, const void *arg)
{
    (void)arg;
    for (size_t i = 0; i < ks->head.slot_count; i++)
        expect_ok(bytes_set(&ks->head.slots[i].extension, NULL, 0));
    return TPKS_OK;
}

static tpks_result write_slots(TPKS *ks, const void *arg)
{
    (void)arg;
    return native_replace_slots(&ks->d, &ks->head);
}

static void make_cost_a_default(void)
{
    TPKS *ks = open_for(TPKS_WRITE);

    expect_ok(tpks_unlock(ks));
    expect_ok(keystore_change(ks, forget_choice, write_slots, NULL));
    tpks_close(ks);
}

static tpks_result keep_password_slot(void *arg, const tpks_slot_info *slot)
{
    if (strcmp(slot->kind, "password") == 0)
        *(tpks_slot_info *)arg = *slot;
    return TPKS_OK;
}

static tpks_slot_info password_slot(void)
{
    TPKS *ks = open_for(TPKS_LOAD);
    tpks_slot_info slot = {.kind = NULL};

    expect_ok(tpks_each_slot(ks, keep_password_slot, &slot));
    ck_assert_ptr_nonnull(slot.kind);
    tpks_close(ks);
    return slot;
}

static uint64_t generation(void)
{
    TPKS *ks = open_for(TPKS_LOAD);
    tpks_status_info info;

    expect_ok(tpks_status(ks, &info));
    tpks_close(ks);
    return info.generation;
}

static void expect_opens(const TPKS_SECRET *secret)
{
    TPKS *ks = open_for(TPKS_LOAD);

    expect_ok(tpks_unlock_with(ks, secret));
    tpks_close(ks);
}

START_TEST(a_restore_raises_the_cost_of_its_password)
{
    tpks_options options = options_for(TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;
    tpks_kdf_cost policy;

    expect_ok(kdf_default_cost(&policy));
    lose_kek();
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored && !report.upgraded);
    tpks_slot_info before = password_slot();
    ck_assert(before.cost_chosen);
    ck_assert_uint_eq(before.cost.m_kib, 8192);
    make_cost_a_default();
    lose_kek();
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored && report.upgraded);
    tpks_slot_info after = password_slot();
    ck_assert_uint_eq(after.cost.m_kib, policy.m_kib);
    ck_assert_uint_ge(after.cost.t, policy.t);
    ck_assert_int_eq(memcmp(after.id, before.id, TPKS_ID_SIZE), 0);
    expect_opens(password);
    expect_ok(load_elsewhere());
    lose_kek();
    expect_ok(tpks_restore(&options, &params, &report));
    ck_assert(report.restored && !report.upgraded);
}
END_TEST

START_TEST(only_a_writer_with_the_password_raises_the_cost)
{
    uint64_t before;
    TPKS *ks = NULL;

    make_cost_a_default();
    before = generation();
    ks = open_for(TPKS_LOAD);
    expect_ok(tpks_unlock_with(ks, password));
    ck_assert(!tpks_upgrade_password(ks));
    tpks_close(ks);
    ks = open_for(TPKS_WRITE);
    expect_ok(tpks_unlock(ks));
    ck_assert(!tpks_upgrade_password(ks));
    expect_ok(tpks_unlock_with(ks, password));
    ck_assert_uint_eq(generation(), before);
    ck_assert(tpks_upgrade_password(ks));
    ck_assert_uint_eq(generation(), before + 1);
    ck_assert(!tpks_upgrade_password(ks));
    tpks_close(ks);
    expect_opens(password);
    expect_ok(load_elsewhere());
}
END_TEST

/* The password was replaced meanwhile: the old one must not come back. */
START_TEST(a_password_that_is_changed_meanwhile_is_not_raised)
{
    TPKS_SECRET *next = secret_of("another long password");
    tpks_kdf_cost cheap = {.t = 1, .m_kib = 8192, .p = 1};
    tpks_slot_info slot;

    make_cost_a_default();
    TPKS *slow = open_for(TPKS_WRITE);
    expect_ok(tpks_unlock_with(slow, password));
    slot = password_slot();
    TPKS *fast = open_for(TPKS_WRITE);
    expect_ok(tpks_password_change(fast, slot.id, next, cheap, NULL));
    tpks_close(fast);
    ck_assert(!tpks_upgrade_password(slow));
    expect(TPKS_WRONG_SECRET, tpks_unlock_with(slow, password));
    expect_ok(tpks_unlock_with(slow, next));
    tpks_close(slow);
    ck_assert_int_eq(slots("password", "active"), 1);
    tpks_secret_free(next);
}
END_TEST

/* ---- header backup ---- */

static void sql_in(const char *name, const char *statements)
{
    char path[300];
    sqlite3 *handle = NULL;
    char *error = NULL;

    snprintf(path, sizeof(path), "%s/%s", scratch(), name);
    ck_assert_int_eq(sqlite3_open(path, &handle), SQLITE_OK);
    sqlite3_exec(handle, statements, NULL, NULL, &error);
    ck_assert_msg(error == NULL, "%s", error);
    sqlite3_close(handle);
}

static void sql(const char *statements)
{
    sql_in("keystore.db", statements);
}

START_TEST(a_damaged_header_is_put_back)
{
    tpks_options options = options_for(TPKS_WRITE);
    char copy[300];
    TPKS *ks = open_for(TPKS_WRITE);

    snprintf(copy, sizeof(copy), "%s/header.copy", scratch());
    expect_ok(tpks_header_backup(ks, copy));
    tpks_close(ks);
    sql("UPDATE tpks_wrap SET wrapped = zeroblob(40); DELETE FROM tpks_header");
    ck_assert_int_ne(load_elsewhere(), TPKS_OK);
    expect_ok(tpks_header_restore(&options, copy, password));
    shell("cp %s/keystore.db %s/good.db", scratch(), scratch());
    sql("UPDATE tpks_slot SET label = 'x'");
    expect(TPKS_ROLLED_BACK, tpks_header_restore(&options, copy, password));
    options.accept_new_anchor = true;
    expect_ok(tpks_header_restore(&options, copy, NULL));
    expect_ok(load_elsewhere());
    /* Not over the records of another keystore. */
    sql("UPDATE tpks_record SET sealed = zeroblob(100)");
    expect(TPKS_TAMPERED, tpks_header_restore(&options, copy, password));
}
END_TEST

START_TEST(a_copy_of_the_header_is_kept)
{
    tpks_options options = options_for(TPKS_WRITE);
    char copy[300];

    options.accept_new_anchor = true; /* a record came after it */
    shell("cp %s/state/*.hdr %s/kept", scratch(), scratch());
    snprintf(copy, sizeof(copy), "%s/kept", scratch());
    sql("DELETE FROM tpks_slot");
    expect_ok(tpks_header_restore(&options, copy, password));
    expect_ok(load_elsewhere());
}
END_TEST

START_TEST(what_is_no_header_backup_is_called_that)
{
    tpks_options options = options_for(TPKS_WRITE);
    char path[300];

    snprintf(path, sizeof(path), "%s/nothing", scratch());
    expect(TPKS_NOT_FOUND, tpks_header_restore(&options, path, password));
    expect_text(path);
    expect_text("no such file");
    write_file("text", "not a database at all", 21, 0600);
    snprintf(path, sizeof(path), "%s/text", scratch());
    expect(TPKS_NOT_A_KEYSTORE, tpks_header_restore(&options, path, password));
    expect_text(path);
    expect_text("no header backup");
    write_file("empty", "", 0, 0600);
    snprintf(path, sizeof(path), "%s/empty", scratch());
    expect(TPKS_NOT_A_KEYSTORE, tpks_header_restore(&options, path, password));
    expect_text("no header backup");
    sql_in("other.db", "CREATE TABLE t (n)");
    snprintf(path, sizeof(path), "%s/other.db", scratch());
    expect(TPKS_NOT_A_KEYSTORE, tpks_header_restore(&options, path, password));
    expect_text("no header backup");
    expect_ok(load_elsewhere());
}
END_TEST

/* Another process changes the keystore while somebody types the PIN. */
static const char *change_meanwhile;
static int ask_pin(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                   size_t *length)
{
    (void)arg;
    (void)info;
    ck_assert_int_eq(purpose, TPKS_ASK_PIN);
    ck_assert_int_ge(size, 6);
    if (change_meanwhile != NULL)
        sql(change_meanwhile);
    memcpy(buffer, "123456", 6);
    *length = 6;
    return 1;
}

START_TEST(a_change_during_a_header_restore_is_noticed)
{
    tpks_options options = options_for(TPKS_WRITE);
    char copy[300], token[512];
    TPKS *ks = open_for(TPKS_WRITE);

    snprintf(copy, sizeof(copy), "%s/header.copy", scratch());
    expect_ok(tpks_header_backup(ks, copy));
    tpks_close(ks);
    snprintf(token, sizeof(token), "pkcs11:token=edge?module-path=" SOFTHSM "&pin-source=callback");
    TPKS_CONFIG *other = other_config(token, "");
    options.config = other;
    options.ask = ask_pin;
    options.accept_new_anchor = true;
    sql("UPDATE tpks_slot SET label = 'x'");
    change_meanwhile = "UPDATE tpks_header SET generation = generation + 1";
    expect(TPKS_CONFLICT, tpks_header_restore(&options, copy, NULL));
    change_meanwhile = "UPDATE tpks_header SET seal = zeroblob(48)";
    expect(TPKS_CONFLICT, tpks_header_restore(&options, copy, NULL));
    change_meanwhile = "UPDATE tpks_record SET version = version + 1";
    expect(TPKS_TAMPERED, tpks_header_restore(&options, copy, NULL));
    sql("UPDATE tpks_record SET version = version - 2");
    change_meanwhile = NULL;
    expect(TPKS_TAMPERED, tpks_header_restore(&options, copy, NULL));
    change_meanwhile = "UPDATE tpks_record SET version = version + 1";
    expect_ok(tpks_header_restore(&options, copy, NULL));
    tpks_config_free(other);
    expect_ok(load_elsewhere());
}
END_TEST

/* ---- damaged records ---- */

typedef struct walked {
    int good;
    char bad[256];
} walked;

static tpks_result count_good(void *arg, const TPKS_RECORD *record)
{
    ((walked *)arg)->good += strcmp(tpks_record_name(record), "web") == 0;
    return TPKS_OK;
}

static void note_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    walked *w = arg;
    size_t used = strlen(w->bad);

    ck_assert_int_ne(*text, 0);
    snprintf(w->bad + used, sizeof(w->bad) - used, "%s=%s;", name, tpks_result_name(result));
}

static int keep_going(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    ck_assert_int_le(done, total);
    return 1;
}

START_TEST(a_malformed_record_does_not_hide_the_others)
{
    static const char *const bad = "a=tampered;b=newer-format;"
                                   "(record 03030303030303030303030303030303)=tampered;";
    uint64_t proven = 0;

#define COPY(id, name, extension, nonce)                                                           \
    "INSERT INTO tpks_record SELECT keystore, " id ", " name ", version, dek, key_type, spki,"     \
    " spki_sha256, policy, created, changed, seal_algorithm, certs_digest, token_serial, "         \
    "cka_id, " extension ", " nonce ", sealed FROM tpks_record WHERE name = 'web';"
    sql(COPY("zeroblob(16)", "'a'", "extension", "zeroblob(3)")
            COPY("x'02020202020202020202020202020202'", "'b'", "x'800100000000'", "nonce")
                COPY("x'03030303030303030303030303030303'", "x'00'", "extension", "nonce"));
    TPKS *ks = open_for(TPKS_LOAD);
    walked w = {0};
    expect(TPKS_TAMPERED, tpks_each(ks, NULL, count_good, &w));
    w = (walked){0};
    expect(TPKS_TAMPERED, tpks_each_readable(ks, NULL, count_good, note_bad, &w));
    expect_text("3 records");
    ck_assert_int_eq(w.good, 1);
    ck_assert_str_eq(w.bad, bad);
    w = (walked){0};
    expect(TPKS_TAMPERED, tpks_verify(ks, keep_going, note_bad, &w, &proven));
    ck_assert_int_eq(proven, 1);
    ck_assert_str_eq(w.bad, bad);
    tpks_close(ks);
    expect_ok(load_elsewhere());
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 5)
        return load_as_told(argv);
    Suite *suite = suite_create("restore");
    TCase *tests = tcase_create("restore");

    tcase_set_timeout(tests, 300);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_lost_kek_is_restored_while_loading);
    tcase_add_test(tests, a_new_token_of_the_same_name_is_a_lost_kek);
    tcase_add_test(tests, a_wiped_token_is_made_anew_on_demand);
    tcase_add_test(tests, nothing_but_a_lost_kek_asks);
    tcase_add_test(tests, a_foreign_kek_is_neither_used_nor_destroyed);
    tcase_add_test(tests, a_restore_on_demand_looks_before_it_acts);
    tcase_add_test(tests, a_source_of_the_configuration_spares_the_question);
    tcase_add_test(tests, many_processes_ask_once);
    tcase_add_test(tests, a_restore_that_fails_leaves_no_slot);
    tcase_add_test(tests, without_a_secret_it_says_where_it_looked);
    tcase_add_test(tests, who_waits_is_told_who_restores);
    tcase_add_test(tests, a_line_of_the_log_stays_one_line);
    tcase_add_test(tests, a_password_is_changed_in_one_step);
    tcase_add_test(tests, the_last_way_back_stays);
    tcase_add_test(tests, a_kek_is_rotated_and_its_predecessor_destroyed);
    tcase_add_test(tests, a_second_token_gets_a_slot_of_its_own);
    tcase_add_test(tests, two_writers_leave_a_slot);
    if (!ADDRESS_SANITIZER) /* it needs more address space than any limit */
        tcase_add_test(tests, a_slot_that_does_not_fit_into_memory_hides_no_other);
    tcase_add_test(tests, without_its_dek_file_a_host_uses_its_hsm);
    tcase_add_test(tests, a_dek_file_that_is_there_stays_the_way_to_the_dek);
    tcase_add_test(tests, a_restore_raises_the_cost_of_its_password);
    tcase_add_test(tests, only_a_writer_with_the_password_raises_the_cost);
    tcase_add_test(tests, a_password_that_is_changed_meanwhile_is_not_raised);
    tcase_add_test(tests, a_damaged_header_is_put_back);
    tcase_add_test(tests, a_copy_of_the_header_is_kept);
    tcase_add_test(tests, what_is_no_header_backup_is_called_that);
    tcase_add_test(tests, a_change_during_a_header_restore_is_noticed);
    tcase_add_test(tests, a_malformed_record_does_not_hide_the_others);
    suite_add_tcase(suite, tests);
    return run(suite);
}
