/* barcast-demo-data: the bars of the demo. A seeded random walk with stochastic volatility and volume, the same bytes at every run and on
 * every machine; it resembles no market.
 *
 *     barcast-demo-data SYMBOLS BARS > bars.csv        columns: time, symbol, open, high, low, close, volume; all symbols a minute */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SYMBOLS_MOST = 10000, BARS_MOST = 1000000, STEPS = 8 };
static const int64_t first_time_s = 1767225600; /* 2026-01-01 00:00 UTC */

typedef struct {
    uint64_t random;
    double price, log_volatility, volume;
} walker_t;

/* splitmix64 */
static uint64_t next_random(walker_t *walker)
{
    uint64_t z = walker->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double uniform(walker_t *walker)
{
    return (double)(next_random(walker) >> 11) * 0x1p-53;
}

/* Nearly normal: the sum of twelve uniforms, free of libm's last digits. */
static double normal(walker_t *walker)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform(walker);
    return sum;
}

/* One minute: the volatility moves, then the price in a few steps of which open, high, low and close are taken. */
static void print_bar(walker_t *walker, int64_t time_s, unsigned symbol)
{
    walker->log_volatility = 0.98 * walker->log_volatility + 0.12 * normal(walker);
    double step = 0.0004 * exp(walker->log_volatility) / sqrt(STEPS);
    double open = walker->price, high = open, low = open;
    for (int i = 0; i < STEPS; i++) {
        walker->price *= 1 + step * normal(walker);
        high = fmax(high, walker->price);
        low = fmin(low, walker->price);
    }
    double volume = walker->volume * exp(walker->log_volatility + 0.4 * normal(walker));
    printf("%lld,DEMO%02u,%.4f,%.4f,%.4f,%.4f,%.0f\n", (long long)time_s, symbol, open, high, low, walker->price, volume);
}

static long argument(const char *text, long most)
{
    char *end;
    long value = strtol(text, &end, 10);
    return *end == '\0' && value >= 1 && value <= most ? value : 0;
}

int main(int argc, char **argv)
{
    long symbols = argc == 3 ? argument(argv[1], SYMBOLS_MOST) : 0;
    long bars = argc == 3 ? argument(argv[2], BARS_MOST) : 0;
    if (!symbols || !bars) {
        fprintf(stderr, "usage: barcast-demo-data SYMBOLS BARS > bars.csv\n");
        return 2;
    }
    walker_t *walkers = calloc((size_t)symbols, sizeof *walkers);
    if (!walkers)
        return 1;
    for (long i = 0; i < symbols; i++) {
        walkers[i].random = (uint64_t)i + 1;
        walkers[i].price = 20 + 480 * uniform(&walkers[i]);
        walkers[i].volume = 1000 + 50000 * uniform(&walkers[i]);
    }
    printf("time,symbol,open,high,low,close,volume\n");
    for (long bar = 0; bar < bars; bar++)
        for (long i = 0; i < symbols; i++)
            print_bar(&walkers[i], first_time_s + 60 * bar, (unsigned)i + 1);
    free(walkers);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
