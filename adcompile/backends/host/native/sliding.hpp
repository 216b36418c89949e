// Sliding windows taken apart: one dimension after the other, so that a window of 3 x 3 costs 3 + 3
// operations per output and not 9, in loops over many rows at once.
#pragma once

#include "math.hpp"
#include "threads.hpp"
#include "window.hpp"

namespace adc::op {

/// How the elements under a window are combined: `first` is the result of a window that sees none.
template <class F>
struct SlidingSum {
  static constexpr F first() { return F{}; }
  static F join(F a, F b) { return a + b; }
};
template <class F>
struct SlidingMax {
  static F first() {
    if constexpr (is_real<F>) return F(-std::numeric_limits<float>::infinity());
    return std::numeric_limits<F>::lowest();
  }
  static F join(F a, F b) { return math::max(b, a); }
};

namespace detail {

/// Some outputs of a span, as a span of its own over the inputs that they need: from `from` on.
struct Band {
  Span span;
  Index from = 0;
};

inline Band band_of(const Span& s, Index first, Index last) {
  Band band{s, 0};
  band.from = std::min(std::max(s.source(first, 0), Index{0}), s.in);
  const Index to = std::min(s.source(last - 1, s.kernel - 1) + 1, s.in);
  band.span.in = std::max(to - band.from, Index{0});
  band.span.out = last - first;
  band.span.before = s.before - first * s.stride + band.from;
  return band;
}

/// Combines `Taps` inputs, `gap` apart, into each of n outputs; `Fresh`: nothing is there yet.
template <class Fold, int Taps, bool Fresh, class F, class T>
void fold_some(const T* x, Index n, Index stride, Index gap, F* __restrict__ y) {
  const auto outputs = [=](auto step) {
    for (Index i = 0; i < n; ++i) {
      const T* at = x + i * step;
      F value = static_cast<F>(at[0]);
      if constexpr (!Fresh) value = Fold::join(y[i], value);
      if constexpr (Taps > 1) value = Fold::join(value, static_cast<F>(at[gap]));
      if constexpr (Taps > 2) value = Fold::join(value, static_cast<F>(at[2 * gap]));
      y[i] = value;
    }
  };
  if (stride == 1) {
    outputs(std::integral_constant<Index, 1>{});
  } else {
    outputs(stride);
  }
}

/// y[i] = x[i * stride] joined with x[i * stride + gap], …: `taps` of them, at most three per pass.
template <class Fold, class F, class T>
void fold_taps(const T* x, Index n, Index stride, Index gap, Index taps, F* y) {
  if (taps <= 0) {
    std::fill_n(y, std::max(n, Index{0}), Fold::first());
    return;
  }
  if (taps == 1) return fold_some<Fold, 1, true>(x, n, stride, gap, y);
  if (taps == 2) return fold_some<Fold, 2, true>(x, n, stride, gap, y);
  fold_some<Fold, 3, true>(x, n, stride, gap, y);
  for (Index k = 3; k < taps; k += 3) {
    const T* at = x + k * gap;
    switch (std::min(taps - k, Index{3})) {
      case 1:
        fold_some<Fold, 1, false>(at, n, stride, gap, y);
        break;
      case 2:
        fold_some<Fold, 2, false>(at, n, stride, gap, y);
        break;
      default:
        fold_some<Fold, 3, false>(at, n, stride, gap, y);
    }
  }
}

/// One output in each of `rows` rows that are `pitch` (in the result: `pace`) apart.
template <class Fold, class F, class T>
void fold_column(const T* x, Index rows, Index pitch, Index gap, Index taps, F* __restrict__ y,
                 Index pace) {
  const auto each_row = [=](auto count) {
    for (Index r = 0; r < rows; ++r) {
      F value = Fold::first();
      for (Index k = 0; k < count; ++k) {
        value = Fold::join(value, static_cast<F>(x[r * pitch + k * gap]));
      }
      y[r * pace] = value;
    }
  };
  if (taps == 1) {
    each_row(std::integral_constant<Index, 1>{});
  } else if (taps == 2) {
    each_row(std::integral_constant<Index, 2>{});
  } else {
    each_row(taps);
  }
}

/// Where a window along one dimension lies inside the input, and what it sees at the border.
struct Reach {
  explicit Reach(const Span& s) : span(s) {
    const Index room = s.in - 1 - (s.kernel - 1) * s.dilation + s.before;
    first = std::min(s.rounded_up(s.before), s.out);
    last = room < 0 ? first : std::min(std::max(room / s.stride + 1, first), s.out);
  }
  /// Taps [k, k + count) of output o lie inside; `source` is the first one's input.
  struct Seen {
    Index source;
    Index count;
  };
  [[nodiscard]] Seen seen(Index o) const {
    const Index at = span.source(o, 0);
    const Index k = at >= 0 ? 0 : (span.dilation - 1 - at) / span.dilation;
    const Index room = span.in - 1 - at;
    const Index end = room < 0 ? 0 : std::min(room / span.dilation + 1, span.kernel);
    return {at + k * span.dilation, std::max(end - k, Index{0})};
  }

