/* The directories that a process makes for itself. */
#ifndef BARCAST_BASE_DIRECTORY_H
#define BARCAST_BASE_DIRECTORY_H

enum { DIRECTORY_OK = 0, DIRECTORY_ERR_SYSTEM = -1, DIRECTORY_ERR_FOREIGN = -2 };

/* Makes `path` and its parents, mode 0700, where they do not exist: the place of sockets and locks. The last one must be a directory of
 * this user that nobody else can write (DIRECTORY_ERR_FOREIGN), so that another user cannot have laid it out under /tmp before. */
int directory_make_private(const char *path);

#endif
