#include "ingest/series.h"

#include "base/error.h"
#include "ingest/timestamp.h"

#include <stdlib.h>
#include <string.h>

enum { PROBE_BARS = 257 };

struct series_run {
    series_run_t *next;
    const table_t *table;
    table_place_t *rows; /* the index, or NULL: every row of the table, in its order */
    size_t count, capacity;
    int64_t oldest_ns; /* the first open time in the order of the rows, for sorting */
    int64_t last_ns;   /* collecting: the open time before */
    int64_t balance;   /* collecting: steps forward less steps backward; below 0 the file has the newest first */
};

/* ---- collecting ------------------------------------------------------------------------------------------------------------ */

static int out_of_memory(void)
{
    return error_set(SOURCE_ERR_OPEN, "out of memory");
}

static series_t *find_or_add(series_list_t *list, const char *symbol)
{
    uint32_t at;
    if (symbols_find(&list->symbols, symbol, &at))
        return &list->items[at];
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 16;
        series_t *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    if (!symbols_add(&list->symbols, symbol, (uint32_t)list->count))
        return NULL;
    series_t *series = &list->items[list->count++];
    *series = (series_t){0};
    memcpy(series->symbol, symbol, sizeof series->symbol);
    return series;
}

/* The series' run in `table`, made when it is new. */
static series_run_t *find_or_add_run(series_list_t *list, const table_t *table, const source_bar_t *row)
{
    series_t *series = find_or_add(list, row->symbol);
    if (!series)
        return NULL;
    if (series->runs && series->runs->table == table)
        return series->runs;
    series_run_t *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    *run =
        (series_run_t){.next = series->runs, .table = table, .oldest_ns = row->bar.open_time_ns, .last_ns = row->bar.open_time_ns};
    series->runs = run;
    return run;
}

static bool push_row(series_run_t *run, table_place_t row)
{
    if (run->count == run->capacity) {
        size_t capacity = run->capacity ? run->capacity * 2 : 64;
        table_place_t *rows = realloc(run->rows, capacity * sizeof *rows);
        if (!rows)
            return false;
        run->rows = rows;
        run->capacity = capacity;
    }
    run->rows[run->count++] = row;
    return true;
}

static void follow_time(series_run_t *run, int64_t open_time_ns)
{
    run->balance += (open_time_ns > run->last_ns) - (open_time_ns < run->last_ns);
    run->last_ns = open_time_ns;
}

static void reverse_if_newest_first(series_run_t *run)
{
    if (run->balance >= 0)
        return;
    for (size_t i = 0; i < run->count / 2; i++) {
        table_place_t row = run->rows[i];
        run->rows[i] = run->rows[run->count - 1 - i];
        run->rows[run->count - 1 - i] = row;
    }
    run->oldest_ns = run->last_ns;
}

/* Goes through the whole table. A malformed row is kept with the row before it, the leading ones with the first good one, so that
 * each is reported once, when its turn comes. */
static int index_table(series_list_t *list, const table_t *table)
{
    int rc;
    series_run_t leading = {0}, *run = &leading;
    table_place_t place = table_first(table), start;
    source_bar_t row;
    while ((rc = table_read(table, &place, &start, &row)) != SOURCE_END) {
        if (rc == SOURCE_OK) {
            run = find_or_add_run(list, table, &row);
            if (!run)
                goto no_memory;
            follow_time(run, row.bar.open_time_ns);
            for (size_t i = 0; i < leading.count; i++)
                if (!push_row(run, leading.rows[i]))
                    goto no_memory;
            leading.count = 0;
        }
        if (!push_row(run, start))
            goto no_memory;
    }
    free(leading.rows);
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].runs->table == table)
            reverse_if_newest_first(list->items[i].runs);
    return SOURCE_OK;

no_memory:
    free(leading.rows);
    return out_of_memory();
}

/* Looks at the first rows of a table of one symbol: *first is the first well-formed one, and whether the newest come first.
 * SOURCE_END when there is none; then error_text() tells what is wrong with the last row. */
