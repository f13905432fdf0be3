#include "route-text.h"

#include <locale.h>
#include <wctype.h>

enum {
    HIGH_HALVES = 0xd800,
    LOW_HALVES = 0xdc00,
    ABOVE_BMP = 0x10000,
    NO_CHARACTER = 0x110000,
    DOTTED_CAPITAL_I = 0x130,
    DOTLESS_SMALL_I = 0x131,
    HALF_BYTES = 3,
};

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

static size_t char_bytes(struct span s)
{
    unsigned char lead = (unsigned char)s.at[0];
    size_t n = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;

    return n < s.len ? n : s.len;
}

static bool is_pair(char lead)
{
    return (unsigned char)lead >= 0xf0;
}

size_t text_units(struct span s)
{
    size_t units = 0;

    for (size_t i = 0; i < s.len; i++)
        units += (size_t)!is_continuation(s.at[i]) + is_pair(s.at[i]);
    return units;
}

size_t text_offset(struct span s, size_t unit, bool *ret_inside)
{
    size_t at = 0;

    *ret_inside = false;
    while (at < s.len && unit > 0) {
        if (is_pair(s.at[at]) && unit == 1) {
            *ret_inside = true;
            return at;
        }
        unit -= is_pair(s.at[at]) ? 2 : 1;
        at += char_bytes(span_of(s.at + at, s.len - at));
    }
    return at;
}

uint32_t text_next(struct span *s)
{
    static const unsigned char masks[] = { 0, 0xff, 0x1f, 0x0f, 0x07 };
    size_t n = char_bytes(*s);
    uint32_t character = (unsigned char)s->at[0] & masks[n];

    if (n == 1 && character >= 0x80)
        character += NO_CHARACTER;
    for (size_t i = 1; i < n; i++)
        character = character << 6 | ((unsigned char)s->at[i] & 0x3f);
    *s = span_of(s->at + n, s->len - n);
    return character;
}

size_t text_put(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < ABOVE_BMP) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (c >> 18 & 0x07));
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static bool is_ascii(char c)
{
    return (unsigned char)c < 0x80;
}

/* The code units of a text, one at a time. */
struct units {
    struct span rest;
    uint32_t second; /* of the pair that was begun; 0: none was */
};

static bool units_next(struct units *units, uint32_t *ret_unit)
{
    uint32_t c = units->second;

    if (c == 0 && units->rest.len == 0)
        return false;
    units->second = 0;
    if (c == 0)
        c = text_next(&units->rest);
    if (c >= ABOVE_BMP && c < NO_CHARACTER) {
        units->second = LOW_HALVES + (c & 0x3ff);
        c = HIGH_HALVES + ((c - ABOVE_BMP) >> 10);
    }
    *ret_unit = c;
    return true;
}

/* Bytes are in the order of characters, but code units are not: those of pairs are below U+E000,
 * and half a pair may stand alone. */
static int compare_units(struct span a, struct span b)
{
    struct units left = { .rest = a }, right = { .rest = b };
    bool is_left, is_right;
    uint32_t l, r;

    do {
        is_left = units_next(&left, &l);
        is_right = units_next(&right, &r);
    } while (is_left && is_right && l == r);
    if (is_left && is_right)
        return l < r ? -1 : 1;
    return is_left - is_right;
}

int text_compare(struct span a, struct span b)
{
    size_t len = a.len < b.len ? a.len : b.len, same = 0;

    while (same < len && a.at[same] == b.at[same])
        same++;
    if (same < len && is_ascii(a.at[same]) && is_ascii(b.at[same]))
        return a.at[same] < b.at[same] ? -1 : 1;
    do { /* back to where the character begins */
        if (same == 0)
            break;
        same--;
    } while (is_continuation(a.at[same]));
    return compare_units(span_of(a.at + same, a.len - same), span_of(b.at + same, b.len - same));
}

static bool is_half_at(struct span s, size_t at, uint32_t first)
{
    struct span rest;

    if (s.len < at + HALF_BYTES || (unsigned char)s.at[at] != 0xed)
        return false;
    rest = span_of(s.at + at, HALF_BYTES);
    return (text_next(&rest) & 0xfffffc00) == first;
}

