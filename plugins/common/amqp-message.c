#include "amqp-message.h"
