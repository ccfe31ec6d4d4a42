/*
 * test_config.c - the configuration file: what it means, and everything that is refused
 */
#include "config.h"
#include "unit.h"

#include <openssl/err.h>

#define TOKEN                                                                                      \
    "pkcs11:token=trustpoint?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin"

static tpks_result load(const char *text, TPKS_CONFIG **config)
{
    return tpks_config_load(write_file("keystore.cnf", text, strlen(text), 0644), config);
}

static TPKS_CONFIG *load_good(const char *text)
{
    TPKS_CONFIG *config = NULL;

    expect_ok(load(text, &config));
    return config;
}

START_TEST(defaults)
{
    TPKS_CONFIG *config = load_good("[keystore]\n[keystore_edge]\n");

    ck_assert_uint_eq(tpks_config_count(config), 2);
    ck_assert_str_eq(tpks_config_name(config, 0), "");
    ck_assert_str_eq(tpks_config_name(config, 1), "edge");
    ck_assert_ptr_null(tpks_config_name(config, 2));
    ck_assert_ptr_null(tpks_config_get(config, NULL, "token"));
    ck_assert_str_eq(tpks_config_get(config, NULL, "dek"), "auto");
    ck_assert_str_eq(tpks_config_get(config, "", "hsm-session"), "load");
    ck_assert_str_eq(tpks_config_get(config, "", "restore"), "credential, callback");
    ck_assert_str_eq(tpks_config_get(config, "edge", "allow"), "*");
    ck_assert_str_eq(tpks_config_get(config, "edge", "log"), "no");
    ck_assert_int_eq(tpks_config_get(config, "edge", "state")[0], '/');
    ck_assert_str_ne(tpks_config_get(config, "edge", "store"),
                     tpks_config_get(config, "", "store"));
    ck_assert_ptr_nonnull(strstr(tpks_config_get(config, "edge", "store"), "/keystore_edge.db"));
    ck_assert_ptr_null(tpks_config_get(config, NULL, "nonsense"));
    ck_assert_ptr_null(tpks_config_get(config, "other", "store"));
    tpks_config_free(config);
    tpks_config_free(NULL);
}
END_TEST

START_TEST(every_directive)
{
    TPKS_CONFIG *config = load_good("# comments may have 'quotes', $ and \\\n"
                                    "\n"
                                    "[ keystore ]   # the default one\r\n"
                                    "  store=sqlite:/var/lib/tp/my keys=1.db\t# where\n"
                                    "token = " TOKEN "\n"
                                    "dek = hsm\n"
                                    "hsm-session =process\n"
                                    "restore = credential, file:/run/pw , ask-password,socket\n"
                                    "allow = web-*, mail ?x\n"
                                    "decrypt = device/*\n"
                                    "log = file:/var/log/tp.log\n"
                                    "state = /srv/tp\n"
                                    "[keystore_a-b_1]\n"
                                    "store = postgresql:service=passwords passfile=/password\n"
                                    "restore = no\n"
                                    "log = syslog");

    ck_assert_str_eq(tpks_config_get(config, "", "store"), "sqlite:/var/lib/tp/my keys=1.db");
    ck_assert_str_eq(tpks_config_get(config, "", "token"), TOKEN);
    ck_assert_str_eq(tpks_config_get(config, "", "dek"), "hsm");
    ck_assert_str_eq(tpks_config_get(config, "", "hsm-session"), "process");
    ck_assert_str_eq(tpks_config_get(config, "", "restore"),
                     "credential, file:/run/pw , ask-password,socket");
    ck_assert_str_eq(tpks_config_get(config, "", "allow"), "web-*, mail ?x");
    ck_assert_str_eq(tpks_config_get(config, "", "decrypt"), "device/*");
    ck_assert_ptr_null(tpks_config_get(config, "a-b_1", "decrypt"));
    ck_assert_str_eq(tpks_config_get(config, "", "log"), "file:/var/log/tp.log");
    ck_assert_str_eq(tpks_config_get(config, "", "state"), "/srv/tp");
    ck_assert_str_eq(tpks_config_get(config, "a-b_1", "store"),
                     "postgresql:service=passwords passfile=/password");
    ck_assert_str_eq(tpks_config_get(config, "a-b_1", "restore"), "no");
    ck_assert_str_eq(tpks_config_get(config, "a-b_1", "log"), "syslog");
    ck_assert_str_eq(tpks_config_get(config, "a-b_1", "dek"), "auto");
    tpks_config_free(config);
}
END_TEST

