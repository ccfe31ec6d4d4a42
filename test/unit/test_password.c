/*
 * test_password.c - Argon2id, HKDF, recovery keys, and the memory that Argon2id may take
 */
#include <argon2.h>

#include "memory_limit.h"
#include "password.h"
#include "unit.h"

#include <openssl/crypto.h>

#define MIB 1024u /* in KiB */

static void expect_bytes(const unsigned char *got, size_t size, const char *hex)
{
    char text[200];

    ck_assert_int_eq(OPENSSL_buf2hexstr_ex(text, sizeof(text), NULL, got, size, '\0'), 1);
    ck_assert_msg(strcasecmp(text, hex) == 0, "%s is not %s", text, hex);
}

/* ---- Argon2id -------------------------------------------------------------------------------- */

/* RFC 9106 section 5.3: that the installed library computes what the RFC says. */
START_TEST(rfc_9106_vector)
{
    unsigned char password[32], salt[16], secret[8], data[12], tag[32];
    argon2_context context = {.out = tag,
                              .outlen = sizeof(tag),
                              .pwd = password,
                              .pwdlen = sizeof(password),
                              .salt = salt,
                              .saltlen = sizeof(salt),
                              .secret = secret,
                              .secretlen = sizeof(secret),
                              .ad = data,
                              .adlen = sizeof(data),
                              .t_cost = 3,
                              .m_cost = 32,
                              .lanes = 4,
                              .threads = 1,
                              .version = 0x13};

    memset(password, 1, sizeof(password));
    memset(salt, 2, sizeof(salt));
    memset(secret, 3, sizeof(secret));
    memset(data, 4, sizeof(data));
    ck_assert_int_eq(argon2_ctx(&context, Argon2_id), ARGON2_OK);
    expect_bytes(tag, sizeof(tag),
                 "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}
END_TEST

static void try_argon2id(tpks_kdf_cost cost, const char *expected)
{
    TPKS_SECRET *password = secret_of("correct horse battery staple"), *bek = NULL;
    unsigned char salt[KDF_SALT_SIZE];

    memset(salt, 'A', sizeof(salt));
    expect_ok(kdf_password(password, &cost, salt, &bek));
    ck_assert_uint_eq(tpks_secret_size(bek), BEK_SIZE);
    expect_bytes(tpks_secret_data(bek), BEK_SIZE, expected);
    ck_assert_mem_eq(tpks_secret_data(password), "correct horse battery staple", 28);
    tpks_secret_free(bek);
    tpks_secret_free(password);
}

/* The expected values come from the command argon2(1). */
START_TEST(password_vectors)
{
    try_argon2id((tpks_kdf_cost){2, 8 * MIB, 1},
                 "9e314416600566c54b9c8f4bc9f3b50421fc38f0b4ce3b7db318a3a40d496704");
    try_argon2id((tpks_kdf_cost){3, 8 * MIB, 4},
                 "976a5359c3d8a6db9396075f88496f2a5a954ab6bd37791f6f891365fead85d1");
}
END_TEST

START_TEST(salt_and_password_matter)
{
    const tpks_kdf_cost cost = {1, 8 * MIB, 1};
    unsigned char salt[KDF_SALT_SIZE] = {0};
    TPKS_SECRET *password = secret_of("password"), *empty = tpks_secret_new(0);
    TPKS_SECRET *a = NULL, *b = NULL, *c = NULL;

    expect_ok(kdf_password(password, &cost, salt, &a));
    salt[31] = 1;
    expect_ok(kdf_password(password, &cost, salt, &b));
    expect_ok(kdf_password(empty, &cost, salt, &c));
    ck_assert_mem_ne(tpks_secret_data(a), tpks_secret_data(b), BEK_SIZE);
    ck_assert_mem_ne(tpks_secret_data(b), tpks_secret_data(c), BEK_SIZE);
    tpks_secret_free(a);
    tpks_secret_free(b);
    tpks_secret_free(c);
    tpks_secret_free(password);
    tpks_secret_free(empty);
}
END_TEST

START_TEST(bounds)
{
    static const tpks_kdf_cost good[] = {{1, 8 * MIB, 1},
                                         {32, 256 * MIB, 1},
                                         {8, 1024 * MIB, 4},
                                         {4, 256 * MIB, 1},
                                         {32, 8 * MIB, 4}};
    static const tpks_kdf_cost bad[] = {{0, 64 * MIB, 1},
                                        {33, 8 * MIB, 1},
                                        {UINT32_MAX, 8 * MIB, 1},
                                        {1, 8 * MIB - 1, 1},
                                        {1, 0, 1},
                                        {1, 1024 * MIB + 1, 1},
                                        {1, UINT32_MAX, 1},
                                        {4, 64 * MIB, 0},
                                        {4, 64 * MIB, 5},
                                        {9, 1024 * MIB, 1},
                                        {32, 256 * MIB + 1, 1},
                                        {0, 0, 0},
                                        {UINT32_MAX, UINT32_MAX, UINT32_MAX}};
    TPKS_SECRET *password = secret_of("password"), *bek = NULL;
    unsigned char salt[KDF_SALT_SIZE] = {0};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        expect_ok(kdf_check_cost(ARGON2_VERSION_13, &good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect(TPKS_TAMPERED, kdf_check_cost(ARGON2_VERSION_13, &bad[i]));
        expect(TPKS_TAMPERED, kdf_password(password, &bad[i], salt, &bek));
    }
    expect(TPKS_TAMPERED, kdf_check_cost(0x10, &good[0]));
    expect(TPKS_TAMPERED, kdf_check_cost(0, &good[0]));
    tpks_secret_free(password);
}
END_TEST

START_TEST(default_is_acceptable)
{
    tpks_kdf_cost cost;
    tpks_result result = kdf_default_cost(&cost);

    if (memory_limit("") / 4 < 64u * 1024 * 1024) {
        expect(TPKS_UNSUPPORTED, result);
        expect_text("recovery key");
        return;
    }
    expect_ok(result);
    expect_ok(kdf_check_cost(ARGON2_VERSION_13, &cost));
    ck_assert_uint_eq(cost.t, 4);
    ck_assert_uint_eq(cost.p, 1);
    ck_assert_uint_ge(cost.m_kib, 64 * MIB);
    ck_assert_uint_le(cost.m_kib, 256 * MIB);
}
END_TEST

/* ---- HKDF ------------------------------------------------------------------------------------ */

static TPKS_SECRET *counting_key(void)
{
    TPKS_SECRET *key = tpks_secret_new(BEK_SIZE);

    for (unsigned i = 0; i < BEK_SIZE; i++)
        tpks_secret_data(key)[i] = (unsigned char)i;
    return key;
}

/* The expected values were computed apart from this code, with RFC 5869's HMAC formulas. */
/* Nothing becomes less, and what is renewed is no longer weak, nor out of bounds. */
START_TEST(weak_costs_are_raised)
{
    static const tpks_kdf_cost policies[] = {{4, 256 * MIB, 1}, {4, 64 * MIB, 1}};
    static const uint32_t passes[] = {1, 2, 3, 4, 5, 32}, lanes[] = {1, 4};
    static const uint32_t memory[] = {8 * MIB,   63 * MIB,  64 * MIB,  100 * MIB,
                                      256 * MIB, 257 * MIB, 1024 * MIB};
    tpks_kdf_cost out, again;

#define EACH(i, array)                                                                             \
    size_t i = 0;                                                                                  \
    i < sizeof(array) / sizeof(*(array));                                                          \
    i++
    for (EACH(a, policies))
        for (EACH(b, passes))
            for (EACH(c, memory))
                for (EACH(d, lanes)) {
                    const tpks_kdf_cost *want = &policies[a];
                    const tpks_kdf_cost cost = {passes[b], memory[c], lanes[d]};
                    bool enough = cost.m_kib >= want->m_kib &&
                                  (uint64_t)cost.t * cost.m_kib >= (uint64_t)want->t * want->m_kib;
                    ck_assert_int_eq(kdf_is_weak(&cost, want, &out), !enough);
                    if (enough)
                        continue;
                    ck_assert(out.t >= cost.t && out.m_kib >= cost.m_kib && out.p == cost.p);
                    ck_assert(!kdf_is_weak(&out, want, &again));
                    expect_ok(kdf_check_cost(ARGON2_VERSION_13, &out));
                }
    ck_assert(kdf_is_weak(&(tpks_kdf_cost){3, 64 * MIB, 1}, &policies[0], &out));
    ck_assert(out.t == 4 && out.m_kib == 256 * MIB && out.p == 1);
    ck_assert(kdf_is_weak(&(tpks_kdf_cost){1, 512 * MIB, 1}, &policies[0], &out));
    ck_assert(out.t == 2 && out.m_kib == 512 * MIB);
}
END_TEST

START_TEST(hkdf_vectors)
{
    TPKS_SECRET *bek = counting_key(), *wrap_key = NULL;
    unsigned char salt[KDF_SALT_SIZE], commitment[COMMITMENT_SIZE];
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

    for (unsigned i = 0; i < sizeof(salt); i++)
        salt[i] = (unsigned char)(32 + i);
    expect_ok(kdf_expand(libctx, bek, salt, &wrap_key, commitment));
    ck_assert_uint_eq(tpks_secret_size(wrap_key), 32);
    expect_bytes(tpks_secret_data(wrap_key), 32,
                 "cd93f6e14507ddd0aac7750d1563267853c69c82ad68c46583c364cbdfd7d090");
    expect_bytes(commitment, 32,
                 "cee0c6bec36adc81b5628b1ff8769963471a9fed5425e7fa629c22ddff5aaab4");
    tpks_secret_free(wrap_key);
    tpks_secret_free(bek);
    OSSL_LIB_CTX_free(libctx);
}
END_TEST

START_TEST(hkdf_wants_a_whole_key)
{
    TPKS_SECRET *bek = tpks_secret_new(BEK_SIZE - 1), *wrap_key = NULL;
    unsigned char salt[KDF_SALT_SIZE] = {0}, commitment[COMMITMENT_SIZE];

    expect(TPKS_INTERNAL, kdf_expand(NULL, bek, salt, &wrap_key, commitment));
    ck_assert_ptr_null(wrap_key);
    tpks_secret_free(bek);
}
END_TEST

/* ---- recovery keys --------------------------------------------------------------------------- */

#define KNOWN "TPRK1-cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv-gnfi"

static tpks_result parse_text(const char *text, TPKS_SECRET **bek)
{
    TPKS_SECRET *secret = secret_of(text);
    tpks_result result = recovery_key_parse(secret, bek);

    tpks_secret_free(secret);
    return result;
}

START_TEST(recovery_key_vector)
{
    TPKS_SECRET *expected = counting_key(), *bek = NULL;

    expect_ok(parse_text(KNOWN, &bek));
    ck_assert_uint_eq(tpks_secret_size(bek), BEK_SIZE);
    ck_assert_mem_eq(tpks_secret_data(bek), tpks_secret_data(expected), BEK_SIZE);
    tpks_secret_free(bek);
    tpks_secret_free(expected);
}
END_TEST

START_TEST(recovery_key_round_trip)
{
    TPKS_SECRET *bek = NULL, *text = NULL, *again = NULL, *other = NULL, *other_text = NULL;

    expect_ok(recovery_key_new(&bek, &text));
    ck_assert_uint_eq(tpks_secret_size(bek), BEK_SIZE);
    ck_assert_uint_eq(tpks_secret_size(text), strlen(KNOWN));
    ck_assert_uint_eq(strlen((const char *)tpks_secret_data(text)), strlen(KNOWN));
    ck_assert(recovery_key_looks_like(text));
    expect_ok(recovery_key_parse(text, &again));
    ck_assert_mem_eq(tpks_secret_data(bek), tpks_secret_data(again), BEK_SIZE);
    expect_ok(recovery_key_new(&other, &other_text));
    ck_assert_mem_ne(tpks_secret_data(bek), tpks_secret_data(other), BEK_SIZE);
    tpks_secret_free(bek);
    tpks_secret_free(text);
    tpks_secret_free(again);
    tpks_secret_free(other);
    tpks_secret_free(other_text);
}
END_TEST

START_TEST(recovery_key_as_people_type)
{
    static const char *const ways[] = {
        "tprk1cccbcdcecfcgchcicjckclcncrctcucvbcbbbdbebfbgbhbibjbkblbnbrbtbubvgnfi",
        "  TPRK1 CCCBCDCE CFCGCHCI CJCKCLCN CRCTCUCV\n BCBBBDBE BFBGBHBI BJBKBLBN BRBTBUBV GNFI "
        "\r\n"};

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        TPKS_SECRET *bek = NULL;

        expect_ok(parse_text(ways[i], &bek));
        ck_assert_uint_eq(tpks_secret_data(bek)[31], 31);
        tpks_secret_free(bek);
    }
}
END_TEST

/* Every single wrong letter is found out, whichever it is. */
START_TEST(recovery_key_typing_errors)
{
    char text[] = KNOWN;
    TPKS_SECRET *bek = NULL;

    for (size_t i = strlen("TPRK1-"); i < strlen(KNOWN); i++) {
        char right = text[i];

        if (right == '-')
            continue;
        text[i] = right == 'c' ? 'v' : 'c';
        expect(TPKS_BAD_INPUT, parse_text(text, &bek));
        text[i] = 'a';
        expect(TPKS_BAD_INPUT, parse_text(text, &bek));
        text[i] = right;
    }
    text[strlen(text) - 1] = '\0';
    expect(TPKS_BAD_INPUT, parse_text(text, &bek));
    expect(TPKS_BAD_INPUT, parse_text(KNOWN "c", &bek));
    expect(TPKS_BAD_INPUT, parse_text("TPRK1", &bek));
    expect(TPKS_BAD_INPUT, parse_text("TPRK2" KNOWN, &bek));
    expect(TPKS_BAD_INPUT, parse_text("", &bek));
    ck_assert_ptr_null(bek);
}
END_TEST

START_TEST(passwords_do_not_look_like_recovery_keys)
{
    static const char *const texts[] = {"", "T", "TPRK", "TPRK2-cccc", "my TPRK1", "correct horse"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        TPKS_SECRET *text = secret_of(texts[i]);

        ck_assert(!recovery_key_looks_like(text));
        tpks_secret_free(text);
    }
}
END_TEST

/* ---- memory limit ---------------------------------------------------------------------------- */

static void make_file(const char *root, const char *path, const char *content)
{
    char command[600];
    FILE *file;

    snprintf(command, sizeof(command), "mkdir -p \"$(dirname '%s%s')\"", root, path);
    ck_assert_int_eq(system(command), 0);
    snprintf(command, sizeof(command), "%s%s", root, path);
    file = fopen(command, "we");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

static const char *fresh_root(const char *name)
{
    static char root[300];

    snprintf(root, sizeof(root), "%s/%s", scratch(), name);
    return root;
}

#define MEBIBYTES(n) ((n)*UINT64_C(1048576))

START_TEST(no_cgroup_is_all_of_ram)
{
    ck_assert_uint_eq(memory_limit(fresh_root("none")),
                      (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
}
END_TEST

START_TEST(cgroup_2)
{
    const char *root = fresh_root("v2");

    make_file(root, "/proc/self/cgroup", "0::/system.slice/web.service\n");
    make_file(root, "/sys/fs/cgroup/system.slice/web.service/memory.max", "max\n");
    ck_assert_uint_eq(memory_limit(root), memory_limit(fresh_root("none")));
    root = fresh_root("v2");
    make_file(root, "/sys/fs/cgroup/system.slice/memory.max", "104857600\n");
    ck_assert_uint_eq(memory_limit(root), MEBIBYTES(100));
    make_file(root, "/sys/fs/cgroup/system.slice/web.service/memory.max", "52428800\n");
    ck_assert_uint_eq(memory_limit(root), MEBIBYTES(50));
}
END_TEST

START_TEST(cgroup_2_in_a_container)
{
    const char *root = fresh_root("container");

    make_file(root, "/proc/self/cgroup", "0::/\n");
    make_file(root, "/sys/fs/cgroup/memory.max", "67108864\n");
    ck_assert_uint_eq(memory_limit(root), MEBIBYTES(64));
}
END_TEST

START_TEST(cgroup_1)
{
    const char *root = fresh_root("v1");

    make_file(root, "/proc/self/cgroup",
              "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\nrubbish\n");
    make_file(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "33554432\n");
    make_file(root, "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n");
    ck_assert_uint_eq(memory_limit(root), MEBIBYTES(32));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("password");
    TCase *argon2 = tcase_create("argon2id"), *hkdf = tcase_create("hkdf");
    TCase *recovery = tcase_create("recovery key"), *memory = tcase_create("memory limit");

    tcase_set_timeout(argon2, 120);
    tcase_add_test(argon2, rfc_9106_vector);
    tcase_add_test(argon2, password_vectors);
    tcase_add_test(argon2, salt_and_password_matter);
    tcase_add_test(argon2, bounds);
    tcase_add_test(argon2, default_is_acceptable);
    tcase_add_test(argon2, weak_costs_are_raised);
    tcase_add_test(hkdf, hkdf_vectors);
    tcase_add_test(hkdf, hkdf_wants_a_whole_key);
    tcase_add_test(recovery, recovery_key_vector);
    tcase_add_test(recovery, recovery_key_round_trip);
    tcase_add_test(recovery, recovery_key_as_people_type);
    tcase_add_test(recovery, recovery_key_typing_errors);
    tcase_add_test(recovery, passwords_do_not_look_like_recovery_keys);
    tcase_add_test(memory, no_cgroup_is_all_of_ram);
    tcase_add_test(memory, cgroup_2);
    tcase_add_test(memory, cgroup_2_in_a_container);
    tcase_add_test(memory, cgroup_1);
    suite_add_tcase(suite, argon2);
    suite_add_tcase(suite, hkdf);
    suite_add_tcase(suite, recovery);
    suite_add_tcase(suite, memory);
    return run(suite);
}
