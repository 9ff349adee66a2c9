// Passes over scores of shape (problems, rows, columns), made straight from them: exponentials in flight, nothing of
// their size in memory but a plan that is asked for. cupy_backend.py launches these, and has all that can be tuned.
//
//     w_ij = exp((s_ij - v_j) / epsilon - lse_i)                                                     (theory, A2, A3)
//
// Scores of at most single precision have their exponents in powers of two and in single precision, and yet they are
// good to 2^-24. With c = log2(e) / epsilon = c.high + c.rest, and prices v_j c = high_j + rest_j of which the first is
// a multiple of 2^-10, an exponent's whole part n is found first, by rounding y = s c.high - high_j. What is left is
//
//     (s c.high - (high_j + n)) + (s c.rest - rest_j),
//
// where each bracket is a fused multiply-add. In a tame row |s| c and |price| add up to less than TAME = 4000 for its
// largest score and any price. Entries that matter are within 2^-125 of the largest, so for these |y| < TAME + 125 and
// |high_j + n| < 2 TAME + 126 < 2^13: a multiple of 2^-10 below 2^13 has 23 bits, so the addend is exactly a single
// number. The first bracket is at most about 1/2, and rounded once; so is the sum: two errors of 2^-25. The second is
// below |s c| 2^-24 + 2^-11 < 2^-10, and its rounding does not count.
//
// Rows that are not tame, and all rows of scores in double precision, have natural exponents in double precision:
// (s - max_j s) / epsilon - v_j / epsilon. A row's sum is kept with a shift that is the rounded largest power of a tame
// row, an integer, so that to shift by it is exact, and the largest exponent itself of another.
//
// Every sum is made in an order that the shapes alone decide, without atomics: the same scores give the same bits.

typedef long long Index;
typedef unsigned int Bits;

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffff;
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
constexpr float TAME = 4000.0f;
constexpr float VANISHES = -125.0f;  // powers below the largest from which on an entry of a tame row is 0
constexpr float NOTHING = -16384.0f;  // below all powers that matter
constexpr double LN2 = 0.6931471805599453;
constexpr double LOG2E = 1.4426950408889634;

struct Half {
    unsigned short bits;
};
struct Brain {
    unsigned short bits;
};

template <class T>
struct Wider {
    typedef float type;
};
template <>
struct Wider<double> {
    typedef double type;
};
template <class T>
using Real = typename Wider<T>::type;  // what scores are read as, and the plan's entries are stored as

template <class T>
struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

// c = log2(e) / epsilon; infinite where single precision does not have it, so that no row is tame.
struct Scale {
    float high, rest;
};

__device__ __forceinline__ float infinite() { return __int_as_float(0x7f800000); }

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ double number(double x) { return x; }
__device__ __forceinline__ float number(Brain x) { return __int_as_float((Bits)x.bits << 16); }
__device__ __forceinline__ float number(Half x) {
#ifdef __CUDA_ARCH__
    float found;
    asm("cvt.f32.f16 %0, %1;" : "=f"(found) : "h"(x.bits));
    return found;
#else
    return half_as_float(x.bits);
#endif
}

// Four scores of a row from column j on; -inf past its end.
template <class T>
__device__ __forceinline__ void load(const T* row, Index j, Index columns, bool aligned, Real<T> (&found)[4]) {
    if (aligned) {
        const Four<T> there = *reinterpret_cast<const Four<T>*>(row + j);
#pragma unroll
        for (int c = 0; c < 4; c++) found[c] = number(there.at[c]);
    } else {
#pragma unroll
        for (int c = 0; c < 4; c++) found[c] = j + c < columns ? number(row[j + c]) : -infinite();
    }
}

// 2^x for |x| <= 1, within two units. The instruction takes subnormal arguments for 0, which is right for it.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float found;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(found) : "f"(x));
    return found;
#else
    return exp2f(x);
#endif
}

// 2^d for integers d <= 0; 0 below all normal numbers.
__device__ __forceinline__ float shifted_by(float d) {
    return d < -126.0f ? 0.0f : __int_as_float(((Bits)__float_as_int(d + ROUND) << 23) + 0x3f800000u);
}

