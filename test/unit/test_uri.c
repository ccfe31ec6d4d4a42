/*
 * test_uri.c - trustpoint: URIs and record names
 */
#include "unit.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

#define ID "000102030405060708090A0b0c0d0e0f"
#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA256 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static TPKS_URI *parse(const char *text)
{
    TPKS_URI *uri = NULL;

    expect_ok(tpks_uri_parse(text, &uri));
    return uri;
}

START_TEST(names)
{
    static const struct {
        const char *uri, *name;
    } cases[] = {
        {"trustpoint://web", "web"},
        {"trustpoint:web", "web"},
        {"TrustPoint://web", "web"},
        {"trustpoint://web%20server", "web server"},
        {"trustpoint://%77%65%62", "web"},
        {"trustpoint://a/b", "a/b"},
        {"trustpoint://a%2Fb%2fc", "a/b/c"},
        {"trustpoint://100%25", "100%"},
        {"trustpoint://a%3Bb%23c%24d", "a;b#c$d"},
        {"trustpoint://a%3Fb%26c%3Dd", "a?b&c=d"},
        {"trustpoint://schl%C3%BCssel", "schl\xC3\xBCssel"},
        {"trustpoint://user@host:443", "user@host:443"},
        {"trustpoint://a!'()*+,~", "a!'()*+,~"},
        {"trustpoint://x?type=cert", "x"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        TPKS_URI *uri = parse(cases[i].uri);

        ck_assert_str_eq(tpks_uri_selector(uri)->name, cases[i].name);
        ck_assert(!tpks_uri_is_list(uri));
        tpks_uri_free(uri);
    }
}
END_TEST

START_TEST(attributes)
{
    TPKS_URI *uri = parse("trustpoint://web?type=chain&keystore=edge-1_x&id=" ID
                          "&fingerprint=" SHA256 "&serial=0012aF&spki=" SHA256);
    const tpks_selector *selector = tpks_uri_selector(uri);

    ck_assert_str_eq(tpks_uri_keystore(uri), "edge-1_x");
    ck_assert_int_eq(tpks_uri_type_of(uri), TPKS_TYPE_CHAIN);
    for (unsigned i = 0; i < TPKS_ID_SIZE; i++)
        ck_assert_uint_eq(selector->id[i], i);
    ck_assert_mem_eq(selector->cert_sha256, "\x00\x11\x22\x33", 4);
    ck_assert_uint_eq(selector->cert_sha256[31], 0xFF);
    ck_assert_ptr_null(selector->cert_sha1);
    ck_assert_mem_eq(selector->spki_sha256, selector->cert_sha256, 32);
    ck_assert_uint_eq(selector->serial_size, 2);
    ck_assert_mem_eq(selector->serial, "\x12\xAF", 2);
    ck_assert_ptr_null(selector->subject);
    ck_assert_ptr_null(selector->issuer);
    tpks_uri_free(uri);
}
END_TEST

START_TEST(more_attributes)
{
    static const char *const types[] = {"private", "public", "cert", "chain"};
    TPKS_URI *uri = parse("trustpoint:?fingerprint=" SHA1);

    ck_assert_mem_eq(tpks_uri_selector(uri)->cert_sha1, "\x01\x23\x45\x67", 4);
    ck_assert_ptr_null(tpks_uri_selector(uri)->cert_sha256);
    ck_assert_ptr_null(tpks_uri_selector(uri)->name);
    ck_assert(!tpks_uri_is_list(uri));
    tpks_uri_free(uri);
    for (int i = 0; i < 4; i++) {
        char text[64];

        snprintf(text, sizeof(text), "trustpoint://x?type=%s", types[i]);
        uri = parse(text);
        ck_assert_int_eq(tpks_uri_type_of(uri), TPKS_TYPE_PRIVATE + i);
        tpks_uri_free(uri);
    }
    uri = parse("trustpoint://?serial=00");
    ck_assert_ptr_nonnull(tpks_uri_selector(uri)->serial);
    ck_assert_uint_eq(tpks_uri_selector(uri)->serial_size, 0);
    tpks_uri_free(uri);
    uri = parse("trustpoint://?serial=F");
    ck_assert_uint_eq(tpks_uri_selector(uri)->serial_size, 1);
    ck_assert_uint_eq(tpks_uri_selector(uri)->serial[0], 15);
    tpks_uri_free(uri);
}
END_TEST

START_TEST(selectors_of_trustpoint)
{
    TPKS_URI *uri =
        parse("trustpoint://?role=tls-server&credential=123456789012345678&ca=CA%20S%C3%BCd&"
              "signer=s&owner=o/p&device=d%26e&cn=c%3D1&alias=f0%20e");
    const tpks_selector *selector = tpks_uri_selector(uri);

    ck_assert_str_eq(selector->role, "tls-server");
    ck_assert_str_eq(selector->credential, "123456789012345678");
    ck_assert_str_eq(selector->ca, "CA S\xC3\xBC"
                                   "d");
    ck_assert_str_eq(selector->signer, "s");
    ck_assert_str_eq(selector->owner, "o/p");
    ck_assert_str_eq(selector->device, "d&e");
    ck_assert_str_eq(selector->cn, "c=1");
    ck_assert_str_eq(selector->alias, "f0 e");
    ck_assert_ptr_null(selector->name);
    ck_assert(!tpks_uri_is_list(uri));
    tpks_uri_free(uri);
    uri = parse("trustpoint://?cn=x&type=cert");
    ck_assert_str_eq(tpks_uri_selector(uri)->cn, "x");
    ck_assert_ptr_null(tpks_uri_selector(uri)->device);
    ck_assert(!tpks_uri_is_list(uri));
    tpks_uri_free(uri);
}
END_TEST

START_TEST(lists)
{
    static const char *const texts[] = {"trustpoint:", "trustpoint://", "trustpoint://?type=cert",
                                        "trustpoint:?keystore=edge"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        TPKS_URI *uri = parse(texts[i]);

        ck_assert(tpks_uri_is_list(uri));
        tpks_uri_free(uri);
    }
}
END_TEST

START_TEST(ours)
{
    ck_assert(tpks_uri_is_ours("trustpoint:"));
    ck_assert(tpks_uri_is_ours("TRUSTPOINT://x"));
    ck_assert(!tpks_uri_is_ours("trustpoint"));
    ck_assert(!tpks_uri_is_ours("trustpoints:x"));
    ck_assert(!tpks_uri_is_ours("file:trustpoint:x"));
    ck_assert(!tpks_uri_is_ours(""));
}
END_TEST

/* ---- bad ones -------------------------------------------------------------------------------- */

static const struct bad {
    const char *uri;
    const char *text; /* part of the error text */
} BAD[] = {
    {"", "trustpoint:"},
    {"trustpoint", "trustpoint:"},
    {"pkcs11:token=x", "trustpoint:"},
    {" trustpoint://x", "trustpoint:"},
    {"trustpoint:///x", "'/'"},
    {"trustpoint:/x", "'/'"},
    {"trustpoint://%2Fx", "'/'"},
    {"trustpoint://-x", "'-'"},
    {"trustpoint://%2Dx", "'-'"},
    {"trustpoint://a b", "%20"},
    {"trustpoint://a;b", "%3B"},
    {"trustpoint://a$b", "%24"},
    {"trustpoint://a#b", "%23"},
    {"trustpoint://a#", "fragment"},
    {"trustpoint://#a", "fragment"},
    {"trustpoint://a?type=cert#x", "fragment"},
    {"trustpoint://a\"b", "%22"},
    {"trustpoint://a\\b", "%5C"},
    {"trustpoint://a<b", "%3C"},
    {"trustpoint://a[b", "%5B"},
    {"trustpoint://a\nb", "%0A"},
    {"trustpoint://a\x7F", "%7F"},
    {"trustpoint://\xC3\xBC", "%C3"},
    {"trustpoint://a%", "%25"},
    {"trustpoint://a%4", "%25"},
    {"trustpoint://a%4g", "%25"},
    {"trustpoint://a%%41", "%25"},
    {"trustpoint://a%-1b", "%25"},
    {"trustpoint://a%+1b", "%25"},
    {"trustpoint://a% 1b", "%20"},
    {"trustpoint://a%00", "control"},
    {"trustpoint://%00", "control"},
    {"trustpoint://a%0A", "control"},
    {"trustpoint://a%7F", "control"},
    {"trustpoint://a%C2%85", "control"},
    {"trustpoint://a%FF", "UTF-8"},
    {"trustpoint://a%C3", "UTF-8"},
    {"trustpoint://a%C0%AF", "UTF-8"},
    {"trustpoint://a%ED%A0%80", "UTF-8"},
    {"trustpoint://a%F4%90%80%80", "UTF-8"},
    {"trustpoint://a&type=cert", "'?'"},
    {"trustpoint:id=" ID, "'?'"},
    {"trustpoint://a?", "attribute=value"},
    {"trustpoint://?", "attribute=value"},
    {"trustpoint://a?type", "attribute=value"},
    {"trustpoint://a?type=cert&", "attribute=value"},
    {"trustpoint://a?&type=cert", "attribute=value"},
    {"trustpoint://a?type=cert&&serial=1", "attribute=value"},
    {"trustpoint://a?=cert", "unknown attribute \"\""},
    {"trustpoint://a?type=", "no value"},
    {"trustpoint://a?type=Cert", "private, public, cert or chain"},
    {"trustpoint://a?type=any", "private, public, cert or chain"},
    {"trustpoint://a?Type=cert", "unknown attribute \"Type\""},
    {"trustpoint://a?typ=cert", "known are type, keystore"},
    {"trustpoint://a?typee=cert", "unknown attribute"},
    {"trustpoint://a?%74ype=cert", "unknown attribute"},
    {"trustpoint://a? type=cert", "unknown attribute"},
    {"trustpoint://a?\x1B[31m=cert", "\\x1b[31m"},
    {"trustpoint://?role=ca", "tls-server"},
    {"trustpoint://?role=", "no value"},
    {"trustpoint://?ca=a&ca=b", "twice"},
    {"trustpoint://?credential=", "no value"},
    {"trustpoint://?credential=x", "number of a credential"},
    {"trustpoint://?credential=07", "number of a credential"},
    {"trustpoint://?credential=0", "number of a credential"},
    {"trustpoint://?credential=-1", "number of a credential"},
    {"trustpoint://?credential=1234567890123456789", "number of a credential"},
    {"trustpoint://?pin-value=987654", "unknown attribute \"pin-value\""},
    {"trustpoint://a?type=cert&type=cert", "twice"},
    {"trustpoint://a?type=cert&type=chain", "twice"},
    {"trustpoint://?fingerprint=" SHA1 "&fingerprint=" SHA256, "twice"},
    {"trustpoint://a?type=cert?x", "%3F"},
    {"trustpoint://a?type=cert=", "%3D"},
    {"trustpoint://a?type=cert;serial=1", "%3B"},
    {"trustpoint://a?type=cert%00", "control"},
    {"trustpoint://a?keystore=%2Fetc", "section"},
    {"trustpoint://a?keystore=Edge", "section"},
    {"trustpoint://a?keystore=0123456789012345678901234567890123", "section"},
    {"trustpoint://a?id=00", "32 hexadecimal"},
    {"trustpoint://a?id=" ID "00", "32 hexadecimal"},
    {"trustpoint://a?id=00:102030405060708090A0b0c0d0e0fx", "32 hexadecimal"},
    {"trustpoint://a?id=g00102030405060708090A0b0c0d0e0f", "32 hexadecimal"},
    {"trustpoint://a?fingerprint=00", "64 hexadecimal"},
    {"trustpoint://a?fingerprint=00:11", "64 hexadecimal"},
    {"trustpoint://a?spki=" SHA1, "64 hexadecimal"},
    {"trustpoint://a?serial=-1", "hexadecimal"},
    {"trustpoint://a?serial=0x1", "hexadecimal"},
    {"trustpoint://a?serial=" SHA256 "0", "hexadecimal"},
};

START_TEST(bad_ones)
{
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        TPKS_URI *uri = NULL;
        tpks_result result = tpks_uri_parse(BAD[i].uri, &uri);

        ck_assert_msg(result == TPKS_BAD_URI, "%s: %s", BAD[i].uri, tpks_result_name(result));
        ck_assert_msg(strstr(tpks_error_text(), BAD[i].text) != NULL, "%s: no \"%s\" in \"%s\"",
                      BAD[i].uri, BAD[i].text, tpks_error_text());
        ck_assert_ptr_null(uri);
        ck_assert_ptr_null(strstr(tpks_error_text(), "987654"));
        ck_assert_uint_eq(ERR_peek_error(), 0);
    }
}
END_TEST

