#include "selftest.hpp"

#include <cmath>
#include <map>

#include "compare.hpp"
#include "manifest.hpp"
#include "npy.hpp"
#include "rows.hpp"

namespace adc {

namespace {

/// Smallest signal-to-noise ratio in dB of every device part that is below its bound.
using Noisy = std::map<std::string, double>;

/// Two runs of one model differ less than this, in dB.
constexpr double kSameNoise = 3;

class Replay {
 public:
  Replay(Bundle& bundle, const GoldenInfo& sample, std::FILE* report, SelftestResult& result,
         Noisy& noisy)
      : bundle_(bundle), info_(bundle.info()), report_(report), result_(result), noisy_(noisy) {
    recorded_.resize(info_.values.size());
    for (const GoldenTensor& t : sample.tensors) {
      recorded_[static_cast<std::size_t>(t.value)] = read_npy(bundle.folder() + "/" + t.path);
      known_.push_back(t.value);
    }
  }

  void part(std::size_t index) {
    const PartInfo& part = info_.parts[index];
    if (part.generated < 0) mosaics(part);
    if (!bundle_.is_open(index)) return;
    for (const int v : part.inputs) {
      if (!known(v)) {
        std::fprintf(report_, "  %-20s skipped: '%s' was not recorded\n", part.name, name(v));
        ++result_.skipped;
        return;
      }
      bundle_.set(v, recorded_[static_cast<std::size_t>(v)].view());
    }
    bundle_.run_part(index);
    check(part, bundle_.seconds()[index]);
    const std::string placement = bundle_.placement(index);
    if (!placement.empty()) std::fprintf(report_, "    %s\n", placement.c_str());
  }

 private:
  [[nodiscard]] bool known(int value) const {
    return std::find(known_.begin(), known_.end(), value) != known_.end();
  }
  [[nodiscard]] const char* name(int value) const {
    return info_.values[static_cast<std::size_t>(value)].name;
  }
  [[nodiscard]] std::string role(int value) const {
    for (const OutputInfo& output : info_.outputs) {
      if (output.value == value) return output.role;
    }
    return "part";
  }

  /// Tiles of a part of regions, for the tensors that were recorded.
  void mosaics(const PartInfo& part) {
    const std::string text = mosaic_of(part);
    if (text.empty()) return;
    const Mosaic layout = parse_mosaic(text, std::string("mosaic of part ") + part.name);
    std::fprintf(report_, "  %-20s regions as tiles of %zu image sizes\n", part.name,
                 layout.grids.size());
    for (const std::vector<NamedTile>& tiles : {layout.inputs, layout.outputs}) {
      for (const NamedTile& tile : tiles) {
        const int value = bundle_.find(tile.name);
        if (value < 0 || !known(value)) continue;
        const AnyView rows = recorded_[static_cast<std::size_t>(value)].view();
        const std::string wrong = check_mosaic(tile, layout.grids, rows);
        ++result_.compared;
        if (!wrong.empty()) ++result_.different;
        std::fprintf(report_, "    %-40s %s%s\n", tile.name.c_str(),
                     wrong.empty() ? "equal" : "DIFFERENT: ", wrong.c_str());
      }
    }
  }

  /// Host parts by the roles of their tensors, quantized device parts by signal to noise.
  static std::vector<Difference> differences(const PartInfo& part, const std::vector<AnyView>& got,
                                             const std::vector<AnyView>& wanted,
                                             const std::vector<ToleranceInfo>& tolerances) {
    if (part.generated >= 0 || part.snr_db <= 0) return compare_rows(got, wanted, tolerances);
    std::vector<Difference> found;
    for (std::size_t i = 0; i < got.size(); ++i) {
      found.push_back(compare_signal(got[i], wanted[i], part.snr_db));
    }
    return found;
  }

