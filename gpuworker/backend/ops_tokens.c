/* The front of the ops: tokens. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

int backend_sign_tokens(backend_t *backend, const backend_sign_tokens_t *op)
{
    check_t check = check_begin(backend, "sign_tokens");
    int64_t width, sequences, reach;

    check_size(&check, "rows", op->rows);
    check_size(&check, "tokens", op->tokens);
    check_size(&check, "copies", op->copies);
    check_range(&check, "bits_1", op->bits_1, 1, 30);
    check_range(&check, "bits_2", op->bits_2, 1, 30);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->tokens);
    width = op->tokens * (op->bits_1 + op->bits_2);
    sequences = op->rows / op->tokens;
    check_range(&check, "x_stride", op->x_stride, 0, INT64_MAX);
    check_range(&check, "y_stride", op->y_stride, op->tokens, INT64_MAX);
    reach = check_strided(PRODUCT(sequences, op->copies), op->y_stride, op->tokens);
    check_range(&check, "part_stride", op->part_stride, reach, INT64_MAX);
    check_tensor(&check, "x", &op->x, F32, check_strided(sequences, op->x_stride > 0 ? op->x_stride : width, width));
    check_tensor(&check, "y", &op->y, I32, check_strided(2, op->part_stride, reach));
    check_supported(&check, backend->vtable->sign_tokens != NULL);
    return RUN(check, backend->vtable->sign_tokens(backend, op));
}

int backend_draw_token(backend_t *backend, const backend_draw_token_t *op)
{
    check_t check = check_begin(backend, "draw_token");

    check_size(&check, "rows", op->rows);
    check_range(&check, "vocabulary", op->vocabulary, 1, BACKEND_DRAW_VOCABULARY_MOST);
    check_range(&check, "logits_stride", op->logits_stride, 0, INT64_MAX);
    check_size(&check, "paths", op->paths);
    check_equal(&check, op->temperature > 0, "temperature is not positive");
    check_equal(&check, op->top_p > 0, "top_p is not positive");
    check_range(&check, "top_k", op->top_k, 0, INT64_MAX);
    check_range(&check, "token_stride", op->token_stride, 1, INT64_MAX);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->paths);
    check_tensor(&check, "logits", &op->logits, F32,
                 check_strided(op->rows, op->logits_stride > 0 ? op->logits_stride : op->vocabulary, op->vocabulary));
    if (op->top_k != 1)
        check_tensor(&check, "keys", op->keys, U64, op->rows / op->paths);
    check_tensor(&check, "step", op->step, I32, 1);
    check_tensor(&check, "tokens", &op->tokens, I32, check_strided(op->rows, op->token_stride, 1));
    if (op->then != NULL) {
        check_embed(&check, op->then);
        check_equal(&check, op->then->rows == op->rows && op->then->tokens == 1, "`then` does not embed one token a row");
    }
    check_supported(&check, backend->vtable->draw_token != NULL);
    return RUN(check, backend->vtable->draw_token(backend, op));
}

int backend_transpose(backend_t *backend, const backend_transpose_t *op)
{
    check_t check = check_begin(backend, "transpose");
    int64_t values = PRODUCT(op->tokens, op->channels);

    check_size(&check, "rows", op->rows);
    check_size(&check, "tokens", op->tokens);
    check_size(&check, "channels", op->channels);
    check_size(&check, "rows_each", op->rows_each);
    check_range(&check, "x_stride", op->x_stride, 0, INT64_MAX);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->rows_each);
    check_tensor(&check, "x", &op->x, F32, check_strided(op->rows, op->x_stride > 0 ? op->x_stride : values, values));
    check_equal(&check, (op->loc == NULL) == (op->scale == NULL), "loc and scale go together");
    check_optional(&check, "loc", op->loc, F32, PRODUCT(op->rows / op->rows_each, op->channels));
    check_optional(&check, "scale", op->scale, F32, PRODUCT(op->rows / op->rows_each, op->channels));
    check_tensor(&check, "y", &op->y, F32, PRODUCT(op->rows, values));
    check_equal(&check, check.rc < 0 || op->x.data != op->y.data, "x and y are the same buffer");
    check_supported(&check, backend->vtable->transpose != NULL);
    return RUN(check, backend->vtable->transpose(backend, op));
}
