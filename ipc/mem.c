#include "mem.h"