__device__ __forceinline__ float rounded(float y) { return (y + ROUND) - ROUND; }

// Whether the entries of a row that matter have exponents in single precision; not where there is a NaN.
__device__ __forceinline__ bool is_tame(float largest, Scale c, float dearest) {
    return fmaf(fabsf(largest), c.high, dearest) < TAME;
}
__device__ __forceinline__ bool is_tame(double, Scale, float) { return false; }

// About an exponent, in powers of two.
__device__ __forceinline__ float about(float s, Scale c, float high) { return fmaf(s, c.high, -high); }

// 2^(exponent - shift), an integer shift that no exponent's whole part is above.
__device__ __forceinline__ float entry(float s, Scale c, float high, float rest, float shift) {
    const float y = about(s, c, high), n = y + ROUND;
    const float left = fmaf(s, c.high, -(high + (n - ROUND))) + fmaf(s, c.rest, -rest);
    const Bits whole = ((Bits)__float_as_int(n) - (Bits)__float_as_int(shift + ROUND)) << 23;
    const float found = __int_as_float((Bits)__float_as_int(power_of_two(left)) + whole);
    return y - shift < VANISHES ? 0.0f : found;
}

// A natural exponent.
__device__ __forceinline__ double exponent(double s, double largest, double per_epsilon, double price) {
    return (s - largest) * per_epsilon - price;
}

// A sum in twice single precision: high is the rounded sum, low what that has lost (Knuth's two-sum).
struct Pair {
    float high = 0.0f, low = 0.0f;

    __device__ __forceinline__ void add(float x) {
        const float sum = high + x, part = sum - high;
        low += (high - (sum - part)) + (x - part);
        high = sum;
    }
    __device__ __forceinline__ void add_double(double x) {
        const float rough = (float)x;
        add(rough);
        low += (float)(x - rough);
    }
    __device__ __forceinline__ double value() const { return (double)high + low; }
};

// The same for double precision, where sums are plain.
struct Wide {
    double sum = 0.0;

    __device__ __forceinline__ void add(double x) { sum += x; }
    __device__ __forceinline__ void add_double(double x) { sum += x; }
    __device__ __forceinline__ double value() const { return sum; }
};

// Does not depend on the order of the two, so that all lanes of a butterfly find the same.
__device__ __forceinline__ Pair sum_of(Pair a, Pair b) {
    const float low = a.low + b.low;
    a.low = 0.0f;
    a.add(b.high);
    a.low += low;
    return a;
}

__device__ __forceinline__ Pair from_lane(Pair x, int offset) {
    Pair found;
    found.high = __shfl_xor_sync(ALL, x.high, offset);
    found.low = __shfl_xor_sync(ALL, x.low, offset);
    return found;
}

// The sums over a team's 2 OFFSET lanes of one number of each for each of some rows: a butterfly that halves the rows
// with the lanes. Lane l has the sum of row l / (2 OFFSET / ROWS).
template <int OFFSET, int ROWS>
__device__ __forceinline__ Pair added_up(const Pair (&x)[ROWS], int lane) {
    if constexpr (OFFSET == 0) {
        return x[0];
    } else if constexpr (ROWS == 1) {
        const Pair both[1] = {sum_of(x[0], from_lane(x[0], OFFSET))};
        return added_up<OFFSET / 2>(both, lane);
    } else {
        const bool upper = lane & OFFSET;
        Pair half[ROWS / 2];
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++) {
            const Pair mine = upper ? x[i + ROWS / 2] : x[i], other = upper ? x[i] : x[i + ROWS / 2];
            half[i] = sum_of(mine, from_lane(other, OFFSET));
        }
        return added_up<OFFSET / 2>(half, lane);
    }
}

