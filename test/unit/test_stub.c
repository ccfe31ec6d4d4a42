/*
 * test_stub.c - PEM stubs: what is written is read, and nothing else is
 */
#include "unit.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

static void encode(const char *key_type, const char *uri, unsigned char *out, size_t *size)
{
    unsigned char *der = NULL;

    expect_ok(tpks_stub_encode(key_type, uri, &der, size));
    ck_assert_uint_le(*size, TPKS_STUB_MAX);
    memcpy(out, der, *size);
    OPENSSL_free(der);
}

START_TEST(round_trip)
{
    static const char *const types[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};
    static const char *const uris[] = {"trustpoint://web", "trustpoint:w%C3%A4b?keystore=edge",
                                       "trustpoint://?id=000102030405060708090a0b0c0d0e0f",
                                       "trustpoint://web?type=private"};

    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 4; j++) {
            unsigned char der[TPKS_STUB_MAX];
            tpks_stub stub;
            size_t size;

            encode(types[i], uris[j], der, &size);
            ck_assert(tpks_stub_looks_like(der, size));
            expect_ok(tpks_stub_decode(der, size, &stub));
            ck_assert_str_eq(stub.key_type, types[i]);
            ck_assert_str_eq(stub.uri, uris[j]);
        }
}
END_TEST

START_TEST(longest_name)
{
    unsigned char der[TPKS_STUB_MAX];
    char name[256];
    tpks_stub stub;
    size_t size;
    char *uri;

    memset(name, ';', 255);
    name[255] = '\0';
    uri = tpks_uri_build("01234567890123456789012345678901", name);
    encode("RSA-PSS", uri, der, &size);
    ck_assert(tpks_stub_looks_like(der, size));
    expect_ok(tpks_stub_decode(der, size, &stub));
    ck_assert_str_eq(stub.uri, uri);
    OPENSSL_free(uri);
}
END_TEST

START_TEST(refused_to_encode)
{
    static const char *const uris[] = {"trustpoint://",
                                       "trustpoint://?serial=01",
                                       "trustpoint://web?type=cert",
                                       "trustpoint://web?typ=private",
                                       "file:web",
                                       ""};
    unsigned char *der = NULL;
    char long_uri[1200];
    size_t size;

    for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++)
        expect(TPKS_BAD_INPUT, tpks_stub_encode("RSA", uris[i], &der, &size));
    expect(TPKS_BAD_INPUT, tpks_stub_encode("DSA", "trustpoint://web", &der, &size));
    expect(TPKS_BAD_INPUT, tpks_stub_encode("", "trustpoint://web", &der, &size));
    expect(TPKS_BAD_INPUT, tpks_stub_encode("rsa", "trustpoint://web", &der, &size));
    /* a valid URI that does not fit, because more is escaped than must be */
    strcpy(long_uri, "trustpoint://");
    for (int i = 0; i < 255; i++)
        strcat(long_uri, "%61");
    strcat(long_uri, "?id=");
    for (int i = 0; i < 32; i++)
        strcat(long_uri, "%30");
    strcat(long_uri, "&keystore=");
    for (int i = 0; i < 32; i++)
        strcat(long_uri, "%61");
    expect(TPKS_BAD_INPUT, tpks_stub_encode("RSA", long_uri, &der, &size));
    expect_text("bytes");
    ck_assert_ptr_null(der);
}
END_TEST

/* ---- not stubs ------------------------------------------------------------------------------- */

static void refuse(const void *der, size_t size)
{
    tpks_stub stub;

    memset(&stub, 'x', sizeof(stub));
    expect(TPKS_BAD_INPUT, tpks_stub_decode(der, size, &stub));
    ck_assert_int_eq(stub.uri[0], 'x');
    ck_assert_uint_eq(ERR_peek_error(), 0);
}
#define REFUSE(literal) refuse(literal, sizeof(literal) - 1)