  Span span;
  Index first = 0;  // outputs [first, last) see all taps
  Index last = 0;
};

/// Calls f for all outputs along a dimension whose window reaches over the border.
template <class F>
void each_border(const Reach& reach, F f) {
  for (Index o = 0; o < reach.first; ++o) f(o);
  for (Index o = reach.last; o < reach.span.out; ++o) f(o);
}

/// Folds the middle dimension: [outer, in, inner] to [outer, out, inner].
template <class Fold, class F, class T>
void fold_dimension(const Span& s, Index outer, Index inner, const T* x, F* y) {
  const Reach reach(s);
  const Index gap = s.dilation * inner;
  // Same length before and after: everything goes as one row, and what it gets wrong at the borders
  // is made anew.
  const bool as_one = s.stride == 1 && s.in == s.out && reach.first < reach.last;
  if (as_one) {
    const Index skipped = (s.in - (reach.last - reach.first)) * inner;
    fold_taps<Fold>(x + s.source(reach.first, 0) * inner, outer * s.in * inner - skipped, Index{1},
                    gap, s.kernel, y + reach.first * inner);
  }
  if (inner == 1) {
    if (!as_one && reach.first < reach.last) {
      for (Index r = 0; r < outer; ++r) {
        fold_taps<Fold>(x + r * s.in + s.source(reach.first, 0), reach.last - reach.first, s.stride,
                        gap, s.kernel, y + r * s.out + reach.first);
      }
    }
    each_border(reach, [&](Index o) {
      const Reach::Seen seen = reach.seen(o);
      fold_column<Fold>(x + seen.source, outer, s.in, gap, seen.count, y + o, s.out);
    });
    return;
  }
  for (Index r = 0; r < outer; ++r, x += s.in * inner, y += s.out * inner) {
    const auto row = [&](Index o, Index rows, const Reach::Seen& seen) {
      fold_taps<Fold>(x + seen.source * inner, rows * inner, Index{1}, gap, seen.count,
                      y + o * inner);
    };
    if (!as_one && s.stride == 1 && reach.first < reach.last) {
      row(reach.first, reach.last - reach.first, {s.source(reach.first, 0), s.kernel});
    }
    for (Index o = reach.first; !as_one && s.stride != 1 && o < reach.last; ++o) {
      row(o, 1, {s.source(o, 0), s.kernel});
    }
    each_border(reach, [&](Index o) { row(o, 1, reach.seen(o)); });
  }
}

/// Work on a tensor [n, c, …] in blocks that stay in the cache: some planes, or some rows of one.
struct Blocks {
  static constexpr Index kElements = 4096;

  Blocks(const Window& window, Index count) : w(window), planes(count) {
    if (w.dim[0].idle()) {  // depth is then one more dimension of planes
      planes *= w.dim[0].in;
      w.dim[0] = Span{};
    }
    const Index size = std::max(std::max(w.in_size(), w.out_size()), Index{1});
    group = std::min(std::max(kElements / size, Index{1}), std::max(planes, Index{1}));
    rows = w.dim[1].out;
    if (size > kElements && w.dim[0].idle()) {
      const Index width = std::max(std::max(w.dim[2].in, w.dim[2].out), Index{1});
      rows = std::min(rows, std::max(kElements / width, Index{1}));
    }
    bands = rows > 0 ? (w.dim[1].out + rows - 1) / rows : 0;
    count_ = (planes + group - 1) / group * bands;
  }