START_TEST(allowing)
{
    TPKS_CONFIG *config = load_good("[keystore]\nallow = web-*, mail ?x\n[keystore_all]\n");

    ck_assert(config_allows(config, NULL, "web-1"));
    ck_assert(config_allows(config, "", "web-"));
    ck_assert(config_allows(config, "", "web-a/b c"));
    ck_assert(config_allows(config, "", "mail"));
    ck_assert(config_allows(config, "", "ax"));
    ck_assert(!config_allows(config, "", "web"));
    ck_assert(!config_allows(config, "", "a web-1"));
    ck_assert(!config_allows(config, "", "mail2"));
    ck_assert(!config_allows(config, "", ""));
    ck_assert(config_allows(config, "all", "anything"));
    ck_assert(!config_allows(config, "none", "anything"));
    ck_assert(!config_lets_decrypt(config, "", "web-1"));
    tpks_config_free(config);
    config = load_good("[keystore]\ndecrypt = device/*, ca?x\n[keystore_all]\ndecrypt = *\n");
    ck_assert(config_lets_decrypt(config, "", "device/a/b c"));
    ck_assert(config_lets_decrypt(config, NULL, "ca x"));
    ck_assert(!config_lets_decrypt(config, "", "ca/x/y"));
    ck_assert(!config_lets_decrypt(config, "", "tls-server"));
    ck_assert(config_lets_decrypt(config, "all", "anything"));
    ck_assert(!config_lets_decrypt(config, "none", "anything"));
    tpks_config_free(config);
}
END_TEST

START_TEST(owners)
{
    TPKS_CONFIG *config = load_good("[keystore]\n");
    TPKS_CONFIG *same = config_up_ref(config);

    ck_assert_ptr_eq(same, config);
    tpks_config_free(config);
    ck_assert_str_eq(tpks_config_get(same, NULL, "dek"), "auto");
    tpks_config_free(same);
}
END_TEST

START_TEST(keystore_names)
{
    ck_assert(config_keystore_name_ok("a"));
    ck_assert(config_keystore_name_ok("a-b_9"));
    ck_assert(config_keystore_name_ok("01234567890123456789012345678901"));
    ck_assert(!config_keystore_name_ok("012345678901234567890123456789012"));
    ck_assert(!config_keystore_name_ok(""));
    ck_assert(!config_keystore_name_ok("A"));
    ck_assert(!config_keystore_name_ok("a/b"));
}
END_TEST

/* ---- bad ones -------------------------------------------------------------------------------- */