START_TEST(handmade)
{
    static const char good[] = "\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server";
    tpks_stub stub;

    /* The shortest way to write it is one, whatever the description says. */
    expect_ok(tpks_stub_decode((const unsigned char *)good, sizeof(good) - 1, &stub));
    ck_assert_str_eq(stub.uri, "trustpoint://server");

    REFUSE("");
    REFUSE("\x30");
    REFUSE("\x30\x00");
    REFUSE("\x30\x02\x0C\x00");
    /* cut off, followed by something, inner length beyond the end */
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://serve");
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server\x00");
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x14trustpoint://server");
    /* a fourth element */
    REFUSE("\x30\x1F\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server\x0C\x00");
    /* only two */
    REFUSE("\x30\x18\x0C\x01x\x0C\x13trustpoint://server");
    /* other string types */
    REFUSE("\x30\x1D\x13\x01x\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1D\x0C\x01x\x13\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x16\x13trustpoint://server");
    /* BER: a length in more bytes than needed, indefinite length, a string in pieces */
    REFUSE("\x30\x81\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1E\x0C\x81\x01x\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x80\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server\x00\x00");
    REFUSE("\x30\x1F\x2C\x03\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://server");
    /* NUL, control character, not UTF-8 */
    REFUSE("\x30\x1D\x0C\x01\x00\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint://serve\x00");
    REFUSE("\x30\x1D\x0C\x01\x1B\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1D\x0C\x01\xFF\x0C\x03RSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1E\x0C\x01x\x0C\x04RSA\x00\x0C\x13trustpoint://server");
    /* key type, URI */
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03"
           "DSA\x0C\x13trustpoint://server");
    REFUSE("\x30\x1A\x0C\x01x\x0C\x00\x0C\x13trustpoint://server");
    REFUSE("\x30\x1D\x0C\x01x\x0C\x03RSA\x0C\x13trustpoint:///erver");
    REFUSE("\x30\x17\x0C\x01x\x0C\x03RSA\x0C\x0Dtrustpoint://");
    REFUSE("\x30\x0A\x0C\x01x\x0C\x03RSA\x0C\x00");
}
END_TEST

START_TEST(every_cut_and_every_changed_byte)
{
    unsigned char der[TPKS_STUB_MAX], copy[TPKS_STUB_MAX];
    tpks_stub stub;
    size_t size;

    encode("EC", "trustpoint://web", der, &size);
    for (size_t i = 0; i < size; i++)
        refuse(der, i);
    for (size_t i = 0; i < size; i++)
        for (unsigned byte = 0; byte < 256; byte++) {
            memcpy(copy, der, size);
            copy[i] = (unsigned char)byte;
            /* another description or name is another good stub: no crash is what counts */
            if (tpks_stub_decode(copy, size, &stub) == TPKS_OK)
                ck_assert(tpks_stub_looks_like(copy, size));
        }
}
END_TEST

START_TEST(too_long)
{
    unsigned char der[TPKS_STUB_MAX + 8];

    memset(der, 'x', sizeof(der));
    memcpy(der, "\x30\x82\x04\x04\x0C\x82\x03\xE0", 8);
    ck_assert(!tpks_stub_looks_like(der, sizeof(der)));
    refuse(der, sizeof(der));
}
END_TEST

START_TEST(other_key_files)
{
    static const unsigned char rsa[] = {0x30, 0x82, 0x04, 0xA4, 0x02, 0x01, 0x00, 0x02};
    static const unsigned char spki[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86};
    static const unsigned char huge[] = {0x30, 0x83, 0x01, 0x00, 0x00, 0x0C, 0x01, 0x00};
    static const unsigned char short_one[] = {0x30, 0x82, 0x01, 0x00};

    ck_assert(!tpks_stub_looks_like(rsa, sizeof(rsa)));
    ck_assert(!tpks_stub_looks_like(spki, sizeof(spki)));
    ck_assert(!tpks_stub_looks_like(huge, sizeof(huge)));
    ck_assert(!tpks_stub_looks_like(short_one, sizeof(short_one)));
    ck_assert(!tpks_stub_looks_like(NULL, 0));
    ck_assert(!tpks_stub_looks_like((const unsigned char *)"-----BEGIN", 10));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stub");
    TCase *good = tcase_create("good"), *bad = tcase_create("bad");

    tcase_set_timeout(bad, 120);
    tcase_add_test(good, round_trip);
    tcase_add_test(good, longest_name);
    tcase_add_test(good, refused_to_encode);
    tcase_add_test(bad, handmade);
    tcase_add_test(bad, every_cut_and_every_changed_byte);
    tcase_add_test(bad, too_long);
    tcase_add_test(bad, other_key_files);
    suite_add_tcase(suite, good);
    suite_add_tcase(suite, bad);
    return run(suite);
}
