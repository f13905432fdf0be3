#include "tls-stream.h"
