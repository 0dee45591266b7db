/* A warp's tile of 16 queries of one head on tensor cores, BF16 with F32 scores and sums: takes in keys and values from shared memory, 32
 * at a time (online softmax, exponentials to base 2). Scores are taken relative to a base, the largest of the first that a query saw, from
 * which the accumulators start. It is raised only where scores exceed it by so much that weights would grow large: rarely, while a
 * running maximum rises at most steps for one of 16 queries.
 *
 * mma.m16n8k16: scores [16 queries][8 keys] += q [16][16] · kᵀ; in the accumulator lane (r = lane / 4, c = lane % 4) holds keys 2c, 2c + 1
 * of queries r and r + 8, which is what the next product, weights [16][16 keys] · v [16 keys][8], takes as its left side. ldmatrix brings
 * both sides from shared memory, v transposed on the way; rows are 8 elements apart of their width, so that its eight rows lie in
 * different banks. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_TILE_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_TILE_CUH

#include "gpuworker/backend/cuda/attention_op.cuh"
#include "gpuworker/backend/cuda/ptx.cuh"

enum {
    TILE_QUERIES = 16,
    STEP_KEYS = 32, /* that a tile takes in at once */
    GROWTH = 8,     /* of scores over their base before it is raised: weights stay below 2^8 */
    TILE_GAP = 8,   /* from the end of a row in shared memory to the next one, in elements */
};
enum { SEEN_BY_0 = 1, SEEN_BY_1 = 2, SEEN = SEEN_BY_0 | SEEN_BY_1 }; /* by which queries a key is seen, as two bits */

static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    ptx_multiply(sum, a[0], a[1], a[2], a[3], b0, b1);
}

/* Two queries a lane, r and r + 8. KEPT: the queries stay in registers. */
template <int WIDTH, bool KEPT> struct tile_t {
    static constexpr int PITCH = WIDTH + TILE_GAP;

    const __nv_bfloat16 *queries; /* in shared memory, [16][PITCH], times op.scale · log2 e */
    uint32_t kept[KEPT ? WIDTH / 16 : 1][4];
    float sum[WIDTH / 8][4];  /* weight · value */
    float base[2], growth[2]; /* of scores; what they may exceed it by: GROWTH, or -infinity while nothing was seen */
    float total[2];           /* this lane's part of the sum of weights */
    int limit[2];             /* keys from here on are invisible */
    unsigned wanted[2];       /* the bit of a key that this query sees */
    const float *bias[2];     /* of key i at bias[i]; NULL: none */

    __device__ __forceinline__ tile_t(const __nv_bfloat16 *shared_q) : queries(shared_q)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            base[half] = total[half] = 0;
            growth[half] = -INFINITY;
        }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] = 0;
    }

    __device__ __forceinline__ void load_queries(uint32_t (&a)[4], int k) const
    {
        int lane = (int)threadIdx.x % WARP;

        ptx_load_matrices(a, queries + lane % 16 * PITCH + k * 16 + lane / 16 * 8);
    }

    /* Once the queries are there, before any keys. */
    __device__ __forceinline__ void take_queries()
    {
        if constexpr (KEPT) {
#pragma unroll
            for (int k = 0; k < WIDTH / 16; k++)
                load_queries(kept[k], k);
        }
    }

    /* Takes in the keys at shared_k, shared_v: number `first` and the next 31, of which `there` are of interest, those up to 16 or 32 finite.
     * PLAIN: all 32, and all queries see them. */
    template <bool PLAIN>
    __device__ __forceinline__ void attend(const __nv_bfloat16 *shared_k, const __nv_bfloat16 *shared_v, const uint8_t *flags,
                                           int first, int there)
    {
        int lane = (int)threadIdx.x % WARP, c = lane % 4, matrix = lane / 8, r = lane % 8;
        float score[STEP_KEYS / 8][4];
        bool half = !PLAIN && there <= STEP_KEYS / 2; /* the second half is of none */

#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                score[n][i] = -base[i / 2];
#pragma unroll
        for (int both = 0; both < STEP_KEYS / 16; both++) {
            if (both > 0 && half)
                continue;
#pragma unroll
            for (int k = 0; k < WIDTH / 16; k++) {
                uint32_t a[4], b[4];

                if constexpr (KEPT)
                    memcpy(a, kept[k], sizeof a);
                else
                    load_queries(a, k);
                ptx_load_matrices(b, shared_k + (both * 16 + matrix / 2 * 8 + r) * PITCH + k * 16 + matrix % 2 * 8);
                multiply(score[both * 2], a, b[0], b[1]);
                multiply(score[both * 2 + 1], a, b[2], b[3]);
            }
        }
        if (bias[0] != NULL) {
#pragma unroll
            for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int at = n * 8 + c * 2 + i % 2;
                    if (PLAIN || at < there)
                        score[n][i] += bias[i / 2][first + at] * (float)M_LOG2E;
                }
        }
        if constexpr (!PLAIN) {
#pragma unroll
            for (int n = 0; n < STEP_KEYS / 8; n++) {
                uint32_t flag = *reinterpret_cast<const uint16_t *>(flags + n * 8 + c * 2);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool seen = ((i % 2 == 0 ? flag : flag >> 8) & wanted[i / 2]) != 0;
                    if (!seen || first + n * 8 + c * 2 + i % 2 >= limit[i / 2])
                        score[n][i] = -INFINITY;
                }
            }
        }
        weigh(score);
