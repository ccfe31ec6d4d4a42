/*
 * cmd_csr.c - trustpoint-keystore csr: a certificate request signed with a record's key
 */
#include "key_input.h"
#include "options.h"
#include "output.h"
#include "record_view.h"
#include "request.h"

typedef struct csr_options {
    const char *subject, *san, *out;
} csr_options;

/* Renewal: without --subject and --san the names of the present certificate stand. */
static int make_subject(APP *app, const TPKS_RECORD *record, const csr_options *o, SUBJECT *out)
{
    AUTO(x509) X509 *leaf = NULL;

    if (o->subject != NULL || o->san != NULL)
        return subject_from_text(o->subject, o->san, out);
    leaf = view_cert(app, record, 0);
    if (leaf != NULL)
        return subject_from_cert(leaf, out);
    return complain(EX_USAGE,
                    "%s has no certificate whose names could be taken; give --subject "
                    "/CN=... or --san DNS:...",
                    tpks_record_name(record));
}

static int sign_request(APP *app, const TPKS_RECORD *record, const SUBJECT *subject, BIO *bio)
{
    __attribute__((cleanup(cleanup_signer))) SIGNER signer = {NULL, NULL};

    DO(signer_open(app, record, &signer));
    return request_write(app, &signer, subject, bio);
}

static int csr(APP *app, const char *name, const csr_options *o)
{
    __attribute__((cleanup(cleanup_subject))) SUBJECT subject = {NULL, NULL};
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return complain_memory();
    DO(app_open(app, TPKS_LOAD));
    DO(app_find(app, name, &record));
    DO(make_subject(app, record, o, &subject));
    DO(sign_request(app, record, &subject, bio));
    return output_bio(bio, o->out, 0644);
}

int command_csr(APP *app, int argc, char **argv)
{
    csr_options o = {NULL, NULL, NULL};
    const option_spec specs[] = {
        {"subject", OPTION_TEXT, &o.subject, "/CN=...",
         "subject (default: the names of the present certificate)"},
        {"san", OPTION_TEXT, &o.san, "DNS:...", "alternative names, such as DNS:a,IP:192.0.2.1"},
        {"out", OPTION_TEXT, &o.out, "FILE", "a new file instead of standard output"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "csr", "NAME", "Writes a certificate request (PKCS#10, PEM) signed with the key.",
        specs, 1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return csr(app, arguments[0], &o);
}
