// One step of subspace iteration from some of the points themselves (Halko, Martinsson and Tropp,
// Finding structure with randomness, 2011), made orthonormal by a Cholesky factor. What int8 leaves
// of orthonormality does not matter: with G = A'A the largest eigenvalue of G is at most 1 + |G - I|,
// and |E|^4 = |E²|² is at most the sum of the squares of E²'s elements for a symmetric E.
#include "coreset_axes.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

namespace adc::search {
namespace {

// [rows][columns], row after row.
struct Matrix {
    Matrix(std::int64_t r, std::int64_t c) : rows(r), columns(c), data(static_cast<std::size_t>(r * c)) {}
    double* operator[](std::int64_t i) { return &data[static_cast<std::size_t>(i * columns)]; }
    const double* operator[](std::int64_t i) const { return &data[static_cast<std::size_t>(i * columns)]; }

    std::int64_t rows, columns;
    std::vector<double> data;
};

// y += factor * x from element `first` on: a loop that compilers vectorise as it is.
void add(double* y, const double* x, double factor, std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < count; ++i) y[i] += factor * x[i];
}

Matrix gram(const Matrix& b) {
    Matrix g(b.columns, b.columns);
    for (std::int64_t j = 0; j < b.rows; ++j)
        for (std::int64_t a = 0; a < b.columns; ++a) add(g[a], b[j], b[j][a], a, b.columns);
    for (std::int64_t a = 0; a < b.columns; ++a)
        for (std::int64_t c = 0; c < a; ++c) g[a][c] = g[c][a];
    return g;
}

// Turns a Gram matrix into its upper Cholesky factor. A column that depends on those before it
// counts as not there: its row becomes zero.
void factorise(Matrix& g) {
    for (std::int64_t a = 0; a < g.rows; ++a) {
        const double before = g[a][a];
        double left = before;
        for (std::int64_t c = 0; c < a; ++c) left -= g[c][a] * g[c][a];
        const bool real = left > 1e-9 * before && left > 1e-60;
        for (std::int64_t c = 0; c < a; ++c)
            if (real) add(g[a], g[c], -g[c][a], a, g.columns);
        const double inverse = real ? 1 / std::sqrt(left) : 0;
        for (std::int64_t i = a; i < g.columns; ++i) g[a][i] *= inverse;
    }
}

// b times the inverse of the factor, in place; columns that are not there become zero.
void orthonormalise(Matrix& b, Team& team) {
    Matrix r = gram(b);
    factorise(r);
    team.run(b.rows, 96, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t j = first; j < last; ++j) {
            for (std::int64_t a = 0; a < b.columns; ++a) {
                b[j][a] = r[a][a] > 0 ? b[j][a] / r[a][a] : 0;
                add(b[j], r[a], -b[j][a], a + 1, b.columns);
            }
        }
    });
}

// The sample's covariance times `axes` of its points, evenly spaced.
Matrix leading_space(const BankView& view, const float* u, std::int64_t count, int axes, const Kernels& kernels, Team& team) {
    Matrix b(view.stride, axes);
    const auto places = static_cast<std::size_t>(axes * view.stride);
    std::vector<float> start(places), sum(places), z(static_cast<std::size_t>(axes * count));
    team.run(axes / kLanes, 1, [&](int, std::int64_t panel, std::int64_t) {
        float* axis = &start[static_cast<std::size_t>(panel * kLanes * view.stride)];
        float* along = &z[static_cast<std::size_t>(panel * kLanes * count)];
        float* out = &sum[static_cast<std::size_t>(panel * kLanes * view.stride)];
        for (std::int64_t lane = 0; lane < kLanes; ++lane) {
            const float* from = u + (panel * kLanes + lane) * count / axes * view.stride;
            for (std::int64_t j = 0; j < view.stride; ++j) axis[kLanes * j + lane] = from[j];
        }
        BankView one = view;
        one.axes = axis;
        one.axis_panels = 1;
        kernels.project(one, u, static_cast<int>(count), along);
        kernels.spread(one, u, along, static_cast<int>(count), out);
        for (std::int64_t j = 0; j < view.stride; ++j)
            for (std::int64_t lane = 0; lane < kLanes; ++lane)
                b[j][panel * kLanes + lane] = static_cast<double>(out[kLanes * j + lane]);
    });
    return b;
}

