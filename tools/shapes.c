#include "tools/shapes.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { NUMBER_MOST = 1 << 20, DECILES = 9 };

static int parse_list(const char *option, const char *text, int64_t least, uint32_t *count, uint32_t value[static SHAPES_LIST_MOST])
{
    char copy[256], *rest = copy, *word;
    int64_t number;

    *count = 0;
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
        return error_set(-1, "--%s: longer than %zu letters", option, sizeof copy - 1);
    while ((word = strsep(&rest, ",")) != NULL) {
        if (!text_to_i64(word, &number) || number < least || number > NUMBER_MOST)
            return error_set(-1, "--%s: \"%s\" is not a whole number from %d to %d", option, word, (int)least, NUMBER_MOST);
        if (*count == SHAPES_LIST_MOST)
            return error_set(-1, "--%s: more than %d of them", option, SHAPES_LIST_MOST);
        value[(*count)++] = (uint32_t)number;
    }
    return 0;
}

int shapes_parse(const shapes_text_t *text, shapes_t *out)
{
    if (parse_list("batch", text->batch, 1, &out->batch.count, out->batch.value) < 0 ||
        parse_list("context", text->context, 1, &out->context.count, out->context.value) < 0 ||
        parse_list("horizon", text->horizon, 1, &out->horizon.count, out->horizon.value) < 0)
        return -1;
    return parse_list("samples", text->samples, 0, &out->samples.count, out->samples.value);
}

uint32_t shapes_count(const shapes_t *shapes)
{
    return shapes->batch.count * shapes->context.count * shapes->horizon.count * shapes->samples.count;
}

void shapes_at(const shapes_t *shapes, uint32_t index, model_shape_t *shape)
{
    shape->samples = shapes->samples.value[index % shapes->samples.count];
    index /= shapes->samples.count;
    shape->horizon = shapes->horizon.value[index % shapes->horizon.count];
    index /= shapes->horizon.count;
    shape->context = shapes->context.value[index % shapes->context.count];
    shape->batch = shapes->batch.value[index / shapes->context.count];
    shape->quantile_count = DECILES;
    for (int q = 0; q < DECILES; q++)
        shape->quantiles[q] = 0.1f * (float)(q + 1);
}
