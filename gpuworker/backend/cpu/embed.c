/* embed: y[row] = act(bias + sum over tables of table[index of that row]). */
#include <math.h>

#include "gpuworker/backend/cpu/cpu.h"

static int64_t entry_of(const backend_embed_t *op, int table, int64_t row, int64_t step)
{
    int64_t at = row / op->tokens * op->index_stride + table * op->table_stride + row % op->tokens + step;
    int64_t entry = ((const int32_t *)op->indices.data)[at];

    return entry >= 0 && entry < op->table[table].dim[0] ? entry : 0;
}

int cpu_embed(backend_t *backend, const backend_embed_t *op)
{
    int64_t y_stride = op->y_stride > 0 ? op->y_stride : op->width;
    int64_t step = op->step != NULL ? *(const int32_t *)op->step->data : 0;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        float *y = (float *)op->y.data + row * y_stride;

        for (int64_t i = 0; i < op->width; i++)
            y[i] = op->bias != NULL ? ((const float *)op->bias->tensor.data)[i] : 0.0f;
        for (int t = 0; t < op->count; t++) {
            const float *from = (const float *)op->table[t].data + entry_of(op, t, row, step) * op->width;

            for (int64_t i = 0; i < op->width; i++)
                y[i] += from[i];
        }
        for (int64_t i = 0; op->activation == BACKEND_ACT_SILU && i < op->width; i++)
            y[i] = y[i] / (1.0f + expf(-y[i]));
    }
    return BACKEND_OK;
}
