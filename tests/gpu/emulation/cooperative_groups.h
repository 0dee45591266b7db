/* Clusters where kernels are emulated. */
#ifndef BARCAST_TESTS_GPU_EMULATION_COOPERATIVE_GROUPS_H
#define BARCAST_TESTS_GPU_EMULATION_COOPERATIVE_GROUPS_H

#include "emulation.h"

namespace cooperative_groups
{

struct cluster_group {
    unsigned num_blocks() const
    {
        return emulation_cluster_blocks();
    }

    unsigned block_rank() const
    {
        return emulation_cluster_rank();
    }

    void barrier_arrive() const
    {
        emulation_cluster_arrive();
    }

    void barrier_wait() const
    {
        emulation_cluster_wait();
    }
};

static inline cluster_group this_cluster()
{
    return {};
}

} // namespace cooperative_groups

#endif
