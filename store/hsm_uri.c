/*
 * hsm_uri.c - the token URI of the configuration (RFC 7512), checked strictly
 *
 * p11-kit parses it but passes over a good deal in silence: unknown attributes, repeated ones
 * (the last wins), spaces, a slot-id that does not fit. Each is an error here.
 */
#include "hsm_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

void token_uri_clear(struct token_uri *uri)
{
    if (uri->parsed != NULL)
        p11_kit_uri_free(uri->parsed);
    *uri = (struct token_uri){0};
}

static tpks_result bad(const char *why)
{
    return fail(TPKS_BAD_CONFIG, "token URI: %s: correct the directive `token`", why);
}

/* Separators of attributes: `;` in the path, `&` in the query (RFC 7512, section 2.3). */
static size_t count_separators(const char *text)
{
    size_t count = 0;
    char separator = ';';
    for (; *text != '\0'; text++) {
        if (*text == '?' && separator == ';') {
            separator = '&';
            count++;
        } else if (*text == separator) {
            count++;
        }
    }
    return count;
}

/* A repeated attribute is lost when the URI is written again. */
static tpks_result check_nothing_lost(const char *text, P11KitUri *parsed)
{
    char *again = NULL;
    if (p11_kit_uri_format(parsed, P11_KIT_URI_FOR_ANY, &again) != P11_KIT_URI_OK)
        return fail_memory();
    bool same = count_separators(text) == count_separators(again);
    free(again);
    return same ? TPKS_OK : bad("an attribute is repeated or empty");
}

static tpks_result check_slot_id(const char *text, P11KitUri *parsed)
{
    char expected[40];
    CK_SLOT_ID slot = p11_kit_uri_get_slot_id(parsed);
    if (slot == (CK_SLOT_ID)-1)
        return strstr(text, "slot-id=") == NULL ? TPKS_OK : bad("slot-id is not a number");
    snprintf(expected, sizeof(expected), "slot-id=%lu", (unsigned long)slot);
    const char *found = strstr(text, expected);
    if (found == NULL || isdigit((unsigned char)found[strlen(expected)]))
        return bad("slot-id is not a plain decimal number in range");
    return TPKS_OK;
}

static bool selects_a_token(P11KitUri *parsed)
{
    const CK_TOKEN_INFO *info = p11_kit_uri_get_token_info(parsed);
    return info->label[0] != '\0' || info->serialNumber[0] != '\0' || info->model[0] != '\0' ||
           info->manufacturerID[0] != '\0' || p11_kit_uri_get_slot_id(parsed) != (CK_SLOT_ID)-1;
}

static tpks_result check_text(const char *text)
{
    if (strlen(text) > 4096)
        return bad("longer than 4096 bytes");
    for (const char *c = text; *c != '\0'; c++) {
        if (isspace((unsigned char)*c) || iscntrl((unsigned char)*c))
            return bad("white space or a control character: write it as %20 and so on");
    }
    return TPKS_OK;
}

static tpks_result check_attributes(const char *text, P11KitUri *parsed)
{
    CK_ULONG count = 0;
    p11_kit_uri_get_attributes(parsed, &count);
    if (p11_kit_uri_get_pin_value(parsed) != NULL)
        return bad("pin-value is refused, a PIN in a configuration is no secret: use "
                   "pin-source=file:/path");
    if (p11_kit_uri_any_unrecognized(parsed))
        return bad("an attribute is unknown, or its value can't be (a label has at most 32 bytes)");
    if (count != 0)
        return bad("it must name a token, not an object (no object, type or id); queries such as "
                   "module-path follow a `?`");
    TRY(check_slot_id(text, parsed));
    if (!selects_a_token(parsed))
        return bad("it names no token: add token= or serial=");
    return check_nothing_lost(text, parsed);
}

/* p11-kit keeps unknown query attributes as a vendor's: one for the module and one for the PIN are
 * all. */
static tpks_result check_query(const char *text)
{
    const char *query = strchr(text, '?');
    const char *second = query != NULL ? strchr(query, '&') : NULL;
    if (second == NULL || strchr(second + 1, '&') == NULL)
        return TPKS_OK;
    return bad("an attribute after the `?` is unknown: there may be module-path or module-name, "
               "and pin-source");
}