#pragma unroll
        for (int both = 0; both < STEP_KEYS / 16; both++) {
            const float(&low)[4] = score[both * 2], (&high)[4] = score[both * 2 + 1];
            uint32_t weight[4] = {ptx_pair(low[0], low[1]), ptx_pair(low[2], low[3]), ptx_pair(high[0], high[1]),
                                  ptx_pair(high[2], high[3])};

            if (both > 0 && half)
                continue;
#pragma unroll
            for (int n = 0; n < WIDTH / 16; n++) {
                uint32_t b[4];

                ptx_load_matrices_transposed(b, shared_v + (both * 16 + matrix % 2 * 8 + r) * PITCH + n * 16 + matrix / 2 * 8);
                multiply(sum[n * 2], weight, b[0], b[1]);
                multiply(sum[n * 2 + 1], weight, b[2], b[3]);
            }
        }
    }

    /* Scores, relative to the base, become weights. */
    __device__ __forceinline__ void weigh(float (&score)[STEP_KEYS / 8][4])
    {
        float most[2] = {-INFINITY, -INFINITY};

#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                most[i / 2] = fmaxf(most[i / 2], score[n][i]);
        if (__any_sync(0xffffffffu, most[0] > growth[0] || most[1] > growth[1]))
            raise(score, most);
#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[n][i] = ptx_power_of_2(score[n][i]);
                total[i / 2] += score[n][i];
            }
    }

    /* Makes the largest score the base of a query whose scores exceed theirs by too much; what was summed before shrinks. */
    __device__ __forceinline__ void raise(float (&score)[STEP_KEYS / 8][4], const float (&most)[2])
    {
        float rise[2], shrink[2];

#pragma unroll
        for (int row = 0; row < 2; row++) {
            float all = fmaxf(most[row], __shfl_xor_sync(0xffffffffu, most[row], 1));

            all = fmaxf(all, __shfl_xor_sync(0xffffffffu, all, 2));
            rise[row] = all > growth[row] ? all : 0.0f;
            shrink[row] = growth[row] > 0 ? ptx_power_of_2(-rise[row]) : 1.0f; /* nothing to shrink: no product of 0 and infinity */
            growth[row] = all > growth[row] ? (float)GROWTH : growth[row];
            base[row] += rise[row];
            total[row] *= shrink[row];
        }
#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                score[n][i] -= rise[i / 2];
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] *= shrink[i / 2];
    }

    /* sum / total, or zeros where no key was visible, over this tile's queries in shared memory. */
    __device__ __forceinline__ void finish(__nv_bfloat16 *shared_out)
    {
        int lane = (int)threadIdx.x % WARP;

#pragma unroll
        for (int half = 0; half < 2; half++) {
            float all = sum_lanes<4>(total[half]), factor = all > 0 ? 1.0f / all : 0.0f;

#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
                *reinterpret_cast<uint32_t *>(shared_out + (half * 8 + lane / 4) * PITCH + n * 8 + lane % 4 * 2) =
                    ptx_pair(sum[n][half * 2] * factor, sum[n][half * 2 + 1] * factor);
        }
    }

    /* What this tile saw, to be joined with what others saw of the same queries: sums [16][PITCH] and seen [16], base and total. */
    __device__ __forceinline__ void give(float *sums, float2 *seen)
    {
        int lane = (int)threadIdx.x % WARP;

#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = half * 8 + lane / 4;
            float all = sum_lanes<4>(total[half]);

            if (lane % 4 == 0)
                seen[query] = make_float2(growth[half] > 0 ? base[half] : -INFINITY, all);
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
                *reinterpret_cast<float2 *>(sums + query * PITCH + n * 8 + lane % 4 * 2) =
                    make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
        }
    }
};

/* PER elements from `at` on of a query that several tiles saw: that of tile i lies `stride` rows after that of i - 1. */
template <int WIDTH, int PER>
static __device__ __forceinline__ void join_tiles(float (&value)[PER], const float *sums, const float2 *seen, int parts, int stride,
                                                  int at)
{
    float most = -INFINITY, total = 0;

    for (int part = 0; part < parts; part++)
        most = fmaxf(most, seen[part * stride].x);
#pragma unroll
    for (int i = 0; i < PER; i++)
        value[i] = 0;
    for (int part = 0; part < parts; part++) {
        float2 one = seen[part * stride];
        float share = one.y > 0 ? ptx_power_of_2(one.x - most) : 0.0f;

        total += share * one.y;
#pragma unroll
        for (int i = 0; i < PER; i += 4) {
            float4 four = *reinterpret_cast<const float4 *>(sums + (int64_t)part * stride * (WIDTH + TILE_GAP) + at + i);
            value[i] += share * four.x;
            value[i + 1] += share * four.y;
            value[i + 2] += share * four.z;
            value[i + 3] += share * four.w;
        }
    }
    float factor = total > 0 ? 1.0f / total : 0.0f;
#pragma unroll
    for (int i = 0; i < PER; i++)
        value[i] *= factor;
}

#endif
