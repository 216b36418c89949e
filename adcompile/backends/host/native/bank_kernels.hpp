// The inner loops of the bank search, one implementation per instruction set, chosen at run time.
// What the arrays hold is documented in adcompile/anomaly/bank_layout.py.
#ifndef ADCOMPILE_BANK_KERNELS_HPP
#define ADCOMPILE_BANK_KERNELS_HPP

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __FAST_MATH__
#error "the exact search needs IEEE arithmetic: compile without -ffast-math and -Ofast"
#endif

namespace adc::search {

constexpr int kLanes = 16;         // rows of a panel, panels of a group, groups of a super group
constexpr int kHead = 16;          // axes in a panel
constexpr int kPanelTerms = 18;    // squared length, kHead coordinates, length of the rest
constexpr int kBoxTerms = 18;      // low and high of 8 coordinates and of the rest
constexpr int kBoxAxes = 8;
constexpr int kTailTerms = 4;      // step, length of the rest, error, length of the last rest
constexpr int kCentreTerms = 32;   // kHead + 1 coefficients, an offset, padding
constexpr int kMaxAxes = 256;
constexpr int kProjectBlock = 64;  // columns summed in one chain by Kernels::project

// 0, 1, … n - 1 as template arguments.
template <int... n>
struct Pack {
    static constexpr int size() { return sizeof...(n); }
};
template <int n, int... rest>
struct CountDown : CountDown<n - 1, n - 1, rest...> {};
template <int... rest>
struct CountDown<0, rest...> {
    using type = Pack<rest...>;
};
template <int n>
using Count = typename CountDown<n>::type;

struct BankView {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t stride = 0;  // columns padded to a multiple of 32
    std::int64_t panels = 0;
    std::int64_t groups = 0;
    std::int64_t supers = 0;
    int axis_panels = 0;  // blocks of 16 axes
    int tail = 0;         // axes kept as int8
    float scale = 1;
    double longest = 0;   // of the centred, scaled rows
    double shadow_error = 0;
    const float* row_data = nullptr;
    const std::int32_t* order = nullptr;
    const float* centre = nullptr;
    const float* axes = nullptr;
    const float* panel_data = nullptr;
    const std::int8_t* tails = nullptr;
    const float* tail_terms = nullptr;
    const std::int32_t* tail_sums = nullptr;
    const float* group_boxes = nullptr;
    const float* super_boxes = nullptr;
    const std::int8_t* shadow = nullptr;
    const float* shadow_terms = nullptr;
    const std::int32_t* shadow_sums = nullptr;

    const float* row(std::int64_t i) const { return row_data + i * stride; }
};

// A query's position along the box coordinates, as an interval.
struct BoxQuery {
    float low[kBoxAxes + 1];
    float high[kBoxAxes + 1];
};

struct Quantised {
    float step = 0;    // u is about step times the codes
    double square = 0; // squared length of step times the codes
    float error = 0;   // computed length of the difference
};

// bound += rest * length of the rest + step * row step * (codes . int8 row) + error * row error
//          + last * length of the last rest
struct TailQuery {
    float rest, step, error, last;
    const void* codes;
};

struct Kernels {
    const char* name;
    int dense_queries;    // queries per call of `dense`
    float dense_cost;     // relative time of one row panel and four columns in `dense`
    int code_bytes;       // bytes per column that `quantise` writes

    // u = (x - centre) * scale, `columns` values, zeros up to stride. Gives the squared length
    // (32 running sums) and the largest absolute value. x may be unaligned.
    void (*centre)(const BankView&, const float* x, float* u, float* square, float* largest);

    // z[i * 16 * axis_panels + a] = axis a . u_i for n rows of u. Sums of kProjectBlock terms by
    // fused or separate multiply-add, then the sum of these.
    void (*project)(const BankView&, const float* u, int n, float* z);

    // out[16 * i + lane] = squared distance from the query's interval to each box.
    void (*boxes)(const float* box_panels, int count, const BoxQuery& query, float* out);

    // For every listed panel: 16 bounds = length² + sum of coefficient * coordinate (kHead + 1 of
    // them). Panels with a bound <= limit are kept, in place, with their 16 bounds. Returns how many.
    int (*scan)(const BankView&, std::int32_t* panels, int count, const float* coefficients,
                float limit, float* bounds);

    // For every listed panel: bounds + tail terms; see TailQuery. Rows whose bound was <=
    // head_limit and is <= limit are listed. Room for 16 * count + 16. Returns how many.
    int (*tails)(const BankView&, const std::int32_t* panels, const float* bounds, int count,
                 const TailQuery& query, float head_limit, float limit, std::int32_t* rows,
                 float* row_bounds);

    // Squared distances of x (stride values, zero-padded) to the listed rows, in float32. The
    // order of operations is fixed and the same everywhere: 32 running sums, products rounded
    // before they are added, then lanes i and i + 16, i + 8, i + 4, i + 2, i + 1.
    void (*distances)(const BankView&, const float* x, const std::int32_t* rows, int count,
                      float* out);

    // The same in double precision: 16 running sums in a fixed order, products rounded before they
    // are added. Decides what float32 cannot.
    void (*precise)(const float* x, const float* const* rows, int count, std::int64_t stride,
                    double* out);

    // int8 codes of `count` values (a multiple of 16), for `dense` and `tails`. `largest` is their
    // largest absolute value, or negative when not known.
    Quantised (*quantise)(const float* values, std::int64_t count, float largest, void* codes);

    // The same as plain signed bytes, which is how rows are stored.
    Quantised (*quantise_row)(const float* values, std::int64_t count, float largest,
                              std::int8_t* codes);

    // out[i * 16 * panels + r] = shadow term 1 + factor[i] * step of the row * (codes_i . int8 row)
    // for `queries` <= dense_queries consecutive code rows.
    void (*dense)(const BankView&, const void* codes, const float* factors, int queries,
                  std::int64_t first_panel, int panels, float* out);

    // Rows of the panels with value > seen and value + slope * error <= limit; `error` is shadow
    // term 2. Room as for tails.
    int (*collect)(const BankView&, const float* values, std::int64_t first_panel, int panels,
                   float seen, float slope, float limit, std::int32_t* rows);

    // A number that at least k <= 16 of the 16 · panels values do not exceed, close to the k-th
    // smallest: the k-th smallest of the lanes' minima.
    float (*roughly_kth)(const float* values, int panels, int k);

    // The rows of the listed panels whose bound is <= limit, Room as for tails.
    int (*pick)(const std::int32_t* panels, const float* bounds, int count, float limit,
                std::int32_t* rows);

    // For the coreset. For each listed centre c (kCentreTerms numbers at centres[c]: as `scan`'s
    // coefficients, then what is taken from the limits): which rows of a panel have bound <= limit.
    // Centres with such rows are kept, in place, with their masks. Returns how many.
    int (*scan_centres)(const float* panel, const float* limits, const float* centres,
                        std::int32_t* listed, int count, std::uint16_t* masks);

    // masks[i] keeps the rows with values[16 * i + row] <= (reach[row] + errors[i])² + offsets[i].
    void (*reachable)(const float* values, int count, const float* reach, const float* errors,
                      const float* offsets, std::uint16_t* masks);
};

// Null when the machine cannot run it.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* neon_kernels();
const Kernels* neondot_kernels();

}  // namespace adc::search

#endif