static tpks_result take_module(struct token_uri *uri)
{
    const char *path = p11_kit_uri_get_module_path(uri->parsed);
    const char *name = p11_kit_uri_get_module_name(uri->parsed);
    if ((path == NULL) == (name == NULL))
        return bad("it needs exactly one of module-path and module-name");
    uri->module_by_name = name != NULL;
    uri->module = name != NULL ? name : path;
    return uri->module[0] != '\0' ? TPKS_OK : bad("module-path or module-name is empty");
}

static tpks_result take_pin_source(struct token_uri *uri)
{
    const char *source = p11_kit_uri_get_pin_source(uri->parsed);
    if (source == NULL)
        return bad("pin-source is missing: add pin-source=file:/path or pin-source=callback");
    uri->pin_asked = strcmp(source, "callback") == 0;
    if (uri->pin_asked)
        return TPKS_OK;
    if (strncmp(source, "file:", 5) == 0)
        source += strncmp(source, "file:///", 8) == 0 ? 7 : 5;
    if (source[0] != '/' || source[1] == '/')
        return bad("pin-source must be file: with an absolute path, or callback");
    uri->pin_path = source;
    return TPKS_OK;
}

static tpks_result parse_into(const char *text, struct token_uri *uri)
{
    TRY(check_text(text));
    uri->parsed = p11_kit_uri_new();
    if (uri->parsed == NULL)
        return fail_memory();
    int rv = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri->parsed);
    if (rv != P11_KIT_URI_OK)
        return bad(p11_kit_uri_message(rv));
    TRY(check_attributes(text, uri->parsed));
    TRY(take_module(uri));
    TRY(take_pin_source(uri));
    return check_query(text);
}

tpks_result token_uri_parse(const char *text, struct token_uri *out)
{
    *out = (struct token_uri){0};
    tpks_result result = text != NULL ? parse_into(text, out) : bad("there is none");
    if (result != TPKS_OK)
        token_uri_clear(out);
    return result;
}

tpks_result hsm_check_uri(const char *token_uri)
{
    struct token_uri uri;
    TRY(token_uri_parse(token_uri, &uri));
    token_uri_clear(&uri);
    return TPKS_OK;
}

bool hsm_pin_is_asked(const char *token_uri)
{
    struct token_uri uri;
    if (token_uri_parse(token_uri, &uri) != TPKS_OK)
        return false;
    bool asked = uri.pin_asked;
    token_uri_clear(&uri);
    return asked;
}

/* ---- writing one ---- */

/* CK_TOKEN_INFO's texts are padded with blanks. */
static bool set_padded(unsigned char *field, size_t size, const char *text)
{
    size_t length = text == NULL ? 0 : strlen(text);

    if (length == 0)
        return true;
    if (length > size)
        return false;
    memset(field, ' ', size);
    memcpy(field, text, length);
    return true;
}

static char *format_uri(P11KitUri *uri, const char *label, const char *serial, const char *module,
                        const char *pin_source)
{
    CK_TOKEN_INFO *info = p11_kit_uri_get_token_info(uri);
    char *text = NULL;

    if (!set_padded(info->label, sizeof(info->label), label) ||
        !set_padded(info->serialNumber, sizeof(info->serialNumber), serial))
        return NULL;
    p11_kit_uri_set_module_path(uri, module);
    p11_kit_uri_set_pin_source(uri, pin_source);
    return p11_kit_uri_format(uri, P11_KIT_URI_FOR_ANY, &text) == P11_KIT_URI_OK ? text : NULL;
}

tpks_result hsm_make_uri(const char *label, const char *serial, const char *module_path,
                         const char *pin_file, char **out)
{
    char pin_source[4096];
    P11KitUri *uri = p11_kit_uri_new();

    if (uri == NULL)
        return fail_memory();
    snprintf(pin_source, sizeof(pin_source), "file:%s", pin_file);
    char *text = format_uri(uri, label, serial, module_path, pin_source);
    p11_kit_uri_free(uri);
    tpks_result result = text == NULL ? bad("it can't be written") : hsm_check_uri(text);
    if (result == TPKS_OK)
        *out = OPENSSL_strdup(text);
    free(text);
    return result == TPKS_OK && *out == NULL ? fail_memory() : result;
}
