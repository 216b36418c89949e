// Rows of regions as tiles of one image: layout and kernels. A device that takes one image per call
// runs many regions in it when they lie side by side, kept apart by gutters of zeros.
//
// The compiler makes the model that works on such images (adcompile/lower/mosaic.py) and writes the
// layout into the part's options; adcompile/runtime/tiles.py is the same in Python, bit for bit.
#pragma once

#include <string>

#include "part.hpp"

namespace adc {

/// One tensor as tiles. A flat tensor (rows × channels) has one pixel per tile.
struct TileSpec {
  Index height = 1;
  Index width = 1;
  Index pitch_y = 1;  // distance between the corners of neighbouring tiles, at least the tile's size
  Index pitch_x = 1;
  bool flat = false;
};

/// Tiles of one image.
struct TileGrid {
  Index rows = 1;
  Index columns = 1;

  [[nodiscard]] Index capacity() const { return rows * columns; }
  [[nodiscard]] Index height(const TileSpec& tile) const { return rows * tile.pitch_y; }
  [[nodiscard]] Index width(const TileSpec& tile) const { return columns * tile.pitch_x; }
};

struct NamedTile {
  std::string name;
  TileSpec tile;
};

/// Layout of a part: its tensors, and the grids that it was compiled for, smallest first.
struct Mosaic {
  std::vector<NamedTile> inputs;
  std::vector<NamedTile> outputs;
  std::vector<TileGrid> grids;

  /// Number of the smallest grid that holds `rows`, else of the largest.
  [[nodiscard]] std::size_t grid_for(Index rows) const;
};

/// Reads a layout. Fails, naming the field, when one is unknown, missing, not a whole number or out
/// of range, when a tile does not fit its pitch or when an image would be too large.
[[nodiscard]] Mosaic parse_mosaic(const std::string& text, const std::string& where);

/// Fails, naming `where` and the field, unless tile and grid describe an image of sane size.
void check_tiles(const TileSpec& tile, const TileGrid& grid, const std::string& where);

/// Shape of the image that holds `channels` of these tiles.
[[nodiscard]] Shape image_shape(const TileSpec& tile, const TileGrid& grid, Index channels);
/// Shape of `count` rows as they are outside of images.
[[nodiscard]] Shape rows_shape(const TileSpec& tile, Index count, Index channels);

/// Writes rows (count × channels × height × width, or count × channels) as an image of
/// `image_shape`; gutters and tiles without a row become zero. Fails when the rows do not fit.
void pack_tiles(const AnyView& rows, const TileSpec& tile, const TileGrid& grid, std::byte* image);

/// Cuts the first `count` tiles out of an image, which may be larger than the grid, into dense rows.
void unpack_tiles(const AnyView& image, const TileSpec& tile, const TileGrid& grid, Index count,
                  std::byte* rows);

}  // namespace adc
