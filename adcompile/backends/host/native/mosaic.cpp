#include "mosaic.hpp"

#include "threads.hpp"

namespace adc {

namespace {

constexpr Index kGrain = 1 << 14;  // elements that are worth a thread

/// Pixels of a tile in a dense row.
Index tile_size(const TileSpec& tile) { return tile.height * tile.width; }

/// Calls body(element) with a value of an unsigned type as wide as the elements: tiles are moved
/// bit for bit, whatever the bits mean.
template <class F>
void with_element(DType dtype, F&& body) {
  switch (element_size(dtype)) {
    case 1: return body(std::uint8_t{});
    case 2: return body(std::uint16_t{});
    case 4: return body(std::uint32_t{});
    default: return body(std::uint64_t{});
  }
}

/// Calls body(first, last) over the channels, on threads when there is much to move.
template <class F>
void over_channels(Index channels, Index pixels, F&& body) {
  parallel_for(channels, kGrain / std::max(pixels, Index{1}) + 1, body);
}

/// to[c][r] = from[r][c], in blocks that stay in the cache.
template <class T>
void transpose(const T* from, Index rows, Index columns, Index from_stride, T* to,
               Index to_stride) {
  constexpr Index kBlock = 16;
  for (Index c0 = 0; c0 < columns; c0 += kBlock) {
    const Index c1 = std::min(c0 + kBlock, columns);
    for (Index r0 = 0; r0 < rows; r0 += kBlock) {
      const Index r1 = std::min(r0 + kBlock, rows);
      for (Index c = c0; c < c1; ++c) {
        for (Index r = r0; r < r1; ++r) to[c * to_stride + r] = from[r * from_stride + c];
      }
    }
  }
}

/// True for tiles of one pixel without gutters: an image is then the transpose of the rows.
bool is_dense(const TileSpec& tile) { return tile.pitch_y == 1 && tile.pitch_x == 1; }

/// Every line of the image is written once, from left to right: a piece of each tile, its gutter.
template <class T>
void pack(const T* rows, Index count, Index channels, const TileSpec& tile, const TileGrid& grid,
          T* image) {
  const Index high = grid.height(tile);
  const Index wide = grid.width(tile);
  const Index row = channels * tile_size(tile);
  over_channels(channels, high * wide, [&](Index first, Index last) {
    T* to = image + first * high * wide;
    if (is_dense(tile)) {
      transpose(rows + first, count, last - first, channels, to, high * wide);
      for (; first < last; ++first, to += high * wide) std::fill(to + count, to + high * wide, T{0});
      return;
    }
    for (Index c = first; c < last; ++c) {
      for (Index y = 0; y < high; ++y, to += wide) {
        const Index above = y / tile.pitch_y * grid.columns;  // tiles in the lines of tiles above
        const Index line = y % tile.pitch_y;                  // line within the tile
        const Index filled =
            line < tile.height ? std::clamp(count - above, Index{0}, grid.columns) : 0;
        const T* from = rows + above * row + c * tile_size(tile) + line * tile.width;
        T* at = to;
        for (Index t = 0; t < filled; ++t, from += row, at += tile.pitch_x) {
          for (Index x = 0; x < tile.width; ++x) at[x] = from[x];
          for (Index x = tile.width; x < tile.pitch_x; ++x) at[x] = 0;
        }
        std::fill(at, to + wide, T{0});
      }
    }
  });
}

template <class T>
void unpack(const T* image, Index channels, Index image_high, Index image_wide,
            const TileSpec& tile, const TileGrid& grid, Index count, T* rows) {
  const Index row = channels * tile_size(tile);
  over_channels(channels, image_high * image_wide, [&](Index first, Index last) {
    if (is_dense(tile) && image_wide == grid.columns) {
      const Index pixels = image_high * image_wide;
      transpose(image + first * pixels, last - first, count, pixels, rows + first, channels);
      return;
    }
    for (Index c = first; c < last; ++c) {
      for (Index t = 0; t < count; ++t) {
        const Index y = t / grid.columns * tile.pitch_y;
        const Index x = t % grid.columns * tile.pitch_x;
        const T* from = image + (c * image_high + y) * image_wide + x;
        T* to = rows + t * row + c * tile_size(tile);
        for (Index line = 0; line < tile.height; ++line, from += image_wide, to += tile.width) {
          for (Index i = 0; i < tile.width; ++i) to[i] = from[i];
        }
      }
    }
  });
}

}  // namespace

std::size_t Mosaic::grid_for(Index rows) const {
  for (std::size_t i = 0; i < grids.size(); ++i) {
    if (grids[i].capacity() >= rows) return i;
  }
  return grids.size() - 1;
}

Shape image_shape(const TileSpec& tile, const TileGrid& grid, Index channels) {
  return Shape{Index{1}, channels, grid.height(tile), grid.width(tile)};
}

Shape rows_shape(const TileSpec& tile, Index count, Index channels) {
  return tile.flat ? Shape{count, channels} : Shape{count, channels, tile.height, tile.width};
}

void pack_tiles(const AnyView& rows, const TileSpec& tile, const TileGrid& grid,
                std::byte* image) {
  const Shape& shape = rows.shape;
  const bool known = shape.rank() >= 2 && shape[0] <= grid.capacity();
  if (!known || shape != rows_shape(tile, shape[0], shape[1])) {
    fail("rows of shape " + shape.text() + " do not fit " + std::to_string(grid.capacity()) +
         " tiles of " + rows_shape(tile, 1, 1).text());
  }
  with_element(rows.dtype, [&](auto element) {
    using T = decltype(element);
    pack(static_cast<const T*>(rows.data), shape[0], shape[1], tile, grid,
         reinterpret_cast<T*>(image));
  });
}

void unpack_tiles(const AnyView& image, const TileSpec& tile, const TileGrid& grid, Index count,
                  std::byte* rows) {
  const Shape& shape = image.shape;
  if (shape.rank() != 4 || shape[0] != 1 || shape[2] < grid.height(tile) ||
      shape[3] < grid.width(tile) || count > grid.capacity()) {
    fail("an image of shape " + shape.text() + " does not hold " + std::to_string(count) +
         " tiles of " + image_shape(tile, grid, 1).text());
  }
  with_element(image.dtype, [&](auto element) {
    using T = decltype(element);
    unpack(static_cast<const T*>(image.data), shape[1], shape[2], shape[3], tile, grid, count,
           reinterpret_cast<T*>(rows));
  });
}

}  // namespace adc
