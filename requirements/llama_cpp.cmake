# Read by the build of llama-cpp-python after its project(): leaves out llama.cpp's library for
# command lines, which is more than half of the compiling and which nothing here uses.
set(LLAMA_BUILD_COMMON OFF)
