#include "rows.hpp"

namespace adc {

namespace {

const TileSpec& tile_of(const std::vector<NamedTile>& tiles, const Port& port,
                        const std::string& part) {
  for (const NamedTile& named : tiles) {
    if (named.name == port.name) return named.tile;
  }
  fail("part " + part + ": its mosaic has no tiles for '" + port.name + "'");
}

/// The tiles of every port. A row of a port must be one tile of known channels.
std::vector<TileSpec> tiles_of(const std::vector<NamedTile>& tiles, const std::vector<Port>& ports,
                               const std::string& part) {
  std::vector<TileSpec> found;
  for (const Port& port : ports) {
    const TileSpec& tile = tile_of(tiles, port, part);
    const Index channels = port.dims.size() < 2 ? 0 : port.dims[1];
    const Shape row = rows_shape(tile, kFree, channels);
    if (channels < 1 || port.dims != std::vector<Index>(row.begin(), row.end())) {
      fail("part " + part + ": a row of '" + port.name + "' is not one tile of its mosaic");
    }
    found.push_back(tile);
  }
  return found;
}

class ByMosaic final : public RowStage {
 public:
  ByMosaic(const std::string& kind, const EngineContext& context, Mosaic layout)
      : RowStage(context.part->name, context.inputs, context.outputs),
        layout_(std::move(layout)),
        tiles_in_(tiles_of(layout_.inputs, inputs(), name())),
        tiles_out_(tiles_of(layout_.outputs, outputs(), name())),
        images_(inputs().size()),
        fed_(inputs().size()),
        got_(outputs().size()) {
    for (const TileGrid& grid : layout_.grids) {
      EngineContext image = context;
      image.rows = grid.capacity();
      for (std::size_t i = 0; i < tiles_in_.size(); ++i) {
        const Shape shape = image_shape(tiles_in_[i], grid, image.inputs[i].dims[1]);
        image.inputs[i].dims.assign(shape.begin(), shape.end());
      }
      // A device may give more pixels than the grid has: the rest is nobody's.
      for (Port& port : image.outputs) port.dims = {1, port.dims[1], kFree, kFree};
      stages_.push_back(open_engine(kind, image));
    }
  }

  /// Of the smallest image: the models differ in nothing but their size.
  [[nodiscard]] std::string placement() const override { return stages_.front()->placement(); }

 private:
  void run_rows(const AnyView* in, Index rows, AnyView* out) override {
    for (std::size_t i = 0; i < fed_.size(); ++i) check_port(in[i], inputs()[i]);
    for (Index start = 0; start < rows;) {
      const std::size_t which = layout_.grid_for(rows - start);
      const TileGrid& grid = layout_.grids[which];
      const Index count = std::min(grid.capacity(), rows - start);
      for (std::size_t i = 0; i < fed_.size(); ++i) feed(i, slice(in[i], start, count), grid);
      stages_[which]->run(fed_.data(), got_.data());
      for (std::size_t i = 0; i < got_.size(); ++i) out[i] = collect(i, start, count, rows, grid);
      start += count;
    }
  }

  void feed(std::size_t i, const AnyView& rows, const TileGrid& grid) {
    const Shape shape = image_shape(tiles_in_[i], grid, rows.shape[1]);
    const AnyView image(rows.dtype, shape, nullptr);
    std::byte* to = images_[i].reserve(image.bytes());
    pack_tiles(rows, tiles_in_[i], grid, to);
    fed_[i] = AnyView(rows.dtype, shape, to);
  }

  /// Cuts `count` rows out of the image and puts them behind those of earlier calls.
  AnyView collect(std::size_t i, Index start, Index count, Index rows, const TileGrid& grid) {
    check_port(got_[i], stages_.front()->outputs()[i]);
    const Shape all = rows_shape(tiles_out_[i], rows, outputs()[i].dims[1]);
    const AnyView whole(got_[i].dtype, all, nullptr);
    const std::size_t bytes = whole.bytes() / static_cast<std::size_t>(rows);
    unpack_tiles(got_[i], tiles_out_[i], grid, count, joined(i, rows, start, bytes));
    return {got_[i].dtype, all, joined(i, rows, 0, bytes)};
  }

  Mosaic layout_;
  std::vector<TileSpec> tiles_in_;
  std::vector<TileSpec> tiles_out_;
  std::vector<std::unique_ptr<Stage>> stages_;  // one per grid
  std::vector<Buffer> images_;
  std::vector<AnyView> fed_;
  std::vector<AnyView> got_;
};

}  // namespace

std::string mosaic_of(const PartInfo& part) {
  for (const OptionInfo& known : part.options) {
    if (std::string("mosaic") == known.name) return known.value;
  }
  return "";
}

std::unique_ptr<Stage> by_mosaic(const std::string& kind, const EngineContext& context,
                                 const std::string& layout) {
  const std::string where = std::string("mosaic of part ") + context.part->name;
  return std::make_unique<ByMosaic>(kind, context, parse_mosaic(layout, where));
}

}  // namespace adc
