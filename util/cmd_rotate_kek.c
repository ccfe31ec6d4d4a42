/*
 * cmd_rotate_kek.c - trustpoint-keystore rotate-kek: a new KEK on the same token
 */
#include "options.h"
#include "output.h"

/* Another process may have been faster. */
static int destroy(APP *app, const unsigned char old[TPKS_ID_SIZE])
{
    char hex[2 * TPKS_ID_SIZE + 1];
    tpks_result result = tpks_slot_remove(app->ks, old, true);

    if (result == TPKS_OK || result == TPKS_NOT_FOUND) {
        say("the old one was destroyed");
        return EX_OK;
    }
    int code = complain_result(result);

    say("the old one is still there, under the slot %.8s: \"" PROGRAM
        " slot remove %.8s --destroy-key\" does the rest",
        hex_text(old, TPKS_ID_SIZE, hex), hex);
    return code;
}

static int rotate(APP *app, bool destroy_old)
{
    unsigned char old[TPKS_ID_SIZE];

    DO(app_open(app, TPKS_WRITE));
    DO(complain_result(tpks_unlock(app->ks)));
    if (!tpks_unlocked_slot(app->ks, old))
        return complain(EX_SOFTWARE, "the keystore does not say which slot unlocked it");
    DO(complain_result(tpks_rotate_kek(app->ks, NULL)));
    say("the token has a new KEK%s",
        destroy_old ? "" : "; the old one is still there, under a stale slot");
    return destroy_old ? destroy(app, old) : EX_OK;
}

int command_rotate_kek(APP *app, int argc, char **argv)
{
    bool destroy_old = false;
    const option_spec specs[] = {
        {"destroy-old", OPTION_FLAG, &destroy_old, NULL, "destroy the old KEK afterwards"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "rotate-kek", "", "Makes a new KEK on the same token; needs no password.", specs, 0, 0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return rotate(app, destroy_old);
}
