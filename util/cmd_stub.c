/*
 * cmd_stub.c - trustpoint-keystore stub: a PEM file that names a record and holds no secret
 */
#include <string.h>

#include <openssl/pem.h>

#include "options.h"
#include "output.h"
#include "stub_pem.h"

/* RSA-PSS and Edwards keys have no PEM label that old programs would read. */
static const char *traditional_label(const char *key_type)
{
    if (strcmp(key_type, "RSA") == 0)
        return PEM_STRING_RSA;
    return strcmp(key_type, "EC") == 0 ? PEM_STRING_ECPRIVATEKEY : NULL;
}

static int choose_label(const char *wanted, const char *key_type, const char **label)
{
    const char *traditional = traditional_label(key_type);

    *label = TPKS_STUB_LABEL;
    if (strcmp(wanted, "own") == 0)
        return EX_OK;
    if (strcmp(wanted, "traditional") != 0 && strcmp(wanted, "rsa") != 0 &&
        strcmp(wanted, "ec") != 0)
        return complain(EX_USAGE, "--label can be own, traditional, rsa or ec, not \"%s\"", wanted);
    if (traditional == NULL ||
        (strcmp(wanted, "traditional") != 0 && strcasecmp(wanted, key_type) != 0))
        return complain(EX_DATAERR,
                        "a key of type %s cannot have the label \"%s\"; use --label own", key_type,
                        wanted);
    *label = traditional;
    return EX_OK;
}

static int stub(APP *app, const char *name, const char *wanted, const char *out)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());
    const char *label = NULL;

    if (bio == NULL)
        return complain_memory();
    DO(app_open(app, TPKS_LOAD));
    DO(app_find(app, name, &record));
    DO(choose_label(wanted, tpks_record_key_type(record), &label));
    DO(stub_pem(app, record, label, false, bio));
    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        say("the key of %s stays in its token: the processes that use it, workers without rights "
            "too, must reach the token and read its PIN while they run",
            name);
    return output_bio(bio, out, 0644);
}

int command_stub(APP *app, int argc, char **argv)
{
    const char *label = "own", *out = NULL;
    const option_spec specs[] = {
        {"label", OPTION_TEXT, &label, "LABEL",
         "own (default), or traditional, rsa, ec for programs that know no other"},
        {"out", OPTION_TEXT, &out, "FILE", "a new file instead of standard output"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "stub", "NAME", "Writes a PEM file that names the record; it holds no secret.",
        specs,  1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return stub(app, arguments[0], label, out);
}
