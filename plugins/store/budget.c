/* The bounds, and who is held back by which. */
#include "budget.h"

#define MIB (UINT64_C(1) << 20)

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct budget budget_make(uint64_t max_bytes, uint64_t max_share, uint64_t fs_bytes)
{
    uint64_t bytes = least(max_bytes, fs_bytes / 100 * max_share);
    uint64_t copies = least(bytes / 4, 256 * MIB), reserve = least(bytes / 16, 64 * MIB);

    return (struct budget){
        .bytes = bytes,
        .queued_max = bytes - copies - reserve,
        .queued_urgent_max = bytes - copies,
        .disk_max = bytes - copies / 2 - reserve / 2,
        .disk_urgent_max = bytes - copies / 2,
        .disk_record_max = bytes - copies / 4,
        .reclaim_bytes = least(bytes / 64, 32 * MIB),
    };
}

static uint64_t queued_max(const struct budget *b, enum budget_demand demand)
{
    return demand == DEMAND_MESSAGES ? b->queued_max : b->queued_urgent_max;
}

static uint64_t disk_max(const struct budget *b, enum budget_demand demand)
{
    switch (demand) {
    case DEMAND_URGENT:
        return b->disk_urgent_max;
    case DEMAND_RECORD:
        return b->disk_record_max;
    default:
        return b->disk_max;
    }
}

int budget_check(const struct budget *b, const struct budget_use *use, enum budget_demand demand,
                 uint64_t bytes)
{
    uint64_t max = disk_max(b, demand);

    /* When others have filled the disk, what is left to us is less: the same distances from there. */
    if (use->disk + bytes > max || bytes + (b->bytes - max) > use->fs_free)
        return BUDGET_E_FULL;
    if (demand != DEMAND_RECORD && use->queued + bytes > queued_max(b, demand))
        return BUDGET_E_QUEUED;
    return 0;
}

uint64_t budget_excess(const struct budget *b, const struct budget_use *use,
                       enum budget_demand demand, uint64_t bytes)
{
    uint64_t max = queued_max(b, demand);

    return use->queued + bytes > max ? use->queued + bytes - max : 0;
}

bool budget_is_pressed(const struct budget *b, const struct budget_use *use)
{
    return use->disk > b->queued_max || use->fs_free < b->bytes - b->queued_max;
}
