/* On the GPU what stands between bars and a network that reads patches: embed, instance_scale, patch; and quantile_head behind it. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdlib.h>

static pair_t *bytes_of(const char *name, int64_t count, double ones)
{
    pair_t *pair = pair_new(name, BACKEND_U8, DIMS(count));
    uint8_t *values = malloc((size_t)count);

    assert_non_null(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = random_uniform() < ones;
    pair_write(pair, values);
    free(values);
    return pair;
}

/* ---- embed ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int tables;
    int64_t sequences, tokens, width, y_extra; /* y_extra: between rows of y */
    bool bias, silu, step;
    backend_dtype_t table, y;
} embed_case_t;

static void embed(const embed_case_t *c)
{
    enum { ENTRIES = 19, STEP = 2 };
    int64_t columns = c->tokens + STEP + 1, y_stride = c->width + c->y_extra;
    int64_t rows = c->sequences * c->tokens, count = c->sequences * c->tables * columns;
    pair_t *tables[BACKEND_EMBED_TABLES_MOST], *indices = pair_new("indices", BACKEND_I32, DIMS(count));
    pair_t *y = pair_random("y", c->y, 1, DIMS(rows, y_stride)), *step = pair_new("step", BACKEND_I32, DIMS(1));
    weight_pair_t *bias = pair_weight("bias", BACKEND_F32, 0, 1, DIMS(c->width));
    int32_t *index = malloc((size_t)count * sizeof *index), two = STEP;

    assert_non_null(index);
    for (int64_t i = 0; i < count; i++)
        index[i] = (int32_t)(random_uniform() * (ENTRIES + 4)) - 2; /* some outside */
    pair_write(indices, index);
    pair_write(step, &two);
    free(index);
    for (int t = 0; t < c->tables; t++) /* both dtypes when there are several */
        tables[t] = pair_random("table", t % 2 == 0 ? c->table : BACKEND_F32, 1, DIMS(ENTRIES - t, c->width));
    EACH_SIDE(side)
    {
        backend_embed_t op = {
            .count = c->tables,
            .indices = indices->view[side],
            .index_stride = c->tables * columns,
            .table_stride = columns,
            .bias = c->bias ? &bias->side[side] : NULL,
            .activation = c->silu ? BACKEND_ACT_SILU : BACKEND_ACT_NONE,
            .rows = rows,
            .tokens = c->tokens,
            .width = c->width,
            .y = y->view[side],
            .y_stride = y_stride,
            .step = c->step ? &step->view[side] : NULL,
        };
        for (int t = 0; t < c->tables; t++)
            op.table[t] = tables[t]->view[side];
        pair_ok(backend_embed(pair_backend[side], &op));
    }
    pair_compare(y, c->y == BACKEND_BF16 ? 1e-2 : 1e-6);
    pair_test_end(NULL);
}

static void embeddings_match_the_cpu(void **state)
{
    (void)state;
    embed(&(embed_case_t){1, 1, 1, 832, 0, false, false, true, BACKEND_BF16, BACKEND_F32});
    embed(&(embed_case_t){5, 3, 400, 512, 512, true, false, false, BACKEND_F32, BACKEND_BF16});
    embed(&(embed_case_t){2, 2, 7, 33, 5, true, true, true, BACKEND_BF16, BACKEND_F32});
    embed(&(embed_case_t){8, 4, 1, 10, 3, false, false, true, BACKEND_BF16, BACKEND_BF16});
}

/* ---- instance_scale and patch ------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t rows, width, ahead;
    float eps, clip;
    bool add, asinh;
    double observed; /* 2: no mask */
} scale_case_t;

static void scale(const scale_case_t *c)
{
    pair_t *x = pair_new("x", BACKEND_F32, DIMS(c->rows, c->width)), *mask = bytes_of("mask", c->rows * c->width, c->observed);
    pair_t *y = pair_new("y", BACKEND_F32, DIMS(c->rows, c->width)), *loc = pair_new("loc", BACKEND_F32, DIMS(c->rows)),
           *deviation = pair_new("scale", BACKEND_F32, DIMS(c->rows));

    pair_normal(x, 100, 3);
    EACH_SIDE(side)
    {
        pair_ok(backend_instance_scale(pair_backend[side],
                                       &(backend_instance_scale_t){.x = x->view[side],
                                                                   .mask = c->observed < 2 ? &mask->view[side] : NULL,
                                                                   .rows = c->rows,
                                                                   .width = c->width,
                                                                   .ahead = c->ahead,
                                                                   .eps = c->eps,
                                                                   .clip = c->clip,
                                                                   .add = c->add,
                                                                   .asinh = c->asinh,
                                                                   .y = y->view[side],
                                                                   .loc = loc->view[side],
                                                                   .scale = deviation->view[side]}));
    }
    pair_compare(y, 1e-6);
    pair_compare(loc, 1e-6);
    pair_compare(deviation, 1e-6);
    pair_test_end(NULL);
}

