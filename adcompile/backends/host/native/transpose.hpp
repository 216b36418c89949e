// Permuted dimensions: matrices are turned in small square blocks that stay in registers.
#pragma once

#include "join.hpp"

namespace adc::op {

namespace detail {

/// Four elements of four bytes, of whatever type: a vector of every machine.
using Quad = std::uint32_t __attribute__((vector_size(16)));

inline Quad load_quad(const void* from) {
  Quad quad;
  std::memcpy(&quad, from, sizeof quad);
  return quad;
}

// GCC before 12 has its own name for the same thing.
#if defined(__clang__) || __GNUC__ >= 12
#define ADC_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define ADC_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, adc::op::detail::Quad{i, j, k, l})
#endif

/// A block of 4 x 4: column j of the result is read at from + j * gap.
template <class T>
inline void turn_block(const T* from, Index gap, T* to, Index pitch) {
  static_assert(sizeof(T) == 4);
  const Quad a = load_quad(from);
  const Quad b = load_quad(from + gap);
  const Quad c = load_quad(from + 2 * gap);
  const Quad d = load_quad(from + 3 * gap);
  const Quad ab = ADC_SHUFFLE(a, b, 0, 4, 1, 5);  // a0 b0 a1 b1
  const Quad cd = ADC_SHUFFLE(c, d, 0, 4, 1, 5);
  const Quad ab_high = ADC_SHUFFLE(a, b, 2, 6, 3, 7);
  const Quad cd_high = ADC_SHUFFLE(c, d, 2, 6, 3, 7);
  const std::array<Quad, 4> rows{
      ADC_SHUFFLE(ab, cd, 0, 1, 4, 5), ADC_SHUFFLE(ab, cd, 2, 3, 6, 7),
      ADC_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5), ADC_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7)};
  for (Index i = 0; i < 4; ++i) {
    std::memcpy(to + i * pitch, &rows[static_cast<std::size_t>(i)], sizeof(Quad));
  }
}

#undef ADC_SHUFFLE

/// to[i * pitch + j] = from[i + j * gap] for i in [first, last) and all columns j.
template <class T>
void turn_rows(const T* from, Index gap, Index first, Index last, Index cols, T* to, Index pitch) {
  constexpr Index kTile = 16;  // rows of a tile: what one line of the cache holds of 4-byte elements
  for (Index r = first; r < last; r += kTile) {
    const Index r_end = std::min(last, r + kTile);
    Index c = 0;
    if constexpr (sizeof(T) == 4) {
      const Index whole = r + (r_end - r) / 4 * 4;
      for (; c + 4 <= cols; c += 4) {
        for (Index i = r; i < whole; i += 4) {
          turn_block(from + i + c * gap, gap, to + i * pitch + c, pitch);
        }
        for (Index i = whole; i < r_end; ++i) {
          for (Index j = c; j < c + 4; ++j) to[i * pitch + j] = from[i + j * gap];
        }
      }
    }
    for (; c < cols; c += kTile) {
      const Index c_end = std::min(cols, c + kTile);
      for (Index i = r; i < r_end; ++i) {
        for (Index j = c; j < c_end; ++j) to[i * pitch + j] = from[i + j * gap];
      }
    }
  }
}

/// A permutation with the dimensions merged that stay neighbours.
struct Permuted {
  Shape box;
  Axes step{};

  /// The last dimension of the result is strided in x and the one before it is dense there.
  [[nodiscard]] bool turns() const {
    return box.rank() >= 2 && step[static_cast<std::size_t>(box.rank() - 2)] == 1;
  }
};

