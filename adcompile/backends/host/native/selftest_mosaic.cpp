#include "selftest.hpp"

namespace adc {

namespace {

/// True when every pixel of `image` is that of its tile's row, or zero in a gutter or an empty tile.
bool as_defined(const std::byte* image, const AnyView& rows, const TileSpec& tile,
                const TileGrid& grid) {
  const std::size_t bytes = element_size(rows.dtype);
  const std::array<std::byte, 8> zero{};
  const auto* pixel = image;
  for (Index c = 0; c < rows.shape[1]; ++c) {
    for (Index y = 0; y < grid.height(tile); ++y) {
      for (Index x = 0; x < grid.width(tile); ++x, pixel += bytes) {
        const Index row = y / tile.pitch_y * grid.columns + x / tile.pitch_x;
        const Index in_y = y % tile.pitch_y;
        const Index in_x = x % tile.pitch_x;
        const bool filled = row < rows.shape[0] && in_y < tile.height && in_x < tile.width;
        const Index at = ((row * rows.shape[1] + c) * tile.height + in_y) * tile.width + in_x;
        const auto* wanted = filled ? static_cast<const std::byte*>(rows.data) +
                                          static_cast<std::size_t>(at) * bytes
                                    : zero.data();
        if (std::memcmp(pixel, wanted, bytes) != 0) return false;
      }
    }
  }
  return true;
}

}  // namespace

std::string check_mosaic(const NamedTile& named, const std::vector<TileGrid>& grids,
                         const AnyView& rows) {
  require(rows.shape.rank() >= 2, "recorded rows have no channels");
  const TileSpec& tile = named.tile;
  for (const TileGrid& grid : grids) {
    AnyView some = rows;
    some.shape[0] = std::min(rows.shape[0], grid.capacity());
    AnyView image(rows.dtype, image_shape(tile, grid, rows.shape[1]), nullptr);
    Buffer memory(image.bytes());
    Buffer cut(some.bytes());
    image.data = memory.data();
    pack_tiles(some, tile, grid, memory.data());
    unpack_tiles(image, tile, grid, some.shape[0], cut.data());
    const std::string text = std::to_string(grid.rows) + " by " + std::to_string(grid.columns);
    if (!as_defined(memory.data(), some, tile, grid)) return "wrong image of " + text + " tiles";
    if (std::memcmp(cut.data(), some.data, some.bytes()) != 0) {
      return "wrong rows from an image of " + text + " tiles";
    }
  }
  return "";
}

}  // namespace adc
