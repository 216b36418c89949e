#include "selftest.hpp"

#include <chrono>
#include <cmath>
#include <map>

#include "judge.hpp"
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
  /// `live`: device parts compute; recorded answers are only replayed.
  Replay(Bundle& bundle, const GoldenInfo& sample, bool live, std::FILE* report,
         SelftestResult& result, Noisy& noisy)
      : bundle_(bundle),
        info_(bundle.info()),
        live_(live),
        report_(report),
        result_(result),
        noisy_(noisy) {
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
    std::fprintf(report_, "  %-20s %.3f ms\n", part.name, bundle_.seconds()[index] * 1e3);
    check(part);
    const std::string placement = bundle_.placement(index);
    if (!placement.empty()) std::fprintf(report_, "    %s\n", placement.c_str());
  }

  /// From the model's inputs to its outputs, with everything that the devices' numbers lead to.
  void whole_run() {
    for (const int v : info_.inputs) {
      if (!known(v)) return;
      bundle_.set(v, recorded_[static_cast<std::size_t>(v)].view());
    }
    const auto start = std::chrono::steady_clock::now();
    bundle_.run();
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    std::fprintf(report_, "  %-20s %.3f ms\n", "whole run", spent.count());
    std::vector<int> values;
    for (const OutputInfo& output : info_.outputs) {
      if (known(output.value)) values.push_back(output.value);
    }
    say(values, judged(values));
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
    return "part";  // between parts
  }
  [[nodiscard]] bool is_output(int value) const {
    return std::any_of(info_.outputs.begin(), info_.outputs.end(),
                       [value](const OutputInfo& output) { return output.value == value; });
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

  /// Element by element: what is computed in float from recorded inputs.
  std::vector<Difference> strict(const std::vector<int>& values) {
    std::vector<AnyView> got;
    std::vector<AnyView> wanted;
    std::vector<ToleranceInfo> tolerances;
    for (const int v : values) {
      got.push_back(bundle_.get(v));
      wanted.push_back(recorded_[static_cast<std::size_t>(v)].view());
      tolerances.push_back(tolerance_of(info_.tolerances, role(v)));
    }
    return compare_rows(got, wanted, tolerances);
  }

  /// Outputs of the model, as `adcompile verify` judges them.
  std::vector<Difference> judged(const std::vector<int>& values) {
    std::vector<Judged> outputs;
    for (const int v : values) {
      outputs.push_back({role(v), bundle_.get(v), recorded_[static_cast<std::size_t>(v)].view()});
    }
    return judge(outputs, info_);
  }

  /// Quantized tensors that a device made of recorded inputs.
  std::vector<Difference> by_signal(const std::vector<int>& values, double snr_db) {
    std::vector<Difference> found;
    for (const int v : values) {
      const AnyView wanted = recorded_[static_cast<std::size_t>(v)].view();
      found.push_back(compare_signal(bundle_.get(v), wanted, snr_db));
    }
    return found;
  }

  /// Outputs of the model, where devices compute: a device's are judged always, a host part's where
  /// they are not the recorded numbers. What lies between the parts stays as it was found.
  void judge_outputs(bool device, const std::vector<int>& values, std::vector<Difference>& found) {
    std::vector<int> outputs;
    bool far = device;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!is_output(values[i])) continue;
      outputs.push_back(values[i]);
      far = far || !found[i].fits;
    }
    if (!far) return;
    const std::vector<Difference> judged_ones = judged(outputs);
    for (std::size_t i = 0, next = 0; i < values.size(); ++i) {
      if (is_output(values[i])) found[i] = judged_ones[next++];
    }
  }

  void check(const PartInfo& part) {
    std::vector<int> values;
    for (const int v : part.outputs) {
      if (known(v)) values.push_back(v);
    }
    const bool device = part.generated < 0;
    std::vector<Difference> found =
        device && part.snr_db > 0 ? by_signal(values, part.snr_db) : strict(values);
    if (live_) judge_outputs(device, values, found);
    say(values, found);
    for (const Difference& each : found) {
      if (!device || !each.snr_db) continue;
      double& worst = noisy_.emplace(part.name, *each.snr_db).first->second;
      if (std::isnan(*each.snr_db) || *each.snr_db < worst) worst = *each.snr_db;
    }
  }

  /// A line per tensor.
  void say(const std::vector<int>& values, const std::vector<Difference>& found) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Difference& each = found[i];
      ++result_.compared;
      if (!each.fits) ++result_.different;
      std::fprintf(report_, "    %-40s ", name(values[i]));
      if (!each.fits) {
        std::fprintf(report_, "DIFFERENT: %s\n", each.why.c_str());
        continue;
      }
      // a looser measure than number by number is named, and nothing is called equal by it
      std::fprintf(report_, "%s (largest difference %g", each.detail.empty() ? "equal" : "fits",
                   each.worst);
      if (!each.detail.empty()) std::fprintf(report_, ", %s", each.detail.c_str());
      if (each.permuted > 0) {
        std::fprintf(report_, ", %lld rows in another order",
                     static_cast<long long>(each.permuted));
      }
      std::fprintf(report_, ")\n");
    }
  }

  Bundle& bundle_;
  const BundleInfo& info_;
  bool live_;
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
    const bool live = open.devices && open.engine != "recorded";
    Replay replay(*bundle, info.golden[sample], live, report, result, noisy);
    for (std::size_t i = 0; i < info.parts.size(); ++i) replay.part(i);
    if (live) replay.whole_run();
  }
  explain(noisy, folder, report);
  return result;
}

}  // namespace adc
