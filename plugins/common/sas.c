#include "sas.h"
