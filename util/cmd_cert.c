/*
 * cmd_cert.c - trustpoint-keystore cert: a record's certificates as PEM
 */
#include "options.h"
#include "output.h"
#include "record_view.h"

static int write_certs(APP *app, const TPKS_RECORD *record, bool leaf_only, BIO *bio)
{
    size_t count = tpks_record_cert_count(record);

    if (count == 0)
        return complain(EX_NOINPUT, "%s has no certificate; \"" PROGRAM " set-cert\" gives it one",
                        tpks_record_name(record));
    return view_certs_pem(app, record, 0, leaf_only ? 1 : count, bio);
}

static int cert(APP *app, const char *name, bool leaf_only, const char *out)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return complain_memory();
    DO(app_open(app, TPKS_LOAD));
    DO(app_find(app, name, &record));
    DO(write_certs(app, record, leaf_only, bio));
    return output_bio(bio, out, 0644);
}

int command_cert(APP *app, int argc, char **argv)
{
    bool leaf = false;
    const char *out = NULL;
    const option_spec specs[] = {
        {"leaf", OPTION_FLAG, &leaf, NULL, "without the chain"},
        {"out", OPTION_TEXT, &out, "FILE", "a new file instead of standard output"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"cert", "NAME", "Writes the certificate and its chain as PEM.",
                                 specs,  1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return cert(app, arguments[0], leaf, out);
}
