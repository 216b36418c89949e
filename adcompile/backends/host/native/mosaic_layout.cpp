#include <cmath>

#include "json.hpp"
#include "mosaic.hpp"

namespace adc {

namespace {

constexpr Index kMaxTiles = Index{1} << 16;
constexpr Index kMaxPitch = Index{1} << 16;
constexpr Index kMaxPixels = Index{1} << 26;  // of one channel of an image
constexpr std::array<const char*, 5> kTileFields{"height", "width", "pitch_y", "pitch_x", "flat"};
constexpr std::array<const char*, 2> kGridFields{"rows", "columns"};

/// The numbers of a list, each at least `least` and at most `most`.
template <std::size_t N>
std::array<Index, N> whole_numbers(const Json& list, const std::array<const char*, N>& fields,
                                   Index least, Index most, const std::string& where) {
  if (list.kind != Json::Kind::list || list.items.size() != N) {
    fail(where + ": not a list of " + std::to_string(N) + " numbers");
  }
  std::array<Index, N> found{};
  for (std::size_t i = 0; i < N; ++i) {
    const Json& item = list.items[i];
    const bool number = item.kind == Json::Kind::number && std::floor(item.number) == item.number;
    if (!number || item.number < static_cast<double>(least) ||
        item.number > static_cast<double>(most)) {
      fail(where + "." + fields[i] + ": not a whole number from " + std::to_string(least) +
           " to " + std::to_string(most));
    }
    found[i] = static_cast<Index>(item.number);
  }
  return found;
}

const Json& member(const Json& root, const std::string& name, Json::Kind kind,
                   const std::string& where) {
  const Json* found = root.find(name);
  if (found == nullptr) fail(where + "." + name + ": missing");
  if (found->kind != kind) fail(where + "." + name + ": of the wrong kind");
  return *found;
}

std::vector<NamedTile> tiles(const Json& root, const std::string& name, const std::string& where) {
  std::vector<NamedTile> found;
  for (const auto& [tensor, list] : member(root, name, Json::Kind::object, where).members) {
    const std::string place = where + "." + name + "." + tensor;
    const auto n = whole_numbers(list, kTileFields, 0, kMaxPitch, place);
    if (n[4] > 1) fail(place + ".flat: neither 0 nor 1");
    found.push_back({tensor, TileSpec{n[0], n[1], n[2], n[3], n[4] == 1}});
  }
  if (found.empty()) fail(where + "." + name + ": names no tensor");
  return found;
}

std::vector<TileGrid> grids(const Json& root, const std::string& where) {
  std::vector<TileGrid> found;
  for (const Json& list : member(root, "grids", Json::Kind::list, where).items) {
    const std::string place = where + ".grids[" + std::to_string(found.size()) + "]";
    const auto n = whole_numbers(list, kGridFields, 1, kMaxTiles, place);
    found.push_back({n[0], n[1]});
    if (found.back().capacity() > kMaxTiles) fail(place + ": too many tiles");
  }
  if (found.empty()) fail(where + ".grids: names no grid");
  const auto less = [](const TileGrid& a, const TileGrid& b) {
    return a.capacity() < b.capacity();
  };
  std::sort(found.begin(), found.end(), less);
  const auto same = [](const TileGrid& a, const TileGrid& b) {
    return a.capacity() == b.capacity();
  };
  if (std::adjacent_find(found.begin(), found.end(), same) != found.end()) {
    fail(where + ".grids: two of them hold as many tiles");
  }
  return found;
}

}  // namespace

void check_tiles(const TileSpec& tile, const TileGrid& grid, const std::string& where) {
  const auto fits = [](Index size, Index pitch) {
    return size >= 1 && size <= pitch && pitch <= kMaxPitch;
  };
  if (!fits(tile.height, tile.pitch_y)) fail(where + ".height: does not fit its pitch");
  if (!fits(tile.width, tile.pitch_x)) fail(where + ".width: does not fit its pitch");
  if (tile.flat && (tile.height != 1 || tile.width != 1)) {
    fail(where + ".flat: a flat tensor has one pixel per tile");
  }
  const auto sane = [](Index n) { return n >= 1 && n <= kMaxTiles; };
  if (!sane(grid.rows) || !sane(grid.columns) || grid.capacity() > kMaxTiles) {
    fail(where + ": a grid of so many tiles");
  }
  // At most 2^32 each, so their product fits.
  if (checked_product(grid.height(tile), grid.width(tile)) > kMaxPixels) {
    fail(where + ": its image would be too large");
  }
}

Mosaic parse_mosaic(const std::string& text, const std::string& where) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  const Json root = parse_json(bytes, text.size(), where);
  if (root.kind != Json::Kind::object) fail(where + ": not an object");
  for (const auto& known : root.members) {
    if (known.first != "inputs" && known.first != "outputs" && known.first != "grids") {
      fail(where + "." + known.first + ": unknown field");
    }
  }
  Mosaic found{tiles(root, "inputs", where), tiles(root, "outputs", where), grids(root, where)};
  for (const TileGrid& grid : found.grids) {
    for (const NamedTile& t : found.inputs) check_tiles(t.tile, grid, where + ".inputs." + t.name);
    for (const NamedTile& t : found.outputs) {
      check_tiles(t.tile, grid, where + ".outputs." + t.name);
    }
  }
  return found;
}

}  // namespace adc