// That number of some rows which is the one of a lane's row; chosen so, they stay in registers.
template <int OFFSET, int ROWS>
__device__ __forceinline__ float of_lane(const float* x, int lane) {
    if constexpr (ROWS == 1) {
        return x[0];
    } else {
        const float lower = of_lane<OFFSET / 2, ROWS / 2>(x, lane);
        const float upper = of_lane<OFFSET / 2, ROWS / 2>(x + ROWS / 2, lane);
        return lane & OFFSET ? upper : lower;
    }
}

// A tree of additions of 2^n numbers, or three times as many.
template <int NUMBER>
__device__ __forceinline__ float tree(const float* x) {
    if constexpr (NUMBER == 1) {
        return x[0];
    } else if constexpr (NUMBER == 3) {
        return (x[0] + x[1]) + x[2];
    } else {
        return tree<NUMBER / 2>(x) + tree<NUMBER / 2>(x + NUMBER / 2);
    }
}

template <class Number>
__device__ __forceinline__ Number largest_of_warp(Number x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const Number other = __shfl_xor_sync(ALL, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

template <class Number>
__device__ __forceinline__ Number sum_of_warp(Number x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
    return x;
}

__device__ __forceinline__ Pair sum_of_warp(Pair x) {
    const Pair one[1] = {x};
    return added_up<WARP / 2>(one, 0);
}

// Calls `use(j, scores)` for every fourth column of a row that a lane of a warp has.
template <class T, class Use>
__device__ __forceinline__ void along_row(const T* row, Index columns, bool aligned, Use use) {
    for (Index j = 4 * (threadIdx.x % WARP); j < columns; j += 4 * WARP) {
        Real<T> some[4];
        load(row, j, columns, aligned, some);
        use(j, some);
    }
}

// The rows of all problems, a warp for each: of this warp the first, and how far it is to its next.
__device__ __forceinline__ Index first_row() { return blockIdx.x * (Index)(THREADS / WARP) + threadIdx.x / WARP; }
__device__ __forceinline__ Index row_step() { return gridDim.x * (Index)(THREADS / WARP); }

// The largest and the least score of every row; the largest is NaN where one is.
template <class T>
__global__ void __launch_bounds__(THREADS)
    extremes(const T* scores, Index rows, Index columns, Index aligned, Real<T>* largest, Real<T>* least) {
    for (Index i = first_row(); i < rows; i += row_step()) {
        Real<T> most = -infinite(), less = -infinite();
        bool wrong = false;
        along_row(scores + i * columns, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
            for (int c = 0; c < 4; c++) {
                if (j + c < columns) {
                    wrong |= s[c] != s[c];
                    most = s[c] > most ? s[c] : most;
                    less = -s[c] > less ? -s[c] : less;
                }
            }
        });
        most = largest_of_warp(most);
        less = largest_of_warp(less);
        wrong = largest_of_warp((int)wrong);
        if (threadIdx.x % WARP == 0) {
            largest[i] = wrong ? (Real<T>)(infinite() - infinite()) : most;
            least[i] = -less;
        }
    }
}

// Prices v / epsilon, and those in powers of two in two parts; `dearest` bounds the latter, NaN where one is.
// A block for each problem. Columns are padded to a multiple of four, by prices of 0.
__global__ void __launch_bounds__(THREADS)
    prices(const double* potential, double epsilon, Index columns, Index padded, double* price, float* high,
           float* rest, float* dearest) {
    const Index p = blockIdx.x;
    __shared__ float found[THREADS];
    float most = 0.0f;
    for (Index j = threadIdx.x; j < padded; j += THREADS) {
        const double there = j < columns ? potential[p * columns + j] / epsilon : 0.0, in_powers = there * LOG2E;
        const float part = (float)(rint(in_powers * 1024) / 1024), size = fabsf(part);
        price[p * padded + j] = there;
        high[p * padded + j] = part;
        rest[p * padded + j] = (float)(in_powers - part);
        most = size <= most || most != most ? most : size;
    }
    found[threadIdx.x] = most;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            const float other = found[threadIdx.x + half];
            most = other <= most || most != most ? most : other;
            found[threadIdx.x] = most;
        }
    }
    if (threadIdx.x == 0) dearest[p] = most;
}