  void check(const PartInfo& part, double seconds) {
    std::vector<int> values;
    std::vector<AnyView> got;
    std::vector<AnyView> wanted;
    std::vector<ToleranceInfo> tolerances;
    for (const int v : part.outputs) {
      if (!known(v)) continue;
      values.push_back(v);
      got.push_back(bundle_.get(v));
      wanted.push_back(recorded_[static_cast<std::size_t>(v)].view());
      tolerances.push_back(tolerance_of(info_, role(v)));
    }
    const std::vector<Difference> found = differences(part, got, wanted, tolerances);
    std::fprintf(report_, "  %-20s %.3f ms\n", part.name, seconds * 1e3);
    for (std::size_t i = 0; i < found.size(); ++i) {
      ++result_.compared;
      std::fprintf(report_, "    %-40s %s", name(values[i]), found[i].fits ? "equal" : "DIFFERENT");
      if (found[i].fits) {
        std::fprintf(report_, " (largest difference %g", found[i].worst);
        if (!found[i].ratio.empty()) std::fprintf(report_, ", %s", found[i].ratio.c_str());
        if (found[i].permuted > 0) {
          std::fprintf(report_, ", %lld rows in another order",
                       static_cast<long long>(found[i].permuted));
        }
        std::fprintf(report_, ")\n");
      } else {
        std::fprintf(report_, ": %s\n", found[i].why.c_str());
        ++result_.different;
        if (!found[i].ratio.empty()) {
          const double ratio = found[i].snr_db;
          double& worst = noisy_.emplace(part.name, ratio).first->second;
          if (std::isnan(ratio) || ratio < worst) worst = ratio;
        }
      }
    }
  }

  Bundle& bundle_;
  const BundleInfo& info_;
  std::FILE* report_;
  SelftestResult& result_;
  Noisy& noisy_;
  std::vector<Array> recorded_;
  std::vector<int> known_;
};

/// What a noisy part had when the bundle was built and simulated, NaN when that is not recorded.
double noise_when_built(const Json& manifest, const std::string& part) {
  const Json* found = manifest.find("results");
  if (found != nullptr) found = found->find("part " + part + " isolated snr_db");
  return found != nullptr && found->kind == Json::Kind::number ? found->number : std::nan("");
}

/// Says whether the quantization is to blame for noisy parts, or the device.
void explain(const Noisy& noisy, const std::string& folder, std::FILE* report) {
  if (noisy.empty()) return;
  const Json manifest = read_manifest(folder);
  for (const auto& [part, here] : noisy) {
    const double built = noise_when_built(manifest, part);
    std::fprintf(report, "%s: %g dB here, ", part.c_str(), here);
    if (std::isnan(built)) {
      std::fprintf(report, "unknown from the build; `adcompile verify` measures the simulation\n");
      continue;
    }
    const char* verdict = here >= built - kSameNoise
                              ? "its quantization is too coarse for this data, the device computes "
                                "as simulated; `adcompile verify` says where the noise comes from"
                              : "this device or its runtime computes other numbers than the "
                                "simulation";
    std::fprintf(report, "%g dB when it was built: %s\n", built, verdict);
  }
}

}  // namespace

SelftestResult run_selftest(const std::string& folder, const SelftestOptions& options,
                            std::FILE* report) {
  OpenOptions open;
  open.threads = options.threads;
  open.devices = !options.engine.empty();
  open.engine = options.engine;
  open.device = options.device;
  std::unique_ptr<Bundle> bundle;
  SelftestResult result;
  Noisy noisy;
  for (std::size_t sample = 0; sample < bundle_info().golden.size(); ++sample) {
    // A recorded engine answers for one sample; any other is opened once.
    open.sample = sample;
    if (!bundle || open.engine == "recorded") bundle = std::make_unique<Bundle>(folder, open);
    const BundleInfo& info = bundle->info();
    std::fprintf(report, "%s\n", info.golden[sample].source);
    Replay replay(*bundle, info.golden[sample], report, result, noisy);
    for (std::size_t i = 0; i < info.parts.size(); ++i) replay.part(i);
  }
  explain(noisy, folder, report);
  return result;
}

}  // namespace adc
