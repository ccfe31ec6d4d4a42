/*
 * cmd_rotate_kek.c - trustpoint-keystore rotate-kek: a new KEK on the same token
 */
#include "options.h"

static int rotate(APP *app, bool destroy_old)
{
    unsigned char old[TPKS_ID_SIZE];

    DO(app_open(app, TPKS_WRITE));
    DO(complain_result(tpks_unlock(app->ks)));
    if (!tpks_unlocked_slot(app->ks, old))
        return complain(EX_SOFTWARE, "the keystore does not say which slot unlocked it");
    DO(complain_result(tpks_rotate_kek(app->ks, NULL)));
    if (destroy_old)
        DO(complain_result(tpks_slot_remove(app->ks, old, true)));
    say("the token has a new KEK%s", destroy_old
                                         ? "; the old one was destroyed"
                                         : "; the old one is still there, under a stale slot");
    return EX_OK;
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
