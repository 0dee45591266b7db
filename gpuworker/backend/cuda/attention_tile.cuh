/* A warp's tile of 16 queries of one head on tensor cores, BF16 with F32 scores and sums: takes in keys and values from shared memory, 32
 * at a time, with a running maximum (online softmax, exponentials to base 2).
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
    TILE_GAP = 8,   /* from the end of a row in shared memory to the next one, in elements */
};
enum { SEEN_BY_0 = 1, SEEN_BY_1 = 2, SEEN = SEEN_BY_0 | SEEN_BY_1 }; /* by which queries a key is seen, as two bits */

static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    ptx_multiply(sum, a[0], a[1], a[2], a[3], b0, b1);
}

/* Two queries a lane, r and r + 8. */
template <int WIDTH> struct tile_t {
    static constexpr int PITCH = WIDTH + TILE_GAP, JOIN_PITCH = WIDTH + TILE_GAP;     /* of rows of BF16, of sums in F32 */
    static constexpr size_t JOIN_BYTES = JOIN_PITCH * sizeof(float) + sizeof(float2); /* that a query gives */

    const __nv_bfloat16 *queries; /* in shared memory, [16][PITCH], times op.scale · log2 e */
    float sum[WIDTH / 8][4];      /* weight · value */
    float most[2], total[2];      /* largest score so far; this lane's part of the sum of weights */
    int limit[2];                 /* keys from here on are invisible */
    unsigned wanted[2];           /* the bit of a key that this query sees */
    const float *bias[2];         /* of key i at bias[i]; NULL: none */

    __device__ __forceinline__ tile_t(const __nv_bfloat16 *shared_q) : queries(shared_q)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            most[half] = -INFINITY;
            total[half] = 0;
        }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] = 0;
    }

    /* Takes in the keys at shared_k, shared_v: number `first` and the next 31, of which `there` exist and are followed by zeros up to 16 or
     * 32. plain: all 32 are seen by all queries. */
    __device__ __forceinline__ void attend(const __nv_bfloat16 *shared_k, const __nv_bfloat16 *shared_v, const uint8_t *flags,
                                           int first, int there, bool plain)
    {
        int lane = (int)threadIdx.x % WARP, c = lane % 4, matrix = lane / 8, r = lane % 8;
        float score[STEP_KEYS / 8][4] = {};
        bool half = there <= STEP_KEYS / 2; /* the second half does not exist */

#pragma unroll
        for (int k = 0; k < WIDTH / 16; k++) {
            uint32_t a[4];

            ptx_load_matrices(a, queries + lane % 16 * PITCH + k * 16 + lane / 16 * 8); /* kept, they would be registers too many */
#pragma unroll
            for (int both = 0; both < STEP_KEYS / 16; both++) {
                uint32_t b[4];

                if (both > 0 && half)
                    continue;
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
                    if (at < there)
                        score[n][i] += bias[i / 2][first + at] * (float)M_LOG2E;
                }
        }
        if (!plain) {
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

    /* Scores become weights; what was summed before shrinks where the largest score grew. */
    __device__ __forceinline__ void weigh(float (&score)[STEP_KEYS / 8][4])
    {
        float now[2] = {most[0], most[1]}, base[2];

#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                now[i / 2] = fmaxf(now[i / 2], score[n][i]);
#pragma unroll
        for (int row = 0; row < 2; row++) {
            now[row] = fmaxf(now[row], __shfl_xor_sync(0xffffffffu, now[row], 1));
            now[row] = fmaxf(now[row], __shfl_xor_sync(0xffffffffu, now[row], 2));
            base[row] = now[row] > -INFINITY ? now[row] : 0.0f; /* nothing seen yet: no difference of infinities */
        }
        if (__any_sync(0xffffffffu, now[0] > most[0] || now[1] > most[1])) {
            float shrink[2] = {ptx_power_of_2(most[0] - base[0]), ptx_power_of_2(most[1] - base[1])};

#pragma unroll
            for (int row = 0; row < 2; row++) {
                most[row] = now[row];
                total[row] *= shrink[row];
            }
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[n][i] *= shrink[i / 2];
        }
#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[n][i] = ptx_power_of_2(score[n][i] - base[i / 2]);
                total[i / 2] += score[n][i];
            }
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

    /* What this tile saw, to be joined with what others saw of the same queries: sums [16][JOIN_PITCH] and seen [16], largest score and total. */
    __device__ __forceinline__ void give(float *sums, float2 *seen)
    {
        int lane = (int)threadIdx.x % WARP;

#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = half * 8 + lane / 4;
            float all = sum_lanes<4>(total[half]);

            if (lane % 4 == 0)
                seen[query] = make_float2(most[half], all);
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
                *reinterpret_cast<float2 *>(sums + query * JOIN_PITCH + n * 8 + lane % 4 * 2) =
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
            float4 four = *reinterpret_cast<const float4 *>(sums + (int64_t)part * stride * tile_t<WIDTH>::JOIN_PITCH + at + i);
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
