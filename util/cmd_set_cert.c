/*
 * cmd_set_cert.c - trustpoint-keystore set-cert: renews certificates, or a key with them
 */
#include "key_input.h"
#include "options.h"
#include "record_view.h"

typedef struct set_cert_options {
    const char *key;
    input_password password;
} set_cert_options;

static int read_files(APP *app, const set_cert_options *o, key_input *input, char **paths,
                      int count)
{
    for (int i = 0; i < count; i++) {
        input_file file = {.path = paths[i]};

        DO(key_input_read(app, input, &file));
        if (file.has_key && o->key == NULL)
            return complain(EX_DATAERR, "%s holds a private key; a new key must be named: --key %s",
                            paths[i], paths[i]);
    }
    if (o->key != NULL) {
        input_file file = {.path = o->key};

        DO(key_input_read(app, input, &file));
        if (!file.has_key)
            return complain(EX_DATAERR, "there is no private key in %s", o->key);
    }
    if (input->certs == NULL)
        return complain(EX_DATAERR, "there is no certificate in what was given");
    return EX_OK;
}

/* The certificates must carry the new key, or else the one that the record has. */
static int sort(APP *app, const TPKS_RECORD *record, const key_input *input,
                STACK_OF(X509) * *chain)
{
    AUTO(pkey) EVP_PKEY *present = NULL;

    if (input->key != NULL)
        return key_input_sort(input, input->key, chain);
    present = view_public_key(app, record);
    if (present == NULL)
        return complain(EX_DATAERR,
                        "the public key of %s cannot be read; see \"" PROGRAM " verify\"",
                        tpks_record_name(record));
    return key_input_sort(input, present, chain);
}

static int set_cert(APP *app, const char *name, const set_cert_options *o, char **paths, int count)
{
    __attribute__((cleanup(cleanup_input))) key_input input;
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(certs) STACK_OF(X509) *chain = NULL;
    AUTO(secret) TPKS_SECRET *secret = NULL;

    key_input_init(&input);
    input.password = o->password;
    DO(read_files(app, o, &input, paths, count));
    DO(app_open(app, TPKS_WRITE));
    DO(app_find(app, name, &record));
    DO(sort(app, record, &input, &chain));
    if (input.key != NULL)
        DO(key_to_secret(input.key, &secret));
    return complain_result(tpks_set_cert(app->ks, record, secret, chain));
}

int command_set_cert(APP *app, int argc, char **argv)
{
    set_cert_options o = {.password = {.fd = NO_FD}};
    const option_spec specs[] = {
        {"key", OPTION_TEXT, &o.key, "FILE", "a new private key, put in place together"},
        {"input-password-file", OPTION_TEXT, &o.password.file, "FILE",
         "password of encrypted FILEs"},
        {"input-password-fd", OPTION_NUMBER, &o.password.fd, "N", "the same from descriptor N"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "set-cert", "NAME FILE...", "Replaces the certificates of a record.", specs, 2, MANY};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return set_cert(app, arguments[0], &o, arguments + 1, count - 1);
}
