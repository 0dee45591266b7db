#include "ingest/columns.h"

#include "base/error.h"
#include "ingest/number.h"
#include "ingest/timestamp.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { NAME_BYTES = 48, CLOCK_BYTES_MOST = 8 };

static const struct {
    const char *name;
    const char *synonyms; /* the first is preferred */
} columns[COLUMN_COUNT] = {
    [COLUMN_TIME] = {"time", "open_time,opentime,start_time,timestamp,timestamps,datetime,date_time,time,ts,t,unix,epoch,time_key,"
                             "trade_time,time_open,bar_time"},
    [COLUMN_DATE] = {"date", "date,trade_date,day,d"},
    [COLUMN_OPEN] = {"open", "open,o,open_price,openprice,price_open"},
    [COLUMN_HIGH] = {"high", "high,h,high_price,highprice,price_high"},
    [COLUMN_LOW] = {"low", "low,l,low_price,lowprice,price_low"},
    [COLUMN_CLOSE] = {"close", "close,c,close_price,closeprice,price_close,close_last,last,adj_close,adjclose,adjusted_close"},
    [COLUMN_VOLUME] = {"volume", "volume,v,vol,base_volume,volume_base,basevolume,tick_volume,tickvol,volume_traded"},
    [COLUMN_AMOUNT] = {"amount", "amount,turnover,quote_volume,quotevolume,quote_asset_volume,volume_quote,dollar_volume,value,"
                                 "money,q"},
    [COLUMN_SYMBOL] = {"symbol", "symbol,ticker,sym,s,instrument,code,ts_code,pair,asset,name"},
};

const char *column_name(column_t column)
{
    return columns[column].name;
}

const char *column_synonyms(column_t column)
{
    return columns[column].synonyms;
}

/* The name as the table spells it: lower case, '_' for what separates words, without what surrounds it. */
static size_t normalise(const char *name, size_t length, char out[static NAME_BYTES])
{
    const char *end = name + length;
    while (name < end && !isalpha((unsigned char)*name))
        name++;
    while (end > name && !isalnum((unsigned char)end[-1]))
        end--;
    if (end - name >= NAME_BYTES)
        return 0;
    size_t used = 0;
    for (; name < end; name++)
        out[used++] = strchr(" -./", *name) && *name ? '_' : (char)tolower((unsigned char)*name);
    return used;
}

static int rank_of(const char *name, size_t length, const char *synonyms)
{
    for (int rank = 0; *synonyms; rank++) {
        size_t bytes = strcspn(synonyms, ",");
        if (bytes == length && memcmp(synonyms, name, length) == 0)
            return rank;
        synonyms += bytes + (synonyms[bytes] == ',');
    }
    return -1;
}

int column_match(const char *name, size_t length, int *rank)
{
    char plain[NAME_BYTES];
    size_t bytes = normalise(name, length, plain);
    if (bytes == 0)
        return COLUMN_NONE;
    for (int column = 0; column < COLUMN_COUNT; column++) {
        int found = rank_of(plain, bytes, columns[column].synonyms);
        if (found >= 0) {
            *rank = found;
            return column;
        }
    }
    return COLUMN_NONE;
}

static int bad_cell(column_t column, const cell_t *cell, const char *wanted)
{
    if (!cell->text)
        return error_set(SOURCE_BAD, "no %s", columns[column].name);
    return error_set(SOURCE_BAD, "column %s: \"%.*s\" is no %s", columns[column].name, (int)(cell->length < 64 ? cell->length : 64),
                     cell->text, wanted);
}

static int read_time(const cell_t cells[static COLUMN_COUNT], int64_t *out_ns)
{
    const cell_t *time = &cells[COLUMN_TIME], *date = &cells[COLUMN_DATE];
    char joined[NAME_BYTES];
    cell_t whole = time->text ? *time : *date;
    if (time->text && date->text && time->length <= CLOCK_BYTES_MOST && date->length + time->length + 1 <= sizeof joined) {
        memcpy(joined, date->text, date->length);
        joined[date->length] = ' ';
        memcpy(joined + date->length + 1, time->text, time->length);
        whole = (cell_t){joined, date->length + 1 + time->length};
    }
    if (!whole.text || !timestamp_parse(whole.text, whole.length, out_ns))
        return bad_cell(COLUMN_TIME, &whole, "time (ISO 8601 or epoch)");
    return SOURCE_OK;
}

static int read_number(const cell_t cells[static COLUMN_COUNT], column_t column, double *out)
{
    const cell_t *cell = &cells[column];
    return cell->text && number_parse(cell->text, cell->length, out) ? SOURCE_OK : bad_cell(column, cell, "number");
}

/* Volume and amount: a row may lack them. */
static int read_optional(const cell_t cells[static COLUMN_COUNT], column_t column, uint32_t flag, shm_bar_t *bar, double *out)
{
    if (cells[column].text && cells[column].length > 0)
        return read_number(cells, column, out);
    *out = NAN;
    bar->flags |= flag;
    return SOURCE_OK;
}

bool columns_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

bool columns_symbol_ok(const char *symbol, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isgraph((unsigned char)symbol[i]))
            return false;
    return length > 0 && length < SHM_SYMBOL_BYTES;
}

static int read_symbol(const cell_t *cell, char out[static SHM_SYMBOL_BYTES])
{
    if (!cell->text)
        return SOURCE_OK;
    if (!columns_symbol_ok(cell->text, cell->length))
        return bad_cell(COLUMN_SYMBOL, cell, "symbol (1 to 31 printable characters without blanks)");
    memcpy(out, cell->text, cell->length);
    return SOURCE_OK;
}

int columns_to_bar(const cell_t cells[static COLUMN_COUNT], source_bar_t *out)
{
    source_bar_t row = {0};
    shm_bar_t *bar = &row.bar;
    if (read_symbol(&cells[COLUMN_SYMBOL], row.symbol) || read_time(cells, &bar->open_time_ns) ||
        read_number(cells, COLUMN_OPEN, &bar->open) || read_number(cells, COLUMN_HIGH, &bar->high) ||
        read_number(cells, COLUMN_LOW, &bar->low) || read_number(cells, COLUMN_CLOSE, &bar->close) ||
        read_optional(cells, COLUMN_VOLUME, SHM_BAR_NO_VOLUME, bar, &bar->volume) ||
        read_optional(cells, COLUMN_AMOUNT, SHM_BAR_NO_AMOUNT, bar, &bar->amount))
        return SOURCE_BAD;
    *out = row;
    return SOURCE_OK;
}
