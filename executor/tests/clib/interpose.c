/* A library that wraps pthread_create the way sanitizers and profilers do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

struct call {
  void *(*start)(void *);
  void *arg;
};

static void *wrapper(void *p) {
  struct call call = *(struct call *)p;
  free(p);
  return call.start(call.arg);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
      (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
  struct call *call = malloc(sizeof *call);
  call->start = start;
  call->arg = arg;
  return real(thread, attr, wrapper, call);
}
