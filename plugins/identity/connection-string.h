/* "HostName=…;DeviceId=…;SharedAccessKey=…" of the edge device (identity.md §1.1). Pure. */
#pragma once

#include "mem.h"
#include "sas.h"
#include "span.h"

/* Owns its strings and a key: connection_string_done() wipes it. */
struct connection_string {
    char *hub_hostname;
    char *device_id;
    struct sas_key key;
};

/* What is wrong is a phrase to follow "connection string: "; it never quotes the text, which holds
 * the key. */
enum { CONNECTION_STRING_E_INVALID = 1 };
int connection_string_parse(struct span text, struct connection_string *ret,
                            const char **ret_reason);
void connection_string_done(struct connection_string *c);