bool text_is_cut(struct span s)
{
    return is_half_at(s, 0, LOW_HALVES) ||
           (s.len >= HALF_BYTES && is_half_at(s, s.len - HALF_BYTES, HIGH_HALVES));
}

size_t text_split(struct span s, char *out)
{
    size_t len = 0;

    while (s.len > 0) {
        struct span rest = s;
        uint32_t c = text_next(&rest);

        if (c >= ABOVE_BMP && c < NO_CHARACTER) {
            len += text_put(HIGH_HALVES + ((c - ABOVE_BMP) >> 10), out + len);
            len += text_put(LOW_HALVES + (c & 0x3ff), out + len);
        } else {
            memcpy(out + len, s.at, s.len - rest.len); /* which need not be UTF-8 */
            len += s.len - rest.len;
        }
        s = rest;
    }
    return len;
}

size_t text_join(char *text, size_t len)
{
    struct span s = span_of(text, len);
    size_t to = 0, at = 0;

    while (at < len) {
        struct span high = span_of(text + at, len - at), low;

        if (!is_half_at(s, at, HIGH_HALVES) || !is_half_at(s, at + HALF_BYTES, LOW_HALVES)) {
            text[to++] = text[at++];
            continue;
        }
        low = span_of(high.at + HALF_BYTES, high.len - HALF_BYTES);
        to += text_put(ABOVE_BMP + ((text_next(&high) & 0x3ff) << 10) + (text_next(&low) & 0x3ff),
                       text + to);
        at += (size_t)2 * HALF_BYTES;
    }
    return to;
}

/* ASCII without the C library's tables: names are compared for every message. */
static char map_ascii(char c, enum text_case to)
{
    if (to == TEXT_UPPER)
        return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* The C library's tables. Without that locale only ASCII has cases. */
static uint32_t map_char(uint32_t c, enum text_case to)
{
    static locale_t unicode;
    static bool asked;

    if (c < 0x80)
        return (uint32_t)map_ascii((char)c, to);
    if (!asked)
        unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    asked = true;
    /* The Turkish i is a letter of one language: the invariant mapping leaves it alone. */
    if (!unicode || c >= NO_CHARACTER || c == DOTLESS_SMALL_I || c == DOTTED_CAPITAL_I)
        return c;
    return to == TEXT_UPPER ? towupper_l(c, unicode) : towlower_l(c, unicode);
}

/* One character off the front of @s. */
static size_t map_next(struct span *s, enum text_case to, char *out)
{
    struct span rest = *s;
    uint32_t from = text_next(&rest), mapped = map_char(from, to);
    size_t len = s->len - rest.len;

    if (mapped != from)
        len = text_put(mapped, out);
    else
        memcpy(out, s->at, len); /* which need not be UTF-8 */
    *s = rest;
    return len;
}

size_t text_map(struct span s, enum text_case to, char *out)
{
    size_t n = 0;

    while (s.len > 0) {
        if (!is_ascii(s.at[0])) {
            n += map_next(&s, to, out + n);
            continue;
        }
        out[n++] = map_ascii(s.at[0], to);
        s = span_of(s.at + 1, s.len - 1);
    }
    return n;
}

static bool eat_equal(struct span *a, struct span *b)
{
    if (!is_ascii(a->at[0]) || !is_ascii(b->at[0]))
        return map_char(text_next(a), TEXT_UPPER) == map_char(text_next(b), TEXT_UPPER);
    if (a->at[0] != b->at[0] && map_ascii(a->at[0], TEXT_UPPER) != map_ascii(b->at[0], TEXT_UPPER))
        return false;
    *a = span_of(a->at + 1, a->len - 1);
    *b = span_of(b->at + 1, b->len - 1);
    return true;
}

bool text_equal_nocase(struct span a, struct span b)
{
    while (a.len > 0 && b.len > 0)
        if (!eat_equal(&a, &b))
            return false;
    return a.len == b.len;
}