  [[nodiscard]] Index count() const { return count_; }
  /// Elements of the largest intermediate result of a block.
  [[nodiscard]] Index scratch() const {
    const Span& y = w.dim[1];
    const Index reach = (rows - 1) * y.stride + (y.kernel - 1) * y.dilation + 1;
    const Index height = std::max(bands > 1 ? std::min(reach, y.in) : y.in, rows);
    return group * std::max(w.dim[0].in, w.dim[0].out) * height * std::max(w.dim[2].in, w.dim[2].out);
  }

  Window w;
  Index planes;
  Index group = 1;  // planes of a block
  Index rows = 0;   // output rows of a block
  Index bands = 0;  // blocks of a group of planes

 private:
  Index count_ = 0;
};

/// Folds one block; the last step writes to y, the others to the two places in `spare`.
template <class Fold, class F, class T>
void fold_block(const Window& w, Index planes, const T* x, F* y, F* const* spare) {
  const Span& z = w.dim[0];
  const Index area = w.dim[1].in * w.dim[2].in;
  struct Step {
    const Span* span;
    Index outer;
    Index inner;
  };
  const std::array<Step, 3> steps{
      Step{&z, planes, area},
      Step{&w.dim[1], planes * z.out, w.dim[2].in},
      Step{&w.dim[2], planes * z.out * w.dim[1].out, 1},
  };
  std::size_t last = 2;  // a step that changes nothing is left out, but for one
  while (last > 0 && steps[last].span->idle()) --last;
  const F* from = nullptr;
  for (std::size_t i = 0; i <= last; ++i) {
    if (i < last && steps[i].span->idle()) continue;
    F* to = i == last ? y : spare[i];
    const Step& step = steps[i];
    if (from == nullptr) {
      fold_dimension<Fold>(*step.span, step.outer, step.inner, x, to);
    } else {
      fold_dimension<Fold>(*step.span, step.outer, step.inner, from, to);
    }
    from = to;
  }
}

}  // namespace detail

/// Folds all windows of x and hands every finished block to
/// done(values, first row, rows, y): `values` are the results of whole rows of the output, counted
/// through all planes; they lie in y itself when T is the type that is computed with.
template <class Fold, class F, class T, class Done>
void fold_windows(Scratch& scratch, const Window& window, Index planes, const T* x, T* y,
                  Done done) {
  const detail::Blocks blocks(window, planes);
  const Window& w = blocks.w;
  const Index work = blocks.count() * blocks.scratch();
  const Index most = std::min(blocks.count(), Index{4} * threads());
  const Index pieces = std::max(std::min(most, work / kCopyGrain), std::min(most, Index{1}));
  const Index size = blocks.scratch();
  F* spare = scratch.take<F>(1, checked_product(3 * size, pieces));
  parallel_for(pieces, 1, [&](Index from, Index to) {
    F* const mine = spare + from * 3 * size;
    F* const places[] = {mine, mine + size};
    for (Index b = from * blocks.count() / pieces; b < to * blocks.count() / pieces; ++b) {
      const Index plane = b / blocks.bands * blocks.group;
      const Index count = std::min(blocks.group, blocks.planes - plane);
      const Index row = b % blocks.bands * blocks.rows;
      const Index rows = std::min(blocks.rows, w.dim[1].out - row);
      detail::Band band{w.dim[1], 0};
      if (blocks.bands > 1) band = detail::band_of(w.dim[1], row, row + rows);
      Window part = w;
      part.dim[1] = band.span;
      const T* source = x + plane * w.in_size() + band.from * w.dim[2].in;
      const Index first = plane * w.dim[0].out * w.dim[1].out + row;
      T* target = y + first * w.dim[2].out;
      F* result = mine + 2 * size;
      if constexpr (std::is_same_v<F, T>) result = target;
      detail::fold_block<Fold>(part, count, source, result, places);
      done(result, first, count * w.dim[0].out * rows, target);
    }
  });
}

}  // namespace adc::op
