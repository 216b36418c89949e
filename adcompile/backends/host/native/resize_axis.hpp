// Resampling along one axis: tables of taps, and the loops that follow them.
#pragma once

#include "join.hpp"
#include "resize_plan.hpp"

namespace adc::op::detail {

/// Taps of one output: `count` neighbours from `first` on, clamped to the border when used.
struct Taps {
  Index first;
  Index count;
};

/// Weights of output i at `position`; returns which inputs they belong to.
inline Taps resample_weights(const ResizeSpec& spec, const ResizeAxis& a, double position,
                             float* weight) {
  const bool cubic = spec.mode == Resample::cubic;
  const double shrink = spec.antialias && a.scale < 1 ? a.scale : 1.0;
  const double support = (cubic ? 2.0 : 1.0) / shrink;
  const auto first = static_cast<Index>(std::floor(position - support)) + 1;
  const auto last = static_cast<Index>(std::ceil(position + support)) - 1;
  const Index count = std::max(last - first + 1, Index{1});
  double total = 0;
  for (Index k = 0; k < count; ++k) {
    const double t = (position - static_cast<double>(first + k)) * shrink;
    double w = cubic ? cubic_weight(t, static_cast<double>(spec.cubic_a))
                     : std::max(0.0, 1.0 - std::fabs(t));
    const bool outside = first + k < 0 || first + k >= a.in;
    if (outside && spec.exclude_outside) w = 0;
    weight[k] = static_cast<float>(w);
    total += w;
  }
  if ((spec.exclude_outside || spec.antialias) && total != 0) {
    for (Index k = 0; k < count; ++k) {
      weight[k] = static_cast<float>(static_cast<double>(weight[k]) / total);
    }
  }
  return {first, count};
}

inline Index most_taps(const ResizeSpec& spec, const ResizeAxis& a) {
  const double shrink = spec.antialias && a.scale < 1 ? a.scale : 1.0;
  return static_cast<Index>(std::ceil((spec.mode == Resample::cubic ? 2.0 : 1.0) / shrink)) * 2 + 2;
}

/// The taps of all outputs along one axis; those of output j start at weights + j * stride.
struct TapTable {
  const Taps* taps;
  const float* weights;
  Index stride;
  Index in;

