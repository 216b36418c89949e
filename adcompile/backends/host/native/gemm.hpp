// Matrix products: one blocked kernel that works on any strides and on convolution windows.
#pragma once

#include <cmath>

#include "move.hpp"

namespace adc::op {

namespace detail {

/// a * b + c, fused where the processor does that; integers wrap.
template <class F>
inline F multiply_add(F a, F b, F c) {
  if constexpr (std::is_integral_v<F>) {
    return math::add(math::mul(a, b), c);
  } else {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
  }
}

/// Rows of a tile: as many as the compiler keeps in registers beside a row of the panel.
#if defined(__clang__) && defined(__AVX__)
inline constexpr Index kTileRows = 6;
#elif defined(__AVX__) || defined(__aarch64__)
inline constexpr Index kTileRows = 4;
#else
inline constexpr Index kTileRows = 2;
#endif
inline constexpr Index kTileCols = 16;
inline constexpr Index kDepth = 256;

/// A matrix by strides.
template <class T>
struct Matrix {
  const T* data;
  Index row;  // step between rows
  Index col;  // step between columns
  const T& at(Index i, Index j) const { return data[i * row + j * col]; }
};

/// y += s * x for the columns of a tile.
template <class F>
inline void add_scaled_row(F s, const F* x, F* y) {
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  if constexpr (std::is_floating_point_v<F>) {
    // Written as vectors of 16 bytes: GCC does not find them by itself without AVX.
    typedef F Part __attribute__((vector_size(16)));  // NOLINT: in a using, GCC ignores the size
    constexpr Index kPart = 16 / sizeof(F);
    for (Index j = 0; j < kTileCols; j += kPart) {
      Part from;
      Part to;
      std::memcpy(&from, x + j, sizeof(Part));
      std::memcpy(&to, y + j, sizeof(Part));
      to += s * from;
      std::memcpy(y + j, &to, sizeof(Part));
    }
    return;
  }
#endif
  for (Index j = 0; j < kTileCols; ++j) y[j] = multiply_add(s, x[j], y[j]);
}

/// One tile: rows of A (`Rows` of them) times a packed panel of B, added to C.
template <int Rows, class F, class T>
inline void tile(const Matrix<T>& a, Index i, Index k0, Index k1, const F* panel, F* c,
                 Index c_row, Index width, bool first) {
  F acc[Rows][kTileCols];
  for (int r = 0; r < Rows; ++r) {
    for (Index j = 0; j < kTileCols; ++j) acc[r][j] = F{};
  }
  for (Index k = k0; k < k1; ++k, panel += kTileCols) {
// Unrolled, so that the sums stay in registers.
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      add_scaled_row(static_cast<F>(a.at(i + r, k)), panel, acc[r]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    F* row = c + (i + r) * c_row;
    for (Index j = 0; j < width; ++j) {
      row[j] = first ? acc[r][j] : math::add(row[j], acc[r][j]);
    }
  }
}

/// C[m, n] = A[m, depth] · B, where pack(k0, k1, j0, width, to) writes rows k0…k1 of columns
/// j0…j0+width of B as rows of kTileCols numbers (the rest zero). C has row stride c_row.
template <class F, class T, class Pack>
void gemm(Index m, Index n, Index depth, const Matrix<T>& a, Pack pack, F* c, Index c_row) {
  const Index panels = (n + kTileCols - 1) / kTileCols;
  const Index grain = 1 + (1 << 16) / (m * depth + 1);
  parallel_for(panels, grain, [&](Index from, Index to) {
    alignas(kAlignment) F panel[kDepth * kTileCols];
    for (Index p = from; p < to; ++p) {
      const Index j0 = p * kTileCols;
      const Index width = std::min(kTileCols, n - j0);
      for (Index k0 = 0; k0 < depth || k0 == 0; k0 += kDepth) {
        const Index k1 = std::min(depth, k0 + kDepth);
        pack(k0, k1, j0, width, panel);
        Index i = 0;
        for (; i + kTileRows <= m; i += kTileRows) {
          tile<kTileRows>(a, i, k0, k1, panel, c + j0, c_row, width, k0 == 0);
        }
        if (kTileRows > 4 && i + 4 <= m) {
          tile<4>(a, i, k0, k1, panel, c + j0, c_row, width, k0 == 0);
          i += 4;
        }
        if (i + 2 <= m) {
          tile<2>(a, i, k0, k1, panel, c + j0, c_row, width, k0 == 0);
          i += 2;
        }
        if (i < m) tile<1>(a, i, k0, k1, panel, c + j0, c_row, width, k0 == 0);
      }
    }
  });
}

/// Packs columns of a strided matrix.
template <class F, class T>
struct PackMatrix {
  Matrix<T> b;
  void operator()(Index k0, Index k1, Index j0, Index width, F* to) const {
    for (Index k = k0; k < k1; ++k, to += kTileCols) {
      const T* row = b.data + k * b.row + j0 * b.col;
      if (b.col == 1 && width == kTileCols) {
        for (Index j = 0; j < kTileCols; ++j) to[j] = static_cast<F>(row[j]);
        continue;
      }
      for (Index j = 0; j < width; ++j) to[j] = static_cast<F>(row[j * b.col]);
      for (Index j = width; j < kTileCols; ++j) to[j] = F{};
    }
  }
};

/// C = A · B in the type of the tensors, through float for the 16-bit ones.
template <class T>
void multiply(Scratch& scratch, Index m, Index n, Index depth, const Matrix<T>& a,
              const Matrix<T>& b, T* c) {
  using F = Compute<T>;
  const PackMatrix<F, T> pack{b};
  if constexpr (std::is_same_v<F, T>) {
    gemm<F>(m, n, depth, a, pack, c, n);
  } else {
    F* wide = scratch.take<F>(5, m * n);
    gemm<F>(m, n, depth, a, pack, wide, n);
    for (Index i = 0; i < m * n; ++i) c[i] = T(wide[i]);
  }
}

}  // namespace detail

/// numpy.matmul: matrices in the last two dimensions, the others broadcast.
template <class T>
View<T> matmul(Out<T> out, Scratch& scratch, View<T> a, View<T> b) {
  require(a.rank() > 0 && b.rank() > 0, "MatMul: a scalar");
  const bool row = a.rank() == 1;
  const bool column = b.rank() == 1;
  const Index m = row ? 1 : a.dim(a.rank() - 2);
  const Index depth = a.dim(a.rank() - 1);
  const Index n = column ? 1 : b.dim(b.rank() - 1);
  require((column ? b.dim(0) : b.dim(b.rank() - 2)) == depth, "MatMul: inner sizes differ");
  Shape a_batch;
  Shape b_batch;
  for (int i = 0; i < a.rank() - 2; ++i) a_batch.push_back(a.dim(i));
  for (int i = 0; i < b.rank() - 2; ++i) b_batch.push_back(b.dim(i));
  const Shape batch = broadcast(a_batch, b_batch);
  Shape shape = batch;
  if (!row) shape.push_back(m);
  if (!column) shape.push_back(n);
  T* y = out.make(shape);
  const Index planes = batch.size();
  if (planes > 0 && b_batch.size() == 1) {
    // One right-hand side for all: the batch is just more rows.
    detail::multiply(scratch, planes * m, n, depth, detail::Matrix<T>{a.data(), depth, 1},
                     detail::Matrix<T>{b.data(), n, 1}, y);
    return {y, shape};
  }
  const auto offset = [&batch](const Shape& own, Index p, Index plane) {
    Index at = 0;
    Index step = plane;
    for (int i = 1; i <= batch.rank(); ++i) {
      const Index d = batch[batch.rank() - i];
      const Index mine = i <= own.rank() ? own[own.rank() - i] : 1;
      if (mine != 1) at += (p % d) * step;
      step *= mine;
      p /= d;
    }
    return at;
  };
  for (Index p = 0; p < planes; ++p) {
    const T* pa = a.data() + offset(a_batch, p, m * depth);
    const T* pb = b.data() + offset(b_batch, p, depth * n);
    detail::multiply(scratch, m, n, depth, detail::Matrix<T>{pa, depth, 1},
                     detail::Matrix<T>{pb, n, 1}, y + p * m * n);
  }
  return {y, shape};
}

/// alpha · A' · B' + beta · C, with C broadcast (or absent).
template <class T>
View<T> gemm(Out<T> out, Scratch& scratch, View<T> a, View<T> b, const View<T>* c, float alpha,
             float beta, bool transpose_a, bool transpose_b) {
  require(a.rank() == 2 && b.rank() == 2, "Gemm: not matrices");
  const Index m = a.dim(transpose_a ? 1 : 0);
  const Index depth = a.dim(transpose_a ? 0 : 1);
  const Index n = b.dim(transpose_b ? 0 : 1);
  require(b.dim(transpose_b ? 1 : 0) == depth, "Gemm: inner sizes differ");
  const Shape shape{m, n};
  T* y = out.make(shape);
  detail::Matrix<T> ma{a.data(), a.dim(1), 1};
  detail::Matrix<T> mb{b.data(), b.dim(1), 1};
  if (transpose_a) std::swap(ma.row, ma.col);
  if (transpose_b) std::swap(mb.row, mb.col);
  detail::multiply(scratch, m, n, depth, ma, mb, y);
  if (c == nullptr && alpha == 1.0f) return {y, shape};
  Index c_row = 0;
  Index c_col = 0;
  if (c != nullptr) {
    require(broadcast(c->shape(), shape) == shape, "Gemm: C does not broadcast");
    const int rank = c->rank();
    c_col = rank > 0 && c->dim(rank - 1) != 1 ? 1 : 0;
    c_row = rank > 1 && c->dim(0) != 1 ? c->dim(1) : 0;
  }
  // Whole factors of whole numbers stay whole; a fraction needs real ones in between.
  const bool fraction = alpha != std::floor(alpha) || beta != std::floor(beta);
  const auto finish = [&](auto zero) {
    using F = decltype(zero);
    const F fa = static_cast<F>(alpha);
    const F fb = static_cast<F>(beta);
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        F value = static_cast<F>(y[i * n + j]) * fa;
        if (c != nullptr) value += static_cast<F>((*c)[i * c_row + j * c_col]) * fb;
        y[i * n + j] = static_cast<T>(value);
      }
    }
  };
  if (std::is_integral_v<T> && fraction) {
    finish(double{});
  } else {
    finish(Compute<T>{});
  }
  return {y, shape};
}

}  // namespace adc::op
