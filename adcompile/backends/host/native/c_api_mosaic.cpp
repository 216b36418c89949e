#include "c_api.hpp"
#include "mosaic.hpp"

namespace {

struct Tiles {
  adc::TileSpec tile;
  adc::TileGrid grid;
};

Tiles from_c(const adc_tiles* t) {
  if (t == nullptr) adc::fail("null argument");
  const Tiles found{{t->height, t->width, t->pitch_y, t->pitch_x, t->flat != 0},
                    {t->grid_rows, t->grid_columns}};
  adc::check_tiles(found.tile, found.grid, "tiles");
  return found;
}

/// The caller's memory for a tensor of this shape.
std::byte* memory(void* data, uint64_t bytes, const adc::AnyView& tensor) {
  if (data == nullptr || bytes < tensor.bytes()) {
    adc::fail("a result of " + std::to_string(tensor.bytes()) + " bytes does not fit " +
              std::to_string(data == nullptr ? 0 : bytes));
  }
  return static_cast<std::byte*>(data);
}

}  // namespace

extern "C" {

int adc_tiles_pack(const adc_tensor* rows, const adc_tiles* tiles, void* image, uint64_t bytes) {
  return adc::api::guarded([&] {
    const Tiles t = from_c(tiles);
    if (rows == nullptr) adc::fail("null argument");
    const adc::AnyView view = adc::api::from_c(*rows);
    if (view.shape.rank() < 2) adc::fail("rows without channels");
    const adc::Shape shape = adc::image_shape(t.tile, t.grid, view.shape[1]);
    std::byte* to = memory(image, bytes, {view.dtype, shape, nullptr});
    adc::pack_tiles(view, t.tile, t.grid, to);
  });
}

int adc_tiles_unpack(const adc_tensor* image, const adc_tiles* tiles, int64_t count, void* rows,
                     uint64_t bytes) {
  return adc::api::guarded([&] {
    const Tiles t = from_c(tiles);
    if (image == nullptr) adc::fail("null argument");
    const adc::AnyView view = adc::api::from_c(*image);
    if (view.shape.rank() != 4 || count < 0) adc::fail("not an image, or a negative count");
    const adc::Shape shape = adc::rows_shape(t.tile, count, view.shape[1]);
    std::byte* to = memory(rows, bytes, {view.dtype, shape, nullptr});
    adc::unpack_tiles(view, t.tile, t.grid, count, to);
  });
}

}  // extern "C"