static const struct bad {
    const char *file;
    const char *text; /* part of the error text */
} BAD[] = {
    {"", "no section"},
    {"# only a comment\n", "no section"},
    {"store = sqlite:/x\n[keystore]\n", "line 1: stands before"},
    {"[default]\nstore = sqlite:/x\n", "line 1: [default]: unknown section"},
    {"[Keystore]\n", "[Keystore]: unknown section"},
    {"[keystore_]\n", "unknown section"},
    {"[keystore_A]\n", "unknown section"},
    {"[keystore_012345678901234567890123456789012]\n", "unknown section"},
    {"[keystore edge]\n", "unknown section"},
    {"[]\n", "unknown section"},
    {"[keystore\n", "[NAME]"},
    {"[\n", "[NAME]"},
    {"[keystore] dek = hsm\n", "[NAME]"},
    {"[keystore]\n[keystore]\n", "line 2: [keystore]: the section is there twice"},
    {"[keystore]\nstor = sqlite:/x\n",
     "line 2: [keystore] stor: unknown directive; known are store"},
    {"[keystore_e]\nStore = sqlite:/x\n", "[keystore_e] Store: unknown directive"},
    {"[keystore]\ndek = hsm\ndek = hsm\n", "line 3: [keystore] dek: the directive is there twice"},
    {"[keystore]\ndek\n", "directive = value"},
    {"[keystore]\n= hsm\n", "directive = value"},
    {"[keystore]\nkeystore::dek = hsm\n", "directive = value"},
    {"[keystore]\ndek =\n", "[keystore] dek: has no value"},
    {"[keystore]\ndek = # hsm\n", "has no value"},
    {"[keystore]\ndek = HSM\n", "[keystore] dek: must be auto, hsm or process"},
    {"[keystore]\ndek = hsm process\n", "must be auto, hsm or process"},
    {"[keystore]\nhsm-session = no\n", "must be load or process"},
    {"[keystore]\nstore = /var/lib/x.db\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\nstore = sqlite:x.db\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\nstore = sqlite:\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\nstore = sqlite:/\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\nstore = postgresql:\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\nstore = postgresql:host=db Password=topsecret\n", "must not stand here"},
    {"[keystore]\nstore = postgresql:sslpassword = topsecret\n", "must not stand here"},
    {"[keystore]\nstore = postgresql:passfile=/passwords password=topsecret\n",
     "must not stand here"},
    {"[keystore]\nstore = mysql:x\n", "must be sqlite:/ABSOLUTE/PATH"},
    {"[keystore]\ntoken = trustpoint\n", "[keystore] token: "},
    {"[keystore]\ntoken = " TOKEN "&pin-value=topsecret\n", "[keystore] token: "},
    {"[keystore]\ntoken = pkcs11:token=x\n", "[keystore] token: "},
    {"[keystore]\nrestore = yes\n", "must be a list of credential"},
    {"[keystore]\nrestore = credential, no\n", "must be a list of credential"},
    {"[keystore]\nrestore = file:pw\n", "must be a list of credential"},
    {"[keystore]\nrestore = ,\n", "has no value"},
    {"[keystore]\nallow = *, !root\n", "'!'"},
    {"[keystore]\nallow = ,\n", "has no value"},
    {"[keystore]\ndecrypt = *, !root\n", "'!'"},
    {"[keystore]\ndecrypt =\n", "[keystore] decrypt: has no value"},
    {"[keystore]\nlog = yes\n", "must be no, syslog or file:/ABSOLUTE/PATH"},
    {"[keystore]\nlog = file:tp.log\n", "must be no, syslog or file:/ABSOLUTE/PATH"},
    {"[keystore]\nstate = tp\n", "absolute path"},
    {"[keystore]\nstate = /\n", "absolute path"},
    {"[keystore]\nstate = $HOME\n", "the character $ is not allowed"},
    {"[keystore]\nstate = ${ENV::HOME}\n", "the character $ is not allowed"},
    {"[keystore]\nstate = \"/a\"\n", "the character \" is not allowed"},
    {"[keystore]\nstate = '/a'\n", "the character ' is not allowed"},
    {"[keystore]\nstate = /a\\\n/b\n", "the character \\ is not allowed"},
    {"[keystore]\nstate = /a#b\n", "line 2: a '#'"},
    {"[keystore]\n.include /etc/passwd\n", "includes"},
    {"[keystore]\n .pragma dollarid:on\n", "includes"},
    {".include = /etc/passwd\n[keystore]\n", "includes"},
    {"[keystore]\nstate = /a\x01\n", "control character"},
    {"[keystore]\nstate = /a\x7F\n", "control character"},
    {"[keystore]\nstate = /\xFF\n", "UTF-8"},
    {"[keystore]\nst\x1B[31m = /a\n", "control character"},
};