// What a warp knows of its row's sum.
struct Part {
    float shift, high, low;
};

// The tame rows' sums, and the columns' masses over blocks of rows, for rows of up to 4 TEAM CHUNKS columns.
//
// A team of threads has a row in its registers, ROWS of them at a time, so that what is common to these, prices,
// messages and the compensation of the columns' sums, is paid for once. Every thread has its own columns throughout.
// RESIDENT blocks for a multiprocessor are to have registers enough.
template <class T, int TEAM, int CHUNKS, int ROWS, int RESIDENT>
__global__ void __launch_bounds__(TEAM > THREADS ? TEAM : THREADS, RESIDENT)
    sweep(const T* scores, const float* largest, const float* high, const float* rest, const float* dearest, float c_high, float c_rest,
          Index rows, Index columns, Index padded, Index aligned, Index blocks, Index parts, double* shifts,
          double* sums, double* partial) {
    const Scale c = {c_high, c_rest};
    constexpr int SIZE = TEAM > THREADS ? TEAM : THREADS, TEAMS = SIZE / TEAM, SPAN = TEAM < WARP ? TEAM : WARP;
    constexpr int WARPS = TEAM / SPAN;  // of a team
    static_assert(WARPS * ROWS <= WARP && SPAN % ROWS == 0, "a lane for each part of a row's sum");
    const Index p = blockIdx.x / blocks, block = blockIdx.x % blocks;
    const int team = threadIdx.x / TEAM, member = threadIdx.x % TEAM, lane = threadIdx.x % SPAN;
    const int warp = member / SPAN;
    scores += p * rows * columns, largest += p * rows, shifts += p * rows, sums += p * rows;
    high += p * padded, rest += p * padded;
    const float dear = dearest[p];
    Pair mass[CHUNKS][4];
    __shared__ Part told[2][WARP];
    int slot = 0;

    for (Index start = block * TEAMS * ROWS; start < rows; start += blocks * TEAMS * ROWS) {
        const Index first = start + team * ROWS;
        float e[ROWS][CHUNKS][4], shift[ROWS], factor[ROWS];
        bool here[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            here[r] = first + r < rows && is_tame(largest[first + r], c, dear);
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const Index j = 4 * (k * TEAM + member);
                if (here[r] && j < columns) {
                    load(scores + (first + r) * columns, j, columns, aligned, e[r][k]);
                } else {
#pragma unroll
                    for (int i = 0; i < 4; i++) e[r][k][i] = -infinite();
                }
            }
        }
        // The largest power of a row that its warp has.
#pragma unroll
        for (int r = 0; r < ROWS; r++) shift[r] = NOTHING;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const Index j = 4 * (k * TEAM + member);
            if (j < columns) {
                const Four<float> q = *reinterpret_cast<const Four<float>*>(high + j);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) shift[r] = fmaxf(shift[r], about(e[r][k][i], c, q.at[i]));
                }
            }
        }
