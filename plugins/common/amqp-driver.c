#include "amqp-driver.h"