  [[nodiscard]] Index clamp(Index i) const { return std::min(std::max(i, Index{0}), in - 1); }
};

/// One row of a result whose elements are single numbers of a row of the input.
template <class T>
void resample_line(const T* x, const TapTable& table, Index out, T* y) {
  using F = Compute<T>;
  for (Index j = 0; j < out; ++j) {
    const Taps t = table.taps[j];
    const float* w = table.weights + j * table.stride;
    F total{};
    if (t.first >= 0 && t.first + t.count <= table.in) {
      const T* from = x + t.first;
      if (t.count == 2) {  // linear enlargement: nearly all outputs
        total = static_cast<F>(w[0]) * static_cast<F>(from[0]) +
                static_cast<F>(w[1]) * static_cast<F>(from[1]);
      } else {
        for (Index k = 0; k < t.count; ++k) total += static_cast<F>(w[k]) * static_cast<F>(from[k]);
      }
    } else {
      for (Index k = 0; k < t.count; ++k) {
        total += static_cast<F>(w[k]) * static_cast<F>(x[table.clamp(t.first + k)]);
      }
    }
    y[j] = math::cast<T>(total);
  }
}

/// y = a * p + b * q
template <class F, class T>
void blend(const T* p, F a, const T* q, F b, Index n, T* __restrict__ y) {
  for (Index i = 0; i < n; ++i) {
    y[i] = math::cast<T>(a * static_cast<F>(p[i]) + b * static_cast<F>(q[i]));
  }
}

/// The sum of any number of rows of `plane`, `inner` apart, with weights.
template <class T>
void add_rows(const T* plane, const TapTable& table, Index j, Index inner, Index n, T* y) {
  using F = Compute<T>;
  const Taps t = table.taps[j];
  const float* w = table.weights + j * table.stride;
  constexpr Index kBlock = 256;
  std::array<F, kBlock> total;
  for (Index begin = 0; begin < n; begin += kBlock) {
    const Index size = std::min(kBlock, n - begin);
    std::fill_n(total.data(), size, F{});
    for (Index k = 0; k < t.count; ++k) {
      const T* p = plane + table.clamp(t.first + k) * inner + begin;
      const F weight = static_cast<F>(w[k]);
      F* sum = total.data();
      for (Index i = 0; i < size; ++i) sum[i] += weight * static_cast<F>(p[i]);
    }
    for (Index i = 0; i < size; ++i) {
      y[begin + i] = math::cast<T>(total[static_cast<std::size_t>(i)]);
    }
  }
}

/// One output that is a row of `inner` numbers, made of rows of the input `plane`.
template <class T>
void resample_row(const T* plane, const TapTable& table, Index j, Index inner, const Rows<T>& y,
                  Index at) {
  using F = Compute<T>;
  const Taps t = table.taps[j];
  if (t.count == 2) {
    const float* w = table.weights + j * table.stride;
    const T* p = plane + table.clamp(t.first) * inner;
    const T* q = plane + table.clamp(t.first + 1) * inner;
    return y.each(at, inner, [=](T* row, Index first, Index n) {
      blend(p + first, static_cast<F>(w[0]), q + first, static_cast<F>(w[1]), n, row);
    });
  }
  y.each(at, inner, [=](T* row, Index first, Index n) {
    add_rows(plane + first, table, j, inner, n, row);
  });
}

/// Calls f(o, j) for all lines of [outer, out, inner], in order within a thread. f should hold what it
/// needs by value: each thread has its copy, which stays in registers.
template <class F>
void each_line(Index outer, Index out, Index inner, F f) {
  parallel_for(outer * out, 1 + kCopyGrain / (inner + 1), [&](Index from, Index to) {
    const F line_of = f;
    Index o = from / out;
    Index j = from % out;
    for (Index line = from; line < to; ++line) {
      line_of(o, j);
      if (++j == out) {
        j = 0;
        ++o;
      }
    }
  });
}

/// Resamples the middle dimension of [outer, in, inner] with a table of taps.
template <class T>
void resample_axis(const T* x, Index outer, Index out, Index inner, const TapTable& table,
                   const Rows<T>& y) {
  if (inner == 1) {
    parallel_for(outer, 1 + (1 << 15) / (out + 1), [&](Index from, Index to) {
      for (Index o = from; o < to; ++o) {
        y.each(o * out, out, [&](T* row, Index first, Index n) {
          const TapTable part{table.taps + first, table.weights + first * table.stride,
                              table.stride, table.in};
          resample_line(x + o * table.in, part, n, row);
        });
      }
    });
    return;
  }
  each_line(outer, out, inner, [=](Index o, Index j) {
    resample_row(x + o * table.in * inner, table, j, inner, y, (o * out + j) * inner);
  });
}

/// Every element `Times` times.
template <Index Times, class T>
void repeat_each(const T* x, Index n, T* __restrict__ y) {
  for (Index i = 0; i < n; ++i) {
    for (Index k = 0; k < Times; ++k) y[i * Times + k] = x[i];
  }
}

/// Takes elements of the middle dimension of [outer, in, inner].
template <class T>
void pick_axis(const T* x, Index outer, const ResizeAxis& a, Index inner, const Index* source,
               const Rows<T>& y) {
  const Index out = a.out;
  if (inner == 1) {
    const Index times = out % a.in == 0 ? out / a.in : 0;
    bool repeats = times == 2 || times == 4;
    for (Index j = 0; repeats && j < out; ++j) repeats = source[j] == j / times;
    parallel_for(outer, 1 + (1 << 15) / (out + 1), [&](Index from, Index to) {
      if (repeats && y.dense()) {
        const T* first = x + from * a.in;
        T* target = y.at(from * out);
        const Index n = (to - from) * a.in;
        return times == 2 ? repeat_each<2>(first, n, target) : repeat_each<4>(first, n, target);
      }
      for (Index o = from; o < to; ++o) {
        const T* line = x + o * a.in;
        y.each(o * out, out, [&](T* row, Index first, Index n) {
          for (Index j = 0; j < n; ++j) row[j] = line[source[first + j]];
        });
      }
    });
    return;
  }
  each_line(outer, out, inner, [=, in = a.in](Index o, Index j) {
    y.put((o * out + j) * inner, x + (o * in + source[j]) * inner, inner);
  });
}

}  // namespace adc::op::detail