static void rows_are_scaled_as_on_the_cpu(void **state)
{
    (void)state;
    scale(&(scale_case_t){1, 2048, 0, 1e-5f, 0, false, true, 2});
    scale(&(scale_case_t){7, 400, 24, 1e-5f, 1, true, false, 0.8});
    scale(&(scale_case_t){130, 33, 3, 1e-5f, 0, true, true, 0.1});
    scale(&(scale_case_t){2, 2900, 0, 1e-5f, 5, true, false, 1});
    scale(&(scale_case_t){3, 17, 5, 1e-5f, 0, false, true, 0}); /* nothing observed */
}

typedef struct {
    int64_t rows, patches, patch, x_extra, row_extra, patch_extra, visible_extra;
    bool mask, time, missing, visible;
    backend_dtype_t y;
} patch_case_t;

static void patch(const patch_case_t *c)
{
    int64_t values = c->patches * c->patch, x_stride = values + c->x_extra, parts = c->time ? 3 : 2;
    int64_t patch_stride = parts * c->patch + c->patch_extra, y_stride = c->patches * patch_stride + c->row_extra;
    int64_t visible_stride = c->patches + c->visible_extra;
    pair_t *x = pair_random("x", BACKEND_F32, 3, DIMS(c->rows, x_stride)), *mask = bytes_of("mask", c->rows * x_stride, 0.15);
    pair_t *time = pair_random("time", BACKEND_F32, 1, DIMS(values)), *y = pair_random("y", c->y, 1, DIMS(c->rows, y_stride));
    pair_t *visible = bytes_of("visible", c->rows * visible_stride, 0.5);
    uint8_t *seen[SIDES];

    EACH_SIDE(side)
    {
        pair_ok(backend_patch(pair_backend[side], &(backend_patch_t){.x = x->view[side],
                                                                     .mask = c->mask ? &mask->view[side] : NULL,
                                                                     .rows = c->rows,
                                                                     .patches = c->patches,
                                                                     .patch = c->patch,
                                                                     .x_stride = x_stride,
                                                                     .time = c->time ? &time->view[side] : NULL,
                                                                     .missing = c->missing,
                                                                     .y = y->view[side],
                                                                     .y_stride = y_stride,
                                                                     .patch_stride = patch_stride,
                                                                     .visible = c->visible ? &visible->view[side] : NULL,
                                                                     .visible_stride = visible_stride}));
        seen[side] = malloc((size_t)(c->rows * visible_stride));
        assert_non_null(seen[side]);
        pair_read(visible, side, seen[side]);
    }
    pair_compare(y, c->y == BACKEND_BF16 ? 1e-2 : 1e-7);
    pair_guards(visible);
    assert_memory_equal(seen[ON_GPU], seen[ON_CPU], (size_t)(c->rows * visible_stride));
    EACH_SIDE(side) free(seen[side]);
    pair_test_end(NULL);
}

static void patches_match_the_cpu(void **state)
{
    (void)state;
    patch(&(patch_case_t){1, 128, 16, 64, 0, 0, 5, true, true, false, true, BACKEND_F32});
    patch(&(patch_case_t){3, 9, 33, 0, 7, 5, 0, true, false, true, true, BACKEND_BF16});
    patch(&(patch_case_t){5, 4, 16, 3, 48, 0, 0, false, true, false, true, BACKEND_F32});
    patch(&(patch_case_t){513, 3, 5, 0, 0, 0, 0, true, false, false, false, BACKEND_F32});
}

