// The inner loops of the bank search, one implementation per instruction set, chosen at run time.
// What the arrays hold is documented in adcompile/anomaly/bank_layout.py.
#ifndef ADCOMPILE_BANK_KERNELS_HPP
#define ADCOMPILE_BANK_KERNELS_HPP

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __FAST_MATH__
#error "the exact search needs IEEE arithmetic: compile without -ffast-math and -Ofast"
#endif

namespace adc {

constexpr int kLanes = 16;         // rows of a panel, panels of a group, groups of a super group
constexpr int kHead = 16;          // axes in a panel
constexpr int kPanelTerms = 18;    // squared length, kHead coordinates, length of the rest
constexpr int kBoxTerms = 18;      // low and high of 8 coordinates and of the rest
constexpr int kBoxAxes = 8;
constexpr int kMaxAxes = 256;
constexpr int kProjectBlock = 64;  // columns summed in one chain by Kernels::project

struct BankView {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t stride = 0;  // columns padded to a multiple of 32
    std::int64_t panels = 0;
    std::int64_t groups = 0;
    std::int64_t supers = 0;
    int axis_panels = 0;  // blocks of 16 axes
    int tail = 0;         // numbers per row in `tails`
    float scale = 1;
    double longest = 0;   // of the centred, scaled rows
    double shadow_error = 0;
    const float* row_data = nullptr;
    const std::int32_t* order = nullptr;
    const float* centre = nullptr;
    const float* axes = nullptr;
    const float* panel_data = nullptr;
    const float* tail_data = nullptr;
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

struct Kernels {
    const char* name;
    int dense_queries;    // queries per call of `dense`
    int code_bytes;       // bytes per column that `quantise` writes

    // u = (x - centre) * scale, `columns` values, zeros up to stride. Gives the squared length
    // (32 running sums) and the largest absolute value. x may be unaligned.
    void (*centre)(const BankView&, const float* x, float* u, float* square, float* largest);

    // z[i * 16 * axis_panels + a] = axis a . u_i for n rows of u. Sums of kProjectBlock terms by
    // fused or separate multiply-add, then the sum of these.
    void (*project)(const BankView&, const float* u, int n, float* z);

    // out[16 * i + lane] = squared distance from the query's interval to each box.
    void (*boxes)(const float* box_panels, int count, const BoxQuery& query, float* out);

    // For every listed panel: bound = length² + sum of coefficient * coordinate (kHead + 1 of
    // them). Rows with bound <= limit are listed with their bound. `rows`, `bounds` have room for
    // 16 * count + 16. Returns how many.
    int (*scan)(const BankView&, const std::int32_t* panels, int count, const float* coefficients,
                float limit, std::int32_t* rows, float* bounds);

    // bounds[i] += coefficients . tail of rows[i]; keeps, in place, those <= limit.
    int (*tails)(const BankView&, std::int32_t* rows, float* bounds, int count,
                 const float* coefficients, float limit);

    // Squared distances of x (stride values, zero-padded) to the listed rows, in float32. The
    // order of operations is fixed and the same everywhere: 32 running sums, products rounded
    // before they are added, then lanes i and i + 16, i + 8, i + 4, i + 2, i + 1.
    void (*distances)(const BankView&, const float* x, const std::int32_t* rows, int count,
                      float* out);

    // int8 codes of u, for `dense`.
    Quantised (*quantise)(const BankView&, const float* u, float largest, void* codes);

    // out[i * 16 * panels + r] = shadow term 1 + factor[i] * step of the row * (codes_i . int8 row)
    // for `queries` <= dense_queries consecutive code rows.
    void (*dense)(const BankView&, const void* codes, const float* factors, int queries,
                  std::int64_t first_panel, int panels, float* out);

    // Rows of the panels with value + slope * error <= limit; `error` is shadow term 2.
    int (*collect)(const BankView&, const float* values, std::int64_t first_panel, int panels,
                   float slope, float limit, std::int32_t* rows, float* kept);

    // Smallest of values[lane], values[lane + 16], … for each of the 16 lanes.
    void (*lane_minima)(const float* values, int panels, float* out);
};

// Null when the machine cannot run it.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* neon_kernels();
const Kernels* neondot_kernels();

// Squared distance in double precision: 16 running sums in a fixed order, products rounded before
// they are added. Decides what float32 cannot.
double precise_distance(const float* x, const float* y, std::int64_t stride);

}  // namespace adc

#endif
