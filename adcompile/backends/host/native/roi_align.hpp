// Pooling of regions of interest with bilinear samples.
#pragma once

#include "transpose.hpp"

namespace adc::op {

enum class Pool { mean, largest };

namespace detail {

/// One bilinear sample: four places in a plane and their weights.
struct Sample {
  std::array<std::int32_t, 4> at;
  std::array<float, 4> weight;
};

inline Sample bilinear_sample(float y, float x, Index height, Index width) {
  Sample s{};
  // More than a pixel outside: all weights stay zero. A NaN fails every comparison.
  if (!(y >= -1.0f && y <= static_cast<float>(height) && x >= -1.0f &&
        x <= static_cast<float>(width))) {
    return s;
  }
  y = std::max(y, 0.0f);
  x = std::max(x, 0.0f);
  auto top = static_cast<Index>(y);
  auto left = static_cast<Index>(x);
  if (top >= height - 1) {
    top = height - 1;
    y = static_cast<float>(top);
  }
  if (left >= width - 1) {
    left = width - 1;
    x = static_cast<float>(left);
  }
  const Index bottom = std::min(top + 1, height - 1);
  const Index right = std::min(left + 1, width - 1);
  const float ly = y - static_cast<float>(top);
  const float lx = x - static_cast<float>(left);
  const float hy = 1.0f - ly;
  const float hx = 1.0f - lx;
  const auto place = [width](Index r, Index c) { return static_cast<std::int32_t>(r * width + c); };
  s.at = {place(top, left), place(top, right), place(bottom, left), place(bottom, right)};
  s.weight = {hy * hx, hy * lx, ly * hx, ly * lx};
  return s;
}

struct RoiGeometry {
  Index height;
  Index width;
  Index rows;
  Index cols;
  Index ratio;  // samples per cell and side; 0: as many as the cell has pixels
  float scale;
  bool half_pixel;
};

/// Fills `samples` (rows * cols * ny * nx of them, cell by cell); returns ny * nx.
inline Index roi_samples(const float* box, const RoiGeometry& g, Sample* samples, Index room) {
  const float offset = g.half_pixel ? 0.5f : 0.0f;
  const float x1 = box[0] * g.scale - offset;
  const float y1 = box[1] * g.scale - offset;
  float w = box[2] * g.scale - offset - x1;
  float h = box[3] * g.scale - offset - y1;
  if (!g.half_pixel) {
    w = std::max(w, 1.0f);
    h = std::max(h, 1.0f);
  }
  const float cell_h = h / static_cast<float>(g.rows);
  const float cell_w = w / static_cast<float>(g.cols);
  const auto adaptive = [](float cell) {
    // A box is at most a few pictures wide; anything else is a broken number.
    return cell > 0 && cell < 65536.0f ? static_cast<Index>(std::ceil(cell)) : Index{1};
  };
  const Index ny = g.ratio > 0 ? g.ratio : adaptive(cell_h);
  const Index nx = g.ratio > 0 ? g.ratio : adaptive(cell_w);
  const Index count = ny * nx;
  if (samples == nullptr) return count;
  require(g.rows * g.cols * count <= room, "RoiAlign: more samples than planned");
  for (Index r = 0; r < g.rows; ++r) {
    for (Index c = 0; c < g.cols; ++c) {
      for (Index iy = 0; iy < ny; ++iy) {
        const float y = y1 + static_cast<float>(r) * cell_h +
                        (static_cast<float>(iy) + 0.5f) * cell_h / static_cast<float>(ny);
        for (Index ix = 0; ix < nx; ++ix) {
          const float x = x1 + static_cast<float>(c) * cell_w +
                          (static_cast<float>(ix) + 0.5f) * cell_w / static_cast<float>(nx);
          *samples++ = bilinear_sample(y, x, g.height, g.width);
        }
      }
    }
  }
  return count;
}

/// Channel by channel: good for a few boxes.
inline void roi_planar(const float* x, Index channels, Index plane, const Sample* samples,
                       Index cells, Index count, Pool mode, float* y) {
  for (Index c = 0; c < channels; ++c, x += plane) {
    const Sample* s = samples;
    for (Index cell = 0; cell < cells; ++cell) {
      float total = mode == Pool::mean ? 0.0f : -std::numeric_limits<float>::infinity();
      for (Index k = 0; k < count; ++k, ++s) {
        const float a = s->weight[0] * x[s->at[0]];
        const float b = s->weight[1] * x[s->at[1]];
        const float d = s->weight[2] * x[s->at[2]];
        const float e = s->weight[3] * x[s->at[3]];
        if (mode == Pool::mean) {
          total += a + b + d + e;
        } else {
          total = std::max({total, a, b, d, e});
        }
      }
      *y++ = mode == Pool::mean ? total / static_cast<float>(count) : total;
    }
  }
}

/// On a map with the channels innermost: every sample is four contiguous rows.
inline void roi_packed(const float* x, Index channels, const Sample* samples, Index cells,
                       Index count, float* tile, float* y) {
  const float share = 1.0f / static_cast<float>(count);
  for (Index cell = 0; cell < cells; ++cell) {
    float* __restrict__ total = tile + cell * channels;
    std::fill_n(total, channels, 0.0f);
    for (Index k = 0; k < count; ++k) {
      const Sample& s = samples[cell * count + k];
      const float* a = x + s.at[0] * channels;
      const float* b = x + s.at[1] * channels;
      const float* d = x + s.at[2] * channels;
      const float* e = x + s.at[3] * channels;
      const float wa = s.weight[0] * share;
      const float wb = s.weight[1] * share;
      const float wd = s.weight[2] * share;
      const float we = s.weight[3] * share;
      for (Index c = 0; c < channels; ++c) {
        total[c] += wa * a[c] + wb * b[c] + wd * d[c] + we * e[c];
      }
    }
  }
  // [cell][channel] to [channel][cell], in blocks that stay in the cache.
  constexpr Index kBlock = 16;
  for (Index c0 = 0; c0 < channels; c0 += kBlock) {
    const Index c1 = std::min(channels, c0 + kBlock);
    for (Index cell = 0; cell < cells; ++cell) {
      for (Index c = c0; c < c1; ++c) y[c * cells + cell] = tile[cell * channels + c];
    }
  }
}

}  // namespace detail

/// x [n, c, h, w], boxes [k, 4] (x1 y1 x2 y2), image of each box [k] -> [k, c, rows, cols].
inline View<float> roi_align(Out<float> out, Scratch& scratch, View<float> x, View<float> boxes,
                             View<Index> image, const Shape& cells, Index ratio, float scale,
                             bool half_pixel, Pool mode) {
  require(x.rank() == 4 && boxes.rank() == 2 && boxes.dim(1) == 4, "RoiAlign: wrong shapes");
  require(image.size() == boxes.dim(0), "RoiAlign: one image index per box");
  const Index count = boxes.dim(0);
  const Index channels = x.dim(1);
  const Index plane = x.dim(2) * x.dim(3);
  require(plane > 0 && plane < (Index{1} << 31), "RoiAlign: map too small or too large");
  const detail::RoiGeometry g{x.dim(2), x.dim(3), cells[0], cells[1], ratio, scale, half_pixel};
  const Index per_box = g.rows * g.cols;
  const Shape shape{count, channels, g.rows, g.cols};
  float* y = out.make(shape);
  if (shape.size() == 0) return {y, shape};
  Index most = 0;
  for (Index k = 0; k < count; ++k) {
    detail::wrap_index(image[k], x.dim(0));
    most = std::max(most, detail::roi_samples(boxes.data() + 4 * k, g, nullptr, 0));
  }
  const Index room = checked_product(per_box, most);
  // Packing a map costs one pass over it; worth it when the samples touch more than that.
  const bool packed = mode == Pool::mean && channels >= 8 &&
                      checked_product(count, checked_product(room, 4)) > 2 * plane * x.dim(0);
  float* map = nullptr;
  if (packed) {
    map = scratch.take<float>(2, x.size());
    for (Index n = 0; n < x.dim(0); ++n) {
      transpose(Out<float>(reinterpret_cast<std::byte*>(map + n * channels * plane),
                           Shape{plane, channels}),
                View<float>(x.data() + n * channels * plane, Shape{channels, plane}), Shape{1, 0});
    }
  }
  constexpr Index kPieces = 8;
  const Index piece = (count + kPieces - 1) / kPieces;
  auto* samples = scratch.take<detail::Sample>(0, checked_product(room, kPieces));
  float* tiles = scratch.take<float>(1, packed ? kPieces * per_box * channels : 1);
  parallel_for(kPieces, 1, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      detail::Sample* own = samples + p * room;
      for (Index k = p * piece; k < std::min(count, (p + 1) * piece); ++k) {
        const Index n = detail::wrap_index(image[k], x.dim(0));
        const Index each = detail::roi_samples(boxes.data() + 4 * k, g, own, room);
        float* to = y + k * channels * per_box;
        if (packed) {
          detail::roi_packed(map + n * channels * plane, channels, own, per_box, each,
                             tiles + p * per_box * channels, to);
        } else {
          detail::roi_planar(x.data() + n * channels * plane, channels, plane, own, per_box, each,
                             mode, to);
        }
      }
    }
  });
  return {y, shape};
}

}  // namespace adc::op