/* ---- quantile_head ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t rows, patches, patch, levels, horizon, asked, offset;
    bool level_first, sinh, cap, strange, unsorted, loc_a_patch;
} head_case_t;

static void head(const head_case_t *c)
{
    int64_t length = c->patches * c->patch, total = c->offset + length + 3, values = c->rows * length * c->levels;
    int64_t native_stride = length + 2, loc_count = c->rows * (c->loc_a_patch ? c->patches : 1);
    pair_t *raw = pair_new("head", BACKEND_F32, DIMS(values)), *loc = pair_random("loc", BACKEND_F32, 5, DIMS(loc_count));
    pair_t *deviation = pair_new("scale", BACKEND_F32, DIMS(loc_count)), *low = pair_new("low", BACKEND_F32, DIMS(c->rows));
    pair_t *high = pair_new("high", BACKEND_F32, DIMS(c->rows)), *native_levels = pair_new("levels", BACKEND_F32, DIMS(c->levels));
    pair_t *asked = pair_new("asked", BACKEND_F32, DIMS(c->asked > 0 ? c->asked : 1));
    pair_t *native = pair_random("native", BACKEND_F32, 0, DIMS(c->rows, c->levels, native_stride));
    pair_t *quantiles = pair_random("quantiles", BACKEND_F32, 0, DIMS(c->rows, c->asked > 0 ? c->asked : 1, total));
    pair_t *mean = pair_random("mean", BACKEND_F32, 0, DIMS(c->rows, total));
    float *value = malloc((size_t)values * sizeof *value), level[BACKEND_LEVELS_MOST];

    assert_non_null(value);
    for (int64_t i = 0; i < values; i++) {
        value[i] = (float)random_normal();
        if (c->strange && random_uniform() < 0.1)
            value[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
    }
    pair_write(raw, value);
    free(value);
    pair_normal(deviation, 3, 0.5f);
    pair_normal(low, 0, 0.5f);
    pair_normal(high, 8, 0.5f);
    for (int64_t i = 0; i < c->levels; i++)
        level[i] = (float)(i + 1) / (float)(c->levels + 1);
    pair_write(native_levels, level);
    for (int64_t i = 0; i < c->asked; i++)
        level[i] = (float)i / (float)c->asked + 0.013f;
    if (c->asked > 0)
        pair_write(asked, level);
    EACH_SIDE(side)
    {
        pair_ok(backend_quantile_head(pair_backend[side],
                                      &(backend_quantile_head_t){.head = raw->view[side],
                                                                 .rows = c->rows,
                                                                 .length = length,
                                                                 .patch = c->patch,
                                                                 .levels = c->levels,
                                                                 .row_stride = length * c->levels,
                                                                 .patch_stride = c->level_first ? c->patch : c->patch * c->levels,
                                                                 .level_stride = c->level_first ? length : 1,
                                                                 .value_stride = c->level_first ? 1 : c->levels,
                                                                 .sinh = c->sinh,
                                                                 .loc = loc->view[side],
                                                                 .scale = deviation->view[side],
                                                                 .loc_stride = c->loc_a_patch ? c->patches : 1,
                                                                 .loc_patch_stride = c->loc_a_patch ? 1 : 0,
                                                                 .low = c->cap ? &low->view[side] : NULL,
                                                                 .high = c->cap ? &high->view[side] : NULL,
                                                                 .native = &native->view[side],
                                                                 .native_stride = native_stride,
                                                                 .unsorted = c->unsorted,
                                                                 .native_levels = native_levels->view[side],
                                                                 .horizon = c->horizon,
                                                                 .asked = c->asked > 0 ? &asked->view[side] : NULL,
                                                                 .quantiles = c->asked > 0 ? &quantiles->view[side] : NULL,
                                                                 .mean = &mean->view[side],
                                                                 .total = total,
                                                                 .offset = c->offset}));
    }
    pair_compare(native, 1e-6);
    pair_compare(quantiles, 1e-5);
    pair_compare(mean, 1e-5);
    pair_test_end(NULL);
}

static void quantile_heads_match_the_cpu(void **state)
{
    (void)state;
    head(&(head_case_t){1, 4, 16, 21, 64, 9, 0, true, true, false, false, false, false});
    head(&(head_case_t){5, 3, 32, 9, 90, 5, 7, false, true, true, true, false, true});
    head(&(head_case_t){130, 1, 64, 9, 50, 3, 0, true, false, false, true, true, false});
    head(&(head_case_t){2, 2, 5, 1, 10, 2, 1, false, false, true, false, false, true});
    head(&(head_case_t){3, 2, 7, 4, 0, 0, 0, false, false, false, true, false, false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(embeddings_match_the_cpu),
        pair_test(rows_are_scaled_as_on_the_cpu),
        pair_test(patches_match_the_cpu),
        pair_test(quantile_heads_match_the_cpu),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