#pragma unroll
        for (int offset = SPAN / 2; offset > 0; offset /= 2) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) shift[r] = fmaxf(shift[r], __shfl_xor_sync(ALL, shift[r], offset));
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) shift[r] = rounded(shift[r]);
        // Its entries, and their sum.
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const Index j = 4 * (k * TEAM + member);
            if (j < columns) {
                const Four<float> q = *reinterpret_cast<const Four<float>*>(high + j);
                const Four<float> t = *reinterpret_cast<const Four<float>*>(rest + j);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) e[r][k][i] = entry(e[r][k][i], c, q.at[i], t.at[i], shift[r]);
                }
            } else {
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) e[r][k][i] = 0.0f;
                }
            }
        }
        Pair own[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) own[r].high = tree<4 * CHUNKS>(e[r][0]);
        Pair sum = added_up<SPAN / 2>(own, lane);
        float top = of_lane<SPAN / 2, ROWS>(shift, lane), scale = 1.0f;
        int each = SPAN / ROWS;  // lanes that know of the same row
        if constexpr (WARPS > 1) {
            // All warps' parts of a row's sum, by lanes next to each other in each of them.
            if (lane % each == 0) {
                told[slot][lane / each * WARPS + warp] = {top, sum.high, sum.low};
            }
            __syncthreads();
            const Part part = told[slot][lane % (WARPS * ROWS)];
            slot ^= 1;  // which is read above while the next is written, and written again only after the next barrier
            top = part.shift;
#pragma unroll
            for (int offset = WARPS / 2; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(ALL, top, offset));
            scale = shifted_by(part.shift - top);
            sum.high = part.high * scale;
            sum.low = part.low * scale;
#pragma unroll
            for (int offset = WARPS / 2; offset > 0; offset /= 2) sum = sum_of(sum, from_lane(sum, offset));
            each = WARPS;
        }
        scale *= 1.0f / sum.high;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float there = __shfl_sync(ALL, scale, r * each + warp, SPAN);
            factor[r] = here[r] ? there : 0.0f;  // without a row the sum is 0
        }
        const Index row = first + lane / each;
        if (warp == 0 && lane % each == 0 && lane < ROWS * each && row < rows && is_tame(largest[row], c, dear)) {
            shifts[row] = top;
            sums[row] = sum.value();
        }
        // The columns' share of these rows.
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float w[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++) w[r] = e[r][k][i] * factor[r];
                mass[k][i].add(tree<ROWS>(w));
            }
        }
    }

    partial += (p * parts + block) * columns;
    if constexpr (TEAMS == 1) {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Index j = 4 * (k * TEAM + member) + i;
                if (j < columns) partial[j] = mass[k][i].value();
            }
        }
    } else {
        // The teams of a block, one after another.
        __shared__ double total[4 * TEAM * CHUNKS];
        for (int turn = 0; turn < TEAMS; turn++) {
            if (team == turn) {
#pragma unroll
                for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int j = 4 * (k * TEAM + member) + i;
                        total[j] = (turn ? total[j] : 0.0) + mass[k][i].value();
                    }
                }
            }
            __syncthreads();
        }
        for (int j = threadIdx.x; j < columns; j += SIZE) partial[j] = total[j];
    }
}

// The sums of all rows, or with `wild` of those that are not tame; a warp for each, in two passes over it. WEIGHTED is
// W x, too.
template <class T, bool WEIGHTED>
__global__ void __launch_bounds__(THREADS)
    row_sums(const T* scores, const Real<T>* largest, const double* price, const float* high, const float* rest,
             const float* dearest, float c_high, float c_rest, double per_epsilon, Index problems, Index rows,
             Index columns, Index padded, Index aligned, Index wild, const double* x, double* shifts, double* sums,
             double* product) {
    const Scale c = {c_high, c_rest};
    for (Index i = first_row(); i < problems * rows; i += row_step()) {
        const Index p = i / rows;
        const Real<T> most = largest[i];
        const bool tame = is_tame(most, c, dearest[p]);
        if (wild && tame) continue;
        const T* row = scores + i * columns;
        double shift, sum, dot = 0.0;
        const double* weights = x + (WEIGHTED ? p * columns : 0);
        if (tame) {
            const float *of_high = high + p * padded, *of_rest = rest + p * padded;
            float top = NOTHING;
            along_row(row, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
                for (int i = 0; i < 4; i++) top = fmaxf(top, about((float)s[i], c, of_high[j + i]));
            });
            top = rounded(largest_of_warp(top));
            Pair total;
            along_row(row, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
                float e[4];
                for (int i = 0; i < 4; i++) {
                    e[i] = entry((float)s[i], c, of_high[j + i], of_rest[j + i], top);
                    if (WEIGHTED && j + i < columns) dot += e[i] * weights[j + i];
                }
                total.add(tree<4>(e));
            });
            shift = top, sum = sum_of_warp(total).value();
        } else {
            const double* of = price + p * padded;
            shift = -infinite(), sum = 0.0;
            along_row(row, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
                for (int i = 0; i < 4; i++) {
                    const double t = exponent(s[i], most, per_epsilon, of[j + i]);
                    shift = t > shift ? t : shift;
                }
            });
            shift = largest_of_warp(shift);
            along_row(row, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
                for (int i = 0; i < 4; i++) {
                    const double e = exp(exponent(s[i], most, per_epsilon, of[j + i]) - shift);
                    sum += e;
                    if (WEIGHTED && j + i < columns) dot += e * weights[j + i];
                }
            });
            sum = sum_of_warp(sum);
        }
        if (WEIGHTED) dot = sum_of_warp(dot);
        if (threadIdx.x % WARP == 0) {
            shifts[i] = shift;
            sums[i] = sum;
            if (WEIGHTED) product[i] = dot / sum;
        }
    }
}