START_TEST(bad_ones)
{
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        TPKS_CONFIG *config = NULL;
        tpks_result result = load(BAD[i].file, &config);

        ck_assert_msg(result == TPKS_BAD_CONFIG, "%s: %s", BAD[i].file, tpks_result_name(result));
        ck_assert_msg(strstr(tpks_error_text(), BAD[i].text) != NULL, "%s: no \"%s\" in \"%s\"",
                      BAD[i].file, BAD[i].text, tpks_error_text());
        expect_text("/keystore.cnf: ");
        ck_assert_ptr_null(strstr(tpks_error_text(), "topsecret"));
        ck_assert_ptr_null(config);
        ck_assert_uint_eq(ERR_peek_error(), 0);
    }
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

START_TEST(missing_file)
{
    TPKS_CONFIG *config = NULL;

    expect(TPKS_BAD_CONFIG, tpks_config_load("/nonexistent/keystore.cnf", &config));
    expect_text("/nonexistent/keystore.cnf: ");
    expect_text("trustpoint-keystore init");
    expect(TPKS_BAD_CONFIG, tpks_config_load(scratch(), &config));
    expect(TPKS_BAD_CONFIG, tpks_config_load("/dev/zero", &config));
    ck_assert_int_eq(tpks_config_default_path()[0], '/');
}
END_TEST

static tpks_result load_mode(mode_t mode, uid_t owner, gid_t group)
{
    const char *path = write_file("keystore.cnf", "[keystore]\n", 11, mode);
    TPKS_CONFIG *config = NULL;
    tpks_result result;

    if (owner != (uid_t)-1 || group != (gid_t)-1)
        ck_assert_int_eq(chown(path, owner, group), 0);
    result = tpks_config_load(path, &config);
    tpks_config_free(config);
    return result;
}

START_TEST(modes)
{
    expect_ok(load_mode(0644, -1, -1));
    expect_ok(load_mode(0600, -1, -1));
    expect(TPKS_NOT_PERMITTED, load_mode(0646, -1, -1));
    expect_text("chmod go-w ");
    expect(geteuid() == 0 ? TPKS_OK : TPKS_NOT_PERMITTED, load_mode(0664, -1, -1));
    if (geteuid() == 0) {
        expect(TPKS_NOT_PERMITTED, load_mode(0664, -1, 65534));
        expect(TPKS_NOT_PERMITTED, load_mode(0644, 65534, -1));
        expect_text("chown root ");
    } else {
        expect(TPKS_NOT_PERMITTED, load_mode(0000, -1, -1));
    }
}
END_TEST

START_TEST(not_text)
{
    static const char nul[] = "[keystore]\n\0\n";
    static char large[65537];
    TPKS_CONFIG *config = NULL;

    expect(TPKS_BAD_CONFIG,
           tpks_config_load(write_file("nul.cnf", nul, sizeof(nul) - 1, 0644), &config));
    expect_text("NUL");
    memset(large, '\n', sizeof(large));
    memcpy(large, "[keystore]", 10);
    expect(TPKS_BAD_CONFIG,
           tpks_config_load(write_file("large.cnf", large, sizeof(large), 0644), &config));
    expect_text("longer");
    expect_ok(tpks_config_load(write_file("large.cnf", large, sizeof(large) - 1, 0644), &config));
    tpks_config_free(config);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *good = tcase_create("good"), *bad = tcase_create("bad"), *files = tcase_create("files");

    tcase_add_test(good, defaults);
    tcase_add_test(good, every_directive);
    tcase_add_test(good, allowing);
    tcase_add_test(good, owners);
    tcase_add_test(good, keystore_names);
    tcase_add_test(bad, bad_ones);
    tcase_add_test(files, missing_file);
    tcase_add_test(files, modes);
    tcase_add_test(files, not_text);
    suite_add_tcase(suite, good);
    suite_add_tcase(suite, bad);
    suite_add_tcase(suite, files);
    return run(suite);
}
