#include "manifest.hpp"

#include <filesystem>

#include "npy.hpp"
#include "sha256.hpp"

namespace adc {

namespace {

constexpr std::size_t kMaxManifest = std::size_t{64} << 20;
constexpr double kSchema = 1;  // of the manifest, the newest that is understood here
constexpr Json::Kind kText = Json::Kind::text;
constexpr Json::Kind kList = Json::Kind::list;

/// Compares one part of the manifest with the program's.
class PartCheck {
 public:
  PartCheck(const Json& part, const PartInfo& own, const BundleInfo& info)
      : part_(part), own_(own), info_(info) {}

  void run() const {
    text("name", own_.name);
    text("role", own_.role);
    text("placement", own_.generated >= 0 ? "host" : "device");
    text("executor", own_.executor);
    text("precision", own_.precision);
    tensors("inputs", own_.inputs);
    tensors("outputs", own_.outputs);
    options();
  }

 private:
  [[noreturn]] void differs(const std::string& field) const {
    fail(std::string("part ") + own_.name + ": manifest.json has another '" + field +
         "' than this program was generated for: build the program again from this bundle's host/");
  }

  void text(const char* field, const std::string& wanted) const {
    if (part_.at(field, kText, "manifest.json").text != wanted) differs(field);
  }

  void tensors(const char* field, const std::vector<int>& wanted) const {
    const std::vector<Json>& found = part_.at(field, kList, "manifest.json").items;
    if (found.size() != wanted.size()) differs(field);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Port& port = info_.values.at(static_cast<std::size_t>(wanted[i]));
      const std::vector<Json>& dims = found[i].at("shape", kList, "manifest.json").items;
      bool same = found[i].at("name", kText, "manifest.json").text == port.name &&
                  found[i].at("dtype", kText, "manifest.json").text == dtype_name(port.dtype) &&
                  dims.size() == port.dims.size();
      for (std::size_t d = 0; same && d < dims.size(); ++d) same = same_dim(dims[d], port.dims[d]);
      if (!same) differs(std::string(field) + "." + port.name);
    }
  }

  /// A free dimension is a symbol in the manifest.
  static bool same_dim(const Json& dim, Index wanted) {
    if (dim.kind == kText) return wanted == kFree;
    return dim.kind == Json::Kind::number && dim.number == static_cast<double>(wanted);
  }

  void options() const {
    const Json& found = part_.at("options", Json::Kind::object, "manifest.json");
    for (const OptionInfo& option : own_.options) {
      const Json* value = found.find(option.name);
      if (value == nullptr || value->text != option.value) {
        differs(std::string("options.") + option.name);
      }
    }
    for (const auto& member : found.members) {
      bool known = false;
      for (const OptionInfo& option : own_.options) known = known || member.first == option.name;
      if (!known) differs("options." + member.first);
    }
  }

  const Json& part_;
  const PartInfo& own_;
  const BundleInfo& info_;
};

}  // namespace

Json read_manifest(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  const std::vector<unsigned char> bytes = read_file(path, kMaxManifest);
  return parse_json(bytes.data(), bytes.size(), path);
}

void check_bundle_file(const std::string& folder, const std::string& path) {
  const Json manifest = read_manifest(folder);
  const Json* files = manifest.find("files");
  const Json* record = files == nullptr ? nullptr : files->find(path);
  if (record == nullptr) return;
  const std::string entry = folder + "/manifest.json: the entry of " + path;
  const Json& size = record->at("size", Json::Kind::number, entry);
  const Json& digest = record->at("sha256", kText, entry);
  const std::string full = folder + "/" + path;
  std::error_code error;
  const auto real = static_cast<double>(std::filesystem::file_size(full, error));
  if (error) fail(full + ": cannot open");
  if (real != size.number || sha256_of(full) != digest.text) {
    fail(full + ": the file is not the one that was built (size or SHA-256 differs)");
  }
}

void check_parts(const std::string& folder, const BundleInfo& info) {
  const Json manifest = read_manifest(folder);
  const Json* schema = manifest.find("schema_version");
  if (schema != nullptr && schema->number > kSchema) {
    fail(folder + "/manifest.json: written by a newer adcompile than this program");
  }
  const std::vector<Json>& parts = manifest.at("parts", kList, folder + "/manifest.json").items;
  if (parts.size() != info.parts.size()) {
    fail(folder + "/manifest.json: it has " + std::to_string(parts.size()) +
         " parts, this program was generated for " + std::to_string(info.parts.size()));
  }
  for (std::size_t i = 0; i < parts.size(); ++i) PartCheck(parts[i], info.parts[i], info).run();
}

bool is_bundle_path(const std::string& path) {
  if (path.empty() || path.find_first_of(std::string("\\:\0", 3)) != std::string::npos) return false;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string piece = path.substr(start, end - start);
    if (piece.empty() || piece == "." || piece == "..") return false;
    start = end + 1;
  }
  return true;
}

}  // namespace adc
