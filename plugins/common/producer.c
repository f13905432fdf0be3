#include "producer.h"