// Multiplies by an orthogonal matrix (Hadamard's, in blocks as large as can be): what the columns
// weigh becomes alike, so that one step suits all coordinates of a point.
void mix(Matrix& b) {
    for (std::int64_t j = 0; j < b.rows; ++j)
        for (std::int64_t half = 1; b.columns % (2 * half) == 0; half *= 2)
            for (std::int64_t a = 0; a < b.columns; ++a) {
                if ((a & half) != 0) continue;
                const double x = b[j][a], y = b[j][a + half];
                b[j][a] = (x + y) * std::sqrt(0.5);
                b[j][a + half] = (x - y) * std::sqrt(0.5);
            }
}

Matrix halved(const Matrix& b, const std::uint8_t* order) {
    Matrix out(b.rows, b.columns);
    for (std::int64_t j = 0; j < b.rows; ++j) {
        const std::int64_t from = j / 32 * 32 + order[j];
        const std::int64_t to = j / 32 * 16 + j % 16 + (j % 32 < 16 ? 0 : b.rows / 2);
        std::copy_n(b[from], b.columns, out[to]);
    }
    return out;
}

// Rounds each column to int8 codes times a step; leaves the rounded matrix in b.
void round_columns(Matrix& b, std::int8_t* codes, float* terms, std::int64_t code_stride) {
    for (std::int64_t a = 0; a < b.columns; ++a) {
        double largest = 0;
        for (std::int64_t j = 0; j < b.rows; ++j) largest = std::max(largest, std::fabs(b[j][a]));
        const float step = largest > 0 ? static_cast<float>(largest / 127) : 1.0f;
        const std::int64_t lane = a % kLanes;
        std::int8_t* panel = codes + a / kLanes * kLanes * code_stride;
        terms[a / kLanes * 3 * kLanes + lane] = step;
        for (std::int64_t j = 0; j < b.rows; ++j) {
            const double code = std::min(127.0, std::max(-127.0, std::nearbyint(b[j][a] / static_cast<double>(step))));
            panel[j / 4 * 4 * kLanes + 4 * lane + j % 4] = static_cast<std::int8_t>(code);
            b[j][a] = static_cast<double>(step) * code;
        }
    }
}

// Not below the largest eigenvalue of b'b.
double largest_eigenvalue(const Matrix& b) {
    Matrix e = gram(b);
    for (std::int64_t a = 0; a < e.rows; ++a)
        if (e[a][a] > 0) e[a][a] -= 1;
    const Matrix square = gram(e);
    double sum = 0;
    for (const double value : square.data) sum += value * value;
    return 1 + std::sqrt(std::sqrt(sum)) + 1e-9;
}

}  // namespace

void choose_axes(const BankView& view, const float* u, std::int64_t count, const std::uint8_t* order, const Kernels& kernels,
                 Team& team, CoresetAxes& out) {
    out.count = static_cast<int>(std::min<std::int64_t>(kCoresetAxes, (view.columns + kLanes - 1) / kLanes * kLanes));
    const std::int64_t codes = out.count * view.code_stride;
    if (!out.memory.allocate(static_cast<std::size_t>(codes) + static_cast<std::size_t>(3 * out.count) * sizeof(float)))
        throw std::bad_alloc();
    auto* terms = reinterpret_cast<float*>(out.memory.data() + codes);
    Matrix b = leading_space(view, u, count, out.count, kernels, team);
    orthonormalise(b, team);
    mix(b);
    b = halved(b, order);
    round_columns(b, out.memory.as<std::int8_t>(), terms, view.code_stride);
    out.shrink = static_cast<float>((1 - 2e-7) / std::sqrt(largest_eigenvalue(b)));
    out.shadow.columns = view.code_stride;
    out.shadow.codes = out.memory.as<std::int8_t>();
    out.shadow.terms = terms;
}

}  // namespace adc::search
