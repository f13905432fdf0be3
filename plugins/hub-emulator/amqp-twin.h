/* Twin requests over AMQP. */
#pragma once

#include "amqp-server.h"

/* Answered with status 503 and an error in JSON: SDKs retry, and none hangs. */
void twin_on_request(struct amqp_client *client, struct span message);