static int probe_order(const table_t *table, source_bar_t *first, bool *newest_first)
{
    series_run_t run = {0};
    table_place_t place = table_first(table);
    source_bar_t row;
    int rc;
    size_t found = 0;
    error_set(SOURCE_END, "it has no rows");
    while (found < PROBE_BARS && (rc = table_read(table, &place, NULL, &row)) != SOURCE_END) {
        if (rc == SOURCE_BAD)
            continue;
        if (found++ == 0) {
            *first = row;
            run.last_ns = row.bar.open_time_ns;
        }
        follow_time(&run, row.bar.open_time_ns);
    }
    *newest_first = run.balance < 0;
    return found ? SOURCE_OK : SOURCE_END;
}

int series_list_add(series_list_t *list, table_t *table)
{
    source_bar_t first;
    bool newest_first;
    if (probe_order(table, &first, &newest_first) == SOURCE_END)
        return error_add(SOURCE_ERR_OPEN, "no well-formed row");
    if (table_has_symbols(table) || newest_first)
        return index_table(list, table);
    return find_or_add_run(list, table, &first) ? SOURCE_OK : out_of_memory();
}

/* ---- reading --------------------------------------------------------------------------------------------------------------- */

static void go_to_run(series_t *series, const series_run_t *run)
{
    series->run = run;
    series->row = 0;
    if (run)
        series->place = table_first(run->table);
}

int series_read(series_t *series, source_bar_t *out)
{
    while (series->run) {
        const series_run_t *run = series->run;
        if (!run->rows) {
            int rc = table_read(run->table, &series->place, NULL, out);
            if (rc != SOURCE_END)
                return rc;
        } else if (series->row < run->count) {
            table_place_t place = run->rows[series->row++];
            return table_read(run->table, &place, NULL, out);
        }
        go_to_run(series, run->next);
    }
    return SOURCE_END;
}

static series_run_t *sort_runs(series_run_t *runs)
{
    series_run_t *sorted = NULL;
    while (runs) {
        series_run_t *run = runs, **at = &sorted;
        runs = run->next;
        while (*at && (*at)->oldest_ns < run->oldest_ns)
            at = &(*at)->next;
        run->next = *at;
        *at = run;
    }
    return sorted;
}

void series_list_sort(series_list_t *list)
{
    for (size_t i = 0; i < list->count; i++) {
        list->items[i].runs = sort_runs(list->items[i].runs);
        go_to_run(&list->items[i], list->items[i].runs);
    }
}

static int64_t probe_interval(series_t cursor)
{
    int64_t times[PROBE_BARS];
    size_t count = 0;
    source_bar_t row;
    int rc;
    while (count < PROBE_BARS && (rc = series_read(&cursor, &row)) != SOURCE_END)
        if (rc == SOURCE_OK)
            times[count++] = row.bar.open_time_ns;
    return timestamp_interval(times, count);
}

/* The interval of most series that have one, 0 when none has. */
static int64_t commonest_interval(const series_list_t *list)
{
    int64_t best = 0;
    size_t best_count = 0;
    for (size_t i = 0; i < list->count; i++) {
        int64_t candidate = list->items[i].interval_ns;
        if (candidate == 0 || candidate == best)
            continue;
        size_t count = 0;
        for (size_t j = 0; j < list->count; j++)
            count += list->items[j].interval_ns == candidate;
        if (count > best_count) {
            best_count = count;
            best = candidate;
        }
    }
    return best;
}

int series_list_intervals(series_list_t *list, int64_t interval_ns)
{
    bool missing = false;
    for (size_t i = 0; i < list->count; i++) {
        series_t *series = &list->items[i];
        series->interval_ns = interval_ns ? interval_ns : probe_interval(*series);
        missing = missing || series->interval_ns == 0;
    }
    if (!missing)
        return SOURCE_OK;
    int64_t common = commonest_interval(list);
    if (common == 0)
        return error_set(SOURCE_ERR_OPEN, "cannot tell the bars' interval (no symbol has two bars): set interval");
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].interval_ns == 0)
            list->items[i].interval_ns = common;
    return SOURCE_OK;
}

void series_list_free(series_list_t *list)
{
    for (size_t i = 0; i < list->count; i++) {
        for (series_run_t *run = list->items[i].runs, *next; run; run = next) {
            next = run->next;
            free(run->rows);
            free(run);
        }
    }
    free(list->items);
    symbols_free(&list->symbols);
    *list = (series_list_t){0};
}
