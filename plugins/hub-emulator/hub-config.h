/* The hub's settings. */
#pragma once

#include <stdint.h>

#include "config.h"

struct hub_config {
    char *hostname;
    char *server_cert;
    char *server_key;
    char *policy_key_file;
    char *edge_device_id; /* "": none */
    char *edge_device_key_file;
    uint64_t keep_messages;
    uint64_t keep_bytes;
};

extern const struct config_item hub_config_items[];
int hub_config_check(struct config_document *d, const void *settings,
                     struct config_error *ret_error);
void hub_config_done(struct hub_config *config); /* _cleanup_ */
