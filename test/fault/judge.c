/*
 * judge.c - is everything still there, and does the keystore work again?
 *
 * Runs in a process of its own, without faults. It does what an owner would do next, and nothing
 * more: the same command again, the password where the KEK is gone, a new token where SoftHSM
 * destroyed its own.
 */
#include "fault.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- going on -------------------------------------------------------------------------------- */

static void complain(FILE *out, const char *what, tpks_result result)
{
    fprintf(out, "%s: %s: %s\n", what, tpks_result_name(result), tpks_error_text());
}

static tpks_result restore(context *c)
{
    return operation_find("restore")(c);
}

/* Results by which the repeated operation says that its first run had done it. */
static bool was_done(const char *operation, tpks_result result)
{
    if (strcmp(operation, "init") == 0 || strcmp(operation, "import") == 0)
        return result == TPKS_EXISTS;
    if (strcmp(operation, "slot-remove") == 0 || strcmp(operation, "slot-destroy") == 0 ||
        strcmp(operation, "password-change") == 0)
        return result == TPKS_NOT_FOUND;
    return false;
}

static bool is_restore(const char *operation)
{
    return strcmp(operation, "restore") == 0 || strcmp(operation, "load-restore") == 0;
}

static tpks_result unlock(context *c)
{
    TPKS *ks = NULL;
    tpks_options options = options_of(c, TPKS_WRITE);
    options.no_restore = true;
    tpks_result result = tpks_open(&options, &ks);
    if (result == TPKS_OK)
        result = tpks_unlock(ks);
    tpks_close(ks);
    return result;
}

/* The same command once more; where it needs the KEK and that is gone, a restore before. */
static void go_on(context *c, const char *operation, bool token_lost, FILE *out)
{
    bool exists =
        access(in_place(c->place, "keystore.db"), F_OK) == 0 && strcmp(operation, "init") != 0;
    if ((exists && token_lost) || is_restore(operation)) {
        tpks_result result = restore(c);
        if (result != TPKS_OK)
            complain(out, "the restore that follows", result);
    }
    if (is_restore(operation) || strcmp(operation, "provider") == 0)
        return;
    tpks_result result = operation_find(operation)(c);
    /* The key to be destroyed went with its token. */
    if (token_lost && strcmp(operation, "slot-destroy") == 0 && result == TPKS_TOKEN_MISSING)
        return;
    if (result != TPKS_OK && !was_done(operation, result))
        complain(out, "the same again", result);
    if (strcmp(operation, "init") == 0 && result == TPKS_EXISTS && token_lost &&
        (result = restore(c)) != TPKS_OK)
        complain(out, "the restore after init", result);
}

/* ---- nothing lost ---------------------------------------------------------------------------- */

static void bad_record(void *arg, const char *name, tpks_result result, const char *text)
{
    fprintf(arg, "record %s: %s: %s\n", name, tpks_result_name(result), text);
}

static uint64_t records_expected(const char *operation)
{
    if (strcmp(operation, "init") == 0)
        return 0;
    return strcmp(operation, "import") == 0 ? 3 : 2;
}

static void check_records(context *c, TPKS *ks, const char *operation, const char *how, FILE *out)
{
    static const char *const names[] = {"one", "two", "new"};
    uint64_t proven = 0, expected = records_expected(operation);
    tpks_result result = tpks_verify(ks, NULL, bad_record, out, &proven);
    if (result != TPKS_OK)
        complain(out, how, result);
    if (proven != expected)
        fprintf(out, "%s: %llu of %llu records proven\n", how, (unsigned long long)proven,
                (unsigned long long)expected);
    for (uint64_t i = 0; i < expected; i++) {
        result = load_and_compare(c, ks, names[i]);
        if (result != TPKS_OK)
            complain(out, names[i], result);
    }
    if (c->wrong_key)
        fprintf(out, "%s: WRONG KEY\n", how);
}

static void check_password(context *c, const char *operation, const char *password, FILE *out)
{
    TPKS *ks = NULL;
    TPKS_SECRET *secret = secret_from(password);
    tpks_options options = options_of(c, TPKS_LOAD);
    tpks_result result = tpks_open(&options, &ks);
    if (result == TPKS_OK)
        result = tpks_unlock_with(ks, secret);
    if (result != TPKS_OK)
        complain(out, password, result);
    else
        check_records(c, ks, operation, password, out);
    tpks_close(ks);
    tpks_secret_free(secret);
}

