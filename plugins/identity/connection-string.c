#include "connection-string.h"

#include "message.h"

enum { HOSTNAME_BYTES_MAX = 253 };

struct parts {
    struct span hostname, device_id, key, module_id, x509, gateway;
};

/* The last duplicate wins, and a name that nobody knows is ignored: so do the SDKs. */
static bool parts_read(struct span text, struct parts *ret)
{
    struct span piece;
    bool done = false;

    while (span_next(&text, ';', &piece, &done)) {
        const struct {
            struct span name;
            struct span *value;
        } known[] = {
            { SPAN("HostName"), &ret->hostname },   { SPAN("DeviceId"), &ret->device_id },
            { SPAN("SharedAccessKey"), &ret->key }, { SPAN("ModuleId"), &ret->module_id },
            { SPAN("x509"), &ret->x509 },           { SPAN("GatewayHostName"), &ret->gateway },
        };
        struct span name;

        if (piece.len == 0)
            continue; /* a semicolon at the end */
        if (!span_split(&piece, SPAN("="), &name))
            return false;
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
            if (span_equal(name, known[i].name))
                *known[i].value = piece;
    }
    return true;
}

static bool hostname_valid(struct span s)
{
    if (s.len > HOSTNAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '-' || c == '_'))
            return false;
    }
    return true;
}

static const char *parts_fault(const struct parts *p)
{
    if (p->hostname.len == 0)
        return "HostName is missing";
    if (!hostname_valid(p->hostname))
        return "HostName is no host name (expected letters, digits, '.' and '-', and no port)";
    if (p->device_id.len == 0)
        return "DeviceId is missing";
    if (p->module_id.len > 0)
        return "ModuleId is given (expected the string of the edge device, not of a module)";
    if (p->gateway.len > 0)
        return "GatewayHostName is given (a parent gateway is not supported)";
    if (p->x509.len > 0)
        return "x509 is given (expected SharedAccessKey: the device must have a symmetric key)";
    if (p->key.len == 0)
        return "SharedAccessKey is missing";
    return NULL;
}

int connection_string_parse(struct span text, struct connection_string *ret,
                            const char **ret_reason)
{
    struct parts parts = {};
    struct connection_string c = {};
    const char *reason = NULL;

    if (!parts_read(text, &parts))
        reason = "a part has no '=' (expected Name=value;Name=value)";
    else
        reason = parts_fault(&parts);
    if (!reason) {
        c.hub_hostname = span_xdup(parts.hostname);
        c.device_id = span_xdup(parts.device_id);
        if (!identity_id_valid(c.device_id))
            reason = "DeviceId has characters that an id cannot have, or more than 128";
        else if (!sas_key_parse(parts.key, &c.key))
            reason = "SharedAccessKey is no base64";
    }
    if (reason) {
        connection_string_done(&c);
        *ret_reason = reason;
        return CONNECTION_STRING_E_INVALID;
    }
    *ret = c;
    sas_key_wipe(&c.key);
    return 0;
}

void connection_string_done(struct connection_string *c)
{
    free(c->hub_hostname);
    free(c->device_id);
    sas_key_wipe(&c->key);
    *c = (struct connection_string){};
}
