/* Attention of few tokens a row among themselves, PREFILL and ENCODE: a block a row and head, a warp a token.
 *
 * Such an attention is two trips to memory and the fetching of its instructions, so a warp requests its token's query, key and value
 * at once, two elements a lane, and the code is short. Keys and values meet in shared memory, in F32; then two lanes of a warp take a
 * key each for its score, and every lane two elements of the result. */
#include "gpuworker/backend/cuda/attention_place.cuh"

enum {
    FEW_TOKENS = 16,
    FEW_WIDTH = 2 * WARP, /* head_dim, at most */
    KEY_LANES = WARP / FEW_TOKENS,
    FEW_WARPS = SMS * 16,  /* at most: more of them are work, of which attention_rows.cu makes less */
    PITCH = FEW_WIDTH + 8, /* of keys in shared memory: the vectors that eight lanes read lie in different banks */
};

template <typename T> static __global__ void __launch_bounds__(FEW_TOKENS *WARP) attention_few_kernel(const attention_t op)
{
    typedef geometry_t<2, WARP, T> G;
    alignas(16) __shared__ float queries[FEW_TOKENS][FEW_WIDTH], keys[FEW_TOKENS][PITCH];
    __shared__ float values[FEW_TOKENS][FEW_WIDTH];
    unsigned row = blockIdx.x / op.heads, head = blockIdx.x - row * op.heads;
    int token = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    bool encode = op.mode == BACKEND_ATTENTION_ENCODE;
    attention_lane_t<T> base(op, row, head);
    const T *from = base.qkv + token * 3 * base.width;
    place_t<G> place(op);
    rotation_t<G> query_turn, key_turn;
    placed_t<G> q, k;
    T value[2] = {};

    begin();
    int index = op.table != NULL ? op.index[base.prefix_row * op.index_stride + token] : 0;
    int first = op.first != NULL ? op.first[base.prefix_row] : 0;
    if (place.active) {
        value[0] = from[2 * base.width + place.low];
        value[1] = from[2 * base.width + place.high];
    }
    q.fetch(place, from);
    query_turn.fetch(op, place, index, false);
    k.fetch(place, from + base.width);
    key_turn.fetch(op, place, index, true);
    q.finish(op, place, query_turn, false);
    k.finish(op, place, key_turn, true);
    T key[2] = {from_float<T>(k.low[0]), from_float<T>(k.high[0])};
    if (!encode && place.active) {
        T *to_k = base.prefix_k + token * op.head_dim, *to_v = base.prefix_v + token * op.head_dim;

        to_k[place.low] = key[0];
        to_k[place.high] = key[1];
        to_v[place.low] = value[0];
        to_v[place.high] = value[1];
    }
    queries[token][place.low] = q.low[0] * op.scale;
    queries[token][place.high] = q.high[0] * op.scale;
    keys[token][place.low] = to_float(key[0]);
    keys[token][place.high] = to_float(key[1]);
    values[token][place.low] = to_float(value[0]);
    values[token][place.high] = to_float(value[1]);
    __syncthreads();

    int at = 2 * lane, other = min(lane / KEY_LANES, op.tokens - 1);
    const uint8_t *visible = op.visible != NULL ? op.visible + base.prefix_row * op.tokens : NULL;
    bool seen = lane / KEY_LANES < op.tokens && other >= first && token >= first && (encode || other <= token) &&
                (visible == NULL || visible[other] == visible[token]);
    float part[4] = {};
#pragma unroll
    for (int i = 0; i < FEW_WIDTH / 4 / KEY_LANES; i++) {
        int column = (KEY_LANES * i + lane % KEY_LANES) * 4;
#pragma unroll
        for (int j = 0; j < 4; j++)
            part[j] += queries[token][column + j] * keys[other][column + j];
    }
    float score = sum_lanes<KEY_LANES>((part[0] + part[1]) + (part[2] + part[3])), most;
    if (op.bias != NULL)
        score += op.bias[head * (2 * op.tokens - 1) + op.tokens - 1 - token + other];
    most = score = seen ? score : -INFINITY;
#pragma unroll
    for (int offset = KEY_LANES; offset < WARP; offset *= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
    float weight = seen ? expf(score - most) : 0.0f, total = sum_lanes<WARP>(weight) / KEY_LANES;
    weight = total > 0 ? weight / total : 0.0f;

    float sum[2] = {};
#pragma unroll 4
    for (int i = 0; i < op.tokens; i++) {
        float share = __shfl_sync(0xffffffffu, weight, i * KEY_LANES);

        sum[0] += share * values[i][at];
        sum[1] += share * values[i][at + 1];
    }
    if (place.active)
        store<2>(base.out + token * base.width + at, sum);
}

bool cuda_attention_few_fits(const attention_t &op)
{
    return op.tokens <= FEW_TOKENS && op.head_dim <= FEW_WIDTH && op.head_dim % 2 == 0 &&
           op.rows * op.heads * op.tokens <= FEW_WARPS;
}

int cuda_attention_few(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    auto kernel = dtype == BACKEND_BF16 ? attention_few_kernel<__nv_bfloat16> : attention_few_kernel<float>;

    return launch("attention (few)", kernel, (unsigned)(op.rows * op.heads), (unsigned)op.tokens * WARP, 0, stream, op);
}