static char *long_uri(const char *start, size_t size)
{
    char *text = malloc(size + 1);

    ck_assert_ptr_nonnull(text);
    memset(text, 'a', size);
    memcpy(text, start, strlen(start));
    text[size] = '\0';
    return text;
}

START_TEST(long_ones)
{
    static const size_t sizes[] = {13 + 256, 4096, 4097, 65536};
    TPKS_URI *uri = NULL;
    char *text = long_uri("trustpoint://", 13 + 255);

    expect_ok(tpks_uri_parse(text, &uri));
    tpks_uri_free(uri);
    free(text);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        text = long_uri("trustpoint://", sizes[i]);
        expect(TPKS_BAD_URI, tpks_uri_parse(text, &uri));
        free(text);
        text = long_uri("trustpoint://?type=", sizes[i]);
        expect(TPKS_BAD_URI, tpks_uri_parse(text, &uri));
        free(text);
        text = long_uri("trustpoint://?", sizes[i]);
        expect(TPKS_BAD_URI, tpks_uri_parse(text, &uri));
        free(text);
    }
}
END_TEST

/* ---- names and building ---------------------------------------------------------------------- */

START_TEST(name_rules)
{
    char name[258];

    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    expect(TPKS_BAD_INPUT, tpks_name_check(name));
    name[255] = '\0';
    expect_ok(tpks_name_check(name));
    expect_ok(tpks_name_check("a"));
    expect_ok(tpks_name_check("a-/b \xC3\xA4 ;#$?&="));
    expect(TPKS_BAD_INPUT, tpks_name_check(""));
    expect(TPKS_BAD_INPUT, tpks_name_check("-a"));
    expect(TPKS_BAD_INPUT, tpks_name_check("/a"));
    expect(TPKS_BAD_INPUT, tpks_name_check("a\tb"));
    expect(TPKS_BAD_INPUT, tpks_name_check("a\x7F"));
    expect(TPKS_BAD_INPUT, tpks_name_check("a\xC2\x80"));
    expect(TPKS_BAD_INPUT, tpks_name_check("a\xFF"));
}
END_TEST