// The rows' log-normalisers, their scores shifted so that the largest is 0, and their sums over blocks of rows. The rows'
// sums become weights, 1 / sum.
template <class T>
__global__ void __launch_bounds__(THREADS)
    normalizers(const Real<T>* largest, const float* dearest, float c_high, float c_rest, double per_epsilon,
                Index rows, Index blocks, const double* shifts, double* sums, double* lse, double* partial) {
    const Scale c = {c_high, c_rest};
    const Index p = blockIdx.x / blocks, block = blockIdx.x % blocks;
    __shared__ double found[THREADS];
    double total = 0.0;
    for (Index i = block * THREADS + threadIdx.x; i < rows; i += blocks * THREADS) {
        const Index row = p * rows + i;
        const bool tame = is_tame(largest[row], c, dearest[p]);
        const double shift = tame ? shifts[row] * LN2 - largest[row] * per_epsilon : shifts[row];
        lse[row] = shift + log(sums[row]);
        sums[row] = 1.0 / sums[row];
        total += lse[row];
    }
    found[threadIdx.x] = total;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) found[threadIdx.x] += found[threadIdx.x + half];
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = found[0];
}

// The columns' masses over blocks of rows that have their sums: of all rows, or with `wild` of those that are not tame.
// WEIGHTED is W^T y. A block is wide enough for the columns, up to all of its threads, four for each; the rest of them
// have other rows.
template <class T, bool WEIGHTED, class Sum>
__global__ void __launch_bounds__(THREADS, 2)
    column_sums(const T* scores, const Real<T>* largest, const double* price, const float* high, const float* rest,
                const float* dearest, const float* tallest, float c_high, float c_rest, double per_epsilon, Index rows, Index columns,
                Index padded, Index aligned, Index wild, Index tiles, Index blocks, Index offset, Index parts,
                const double* y, const double* shifts, const double* weights, double* partial) {
    const Scale c = {c_high, c_rest};
    const Index tile = blockIdx.x % tiles, block = blockIdx.x / tiles % blocks, p = blockIdx.x / tiles / blocks;
    if (wild && is_tame(tallest[p], c, dearest[p])) return;
    const Index j = 4 * (tile * blockDim.x + threadIdx.x);
    Sum mass[4];
    if (j < columns) {
        const Index at = p * padded + j;
        const Four<float> q = *reinterpret_cast<const Four<float>*>(high + at);
        const Four<float> t = *reinterpret_cast<const Four<float>*>(rest + at);
        for (Index i = block * blockDim.y + threadIdx.y; i < rows; i += blocks * blockDim.y) {
            const Index row = p * rows + i;
            const Real<T> most = largest[row];
            const bool tame = is_tame(most, c, dearest[p]);
            if (wild && tame) continue;
            Real<T> s[4];
            load(scores + row * columns, j, columns, aligned, s);
            const double shift = shifts[row], weight = WEIGHTED ? y[row] * weights[row] : weights[row];
            for (int k = 0; k < 4; k++) {
                if (tame) {
                    const float e = entry((float)s[k], c, q.at[k], t.at[k], (float)shift);
                    if (WEIGHTED) {
                        mass[k].add_double(e * weight);
                    } else {
                        mass[k].add(e * (float)weight);
                    }
                } else {
                    mass[k].add_double(exp(exponent(s[k], most, per_epsilon, price[at + k]) - shift) * weight);
                }
            }
        }
    }
    __shared__ double total[4 * THREADS];
    for (int turn = 0; turn < blockDim.y; turn++) {
        if (threadIdx.y == turn) {
            for (int k = 0; k < 4; k++) {
                double* there = total + 4 * threadIdx.x + k;
                *there = (turn ? *there : 0.0) + mass[k].value();
            }
        }
        __syncthreads();
    }
    if (threadIdx.y == 0) {
        for (int k = 0; k < 4; k++) {
            if (j + k < columns) partial[(p * parts + offset + block) * columns + j + k] = total[4 * threadIdx.x + k];
        }
    }
}

