#include "tools/backtest/score_baselines.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"
#include "tools/backtest/progress.h"

enum { THREADS_MOST = 64 };

typedef struct {
    backtest_t *backtest;
    progress_t progress;
    atomic_size_t next; /* series that nobody has taken yet */
    atomic_bool failed;
} work_t;

static void score_series(work_t *work, size_t series, double *scratch, float *quantiles)
{
    backtest_t *backtest = work->backtest;
    const backtest_plan_t *plan = &backtest->plan;
    baselines_input_t input = {.count = plan->context,
                               .price = backtest->set.price,
                               .season = backtest->set.series[series].season,
                               .horizon = plan->horizon};

    for (size_t origin = backtest->first_origin[series]; origin < backtest->first_origin[series + 1]; origin++) {
        input.values = backtest_context(backtest, origin);
        baselines_forecast(&input, scratch, quantiles);
        for (baseline_t b = 0; b < BASELINES; b++)
            backtest_score(backtest, backtest_baseline(backtest, b), origin, quantiles + (size_t)b * LEVELS * plan->horizon);
        progress_add(&work->progress, 1);
    }
}

static void *run(void *context)
{
    work_t *work = context;
    const backtest_plan_t *plan = &work->backtest->plan;
    double *scratch = malloc(baselines_work(plan->context, plan->horizon) * sizeof *scratch);
    float *quantiles = malloc((size_t)BASELINES * LEVELS * plan->horizon * sizeof *quantiles);
    size_t series;

    if (scratch == NULL || quantiles == NULL)
        atomic_store_explicit(&work->failed, true, memory_order_relaxed); /* read after the join */
    else /* relaxed: a ticket; what it stands for was written before the threads began */
        while ((series = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed)) < work->backtest->set.count)
            score_series(work, series, scratch, quantiles);
    free(scratch);
    free(quantiles);
    return NULL;
}

int score_baselines(backtest_t *backtest, uint32_t threads)
{
    work_t work = {.backtest = backtest};
    pthread_t others[THREADS_MOST];
    uint32_t started = 0;

    progress_open(&work.progress, "baselines", backtest->origin_count);
    while (started + 1 < threads && started < THREADS_MOST && started + 1 < backtest->set.count &&
           pthread_create(&others[started], NULL, run, &work) == 0)
        started++;
    run(&work);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    progress_close(&work.progress);
    return atomic_load_explicit(&work.failed, memory_order_relaxed) ? error_set(-1, "no memory for the baselines") : 0;
}
