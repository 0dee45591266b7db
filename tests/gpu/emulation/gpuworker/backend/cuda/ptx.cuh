/* The instructions of gpuworker/backend/cuda/ptx.cuh, emulated. Copies arrive as late as they may: when they are waited for. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_PTX_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_PTX_CUH

#include <cuda_bf16.h>

/* What a lane gives: rows r and r + 8 of a, column r of b, of its k each: 2c, 2c + 1, 2c + 8, 2c + 9. */
struct emulated_fragment_t {
    float a[2][4], b[4];
};

static inline void ptx_multiply(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    auto low = [](uint32_t pair) { return __uint_as_float(pair << 16); };
    auto high = [](uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); };
    emulated_fragment_t mine = {{{low(a0), high(a0), low(a2), high(a2)}, {low(a1), high(a1), low(a3), high(a3)}},
                                {low(b0), high(b0), low(b1), high(b1)}};
    const emulation_word_t *lanes = emulation_post(&mine, sizeof mine);
    int r = emulation_lane() / 4, c = emulation_lane() % 4;

    for (int from = 0; from < 4; from++) {
        const emulated_fragment_t &a = emulation_read<emulated_fragment_t>(lanes, r * 4 + from);

        for (int i = 0; i < 4; i++) {
            const emulated_fragment_t &b = emulation_read<emulated_fragment_t>(lanes, (2 * c + i % 2) * 4 + from);

            for (int k = 0; k < 4; k++)
                sum[i] += a.a[i / 2][k] * b.b[k];
        }
    }
}

static inline void emulate_load_matrices(uint32_t (&to)[4], const void *row, bool transposed)
{
    emulation_check_shared(row, 16);
    const emulation_word_t *lanes = emulation_post(&row, sizeof row);
    int r = emulation_lane() / 4, c = emulation_lane() % 4;

    for (int i = 0; i < 4; i++) {
        auto element = [&](int line, int column) {
            return (uint32_t)emulation_read<const uint16_t *>(lanes, 8 * i + line)[column];
        };
        to[i] = transposed ? element(2 * c, r) | element(2 * c + 1, r) << 16 : element(r, 2 * c) | element(r, 2 * c + 1) << 16;
    }
}

static inline void ptx_load_matrices(uint32_t (&to)[4], const void *row)
{
    emulate_load_matrices(to, row, false);
}

static inline void ptx_load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    emulate_load_matrices(to, row, true);
}

static inline uint32_t ptx_pair(float low, float high)
{
    return __float2bfloat16_rn(low).bits | (uint32_t)__float2bfloat16_rn(high).bits << 16;
}

static inline float ptx_power_of_2(float x)
{
    return exp2f(x);
}

static inline void ptx_settle(int64_t &)
{
}

template <int BYTES> static inline void ptx_copy(void *shared, const void *from, bool wanted)
{
    emulation_check_shared(shared, BYTES);
    emulation_check_aligned(from, BYTES);
    emulation_copy_later(shared, from, BYTES, wanted);
}

static inline void ptx_copies_wait()
{
    emulation_copies_wait();
}

static inline void ptx_bulk_expect(uint64_t *arrived, uint32_t bytes)
{
    emulation_bulk_expect(arrived, bytes);
}

static inline void ptx_bulk_copy(void *shared, const void *from, uint32_t bytes, uint64_t *arrived)
{
    emulation_check_shared(shared, 16);
    emulation_check_aligned(from, 16);
    emulation_bulk_copy(shared, from, bytes, arrived);
}

template <int COUNT> static inline void ptx_store_remote(float *shared, uint32_t rank, const float *from, uint64_t *arrived)
{
    emulation_check_shared(shared, COUNT * sizeof(float));
    emulation_store_remote(shared, rank, from, COUNT * sizeof(float), arrived);
}

static inline void ptx_bulk_wait(uint64_t *arrived)
{
    emulation_bulk_wait(arrived);
}

#endif