inline Permuted merge_permutation(const Shape& x, const Shape& perm) {
  const Axes from = strides_of(x);
  Permuted p;
  for (int i = 0; i < perm.rank(); ++i) {
    const Index stride = from[static_cast<std::size_t>(perm[i])];
    const Index n = x[static_cast<int>(perm[i])];
    if (n == 1) continue;
    const auto last = static_cast<std::size_t>(p.box.rank() > 0 ? p.box.rank() - 1 : 0);
    if (p.box.rank() > 0 && p.step[last] == stride * n) {
      p.box[p.box.rank() - 1] *= n;
      p.step[last] = stride;
    } else {
      p.step[static_cast<std::size_t>(p.box.rank())] = stride;
      p.box.push_back(n);
    }
  }
  return p;
}

/// Turns all matrices of a permutation; their rows lie `pitch` apart in y, without gaps otherwise.
template <class T>
void turn_all(const T* x, const Permuted& p, T* y, Index pitch) {
  const int rank = p.box.rank();
  const Index rows = p.box[rank - 2];
  const Index cols = p.box[rank - 1];
  const Index gap = p.step[static_cast<std::size_t>(rank - 1)];
  const Index lines = p.box.product(0, rank - 1);
  parallel_for(lines, 1 + kCopyGrain / (cols + 1), [&](Index first, Index last) {
    while (first < last) {
      const Index plane = first / rows;
      const Index end = std::min(last, (plane + 1) * rows);
      const T* at = x;
      Index rest = plane;
      for (int d = rank - 3; d >= 0; --d) {
        at += (rest % p.box[d]) * p.step[static_cast<std::size_t>(d)];
        rest /= p.box[d];
      }
      turn_rows(at, gap, first - plane * rows, end - plane * rows, cols, y + plane * rows * pitch,
                pitch);
      first = end;
    }
  });
}

/// One by one, for permutations in which no matrix is turned.
template <class T>
void permute_each(const T* x, const Permuted& p, const Rows<T>& y) {
  Axes index{};
  const Index size = p.box.size();
  for (Index i = 0; i < size; ++i) {
    *y.at(i) = *x;
    for (int d = p.box.rank() - 1; d >= 0; --d) {
      const auto u = static_cast<std::size_t>(d);
      x += p.step[u];
      if (++index[u] < p.box[d]) break;
      x -= p.step[u] * p.box[d];
      index[u] = 0;
    }
  }
}

template <class T>
void permute(const T* x, const Permuted& p, const Rows<T>& y) {
  const int rank = p.box.rank();
  const bool fits = y.dense() || (rank > 0 && y.run() == p.box[rank - 1]);
  if (p.turns() && fits) return turn_all(x, p, y.at(0), y.dense() ? p.box[rank - 1] : y.pitch());
  if (y.dense()) return copy_box(x, p.step, p.box, y.at(0));
  permute_each(x, p, y);
}

}  // namespace detail

/// A permuted tensor that is only made where it is written to: a piece of a join.
template <class T>
class Transposed {
 public:
  Transposed(View<T> x, const Shape& perm) : x_(x), shape_(x.shape()) {
    require(perm.rank() == x.rank(), "Transpose: wrong number of axes");
    Shape order = perm;
    for (int i = 0; i < perm.rank(); ++i) {
      order[i] = wrap_axis(perm[i], x.rank());
      shape_[i] = x.dim(static_cast<int>(order[i]));
    }
    merged_ = detail::merge_permutation(x.shape(), order);
  }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  void write(const Rows<T>& y) const {
    if (shape_.size() > 0) detail::permute(x_.data(), merged_, y);
  }

 private:
  View<T> x_;
  Shape shape_;
  detail::Permuted merged_;
};

/// Permutes dimensions. `perm` names, for each dimension of the result, that of the input.
template <class T>
View<T> transpose(Out<T> out, View<T> x, const Shape& perm) {
  const Transposed<T> made(x, perm);
  T* y = out.make(made.shape());
  made.write(Rows<T>(y, x.size()));
  return {y, made.shape()};
}
template <class T>
Transposed<T> transposed(View<T> x, const Shape& perm) {
  return {x, perm};
}

}  // namespace adc::op
