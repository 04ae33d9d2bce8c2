/* A library with thread locals, one initialised and one not. The model is the compiler's flag. */
__thread int value = 42;
__thread int zeroed;

int get(void) { return zeroed ? zeroed : value; }

void set(int v) {
  value = v;
  zeroed = v;
}
