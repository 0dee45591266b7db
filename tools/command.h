/* The commands of `barcast`: one file each (cmd_*.c), each with its options table. They return the process's exit status: 0 done, 1 it
 * failed (the reason is on stderr), 2 wrong usage. */
#ifndef BARCAST_TOOLS_COMMAND_H
#define BARCAST_TOOLS_COMMAND_H

int cmd_run(int argc, char **argv);
int cmd_sub(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_forecast(int argc, char **argv);
int cmd_backtest(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_stress(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_shm(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_models(int argc, char **argv);
int models_fit(int argc, char **argv); /* barcast models fit, in a file of its own */

#endif