/* ---- keys on the token ----------------------------------------------------------------------- */

typedef struct kek_check {
    key_ids keks;
    bool named[32];
    unsigned orphans;
    unsigned active;
} kek_check;

static tpks_result match_slot(void *arg, const tpks_slot_info *slot)
{
    kek_check *check = arg;
    bool is_active = strcmp(slot->state, "active") == 0;
    if (slot->cka_id == NULL)
        return TPKS_OK;
    check->active += is_active;
    for (size_t i = 0; i < check->keks.count; i++) {
        if (memcmp(check->keks.id[i], slot->cka_id, TPKS_ID_SIZE) != 0)
            continue;
        check->named[i] = true;
        check->orphans += !is_active && strcmp(slot->state, "stale") != 0;
    }
    return TPKS_OK;
}

/* Keys that no slot names can only be those of an init that did not come to its end. */
static void check_keks(TPKS *ks, const char *operation, FILE *out)
{
    kek_check check = {0};
    unsigned nameless = 0;
    list_keks(getenv("JUDGE_MODULE"), &check.keks);
    tpks_result result = tpks_each_slot(ks, match_slot, &check);
    if (result != TPKS_OK)
        complain(out, "slots", result);
    for (size_t i = 0; i < check.keks.count; i++)
        nameless += !check.named[i];
    if (nameless > (strcmp(operation, "init") == 0 ? 1u : 0u))
        fprintf(out, "%u keys on the token that no slot names\n", nameless);
    if (check.orphans + nameless > 1)
        fprintf(out, "%u orphaned keys after one fault\n", check.orphans + nameless);
    if (check.active > 1 && !token_was_lost(getenv("JUDGE_PLACE")))
        fprintf(out, "%u active slots for one token\n", check.active);
    if (check.orphans + nameless > 0)
        write_text(in_place(getenv("JUDGE_PLACE"), "orphan"), "1");
}

static void check_unlocked(context *c, const char *operation, FILE *out)
{
    TPKS *ks = NULL;
    tpks_options options = options_of(c, TPKS_LOAD);
    tpks_result result = tpks_open(&options, &ks);
    if (result == TPKS_OK)
        result = tpks_unlock(ks);
    if (result != TPKS_OK)
        complain(out, "unlocking in the end", result);
    else {
        check_records(c, ks, operation, "with the HSM", out);
        check_keks(ks, operation, out);
    }
    tpks_close(ks);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* A refused PIN is remembered until its file changes: what the text tells the owner to do. */
static void touch_pin(const char *place)
{
    write_text(in_place(place, "pin"), PIN "\n");
}

static bool succeeded(const char *result)
{
    return result != NULL && strcmp(result, "ok") == 0;
}

/* What a success promised must be true without doing it again. */
static void check_promise(context *c, const char *operation, const char *result, FILE *out)
{
    tpks_result now;
    if (!succeeded(result) || strcmp(operation, "provider") == 0)
        return;
    now = unlock(c);
    if (now != TPKS_OK)
        complain(out, "it said ok, but", now);
    if (strcmp(operation, "load") == 0 || is_restore(operation) ||
        strcmp(operation, "rotate") == 0 || strcmp(operation, "slot-add") == 0)
        return;
    now = operation_find(operation)(c);
    if (!was_done(operation, now))
        fprintf(out, "it said ok, but the same again says %s\n", tpks_result_name(now));
}

void judge(context *c, const char *operation, const char *result, FILE *out)
{
    bool lost = token_was_lost(c->place);
    touch_pin(c->place);
    c->ask = ask_and_refuse;
    unlink(in_place(c->place, "asked"));
    setenv("JUDGE_PLACE", c->place, 1);
    if (lost)
        init_token(c->place);
    check_promise(c, operation, result, out);
    if (!succeeded(result))
        go_on(c, operation, lost, out);
    check_unlocked(c, operation, out);
    check_password(c, operation, PASSWORD, out);
    if (strcmp(operation, "slot-add") == 0 || strcmp(operation, "password-change") == 0)
        check_password(c, operation, NEW_PASSWORD, out);
    if (asked(c->place) != 0)
        fprintf(out, "a password was asked for although the KEK was there\n");
}
