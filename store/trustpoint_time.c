/* trustpoint_time.c - Django's times as SQLite and PostgreSQL give them */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trustpoint.h"

#define DIGITS "0123456789"
#define MICROSECOND_DIGITS 6

/* Takes exactly `count` digits off the text. */
static bool take_digits(const char **text, size_t count, int *value)
{
    *value = 0;
    for (size_t i = 0; i < count; i++) {
        if (**text < '0' || **text > '9')
            return false;
        *value = 10 * *value + (*(*text)++ - '0');
    }
    return true;
}

static bool take_one_of(const char **text, const char *allowed)
{
    if (**text == '\0' || strchr(allowed, **text) == NULL)
        return false;
    ++*text;
    return true;
}

/* ".12345": one to six digits. */
static bool take_fraction(const char **text, unsigned *microseconds)
{
    size_t digits;
    int value = 0;

    *microseconds = 0;
    if (!take_one_of(text, "."))
        return true;
    digits = strspn(*text, DIGITS);
    if (digits == 0 || digits > MICROSECOND_DIGITS || !take_digits(text, digits, &value))
        return false;
    for (size_t i = digits; i < MICROSECOND_DIGITS; i++)
        value *= 10;
    *microseconds = (unsigned)value;
    return true;
}

/* "+00", "-05:30", "Z" or nothing, at the end. */
static bool take_offset(const char **text, int *seconds)
{
    int hours = 0, minutes = 0;
    bool west = **text == '-';

    *seconds = 0;
    if (**text == '\0' || strcmp(*text, "Z") == 0)
        return true;
    if (!take_one_of(text, "+-") || !take_digits(text, 2, &hours))
        return false;
    if (take_one_of(text, ":") && !take_digits(text, 2, &minutes))
        return false;
    *seconds = (hours * 60 + minutes) * 60 * (west ? -1 : 1);
    return **text == '\0' && hours < 24 && minutes < 60;
}

bool trustpoint_time(const char *text, int64_t *seconds, unsigned *microseconds)
{
    struct tm tm = {0};
    int offset = 0;

    if (text == NULL || !take_digits(&text, 4, &tm.tm_year) || !take_one_of(&text, "-") ||
        !take_digits(&text, 2, &tm.tm_mon) || !take_one_of(&text, "-") ||
        !take_digits(&text, 2, &tm.tm_mday) || !take_one_of(&text, " T") ||
        !take_digits(&text, 2, &tm.tm_hour) || !take_one_of(&text, ":") ||
        !take_digits(&text, 2, &tm.tm_min) || !take_one_of(&text, ":") ||
        !take_digits(&text, 2, &tm.tm_sec) || !take_fraction(&text, microseconds) ||
        !take_offset(&text, &offset))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 59)
        return false;
    *seconds = (int64_t)timegm(&tm) - offset;
    return true;
}

bool trustpoint_isoformat(const char *text, char out[48])
{
    struct tm tm;
    char day[24];
    int64_t seconds;
    unsigned microseconds;

    if (!trustpoint_time(text, &seconds, &microseconds))
        return false;
    time_t time = (time_t)seconds;
    if (gmtime_r(&time, &tm) == NULL || strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return false;
    if (microseconds == 0)
        snprintf(out, 48, "%s+00:00", day);
    else
        snprintf(out, 48, "%s.%06u+00:00", day, microseconds);
    return true;
}
