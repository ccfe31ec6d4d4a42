/*
 * cmd_export.c - trustpoint-keystore export: a private key leaves the keystore
 *
 * The file is PKCS#8, encrypted with PBES2 (RFC 8018: PBKDF2 with HMAC-SHA-256, AES-256-CBC)
 * unless --unencrypted says otherwise.
 */
#include <string.h>

#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>

#include "key_input.h"
#include "options.h"
#include "output.h"
#include "secrets.h"

#define PBKDF2_ITERATIONS 600000

typedef struct export_options {
    const char *out;
    const char *password_file;
    unsigned long password_fd;
    bool unencrypted, yes;
} export_options;

CLEANUP(PKCS8_PRIV_KEY_INFO *, PKCS8_PRIV_KEY_INFO_free, cleanup_p8)
CLEANUP(X509_SIG *, X509_SIG_free, cleanup_sig)

static int check(const export_options *o)
{
    bool has_password = o->password_file != NULL || o->password_fd != NO_FD;

    if (o->out == NULL || strcmp(o->out, "-") == 0)
        return complain(EX_USAGE, "export needs --out FILE, a new file");
    if (o->unencrypted && has_password)
        return complain(EX_USAGE, "--unencrypted and an output password contradict each other");
    if (o->unencrypted || has_password || secrets_have_terminal())
        return EX_OK;
    return complain(EX_USAGE, "give --output-password-file FILE, or --unencrypted to write the "
                              "private key in the clear");
}

static int confirm(const export_options *o)
{
    if (o->yes)
        return EX_OK;
    if (!secrets_have_terminal())
        return complain(EX_USAGE, "without a terminal to ask at, export needs "
                                  "--yes-export-private-key");
    DO(secrets_confirm("Write this private key to a file outside the keystore? Type yes: "));
    return secrets_confirm("From then on the keystore no longer protects it. Type yes again: ");
}

static int get_password(const export_options *o, TPKS_SECRET **out)
{
    if (o->unencrypted)
        return EX_OK;
    if (o->password_file == NULL && o->password_fd == NO_FD)
        return secrets_prompt_new("New password of the file: ", false, out);
    DO(secrets_read(o->password_file, o->password_fd, out));
    return complain_result(tpks_password_check(*out));
}

static int write_plain(const TPKS_SECRET *key, BIO *bio)
{
    if (PEM_write_bio(bio, PEM_STRING_PKCS8INF, "", tpks_secret_data_const(key),
                      (long)tpks_secret_size(key)) > 0)
        return EX_OK;
    return complain_memory();
}

static X509_SIG *encrypt(APP *app, PKCS8_PRIV_KEY_INFO *p8, const TPKS_SECRET *password)
{
    X509_ALGOR *algorithm = PKCS5_pbe2_set_iv_ex(EVP_aes_256_cbc(), PBKDF2_ITERATIONS, NULL, 0,
                                                 NULL, NID_hmacWithSHA256, app->libctx);
    X509_SIG *sealed = NULL;

    if (algorithm != NULL)
        sealed =
            PKCS8_set0_pbe_ex((const char *)tpks_secret_data_const(password),
                              (int)tpks_secret_size(password), p8, algorithm, app->libctx, NULL);
    if (sealed == NULL)
        X509_ALGOR_free(algorithm);
    return sealed;
}

static int write_encrypted(APP *app, const TPKS_SECRET *key, const TPKS_SECRET *password, BIO *bio)
{
    const unsigned char *der = tpks_secret_data_const(key);
    AUTO(p8)
    PKCS8_PRIV_KEY_INFO *p8 = d2i_PKCS8_PRIV_KEY_INFO(NULL, &der, (long)tpks_secret_size(key));
    AUTO(sig) X509_SIG *sealed = p8 != NULL ? encrypt(app, p8, password) : NULL;

    if (sealed == NULL || PEM_write_bio_PKCS8(bio, sealed) != 1)
        return complain_crypto(EX_SOFTWARE, "cannot encrypt the private key");
    return EX_OK;
}

static int write_key(APP *app, const TPKS_RECORD *record, const TPKS_SECRET *password,
                     const char *out)
{
    AUTO(bio) BIO *bio = BIO_new(BIO_s_secmem());
    AUTO(secret) TPKS_SECRET *key = NULL;

    if (bio == NULL)
        return complain_memory();
    DO(complain_result(tpks_load_key(app->ks, record, &key)));
    if (password != NULL)
        DO(write_encrypted(app, key, password, bio));
    else
        DO(write_plain(key, bio));
    return output_bio(bio, out, 0600);
}

static int export_key(APP *app, const char *name, const export_options *o)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(secret) TPKS_SECRET *password = NULL;
    int code;

    DO(app_open(app, TPKS_LOAD));
    DO(app_find(app, name, &record));
    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        return complain(EX_NOPERM,
                        "the private key of %s lives in a token, which it never leaves: it cannot "
                        "be exported",
                        name);
    DO(confirm(o));
    DO(get_password(o, &password));
    code = write_key(app, record, password, o->out);
    tpks_log(app->ks, "export", name, code == EX_OK ? TPKS_OK : TPKS_INTERNAL);
    return code;
}

int command_export(APP *app, int argc, char **argv)
{
    export_options o = {.password_fd = NO_FD};
    const option_spec specs[] = {
        {"out", OPTION_TEXT, &o.out, "FILE", "the new file, mode 0600"},
        {"output-password-file", OPTION_TEXT, &o.password_file, "FILE", "password to encrypt with"},
        {"output-password-fd", OPTION_NUMBER, &o.password_fd, "N", "the same from descriptor N"},
        {"unencrypted", OPTION_FLAG, &o.unencrypted, NULL, "write the key in the clear"},
        {"yes-export-private-key", OPTION_FLAG, &o.yes, NULL, "do not ask"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"export",
                                 "NAME --out FILE",
                                 "Writes a private key to a file; asks twice; is logged.",
                                 specs,
                                 1,
                                 1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    DO(check(&o));
    return export_key(app, arguments[0], &o);
}
