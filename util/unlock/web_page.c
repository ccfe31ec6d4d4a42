/*
 * web_page.c - the pages as people see and hear them: plain HTML, no script
 *
 * Every field has its label, help belongs to its field by aria-describedby, what became of a try is
 * announced (role="alert") and stands in the title, which screen readers say first.
 */
#include <stdlib.h>
#include <string.h>

#include <event2/http.h>

#include "web_page.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"robots\" content=\"noindex\">\n"
    "<title>%s</title>\n<style>\n"
    "body{font:1.1rem/1.5 sans-serif;margin:2rem auto;max-width:36rem;padding:0 1rem;"
    "color:#111;background:#fff}\n"
    "label{display:block;font-weight:bold;margin-top:1rem}\n"
    "input{font:inherit;width:100%%;box-sizing:border-box;padding:.5rem;border:2px solid #555}\n"
    "button{font:inherit;margin-top:1.5rem;padding:.5rem 1.5rem;border:2px solid #014a86;"
    "color:#fff;background:#014a86}\n"
    "input:focus,button:focus{outline:3px solid #f0a000;outline-offset:2px}\n"
    ".alert{border-left:.4rem solid #b00020;padding-left:1rem}\n"
    ".done{border-left:.4rem solid #006b2d;padding-left:1rem}\n"
    "</style>\n</head>\n<body>\n<main>\n<h1>%s</h1>\n";

static const char foot[] = "</main>\n</body>\n</html>\n";

static const char *alert_text(web_outcome outcome)
{
    switch (outcome) {
    case WEB_WRONG:
        return "That was not right. Nothing was changed.";
    case WEB_WAIT:
        return "Too early after the last try: the password was not looked at.";
    case WEB_TAKEN:
        return "Another password is being checked just now: yours was not looked at.";
    case WEB_FAILED:
        return "The keystore could not be restored; the log of this service on the machine says "
               "why.";
    default:
        return NULL;
    }
}

static const char *why_text(tpks_result state)
{
    if (state == TPKS_KEK_FOREIGN)
        return "its hardware security module (HSM) has another key in the place of the one that "
               "protects this keystore";
    if (state == TPKS_KEK_MISSING)
        return "its hardware security module (HSM) has lost the key that protects this keystore, "
               "or is a new one";
    return "its hardware security module (HSM) can't unlock this keystore just now";
}

static void put_alert(struct evbuffer *out, const web_answer *answer)
{
    const char *text = alert_text(answer->outcome);

    if (text == NULL)
        return;
    evbuffer_add_printf(out, "<p class=\"alert\" role=\"alert\" id=\"result\">%s", text);
    if (answer->wait > 0)
        evbuffer_add_printf(out, " The next try is possible in %u second%s.", answer->wait,
                            answer->wait == 1 ? "" : "s");
    evbuffer_add_printf(out, "</p>\n");
}

static void put_code_field(struct evbuffer *out)
{
    evbuffer_add_printf(
        out, "<label for=\"code\">One-time code</label>\n"
             "<input id=\"code\" name=\"code\" type=\"text\" required maxlength=\"8\" "
             "autocomplete=\"off\" autocapitalize=\"characters\" spellcheck=\"false\" "
             "aria-describedby=\"code-help\">\n"
             "<p id=\"code-help\">Eight characters, shown on the console and in the log of this "
             "service.</p>\n");
}

static void put_fields(struct evbuffer *out, const char *token, bool code_wanted)
{
    evbuffer_add_printf(
        out,
        "<form method=\"post\" action=\"" WEB_PATH "\" accept-charset=\"utf-8\" "
        "autocomplete=\"off\">\n"
        "<input type=\"hidden\" name=\"csrf\" value=\"%s\">\n"
        "<label for=\"password\">Backup password or recovery key</label>\n"
        "<input id=\"password\" name=\"password\" type=\"password\" required maxlength=\"%d\" "
        "autocomplete=\"off\" aria-describedby=\"password-help\" autofocus>\n"
        "<p id=\"password-help\">It was chosen, or printed, when the keystore was made. Checking "
        "it takes a few seconds.</p>\n",
        token, WEB_PASSWORD_MAX);
    if (code_wanted)
        put_code_field(out);
    evbuffer_add_printf(out, "<button type=\"submit\">Unlock</button>\n</form>\n");
}

bool page_form(struct evbuffer *out, const web_answer *answer, const char *token, bool code_wanted)
{
    char *label = evhttp_htmlescape(answer->label);

    if (label == NULL)
        return false;
    evbuffer_add_printf(out, head,
                        alert_text(answer->outcome) != NULL ? "Not unlocked - Trustpoint keystore"
                                                            : "Unlock the Trustpoint keystore",
                        "Unlock the Trustpoint keystore");
    put_alert(out, answer);
    evbuffer_add_printf(out,
                        "<p>This machine waits: %s. The backup password brings everything "
                        "back.</p>\n<p>Keystore: <strong>%s</strong> (%s)</p>\n",
                        why_text(answer->state), label, answer->id);
    put_fields(out, token, code_wanted);
    free(label);
    return evbuffer_add(out, foot, strlen(foot)) == 0;
}

bool page_done(struct evbuffer *out, const web_answer *answer)
{
    char *label = evhttp_htmlescape(answer->label);

    if (label == NULL)
        return false;
    evbuffer_add_printf(out, head, "Unlocked - Trustpoint keystore", "The keystore is unlocked");
    evbuffer_add_printf(out,
                        "<p class=\"done\" role=\"status\" id=\"result\">The keystore "
                        "<strong>%s</strong> (%s) works again with this machine's HSM.</p>\n"
                        "<p>What waited for it starts now. This page has done its work and goes "
                        "away; you can close it.</p>\n",
                        label, answer->id);
    free(label);
    return evbuffer_add(out, foot, strlen(foot)) == 0;
}

bool page_refusal(struct evbuffer *out, const char *heading, const char *text)
{
    evbuffer_add_printf(out, head, heading, heading);
    evbuffer_add_printf(out, "<p>%s</p>\n<p><a href=\"" WEB_PATH "\">Open the form</a></p>\n",
                        text);
    return evbuffer_add(out, foot, strlen(foot)) == 0;
}
