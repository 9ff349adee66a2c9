// What cupy_sweep.cu uses of CUDA, on the host: blocks one after another, the threads of a block as fibers that meet at
// barriers and in the messages of their warp. It shows what kernels compute, not how fast, nor races between blocks.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct Place {
    unsigned x = 0, y = 0;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

template <class To, class From>
static To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To found;
    std::memcpy(&found, &x, sizeof x);
    return found;
}
static inline float __int_as_float(unsigned x) { return bits_as<float>(x); }
static inline int __float_as_int(float x) { return bits_as<int>(x); }
static inline float half_as_float(unsigned short x) {
    const int exponent = x >> 10 & 31, fraction = x & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    return x & 0x8000 ? -size : size;
}

namespace fibers {
constexpr int LANES = 32;
constexpr size_t STACK = 1 << 16;
enum State { RUNNING, AT_BARRIER, IN_WARP, DONE };
struct Fiber {
    ucontext_t start;
    jmp_buf here;
    State state;
    bool begun;
    Place place;
    double message;
    std::vector<char> stack;
};
static std::vector<Fiber> all;
static jmp_buf scheduler;
static ucontext_t home;
static int count, now;
static std::function<void()> body;

static void stop(const char* why) {
    std::fprintf(stderr, "cuda_on_cpu: %s\n", why);
    std::abort();
}
static void begin() {
    body();
    all[now].state = DONE;
    _longjmp(scheduler, 1);
}
static void wait(State state) {
    all[now].state = state;
    if (!_setjmp(all[now].here)) _longjmp(scheduler, 1);
}
static void resume(int thread) {
    Fiber& fiber = all[thread];
    now = thread, threadIdx = fiber.place;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.here, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}
// Let go on who waits for nobody any more; say whether there is one.
static bool release() {
    bool all_there = true, any = false;
    for (int first = 0; first < count; first += LANES) {
        const int last = first + LANES < count ? first + LANES : count;
        bool warp = true;
        for (int i = first; i < last; i++) warp &= all[i].state == IN_WARP;
        for (int i = first; i < last; i++) {
            if (warp) all[i].state = RUNNING, any = true;
            all_there &= all[i].state == AT_BARRIER || all[i].state == DONE;
        }
    }
    for (int i = 0; i < count && all_there; i++) {
        if (all[i].state == AT_BARRIER) all[i].state = RUNNING, any = true;
    }
    return any;
}
static void run_block() {
    for (int i = 0; i < count; i++) {
        Fiber& fiber = all[i];
        fiber.state = RUNNING, fiber.begun = false;
        fiber.place = {i % blockDim.x, i / blockDim.x};
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.data();
        fiber.start.uc_stack.ss_size = STACK;
        makecontext(&fiber.start, begin, 0);
    }
    do {
        for (int i = 0; i < count; i++) {
            if (all[i].state == RUNNING) resume(i);
        }
    } while (release());
    for (int i = 0; i < count; i++) {
        if (all[i].state != DONE) stop("threads wait for others that never come");
    }
}
static void launch(int blocks, int x, int y, std::function<void()> kernel) {
    count = x * y;
    if ((int)all.size() < count) all.resize(count);
    for (Fiber& fiber : all) fiber.stack.resize(STACK);
    blockDim.x = x, blockDim.y = y, gridDim.x = blocks, gridDim.y = 1, body = std::move(kernel);
    for (int block = 0; block < blocks; block++) {
        blockIdx.x = block, blockIdx.y = 0;
        run_block();
    }
}
// What a lane of the own warp says.
template <class Number>
static Number told_by(Number mine, int lane) {
    static_assert(sizeof(Number) <= sizeof(double));
    const int first = now / LANES * LANES;
    std::memcpy(&all[now].message, &mine, sizeof mine);
    wait(IN_WARP);
    Number found;
    std::memcpy(&found, &all[first + lane].message, sizeof found);
    wait(IN_WARP);
    return found;
}

template <class T>
constexpr char kind() {
    return std::is_pointer_v<T> ? 'p' : std::is_same_v<T, float> ? 'f' : std::is_same_v<T, double> ? 'd' : 'q';
}
// Calls a kernel with arguments by their addresses, if they are of its kinds; says whether they are.
template <class... Given, size_t... I>
static bool call(void (*kernel)(Given...), std::index_sequence<I...>, int blocks, int x, int y, const char* kinds,
                 void** given) {
    const char own[] = {kind<Given>()..., 0};
    if (std::strcmp(own, kinds)) return false;
    launch(blocks, x, y, [&] { kernel(*static_cast<Given*>(given[I])...); });
    return true;
}
template <class... Given>
static bool call(void (*kernel)(Given...), int blocks, int x, int y, const char* kinds, void** given) {
    return call(kernel, std::index_sequence_for<Given...>{}, blocks, x, y, kinds, given);
}
}  // namespace fibers

// What is called from outside.
#define ENTRY(kernel)                                                                                  \
    extern "C" bool entry(int blocks, int x, int y, const char* kinds, void** given) {                  \
        return fibers::call(kernel, blocks, x, y, kinds, given);                                        \
    }

static inline void __syncthreads() { fibers::wait(fibers::AT_BARRIER); }
template <class Number>
static Number __shfl_xor_sync(unsigned, Number x, int mask) {
    return fibers::told_by(x, fibers::now % fibers::LANES ^ mask);
}
template <class Number>
static Number __shfl_sync(unsigned, Number x, int lane, int width) {
    return fibers::told_by(x, fibers::now % fibers::LANES / width * width + lane % width);
}
