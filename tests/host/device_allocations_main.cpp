// allocations_main.cpp, for programs whose devices are shared libraries that take memory of their own.
#define COUNT_OWN_ONLY
#include "allocations_main.cpp"
