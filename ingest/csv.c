#include "ingest/csv.h"

#include "base/error.h"

#include <limits.h>
#include <string.h>

static bool is_blank(char c, char separator)
{
    return (c == ' ' || c == '\t') && c != separator;
}

/* Takes the next cell off [*at, end) and leaves *at behind its separator, or at NULL after the line's last cell. False when a
 * quote is not closed or something follows it. */
static bool next_cell(const char **at, const char *end, char separator, cell_t *out)
{
    const char *start = *at;
    while (start < end && is_blank(*start, separator))
        start++;
    const char *stop;
    if (start < end && *start == '"') {
        const char *close = memchr(start + 1, '"', (size_t)(end - start - 1));
        if (!close)
            return false;
        *out = (cell_t){start + 1, (size_t)(close - start - 1)};
        for (stop = close + 1; stop < end && is_blank(*stop, separator); stop++)
            continue;
        if (stop < end && *stop != separator)
            return false;
    } else {
        for (stop = start; stop < end && *stop != separator; stop++)
            continue;
        const char *last = stop;
        while (last > start && is_blank(last[-1], separator))
            last--;
        *out = (cell_t){start, (size_t)(last - start)};
    }
    *at = stop < end ? stop + 1 : NULL;
    return true;
}

static char find_separator(const char *line, size_t length)
{
    static const char candidates[] = ",;\t";
    char best = ',';
    size_t best_count = 0;
    for (const char *candidate = candidates; *candidate; candidate++) {
        size_t count = 0;
        for (size_t i = 0; i < length; i++)
            count += line[i] == *candidate;
        if (count > best_count) {
            best_count = count;
            best = *candidate;
        }
    }
    return best;
}

static int missing_column(column_t column)
{
    return error_set(SOURCE_ERR_OPEN, "the header has no column for %s (known names: %s%s%s)", column_name(column),
                     column_synonyms(column), column == COLUMN_TIME ? "," : "",
                     column == COLUMN_TIME ? column_synonyms(COLUMN_DATE) : "");
}

int csv_header_parse(const char *line, size_t length, csv_layout_t *out)
{
    csv_layout_t layout = {.separator = find_separator(line, length)};
    memset(layout.of, COLUMN_NONE, sizeof layout.of);
    int field_of[COLUMN_COUNT], rank_of[COLUMN_COUNT];
    for (int column = 0; column < COLUMN_COUNT; column++) {
        field_of[column] = -1;
        rank_of[column] = INT_MAX;
    }

    int field = 0;
    for (const char *at = line; at && field < CSV_COLUMNS_MOST; field++) {
        cell_t cell;
        if (!next_cell(&at, line + length, layout.separator, &cell))
            return error_set(SOURCE_ERR_OPEN, "the header has an open quote");
        int rank, column = column_match(cell.text, cell.length, &rank);
        if (column == COLUMN_NONE || rank >= rank_of[column])
            continue;
        if (field_of[column] >= 0)
            layout.of[field_of[column]] = COLUMN_NONE;
        layout.of[field] = (signed char)column;
        field_of[column] = field;
        rank_of[column] = rank;
    }
    if (field_of[COLUMN_TIME] < 0 && field_of[COLUMN_DATE] < 0)
        return missing_column(COLUMN_TIME);
    for (column_t column = COLUMN_OPEN; column <= COLUMN_CLOSE; column++)
        if (field_of[column] < 0)
            return missing_column(column);
    for (int column = 0; column < COLUMN_COUNT; column++)
        if (field_of[column] > layout.last)
            layout.last = field_of[column];
    layout.has_symbol = field_of[COLUMN_SYMBOL] >= 0;
    *out = layout;
    return SOURCE_OK;
}

int csv_row_parse(const csv_layout_t *layout, const char *line, size_t length, source_bar_t *out)
{
    cell_t cells[COLUMN_COUNT] = {{NULL, 0}};
    const char *at = line;
    for (int field = 0; field <= layout->last; field++) {
        cell_t cell;
        if (!at)
            return error_set(SOURCE_BAD, "%d cells where the header has %d columns or more", field, layout->last + 1);
        if (!next_cell(&at, line + length, layout->separator, &cell))
            return error_set(SOURCE_BAD, "cell %d has an open quote", field + 1);
        if (layout->of[field] != COLUMN_NONE)
            cells[layout->of[field]] = cell;
    }
    return columns_to_bar(cells, out);
}