// The logarithms of the columns' masses from what blocks of rows have found, a block for 32 columns, and by one block
// more the sum of the rows' normalisers. The parts from `first` on, of rows that are not tame, are there only if a
// problem has such rows, or `first` is 0. A column is faint, and to be made anew, if what vanished of it may matter
// beside it and what is known of it from elsewhere.
__global__ void __launch_bounds__(THREADS)
    finish(const double* partial, const double* of_rows, const float* dearest, const float* tallest, float c_high,
           float c_rest, Index columns, Index tiles, Index first, Index parts, Index blocks, double faint_below,
           Index with_known, const double* known, double* log_columns, unsigned char* faint, double* log_normalizers) {
    constexpr int LANES = THREADS / WARP;
    const Scale c = {c_high, c_rest};
    const Index p = blockIdx.x / (tiles + 1), tile = blockIdx.x % (tiles + 1);
    const int lane = threadIdx.x % WARP, part = threadIdx.x / WARP;
    const Index j = tile * WARP + lane;
    __shared__ double some[LANES][WARP];
    double total = 0.0;
    if (tile == tiles) {
        for (Index i = threadIdx.x; i < blocks; i += THREADS) total += of_rows[p * blocks + i];
        total = sum_of_warp(total);
    } else if (j < columns) {
        const Index number = first == 0 || !is_tame(tallest[p], c, dearest[p]) ? parts : first;
        for (Index i = part; i < number; i += LANES) total += partial[(p * parts + i) * columns + j];
    }
    some[part][lane] = total;
    __syncthreads();
    if (part > 0) return;
    total = some[0][lane];
    for (int i = 1; i < LANES; i++) total += some[i][lane];
    if (tile == tiles) {
        if (lane == 0) log_normalizers[p] = total;
    } else if (j < columns) {
        log_columns[p * columns + j] = log(total);
        faint[p * columns + j] = total + (with_known ? exp(known[j]) : 0.0) < faint_below;
    }
}

