/* The scheduler's process: dispatch.h between the segment's update log and the workers' socket.
 *
 *     update log ──shm_log_wait──> watcher thread ─┐
 *                                                  ├─> a turn, under one lock: receive, read updates, time, send
 *     ROUTER ────poll(ZMQ_FD)────> main thread  ───┘
 *
 * Both threads take the same turns; each waits for one of the two sources. So a closed bar costs one wake-up before its batch is with
 * ZeroMQ, and so does a DONE: with one thread, one of them would have to be handed on by another thread, at 10 to 30 us a time. The lock is
 * also the memory barrier that ZeroMQ asks for when a socket changes threads. Whatever a turn finds to be done later (a deadline, a linger) is
 * waited for by the thread that took it. There is no spinning.
 *
 * The segment may be late, may lose its writer (it is kept: ingest comes back to it), and may be replaced by one of another epoch: then all that
 * is known of symbols is dropped and read anew. */
#ifndef BARCAST_SCHEDULER_LOOP_H
#define BARCAST_SCHEDULER_LOOP_H

#include "config/config.h"

enum { LOOP_OK = 0, LOOP_ERR_SYSTEM = -1 };

/* Runs until `signals`, a signalfd, is readable; then takes no new bars, waits at most config->scheduler.deadline_ns for what is due and in flight
 * (a second signal ends that), tells the workers to drain, and returns LOOP_OK. */
int loop_run(const config_t *config, int signals);

#endif
