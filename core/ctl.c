/* What the parts of the operator's command share. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "ctl-print.h"
#include "span.h"

static void complain(const char *format, va_list args)
{
    fflush(stdout);
    fputs("brinkctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int ctl_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CTL_FAILED;
}

int ctl_usage(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CTL_USAGE;
}

int ctl_load(struct ctl *ctl)
{
    struct config_error error;

    if (appliance_load(ctl->config_dir, &ctl->appliance, &error) != 0)
        return ctl_fail("%s", error.text);
    return 0;
}

int ctl_number(const char *option, const char *text, uint64_t max, uint64_t fallback, uint64_t *ret)
{
    uint64_t value = fallback;

    if (text && (!span_to_uint64(span_str(text), &value) || value < 1 || value > max))
        return ctl_usage("%s: expected a whole number from 1 to %llu, found '%s'", option,
                         (unsigned long long)max, text);
    *ret = value;
    return 0;
}

int ctl_show(struct ctl *ctl, int (*once)(struct ctl *ctl, json_t **ret),
             void (*print)(const json_t *document))
{
    bool watch = ctl->options[OPT_WATCH];
    int r;

    r = ctl_load(ctl);
    if (r != 0)
        return r;
    do {
        json_t *document = NULL;

        r = once(ctl, &document);
        if (watch && !ctl->json)
            ctl_print_clear();
        if (r != 0 && !watch)
            return r;
        if (ctl->json && document)
            watch ? ctl_print_json_line(document) : ctl_print_json(document);
        else if (document)
            print(document);
        json_decref(document);
        fflush(stdout);
    } while (watch && !ferror(stdout) && sleep(1) == 0);
    return CTL_DONE;
}
