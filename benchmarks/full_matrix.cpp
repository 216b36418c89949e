// What the R0 application does, for comparison: all Euclidean distances into a queries x rows
// matrix, every row of it sorted completely, the first k kept. OpenMP over queries, as there.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

extern "C" void full_matrix(const float* queries, int64_t count, const float* bank, int64_t rows,
                            int64_t columns, int k, float* distances, int64_t* indices) {
    std::vector<float> matrix(static_cast<std::size_t>(count * rows));
#pragma omp parallel for
    for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < rows; ++j) {
            float sum = 0;
            for (int64_t c = 0; c < columns; ++c) {
                const float d = queries[i * columns + c] - bank[j * columns + c];
                sum += d * d;
            }
            matrix[static_cast<std::size_t>(i * rows + j)] = std::sqrt(sum);
        }
#pragma omp parallel for
    for (int64_t i = 0; i < count; ++i) {
        const float* line = &matrix[static_cast<std::size_t>(i * rows)];
        std::vector<int64_t> order(static_cast<std::size_t>(rows));
        for (int64_t j = 0; j < rows; ++j) order[static_cast<std::size_t>(j)] = j;
        std::sort(order.begin(), order.end(), [line](int64_t a, int64_t b) { return line[a] < line[b]; });
        for (int n = 0; n < k; ++n) {
            indices[i * k + n] = order[static_cast<std::size_t>(n)];
            distances[i * k + n] = line[order[static_cast<std::size_t>(n)]];
        }
    }
}