// log sum_i exp(t_ij - lse_i) of natural exponents t, in double precision whatever the masses are, for columns that are
// asked for. A block for 32 columns and a slab of the rows, which has nothing to do if none of them is.
template <class T>
__global__ void __launch_bounds__(THREADS)
    exact_columns(const T* scores, const Real<T>* largest, const double* price, const double* lse, double per_epsilon,
                  Index rows, Index columns, Index padded, Index tiles, Index slabs, const unsigned char* asked,
                  double* logs) {
    constexpr int LANES = THREADS / WARP;
    const Index p = blockIdx.x / (tiles * slabs), slab = blockIdx.x / tiles % slabs;
    const Index j = blockIdx.x % tiles * WARP + threadIdx.x % WARP;
    const int part = threadIdx.x / WARP;
    const bool mine = j < columns && asked[p * columns + j];
    if (largest_of_warp((int)mine) == 0) return;  // alike in all warps of the block
    __shared__ double tops[LANES][WARP], sums[LANES][WARP];
    double top = -infinite(), sum = 0.0;
    if (mine) {
        for (Index i = slab * LANES + part; i < rows; i += LANES * slabs) {
            const Index row = p * rows + i;
            const double s = number(scores[row * columns + j]);
            const double t = exponent(s, largest[row], per_epsilon, price[p * padded + j]) - lse[row];
            if (t > top) {
                sum = sum * exp(top - t) + 1.0;
                top = t;
            } else if (t != -infinite()) {  // which exp() would make a NaN of where there is nothing above
                sum += exp(t - top);
            }
        }
    }
    tops[part][threadIdx.x % WARP] = top;
    sums[part][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (part > 0 || !mine) return;
    for (int i = 1; i < LANES; i++) top = tops[i][threadIdx.x] > top ? tops[i][threadIdx.x] : top;
    sum = 0.0;
    for (int i = 0; i < LANES; i++) {
        const double there = tops[i][threadIdx.x];
        sum += there == top ? sums[i][threadIdx.x] : sums[i][threadIdx.x] * exp(there - top);
    }
    logs[(p * slabs + slab) * columns + j] = top + log(sum);
}

// The logarithms of columns that were asked for, from those of the slabs of their rows.
__global__ void __launch_bounds__(THREADS)
    exact_sums(const double* logs, const unsigned char* asked, Index number, Index columns, Index slabs, double* found) {
    const Index i = blockIdx.x * (Index)THREADS + threadIdx.x;
    if (i >= number || !asked[i]) return;
    const double* of = logs + i / columns * slabs * columns + i % columns;
    double top = -infinite(), sum = 0.0;
    for (Index slab = 0; slab < slabs; slab++) top = of[slab * columns] > top ? of[slab * columns] : top;
    for (Index slab = 0; slab < slabs; slab++) sum += of[slab * columns] == top ? 1.0 : exp(of[slab * columns] - top);
    found[i] = top + log(sum);
}

// W(v), a warp for each row.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    plan(const T* scores, const Real<T>* largest, const double* price, const float* high, const float* rest,
         const float* dearest, float c_high, float c_rest, double per_epsilon, Index problems, Index rows, Index columns, Index padded,
         Index aligned, const double* shifts, const double* weights, Real<T>* found) {
    const Scale c = {c_high, c_rest};
    for (Index i = first_row(); i < problems * rows; i += row_step()) {
        const Index at = i / rows * padded;
        const Real<T> most = largest[i];
        const bool tame = is_tame(most, c, dearest[i / rows]);
        const double shift = shifts[i], weight = weights[i];
        const float single_shift = (float)shift, single_weight = (float)weight;
        Real<T>* there = found + i * columns;
        along_row(scores + i * columns, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
            Four<Real<T>> w;
            for (int k = 0; k < 4; k++) {
                if (tame) {
                    w.at[k] = entry((float)s[k], c, high[at + j + k], rest[at + j + k], single_shift) * single_weight;
                } else {
                    w.at[k] = exp(exponent(s[k], most, per_epsilon, price[at + j + k]) - shift) * weight;
                }
            }
            if (aligned) {
                *reinterpret_cast<Four<Real<T>>*>(there + j) = w;
            } else {
                for (int k = 0; k < 4; k++) {
                    if (j + k < columns) there[j + k] = w.at[k];
                }
            }
        });
    }
}

// The column of the largest s - v of every row, the first of equals. Shifted first, lest large scores swallow a price.
template <class T>
__global__ void __launch_bounds__(THREADS)
    labels(const T* scores, const Real<T>* largest, const double* potential, Index problems, Index rows, Index columns,
           Index aligned, Index* found) {
    for (Index i = first_row(); i < problems * rows; i += row_step()) {
        const double* v = potential + i / rows * columns;
        const double most = largest[i];
        double best = -infinite();
        Index label = 0;
        along_row(scores + i * columns, columns, aligned, [&](Index j, const Real<T>(&s)[4]) {
            for (int k = 0; k < 4; k++) {
                if (j + k < columns && s[k] - most - v[j + k] > best) {
                    best = s[k] - most - v[j + k];
                    label = j + k;
                }
            }
        });
        const double all = largest_of_warp(best);
        // Of equals the first: where it is the largest, minus the label is.
        label = -largest_of_warp(best == all && best != -infinite() ? -label : -columns);
        if (threadIdx.x % WARP == 0) found[i] = label < columns ? label : 0;
    }
}