START_TEST(building)
{
    static const struct {
        const char *keystore, *name, *uri;
    } cases[] = {
        {NULL, "web", "trustpoint://web"},
        {"", "web", "trustpoint://web"},
        {"edge", "web", "trustpoint://web?keystore=edge"},
        {NULL, "a/b c;d#e$f", "trustpoint://a/b%20c%3Bd%23e%24f"},
        {NULL, "ca//x", "trustpoint://ca//x"},
        {NULL, "A-z_0.9~%", "trustpoint://A-z_0.9~%25"},
        {NULL, "\xC3\xA4", "trustpoint://%C3%A4"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *uri = tpks_uri_build(cases[i].keystore, cases[i].name);

        ck_assert_str_eq(uri, cases[i].uri);
        OPENSSL_free(uri);
    }
}
END_TEST

/* xorshift: the same names in every run. */
static uint32_t next_random(void)
{
    static uint32_t state = 2463534242u;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* Appends one random character as UTF-8; some are no characters, so the caller checks the name. */
static size_t put_character(char *out)
{
    uint32_t pick = next_random(), c = next_random();

    if (pick % 4 == 0)
        c = 0x80 + c % 0x780;
    else if (pick % 4 == 1)
        c = 0x800 + c % 0xF800;
    else if (pick % 4 == 2)
        c = 0x10000 + c % 0x100000;
    else
        c = 0x20 + c % 0x5F;
    if (c < 0x80)
        return (size_t)sprintf(out, "%c", (int)c);
    if (c < 0x800)
        return (size_t)sprintf(out, "%c%c", 0xC0 | c >> 6, 0x80 | (c & 63));
    if (c < 0x10000)
        return (size_t)sprintf(out, "%c%c%c", 0xE0 | c >> 12, 0x80 | (c >> 6 & 63),
                               0x80 | (c & 63));
    return (size_t)sprintf(out, "%c%c%c%c", 0xF0 | c >> 18, 0x80 | (c >> 12 & 63),
                           0x80 | (c >> 6 & 63), 0x80 | (c & 63));
}

START_TEST(round_trip)
{
    unsigned good = 0;

    for (int i = 0; i < 5000; i++) {
        const char *keystore = i % 2 == 0 ? "" : "edge_2";
        char name[300] = "";
        TPKS_URI *uri = NULL;
        size_t length = 0, wanted = 1 + next_random() % 20;
        bool valid;
        char *text;

        for (size_t j = 0; j < wanted; j++)
            length += put_character(name + length);
        valid = tpks_name_check(name) == TPKS_OK;
        text = tpks_uri_build(keystore, name);
        ck_assert_uint_eq(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                       "0123456789-._~%:/?="),
                          strlen(text));
        expect(valid ? TPKS_OK : TPKS_BAD_URI, tpks_uri_parse(text, &uri));
        if (valid) {
            ck_assert_str_eq(tpks_uri_selector(uri)->name, name);
            ck_assert_str_eq(tpks_uri_keystore(uri), keystore);
            good++;
        }
        tpks_uri_free(uri);
        OPENSSL_free(text);
    }
    ck_assert_uint_gt(good, 2000);
}
END_TEST

/* Whatever is changed in a good URI, parsing ends with one of the two results. */
START_TEST(damaged)
{
    static const char good[] = "trustpoint://web%20a?type=cert&id=" ID "&serial=12&keystore=edge";

    for (int i = 0; i < 50000; i++) {
        char text[sizeof(good)];
        TPKS_URI *uri = NULL;
        tpks_result result;

        memcpy(text, good, sizeof(good));
        for (uint32_t n = next_random() % 4 + 1; n > 0; n--)
            text[next_random() % (sizeof(good) - 1)] = (char)next_random();
        result = tpks_uri_parse(text, &uri);
        ck_assert(result == TPKS_BAD_URI || result == TPKS_OK);
        ck_assert((uri != NULL) == (result == TPKS_OK));
        tpks_uri_free(uri);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("uri");
    TCase *good = tcase_create("good"), *bad = tcase_create("bad"), *build = tcase_create("build");

    tcase_set_timeout(bad, 120);
    tcase_set_timeout(build, 120);
    tcase_add_test(good, names);
    tcase_add_test(good, attributes);
    tcase_add_test(good, more_attributes);
    tcase_add_test(good, selectors_of_trustpoint);
    tcase_add_test(good, lists);
    tcase_add_test(good, ours);
    tcase_add_test(bad, bad_ones);
    tcase_add_test(bad, long_ones);
    tcase_add_test(bad, damaged);
    tcase_add_test(build, name_rules);
    tcase_add_test(build, building);
    tcase_add_test(build, round_trip);
    suite_add_tcase(suite, good);
    suite_add_tcase(suite, bad);
    suite_add_tcase(suite, build);
    return run(suite);
}
